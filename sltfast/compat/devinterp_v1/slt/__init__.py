"""Sampling, estimators and callbacks, by the names of devinterp 1.3.2."""
