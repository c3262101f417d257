"""Names of parts: what they select, together and alone, and what is said where they select nothing."""

import pytest
import torch
from attending import ARCHITECTURES, HEADS, LAYERS, lens
from models import Mlp
from torch import nn

import sltfast
from sltfast.restriction import NotUnderstood, Restriction, create_param_masks, head_names, heads, region
from sltfast.restriction import restriction_names as names_of


def spans(model, masks):
    return [(s.name.split(".")[-2], s.rows, s.columns) for s in Restriction.of(model, masks).segments]


def test_a_head_of_gpt2_is_column_ranges_of_the_fused_projection():
    model = ARCHITECTURES["gpt2"].make()
    assert spans(model, "l0h1") == [
        *(("c_attn", (0, 32), (start, start + 8)) for start in (8, 40, 72)),
        *(("c_attn", (start, start + 8), (0, 1)) for start in (8, 40, 72)),
        ("c_proj", (8, 16), (0, 32)),
    ]


def test_a_head_of_gpt_neox_is_a_row_range_of_the_fused_projection():
    model = ARCHITECTURES["gpt_neox"].make()
    assert spans(model, "l1h2") == [
        ("query_key_value", (48, 72), (0, 32)),
        ("query_key_value", (48, 72), (0, 1)),
        ("dense", (0, 32), (16, 24)),
    ]


@pytest.mark.parametrize("name", ["l0h0", "l1 attn", "l0 mlp", "embed", "unembed", "full", "all heads", "l0h*"])
def test_no_mask_is_made_to_name_a_part(name, monkeypatch):
    model = ARCHITECTURES["qwen2"].make()
    masks = create_param_masks(model, name)

    def refuse(*_):
        raise AssertionError("a dense mask")

    monkeypatch.setattr(region, "_painted", refuse)
    by_name = Restriction.of(model, name)
    monkeypatch.undo()
    assert all(segment.mask is None for segment in by_name.segments)
    by_mask = Restriction.of(model, masks)
    assert [(s.name, s.element, s.shape) for s in by_name.segments] == [
        (s.name, s.element, s.shape) for s in by_mask.segments
    ]


def test_lists_are_unions_and_patterns_reach_parts():
    model = ARCHITECTURES["llama_gqa"].make()
    heads = [f"l0h{h}" for h in range(HEADS)]
    assert spans(model, heads) == spans(model, "l0h*") == spans(model, ["l0g0", "l0g1"])
    assert spans(model, "all heads") == spans(model, head_names(model)) == spans(model, ["l0h*", "l1h*"])
    mixed = create_param_masks(model, ["l0 attn", "lm_head.weight", "l0h1", "l1h0"])
    assert mixed["lm_head.weight"] is None
    assert mixed["model.layers.0.self_attn.q_proj.weight"] is None
    assert mixed["model.layers.1.self_attn.q_proj.weight"].sum() == 8 * 32
    two = create_param_masks(model, ["l0h0", "l0h2"])["model.layers.0.self_attn.k_proj.weight"]
    assert two is None  # one head of either group


def test_a_parameter_goes_before_a_part_of_the_same_name():
    model = nn.ModuleDict({"embed": nn.Linear(2, 3)})
    model.register_parameter("full", nn.Parameter(torch.ones(2)))
    assert [s.name for s in Restriction.of(model, "full").segments] == ["full"]
    assert Restriction.of(model, "all").numel == 11


def test_embedding_and_unembedding_of_transformer_lens():
    model = lens()
    assert create_param_masks(model, "embed") == {"embed.W_E": None}
    assert create_param_masks(model, "unembed") == {"unembed.W_U": None, "unembed.b_U": None}


class Towers(nn.Module):
    """Two stacks of blocks, of which one is the decoder."""

    def __init__(self, depths, decoder):
        super().__init__()
        self.first, self.second = (nn.ModuleDict({"layers": self.blocks(depth)}) for depth in depths)
        self.decoder = decoder

    def blocks(self, depth):
        return nn.ModuleList([Block(8, 2) for _ in range(depth)])

    def get_decoder(self):
        return getattr(self, self.decoder)


class Sized(Towers):
    class config:
        num_hidden_layers = 3


def test_of_two_stacks_the_decoder_or_the_one_of_the_config_is_meant():
    of_decoder = create_param_masks(Towers((2, 2), "second"), "l1h0")
    assert {name.split(".attn")[0] for name in of_decoder} == {"second.layers.1"}
    of_config = create_param_masks(Sized((3, 2), "second"), "l2h1")
    assert {name.split(".attn")[0] for name in of_config} == {"first.layers.2"}
    one = Towers((1, 2), "first")
    one.get_decoder = None
    with pytest.raises(NotUnderstood, match=r"several lists \('first\.layers', 'second\.layers'\)"):
        create_param_masks(one, "l0")


def test_names_of_a_model():
    assert names_of(ARCHITECTURES["llama_gqa"].make())[:12] == [
        *("full", "embed", "unembed", "l0", "l0 attn", "l0 mlp", "l0h0", "l0h1", "l0h2", "l0h3", "l0g0", "l0g1")
    ]
    assert names_of(Mlp()) == ["full"]
    assert sltfast.head_names(lens()) == [f"l{layer}h{h}" for layer in range(LAYERS) for h in range(HEADS)]


def test_every_name_selects():
    model = ARCHITECTURES["gpt_neox"].make()
    for name in names_of(model):
        assert Restriction.of(model, name).numel > 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("l7h3", r"'l7h3': the model has 2 layers \(l0\.\.l1\) of 4 heads"),
        ("l2", r"'l2': the model has 2 layers"),
        ("l0h4", r"'l0h4': layer 0 has 4 heads \(l0h0\.\.l0h3\)"),
        ("l0g2", r"'l0g2': layer 0 has 2 groups of heads \(l0g0\.\.l0g1\)"),
        ("l0 atn", r"no such parameter or part.*'l0h1' \(head\)"),
        ("l9h*", "no such parameter or part"),
        ("model.layers.0.self_attn.q_prj.weight", r"'model\.layers\.0\.self_attn\.q_proj\.weight'"),
        ([], "selects no coordinate"),
    ],
)
def test_what_does_not_exist_is_named(name, says):
    model = ARCHITECTURES["llama_gqa"].make()
    for take in (create_param_masks, Restriction.of):
        with pytest.raises(ValueError, match=says):
            take(model, name)


def test_masks_are_no_names():
    with pytest.raises(TypeError, match="names must be"):
        create_param_masks(Mlp(), {"first.weight": None})
    with pytest.raises(TypeError, match="names must be"):
        create_param_masks(Mlp(), None)


def mamba():
    from transformers import MambaConfig, MambaForCausalLM

    size = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "pad_token_id": 0}
    return MambaForCausalLM(MambaConfig(bos_token_id=0, eos_token_id=0, **size))


class Block(nn.Module):
    """Attention as torch has it."""

    def __init__(self, width, heads, **settings):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True, **settings)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        h = self.ln_1(x)
        return self.mlp(x + self.attn(h, h, h, need_weights=False)[0])


class Unheard(nn.Module):
    """A module called attention that attends to nothing."""

    def __init__(self, width):
        super().__init__()
        self.num_heads = 2
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return self.b(self.a(x).tanh())


class Homemade(nn.Module):
    """A language model that no library made."""

    def __init__(self, block):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(16, 8)
        self.stack = nn.ModuleList([block() for _ in range(3)])
        self.out = nn.Linear(8, 11, bias=False)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.stack:
            x = block(x)
        return self.out(x)


@pytest.mark.parametrize("settings", [{}, {"add_bias_kv": True}, {"bias": False}])
def test_a_homemade_model_is_read_too(settings):
    model = Homemade(lambda: Block(8, 2, **settings))
    assert list(create_param_masks(model, "embed")) == ["tokens.weight"]
    assert list(create_param_masks(model, "unembed")) == ["out.weight"]
    assert len(names_of(model)) == 3 + 3 * 5
    masks = create_param_masks(model, "l1h1")
    ids = torch.arange(10).view(2, 5)
    with torch.no_grad():
        before = model(ids)
        for name, mask in masks.items():  # without its coordinates a head adds nothing, whatever its keys are
            if "in_proj" not in name:
                model.get_parameter(name).masked_fill_(mask, 0.0)
        gone = model(ids)
        for name, mask in masks.items():
            if "in_proj" in name:
                model.get_parameter(name).masked_fill_(mask, 3.0)
        assert torch.equal(model(ids), gone)
        assert not torch.equal(before, gone)
    assert masks["stack.1.attn.in_proj_weight"].nonzero()[:, 0].unique().tolist() == [
        *range(4, 8),
        *range(12, 16),
        *range(20, 24),
    ]


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (mamba, "l0h0", r"l0 \(backbone\.layers\.0\) has no attention among its modules \['norm', 'mixer'\]"),
        (mamba, "l1 mlp", "no MLP"),
        (Mlp, "l0", "no list of blocks.*mapping from parameter name to mask"),
        (Mlp, "embed", "0 modules that could be its token embedding"),
        (lambda: Homemade(lambda: nn.ModuleDict({"attn": Unheard(8)})), "l0h0", "cannot be run on 5 tokens"),
        (lambda: Homemade(lambda: nn.Sequential(Unheard(8))), "l0 attn", "no list of blocks|no attention"),
    ],
)
def test_what_cannot_be_told_is_refused(make, name, says):
    with pytest.raises(NotUnderstood, match=says):
        create_param_masks(make(), name)


class Around(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        return self.attention(x)


def test_what_does_not_attend_has_no_heads():
    with pytest.raises(NotUnderstood, match="does not depend on earlier tokens"):
        create_param_masks(Homemade(lambda: Around(Unheard(8))), "l0h0")


def wrong_head_count(count):
    model = ARCHITECTURES["llama_gqa"].make()
    model.config.num_attention_heads = count
    return model


@pytest.mark.parametrize(("count", "says"), [(2, "not those of one head"), (8, "does not come apart into 8 heads")])
def test_a_wrong_count_of_heads_is_found_out(count, says):
    with pytest.raises(NotUnderstood, match=says):
        create_param_masks(wrong_head_count(count), "l0h0")


def test_the_model_is_as_before():
    model = ARCHITECTURES["gpt_neox"].make().float()
    model.train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    requires = [p.requires_grad for p in model.parameters()]
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        create_param_masks(model, "l1h1")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert [p.requires_grad for p in model.parameters()] == requires
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_heads_do_not_depend_on_weights_or_precision(dtype):
    model = ARCHITECTURES["qwen2"].make()
    expected = create_param_masks(model, "l1h1")
    other = ARCHITECTURES["qwen2"].make().to(dtype)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    masks = create_param_masks(other, "l1h1")
    assert masks.keys() == expected.keys()
    assert all(torch.equal(masks[name], expected[name]) for name in masks)


def test_one_forward_tells_every_layer(monkeypatch):
    calls = []
    trace = heads.trace
    monkeypatch.setattr(heads, "trace", lambda *args: calls.append(args) or trace(*args))
    model = ARCHITECTURES["mistral"].make()
    for name in [*head_names(model), "l0g1", "all heads"]:
        create_param_masks(model, name)
    assert len(calls) == 1
