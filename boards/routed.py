"""The demo's router: what leaves SDSA-1 goes to four experts, and who gets which token."""

import dataclasses

import numpy as np

from boards.stage import Checks, Steps, through
from gen import report
from gen.emit import Emission, emit
from hw.moe import MoeConfig
from sim.golden import golden

EXPERTS = 4

SEED = 71
"""Of the weights, and then of the experts; with it each expert gets a share of the digits."""

WEIGHTS = (-6, -2, 2, 6)
"""Of a channel, for one expert each: it speaks for two of them and against two."""

BIAS = -4

SHOWN_STEPS = 3
"""Time steps in the picture."""


@dataclasses.dataclass(frozen=True)
class Routed:
    """All that the report shows.

    Attributes
    ----------
    emission : Emission
    images : ndarray [B, 8, 8]
    labels : ndarray [B] of int
        What the images show.
    got, dropped : ndarray of bool [B, T, N, E]
        Whether an expert got a token, from the RTL; whether the expert had too many by then.
    elements : int
        Elements that were compared.
    """

    emission: Emission
    images: np.ndarray
    labels: np.ndarray
    got: np.ndarray
    dropped: np.ndarray
    elements: int


def settings(channels: int) -> dict[str, np.ndarray]:
    """Return the router's fixed weights [E, D] and biases [E]."""
    rng = np.random.default_rng(SEED)
    columns = [rng.permutation(WEIGHTS) for _ in range(channels)]
    return {"weights": np.stack(columns, axis=1), "bias": np.full(EXPERTS, BIAS)}


def answers(tokens: np.ndarray) -> np.ndarray:
    """Return what the experts make of tokens [..., D] of 0/1, [..., E, D] of 0/1.

    An expert is a layer of D neurons without memory: random weights of -1, 0 and 1 that never
    change, and a spike where their sum is 1 or more.
    """
    channels = tokens.shape[-1]
    layers = np.random.default_rng([SEED, 1]).integers(-1, 2, (EXPERTS, channels, channels))
    sums = np.einsum("...d,ecd->...ec", tokens.astype(np.int64), layers)
    return (sums > 0).astype(np.uint8)


def route(
    tokens: np.ndarray, images: np.ndarray, labels: np.ndarray, steps: Steps, check: Checks
) -> Routed:
    """Send the tokens [B, T, N, D] of digits through the router.

    Raises
    ------
    CheckFailed
    """
    count, timesteps, places, channels = tokens.shape
    config = MoeConfig(
        timesteps=timesteps, tokens=places, channels=channels, experts=EXPERTS,
        capacity=places // EXPERTS, trace=True,
    )  # fmt: skip
    emission = emit("moe", config)
    fixed = settings(channels)
    batch = {
        "tokens": tokens,
        "expert_out": answers(tokens),
        **{name: np.repeat(array[np.newaxis], count, axis=0) for name, array in fixed.items()},
    }
    with steps(f"moe: {count} digits in Verilator"):
        played = through(emission, batch)
        alone = through(emission, {name: array[-1:] for name, array in batch.items()})
    elements = played.elements + alone.elements
    wrong = played.wrong + alone.wrong
    check(f"moe: {elements:,} sums, choices and counts, {wrong} differ from golden", wrong == 0)
    each = config.period
    check(f"moe: {played.clocks:,} clocks for {count} digits, {alone.clocks:,} for the last one "
          f"alone, the manifest says {each:,} for each of the others",
          played.clocks - alone.clocks == (count - 1) * each)  # fmt: skip
    got = played.results["mask"] == 1
    boundless = {**config.asdict(), "capacity": places}
    wanted = [golden("moe")(boundless, {"tokens": some, **fixed}, None)[0] for some in tokens]
    dropped = (np.stack([result["mask"] for result in wanted]) == 1) & ~got
    return Routed(emission, images, labels, got, dropped, elements)


def section(routed: Routed) -> report.Section:
    """Return the section of the report."""
    c = routed.emission.config
    assert isinstance(c, MoeConfig)
    given, dropped = (marks.sum(axis=(1, 2)) for marks in (routed.got, routed.dropped))  # [B, E]
    rows = [
        [f"expert {e}", *(f"{n:,}" for n in given[:, e]), f"{given[:, e].sum():,}",
         f"{dropped[:, e].sum():,}"]
        for e in range(c.experts)
    ]  # fmt: skip
    rows.append(["all", *(f"{n:,}" for n in given.sum(axis=1)), f"{given.sum():,}",
                 f"{dropped.sum():,}"])  # fmt: skip
    share = np.bincount(routed.got.sum(axis=3).ravel(), minlength=2)
    return report.Section(
        "Who got which token",
        f"What leaves SDSA-1 for {len(routed.images)} digits goes to a router of {c.experts} "
        "experts. Each has a neuron for each token, whose current is a weighted sum of the token's "
        "spikes; it gets the tokens for which its neuron fires, but no more than "
        f"{c.capacity} of the {c.tokens} in a time step. Its answers are added up in the order of "
        "the tokens. Weights and experts are random and fixed; nothing was trained.",
        [
            report.Figure(diagram(c), "", 900),
            report.Figure(
                report.routing_figure(
                    routed.images, routed.got[:, :SHOWN_STEPS], routed.dropped[:, :SHOWN_STEPS],
                    "routing",
                ),
                f"The patches of each digit in the first {SHOWN_STEPS} time steps, with the "
                "numbers of the experts that got them. Hatched: the expert's neuron fired, but it "
                "had its share of the time step by then, and the token was dropped.",
            ),
            report.Table(
                ["", *(f"digit {label}" for label in routed.labels), "tokens", "dropped"],
                rows,
                f"Tokens that each expert got in {c.timesteps} time steps of {c.tokens} tokens. Of "
                f"all {routed.got[..., 0].size:,} tokens {share[0]:,} went to nobody, {share[1]:,} "
                f"to one expert and {share[2:].sum():,} to several.",
            ),
        ],
    )  # fmt: skip


def diagram(c: MoeConfig) -> str:
    """Return the diagram of the way of a token."""
    experts = [report.Block(f"expert {e}", [f"{c.channels} neurons"]) for e in range(c.experts)]
    return report.diagram(
        [
            [report.Block("sdsa", [f"{c.tokens} tokens", f"{c.channels} channels"], hardware=True)],
            [report.Block("moe: choose", ["scores, neurons", f"capacity {c.capacity}"],
                          hardware=True)],
            experts,
            [report.Block("moe: merge", ["sums, in token", "order"], hardware=True)],
            [report.Block("merged", [f"0..{c.experts}"])],
        ],
        [[f"{c.channels} bit a token"], ["token"] * c.experts, ["answer"] * c.experts,
         [f"{c.channels} × {c.stream('merged').width} bit"]],
    )  # fmt: skip
