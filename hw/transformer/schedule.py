"""What the engine does when: the passes of an inference, where things lie, and the clocks."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from hw.attention import AttentionConfig
from hw.linear.plan import Plan
from hw.sdsa import SdsaConfig
from hw.sdsa.plan import ProductPlan

if TYPE_CHECKING:
    from hw.transformer.block import BlockConfig
    from hw.transformer.config import TransformerConfig

FINISH_CLOCKS = 7
"""Clocks from a sum that is taken from the engine to its spike in memory."""

TRACE_CLOCKS = 1
"""Clocks from a word of spikes in memory to where it leaves as a trace."""

READ_CLOCKS = 1
"""Clocks from the end of the last pass to the first result."""

TURN = 5
"""Least clocks between two visits of a neuron, whose membrane is in memory."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """All tokens and time steps through one layer.

    Attributes
    ----------
    name : str
        ``embed`` or ``enter``, ``q, k, v, attend, project, expand, contract``, ``head``; with
        experts there are ``route`` and ``merge`` around those of each, which are ``expand`` and
        ``contract``.
    inputs, outputs : int
        Channels of a token, filled up to whole beats and groups.
    source, target : int
        First word of the spikes that it takes, and of those that it puts out.
    residual : str
        The sum is ``kept`` as the residual, ``added`` to it, or has nothing to do with it (``""``).
    fires : bool
        There are neurons behind it.
    expert : bool
        It is there once for each expert, which takes the tokens that it is given.
    """

    name: str
    inputs: int = 0
    outputs: int = 0
    source: int = 0
    target: int = 0
    residual: str = ""
    fires: bool = True
    expert: bool = False

    @property
    def attends(self) -> bool:
        """Whether the attention unit does it, and not the engine."""
        return self.name == "attend"

    @property
    def merges(self) -> bool:
        """Whether the answers of experts are added to the residual, and nothing is multiplied."""
        return self.name == "merge"

    @property
    def enters(self) -> bool:
        """Whether neurons take the residual as it is, and nothing is multiplied."""
        return self.name == "enter"

    @property
    def blank(self) -> bool:
        """Whether the engine is given no spikes and no biases, so that zeros come out of it."""
        return self.merges or self.enters

    @property
    def multiplies(self) -> bool:
        """Whether there are weights and biases."""
        return not self.attends and not self.blank

    @property
    def shifts(self) -> bool:
        """Whether sums go into the residual."""
        return bool(self.residual) and not self.enters

    @property
    def routes(self) -> bool:
        """Whether its spikes say who gets a token."""
        return self.name == "route"

    @property
    def answers(self) -> bool:
        """Whether its spikes are answers of an expert."""
        return self.expert and self.name == "contract"

    @property
    def stored(self) -> bool:
        """Whether its spikes go to their memory."""
        return not self.routes and not self.answers


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The passes, one after another; those of a block come round for each block."""

    config: BlockConfig

    @property
    def entry(self) -> Pass:
        """What makes the spikes that go into the first block."""
        raise NotImplementedError

    @property
    def exits(self) -> tuple[Pass, ...]:
        """What takes those that come out of the last one."""
        return ()

    @property
    def blocks(self) -> int:
        """How often the passes of a block are gone through."""
        return 1

    @property
    def planes(self) -> int:
        """How often the first pass is gone through: once for each bit of its inputs."""
        return 1

    @property
    def feature_beats(self) -> int:
        """Beats of a token of an image; 0 where what comes in is the residual."""
        return 0

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Every kind of pass, in order."""
        return (self.entry, *self.kinds, *self.exits)

    @property
    def kinds(self) -> tuple[Pass, ...]:
        """Those of a block."""
        c = self.config
        size = self.step_words * c.timesteps  # words of the spikes of one layer
        wide: dict[str, Any] = {"inputs": c.channels, "outputs": c.channels}
        if c.attention == "none":
            return self._perceptron(size)
        first, then = self.operands
        at = {"q": size, "k": 2 * size, "v": 3 * size}
        # What comes out lies where the operand was that is read as it comes.
        out = at[then]
        return (
            *(Pass(n, **wide, target=at[n]) for n in at if n in (*first, then)),
            Pass("attend", target=out),
            Pass("project", **wide, source=out, residual="added"),
            *self._perceptron(size),
        )

    def _perceptron(self, hidden: int) -> tuple[Pass, ...]:
        """Return the passes of a block's MLP or experts, whose spikes lie from that word on."""
        c = self.config
        expand: dict[str, Any] = {"inputs": c.channels, "outputs": c.hidden, "target": hidden}
        contract: dict[str, Any] = {"inputs": c.hidden, "outputs": c.channels, "source": hidden}
        back: dict[str, Any] = {"residual": "added", "fires": bool(self.exits)}
        if not c.experts:
            return Pass("expand", **expand), Pass("contract", **contract, **back)
        whole = math.lcm(c.lanes, c.channels_per_beat)
        return (
            Pass("route", c.channels, -(-c.experts // whole) * whole),
            Pass("expand", **expand, expert=True),
            Pass("contract", **contract, expert=True),
            # A beat of no spikes for each token: what comes out of the engine are zeros.
            Pass("merge", c.channels_per_beat, c.channels, **back),
        )

    @property
    def block(self) -> tuple[Pass, ...]:
        """The layers of a block, those of each expert among them."""
        kinds = self.kinds
        experts = tuple(p for p in kinds if p.expert)
        before = tuple(p for p in kinds if not p.expert and not p.merges)
        return (*before, *experts * self.config.experts, *(p for p in kinds if p.merges))

    @property
    def layers(self) -> tuple[Pass, ...]:
        """All layers of an inference."""
        return (self.entry, *(self.block * self.blocks), *self.exits)

    @property
    def sequence(self) -> tuple[Pass, ...]:
        """All passes of an inference."""
        return ((self.entry,) * self.planes) + self.layers[1:]

    @property
    def multiplied(self) -> tuple[Pass, ...]:
        """The layers that have weights."""
        return tuple(p for p in self.layers if p.multiplies)

    @property
    def firing(self) -> tuple[Pass, ...]:
        """Those with neurons of their own, which have a threshold each."""
        return tuple(p for p in self.layers if p.fires and not p.attends)

    @property
    def shifted(self) -> tuple[Pass, ...]:
        """Those whose sums go into the residual, which are shifted to its scale."""
        return tuple(p for p in self.layers if p.shifts)

    @property
    def operands(self) -> tuple[tuple[str, ...], str]:
        """What the attention unit sums up over all tokens, and what waits for that."""
        unit = self.config.unit
        if isinstance(unit, SdsaConfig):
            return unit.summed, unit.masked
        return ("k", "v"), "q"

    @property
    def unit_words(self) -> int:
        """Words of a beat of the attention unit."""
        unit = self.config.unit
        assert unit is not None
        return unit.stream("out").lanes // self.config.channels_per_beat

    def beats(self, step: Pass) -> int:
        """Return the beats of a token that comes in."""
        return step.inputs // self.config.channels_per_beat

    def slices(self, step: Pass) -> int:
        """Return the slices of a token that comes in."""
        return step.inputs // self.config.columns

    def stride(self, step: Pass) -> int:
        """Return the words of weights of a group."""
        return self.slices(step) if step.multiplies else 0

    def groups(self, step: Pass) -> int:
        """Return the groups of a token that goes out."""
        return step.outputs // self.config.lanes

    def words(self, step: Pass) -> int:
        """Return the words of weights."""
        return self.groups(step) * self.stride(step)

    def biases(self, step: Pass) -> int:
        """Return the words of biases: those of the first layer are of each token."""
        if not step.multiplies:
            return 0
        return self.groups(step) * (self.config.tokens if step.residual == "kept" else 1)

    def thresholds(self, step: Pass) -> int:
        """Return the thresholds that a pass leaves behind: those of its block, if there are more.

        They lie in the attention unit, block by block.
        """
        return self.config.channels if step.attends and self.blocks > 1 else 0

    @property
    def image_beats(self) -> int:
        """Beats of an image."""
        return self.config.tokens * self.feature_beats

    @property
    def token_words(self) -> int:
        """Words of the spikes of a token in one time step."""
        return self.config.channels // self.config.channels_per_beat

    @property
    def step_words(self) -> int:
        """Words of the spikes of all tokens."""
        return self.config.tokens * self.token_words

    @property
    def spike_words(self) -> int:
        """Words of all spikes that are kept at one time."""
        c = self.config
        used = c.channels + max(c.hidden, 0 if c.attention == "none" else 3 * c.channels)
        return c.timesteps * c.tokens * used // c.channels_per_beat

    @property
    def residual_words(self) -> int:
        """Words of the residual."""
        return self.config.timesteps * self.config.tokens * self.config.channels

    @property
    def traced(self) -> int:
        """Words of spikes that are put out in an inference."""
        c = self.config
        channels = sum(p.outputs for p in self.firing)
        channels += c.channels * sum(p.attends for p in self.layers)
        return c.timesteps * c.tokens * channels // c.channels_per_beat

    @property
    def plan(self) -> Plan:
        """What the engine is built for."""
        c = self.config
        engine = [p for p in self.passes if not p.attends]
        return Plan(
            lanes=c.lanes, columns=c.columns, channels=c.channels_per_beat,
            inputs=max(p.inputs for p in engine), groups=max(self.groups(p) for p in engine),
            input_bits=1, weight_bits=c.weight_bits, bias_bits=c.bias_bits,
            value_bits=c.value_bits,
            words=sum(map(self.words, self.multiplied)),
            biases=sum(map(self.biases, self.multiplied)),
            least_turns=min(self.groups(p) for p in engine), events=self.events,
            tag_bits=2 if c.experts else 1,
            # At TURN clocks or more a group, scan + 3 + turn is less than 3 of the longer of both.
            least_pages=4 if self.events else 2,
        )  # fmt: skip

    @property
    def events(self) -> bool:
        """Whether slices without a spike take no clocks; all clocks are bounds then."""
        return self.config.mode == "events"

    def scan_clocks(self, step: Pass) -> int:
        """Return the clocks in which a token is cut into slices, at most."""
        if not self.events:
            return self.slices(step)
        return self.beats(step) + (0 if step.blank else self.slices(step))

    def slice_clocks(self, step: Pass) -> int:
        """Return the clocks of a group's slices, at most: one where there is nothing in any."""
        return 1 if self.events and step.blank else self.slices(step)

    def group_clocks(self, step: Pass) -> int:
        """Return the clocks of a group: of its slices, or of its sums one after another."""
        return max(self.slice_clocks(step), self.config.lanes, TURN)

    def token_clocks(self, step: Pass) -> int:
        """Return the clocks of a token: of its groups, while the next one is cut into slices."""
        return max(self.groups(step) * self.group_clocks(step), self.scan_clocks(step))

    def first_group(self, step: Pass) -> int:
        """Return the clocks from where a pass begins to the sums of its first group.

        The first word is read and taken, its token cut into slices, which is told some clocks
        later, and these added up.
        """
        told = 3 if self.events else 1
        slices = self.scan_clocks(step) + self.slice_clocks(step)
        return 1 + told + slices + self.plan.pipe_clocks

    def pass_clocks(self, step: Pass) -> int:
        """Return the clocks of a pass."""
        c = self.config
        if step.attends:
            return self.attend_clocks
        last_token = (c.timesteps * c.tokens - 1) * self.token_clocks(step)
        last_group = (self.groups(step) - 1) * self.group_clocks(step)
        last_group += self.first_group(step) + last_token
        return last_group + c.lanes + FINISH_CLOCKS + 1

    @property
    def unit_beats(self) -> int:
        """Beats of a time step of the attention unit."""
        return self.step_words // self.unit_words

    @property
    def read_clocks(self) -> tuple[int, int]:
        """Clocks of a beat of what is summed up, and of what waits: its words, and two."""
        first, _ = self.operands
        return len(first) * self.unit_words + 2, self.unit_words + 2

    @property
    def pauses(self) -> tuple[int, int, int]:
        """Clocks without a read behind a beat of what is summed up, its last one, and the others.

        K^T V is worked on for several clocks a beat. It is given no beat before it can take it, nor
        one that waits before the sums are there: so it takes the same clocks whatever it holds.
        """
        plan = self.config.unit.plan if self.config.unit else None
        if not isinstance(plan, ProductPlan):
            return 0, 0, 0
        summed, waiting = (max(plan.parts + 1 - clocks, 0) for clocks in self.read_clocks)
        return summed, plan.page_clocks + plan.parts, waiting

    @property
    def attend_clocks(self) -> int:
        """Clocks of a pass through the attention unit.

        A time step is read beat by beat; then the last beat goes through the unit, where what
        it sums up has to be there first, and its words are written.
        """
        unit = self.config.unit
        assert unit is not None
        drain = self.unit_words + 1  # a beat that comes out
        summed, turn, waiting = (sum(x) for x in zip(self.pauses, (0, 0, 0), strict=True))
        reads = self.unit_beats * sum(self.read_clocks)
        reads += (self.unit_beats - 1) * (summed + waiting) + turn
        if isinstance(unit, AttentionConfig):
            rest = max(unit.interval // unit.beats, drain) * (unit.beats - 1)
            rest += unit.latency - unit.beats + 1 + drain
        elif isinstance(unit.plan, ProductPlan):
            rest = unit.plan.lag + drain + 1
        else:
            rest = unit.plan.page_clocks + self.unit_words - 1
        return self.config.timesteps * (reads + rest) + 1

    def first_word(self, step: Pass) -> int:
        """Return the clocks from where a pass begins to its first word of spikes, as a trace."""
        c = self.config
        group, lane = divmod(c.channels_per_beat - 1, c.lanes)
        last = self.first_group(step) + group * self.group_clocks(step) + lane + 1
        return last + FINISH_CLOCKS + TRACE_CLOCKS

    @property
    def latency(self) -> int:
        """Clocks from the first beat of an inference to what comes out first."""
        raise NotImplementedError

    @property
    def cycles(self) -> int:
        """Clocks from the first beat of an inference to the last one that comes out."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class NetworkSchedule(Schedule):
    """The passes of a whole network: an embedding in front of the blocks, a head behind them."""

    config: TransformerConfig

    @property
    def entry(self) -> Pass:
        c = self.config
        inputs = self.feature_beats * c.channels_per_beat
        return Pass("embed", inputs, c.channels, residual="kept")

    @property
    def exits(self) -> tuple[Pass, ...]:
        c = self.config
        outputs = -(-c.classes // c.lanes) * c.lanes
        return (Pass("head", c.channels, outputs, fires=False),)

    @property
    def blocks(self) -> int:
        return self.config.blocks

    @property
    def planes(self) -> int:
        return self.config.input_bits

    @property
    def feature_beats(self) -> int:
        return -(-self.config.features // self.config.channels_per_beat)

    @property
    def logits_at(self) -> int:
        """Clocks from the first beat of an image to its first logit."""
        return self.image_beats + sum(map(self.pass_clocks, self.sequence)) + READ_CLOCKS

    @property
    def latency(self) -> int:
        if not self.config.trace:
            return self.logits_at
        before = (self.planes - 1) * self.pass_clocks(self.entry)
        return self.image_beats + before + self.first_word(self.entry)

    @property
    def cycles(self) -> int:
        return self.logits_at + 2 * self.config.classes - 1

    @property
    def interval(self) -> int:
        """Clocks from an image to the next."""
        return self.cycles + 1
