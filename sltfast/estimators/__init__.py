"""Estimates: ``compute_…`` of recorded samples, which see no model, and calls that sample first."""
