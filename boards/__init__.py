"""Bitstreams for open boards, and the demo."""
