"""What sltfast is measured against: devinterp 2.0.1, and plain PyTorch loops such as a user writes."""
