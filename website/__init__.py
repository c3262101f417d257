"""The documentation site: its frame (zensical.toml), what gathers the pages, and how docstrings are read."""
