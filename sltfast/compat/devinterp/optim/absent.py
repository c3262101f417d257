"""What devinterp names but does not have."""


class Absent(NotImplementedError):
    """An option that devinterp 2.0.1 accepts by name and refuses by ``NotImplementedError``."""
