"""An encoder block on one engine."""

from hw.encoder.config import EncoderConfig
from hw.encoder.unit import Encoder

__all__ = ["Encoder", "EncoderConfig"]
