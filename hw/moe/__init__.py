"""The mixture-of-experts router tile: route, dispatch, merge."""

from hw.moe.config import MoeConfig
from hw.moe.router import Moe

__all__ = ["Moe", "MoeConfig"]
