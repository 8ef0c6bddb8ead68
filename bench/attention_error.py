"""``python -m bench.attention_error``: how far a rate of attention's output bits is off.

Runs the golden model for every encoder, random source and size that is measured in cells.
"""

from typing import Any

import click
import numpy as np

from bench.grid import cases, configuration
from bench.study import save_study
from gen.errors import Command
from sim.golden import golden

STUDY = "attention_error"

SEED, INFERENCES, STEPS = 1, 64, 10

KEYS = ("encoder", "rng", "tokens", "head_dim")
"""The parameters that an error depends on."""


def variants() -> list[dict[str, Any]]:
    """Return the parameters of attention, one of each kind that is measured."""
    found = {}
    for name in dict.fromkeys(name for top, name, _ in cases() if top == "attention"):
        parameters = configuration("attention", name).asdict()
        if parameters["timesteps"] == STEPS and parameters["heads"] == 1:
            found[tuple(parameters[key] for key in KEYS)] = parameters
    return [found[key] for key in sorted(found)]


def rms(parameters: dict[str, Any], inferences: int = INFERENCES) -> float:
    """Return the RMS error of the rates of all output bits over the time steps of an inference.

    The error is that of the mean over t of ``out[t, n, d]`` against the mean over t of
    ``(Q[t] K[t]^T V[t])[n, d] / (dK N)``. Random sources run on over the inferences.
    """
    rng = np.random.default_rng(SEED)
    tokens, size = parameters["tokens"], parameters["head_dim"]
    squares, state = [], None
    for _ in range(inferences):
        bits = rng.integers(0, 2, (3, STEPS, tokens, size))
        result, state = golden("attention")(parameters, dict(zip("qkv", bits, strict=True)), state)
        q, k, v = bits.astype(float)
        expected = (q @ k.transpose(0, 2, 1) @ v).mean(axis=0) / (tokens * size)
        squares.append(np.square(result["out"].mean(axis=0) - expected).mean())
    return float(np.sqrt(np.mean(squares)))


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    study = {
        "input": "q, k, v fair bits, drawn anew at every time step",
        "seed": SEED,
        "inferences": INFERENCES,
        "timesteps": STEPS,
        "numpy": np.__version__,
        "errors": [
            {key: parameters[key] for key in KEYS} | {"rms": float(f"{rms(parameters):.4g}")}
            for parameters in variants()
        ],
    }
    save_study(STUDY, study)


if __name__ == "__main__":
    main(prog_name="python -m bench.attention_error")
