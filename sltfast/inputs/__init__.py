"""What the command line, the demonstration and the examples read: text as token rows, models from disk or hub."""
