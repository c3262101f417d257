"""The ops in Triton, one file each, installed as `sltfast.triton_kernels`; this file imports no Triton."""
