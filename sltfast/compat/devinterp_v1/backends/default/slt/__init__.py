"""Sampling on devinterp's default backend, by its name."""
