"""From a component to files: Verilog, manifest, test bench; and what the commands share."""

__version__ = "0.1.0"
