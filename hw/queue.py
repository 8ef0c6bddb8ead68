"""Queues."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.attributes import BLOCK, NO_COLLISION
from hw.turns import following

SHORT_QUEUE = 16
"""Words up to which a queue needs no block RAM: as deep as a RAM cell in LUTs is."""

QUEUE_CLOCKS = 2
"""Clocks of an `OutputQueue` in LUT memory."""

BLOCK_QUEUE_CLOCKS = 3
"""Clocks of one in block RAM."""


class OutputQueue(wiring.Component):
    """Take what a pipeline puts out whenever it comes; say whether more may be issued into it.

    With a queue that has room for all that is on its way no clock enable has to run from the output
    back through the pipeline. In LUT memory where there is any: a RAM cell for four bits of up to
    `SHORT_QUEUE` words.

    Parameters
    ----------
    width : int
    depth : int
        Words; one more is at the output.
    unasked : int
        Words that are issued without looking at `room` again.
    block : bool
        In block RAM instead (`PacketQueue`).

    Attributes
    ----------
    issued : Signal(), in
        A word enters the pipeline.
    room : Signal(), out
        `unasked` words may be issued: there is room for them beside all that are on their way.
    arrives : Signal(), in
        A word has come.
    word : Signal(width), in
        Which one.
    valid, data, ready : out, out, in
        The output, `QUEUE_CLOCKS` behind `arrives`, or `BLOCK_QUEUE_CLOCKS`.
    """

    def __init__(self, width: int, depth: int, unasked: int, *, block: bool = False) -> None:
        self._depth = depth
        self._unasked = unasked
        self._block = block
        super().__init__(
            {
                "issued": In(1),
                "room": Out(1),
                "arrives": In(1),
                "word": In(width),
                "valid": Out(1),
                "data": Out(width),
                "ready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fetch, leaves = Signal(), Signal()
        m.d.comb += leaves.eq(self.valid & self.ready)
        if self._block:
            m.submodules.queue = queue = PacketQueue(len(self.word), 1, self._depth)
            m.d.comb += [
                queue.offer.eq(self.arrives),
                queue.write.eq(self.arrives),
                queue.commit.eq(self.arrives),
                queue.word.eq(self.word),
                self.valid.eq(queue.valid),
                self.data.eq(queue.data),
                queue.ready.eq(self.ready),
            ]
        else:
            self._in_luts(m, fetch)

        # A clock late, in which one more may have been issued.
        credit = Signal(range(self._depth + 2), init=self._depth + 1)
        with m.If(self.issued != leaves):
            m.d.sync += credit.eq(credit + Mux(leaves, 1, -1))
        m.d.sync += self.room.eq(credit > self._unasked)
        return m

    def _in_luts(self, m: Module, fetch: Signal) -> None:
        m.submodules.memory = store = memory.Memory(
            shape=len(self.word), depth=self._depth, init=[], attrs=NO_COLLISION
        )
        # Not the read port's own register, which is not known before the first read.
        write, read = store.write_port(), store.read_port(domain="comb")
        stored = Signal(range(self._depth + 1))
        some = Signal()  # there are any stored
        m.d.comb += [
            fetch.eq(some & (self.ready | ~self.valid)),
            write.data.eq(self.word),
            write.en.eq(self.arrives),
        ]
        m.d.sync += [
            some.eq(self.arrives | (some & ~(fetch & (stored == 1)))),
            self.valid.eq(fetch | (self.valid & ~self.ready)),
        ]
        last = self._depth - 1
        with m.If(self.arrives):
            m.d.sync += write.addr.eq(Mux(write.addr == last, 0, write.addr + 1))
        with m.If(fetch):
            m.d.sync += [
                self.data.eq(read.data),
                read.addr.eq(Mux(read.addr == last, 0, read.addr + 1)),
            ]
        with m.If(self.arrives != fetch):
            m.d.sync += stored.eq(stored + Mux(self.arrives, 1, -1))


class Marks(wiring.Component):
    """A queue of a few bits in flip-flops: what is written is there in the next clock.

    Parameters
    ----------
    width, depth : int
    tells_full : bool
        Have `full`, for a writer that does not know its room.

    Attributes
    ----------
    write : Signal(), in
        Only with room.
    word : Signal(width), in
    waiting : Signal(), out
    oldest : Signal(width), out
    will_wait, to_come : Signal(), Signal(width), out
        The same in the next clock, if none is popped.
    will_follow, to_follow : Signal(), Signal(width), out
        The same in the next clock, if one is.
    pop : Signal(), in
        Only while one is `waiting`.
    full : Signal(), out
        There is no room.
    """

    def __init__(self, width: int, depth: int, *, tells_full: bool = False) -> None:
        self._depth = depth
        self._tells_full = tells_full
        super().__init__(
            {
                "write": In(1),
                "word": In(width),
                "waiting": Out(1),
                "oldest": Out(width),
                "will_wait": Out(1),
                "to_come": Out(width),
                "will_follow": Out(1),
                "to_follow": Out(width),
                "pop": In(1),
                **({"full": Out(1)} if tells_full else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        marks = [Signal.like(self.word, name=f"mark{i}") for i in range(self._depth)]
        waits = Signal(self._depth)  # from the oldest one up
        left = Mux(self.pop, waits >> 1, waits)
        m.d.sync += waits.eq(Mux(self.write, Cat(1, left), left))
        follows = waits[1] if self._depth > 1 else Const(0)
        m.d.comb += [
            self.waiting.eq(waits[0]),
            *([self.full.eq(waits[-1])] if self._tells_full else []),
            self.oldest.eq(marks[0]),
            self.will_wait.eq(waits[0] | self.write),
            self.to_come.eq(Mux(waits[0], marks[0], self.word)),
            self.will_follow.eq(follows | self.write),
            self.to_follow.eq(Mux(follows, marks[min(1, self._depth - 1)], self.word)),
        ]
        for i, mark in enumerate(marks):
            follows = i + 1 < self._depth and waits[i + 1]
            with m.If(self.pop | ~waits[i]):  # whatever comes where none waits
                m.d.sync += mark.eq(
                    Mux(self.pop & follows, marks[min(i + 1, self._depth - 1)], self.word)
                )
        return m


class BlockQueue(wiring.Component):
    """A queue in block RAM with a register behind it; whatever comes is there three clocks later.

    Parameters
    ----------
    width : int
    depth : int
        Words; two more are behind the memory.

    Attributes
    ----------
    write : Signal(), in
        Only while not `full`.
    word : Signal(width), in
    full : Signal(), out
    valid, data, ready : out, out, in
        The output.
    """

    def __init__(self, width: int, depth: int) -> None:
        self._depth = depth
        super().__init__(
            {
                "write": In(1),
                "word": In(width),
                "full": Out(1),
                "valid": Out(1),
                "data": Out(width),
                "ready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A word is read a clock after it was written, or later.
        m.submodules.memory = store = memory.Memory(
            shape=len(self.word), depth=self._depth, init=[], attrs=NO_COLLISION | BLOCK
        )
        write, read = store.write_port(), store.read_port()
        stored = Signal(range(self._depth + 1))
        fetch = Signal()
        fetched = Signal()
        moves = fetched & (self.ready | ~self.valid)
        m.d.comb += [
            fetch.eq((stored != 0) & (~fetched | moves)),
            self.full.eq(stored == self._depth),
            write.data.eq(self.word),
            write.en.eq(self.write),
            read.en.eq(fetch),
        ]
        m.d.sync += [
            stored.eq(stored + self.write - fetch),
            fetched.eq(fetch | (fetched & ~moves)),
            self.valid.eq(moves | (self.valid & ~self.ready)),
        ]
        with m.If(moves):
            m.d.sync += self.data.eq(read.data)
        for counts, address in ((self.write, write.addr), (fetch, read.addr)):
            with m.If(counts):
                m.d.sync += address.eq(following(address, self._depth))
        return m


class PacketQueue(wiring.Component):
    """A queue in block RAM with a register behind it, of packets that can be taken back.

    A word is there three clocks after its packet was whole. Whoever writes knows that there is
    room.

    Parameters
    ----------
    width : int
    packet : int
        Words of a packet.
    depth : int
        Packets, with one that is not yet whole.
    paced : bool
        A word is taken in two of three clocks at most; so no path leads from `ready` to the memory.
    near : bool
        Much hangs on the word: there is another register, that can be beside what does, and a word
        is there four clocks after its packet was whole.

    Attributes
    ----------
    offer : Signal(), in
        There is a word, whether it is written or not: that may be known late.
    write : Signal(), in
        It is written.
    word : Signal(width), in
    commit : Signal(), in
        With the last word of a packet.
    undo : Signal(), in
        What was written of a packet is forgotten; not with `write`.
    some : Signal(), out
        There is a whole packet, or what is left of one, whether `valid` is 1 yet or not.
    valid, data, ready : out, out, in
        The output.
    """

    def __init__(
        self, width: int, packet: int, depth: int, *, paced: bool = False, near: bool = False
    ) -> None:
        self._packet = packet
        self._depth = depth
        self._paced = paced
        self._near = near
        self._places = packet * depth
        super().__init__(
            {
                "offer": In(1),
                "write": In(1),
                "word": In(width),
                "commit": In(1),
                "undo": In(1),
                "some": Out(1),
                "valid": Out(1),
                "data": Out(width),
                "ready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A word is read a clock after it was written, or later.
        m.submodules.memory = store = memory.Memory(
            shape=len(self.word), depth=self._places, init=[], attrs=NO_COLLISION | BLOCK
        )
        write, read = store.write_port(), store.read_port()
        stored = Signal(range(self._depth + 1))  # packets, one that is being read included
        waiting = Signal()  # there are any
        ends = Signal(init=self._packet == 1)  # the next word is the last one of its packet
        fetch, fetched = Signal(), Signal()
        valid, ready = Signal(), Signal()  # of the register behind the memory
        moves = fetched & (ready | ~valid)
        m.d.comb += [
            fetch.eq(waiting & (~fetched | (~valid if self._paced else moves))),
            write.data.eq(self.word),
            write.en.eq(self.offer),
            read.en.eq(fetch),
            self.some.eq(waiting | fetched | valid | self.valid),
        ]
        m.d.sync += [
            waiting.eq(self.commit | (waiting & ~(fetch & ends & (stored == 1)))),
            fetched.eq(fetch | (fetched & ~moves)),
            valid.eq(moves | (valid & ~ready)),
        ]
        with m.If(self.commit != (fetch & ends)):
            m.d.sync += stored.eq(stored + Mux(self.commit, 1, -1))
        if self._packet > 1:
            word = Signal(range(self._packet))
            with m.If(fetch):
                m.d.sync += [
                    word.eq(Mux(ends, 0, word + 1)), ends.eq(word == self._packet - 2),
                ]  # fmt: skip
        register = Signal.like(self.data, reset_less=True)  # it can be one of the memory's own
        with m.If(moves):
            m.d.sync += register.eq(read.data)
        if self._near:
            leaves = valid & (self.ready | ~self.valid)
            m.d.comb += ready.eq(leaves)
            m.d.sync += self.valid.eq(leaves | (self.valid & ~self.ready))
            with m.If(leaves):
                m.d.sync += self.data.eq(register)
        else:
            m.d.comb += [self.valid.eq(valid), self.data.eq(register), ready.eq(self.ready)]

        start = Signal.like(write.addr)  # of the packet at hand
        with m.If(self.write):
            m.d.sync += write.addr.eq(following(write.addr, self._places))
        with m.If(fetch):
            m.d.sync += read.addr.eq(following(read.addr, self._places))
        if self._packet > 1:
            with m.If(self.undo):
                m.d.sync += write.addr.eq(start)
            with m.If(self.commit):
                m.d.sync += start.eq(following(write.addr, self._places))
        return m
