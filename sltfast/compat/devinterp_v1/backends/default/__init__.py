"""devinterp's default backend, by its name."""
