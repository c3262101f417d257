"""How a run of devinterp 1.3.2's face is carried out: its loop step for step, or stacked chains."""
