"""What an engine is built for, and the clocks that follow from it."""

import dataclasses

from amaranth.utils import bits_for, ceil_log2

from hw.arith import tree_clocks

MOST_DEPTH, MOST_BITS = 32, 512
"""Words and bits of slices up to which they do not lie in block RAM."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The most that the jobs of an `Engine` may ask for.

    A slice of a token is `columns` inputs.

    Attributes
    ----------
    lanes : int
        Outputs that are worked on at once: a group.
    columns : int
        Inputs that are added up in a clock.
    channels : int
        Inputs of a beat; a multiple of `columns`.
    inputs : int
        Most inputs of a token; a multiple of `channels`.
    groups : int
        Most groups of outputs.
    input_bits : int
        Most bits of an input; 1 for spikes. As many planes are gone through.
    weight_bits, bias_bits : int
        Both signed.
    value_bits : int
        Bits of a result, which whoever gives the jobs knows to be enough.
    words, biases : int
        Words of the memories of weights and of biases, each of a whole group.
    least_turns : int
        Least times that a job goes through a token: groups of outputs times bits of an input.
    events : bool
        Leave empty slices out.
    tag_bits : int
        Bits that go through with a token.
    least_pages : int
        Tokens that are kept at least: jobs with fewer inputs than `inputs` may need more.
    """

    lanes: int
    columns: int
    channels: int
    inputs: int
    groups: int
    input_bits: int
    weight_bits: int
    bias_bits: int
    value_bits: int
    words: int
    biases: int
    least_turns: int
    events: bool
    tag_bits: int
    least_pages: int = 2

    @property
    def beat_slices(self) -> int:
        """Slices of a beat."""
        return self.channels // self.columns

    @property
    def slices(self) -> int:
        """Slices of a token."""
        return self.inputs // self.columns

    @property
    def beats(self) -> int:
        """Beats of a token."""
        return self.inputs // self.channels

    @property
    def even(self) -> bool:
        """Whether the number of a slice is that of its beat above its place in there."""
        return not self.beat_slices & (self.beat_slices - 1)

    @property
    def slice_bits(self) -> int:
        """Bits of a slice."""
        return self.columns * self.input_bits

    @property
    def index_bits(self) -> int:
        """Bits of the number of a slice."""
        return max(ceil_log2(self.slices), 1)

    @property
    def stores_slices(self) -> bool:
        """Whether it must be kept what is in a slice: not if it can only be a spike."""
        return not self.events or self.slice_bits > 1

    @property
    def word_bits(self) -> int:
        """Bits of what is known of a token: its tag, and whether its biases are the first ones."""
        return self.tag_bits + 1

    @property
    def item_bits(self) -> int:
        """Bits of a slice in memory."""
        stored = self.slice_bits if self.stores_slices else 0
        return stored + (self.index_bits if self.events else 0)

    @property
    def scan_clocks(self) -> int:
        """Clocks in which a token comes in at most."""
        return self.slices + (self.beats if self.events else 0)

    @property
    def token_clocks(self) -> int:
        """Clocks in which a token is gone through at most."""
        return self.groups * self.input_bits * self.slices

    @property
    def pages(self) -> int:
        """Tokens that are kept: as many as it takes that nobody waits for a page at full load.

        No beat comes in while all are taken; a token gives its page back with its last slice. It is
        the job with the fewest turns that needs most of them.
        """
        worked = self.least_turns * self.slices
        held = self.wait_clocks + worked
        needed = 2 ** ceil_log2(-(-held // max(self.scan_clocks, worked)))
        return max(needed, self.least_pages)

    @property
    def interval(self) -> int:
        """Clocks from a token to the next at most."""
        return max(self.scan_clocks, self.token_clocks)

    @property
    def wait_clocks(self) -> int:
        """Clocks from the first beat of a token to where it waits to be gone through, at most."""
        return self.scan_clocks + (3 if self.events else 1)

    @property
    def in_block(self) -> bool:
        """Whether slices lie in block RAM."""
        depth = self.pages << self.index_bits
        return depth > MOST_DEPTH or depth * self.item_bits > MOST_BITS

    @property
    def item_clocks(self) -> int:
        """Clocks from the number of a slice to what is in it: a register behind a block RAM."""
        return 2 if self.in_block else 1

    @property
    def add_clocks(self) -> int:
        """Clocks in which the weights of a slice are added up."""
        return tree_clocks(self.columns) if self.columns > 1 else 0

    @property
    def pipe_clocks(self) -> int:
        """Clocks from where a slice is asked for to where its weights are in the sums.

        Item, address, weights, the register behind them, the tree, the sum.
        """
        return self.item_clocks + 3 + self.add_clocks + 1

    @property
    def sum_bits(self) -> int:
        """Bits of an accumulator: those above the places that are shifted out."""
        return self.value_bits - (self.input_bits - 1)


def sum_range(inputs: int, planes: int, weight_bits: int, bias_bits: int) -> tuple[int, int]:
    """Return the range of ``W x + b`` for `inputs` unsigned numbers of `planes` bits."""
    top = inputs * ((1 << planes) - 1)
    weight, bias = 1 << (weight_bits - 1), 1 << (bias_bits - 1)
    return -top * weight - bias, top * (weight - 1) + bias - 1


def value_bits(inputs: int, planes: int, weight_bits: int, bias_bits: int) -> int:
    """Return the bits of a result that never wraps, in an accumulator either.

    With several planes the sum so far is halved in front of each: behind plane k it is that of the
    lowest k + 1 planes, ``W (x mod 2^(k + 1)) + b``, without its lowest k bits.
    """
    bits = []
    for plane in range(planes):
        low, high = sum_range(inputs, plane + 1, weight_bits, bias_bits)
        bits.append(max(bits_for(low >> plane, True), bits_for(high >> plane, True)) + planes - 1)
    return max(bits)
