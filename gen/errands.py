"""What the experts around a router tile are given, and what they answer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gen.vectors import Word, pack

ANSWER, EXPERT = "answer", "expert"
"""Names of the streams, before the number of the expert."""


@dataclasses.dataclass(frozen=True)
class Errand:
    """A token that an expert must be given, and what it answers.

    Attributes
    ----------
    token, answer : list of Word
    """

    token: list[Word]
    answer: list[Word]


def errands(config: Any, arrays: Mapping[str, np.ndarray], mask: np.ndarray) -> list[list[Errand]]:
    """Return what each expert must be given in an inference, in order.

    Parameters
    ----------
    config : Config
        Of a router tile.
    arrays : mapping
        ``tokens`` [T, N, D], and ``expert_out`` [T, N, E, D] or nothing for zeros.
    mask : ndarray [T, N, E]
        Who gets the token.
    """
    stream = config.stream(f"{EXPERT}0")
    tokens = arrays["tokens"]
    zeros = np.zeros((*mask.shape, tokens.shape[2]), np.uint8)
    answers = arrays.get("expert_out", zeros)
    given: list[list[Errand]] = []
    for e in range(mask.shape[2]):
        given.append([])
        for t, n in np.argwhere(mask[:, :, e]):
            tag = int(t) << config.token_bits | int(n)
            first = not given[-1]
            given[-1].append(
                Errand(
                    frame(pack(stream, tokens[t, n]), tag, first),
                    frame(pack(stream, answers[t, n, e]), tag),
                )
            )
    return given


def frame(words: Sequence[int], tag: int, first: bool = False) -> list[Word]:
    """Return the beats of a token or an answer."""
    last = len(words) - 1
    return [
        (word, int(i == last), tag << 1 | int(first and i == 0)) for i, word in enumerate(words)
    ]
