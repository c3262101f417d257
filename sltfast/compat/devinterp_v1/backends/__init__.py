"""Names of devinterp's backends: here one engine serves every device."""
