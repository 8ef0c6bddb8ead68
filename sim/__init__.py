"""Simulation: what is simulated is the emitted file, held against golden bit for bit."""
