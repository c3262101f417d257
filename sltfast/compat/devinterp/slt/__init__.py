"""Sampling and what is estimated from samples, by the names of devinterp 2.0.1."""
