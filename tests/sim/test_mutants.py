"""The bench goes red: every rule of the protocol, and some gates, are broken one at a time."""

import pytest

from hw.stream import axi_prefix
from sim.runner import Design
from tests.sim.benches import bench, design, emitted, failures

pytestmark = pytest.mark.icarus

LIF = "neurons=10 lanes=4"


def wrapped(emission, changes, registers=""):
    """Return the top with some ports reached through other logic; x is the port as it was."""
    inside = [("clk", "input", 1), ("rst", "input", 1), ("faults", "output", 8)]
    for s in emission.config.streams:
        there, back = ("input", "output") if s.direction == "in" else ("output", "input")
        prefix = axi_prefix(s, emission.config.streams)
        inside += [(f"{prefix}_tdata", there, s.tdata_width), (f"{prefix}_tready", back, 1)]
        inside += [(f"{prefix}_{n}", there, 1) for n in ("tlast", "tuser", "tvalid")]
    lines = [f"module {emission.top} ({', '.join(name for name, *_ in inside)});", registers]
    connections = []
    for name, direction, width in inside:
        lines += [f"{direction} [{width - 1}:0] {name};", f"wire [{width - 1}:0] x_{name};"]
        if direction == "input":
            lines.append(f"assign x_{name} = {changes.pop(name, name)};")
        else:
            lines.append(f"assign {name} = {changes.pop(name, f'x_{name}')};")
        connections.append(f".{name}(x_{name})")
    assert not changes
    lines += [f"{emission.name} inside ({', '.join(connections)});", "endmodule"]
    return Design(emission.top, {"top.v": "\n".join(lines) + "\n" + emission.verilog})


def test_wrapper_alone_passes():
    emission = emitted("lif", LIF, name="core")
    assert not failures(bench(emission, wrapped(emission, {}), "icarus"))


REGISTERS = """
reg turn = 0, again = 0;
always @(posedge clk) turn <= ~turn;
always @(posedge clk) again <= ~rst & (again ^ (m_axis_tvalid & m_axis_tready));
"""

PROTOCOL = {
    "valid waits for ready": (
        {"m_axis_tvalid": "x_m_axis_tvalid & m_axis_tready"},
        "valid_does_not_wait", "tvalid waits for tready",
    ),
    "valid in reset": (
        {"m_axis_tvalid": "x_m_axis_tvalid | rst"},
        "reset_anywhere", "tvalid is 1 during reset",
    ),
    "ready in reset": (
        {"s_axis_tready": "x_s_axis_tready | rst"},
        "reset_anywhere", "tready is 1 during reset",
    ),
    "valid drops": (
        {"m_axis_tvalid": "x_m_axis_tvalid & turn", "m_axis_tready": "m_axis_tready & turn"},
        "valid_does_not_wait", "tvalid dropped",
    ),
    "payload changes": (
        {"m_axis_tdata": "x_m_axis_tdata ^ (m_axis_tready ? 0 : turn)"},
        "golden_under_stalls/pattern=heavy", "payload changed while stalled",
    ),
    "high bits": (
        {"m_axis_tdata": "x_m_axis_tdata | 8'h80"},
        "golden_under_stalls/pattern=none", "unused high bits",
    ),
    "unknown ready": (
        {"s_axis_tready": "x_s_axis_tready & (turn ? 1'b1 : 1'bx)"},
        "power_up", "tready is X",
    ),
    "unknown payload": (
        {"m_axis_tlast": "x_m_axis_tlast & (turn ? 1'b1 : 1'bx)"},
        "power_up", "tlast X",
    ),
    "slow": (
        {"s_axis_tvalid": "s_axis_tvalid & turn", "s_axis_tready": "x_s_axis_tready & turn"},
        "timing", "want",
    ),
    "faults not counted": ({"faults": "0"}, "framing_faults", "faults: want 1, got 0"),
    "every beat twice": (
        {"m_axis_tready": "m_axis_tready & again"},
        "golden_under_stalls/pattern=none", "beats came",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", PROTOCOL)
def test_broken_protocol_is_found(change):
    changes, test, message = PROTOCOL[change]
    emission = emitted("lif", LIF, name="core")
    broken = wrapped(emission, dict(changes), REGISTERS)
    red = failures(bench(emission, broken, "icarus", only=test))
    assert message in red[test]


GATES = {
    "comparison": ("lif", LIF, "$signed(charged0) >= ", "$signed(charged0) > ",
                   "golden_under_stalls/pattern=none"),
    "state is carried over": ("lif", LIF, "opening ? ", "1'h0 ? ", "extremes"),
    "guard": ("lif", LIF, "assign i__ready = ", "assign i__ready = ~ ",
              "golden_under_stalls/pattern=none"),
    "random source": ("attention", "tokens=4 head_dim=4 timesteps=3", "state[31]", "state[30]",
                      "golden_under_stalls/pattern=none"),
}  # fmt: skip


@pytest.mark.parametrize("gate", GATES)
def test_broken_gate_is_found(gate):
    top, settings, old, new, test = GATES[gate]
    emission = emitted(top, settings)
    assert old in emission.verilog
    ((name, text),) = design(emission).files.items()
    broken = Design(top, {name: text.replace(old, new)})
    assert failures(bench(emission, broken, "icarus", only=test))
