"""``python -m bench.statistics``: errors of attention's outputs against independent sampling.

Writes the data, the figure and the section of ``docs/attention.md`` between its markers.
"""

import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
from rich.console import Console
from rich.progress import track

from bench.table import replace
from boards.digits import Front, images
from gen.emit import write
from gen.errors import Command
from gen.report import ACCENT, INK, MUTED, SECOND, STYLE, panels
from hw.attention import AttentionConfig
from sim import statistics as st

ROOT = Path(__file__).parent
DATA = ROOT / "studies" / "statistics.json"
PAGE = ROOT.parent / "docs" / "attention.md"
FIGURE = PAGE.parent / "attention_statistics.svg"

SEED = 1
SEEDS = 32
DIGITS = 4
CASE_SEED, NATURAL_SEED = 5, 11
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
RUN = 768
SHOWN = {
    "bit": "an output bit",
    "uniform": "a projection over a token's channels",
    "tokens": "the mean over tokens",
}
METRICS = ("gaussian", "uniform", "sparse", "tokens", "pooled")

Data = dict[str, Any]


def digit_cases(count: int, heads: int = 1) -> list[st.Case]:
    """Return q, k, v of the demo's first digits, of the second time step: 16 tokens, dK = 16."""
    front = Front(AttentionConfig(tokens=16, head_dim=16, heads=heads))
    out = []
    for i in range(count):
        spikes = front.spikes(images()[0][i])
        q, k, v = (spikes[name][1].astype(np.uint8) for name in "qkv")
        out.append(st.Case(f"digit {i}", q, k, v, heads))
    return out


def cases(tokens: int, size: int) -> list[st.Case]:
    """Return all inputs of a shape of which some output is random."""
    densities = (0.8, 0.5, 0.2, 0.1)
    out = [st.random_case(tokens, size, p, CASE_SEED) for p in densities]
    out += digit_cases(DIGITS) if tokens == size == 16 else []
    out += st.structured_cases(tokens, size)
    return [case for case in out if st.independent_moments(case).rms("bit") > 0]


def shared(case: st.Case, encoder: str, seed: int, sharing: str = "skewed") -> st.Moments:
    """Return the exact moments of a time step."""
    return st.shared_moments(st.outputs(case, encoder, seed, sharing), st.expectation(case))


def figure(value: float) -> float:
    """Return a value with four digits: more are not the same on every machine."""
    return float(f"{value:.4g}")


def ratios(tokens: int, size: int, seeds: int) -> Data:
    """Return the errors of one time step in units of independent sampling's: exact.

    By encoder, case and metric: of `SEED`, pooled (RMS) over the seeds, of the worst of them, and
    the share of the seeds above the bound.
    """
    out: Data = {}
    for encoder in st.ENCODERS:
        for case in cases(tokens, size):
            free = st.independent_moments(case)
            each = [shared(case, encoder, SEED + i) for i in range(seeds)]
            for metric in METRICS:
                found = np.array([m.rms(metric) for m in each]) / free.rms(metric)
                out.setdefault(encoder, {}).setdefault(case.name, {})[metric] = {
                    "first": figure(found[0]),
                    "pooled": figure(np.sqrt((found**2).mean())),
                    "worst": figure(found.max()),
                    "above": share(found),
                }
    return out


def errors_over_time(case: st.Case, encoder: str, rng: str, seed: int) -> list[np.ndarray]:
    """Return the errors of means over T steps, an array [blocks, N, D] for each of `STEPS`."""
    pairs = st.draw_pairs(rng, seed, case.bounds, RUN, encoder)
    bits = st.outputs(case, encoder, seed)[pairs[:, 0], pairs[:, 1]]
    errors = bits - st.expectation(case).astype(np.float32)
    out = []
    for steps in STEPS:
        blocks = 1 if rng == "sobol" else RUN // steps
        run = errors[: blocks * steps]
        out.append(run.reshape(blocks, steps, *run.shape[1:]).mean(1))
    return out


def over_time(chosen: list[st.Case], encoder: str, rng: str, seeds: int) -> Data:
    """Return, by metric, the RMS error and its standard error for each of `STEPS`.

    In units of one time step of independent sampling. Sobol's points are the same in every
    inference: the seeds of the constants are what it is averaged over.
    """
    found = {metric: np.zeros((seeds, len(STEPS))) for metric in (*SHOWN, "pooled")}
    for case in chosen:
        free = st.independent_moments(case)
        for i in range(seeds):
            errors = errors_over_time(case, encoder, rng, SEED + i)
            for metric, values in found.items():
                scale = free.rms(metric) ** 2 * len(chosen)
                values[i] += [st.squares(e, metric).mean() / scale for e in errors]
    out = {}
    for metric, values in found.items():
        rms = np.sqrt(values.mean(0))
        spread = values.std(0, ddof=1) / np.sqrt(seeds) / np.maximum(2 * rms, 1e-9)
        out[metric] = {"rms": [figure(x) for x in rms], "se": [figure(x) for x in spread]}
    return out


def curves() -> Data:
    """Return the error against T on the digits, for every encoder and source."""
    digits = digit_cases(DIGITS)
    out: Data = {}
    for encoder in st.ENCODERS:
        for rng in st.SOURCES:
            out[f"{encoder}, {rng}"] = over_time(digits, encoder, rng, SEEDS)
        blind = {}
        for metric in (*SHOWN, "pooled"):
            found = [
                shared(case, encoder, SEED, "unskewed").rms(metric)
                / st.independent_moments(case).rms(metric)
                for case in digits
            ]
            rms = np.sqrt(np.mean(np.square(found)))
            blind[metric] = {"rms": [figure(rms / np.sqrt(t)) for t in STEPS]}
        out[f"{encoder}, unskewed"] = blind
    return out


def sobol() -> Data:
    """Return the largest ratio over T with Sobol's sequence, by encoder, case and metric."""
    out: Data = {}
    for encoder in st.ENCODERS:
        for case in cases(16, 16):
            for metric, found in over_time([case], encoder, "sobol", SEEDS).items():
                ratio = np.array(found["rms"]) * np.sqrt(STEPS)
                margin = 3 * np.array(found["se"]) * np.sqrt(STEPS)
                at = int((ratio - margin).argmax())
                out.setdefault(encoder, {}).setdefault(case.name, {})[metric] = {
                    "ratio": figure(ratio[at]),
                    "se": figure(margin[at] / 3),
                    "steps": STEPS[at],
                }
    return out


def projections(size: int) -> Data:
    """Return the 99 % point and the maximum over 1000 projections, ours and of as many draws.

    Each in units of the exact error of independent sampling with the same weights.
    """
    out: Data = {}
    chosen = [case for case in cases(size, size) if re.match("random|digit", case.name)]
    for case in chosen:
        free = st.independent_moments(case)
        drawn = st.independent(case, size * size, np.random.default_rng(NATURAL_SEED))
        every = {"independent": st.shared_moments(drawn, st.expectation(case))}
        every |= {encoder: shared(case, encoder, SEED) for encoder in st.ENCODERS}
        for law in ("gaussian", "uniform", "sparse"):
            for name, moments in every.items():
                each = st.projection_ratios(moments, free, law)
                out.setdefault(case.name, {}).setdefault(law, {})[name] = {
                    "quantile": figure(np.quantile(each, 0.99)),
                    "most": figure(each.max()),
                }
    return out


def worst() -> Data:
    """Return the worst inputs found, by encoder and metric."""
    out: Data = {}
    for encoder in st.ENCODERS:
        for metric in ("tokens", "uniform"):

            def ratio(case: st.Case, encoder: str = encoder, metric: str = metric) -> float:
                free = st.independent_moments(case).rms(metric)
                return shared(case, encoder, SEED).rms(metric) / free if free else 0.0

            rng = np.random.default_rng(NATURAL_SEED)
            natural = [st.natural_case(16, 16, rng) for _ in range(1000)]
            found = [ratio(case) for case in natural]
            start = natural[int(np.argmax(found))]
            out.setdefault(encoder, {})[metric] = {
                "built": {
                    str(size): figure(ratio(st.against(encoder, metric, size, size, SEED)))
                    for size in (16, 64)
                },
                "structured": {"most": figure(max(found)), "over": share(found)},
                "climbed": figure(st.climbed(start, ratio, 1000, rng)[1]),
            }
    return out


def share(found: Iterable[float]) -> float:
    """Return the share of ratios above the bound."""
    return figure(float(np.mean(np.array(list(found)) > st.BOUND)))


def study() -> Data:
    """Return all data."""
    parts: dict[str, Callable[[], Any]] = {
        "ratios 16x16": lambda: ratios(16, 16, SEEDS),
        "ratios 64x16": lambda: ratios(64, 16, SEEDS),
        "ratios 16x64": lambda: ratios(16, 64, SEEDS),
        "ratios 64x64": lambda: ratios(64, 64, 1),
        "projections 16": lambda: projections(16),
        "projections 64": lambda: projections(64),
        "curves": curves,
        "sobol": sobol,
        "worst": worst,
    }
    console = Console(stderr=True)
    steps = track(parts, console=console, disable=not sys.stderr.isatty(), description="")
    return {
        "seeds": {"constants": [SEED, SEED + SEEDS - 1], "inputs": CASE_SEED,
                  "search": NATURAL_SEED},
        "steps": STEPS,
        "versions": {"numpy": np.__version__, "matplotlib": matplotlib.__version__},
        **{name: parts[name]() for name in steps},
    }  # fmt: skip


LINES = {
    "count, lfsr": (ACCENT, "-", "o"),
    "count, sobol": (ACCENT, "--", "s"),
    "sample, lfsr": (SECOND, "-", "o"),
    "sample, sobol": (SECOND, "--", "s"),
    "count, unskewed": (ACCENT, ":", ""),
    "sample, unskewed": (SECOND, ":", ""),
}


def draw(data: Data) -> str:
    """Return the figure as SVG: the same bytes for the same data."""
    fixed = {**STYLE, "svg.hashsalt": "attention", "figure.facecolor": "white"}
    with matplotlib.rc_context(fixed):
        canvas, every = panels(10.5, 3.9, 1, len(SHOWN), sharey=True)
        steps = np.array(data["steps"])
        for axes, (metric, title) in zip(every, SHOWN.items(), strict=True):
            axes.loglog(steps, steps**-0.5, color=INK, linewidth=3, alpha=0.25,
                        label="independent (exact)")  # fmt: skip
            for name, (color, style, marker) in LINES.items():
                found = data["curves"][name][metric]
                rms = np.array(found["rms"])
                axes.loglog(steps, rms, style, color=color, marker=marker, markersize=2.6,
                            linewidth=1.1, label=name)  # fmt: skip
                if "se" in found:
                    margin = 2 * np.array(found["se"])
                    low = np.maximum(rms - margin, rms / 10)
                    axes.fill_between(steps, low, rms + margin, color=color, alpha=0.18, lw=0)
            axes.set_title(f"error of {title}")
            axes.set_xlabel("time steps T")
            ticks = [1, 2, 4, 8, 16, 32, 64, 128]
            axes.set_xticks(ticks, [str(t) for t in ticks], minor=False)
            axes.minorticks_off()
            axes.grid(color=MUTED, alpha=0.15)
        every[0].set_ylabel("RMS error / that of one independent step")
        every[0].legend(fontsize=7, loc="lower left")
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"<metadata>.*?</metadata>\s*", "", buffer.getvalue(), flags=re.DOTALL)


def markdown(data: Data) -> str:
    """Return the tables and their captions."""
    tables = (errors_table, shapes_table, projections_table, sobol_table, worst_table)
    return "\n\n".join(table(data) for table in tables) + "\n"


def rows(head: list[str], body: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


GROUPS = {
    "random, density 0.8": "random 0.8",
    "random, 0.5": "random 0.5",
    "random, 0.2": "random 0.2",
    "random, 0.1": "random 0.1",
    "digits": "digit",
    "identity": "identity",
    "block-diagonal": "block-diagonal|random in blocks",
    "one-hot columns": "one-hot col",
    "one-hot rows": "one-hot row",
    "one channel of v": "one-hot channel",
    "equal rows": "equal rows",
    "equal columns": "equal columns",
    "half of the tokens silent": "half",
}


def largest(found: Mapping[str, Any], pattern: str, pick: Callable[[Any], float]) -> float | None:
    """Return the largest of what `pick` takes of all cases whose name matches."""
    values = [pick(entry) for name, entry in found.items() if re.match(pattern, name)]
    return max(values, default=None)


def text(value: float | None) -> str:
    """Return a ratio with two decimals, bold above the bound."""
    if value is None:
        return "–"
    return f"**{value:.2f}**" if value > st.BOUND else f"{value:.2f}"


def errors_table(data: Data) -> str:
    """Return the table of the exact ratios of one time step."""
    body = []
    for label, pattern in GROUPS.items():
        cells = [label]
        for encoder in st.ENCODERS:
            for metric in ("uniform", "tokens"):
                for size, key in (("16", "first"), ("64", "first"), ("16", "worst")):
                    found = data[f"ratios {size}x{size}"][encoder]
                    cells.append(text(largest(found, pattern, lambda e: e[metric][key])))  # noqa: B023
        body.append(cells)
    head = ["input"]
    for encoder in st.ENCODERS:
        for what in ("projection", "mean over tokens"):
            head += [f"{encoder}, {what}: 16", "64", "16, worst seed"]
    low, high = data["seeds"]["constants"]
    return rows(head, body) + (
        "\n\nError of one time step in units of that of independent sampling, exact, largest of "
        "the inputs of a line: a projection over a token's channels with weights uniform in 0..1, "
        f"and the mean over tokens; N = dK = 16 and 64 with seed {low}, and the worst of the seeds "
        f"{low} to {high} at 16."
    )


def shapes_table(data: Data) -> str:
    """Return the table of the seeds above the bound, by shape."""
    body = []
    for shape in ("16x16", "64x16", "16x64"):
        for encoder in st.ENCODERS:
            cells = [shape.replace("x", " x "), encoder]
            for metric in ("uniform", "tokens"):
                found = [entry[metric] for entry in data[f"ratios {shape}"][encoder].values()]
                cells += [
                    text(max(e["first"] for e in found)),
                    f"{100 * np.mean([e['above'] for e in found]):.1f} %",
                    text(max(e["worst"] for e in found)),
                ]
            body.append(cells)
    low, high = data["seeds"]["constants"]
    head = ["N x dK", "encoder", f"projection: seed {low}", "above 1.1", "worst",
            f"mean over tokens: seed {low}", "above 1.1", "worst"]  # fmt: skip
    return rows(head, body) + (
        f"\n\nThe largest ratio over all inputs of one time step with seed {low}, the share of "
        f"all pairs of an input and a seed of {low} to {high} that is above 1.1, and the worst."
    )


def projections_table(data: Data) -> str:
    """Return the table of the worst of many projections."""
    body = []
    for size in (16, 64):
        for case, laws in data[f"projections {size}"].items():
            cells = [f"{size}, {case}"]
            for law in ("gaussian", "uniform"):
                for name in ("independent", *st.ENCODERS):
                    found = laws[law][name]
                    cells.append(f"{found['quantile']:.2f} / {found['most']:.2f}")
            body.append(cells)
    head = ["N = dK, input"]
    for law in ("normal", "uniform"):
        head += [f"{law}: independent", *st.ENCODERS]
    return rows(head, body) + (
        "\n\nThe 99 % point and the maximum over 1000 projections of the error of one time step, "
        "each projection in units of its exact error with independent sampling; weights standard "
        f"normal, or uniform in 0..1; seed {SEED}. *Independent* is an estimate from dK N draws of "
        "its own, as many as there are pairs. Over all projections the root mean square is that of "
        "the bits; but the errors of channels share few random bits, so there are projections "
        "that are worse, and with dense inputs and the count encoder, where an output bit is "
        "little more than the top bit of its random number, they are not rare."
    )


def sobol_table(data: Data) -> str:
    """Return the table of Sobol's ratios over T."""
    body = []
    for label, pattern in GROUPS.items():
        cells = [label]
        for encoder in st.ENCODERS:
            for metric in SHOWN:
                found = data["sobol"][encoder]
                most = largest(found, pattern, lambda e: e[metric]["ratio"])  # noqa: B023
                cells.append(text(most))
        body.append(cells)
    head = ["input", *(f"{e}, {m}" for e in st.ENCODERS for m in ("bit", "projection", "tokens"))]
    return rows(head, body) + (
        "\n\nThe same with Sobol's sequence, N = dK = 16, for the mean over the first T time steps "
        f"in units of T independent ones: the T of {data['steps'][0]} to {data['steps'][-1]} and "
        "the input at which the ratio less three standard errors is largest, pooled over the seeds."
    )


def worst_table(data: Data) -> str:
    """Return the table of the worst inputs."""
    body = []
    for encoder in st.ENCODERS:
        for metric, label in (("tokens", "mean over tokens"), ("uniform", "projection")):
            found = data["worst"][encoder][metric]
            built, loose = found["built"], found["structured"]
            body.append([
                encoder, label, f"{built['16']:.2f}", f"{built['64']:.2f}", f"{loose['most']:.2f}",
                f"{100 * loose['over']:.1f} %", f"{found['climbed']:.2f}",
            ])  # fmt: skip
    head = ["encoder", "error of", "built, 16", "built, 64", "structured, worst", "above 1.1",
            "climbed"]  # fmt: skip
    return rows(head, body) + (
        f"\n\nWorst ratios found with seed {SEED}: inputs built from the constants; the worst of "
        "1000 random structures (prefixes, periods, runs, equal rows and columns) that know "
        "nothing of the constants, and how many are above 1.1; the worst of them after 1000 "
        "single flips, each kept if it made the ratio no smaller (these at N = dK = 16). "
        f"Seeds: inputs {data['seeds']['inputs']}, search {data['seeds']['search']}; numpy "
        f"{data['versions']['numpy']}. All data: `bench/studies/statistics.json`."
    )


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    data = json.loads(json.dumps(study()))
    write({DATA.name: json.dumps(data, indent=1) + "\n"}, DATA.parent)
    page = replace(PAGE.read_text(), markdown(data))
    write({FIGURE.name: draw(data), PAGE.name: page}, PAGE.parent)


if __name__ == "__main__":
    main(prog_name="python -m bench.statistics")
