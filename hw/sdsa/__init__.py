"""Spike-driven self-attention: masks and additions only."""

from hw.sdsa.config import SdsaConfig
from hw.sdsa.engine import Sdsa

__all__ = ["Sdsa", "SdsaConfig"]
