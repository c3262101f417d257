"""Activations of modules, by the names of devinterp 1.3.2."""
