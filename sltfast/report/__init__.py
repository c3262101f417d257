"""One self-contained HTML page of runs and results: estimates, traces, susceptibilities, influence, facts."""
