"""Dynamic head pruning: the heads with most spikes of Q stay."""

from hw.heads.config import HeadsConfig
from hw.heads.unit import Heads

__all__ = ["Heads", "HeadsConfig"]
