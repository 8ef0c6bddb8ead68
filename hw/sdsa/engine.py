"""The engine: sums over tokens make a page of a time step, which is applied to all its tokens."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.attributes import NO_COLLISION
from hw.lockstep import Lockstep
from hw.queue import BlockQueue
from hw.sdsa.config import SdsaConfig
from hw.sdsa.follower import Follower
from hw.sdsa.neurons import Neurons
from hw.sdsa.pages import FOLLOWER, PAGES, Pages
from hw.sdsa.pool import PooledLockstep
from hw.sdsa.product import Products
from hw.sdsa.sops import SopCounter
from hw.stream import FaultCounter, members


class Sdsa(wiring.Component):
    """Spike-driven self-attention: SDSA-1 to SDSA-4, masks and additions only.

    For each time step, with Q, K, V in {0, 1} (N x D) and neurons SN that keep their state::

        SDSA-1    out[n] = Q[n] AND SN(sum over m of (K[m] AND V[m]))
        SDSA-2    out[n] = V[n] AND SN(sum over m of Q[m])
        SDSA-3    out[n] = SN(Q[n] (K^T V)) for each head
        SDSA-4    the same with a threshold for each channel, loaded at run time

    The released code of SDSA-1 masks Q; eq. 13 of the paper names the operands the other way
    round, which is ``masked = v``. Source: Spike-driven Transformer (arXiv 2307.01694), eq. 13 and
    its code; Meta-SpikeFormer (arXiv 2404.03663), section 3.3.

    The pipeline::

        k --+
            +-> Lockstep -> AND, sums over tokens [-> Neurons] -> Pages
        v --+                                                      |
        q -----------------------------------------------------> Follower -> AND, or Products -> out

    While the page of one time step is made that of the one before is applied: a mask, or K^T V.
    Where SN of the sum is an OR (`SdsaConfig.exact_or`) a channel is two LUTs: one ORs the AND of
    two operands into the mask, one applies it. Elsewhere a mask takes a counter a channel, and so
    few neurons that they get through a time step's channels while the next one's sums are made.

    K^T V takes `columns` of its columns a clock, which are `head_dim` counters each where it is
    made and as many masked additions where it is applied. Going by columns and not by rows costs
    as many of both, but a whole sum leaves in each clock instead of parts of all of them: nothing
    is accumulated, kept or serialised behind it.

    The top bit of a counter stays once it is set: where a hard reset makes it irrelevant by how
    much a sum is over the threshold, counters are as short as that (`SdsaConfig.sum_bits`).

    Parameters
    ----------
    config : SdsaConfig
    layers : int, optional
        With variant 4: so many layers take turns at it, each with thresholds of its own.

    Attributes
    ----------
    q, k, v : stream, in
        Those that the variant has.
    threshold : stream, in
        With variant 4, as `hw.lif.Lif` has it: `columns` thresholds a beat, channels ascending; of
        all `layers`, one after another.
    origin : in
        With `layers`: the first beat of the thresholds of the layer at hand.
    fault : Signal(), out
        With `layers`: a broken frame of thresholds is found.
    out : stream, out
    sops : stream, out
        With `count_sops`: the synaptic operations of a time step. They are the bits that were
        summed up: ones among K AND V, or Q. With variants 3 and 4 they are the ones that were
        added up in K^T V, and its elements that were in Q (K^T V): sum over heads and tokens of
        |K| |V| + head_dim |Q|.
    faults : Signal(8), out
        Broken frames so far on all inputs, saturating. A fault voids the inference on all of them;
        on the inputs that are summed together a stray `first` voids the next one too.
    """

    def __init__(self, config: SdsaConfig, layers: int | None = None) -> None:
        self.config = config
        self._layers = layers
        shared = {"origin": In(config.origins(layers)), "fault": Out(1)} if layers else {}
        super().__init__(members(config) | shared)

    def elaborate(self, platform: object) -> Module:
        c, plan = self.config, self.config.plan
        m = Module()
        streams = [c.stream(name) for name in c.summed]
        taken: Lockstep | PooledLockstep
        taken = PooledLockstep(c) if c.pool else Lockstep(streams, c.tokens, c.groups, plan.parts)
        m.submodules.lockstep = taken
        m.submodules.pages = pages = Pages(c)
        m.submodules.follower = follower = Follower(c)
        for name in c.summed:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(taken, name))
        self._feed(m, follower)
        for name in PAGES:
            m.d.comb += getattr(follower, name).eq(getattr(pages, name))
        for name in FOLLOWER:
            m.d.comb += getattr(pages, name).eq(getattr(follower, name))

        at = self._look(m, taken)
        sums = self._sum(m, taken, at)
        # A clock later, so that what moves a beat goes no further.
        marks = {
            "write": at.works & at.last_token, "done": at.done,
            "void": at.void, "opening": at.opening, "address": at.word,
        }  # fmt: skip
        for name, value in marks.items():
            marks[name] = Signal.like(Value.cast(value), name=f"sum_{name}")
            m.d.sync += marks[name].eq(value)
        marks["word"] = sums
        marks["claim"] = taken.done | taken.void
        into: Pages | Neurons = pages
        if c.variant < 3 and not c.exact_or:
            m.submodules.neurons = into = Neurons(c)
            m.d.comb += into.pages_full.eq(pages.full)
            for name in marks:
                m.d.comb += getattr(pages, name).eq(getattr(into, f"pages_{name}"))
        m.d.comb += [getattr(into, name).eq(value) for name, value in marks.items()]

        found = [*taken.fault, follower.fault, *self._apply(m, pages, follower)]
        m.submodules.fault_counter = faults = FaultCounter(len(found))
        m.d.comb += [faults.fault.eq(Cat(found)), self.faults.eq(faults.count)]

        m.d.comb += [taken.hold.eq(taken.to_last & into.to_full), taken.room.eq(~into.full)]
        if c.count_sops:
            m.submodules.sop_counter = counter = SopCounter(c)
            wiring.connect(m, counter.o, wiring.flipped(self.sops))
            m.d.comb += [
                taken.hold.eq(taken.to_last & (into.to_full | counter.to_full)),
                taken.room.eq(~into.full & ~counter.full),
                counter.claim.eq(taken.done),
                counter.works.eq(at.works),
                counter.first.eq(at.first),
                counter.last.eq(at.last),
                counter.ones.eq(Cat(self._ones(at))),
                counter.dropped.eq(follower.drop & ~pages.none),
            ]
            if c.variant > 2:
                m.d.comb += [
                    counter.used.eq(follower.release),
                    counter.moves.eq(follower.o.valid & follower.o.ready),
                    counter.q.eq(follower.o.payload.data.as_value()),
                    counter.q_first.eq(follower.o.payload.first),
                    counter.q_last.eq(follower.o.payload.last),
                ]
            else:
                m.d.comb += [counter.used.eq(follower.pop), counter.opening.eq(pages.first)]
        return m

    def _feed(self, m: Module, follower: Follower) -> None:
        """Connect the masked operand, through a queue if there is one."""
        masked = getattr(self, self.config.masked)
        if not self.config.buffer_q:
            wiring.connect(m, wiring.flipped(masked), follower.i)
            return
        word = masked.payload.as_value()
        m.submodules.queue = queue = BlockQueue(len(word), self.config.plan.queued)
        m.d.comb += [
            queue.write.eq(masked.valid & ~queue.full),
            masked.ready.eq(~queue.full),
            queue.word.eq(word),
            follower.i.valid.eq(queue.valid),
            follower.i.payload.as_value().eq(queue.data),
            queue.ready.eq(follower.i.ready),
        ]

    def _look(self, m: Module, taken: Lockstep | PooledLockstep) -> data.View:
        """Return what is summed up now: what `taken` has, or had in the clock before."""
        c, plan = self.config, self.config.plan
        at = Signal(
            data.StructLayout(
                {
                    "works": 1, "first": 1, "last": 1, "first_token": 1, "last_token": 1,
                    "done": 1, "void": 1, "opening": 1, "word": len(taken.word),
                    "masked": c.columns if c.variant > 2 else 0,
                    "operand": c.channels_per_beat,
                }
            ),
            name="at",
        )  # fmt: skip
        domain = m.d.sync if plan.registered else m.d.comb
        for name in ("works", "first_token", "last_token", "done", "void", "opening", "word"):
            domain += at[name].eq(getattr(taken, name))
        domain += [
            at.first.eq(taken.first_token & taken.first_word),
            at.last.eq(taken.last_token & taken.last_word),
        ]
        operands = [getattr(taken, f"{name}_data").as_value() for name in c.summed]
        if c.variant < 3:
            domain += at.operand.eq(operands[0] & operands[-1])
        else:
            k, v = operands
            domain += [at.operand.eq(k), at.masked.eq(v.word_select(taken.part, c.columns))]
        return at

    def _ones(self, at: data.View) -> list[Value]:
        """Return what is added to the sums of the word at hand."""
        c = self.config
        if c.variant < 3:
            return list(at.operand)
        heads = [list(at.operand.word_select(h, c.head_dim)) for h in range(c.heads_per_beat)]
        return [
            one & at.masked[i]
            for i in range(c.columns)
            for one in heads[i * c.heads_per_beat // c.columns]
        ]

    def _sum(self, m: Module, taken: Lockstep | PooledLockstep, at: data.View) -> data.View:
        """Return the sums over the tokens up to the last one, of the last word."""
        c, plan = self.config, self.config.plan
        shape = data.ArrayLayout(c.sum_bits, plan.word_sums)
        before, after = Signal(shape), Signal(shape)
        for i, one in enumerate(self._ones(at)):
            kept = Mux(at.first_token, 0, before[i])
            total = kept[:-1] + one
            m.d.comb += after[i].eq(Cat(total[: len(kept) - 1], kept[-1] | total[len(kept) - 1]))
        if plan.words == 1:
            with m.If(taken.wide_works):
                m.d.sync += before.eq(after)
            return before
        # The next word is read when this one is written: it is another one.
        m.submodules.sums = store = memory.Memory(
            shape=len(before.as_value()), depth=plan.word_places, init=[], attrs=NO_COLLISION
        )
        write, read = store.write_port(), store.read_port()
        last = Signal(shape)
        m.d.sync += last.eq(after)
        m.d.comb += read.addr.eq(taken.next_word)
        if plan.registered:
            word, works = Signal.like(taken.word), Signal()
            m.d.sync += [before.eq(read.data), word.eq(at.word), works.eq(at.works)]
            m.d.comb += [write.addr.eq(word), write.data.eq(last), write.en.eq(works)]
        else:
            m.d.comb += [
                before.eq(read.data),
                write.addr.eq(at.word),
                write.data.eq(after),
                write.en.eq(at.works),
            ]
        return last

    def _apply(self, m: Module, pages: Pages, follower: Follower) -> list[Value]:
        """Put out what comes of an operand and its page; return pulses of further faults."""
        c = self.config
        o = follower.o
        if c.variant < 3:
            m.d.comb += [
                pages.next_address.eq(follower.next_group),
                self.out.payload.first.eq(o.payload.first),
                self.out.payload.last.eq(o.payload.last),
                self.out.payload.data.eq(o.payload.data.as_value() & pages.data),
                self.out.valid.eq(o.valid),
                o.ready.eq(self.out.ready),
            ]
            return []
        m.submodules.products = products = Products(c, self._layers)
        wiring.connect(m, o, products.i)
        wiring.connect(m, products.o, wiring.flipped(self.out))
        m.d.comb += [
            pages.next_address.eq(Cat(products.next_part, follower.next_group)),
            products.word.eq(pages.data),
            products.group.eq(follower.group),
        ]
        if c.variant == 3:
            return []
        wiring.connect(m, wiring.flipped(self.threshold), products.threshold)
        if self._layers:
            m.d.comb += [products.origin.eq(self.origin), self.fault.eq(products.fault)]
        return [products.fault]
