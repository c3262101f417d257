"""Sampling on devinterp's tpu backend, by its name."""
