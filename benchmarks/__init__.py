"""Measurements, each a script that writes tidy CSV rows to results/."""
