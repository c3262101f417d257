"""What a head's name selects is what the head owns: the gradient of the loss says so, architecture by architecture."""

import pytest
import torch
from attending import ARCHITECTURES, HEADS, LAYERS, WIDTH, lens, token_ids
from torch import nn

from sltfast.restriction import create_param_masks, head_names, restriction_names

NOISE = 1e-13  # float64 losses of order 1: below it a gradient is rounding (a key's bias, which no softmax sees)


def gradients(model, attention, module, keep):
    """Gradient of the loss by the parameters of one attention, when only the slots ``keep`` of its heads are read."""
    kept = torch.zeros(HEADS, 1, dtype=torch.float64)
    kept[list(keep)] = 1.0

    def mask(x):
        return (x.unflatten(-1, (HEADS, WIDTH)) * kept).flatten(-2) if x.shape[-1] != WIDTH else x * kept

    if isinstance(module, nn.Linear) or hasattr(module, "nf"):
        handle = module.register_forward_pre_hook(lambda _, args: (mask(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(lambda _, args, output: mask(output))
    ids = token_ids()
    output = model(ids)
    logits = output if isinstance(output, torch.Tensor) else output.logits
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    handle.remove()
    names = [name for name, _ in model.named_parameters() if name.startswith(f"{attention}.")]
    found = torch.autograd.grad(loss, [model.get_parameter(name) for name in names], allow_unused=True)
    return {
        name: torch.zeros_like(model.get_parameter(name)) if gradient is None else gradient
        for name, gradient in zip(names, found, strict=True)
    }


def dense(model, masks):
    """Masks of every parameter."""
    chosen = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in model.named_parameters()}
    for name, mask in masks.items():
        chosen[name] = torch.ones_like(chosen[name]) if mask is None else mask
    return chosen


def check_heads(model, attention, module, layer, groups):
    everything = gradients(model, attention, module, range(HEADS))
    live = {name: g.abs() > NOISE for name, g in everything.items()}
    heads = [dense(model, create_param_masks(model, f"l{layer}h{h}")) for h in range(HEADS)]
    of_a_head = {name: torch.stack([head[name] for head in heads]).any(0) for name in live}
    size = HEADS // groups
    assert f"l{layer}h{HEADS}" not in restriction_names(model)
    for h in range(HEADS):
        without = gradients(model, attention, module, set(range(HEADS)) - {h})
        alone = gradients(model, attention, module, {h})
        others = {name: torch.stack([heads[j][name] for j in range(HEADS) if j != h]).any(0) for name in live}
        for name in live:
            own = heads[h][name] & ~others[name]
            assert torch.equal((without[name] == 0) & live[name], own & live[name]), (name, h)
            if bool(of_a_head[name].any()):
                assert torch.equal((alone[name].abs() > NOISE) & live[name], heads[h][name] & live[name]), (name, h)
        assert any(bool((heads[h][name] & ~others[name]).any()) for name in live)
        assert all(not bool(mask.any()) for name, mask in heads[h].items() if name not in live)
    for g in range(groups):
        members = range(g * size, (g + 1) * size)
        group = dense(model, create_param_masks(model, f"l{layer}g{g}"))
        without = gradients(model, attention, module, set(range(HEADS)) - set(members))
        for name in live:
            together = torch.stack([heads[h][name] for h in members]).any(0)
            assert torch.equal(group[name], together)
            gone = (without[name] == 0) & live[name] if groups > 1 else together & live[name]
            assert torch.equal(gone, together & live[name]), (name, g)
    assert (f"l{layer}g0" in restriction_names(model)) == (groups < HEADS)


def detach_scales(model):
    """Norms over all heads at once mix them through their scale: with that held fixed, each head stands alone."""

    def hold(norm):
        def forward(x):
            scale = torch.rsqrt(x.detach().pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
            return norm.weight * x * scale

        norm.forward = forward

    for name, module in model.named_modules():
        if name.endswith(("q_norm", "k_norm")):
            hold(module)


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_head_is_what_its_gradient_says(name, layer):
    architecture = ARCHITECTURES[name]
    model = architecture.make()
    if name == "olmo2":
        detach_scales(model)
    module = model.get_submodule(architecture.writes.format(layer))
    attention = architecture.writes.format(layer).rsplit(".", 1)[0]
    check_heads(model, attention, module, layer, architecture.groups)
    assert head_names(model) == [f"l{i}h{h}" for i in range(LAYERS) for h in range(HEADS)]


@pytest.mark.parametrize("groups", [HEADS, 2])
def test_heads_of_transformer_lens(groups):
    model = lens(groups)
    check_heads(model, "blocks.1.attn", model.blocks[1].attn.hook_z, 1, groups)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parts_are_whole_and_tied_weights_shared(name):
    model = ARCHITECTURES[name].make()
    embed, unembed = create_param_masks(model, "embed"), create_param_masks(model, "unembed")
    first = {id(p): n for n, p in model.named_parameters()}
    assert list(embed) == [first[id(model.get_input_embeddings().weight)]]
    assert list(unembed) == [first[id(p)] for p in model.get_output_embeddings().parameters()]
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert (embed.keys() <= unembed.keys()) == tied
    block = create_param_masks(model, "l1")
    attention, mlp = create_param_masks(model, "l1 attn"), create_param_masks(model, "l1 mlp")
    assert {*embed.values(), *unembed.values(), *block.values(), *attention.values(), *mlp.values()} == {None}
    assert not attention.keys() & mlp.keys()
    assert attention.keys() | mlp.keys() < block.keys()
    assert all("norm" in n.lower() or "ln_" in n for n in block.keys() - attention.keys() - mlp.keys())
    path = ARCHITECTURES[name].writes.format(1)
    assert f"{path}.weight" in attention
    inside = set(block) & {n for n, _ in model.named_parameters() if n.startswith(f"{path.rsplit('.', 1)[0]}.")}
    assert set(attention) == inside
    full = create_param_masks(model, "full")
    assert list(full) == [n for n, _ in model.named_parameters()]
    assert set(full.values()) == {None}
