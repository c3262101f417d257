"""What a run leaves: the tree it returns, the arrays and the journal behind it, and what makes it that run."""
