"""The ops in Triton, a module each, installed as `sltfast.triton_kernels`; this file imports no Triton."""
