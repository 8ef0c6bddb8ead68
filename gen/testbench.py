"""A bench in SystemVerilog for those who have a simulator and no Python."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gen.emit import Emission
from gen.render import render
from gen.vectors import Arrays, marks, pack, random_stimulus
from hw.stream import FAULT_BITS, Stream, axi_prefix

INFERENCES = 3
"""Enough for state that must be cleared between inferences and state that must run on."""

Model = Callable[[Mapping[str, Any], Mapping[str, np.ndarray], Any], tuple[Arrays, Any]]


def bench_files(emission: Emission, model: Model, *, seed: int = 1) -> dict[str, str]:
    """Return the bench of an emitted top and its vectors.

    Parameters
    ----------
    emission : Emission
    model : callable
        The golden model: ``result, state = model(parameters, arrays, state)``.
    seed : int
        Of the random stimuli.

    Returns
    -------
    dict of str to str
        Text by file name: ``<name>_tb.sv``, and ``<name>_tb_<stream>.hex`` for each stream with a
        beat a line, {tuser, tlast, tdata}.
    """
    config = emission.config
    rng = np.random.default_rng(seed)
    settings = {s.name for s in config.streams if s.direction == "in" and s.auxiliary}
    fixed = {
        name: array
        for name, array in random_stimulus(config, rng).items()
        if config.stimulus[name].stream in settings
    }
    words: dict[str, list[str]] = {s.name: [] for s in config.streams}
    streams = {s.name: s for s in config.streams}
    state = None
    for inference in range(INFERENCES):
        stimulus = {**random_stimulus(config, rng), **fixed}
        result, state = model(config.asdict(), stimulus, state)
        for name, array in config.stimulus.items():
            # Settings are loaded once and hold for all inferences.
            if inference == 0 or name not in fixed:
                words[array.stream] += _lines(streams[array.stream], stimulus[name])
        for name, array in config.result.items():
            words[array.stream] += _lines(streams[array.stream], result[name])

    name = emission.name
    files = {s.name: f"{name}_tb_{s.name}.hex" for s in config.streams}
    ports = [
        {
            "name": s.name,
            "prefix": axi_prefix(s, config.streams),
            "direction": s.direction,
            "auxiliary": s.auxiliary,
            "meaning": s.help,
            "tdata": s.tdata_width,
            "count": len(words[s.name]),
            "file": files[s.name],
            "index": index,
        }
        for index, s in enumerate(config.streams)
    ]
    text = render(
        "tb.sv.j2",
        name=name,
        verilog=emission.manifest["files"]["verilog"],
        waivers=emission.manifest["files"]["waivers"],
        inferences=INFERENCES,
        fault_bits=FAULT_BITS,
        # Stalls slow a port down by less than a factor of 4 on average.
        limit=20 * (INFERENCES * config.cycles + sum(s.beats for s in config.streams)) + 10000,
        inputs=[port for port in ports if port["direction"] == "in"],
        outputs=[port for port in ports if port["direction"] == "out"],
    )
    vectors = {files[stream]: "\n".join(lines) + "\n" for stream, lines in words.items()}
    return {f"{name}_tb.sv": text, **vectors}


def _lines(stream: Stream, array: np.ndarray) -> list[str]:
    """Return one inference of a stream as words of ``$readmemh``."""
    width = stream.tdata_width
    return [
        f"{(user << (width + 1)) | (last << width) | word:0{-(-(width + 2) // 4)}x}"
        for word, (last, user) in zip(pack(stream, array), marks(stream), strict=True)
    ]
