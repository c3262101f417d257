"""Samplers as ``torch.optim`` optimisers, by the names of devinterp 1.3.2."""
