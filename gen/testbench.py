"""A bench in SystemVerilog for those who have a simulator and no Python."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gen.emit import Emission
from gen.errands import ANSWER, EXPERT, errands
from gen.render import render
from gen.vectors import Arrays, Word, random_stimulus, words
from hw.config import Config
from hw.stream import FAULT_BITS, Stream, axi_prefix

INFERENCES = 3
"""Enough for state that must be cleared between inferences and state that must run on."""

DRAWS = 64
"""Settings of which the best are taken, where they decide who gets a token."""

Model = Callable[[Mapping[str, Any], Mapping[str, np.ndarray], Any], tuple[Arrays, Any]]


def bench_files(
    emission: Emission, model: Model, *, seed: int = 1, given: Sequence[Arrays] = ()
) -> dict[str, str]:
    """Return the bench of an emitted top and its vectors.

    Parameters
    ----------
    emission : Emission
    model : callable
        The golden model: ``result, state = model(parameters, arrays, state)``.
    seed : int
        Of the random stimuli.
    given : sequence of dict, optional
        The arrays of inferences in place of random ones; settings are those of the first.

    Returns
    -------
    dict of str to str
        Text by file name: ``<name>_tb.sv``, and ``<name>_tb_<stream>.hex`` for each stream with a
        beat a line, {tuser, tlast, tdata}.
    """
    config = emission.config
    name = emission.name
    count = len(given) or INFERENCES
    beats = _beats(config, model, np.random.default_rng(seed), given)
    files = {s.name: f"{name}_tb_{s.name}.hex" for s in config.streams}
    prefixes = {s.name: axi_prefix(s, config.streams) for s in config.streams}
    ports = [
        {
            "name": s.name,
            "prefix": prefixes[s.name],
            "direction": s.direction,
            "setting": _is_setting(s),
            # What an answer waits for: the port of its expert.
            "asker": prefixes[s.name.replace(ANSWER, EXPERT)]
            if s.direction == "in" and s.peer
            else None,
            "meaning": s.help,
            "tdata": s.tdata_width,
            "tag": s.tag,
            "beats": s.beats,
            "count": len(beats[s.name]),
            "file": files[s.name],
            "record": record(name, s.name),
            "index": index,
        }
        for index, s in enumerate(config.streams)
    ]
    text = render(
        "tb.sv.j2",
        name=name,
        verilog=emission.manifest["files"]["verilog"],
        waivers=emission.manifest["files"]["waivers"],
        inferences=count,
        fault_bits=FAULT_BITS,
        # Stalls slow a port down by less than a factor of 4 on average.
        limit=20 * (count * config.cycles + sum(s.beats for s in config.streams)) + 10000,
        noise_bits=32 + len(ports),
        inputs=[port for port in ports if port["direction"] == "in"],
        outputs=[port for port in ports if port["direction"] == "out"],
    )
    vectors = {files[s.name]: _memory(s, beats[s.name]) for s in config.streams}
    return {f"{name}_tb.sv": text, **vectors}


def record(name: str, stream: str) -> str:
    """Return the file that the bench of a top writes to what comes out of a stream."""
    return f"{name}_tb_{stream}.out"


def _is_setting(stream: Stream) -> bool:
    """Return whether a stream is loaded before the first inference."""
    return stream.direction == "in" and stream.auxiliary and not stream.peer


def _settings(config: Config, arrays: Arrays) -> Arrays:
    """Return those arrays of a stimulus that are loaded before the first inference."""
    names = {s.name for s in config.streams if _is_setting(s)}
    return {n: array for n, array in arrays.items() if config.stimulus[n].stream in names}


def _divisive(config: Config, model: Model, rng: np.random.Generator) -> Arrays:
    """Return settings under which most experts get some tokens and not others.

    With most settings an expert gets all tokens or none, whatever is in them.
    """
    trial = random_stimulus(config, rng)

    def divided(settings: Arrays) -> int:
        result, _ = model(config.asdict(), trial | settings, None)
        share = result["mask"].mean(axis=(0, 1))
        return int(((share > 0) & (share < 1)).sum())

    drawn = (_settings(config, random_stimulus(config, rng)) for _ in range(DRAWS))
    return max(drawn, key=divided)


def _beats(
    config: Config, model: Model, rng: np.random.Generator, given: Sequence[Arrays]
) -> dict[str, list[Word]]:
    """Return what goes in and what must come out, by stream."""
    streams = {s.name: s for s in config.streams}
    if config.asks and not given:
        fixed = _divisive(config, model, rng)
    else:
        fixed = _settings(config, given[0] if given else random_stimulus(config, rng))
    beats: dict[str, list[Word]] = {name: [] for name in streams}
    # Settings are loaded once and hold for all inferences.
    for name, values in fixed.items():
        stream = streams[config.stimulus[name].stream]
        beats[stream.name] += words(stream, values)
    for name, (of, axes) in config.echoes.items():
        beats[name] += words(streams[name], np.transpose(fixed[of], axes))
    state = None
    for arrays in given or (random_stimulus(config, rng) for _ in range(INFERENCES)):
        stimulus = {**arrays, **fixed}
        result, state = model(config.asdict(), stimulus, state)
        for name, array in config.stimulus.items():
            if array.stream in streams and name not in fixed:
                beats[array.stream] += words(streams[array.stream], stimulus[name])
        for name, array in config.result.items():
            beats[array.stream] += words(streams[array.stream], result[name])
        if config.asks:
            for e, asked in enumerate(errands(config, stimulus, result["mask"])):
                for errand in asked:
                    beats[f"{EXPERT}{e}"] += errand.token
                    beats[f"{ANSWER}{e}"] += errand.answer
    return beats


def _memory(stream: Stream, beats: Sequence[Word]) -> str:
    """Return beats as ``$readmemh`` takes them; a memory has one word at least."""
    width = stream.tdata_width
    digits = -(-(width + 2 + stream.tag) // 4)
    lines = (
        f"{user << (width + 1) | last << width | data:0{digits}x}"
        for data, last, user in beats or [(0, 0, 0)]
    )
    return "".join(f"{line}\n" for line in lines)
