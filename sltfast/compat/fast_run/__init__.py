"""devinterp's runs through sltfast's engine: its data order, its records, without its loop."""
