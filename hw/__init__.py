"""The hardware: Amaranth components of spiking transformers, one unit per file."""
