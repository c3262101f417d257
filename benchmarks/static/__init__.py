"""What can be said of the GPU kernels without a GPU: registers, spills, bytes and instructions a coordinate."""
