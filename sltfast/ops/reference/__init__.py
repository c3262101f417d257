"""The ops in plain PyTorch: the truth that the kernels are compared with, and the backend of last resort."""
