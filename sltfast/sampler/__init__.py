"""The sampling engine: settings, transition, loop."""
