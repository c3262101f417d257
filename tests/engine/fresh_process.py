"""One run in a process of its own: prints, as JSON, the plan's expected peak of memory and the measured one."""

import contextlib
import io
import json
import resource
import sys
from typing import Any

import torch
from torch import Tensor, nn

import sltfast

ROWS = 8


def wide(width: int, layers: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*[m for _ in range(layers) for m in (nn.Linear(width, width), nn.Tanh())])


def squares(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean(1)


def language_model(width: int, layers: int) -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 4 * width}
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=512, num_attention_heads=4, max_position_embeddings=256, **sizes)
    ).eval()


def run(kind: str, *, small: bool, **settings: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """The plan of a run, and bytes of its model: of all weights, and of the largest."""
    torch.manual_seed(1)
    if kind == "wide":
        model = wide(16, 2) if small else wide(1024, 24)
        width = model[0].in_features
        data: Any = (torch.randn(4 * ROWS, width), torch.randn(4 * ROWS, width))
        settings["loss_fn"] = squares
    else:
        model = language_model(16, 1) if small else language_model(128, 4)
        data = torch.randint(0, 512, (4 * ROWS, 8 if small else 256))
    observables = {"seen": (data, 2)} if settings.pop("observe", False) else None
    sizes = [parameter.nbytes for parameter in model.parameters()]
    before = resident()
    with contextlib.redirect_stdout(io.StringIO()):
        tree = sltfast.sample(
            model,
            data,
            observables,
            lr=1e-7,
            n_beta=10.0,
            batch_size=ROWS,
            progress=False,
            plan=True,
            num_init_loss_batches=2,
            **settings,
        )
    return tree.attrs["sltfast"]["plan"], {"before": before, "model": sum(sizes), "largest": max(sizes)}


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def highest() -> int:
    """The most that was resident since the program began; ru_maxrss would tell the parent's, where that was more."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    run(kind, small=True, **settings | {"num_draws": 2})  # imports, thread pools and caches of libraries
    plan, sizes = run(kind, small=False, **settings)
    peak = highest() - sizes["before"]
    print(json.dumps({"plan": plan, "measured_peak": peak, **sizes}))


if __name__ == "__main__":
    main()
