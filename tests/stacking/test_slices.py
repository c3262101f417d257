"""Rectangles of a weight move, in all lanes or in some: exact against dense weights, one lane at a time."""

from collections.abc import Callable

import hugging_face
import pytest
import torch
from lane_check import check_stack
from models import token_rows
from one_lane import assert_lanes_exact, stacked
from torch import Tensor, nn

from sltfast.clone import structural_clone
from sltfast.restriction import Restriction
from sltfast.stacking import Piece, Stack

ROWS, COLUMNS, BOTH = (slice(4, 8), slice(None)), (slice(None), slice(4, 8)), (slice(4, 9), slice(3, 8))


def losses(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(ids).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)


def mask(model: nn.Module, name: str, *places: tuple[slice, slice]) -> Tensor:
    chosen = torch.zeros(model.get_parameter(name).shape, dtype=torch.bool)
    for place in places:
        chosen[place if chosen.ndim == 2 else place[0]] = True
    return chosen


LLAMA, GPT2 = "model.layers.0.self_attn", "transformer.h.0"
CASES: dict[str, tuple[str, dict[str, list[tuple[slice, slice]]]]] = {
    "rows of Linear": ("Llama", {f"{LLAMA}.q_proj.weight": [ROWS]}),
    "columns of Linear": ("Llama", {f"{LLAMA}.o_proj.weight": [COLUMNS]}),
    "a head": (
        "Llama",
        {f"{LLAMA}.{p}_proj.weight": [COLUMNS if p == "o" else (slice(0, 4), slice(None))] for p in "qkvo"},
    ),
    "rectangle of Linear": ("Llama", {f"{LLAMA}.o_proj.weight": [BOTH]}),
    "two row ranges": ("Llama", {f"{LLAMA}.q_proj.weight": [ROWS, (slice(10, 16), slice(None))]}),
    "two column ranges": ("Llama", {"model.layers.1.mlp.down_proj.weight": [COLUMNS, (slice(None), slice(11, 24))]}),
    "fused qkv of Conv1D": (
        "GPT2",
        {
            f"{GPT2}.attn.c_attn.weight": [(slice(None), slice(start + 4, start + 8)) for start in (0, 16, 32)],
            f"{GPT2}.attn.c_attn.bias": [(slice(start + 4, start + 8), slice(None)) for start in (0, 16, 32)],
            f"{GPT2}.attn.c_proj.weight": [ROWS],
        },
    ),
    "rectangle of Conv1D": ("GPT2", {f"{GPT2}.mlp.c_fc.weight": [BOTH]}),
    "rows of a tied embedding": ("GPT2", {"transformer.wte.weight": [(slice(5, 21), slice(None))]}),
    "columns of positions": ("GPT2", {"transformer.wpe.weight": [COLUMNS]}),
    "gains": ("GPT2", {f"{GPT2}.ln_1.weight": [ROWS], f"{GPT2}.ln_1.bias": [ROWS]}),
    "scattered": ("Llama", {f"{LLAMA}.q_proj.weight": [(slice(i, i + 1), slice(i, i + 1)) for i in range(16)]}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lanes", [1, 3])
def test_slices(case: str, lanes: int) -> None:
    name, places = CASES[case]
    model = hugging_face.tiny(name)
    stack = stacked(model, {key: mask(model, key, *spots) for key, spots in places.items()}, lanes)
    batch = token_rows(3, 7, hugging_face.VOCABULARY)
    assert check_stack(stack, losses, batch) is None
    assert set(stack.rungs.values()) == {"registry"}
    assert_lanes_exact(model, stack, losses, batch, rows=3)


def grouped(model: nn.Module, selections: list[dict[str, Tensor | None]], chains: int) -> Stack:
    """Lanes of several restrictions side by side, restriction after restriction."""
    weights: dict[str, list[Piece]] = {}
    generator = torch.Generator().manual_seed(23)
    for index, selection in enumerate(selections):
        for segment in Restriction.of(model, selection).segments:
            step = 0.1 * torch.randn(chains, segment.numel, generator=generator, dtype=torch.float64)
            leaf = (segment.anchor() + step).view(chains, *segment.shape).requires_grad_()
            weights.setdefault(segment.name, []).append(Piece(segment, leaf, (index * chains, (index + 1) * chains)))
    return Stack(structural_clone(model, torch.device("cpu")), weights, len(selections) * chains)


def heads(model: nn.Module) -> list[dict[str, Tensor | None]]:
    spans = [slice(4 * head, 4 * head + 4) for head in range(4)]
    return [
        {
            f"{LLAMA}.q_proj.weight": mask(model, f"{LLAMA}.q_proj.weight", (span, slice(None))),
            f"{LLAMA}.o_proj.weight": mask(model, f"{LLAMA}.o_proj.weight", (slice(None), span)),
        }
        for span in spans
    ]


def layers(model: nn.Module) -> list[dict[str, Tensor | None]]:
    return [{name: None for name, _ in model.named_parameters() if f"layers.{layer}." in name} for layer in (0, 1)]


def rectangles(model: nn.Module) -> list[dict[str, Tensor | None]]:
    name = f"{LLAMA}.o_proj.weight"
    return [{name: mask(model, name, (slice(s, s + 5), slice(s, s + 3)))} for s in (0, 4)]


@pytest.mark.parametrize("select", [heads, layers, rectangles])
def test_lanes_of_other_restrictions(select: Callable[[nn.Module], list[dict[str, Tensor | None]]]) -> None:
    model = hugging_face.tiny("Llama")
    stack = grouped(model, select(model), chains=2)
    batch = token_rows(3, 7, hugging_face.VOCABULARY)
    assert check_stack(stack, losses, batch) is None
    assert_lanes_exact(model, stack, losses, batch, rows=3)


def scattered(model: nn.Module) -> list[dict[str, Tensor | None]]:
    name = f"{LLAMA}.q_proj.weight"
    chosen = torch.rand(16, 16, generator=torch.Generator().manual_seed(8)) < 0.5
    selections: list[dict[str, Tensor | None]] = [{name: chosen}, {name: ~chosen}]
    assert all(Restriction.of(model, selection).segments[0].mask is not None for selection in selections)
    return selections


@pytest.mark.parametrize("select", [heads, rectangles, scattered])
def test_restrictions_that_share_a_leaf(select: Callable[[nn.Module], list[dict[str, Tensor | None]]]) -> None:
    model = hugging_face.tiny("Llama")
    restrictions = [Restriction.of(model, selection) for selection in select(model)]
    weights: dict[str, list[Piece]] = {}
    generator = torch.Generator().manual_seed(29)
    for segments in zip(*(restriction.segments for restriction in restrictions), strict=True):
        leaves = []
        for segment in segments:
            step = 0.1 * torch.randn(2, segment.numel, generator=generator, dtype=torch.float64)
            moving = 1 if segment.mask is None else segment.mask
            leaves.append((segment.anchor() + step * moving).view(2, *segment.shape))
        leaf = torch.cat(leaves).requires_grad_()
        weights.setdefault(segments[0].name, []).extend(Piece.of_restrictions(segments, leaf))
    stack = Stack(structural_clone(model, torch.device("cpu")), weights, 2 * len(restrictions))
    batch = token_rows(3, 7, hugging_face.VOCABULARY)
    assert check_stack(stack, losses, batch) is None
    assert_lanes_exact(model, stack, losses, batch, rows=3)


def test_lanes_that_do_not_exist() -> None:
    model = hugging_face.tiny("Llama")
    (segment,) = Restriction.of(model, ["model.norm.weight"]).segments
    leaf = torch.zeros(2, 16, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match=r"0 <= l0 < l1 <= 3, got \(2, 4\)"):
        Stack(structural_clone(model, torch.device("cpu")), {"model.norm.weight": [Piece(segment, leaf, (2, 4))]}, 3)
