"""How L lanes go through a model: folded into its batch, under vmap, or one at a time."""
