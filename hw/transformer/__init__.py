"""A whole spiking transformer on one engine."""

from hw.transformer.config import TransformerConfig
from hw.transformer.unit import Transformer

__all__ = ["Transformer", "TransformerConfig"]
