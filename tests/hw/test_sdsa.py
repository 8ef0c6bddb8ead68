import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gen.emit import yosys
from gen.errors import CheckFailed
from gen.verilog import convert
from hw.config import ConfigError
from hw.lif import Lif
from hw.sdsa import Sdsa, SdsaConfig
from hw.stream import AxiShell
from sim.runner import Design
from tests.sim.benches import bench, emitted, failures


@pytest.mark.parametrize(
    ("settings", "channels", "heads", "head_dim"),
    [({}, 64, 1, 64), ({"channels": 512}, 512, 1, 512), ({"heads": 3}, 192, 3, 64),
     ({"head_dim": 32}, 32, 1, 32), ({"channels": 512, "head_dim": 64}, 512, 8, 64),
     ({"channels": 96, "heads": 4}, 96, 4, 24)],
)  # fmt: skip
def test_sizes_follow_from_each_other(settings, channels, heads, head_dim):
    c = SdsaConfig(**settings)
    assert (c.channels, c.heads, c.head_dim) == (channels, heads, head_dim)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"channels": 10, "heads": 3}, "channels: want heads * head_dim (3 * 3), got 10"),
     ({"channels": 10, "channels_per_beat": 4},
      "channels_per_beat: want a divisor of channels (10), got 4"),
     ({"variant": 2, "masked": "k"},
      "masked: want q or v with variant=2, got 'k'"),
     ({"variant": 3, "masked": "v"}, "masked: want q with variant=3, got 'v'"),
     ({"variant": 5}, "variant: want 1..4, got 5"),
     ({"variant": 3, "columns": 24},
      "columns: want a divisor of head_dim (64), or a multiple of it that divides channels (64), "
      "got 24"),
     ({"variant": 3, "heads": 3, "columns": 128, "channels_per_beat": 64},
      "columns: want a divisor of head_dim (64), or a multiple of it that divides channels (192), "
      "got 128"),
     ({"variant": 3, "channels_per_beat": 32},
      "channels_per_beat: want 64 with variant=3, head_dim=64 and columns=4, got 32"),
     ({"variant": 4, "threshold": 9, "threshold_bits": 3},
      "threshold: want at most 7 in threshold_bits 3, got 9"),
     ({"width": 3}, "width: want a divisor of tokens (16), got 3"),
     ({"variant": 2, "pool": True},
      "pool: want keys and values that are summed, as with variant=1 and masked=q, "
      "got variant=2 and masked=v"),
     ({"threshold": 0}, "threshold: want 1..16777216, got 0")],
)  # fmt: skip
def test_refusals(settings, message):
    with pytest.raises(ConfigError) as error:
        SdsaConfig(**settings)
    assert str(error.value) == message


def test_a_large_prime_is_folded_to_single_channels():
    assert SdsaConfig(channels=1021).channels_per_beat == 1
    assert SdsaConfig(channels=1024).channels_per_beat == 512


@pytest.mark.parametrize(
    ("settings", "sum_bits", "total_bits"),
    [({"threshold": 1}, 1, 1), ({"threshold": 2}, 2, 2), ({"threshold": 5}, 4, 4),
     ({"threshold": 8}, 4, 4), ({"threshold": 8, "fire": "gt"}, 5, 5), ({"threshold": 99}, 7, 7),
     ({"threshold": 2, "reset": "soft"}, 7, 7), ({"variant": 3}, 4, 4),
     ({"variant": 3, "threshold": 500}, 7, 10), ({"variant": 3, "reset": "none"}, 7, 13),
     ({"variant": 4, "threshold_bits": 6}, 7, 7)],
)  # fmt: skip
def test_a_sum_is_as_wide_as_the_threshold_can_tell(settings, sum_bits, total_bits):
    config = SdsaConfig(tokens=64, **settings)
    assert (config.sum_bits, config.total_bits) == (sum_bits, total_bits)


@pytest.mark.parametrize("family", ["ice40", "ecp5"])
@pytest.mark.parametrize(
    "settings",
    ["variant=1 threshold=3", "variant=3 head_dim=8 count_sops=true", "variant=4 head_dim=4"],
)
def test_no_multiplier_and_no_dsp_block(tmp_path, settings, family):
    """Although Yosys may use some."""
    emission = emitted("sdsa", "tokens=6 heads=2 " + settings)
    (tmp_path / "a.v").write_text(emission.verilog)
    flow = {"ice40": "synth_ice40 -dsp", "ecp5": "synth_ecp5"}[family]
    cells = {"ice40": "SB_LUT4", "ecp5": "LUT4"}[family]
    yosys(
        f"read_verilog a.v; {flow} -top sdsa; select -assert-none t:SB_MAC16 t:MULT* t:ALU*; "
        f"select -assert-any t:{cells}",
        cwd=tmp_path,
    )


class Counted(SdsaConfig):
    """The counting form also where an OR would do."""

    exact_or = False


@pytest.mark.icarus
@pytest.mark.parametrize(
    "settings", ["tokens=5 channels=6 tau=3", "tokens=3 channels=8 channels_per_beat=4"]
)
def test_the_counting_form_is_equal_where_an_or_would_do(settings):
    """It passes the bench of the other one but for its clocks."""
    emission = emitted("sdsa", settings)
    assert emission.config.exact_or
    counted = Counted(**emission.config.asdict())
    shell = AxiShell(Sdsa(counted), counted.streams)
    red = failures(bench(emission, Design("sdsa", {"a.v": convert(shell, "sdsa", "v")}), "icarus"))
    assert set(red) == {"timing"}


class Proof(wiring.Component):
    """Neurons with whatever sums in whatever frames; `ok` while they fire as an OR would."""

    def __init__(self, config):
        self.config = config
        bits = config.sum_bits
        super().__init__(
            {"sum": In(bits), "valid": In(1), "first": In(1), "last": In(1), "ok": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.lif = lif = Lif(self.config.neuron(1, 1))
        possible = Mux(self.sum > self.config.tokens, 0, self.sum)
        any_ = Signal()
        m.d.sync += any_.eq(possible != 0)
        m.d.comb += [
            lif.current.payload.data[0].eq(possible),
            lif.current.payload.first.eq(self.first),
            lif.current.payload.last.eq(self.last),
            lif.current.valid.eq(self.valid),
            lif.spikes.ready.eq(1),
            self.ok.eq(~lif.spikes.valid | (lif.spikes.payload.data[0] == any_)),
        ]
        return m


def prove(config, folder):
    (folder / "proof.v").write_text(convert(Proof(config), "proof", "v"))
    yosys(
        "read_verilog proof.v; prep -flatten -top proof; async2sync; "
        "sat -tempinduct -verify -seq 1 -set-init-zero -prove ok 1"
        + (" -prove lif.core.state0 0" if config.tau > 2 else ""),
        cwd=folder,
    )


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0, 3.0])
@pytest.mark.parametrize("tokens", [1, 3, 16])
def test_proof_of_the_short_cut(tmp_path, tau, tokens):
    """By induction over time steps: a neuron fires if its sum is not 0, and is at 0 after it.

    At tau 1 and 2 it has no state left to be at 0.
    """
    config = SdsaConfig(tokens=tokens, channels=1, tau=tau)
    assert config.exact_or
    prove(config, tmp_path)


@pytest.mark.parametrize("other", [{"threshold": 2}, {"reset": "soft"}, {"fire": "gt"}])
def test_the_proof_fails_where_the_or_is_wrong(tmp_path, other):
    with pytest.raises(CheckFailed, match="proof did fail"):
        prove(SdsaConfig(tokens=3, channels=1, **other), tmp_path)
