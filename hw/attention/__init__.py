"""Stochastic spiking attention: scores and outputs drawn bit by bit, with two encoders."""

from hw.attention.config import AttentionConfig
from hw.attention.count import CountAttention
from hw.attention.folded import FoldedAttention
from hw.attention.held import HeldAttention
from hw.attention.sample import SampleAttention

__all__ = ["AttentionConfig", "CountAttention", "SampleAttention", "attention"]


def attention(config: AttentionConfig) -> CountAttention | SampleAttention:
    """Return the component of a configuration: that of its encoder."""
    if config.encoder == "sample":
        return SampleAttention(config)
    return HeldAttention(config) if config.held else FoldedAttention(config)
