"""A matrix product in additions: the core, which serves one matrix or many."""

import dataclasses

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith import add_tree, pipelined_tree
from hw.attributes import BLOCK, LOADED, NO_COLLISION
from hw.linear.plan import Plan
from hw.linear.scan import Scan
from hw.queue import Marks


@dataclasses.dataclass
class _Flags:
    """What goes along with a slice."""

    valid: Value
    begins: Value  # the first one of its token
    restarts: Value  # and its biases are the first ones
    blank: Value  # there is none: the token is empty
    ends_plane: Value
    ends_group: Value
    first: Value  # of the first group
    last: Value  # of the last group
    tag: Value

    def later(self, m: Module, moves: Value, name: str) -> "_Flags":
        """Return the same a clock later."""
        fields = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            register = Signal.like(value, name=f"{name}_{field.name}")
            with m.If(moves):
                m.d.sync += register.eq(value)
            fields[field.name] = register
        return _Flags(**fields)


class Engine(wiring.Component):
    """Compute ``W x + b`` for tokens x, one after another, by adding up weights.

    A matrix lies in the memory as words of `columns` weights of each of `lanes` outputs: those of
    the first group of outputs for all slices of the inputs, then those of the next group. Which
    matrix it is says the *job*: signals that may change while `idle` only. Weights and biases are
    written likewise.

    The pipeline::

        i -> Scan -> list of slices -> address -> weights -> mask -> tree -> sum -> o
                     (some tokens)                biases -----------------/

    While one token is gone through, group by group, the next one comes in. A slice takes a clock in
    each group and plane (bit of the inputs, lowest first), a token without any one clock. What
    stalls the output stops the whole pipeline: an enable costs no LUTs, and the sum itself is the
    output register.

    Parameters
    ----------
    plan : Plan
    shared : bool
        The weights are written and read through one address, and not read before they are written,
        so that a large memory with a single port will do. Have the input `loads`.
    repeats : bool
        Have the input `mute`, and take the lowest bit of a tag for: its biases are those of the
        token before.

    Attributes
    ----------
    base, stride : Signal, in
        The first word of the matrix, and words of a group: the slices of a token.
    last_group, last_plane : Signal, in
        Groups of the matrix and bits of an input, less 1.
    bias_base : Signal, in
        The first word of biases.
    mute : Signal(), in
        Biases are 0.
    i_valid, i_bits, i_ready : in, in, out
        A beat of a token: `channels` inputs, the first one lowest. Those that the matrix does not
        have are 0.
    i_final, i_restart, i_tag : in
        With the last beat of a token: that it is; that its biases are the first ones, and else
        those behind the token before; and what comes out with it.
    drop : Signal(), in
        Forget the beats of the token at hand; only while `i_ready`, and no beat moves.
    o_valid, o_values, o_ready : out, out, in
        The values of a group, in units of ``2^-(input_bits - planes)`` where a job has fewer
        planes than the engine.
    o_first, o_last, o_tag : out
        Of the first group, of the last, and that of the token.
    idle : Signal(), out
        No whole token is on its way.
    weights_enable, weights_address, weights_data : in
        Write the weights of some lanes of a word.
    bias_enable, bias_address, bias_data : in
        Write a word of biases.
    loads : Signal(), in
        Weights may be written, and are not read.
    """

    def __init__(self, plan: Plan, *, shared: bool = False, repeats: bool = False) -> None:
        self._plan = p = plan
        self._shared = shared
        self._repeats = repeats
        self._weights = data.ArrayLayout(p.columns * p.weight_bits, p.lanes)
        self._biases = data.ArrayLayout(signed(p.bias_bits), p.lanes)
        super().__init__(
            {
                "base": In(range(max(p.words, 2))),
                "stride": In(range(p.slices + 1)),
                "last_group": In(range(max(p.groups, 2))),
                "last_plane": In(range(max(p.input_bits, 2))),
                "bias_base": In(range(max(p.biases, 2))),
                "i_valid": In(1),
                "i_bits": In(p.channels * p.input_bits),
                "i_final": In(1),
                "i_restart": In(1),
                "i_tag": In(p.tag_bits),
                "i_ready": Out(1),
                "drop": In(1),
                "o_valid": Out(1),
                "o_values": Out(data.ArrayLayout(signed(p.value_bits), p.lanes)),
                "o_first": Out(1),
                "o_last": Out(1),
                "o_tag": Out(p.tag_bits),
                "o_ready": In(1),
                "idle": Out(1),
                "weights_enable": In(p.lanes),
                "weights_address": In(range(max(p.words, 2))),
                "weights_data": In(p.columns * p.weight_bits),
                "bias_enable": In(1),
                "bias_address": In(range(max(p.biases, 2))),
                "bias_data": In(self._biases),
                **({"mute": In(1)} if repeats else {}),
                **({"loads": In(1)} if shared else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        p = self._plan
        m = Module()
        moves = Signal()  # the pipeline
        m.d.comb += moves.eq(~self.o_valid | self.o_ready)
        flags, item, busy = self._list(m, moves)
        stages = [flags]
        for clock in range(p.pipe_clocks - 1):
            stages.append(stages[-1].later(m, moves, f"clock{clock + 1}"))
        m.d.comb += self.idle.eq(
            ~busy & ~Cat(stage.valid for stage in stages[1:]).any() & ~self.o_valid
        )
        asked = p.item_clocks
        address, masks = self._address(m, moves, stages[asked - 1], stages[asked], item)
        weights = self._read_weights(m, moves, stages[asked + 1], address, masks)
        biases = self._read_biases(m, moves, stages[-4], stages[-3])
        self._sums(m, moves, stages[-1], weights, biases)
        return m

    def _list(self, m: Module, moves: Signal) -> tuple[_Flags, Value, Value]:
        """Keep the slices of tokens; return flags of the one that is asked for, and what it is."""
        p = self._plan
        m.submodules.scan = scan = Scan(p)
        m.submodules.tokens = tokens = Marks(p.index_bits + 1 + p.word_bits, p.pages)
        m.submodules.slices = store = memory.Memory(
            shape=p.item_bits, depth=p.pages << p.index_bits, init=[],
            attrs=NO_COLLISION | (BLOCK if p.in_block else {}),
        )  # fmt: skip
        # Of two different pages.
        write, read = store.write_port(), store.read_port()
        # Pages that are in use, from the last beat of a token to its last slice.
        used = Signal(range(p.pages + 1))
        page_bits = ceil_log2(p.pages)
        into = Signal(page_bits)
        out_of = Signal(page_bits)
        count = Signal(p.index_bits)  # slices of the token at hand
        newest = Signal(p.index_bits)  # the last one of them
        some = Signal()  # if there are any
        release = Signal()
        m.d.comb += [
            scan.valid.eq(self.i_valid),
            scan.bits.eq(self.i_bits),
            scan.final.eq(self.i_final),
            scan.word.eq(Cat(self.i_tag, self.i_restart)),
            scan.drop.eq(self.drop),
            scan.room.eq(used != p.pages),
            self.i_ready.eq(scan.ready),
            write.en.eq(scan.write),
            write.addr.eq(Cat(count, into)),
            write.data.eq(
                Cat(scan.slice if p.stores_slices else (), scan.index if p.events else ())
            ),
            tokens.write.eq(scan.commit),
            tokens.word.eq(
                Cat(
                    newest if p.events else count,
                    ~some if p.events else Const(0),
                    scan.commit_word,
                )
            ),
            tokens.pop.eq(release),
        ]
        m.d.sync += used.eq(used + scan.taken - release)
        with m.If(scan.commit | scan.abort):
            m.d.sync += [count.eq(0), some.eq(0)]
        with m.Elif(scan.write):
            m.d.sync += [count.eq(count + 1), newest.eq(count), some.eq(1)]
        with m.If(scan.commit):
            m.d.sync += into.eq(into + 1)
        with m.If(release):
            m.d.sync += out_of.eq(out_of + 1)

        k = Signal(p.index_bits)
        group = Signal.like(self.last_group)
        fresh = Signal(init=1)  # the next slice is the first one of its token
        at_end = Signal()
        at_plane = Signal()
        at_group = Signal()
        last = tokens.oldest[: p.index_bits]
        blank = tokens.oldest[p.index_bits]
        restart = tokens.oldest[-1]
        asks = Signal()
        m.d.comb += [
            at_end.eq((k == last) | blank),
            at_group.eq(group == self.last_group),
            asks.eq(tokens.waiting & moves),
            release.eq(asks & at_end & at_plane & at_group),
            read.addr.eq(Cat(k, out_of)),
            read.en.eq(asks),
        ]
        with m.If(asks):
            m.d.sync += [k.eq(Mux(at_end, 0, k + 1)), fresh.eq(release)]
            with m.If(at_end & at_plane):
                m.d.sync += group.eq(Mux(at_group, 0, group + 1))
        if p.input_bits > 1:
            plane = Signal.like(self.last_plane)
            m.d.comb += at_plane.eq(plane == self.last_plane)
            with m.If(asks & at_end):
                m.d.sync += plane.eq(Mux(at_plane, 0, plane + 1))
        else:
            m.d.comb += at_plane.eq(1)
        flags = _Flags(
            valid=tokens.waiting,
            begins=fresh,
            restarts=fresh & restart,
            blank=blank,
            ends_plane=at_end,
            ends_group=at_end & at_plane,
            first=group == 0,
            last=at_group,
            tag=tokens.oldest[p.index_bits + 1 : -1],
        )
        item: Value = read.data
        if p.in_block:
            register = Signal.like(item, name="item", reset_less=True)
            with m.If(moves):
                m.d.sync += register.eq(item)
            item = register
        return flags, item, used != 0

    def _address(
        self, m: Module, moves: Signal, before: _Flags, at: _Flags, item: Value
    ) -> tuple[Signal, Signal]:
        """Return where the weights of a slice are, and which inputs of it count, a clock later."""
        p = self._plan
        start = Signal(range(max(p.words, 2)))  # of the group
        with m.If(moves):
            with m.If(before.valid & before.begins):
                m.d.sync += start.eq(self.base)
            with m.Elif(at.valid & at.ends_group):
                m.d.sync += start.eq(start + self.stride)
        number: Value
        if p.events:
            number = item[-p.index_bits :]
        else:
            number = Signal(p.index_bits)
            with m.If(moves & at.valid):
                m.d.sync += number.eq(Mux(at.ends_plane, 0, number + 1))
        if p.stores_slices:
            bits: Value = item[: p.slice_bits]
            if p.input_bits > 1:
                plane = Signal(range(p.input_bits))
                with m.If(moves & at.valid & at.ends_plane):
                    m.d.sync += plane.eq(Mux(at.ends_group, 0, plane + 1))
                inputs = [bits.word_select(i, p.input_bits) for i in range(p.columns)]
                bits = Cat(x.bit_select(plane, 1) for x in inputs)
        else:
            bits = Const(1)
        address = Signal.like(start)
        masks = Signal(p.columns)
        with m.If(moves):
            m.d.sync += [address.eq(start + number), masks.eq(Mux(at.blank, 0, bits))]
        return address, masks

    def _read_weights(
        self, m: Module, moves: Signal, at: _Flags, address: Signal, masks: Signal
    ) -> list[list[Value]]:
        """Return the weights of a slice, of each lane, three clocks later; 0 where no input is."""
        p = self._plan
        m.submodules.weights = store = memory.Memory(
            shape=self._weights, depth=p.words, init=[],
            attrs=NO_COLLISION | (LOADED if self._shared else BLOCK),
        )  # fmt: skip
        # Nothing is read while weights are written: then no slice is on its way.
        write, read = store.write_port(granularity=1), store.read_port()
        m.d.comb += [
            write.addr.eq(self.weights_address),
            write.en.eq(self.weights_enable),
            *(write.data[lane].eq(self.weights_data) for lane in range(p.lanes)),
            read.addr.eq(address),
            read.en.eq(moves & at.valid),
        ]
        if self._shared:
            place = Mux(self.loads, self.weights_address, address)
            m.d.comb += [
                write.addr.eq(place),
                write.en.eq(Mux(self.loads, self.weights_enable, 0)),
                read.addr.eq(place),
                read.en.eq(moves & at.valid & ~self.loads),
            ]
        masks_read = Signal.like(masks)
        with m.If(moves):
            m.d.sync += masks_read.eq(masks)
        weights: list[list[Value]] = []
        for lane in range(p.lanes):
            row: list[Value] = []
            for column in range(p.columns):
                # The reset of a flip-flop masks, which takes no LUT; it has but one.
                weight = Signal(
                    signed(p.weight_bits), name=f"weight{lane}_{column}", reset_less=True
                )
                word = read.data[lane].word_select(column, p.weight_bits)
                with m.If(moves):
                    m.d.sync += weight.eq(Mux(masks_read[column], word, 0))
                row.append(weight)
            weights.append(row)
        return weights

    def _read_biases(self, m: Module, moves: Signal, before: _Flags, at: _Flags) -> list[Value]:
        """Return the biases of the group of a slice, two clocks later."""
        p = self._plan
        m.submodules.biases = store = memory.Memory(
            shape=self._biases, depth=p.biases, init=[], attrs=NO_COLLISION | BLOCK
        )
        write, read = store.write_port(), store.read_port()
        place = Signal(range(max(p.biases, 2)))
        if self._repeats:
            first = Signal.like(place, name="first_bias")  # of the token
            after, begun = Signal.like(place), Signal.like(place)
            repeats = before.tag[0]
            m.d.comb += [
                after.eq(place + (at.valid & at.ends_group)),
                begun.eq(Mux(before.restarts, self.bias_base, Mux(repeats, first, after))),
            ]
            with m.If(moves):
                m.d.sync += place.eq(after)
                with m.If(before.valid & before.begins):
                    m.d.sync += [place.eq(begun), first.eq(begun)]
        else:
            with m.If(moves):
                with m.If(before.valid & before.restarts):
                    m.d.sync += place.eq(self.bias_base)
                with m.Elif(at.valid & at.ends_group):
                    m.d.sync += place.eq(place + 1)
        m.d.comb += [
            write.addr.eq(self.bias_address),
            write.en.eq(self.bias_enable),
            write.data.eq(self.bias_data),
            read.addr.eq(place),
            read.en.eq(moves & at.valid),
        ]
        biases = Signal(self._biases, reset_less=True)
        with m.If(moves):
            m.d.sync += biases.eq(
                Mux(self.mute, 0, read.data.as_value()) if self._repeats else read.data
            )
        return [biases[lane] for lane in range(p.lanes)]

    def _sums(
        self, m: Module, moves: Signal, at: _Flags, weights: list[list[Value]], biases: list[Value]
    ) -> None:
        """Add up, and put out."""
        p = self._plan
        opens_group = Signal(init=1)
        opens_plane = Signal(init=1)
        with m.If(moves):
            m.d.sync += [
                self.o_valid.eq(at.valid & at.ends_group),
                self.o_first.eq(at.first),
                self.o_last.eq(at.last),
                self.o_tag.eq(at.tag),
            ]
            with m.If(at.valid):
                m.d.sync += [opens_group.eq(at.ends_group), opens_plane.eq(at.ends_plane)]
        for lane, (row, bias) in enumerate(zip(weights, biases, strict=True)):
            if p.columns > 1:
                with m.If(moves):
                    addend = pipelined_tree(m, row, add_tree, f"sum{lane}")
            else:
                (addend,) = row
            total = Signal(signed(p.sum_bits), name=f"total{lane}")
            so_far: Value = total
            low: Value = Const(0, 0)
            if p.input_bits > 1:
                low = Signal(p.input_bits - 1, name=f"low{lane}")
                so_far = Mux(opens_plane, total >> 1, total)
                with m.If(moves & at.valid & opens_plane):
                    m.d.sync += low.eq(Mux(opens_group, 0, Cat(low, total[0])[1:]))
            with m.If(moves & at.valid):
                m.d.sync += total.eq(Mux(opens_group, bias, so_far) + addend)
            m.d.comb += self.o_values[lane].eq(Cat(low, total).as_signed())
