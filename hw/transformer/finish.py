"""What becomes of the engine's sums: residual and neurons, one sum a clock."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.attributes import BLOCK, NO_COLLISION
from hw.lif import LifCore, loaded_setting
from hw.transformer.block import BlockConfig
from hw.transformer.schedule import TURN
from hw.turns import following


class Finish(wiring.Component):
    """Take groups of sums from the engine, and put out spikes.

    The engine needs as many clocks for a group as a token has inputs, so its sums go one after
    another through a pipeline that is there once, whatever `lanes` is::

        group -> one of them -> shifted -> + residual -> saturated -> LifCore -> word of spikes
                 (residual is read)                      (residual is written)

    Outputs come in the order of the memories, so addresses are counters. A neuron comes round
    `TURN` clocks later at the soonest: its membrane has been written by then.

    Parameters
    ----------
    config : BlockConfig

    Attributes
    ----------
    start : Signal(), in
        A pass begins. What follows holds until `done`.
    plane : in
        Which bit of the inputs the sums are of.
    kept, added : Signal(), in
        Sums become the residual, or are added to it.
    fires : Signal(), in
        There are neurons.
    last_place : in
        Outputs of a token, less 1.
    target : in
        The first word of the spikes.
    layer, shifted : in
        Which threshold, and which shift.
    threshold, shift : stream, in
        As `hw.lif.Lif` has them: a beat for each layer.
    i_valid, i_values, i_given, i_ready : in, in, in, out
        Groups of sums, and with experts, if they are of a token that is given to the expert. Of
        others the neurons rest: they neither charge nor leak nor fire.
    room : Signal(), in
        Words of spikes may be written.
    word_starts : Signal(), out
        Another word of them is on its way.
    write, address, word : out
        A word of spikes.
    coming : Signal(), out
        There will be a sum in the next clock.
    o_valid, o_value : out
        Every sum, as it is where neurons are given it.
    answers, first_answers, merges : Signal(), in
        With experts: spikes are answers of one, of the first one; and the sum of answers takes the
        place of the engine's.
    o_fires, o_fired : Signal(), out
        With experts: every spike, or its absence.
    outside : Signal(), in
        Where the residual comes and goes: it is read or written from outside, and no pass goes on.
    outside_address, outside_read, outside_write, outside_value : in
    outside_word : out
        Of the address a clock before, until the next one is read.
    done : Signal(), out
        The pass has ended.
    fault : Signal(2), out
        A broken frame of settings.
    """

    def __init__(self, config: BlockConfig) -> None:
        self._config = c = config
        s = c.schedule
        places = max(p.outputs for p in s.passes)
        streams = {name: In(c.stream(name).signature) for name in ("threshold", "shift")}
        super().__init__(
            streams
            | (
                dict.fromkeys(("i_given", "answers", "first_answers", "merges"), In(1))
                | dict.fromkeys(("o_fires", "o_fired"), Out(1))
                if c.experts
                else {}
            )
            | (
                {
                    "outside": In(1),
                    "outside_address": In(range(max(s.residual_words, 2))),
                    "outside_read": In(1),
                    "outside_write": In(1),
                    "outside_value": In(signed(c.residual_bits)),
                    "outside_word": Out(signed(c.residual_bits)),
                }
                if s.entry.enters
                else {}
            )
            | dict.fromkeys(("start", "kept", "added", "fires", "i_valid", "room"), In(1))
            | {
                "plane": In(range(max(s.planes, 2))),
                "last_place": In(range(max(places, 2))),
                "target": In(range(max(s.spike_words, 2))),
                "layer": In(range(max(c.layers, 2))),
                "shifted": In(range(max(c.shifts, 2))),
                "i_values": In(data.ArrayLayout(signed(c.value_bits), c.lanes)),
                "i_ready": Out(1),
                "word_starts": Out(1),
                "write": Out(1),
                "address": Out(range(max(s.spike_words, 2))),
                "word": Out(c.channels_per_beat),
                "coming": Out(1),
                "o_valid": Out(1),
                "o_value": Out(signed(c.residual_bits)),
                "done": Out(1),
                "fault": Out(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        sums, given, pops = self._take(m)
        place, opening, final = self._count(m, pops, given)

        def later(value: Value, clocks: int, name: str) -> Value:
            """Return a value some clocks later."""
            for clock in range(clocks):
                register = Signal.like(Value.cast(value), name=f"{name}{clock + 1}")
                m.d.sync += register.eq(value)
                value = register
            return value

        # (`Signal.like` would keep an init of the counters.)
        valid = [pops]
        for clock in range(6):
            valid.append(later(valid[-1], 1, f"valid_{clock}_"))
        place2 = later(place, 2, "place")
        place4 = later(place2, 2, "place_late")

        m.submodules.core = core = LifCore(c.neuron, 2, late=True)
        wiring.connect(m, wiring.flipped(self.threshold), core.threshold)
        charges, fires = valid[4] & self.fires, valid[5] & self.fires
        fired: Value = core.fired
        if c.experts:
            given4 = later(given, 4, "given")
            fired = core.fired & later(given4, 1, "given_late")
            m.d.comb += [self.o_fires.eq(fires), self.o_fired.eq(fired)]
        m.d.comb += [
            core.current[0].eq(self.o_value),
            core.moves.eq(charges & given4 if c.experts else charges),
            core.opening.eq(later(opening, 4, "opening")),
            core.beat.eq(place4),
            core.upcoming.eq(place2),
            core.setting.eq(self.layer),
        ]
        self._gather(m, fires, fired)

        # The sum, in the units of the residual.
        shifts, shift_fault = loaded_setting(m, c.stream("shift"), self.shift, 0, self.shifted, 1)
        amount = Signal(range(c.most_shift + 1))
        value1 = Signal(signed(c.value_bits))
        value2 = Signal(signed(c.value_bits + c.most_shift))
        total3 = Signal(signed(max(len(value2), c.residual_bits) + 1))
        value: Value = value1
        if c.experts:
            count = self._answers(m, pops, charges, fires, fired)
            value = Cat(value1[: len(count)] | count, value1[len(count) :]).as_signed()
        m.d.comb += [self.coming.eq(valid[3]), self.o_valid.eq(valid[4])]
        m.d.sync += [
            amount.eq(Mux(self.kept | self.added, shifts[0], 0) + self.plane),
            value1.eq(sums),
            value2.eq(value << amount),
            total3.eq(value2 + self._residual(m, pops, valid[4])),
            self.o_value.eq(saturated(total3, c.residual_bits)),
        ]
        m.d.comb += [
            self.fault.eq(Cat(core.fault, shift_fault)),
            self.done.eq(later(final & pops, 7, "final")),
        ]
        return m

    def _answers(self, m: Module, pops: Value, charges: Value, fires: Value, fired: Value) -> Value:
        """Count the answers to each token; return their number, a clock later, where it is due."""
        c = self._config
        depth = c.schedule.residual_words
        shape = bits_for(c.experts)
        m.submodules.answers = store = memory.Memory(
            shape=shape, depth=depth, init=[], attrs=NO_COLLISION | BLOCK
        )
        # What is written was read a clock before, and nothing is read twice in a pass.
        read, write = store.read_port(), store.write_port()
        m.d.comb += [
            read.en.eq(Mux(self.merges, pops, charges & self.answers)),
            write.en.eq(fires & self.answers),
            write.data.eq(Mux(self.first_answers, 0, read.data) + fired),
        ]
        m.d.sync += write.addr.eq(read.addr)
        with m.If(read.en):
            m.d.sync += read.addr.eq(following(read.addr, depth))
        return Mux(self.merges, read.data, 0)

    def _take(self, m: Module) -> tuple[Value, Value, Signal]:
        """Take groups; return one sum of them, if its token is given, and whether it is one now."""
        c = self._config
        turn = max(c.lanes, TURN)
        values = Signal(c.lanes * c.value_bits)
        busy, at_end, goes, pops = Signal(), Signal(), Signal(), Signal()
        count = Signal(range(turn))
        m.d.comb += [
            at_end.eq(count == turn - 1),
            goes.eq(busy & self.room),
            pops.eq(goes & (count < c.lanes) if turn > c.lanes else goes),
            self.i_ready.eq(~busy | (goes & at_end)),
        ]
        with m.If(goes):
            m.d.sync += [
                values.eq(values >> c.value_bits),
                count.eq(Mux(at_end, 0, count + 1)),
            ]
        with m.If(self.i_ready):
            m.d.sync += [values.eq(self.i_values), busy.eq(self.i_valid)]
        given: Value = Const(1)
        if c.experts:
            given = Signal()
            with m.If(self.i_ready):
                m.d.sync += given.eq(self.i_given)
        return values[: c.value_bits].as_signed(), given, pops

    def _count(self, m: Module, pops: Value, given: Value) -> tuple[Signal, Signal, Signal]:
        """Return which output it is, if its token had no time step before, and if it is the last.

        Time steps in which the token was not given do not count.
        """
        c = self._config
        place = Signal.like(self.last_place)
        step = Signal(range(max(c.timesteps, 2)))
        token = Signal(range(max(c.tokens, 2)))
        opening, final, ends, last_step = Signal(init=1), Signal(), Signal(), Signal()
        bit = Signal(range(max(c.channels_per_beat, 2)))
        whole = bit == c.channels_per_beat - 1
        m.d.comb += [
            ends.eq(place == self.last_place),
            last_step.eq(ends & (step == c.timesteps - 1)),
            final.eq(last_step & (token == c.tokens - 1)),
            self.word_starts.eq(pops & self.fires & whole),
        ]
        with m.If(pops):
            m.d.sync += [place.eq(Mux(ends, 0, place + 1)), bit.eq(Mux(whole, 0, bit + 1))]
            with m.If(ends):
                m.d.sync += [
                    step.eq(Mux(last_step, 0, step + 1)),
                    opening.eq(last_step | (opening & ~given)),
                ]
            with m.If(last_step):
                m.d.sync += token.eq(Mux(final, 0, token + 1))
        with m.If(self.start):
            m.d.sync += bit.eq(0)
        return place, opening, final

    def _residual(self, m: Module, pops: Value, moves: Value) -> Value:
        """Keep the residual; return that of a sum, two clocks later, 0 where it is not added."""
        c = self._config
        depth = c.schedule.residual_words
        m.submodules.residual = store = memory.Memory(
            shape=signed(c.residual_bits), depth=depth, init=[], attrs=NO_COLLISION | BLOCK
        )
        # What is written was read four clocks before, and nothing is read twice in a pass.
        read, write = store.read_port(), store.write_port()
        goes = self.kept | self.added
        word = Signal(signed(c.residual_bits), name="residual_word")
        reads, writes = Signal.like(read.addr), Signal.like(write.addr)
        m.d.comb += [
            read.en.eq(pops),
            read.addr.eq(reads),
            write.en.eq(moves & goes),
            write.addr.eq(writes),
            write.data.eq(self.o_value),
        ]
        m.d.sync += word.eq(Mux(self.added, read.data, 0))
        with m.If(pops & goes):
            m.d.sync += reads.eq(following(reads, depth))
        with m.If(moves & goes):
            m.d.sync += writes.eq(following(writes, depth))
        if c.schedule.entry.enters:
            m.d.comb += self.outside_word.eq(read.data)
            with m.If(self.outside):
                m.d.comb += [
                    read.en.eq(self.outside_read),
                    read.addr.eq(self.outside_address),
                    write.en.eq(self.outside_write),
                    write.addr.eq(self.outside_address),
                    write.data.eq(self.outside_value),
                ]
        return word

    def _gather(self, m: Module, fires: Value, fired: Value) -> None:
        """Put spikes together to words, and those where they belong."""
        width = self._config.channels_per_beat
        bit = Signal(range(max(width, 2)))
        whole = bit == width - 1
        m.d.sync += self.write.eq(fires & whole)
        with m.If(fires):
            m.d.sync += [self.word.eq(Cat(self.word, fired)[1:]), bit.eq(Mux(whole, 0, bit + 1))]
        with m.If(self.write):
            m.d.sync += self.address.eq(self.address + 1)
        with m.If(self.start):
            m.d.sync += [self.address.eq(self.target), bit.eq(0)]


def saturated(value: Value, bits: int) -> Value:
    """Return a signed value, or what is nearest to it in so many bits."""
    sign, signs = value[-1], value[bits - 1 :]
    most = Cat((~sign).replicate(bits - 1), sign)
    return Mux(signs.all() | ~signs.any(), value[:bits], most).as_signed()
