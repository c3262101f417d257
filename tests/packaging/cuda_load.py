"""`make cuda-load`: the extension and the CUDA kernels, built against a torch without CUDA, in a torch with it."""

import torch

from sltfast.ops import backend
from sltfast.ops.registration import OPS


def main() -> None:
    """Every native op has a kernel for the CPU and one for CUDA, though no GPU need be there."""
    assert torch.version.cuda, f"torch {torch.__version__} has no CUDA"
    assert backend.build_facts()["cuda_archs"], "built without CUDA kernels (SLTFAST_CUDA=1 asks for them)"
    for device in ("cpu", "cuda"):
        refused = {op: reasons["native"] for op in OPS if "native" in (reasons := backend.refusals(op, device))}
        assert not refused, f"{device}: {refused}"
        print(f"torch {torch.__version__}: native kernels for {device}: {', '.join(OPS)}")


if __name__ == "__main__":
    main()
