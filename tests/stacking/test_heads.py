"""Late expansion for heads: every lane's logits and gradients are those of the plain model with its weights."""

import head_models as hm
import pytest
import torch
from torch import Tensor, nn

from sltfast.restriction import Restriction
from sltfast.stacking.heads import HeadLanes
from sltfast.stacking.prefix import Expansion, Memo

# float64: some hundred roundings of 1e-16 a value, far below what any mistake would change
CLOSE = 1e-10
UNDERSTOOD = [name for name in hm.MODELS if name not in ("olmo2", "bloom")]
GROUPED = ("llama", "qwen2", "qwen3", "mistral", "phi3", "gemma2", "granite", "falcon_grouped")


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    given = dict(batch)
    if "position_ids" in given and type(model).__name__ in ("OPTForCausalLM", "BloomForCausalLM"):
        del given["position_ids"]
    return model(**given).logits


def compare(
    name: str,
    heads: list[int],
    chains: int,
    layer: int = 1,
    kind: str = "head",
    implementation: str = "sdpa",
    rows: int = 3,
    tokens: int = 7,
    padding: str = "",
) -> None:
    model = hm.model_of(name, "eager" if name in hm.EAGER_ONLY else implementation)
    batch = hm.batch_of(rows, tokens, padding)
    restrictions = hm.restrictions_of(model, layer, heads, kind)
    leaves = hm.leaves_of(restrictions, chains)
    expected, gradients = hm.one_at_a_time(model, restrictions, leaves, chains, lambda m: logits(m, batch))
    clone = hm.frozen(model)
    lanes, reason = HeadLanes.of(clone, restrictions, leaves, chains, lambda: logits(clone, batch))
    assert lanes is not None, reason
    lanes.apply()
    with hm.expanded_behind(clone, lanes.block_name, rows, lanes.lanes):
        found = logits(clone, batch)
    lanes.restore()
    generator = torch.Generator().manual_seed(13)
    weights = [torch.randn(expected[:rows].shape, generator=generator, dtype=torch.float64) for _ in range(lanes.lanes)]
    (found * torch.cat(weights)).sum().backward()
    assert apart(found.detach(), expected) <= CLOSE * expected.abs().max()
    # one scale for all: the gradient of a bias that a softmax cancels is rounding alone
    scale = max(gradient.abs().max() for gradient in gradients)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        assert leaf.grad is not None
        assert apart(leaf.grad, gradient) <= CLOSE * scale
    assert torch.equal(logits(clone, batch), logits(model, batch))


def apart(found: Tensor, expected: Tensor) -> Tensor:
    assert found.shape == expected.shape
    return (found - expected).abs().max()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", UNDERSTOOD)
def test_every_lane_of_a_head_is_the_plain_model_with_its_weights(name: str, implementation: str) -> None:
    compare(name, [3, 0, 2], 2, implementation=implementation)


@pytest.mark.parametrize("name", [name for name in GROUPED if name != "falcon_grouped"])
def test_heads_that_take_their_keys_along_move_the_other_heads_of_the_group(name: str) -> None:
    compare(name, [3, 0, 2], 2, kind="head and keys")


# its heads are one run of rows or two
@pytest.mark.parametrize("heads", [[0, 2], [3, 1]])
def test_interleaved_heads_that_take_their_keys_along(heads: list[int]) -> None:
    compare("falcon_grouped", heads, 2, kind="head and keys")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", GROUPED)
def test_every_lane_of_a_group_is_the_plain_model_with_its_weights(name: str, implementation: str) -> None:
    compare(name, [1, 0], 3, kind="group", implementation=implementation)


# Gemma 2 itself gives NaN where a row of its mask is empty, as left padding makes it
@pytest.mark.parametrize(
    ("name", "padding"),
    [(name, side) for name in UNDERSTOOD for side in ("left", "right") if (name, side) != ("gemma2", "left")],
)
def test_padding(name: str, padding: str) -> None:
    compare(name, [1, 0], 2, kind="group" if name in GROUPED else "head", rows=5, padding=padding)


@pytest.mark.parametrize(
    ("layer", "heads", "chains", "rows", "tokens"),
    [(0, [2], 1, 1, 2), (2, [2], 3, 7, 7), (0, [0, 1, 2, 3], 1, 4, 4), (2, [1, 1], 2, 2, 9)],
    ids=["one lane", "rows as tokens", "all as heads", "a head twice"],
)
@pytest.mark.parametrize("name", ["neox", "gpt2", "llama", "qwen3"])
def test_sizes_that_could_be_mistaken(
    name: str, layer: int, heads: list[int], chains: int, rows: int, tokens: int
) -> None:
    compare(name, heads, chains, layer=layer, rows=rows, tokens=tokens)


def reason_of(model: nn.Module, masks: list[dict[str, Tensor | None]]) -> str:
    restrictions = [Restriction.of(model, mask) for mask in masks]
    clone = hm.frozen(model)
    batch = hm.batch_of(2, 5)
    lanes, reason = HeadLanes.of(clone, restrictions, hm.leaves_of(restrictions, 2), 2, lambda: logits(clone, batch))
    assert lanes is None
    return reason


def test_a_norm_over_all_heads_is_refused() -> None:
    model = hm.model_of("olmo2")
    reason = reason_of(model, [hm.head_masks(model, 1, head, kind="group") for head in (0, 1)])
    assert "Olmo2Attention (model.layers.1.self_attn) does not run on lanes" in reason


def test_every_head_once_does_not_hide_a_norm_over_all_heads() -> None:
    model = hm.model_of("olmo2")
    restrictions = [Restriction.of(model, hm.head_masks(model, 1, head, kind="group")) for head in (0, 1)]
    clone, batch = hm.frozen(model), hm.batch_of(2, 5)
    lanes, reason = HeadLanes.of(clone, restrictions, hm.leaves_of(restrictions, 1), 1, lambda: logits(clone, batch))
    assert lanes is None
    assert "Olmo2Attention (model.layers.1.self_attn) on lanes differs from itself by" in reason


def test_a_residual_inside_the_attention_is_refused() -> None:
    model = hm.model_of("bloom", "eager")
    assert "does not run on lanes" in reason_of(model, [hm.head_masks(model, 1, 0)])


def test_what_is_no_head_is_refused() -> None:
    model = hm.model_of("llama")
    name = "model.layers.1.self_attn."
    rows = hm.head_masks(model, 1, 0)[f"{name}q_proj.weight"]
    half = rows.clone()
    half[3:] = False
    assert "not in one attention" in reason_of(
        model, [{"model.layers.1.mlp.up_proj.weight": None, f"{name}q_proj.weight": rows}]
    )
    assert "features 0..3 of model.layers.1.self_attn.q_proj.weight are no whole heads" in reason_of(
        model, [{f"{name}q_proj.weight": half}]
    )
    assert "belongs to no head" in reason_of(model, [{f"{name}o_proj.bias": None, f"{name}q_proj.weight": rows}])
    assert "moves in part of what its heads read" in reason_of(
        model, [{f"{name}q_proj.weight": half.fill_(False) | (torch.arange(24) < 5)}]
    )


@pytest.mark.parametrize("padding", ["", "left", "right"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("name", ["neox", "gpt2", "llama", "qwen2", "gpt_neo"])
def test_behind_a_shared_prefix(name: str, layer: int, padding: str) -> None:
    model, batch = hm.model_of(name, "eager" if name in hm.EAGER_ONLY else "sdpa"), hm.batch_of(3, 7, padding)
    restrictions = hm.restrictions_of(model, layer, [3, 0])
    leaves = hm.leaves_of(restrictions, 2)
    expected, gradients = hm.one_at_a_time(model, restrictions, leaves, 2, lambda m: logits(m, batch))
    clone = hm.frozen(model)
    memo = Memo(2**30)
    moving = {segment.name for segment in restrictions[0].segments}
    expansion = Expansion(clone, moving, logits, batch, memo)
    lanes, reason = HeadLanes.of(clone, restrictions, leaves, 2, lambda: logits(clone, batch))
    assert lanes is not None, reason
    lanes.apply(expansion)
    tiled = {key: value.repeat(4, 1) for key, value in batch.items()}
    generator = torch.Generator().manual_seed(13)
    weights = [torch.randn(expected[:3].shape, generator=generator, dtype=torch.float64) for _ in range(4)]
    for key in (None, ("step", 0), ("step", 0), ("data", 1), ("data", 1)):
        with expansion.on(4, key):
            found = logits(clone, tiled)
        for leaf in leaves:
            leaf.grad = None
        (found * torch.cat(weights)).sum().backward()
        assert apart(found.detach(), expected) <= CLOSE * expected.abs().max()
        scale = max(gradient.abs().max() for gradient in gradients)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            assert leaf.grad is not None
            assert apart(leaf.grad, gradient) <= CLOSE * scale
    assert memo.hits == 2
    with pytest.raises(RuntimeError, match=r"expands lanes late: run the model inside expansion.on\(lanes\)"):
        logits(clone, tiled)
    lanes.restore()
    assert torch.equal(logits(clone, batch), logits(model, batch))


def test_an_attention_whose_batch_has_come_before_does_not_run_at_the_anchor() -> None:
    model, batch = hm.model_of("neox"), hm.batch_of(3, 7)
    restrictions = hm.restrictions_of(model, 1, [3, 0])
    leaves = hm.leaves_of(restrictions, 2)
    clone = hm.frozen(model)
    expansion = Expansion(clone, {s.name for s in restrictions[0].segments}, logits, batch, Memo(2**30))
    lanes, reason = HeadLanes.of(clone, restrictions, leaves, 2, lambda: logits(clone, batch))
    assert lanes is not None, reason
    lanes.apply(expansion)
    ran = []
    block = clone.get_submodule(lanes.block_name)
    for name in ("attention.dense", "mlp.dense_4h_to_h"):
        block.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    for _ in range(3):
        with expansion.on(4, ("data",)):
            logits(clone, {"input_ids": batch["input_ids"].repeat(4, 1)})
    assert ran == ["attention.dense", "mlp.dense_4h_to_h"]


def test_lanes_that_part_elsewhere_are_refused() -> None:
    model, batch = hm.model_of("neox"), hm.batch_of(3, 7)
    restrictions = hm.restrictions_of(model, 1, [0])
    clone = hm.frozen(model)
    expansion = Expansion(clone, {"gpt_neox.layers.2.mlp.dense_h_to_4h.weight"}, logits, batch)
    lanes, _ = HeadLanes.of(clone, restrictions, hm.leaves_of(restrictions, 1), 1, lambda: logits(clone, batch))
    assert lanes is not None
    with pytest.raises(ValueError, match=r"lanes part at gpt_neox.layers.2.* not at gpt_neox.layers.1"):
        lanes.apply(expansion)
