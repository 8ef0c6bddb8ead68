"""Spike-driven matrix product: the weights of what spikes, added up."""

from hw.linear.config import LinearConfig
from hw.linear.unit import Linear

__all__ = ["Linear", "LinearConfig"]
