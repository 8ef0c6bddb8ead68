"""Whole networks, trained here and brought to the hardware."""
