"""What can be said of GPU kernels without a GPU: registers, spills, bytes, instructions, and the time these allow."""
