"""Handwritten digits as spikes: the input of the demo.

``python -m boards.digits`` prints the projections, the neurons and the firing rates.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from gen.errors import Command
from hw.attention import AttentionConfig
from hw.lif import LifConfig
from sim.golden import golden

DATA = Path(__file__).parent / "data" / "digits.csv"

WEIGHT_SEED = 7
LARGEST_WEIGHT = 2
BRIGHTEST = 15
"""Grey values are cut to this, so that 4 x 15 x 2 fits the 8 bits of a current."""

THRESHOLDS = {"q": 12, "k": 12, "v": 12}
"""What the membrane U of each projection's neurons is compared with."""


def images() -> tuple[np.ndarray, np.ndarray]:
    """Return (images [200, 8, 8] of 0..16, labels [200])."""
    rows = np.loadtxt(DATA, delimiter=",", skiprows=1, dtype=np.int64)
    return rows[:, 1:].reshape(-1, 8, 8), rows[:, 0]


def patches(image: np.ndarray) -> np.ndarray:
    """Return the 16 patches of 2 x 2 pixels of an image, [16, 4], row by row."""
    return image.reshape(4, 2, 4, 2).transpose(0, 2, 1, 3).reshape(16, 4)


def projections(channels: int) -> dict[str, np.ndarray]:
    """Return the fixed weights of q, k and v, [4, channels] each, -1..2."""
    rng = np.random.default_rng(WEIGHT_SEED)
    high = LARGEST_WEIGHT
    return {name: rng.integers(1 - high, high + 1, (4, channels)) for name in "qkv"}


@dataclasses.dataclass(frozen=True)
class Front:
    """The way from an image to the streams of an attention unit.

    Attributes
    ----------
    attention : AttentionConfig
        16 tokens; any number of heads and channels.
    """

    attention: AttentionConfig

    def neurons(self, name: str) -> LifConfig:
        """Return the neurons of q, k or v: a token a beat, as attention takes them."""
        c = self.attention
        return LifConfig(
            neurons=c.tokens * c.channels,
            lanes=c.channels,
            timesteps=c.timesteps,
            threshold=THRESHOLDS[name],
        )

    def currents(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the input currents of q, k and v, [T, N * D]; the same in every time step."""
        tokens = np.minimum(patches(image), BRIGHTEST)
        steps = self.attention.timesteps
        return {
            name: np.broadcast_to(
                (tokens @ weights).ravel(), (steps, tokens.shape[0] * len(weights.T))
            )
            for name, weights in projections(self.attention.channels).items()
        }

    def spikes(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return golden's q, k and v, [T, N, D] of 0/1."""
        c = self.attention
        out = {}
        for name, current in self.currents(image).items():
            result, _ = golden("lif")(self.neurons(name).asdict(), {"current": current}, None)
            out[name] = result["spikes"].reshape(c.timesteps, c.tokens, c.channels)
        return out


def rates(front: Front, some: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the mean firing rate of q, k and v over images."""
    return {name: float(np.mean([front.spikes(image)[name] for image in some])) for name in "qkv"}


@click.command(cls=Command)
@click.option("--preset", default="icebreaker", help="Preset of attention to project for.")
def main(preset: str) -> None:
    """Print the projections from digits to q, k and v."""
    front = Front(AttentionConfig.preset(preset))
    c = front.attention
    print(f"8 x 8 pixels, cut to {BRIGHTEST} -> 16 tokens of 2 x 2 -> {c.channels} channels")
    print(f"weights: integers, numpy default_rng({WEIGHT_SEED}), -1..2; the same every time step")
    rate = rates(front, list(images()[0][:50]))
    for name, weights in projections(c.channels).items():
        n = front.neurons(name)
        print(f"\n{name}: lif tau {n.tau:g}, threshold {n.threshold}, reset {n.reset}, "
              f"fires at {n.fire}; rate {rate[name]:.3f} over 50 images")  # fmt: skip
        print(np.array2string(weights, prefix="  "))


if __name__ == "__main__":
    main()
