"""The registry: every top, its configuration, its component and one line of help.

gen, sim, boards, bench, the tests and the tables in the README all read it.
"""

import dataclasses
from collections.abc import Callable

from amaranth.lib import wiring

from hw.attention import AttentionConfig, attention
from hw.config import Config
from hw.encoder import Encoder, EncoderConfig
from hw.heads import Heads, HeadsConfig
from hw.lif import Lif, LifConfig
from hw.linear import Linear, LinearConfig
from hw.moe import Moe, MoeConfig
from hw.sdsa import Sdsa, SdsaConfig
from hw.transformer import Transformer, TransformerConfig


@dataclasses.dataclass(frozen=True)
class Top:
    """A unit that can be emitted.

    The golden model of a top is the function of the same name in ``sim.golden.<name>``.
    """

    config: type[Config]
    component: Callable[..., wiring.Component]
    help: str


TOPS: dict[str, Top] = {
    "lif": Top(LifConfig, Lif, "leaky integrate-and-fire neurons, exact in integers"),
    "attention": Top(AttentionConfig, attention, "stochastic spiking attention on bitstreams"),
    "sdsa": Top(SdsaConfig, Sdsa, "spike-driven self-attention, mask and add only"),
    "moe": Top(MoeConfig, Moe, "mixture-of-experts router tile: route, dispatch, merge"),
    "heads": Top(HeadsConfig, Heads, "dynamic head pruning: the heads with most spikes of Q stay"),
    "linear": Top(LinearConfig, Linear, "matrix product of spikes, in additions only"),
    "encoder": Top(EncoderConfig, Encoder, "an encoder block on one engine, residual to residual"),
    "transformer": Top(TransformerConfig, Transformer, "a whole network on one engine"),
}
