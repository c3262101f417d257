"""Heads and groups by name behind a shared prefix, architecture by architecture: exact, or refused with a reason."""

from collections.abc import Sequence

import head_models as hm
import pytest
import torch
from attending import ARCHITECTURES
from torch import Tensor, nn

from sltfast.restriction import Restriction
from sltfast.stacking.heads import HeadLanes
from sltfast.stacking.prefix import Expansion

CLOSE = 1e-10  # float64: some hundred roundings of 1e-16 a value
CHAINS = 2
REFUSED = {
    "bloom": "does not run on lanes",  # alibi a head; the residual is added inside
    "falcon": "does not run on lanes",  # one key head, by the code
    "falcon_alibi": "on lanes differs from itself",
    "mpt": "on lanes differs from itself",
    "gpt_bigcode": "does not run on lanes",
    "olmo2": "q_norm.weight is no projection",
    "cohere": "q_norm.weight is no projection",
    "stablelm_norms": "not in one attention",
    "gpt_oss": "not in one attention",  # a sink a head
}
PARTS = [(name, ("l1h0", "l1h2")) for name in ARCHITECTURES] + [
    (name, ("l1g0", "l1g1")) for name, architecture in ARCHITECTURES.items() if architecture.groups == 2
]


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch, use_cache=False).logits


def padded() -> dict[str, Tensor]:
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, 5:], mask[2, 6:] = 0, 0
    return {
        "input_ids": torch.randint(2, 32, (3, 7), generator=torch.Generator().manual_seed(1)),
        "attention_mask": mask,
    }


def restrictions_of(model: nn.Module, names: Sequence[str]) -> list[Restriction]:
    """Those named, or the first alone where they take their rows from the weights in different ways."""
    found = [Restriction.of(model, name) for name in names]
    shapes = [[segment.shape for segment in restriction.segments] for restriction in found]
    return found if shapes[0] == shapes[1] else found[:1]


@pytest.mark.parametrize(
    ("name", "parts"), [pytest.param(n, p, id=f"{n} {p[0]}") for n, p in PARTS if n not in REFUSED]
)
def test_named_parts_are_exact(name: str, parts: tuple[str, str]) -> None:
    model, batch = ARCHITECTURES[name].make(), padded()
    restrictions = restrictions_of(model, parts)
    leaves = hm.leaves_of(restrictions, CHAINS)
    expected, gradients = hm.one_at_a_time(model, restrictions, leaves, CHAINS, lambda m: logits(m, batch))
    clone = hm.frozen(model)
    lanes, reason = HeadLanes.of(clone, restrictions, leaves, CHAINS, lambda: logits(clone, batch))
    assert lanes is not None, reason
    expansion = Expansion(clone, {segment.name for segment in restrictions[0].segments}, logits, batch)
    lanes.apply(expansion)
    with expansion.on(lanes.lanes):
        found = logits(clone, {key: value.repeat(lanes.lanes, 1) for key, value in batch.items()})
    upstream = torch.Generator().manual_seed(13)
    weights = [torch.randn(expected[:3].shape, generator=upstream, dtype=torch.float64) for _ in range(lanes.lanes)]
    (found * torch.cat(weights)).sum().backward()
    assert (found.detach() - expected).abs().max() <= CLOSE * expected.abs().max()
    scale = max(gradient.abs().max() for gradient in gradients)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        assert leaf.grad is not None
        assert (leaf.grad - gradient).abs().max() <= CLOSE * scale


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_with_a_reason(name: str, dtype: torch.dtype) -> None:
    model, batch = ARCHITECTURES[name].make().to(dtype), padded()
    restrictions = restrictions_of(model, ("l1h0", "l1h2"))
    leaves = hm.leaves_of(restrictions, CHAINS)
    clone = hm.frozen(model)
    lanes, reason = HeadLanes.of(clone, restrictions, leaves, CHAINS, lambda: logits(clone, batch))
    assert lanes is None
    assert REFUSED[name] in reason


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama_gqa", "qwen2"])
def test_low_precision_is_understood(name: str) -> None:
    model, batch = ARCHITECTURES[name].make().to(torch.bfloat16), padded()
    restrictions = restrictions_of(model, ("l1h0", "l1h2"))
    leaves = hm.leaves_of(restrictions, CHAINS)
    clone = hm.frozen(model)
    lanes, reason = HeadLanes.of(clone, restrictions, leaves, CHAINS, lambda: logits(clone, batch))
    assert lanes is not None, reason
    lanes.apply()
    with torch.no_grad(), hm.expanded_behind(clone, lanes.block_name, 3, lanes.lanes):
        found = logits(clone, batch).double()
    expected, _ = hm.one_at_a_time(
        model.double(), restrictions, [leaf.detach().double() for leaf in leaves], CHAINS, lambda m: logits(m, batch)
    )
    # a rounding to 8 bits at each of some fifty steps
    assert (found - expected).abs().max() <= 50 * 2**-8 * expected.abs().max()
