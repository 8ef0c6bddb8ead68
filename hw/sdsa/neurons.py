"""The neurons between the sums over a time step and its mask."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.attributes import NO_COLLISION
from hw.lif import Lif
from hw.sdsa.config import SdsaConfig
from hw.sdsa.plan import NeuronPlan


class Neurons(wiring.Component):
    """Turn the sums of a time step into its mask, a few channels a clock.

    Parameters
    ----------
    config : SdsaConfig

    Attributes
    ----------
    claim, write, done, void, opening : Signal(), in
        As `hw.sdsa.pages.Pages` has them, of sums.
    address : in
    word : in
        The sums of a group of channels.
    full, to_full : Signal(), out
        The sums of a time step are still being worked on, now or in the next clock.
    pages_full : Signal(), in
        There is no place for another mask.
    pages_claim, pages_write, pages_done, pages_void, pages_opening : out
    pages_address, pages_word : out
        To `hw.sdsa.pages.Pages`.
    """

    def __init__(self, config: SdsaConfig) -> None:
        self._config = config
        address = range(config.plan.word_places)
        flags = ("claim", "write", "done", "void", "opening")
        super().__init__(
            dict.fromkeys(flags, In(1))
            | {f"pages_{name}": Out(1) for name in flags}
            | {
                "address": In(address),
                "word": In(data.ArrayLayout(config.sum_bits, config.channels_per_beat)),
                "full": Out(1),
                "to_full": Out(1),
                "pages_full": In(1),
                "pages_address": Out(address),
                "pages_word": Out(config.channels_per_beat),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        assert isinstance(plan, NeuronPlan)
        lanes, parts = plan.lanes, plan.shares
        m = Module()
        neuron = c.neuron(c.groups * parts * lanes, lanes)
        m.submodules.lif = lif = Lif(neuron)

        filled = Signal()  # the sums of a time step wait, or are being worked on
        none = Signal()
        opening = Signal()
        runs = Signal()
        settled = Signal()  # the first group can be read
        part = Signal(range(max(parts, 2)))
        group = Signal(range(max(c.groups, 2)))
        last_part = part == parts - 1
        last = last_part & (group == c.groups - 1)
        begins = filled & settled & ~runs & ~self.pages_full
        # The neurons wait for a clock if the inference before was cut short.
        offers = runs | (begins & ~none)
        goes = offers & lif.current.ready
        ends = (goes & last) | (begins & none)
        kept = self.full & ~ends
        m.d.comb += self.to_full.eq(kept | (self.claim & plan.claims_in_a_row))
        m.d.sync += self.full.eq(self.claim | kept)
        with m.If(self.done & self.write | self.void):
            m.d.sync += [filled.eq(1), none.eq(self.void), opening.eq(self.opening)]
        with m.Elif(ends):
            m.d.sync += filled.eq(0)
        m.d.sync += settled.eq(filled if c.groups > 1 else 1)
        with m.If(goes):
            m.d.sync += [runs.eq(~last), part.eq(Mux(last_part, 0, part + 1))]
            with m.If(last_part):
                m.d.sync += group.eq(Mux(last, 0, group + 1))

        sums = Signal(c.sum_bits * parts * lanes)
        m.d.comb += sums.eq(self._store(m, Mux(goes & last_part, Mux(last, 0, group + 1), group)))
        some = Signal(c.sum_bits * lanes)
        m.d.comb += some.eq(sums.word_select(part, len(some)))
        for lane in range(lanes):
            m.d.comb += lif.current.payload.data[lane].eq(some.word_select(lane, c.sum_bits))
        m.d.comb += [
            lif.current.valid.eq(offers),
            lif.current.payload.last.eq(last),
            lif.current.payload.first.eq((part == 0) & (group == 0) & opening),
            lif.spikes.ready.eq(1),
        ]

        # The spikes of a group, the first part's lowest.
        spikes = lif.spikes.payload.data.as_value()
        gathered = Signal((parts - 1) * lanes)
        with m.If(lif.spikes.valid):
            m.d.sync += gathered.eq(Cat(gathered, spikes)[lanes:])
        came = Signal()  # the part is the last one of its group
        came_group = Signal.like(group)
        came_opening = Signal()
        m.d.sync += [
            came.eq(goes & last_part), came_group.eq(group), came_opening.eq(opening),
            self.pages_void.eq(begins & none),
        ]  # fmt: skip
        m.d.comb += [
            self.pages_claim.eq(begins & (none | goes)),
            self.pages_word.eq(Cat(gathered, spikes)),
            self.pages_write.eq(lif.spikes.valid & came),
            self.pages_address.eq(came_group),
            self.pages_done.eq(self.pages_write & lif.spikes.payload.last),
            self.pages_opening.eq(came_opening),
        ]
        return m

    def _store(self, m: Module, next_group: Signal) -> data.View:
        """Keep the sums; return those of the group at hand, which was `next_group` before."""
        if self._config.groups == 1:
            held = Signal.like(self.word, name="sums_held", reset_less=True)
            with m.If(self.write):
                m.d.sync += held.eq(self.word)
            return held.as_value()
        # Read again until it is begun with, which is a clock after the last write.
        m.submodules.sums = store = memory.Memory(
            shape=len(self.word.as_value()), depth=self._config.groups, init=[], attrs=NO_COLLISION
        )
        write, read = store.write_port(), store.read_port()
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.word),
            write.en.eq(self.write),
            read.addr.eq(next_group),
        ]
        return read.data
