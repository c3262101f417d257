"""Samplers as ``torch.optim`` optimisers, by the names of devinterp 2.0.1."""
