"""Command: write the tables of the pages from the data, or check that they are theirs."""

import itertools
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bench import bitstreams, cpu_attention, gpu_attention
from bench.devices import DEVICES, words
from bench.grid import GRID, cases, own_options, points, presets
from bench.measure import (
    RESULTS,
    Result,
    blank,
    differences,
    emission,
    facts,
    load,
    result_path,
)
from bench.study import load_study
from gen.emit import write
from gen.errors import CheckFailed, Command, UserError
from hw.config import Config
from hw.tops import TOPS

ROOT = Path(__file__).parent.parent

README = ROOT / "README.md"
BENCH_README = ROOT / "bench" / "README.md"
BOARDS_PAGE = ROOT / "docs" / "boards.md"

PAPER_US = 3.3
"""Time per inference of the block of Stochastic Spiking Attention (arXiv 2402.09109)."""

NONE = "not measured"

Results = Mapping[tuple[str, str, str], Result]
"""By top, preset and device."""

HEADER = (
    "top",
    "preset",
    "ports",
    "clocks per inference",
    "back to back",
    "UP5K: LUT4 / LC / FF / BRAM",
    "MHz",
    "ECP5: LUT4-eq / FF / BRAM / DSP",
    "MHz",
    "time per inference",
)

GRID_HEADER = (
    "point",
    "shows",
    "clocks per inference",
    "LUT4-eq / FF / BRAM / DSP",
    "seeds",
    "MHz",
    "time per inference",
)


@click.command(cls=Command, help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; fail if pages or data are stale.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def main(check: bool, as_json: bool) -> None:
    """Run the command."""
    texts = {path: (read(path), blocks) for path, blocks in pages().items()}
    changed = {
        path: (before, after)
        for path, (before, blocks) in texts.items()
        if (after := filled(before, blocks, path.name)) != before
    }
    if check:
        problems = [
            p for path, both in changed.items() for p in page_problems(name_of(path), *both)
        ]
        problems += stale()
        if problems:
            raise CheckFailed("; ".join(problems))
    for path, (_, after) in changed.items():
        write({path.name: after}, path.parent)
    if as_json:
        click.echo(json.dumps({"changed": [name_of(path) for path in changed]}))


def pages() -> dict[Path, dict[str, str]]:
    """Return what is written from data: by page and marker."""
    return {
        README: {"table": render(collect()), "beside": render_beside()},
        BENCH_README: {"grid": render_grid()},
        BOARDS_PAGE: {"bitstreams": bitstreams.render()},
    }


def name_of(path: Path) -> str:
    """Return the name of a page from the root on."""
    return str(path.relative_to(README.parent))


def read(path: Path) -> str:
    """Return the text of a page, or raise `UserError`."""
    try:
        return path.read_text()
    except OSError as wrong:
        raise UserError(f"can't read {path.name}: {wrong.strerror}") from wrong


def collect() -> Results:
    """Return the results of all presets, or raise `CheckFailed` for the first that is missing."""
    results = {}
    for top, preset in presets():
        for device in DEVICES:
            found = load(top, preset, device)
            if found is None:
                raise CheckFailed(f"{top} {preset} is not measured on {device}: run `make bench`")
            results[top, preset, device] = found
    return results


def stale() -> list[str]:
    """Return what is wrong with the stored results: not of today's hardware, tools or cases."""
    known = {
        result_path(top, name, device): blank(unit, name, device) | facts(unit)
        for top, name, device in cases()
        for unit in [emission(top, name)]
    }
    problems = []
    for path in sorted({*known, *RESULTS.glob("*.json")}):
        if path not in known:
            problems.append(f"{path.name}: there is no such preset or point")
        elif not path.exists():
            problems.append(f"{path.name}: {NONE}")
        elif changed := differences(json.loads(path.read_text()), known[path]):
            problems.append(f"{path.name}: {', '.join(changed)} changed since it was measured")
    return problems


def page_problems(name: str, before: str, after: str) -> list[str]:
    """Return the first line in which a page is not what the data say."""
    lines = itertools.zip_longest(before.splitlines(), after.splitlines(), fillvalue="nothing")
    return [f"{name} says {a!r} where the data say {b!r}" for a, b in lines if a != b][:1]


def filled(text: str, blocks: Mapping[str, str], page: str) -> str:
    """Return `text` with every block between its markers."""
    for block, content in blocks.items():
        text = replace(text, content, block, page)
    return text


def replace(text: str, content: str, block: str = "table", page: str = "README.md") -> str:
    """Return `text` with `content` between the markers of `block`.

    Raises
    ------
    UserError
        The markers are not there once each, in this order.
    """
    opening, closing = (f"<!-- {block}:{end} -->" for end in ("begin", "end"))
    before, begin, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not (begin and end) or opening in rest or closing in after:
        raise UserError(f"{page}: want {opening} and {closing}, once each and in this order")
    return f"{before}{opening}\n{content}{closing}{after}"


def markdown(*rows: tuple[str, ...]) -> list[str]:
    """Return the lines of a table whose first row is its head."""
    head, *body = rows
    return [f"| {' | '.join(cells)} |" for cells in (head, tuple("---" for _ in head), *body)]


def render(results: Results) -> str:
    """Return the table of the presets and its caption in Markdown."""
    rows = [
        row(top, preset, *(results[top, preset, device] for device in DEVICES))
        for top, preset in dict.fromkeys((top, preset) for top, preset, _ in results)
    ]
    return "\n".join([*markdown(HEADER, *rows), "", caption(list(results.values())), ""])


def row(top: str, preset: str, up5k: Result, ecp5: Result) -> tuple[str, ...]:
    """Return the cells of a preset's row."""
    config = TOPS[top].config.preset(preset)
    small = up5k["cells"]
    cells = up5k["packed"]["ICESTORM_LC"]["used"]
    return (
        f"`{top}`",
        f"`{preset}`",
        ports(config),
        str(config.cycles),
        str(config.period),
        f"{small['lut4']} / {cells} / {small['ff']} / {small['bram']}"
        + (f" + {small['spram']} SPRAM" if "spram" in small else ""),
        clock_text(up5k),
        large_cells(ecp5),
        clock_text(ecp5),
        micros_text(ecp5),
    )


def large_cells(ecp5: Result) -> str:
    """Return the cells of a result on the ECP5."""
    return " / ".join(
        str(ecp5["cells"][kind]) for kind in ("lut4_equivalents", "ff", "bram", "dsp")
    )


def micros(result: Result) -> list[float]:
    """Return the times per inference of the seeds that were placed, in microseconds."""
    return [result["timing"]["cycles"] / rate for rate in rates(result)]


def micros_text(result: Result) -> str:
    """Return the time per inference at the median clock rate."""
    clocks = rates(result)
    if not clocks:
        return "–"
    return f"{result['timing']['cycles'] / statistics.median(clocks):.3g} µs"


def render_grid() -> str:
    """Return the table of the grid and its caption in Markdown; what is not measured says so."""
    rows, found = [], []
    for top, name, device in points():
        result = load(top, name, device)
        point = GRID[top][name]
        how = " ".join(words(point.options))
        why = f"{point.why}; nextpnr with `{how}`" if how else point.why
        rows.append((f"`{top}` `{name}`", why, *point_cells(result)))
        found += [result] if result else []
    made = [made_with(device, found) for device in DEVICES]
    return "\n".join([*markdown(GRID_HEADER, *rows), "", " ".join(filter(None, made)), ""])


def point_cells(result: Result | None) -> tuple[str, ...]:
    """Return the cells of a point's row behind its name and its reason."""
    if result is None:
        return (NONE, *["–"] * (len(GRID_HEADER) - 3))
    return (
        str(result["timing"]["cycles"]),
        large_cells(result),
        ", ".join(sorted(result["seeds"], key=int)) or "–",
        clock_text(result),
        micros_text(result),
    )


def attention_results() -> dict[str, Result]:
    """Return the results that can be compared with the paper's block, by preset or point.

    They are those of attention on the ECP5 with ten time steps and one head, not causal.
    """
    wanted = {"timesteps": 10, "heads": 1, "causal": False}
    found = {key: load(*key) for key in cases() if (key[0], key[2]) == ("attention", "ecp5")}
    return {
        name: result
        for (_, name, _), result in found.items()
        if result and wanted.items() <= result["parameters"].items()
    }


def render_beside() -> str:
    """Return attention in hardware beside the paper, a CPU and a GPU, in Markdown."""
    cpu, gpu = (load_study(study.STUDY) for study in (cpu_attention, gpu_attention))
    size = {"tokens": cpu_attention.TOKENS, "head_dim": cpu_attention.SIZE}
    own = {
        name: result
        for name, result in attention_results().items()
        if size.items() <= result["parameters"].items() and rates(result)
    }
    rows = [("", *(f"`encoder={encoder}`" for encoder in cpu_attention.OPERATORS))]
    rows.append(("LFE5U-85F, fastest measured", *(
        fastest({n: r for n, r in own.items() if r["parameters"]["encoder"] == encoder})
        for encoder in cpu_attention.OPERATORS
    )))  # fmt: skip
    rows.append(("the paper's FPGA block", f"{PAPER_US} µs", "–"))
    rows.append(("numpy on a CPU", *study_cells(cpu["median_us"] if cpu else {})))
    if gpu is None:
        rows.append(("PyTorch on a GPU", *study_cells({})))
    else:
        for batch in gpu_attention.BATCHES:
            each = {encoder: us[str(batch)] / batch for encoder, us in gpu["median_us"].items()}
            rows.append((f"PyTorch on a GPU, batch {batch}", *study_cells(each)))
    notes = [
        f"Time per inference, N = dK = {cpu_attention.SIZE}, T = {cpu_attention.STEPS}, one head; "
        "on CPU and GPU with the random numbers and all constants drawn beforehand."
    ]
    if cpu:
        notes.append(
            f"CPU: {cpu['cpu']}, one thread, numpy {cpu['numpy']}, median of {cpu['repeats']}."
        )
    if gpu:
        notes.append(
            f"GPU: {gpu['gpu']}, PyTorch {gpu['torch']}, CUDA {gpu['cuda']}, eager, median of "
            f"{gpu['repeats']}, data on the GPU; a batch's time is shared out."
        )
    return "\n".join([*markdown(*rows), "", " ".join(notes), ""])


def fastest(results: Mapping[str, Result]) -> str:
    """Return the least time per inference at the median clock rate, and whose it is."""
    if not results:
        return NONE
    name = min(results, key=lambda name: statistics.median(micros(results[name])))
    return (
        f"{micros_text(results[name])} (`{name}`, {large_cells(results[name]).split()[0]} LUT4-eq)"
    )


def study_cells(times: Mapping[str, float]) -> list[str]:
    """Return times by encoder as cells of a table."""
    return [f"{times[e]:.3g} µs" if e in times else NONE for e in cpu_attention.OPERATORS]


def ports(config: Config) -> str:
    """Return the streams of a top with the elements of a beat, or elements x bits."""
    sides = []
    for direction in ("in", "out"):
        streams = [s for s in config.streams if s.direction == direction]
        shapes: dict[str, list[str]] = {}
        for s in streams:
            size = str(s.lanes) if s.width == 1 else f"{s.lanes}×{s.width}"
            shapes.setdefault(size, []).append(s.name)
        sides.append("; ".join(f"{', '.join(names)} {size}" for size, names in shapes.items()))
    return " → ".join(sides)


def rates(result: Result) -> list[float]:
    """Return the clock rates of the seeds that were placed, in MHz."""
    return [seed["mhz"] for seed in result["seeds"].values() if "mhz" in seed]


def clock_text(result: Result) -> str:
    """Return least, median and greatest clock rate, or why there is none."""
    if not result["fits"]:
        over = [
            f"{part['used']} {name} of {part['available']}"
            for name, part in sorted(result["packed"].items())
            if part["used"] > part["available"]
        ]
        return f"does not fit: {', '.join(over)}"
    found = rates(result)
    if not found:
        return "no placement found"
    count = len(result["seeds"])
    if count == 1:
        return f"{found[0]:.1f}"
    text = f"{min(found):.1f} / {statistics.median(found):.1f} / {max(found):.1f}"
    return text if len(found) == count else f"{text} ({len(found)} of {count} seeds placed)"


def caption(results: list[Result]) -> str:
    """Return what the figures are and how they were made, for all results alike.

    Raises
    ------
    CheckFailed
        The results were not made alike.
    """
    seeds = same("seeds", [sorted(map(int, r["seeds"])) for r in results if r["fits"]])
    parts = [made_with(device, results) for device in DEVICES]
    return " ".join(
        [
            "Cells are those of the whole emitted top with its AXI4-Stream ports; LC: logic cells "
            "after packing; LUT4-eq = LUT4 + 2 CCU2C + 4 DPR16X4.",
            "MHz: least, median and greatest after place and route with the seeds "
            f"{', '.join(map(str, seeds))}, ports behind registers.",
            "Time per inference: at the median clock rate on the ECP5, no stalls.",
            *parts,
        ]
    )


def made_with(device: str, results: list[Result]) -> str:
    """Return how the results of a device were made, or nothing where there are none.

    Points with options of their own tell them in their rows.

    Raises
    ------
    CheckFailed
        The results were not made alike.
    """
    own = [result for result in results if result["device"] == device]
    if not own:
        return ""
    made: dict[str, Any] = {
        key: same(key, [result[key] for result in own]) for key in ("part", "synthesis", "tools")
    }
    usual = [result for result in own if not own_options(result["top"], result["preset"])] or own
    made["nextpnr"] = same("nextpnr", [result["nextpnr"] for result in usual])
    tools = ", ".join(f"{name} {version}" for name, version in sorted(made["tools"].items()))
    large = next(
        (f", with `{r['large'].strip()}` where SPRAM is used" for r in own if "large" in r), ""
    )
    return (
        f"{made['part']}: `{made['synthesis']}`{large}, "
        f"`{DEVICES[device].nextpnr} {made['nextpnr']}` ({tools})."
    )


def same(what: str, values: list[Any]) -> Any:
    """Return the one value that all have, or raise `CheckFailed`."""
    if any(value != values[0] for value in values):
        raise CheckFailed(f"the results are not all of the same {what}: run `make bench`")
    return values[0]


if __name__ == "__main__":
    main(prog_name="python -m bench.table")
