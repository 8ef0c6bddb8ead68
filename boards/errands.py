"""The experts around a router tile on a board: the host plays them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from gen.errands import ANSWER, EXPERT, frame
from gen.errors import CheckFailed
from gen.vectors import Word, pack
from hw.stream import Stream
from sim.arrays import Arrays


class Errands:
    """What experts are given, and what they answer.

    Answers go through the pipe that tokens go through. They never wait behind one that the tile
    does not take yet: no token is sent unless there is `room` for it in the tile.

    Parameters
    ----------
    config : Config
        Of a router tile.
    batch : dict of str to ndarray
        With a leading axis of inferences; without ``expert_out`` answers are 0.
    inferences : iterable of int
        Which ones of the batch are sent.

    Attributes
    ----------
    sent : int
        Tokens; whoever sends one counts it.
    """

    def __init__(self, config: Any, batch: Arrays, inferences: Iterable[int]) -> None:
        self._config = config
        self._stream = config.stream(f"{EXPERT}0")
        places = list(inferences)
        self._tokens = batch["tokens"][places].reshape(-1, config.channels)
        self._answers = None
        if "expert_out" in batch:
            shape = (-1, config.experts, config.channels)
            self._answers = batch["expert_out"][places].reshape(shape)
        # A tag names a token of an inference: no two that have the same are on their way.
        self._inference = config.timesteps * config.tokens
        self._window = min(config.window, self._inference)
        self._given: dict[str, list[Word]] = {}
        self._merged = 0  # beats
        self.sent = 0

    @property
    def room(self) -> bool:
        """Whether the tile takes another token, whatever happens."""
        return self.sent - self._merged // self._config.groups < self._window

    def take(self, stream: Stream, word: Word) -> tuple[str, list[Word]] | None:
        """Take a beat from the tile; return an answer and its stream once a token is whole.

        Raises
        ------
        CheckFailed
            It is not the token that it says it is.
        """
        if stream.name == "merged":
            self._merged += 1
        if not stream.name.startswith(EXPERT):
            return None
        given = self._given.setdefault(stream.name, [])
        given.append(word)
        if len(given) < self._stream.beats:
            return None
        del self._given[stream.name]
        expert = int(stream.name.removeprefix(EXPERT))
        tag = given[0][2] >> 1
        index = (tag >> self._config.token_bits) * self._config.tokens
        index += tag & ((1 << self._config.token_bits) - 1)
        oldest = self._merged // self._config.groups
        place = oldest + (index - oldest) % self._inference
        first = bool(given[0][2] & 1)
        if place >= self.sent or given != frame(self._pack(self._tokens[place]), tag, first):
            raise CheckFailed(f"{stream.name}: got {given}, which is no token on its way")
        answer = np.zeros_like(self._tokens[place])
        if self._answers is not None:
            answer = self._answers[place, expert]
        return f"{ANSWER}{expert}", frame(self._pack(answer), tag)

    def _pack(self, values: np.ndarray) -> list[int]:
        return pack(self._stream, values)
