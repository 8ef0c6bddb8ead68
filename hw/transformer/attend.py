"""The attention of a block: words of spikes through the attention unit and back."""

from collections.abc import Callable

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.attention import AttentionConfig, attention
from hw.sdsa import Sdsa
from hw.transformer.block import BlockConfig


class Attend(wiring.Component):
    """Send queries, keys and values through the unit that the configuration has for them.

    A time step after the other: what the unit sums up over all tokens (keys and values) goes
    first, then what waits for that, so that one port of the memory is enough and no unit needs to
    keep what waits. A beat of the unit is some words.

    SDSA-4 keeps the thresholds of all blocks, and is told where those of the one at hand begin. To
    copy them into the unit in front of each pass would take no clocks either, since passes through
    the engine are longer, but a second memory and what walks through it.

    Parameters
    ----------
    config : BlockConfig

    Attributes
    ----------
    start, done : in, out
        The pass begins, and has ended.
    read, read_address, read_word : out, out, in
        Of the memory; a word is there a clock later.
    room : Signal(), in
        Words may be written.
    write, address, word : out
    attention_threshold : stream, in
        With SDSA-4: of each channel of each block.
    origin : in
        With it: the place of the first one of the block at hand.
    fault : Signal(), out
        With it: a broken frame of them is found.
    """

    def __init__(self, config: BlockConfig) -> None:
        self._config = config
        words = range(max(config.schedule.spike_words, 2))
        loaded = {}
        if config.attention_thresholds:
            loaded = {
                "attention_threshold": In(config.stream("attention_threshold").signature),
                "origin": In(range(max(config.attention_thresholds, 2))),
                "fault": Out(1),
            }
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "read": Out(1),
                "read_address": Out(words),
                "read_word": In(config.channels_per_beat),
                "room": In(1),
                "write": Out(1),
                "address": Out(words),
                "word": Out(config.channels_per_beat),
            }
            | loaded
        )

    def elaborate(self, platform: object) -> Module:
        c, s = self._config, self._config.schedule
        m = Module()
        config = c.unit
        assert config is not None
        if isinstance(config, AttentionConfig):
            m.submodules.unit = unit = attention(config)
        elif c.attention_thresholds:
            m.submodules.unit = unit = Sdsa(config, s.blocks)
            wiring.connect(m, wiring.flipped(self.attention_threshold), unit.threshold)
            m.d.comb += [unit.origin.eq(self.origin), self.fault.eq(unit.fault)]
        else:
            m.submodules.unit = unit = Sdsa(config)
        first, then = s.operands
        names = (*first, then)
        width = c.channels_per_beat
        parts = s.unit_words
        beats = s.step_words // parts

        # One beat after another: its words are read, then it is offered.
        reads, offers = Signal(), Signal()
        beat = Signal(range(max(beats, 2)))
        late = Signal()  # it is the turn of those that wait
        step = Signal(range(max(c.timesteps, 2)))
        waits = Signal()  # for what comes out of the time step
        begin, next_beat = self._places(m, parts, "read")  # the first word, of each operand's
        operand = Signal(range(len(names)))
        share = Signal(range(max(parts, 2)))
        last_share = share == parts - 1
        last_of_beat = last_share & (
            (operand == len(names) - 1) | (~late & (operand == len(first) - 1))
        )
        bases = {p.name: p.target for p in s.passes if p.name in names}
        base = Signal.like(self.read_address)
        with m.Switch(operand):
            for i, name in enumerate(names):
                with m.Case(i):
                    m.d.comb += base.eq(bases[name])
        m.d.comb += [
            self.read.eq(reads),
            self.read_address.eq(base + begin + share),
        ]
        comes, came = Signal(), Signal.like(operand)
        m.d.sync += [comes.eq(reads), came.eq(operand)]
        with m.If(reads):
            m.d.sync += share.eq(Mux(last_share, 0, share + 1))
            with m.If(last_share):
                m.d.sync += operand.eq(operand + 1)
            with m.If(last_of_beat):
                m.d.sync += reads.eq(0)
        m.d.sync += offers.eq(offers | (comes & ~reads))

        open_: list[Signal] = []
        for i, name in enumerate(names):
            port = getattr(unit, name)
            word = Signal(width * parts, name=f"{name}_beat")
            with m.If(comes & (came == i)):
                m.d.sync += word.eq(Cat(word, self.read_word)[width:])
            left = Signal(name=f"{name}_left")  # it is still to be taken
            turn = late if name == then else ~late
            m.d.comb += [
                port.valid.eq(offers & turn & left),
                port.payload.data.eq(word),
                port.payload.last.eq(beat == beats - 1),
                port.payload.first.eq((beat == 0) & (step == 0)),
            ]
            with m.If(comes):
                m.d.sync += left.eq(1)
            with m.If(port.valid & port.ready):
                m.d.sync += left.eq(0)
            open_.append(port.valid & ~port.ready)
        taken = offers & ~Cat(open_).any()
        last_beat = beat == beats - 1
        pauses = s.pauses
        rest = Signal(range(max(pauses) + 1))
        turns = Signal()
        with m.If(rest != 0):
            m.d.sync += [rest.eq(rest - 1), reads.eq(rest == 1)]
        with m.If(taken):
            m.d.sync += [offers.eq(0), beat.eq(Mux(last_beat, 0, beat + 1))]
            m.d.comb += turns.eq(last_beat & ~late)
            with m.If(turns):
                m.d.sync += [late.eq(1), operand.eq(len(first))]
            with m.Else():
                m.d.sync += operand.eq(Mux(late, len(first), 0))
            next_beat(turns)
            with m.If(last_beat & late):
                m.d.sync += waits.eq(1)
            with m.Else():
                pause = Mux(turns, pauses[1], Mux(late, pauses[2], pauses[0]))
                m.d.sync += [rest.eq(pause), reads.eq(pause == 0)]

        written, ended = self._put(m, unit.out, parts, beats, waits)
        last_step = step == c.timesteps - 1
        m.d.comb += self.done.eq(ended & last_step)
        with m.If(ended):
            m.d.sync += [
                waits.eq(0), late.eq(0), operand.eq(0), reads.eq(~last_step),
                step.eq(Mux(last_step, 0, step + 1)),
            ]  # fmt: skip
        with m.If(self.start):
            m.d.sync += [operand.eq(0), reads.eq(1)]
        m.d.comb += self.address.eq(written + bases[then])
        return m

    def _places(
        self, m: Module, parts: int, name: str
    ) -> tuple[Signal, Callable[[ValueLike], None]]:
        """Return where a beat of `parts` words lies in a layer, and what goes to the next one.

        That goes through the tokens of a time step, whose words lie apart, and then through those
        of the next one, or of the same one again.
        """
        c, s = self._config, self._config.schedule
        beats = s.token_words // parts
        address = Signal.like(self.read_address, name=f"{name}_place")
        origin = Signal.like(address, name=f"{name}_origin")  # of the time step
        beat = Signal(range(max(beats, 2)), name=f"{name}_beat")
        token = Signal(range(max(c.tokens, 2)), name=f"{name}_token")
        last_beat = beat == beats - 1
        last_token = last_beat & (token == c.tokens - 1)
        others = (c.timesteps - 1) * s.token_words  # words of the other time steps of a token
        with m.If(self.start):
            m.d.sync += [address.eq(0), origin.eq(0)]

        def next_beat(again: ValueLike) -> None:
            m.d.sync += [
                address.eq(address + parts + Mux(last_beat, others, 0)),
                beat.eq(Mux(last_beat, 0, beat + 1)),
            ]
            with m.If(last_beat):
                m.d.sync += token.eq(Mux(last_token, 0, token + 1))
            with m.If(last_token):
                begins = Mux(again, origin, origin + s.token_words)
                m.d.sync += [address.eq(begins), origin.eq(begins)]

        return address, next_beat

    def _put(
        self, m: Module, out: wiring.PureInterface, parts: int, beats: int, waits: Value
    ) -> tuple[Value, Value]:
        """Write what comes out; return where, and if the time step that is waited for came."""
        width = self._config.channels_per_beat
        place, next_word = self._places(m, 1, "write")
        words = Signal(width * parts)
        left = Signal(range(parts + 1))
        came = Signal(range(beats + 1))
        ended = Signal()
        m.d.comb += [
            out.ready.eq(left == 0),
            self.write.eq((left != 0) & self.room),
            self.word.eq(words[:width]),
            ended.eq(waits & (came == beats) & (left == 0)),
        ]
        with m.If(self.write):
            m.d.sync += [words.eq(words >> width), left.eq(left - 1)]
            next_word(0)
        with m.If(out.valid & out.ready):
            m.d.sync += [words.eq(out.payload.data), left.eq(parts), came.eq(came + 1)]
        with m.If(ended):
            m.d.sync += came.eq(0)
        return place, ended
