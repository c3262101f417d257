"""Other models: convolutions, bare parameters, shared inputs, tied and repeated modules, loops, checkpointing."""

from collections.abc import Callable
from typing import Any

import hugging_face
import pytest
import torch
from lane_check import check_stack
from models import Quadratic, quadratic_loss, token_rows
from one_lane import assert_lanes_exact, stacked
from torch import Tensor, nn
from torch.nn import functional as F


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = build().double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
        return model


def held(model: nn.Module, batch: Any, losses: Callable[..., Tensor], masks: Any = None, lanes: int = 3) -> set[str]:
    """Check and compare; the rungs in use."""
    rows = len(batch[0]) if isinstance(batch, tuple) else len(batch)
    stack = stacked(model, masks, lanes)
    assert check_stack(stack, losses, batch) is None
    assert_lanes_exact(model, stack, losses, batch, rows)
    return set(stack.rungs.values())


def squares(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).flatten(1).square()


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def convnet(mode: str = "zeros") -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, padding_mode=mode),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, groups=2, dilation=1, bias=False),
        nn.GroupNorm(3, 6),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_convolutions(mode: str) -> None:
    assert held(seeded(lambda: convnet(mode)), normal(5, 2, 7, 7), squares) == {"registry"}


def test_convolutions_of_one_dimension() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv1d(2, 3, 3, padding="same"), nn.BatchNorm1d(3), nn.Tanh(), nn.Conv1d(3, 2, 2))

    assert held(seeded(build), normal(3, 2, 9), squares) == {"registry"}


def test_some_parameters_of_a_convnet_move() -> None:
    model = seeded(convnet)
    for masks in (["0.bias"], ["1.weight"], ["3.weight"], ["4.bias", "7.weight"]):
        assert held(model, normal(3, 2, 7, 7), squares, masks) == {"registry"}


class Superposition(nn.Module):
    """ReLU(x WᵀW + b): bare parameters of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.W.T @ self.W + self.b)


@pytest.mark.parametrize("lanes", [1, 3, 40])
def test_bare_parameters(lanes: int) -> None:
    assert held(seeded(Superposition), normal(5, 6), squares, lanes=lanes) == {"vmap"}


def test_a_model_that_sees_no_batch() -> None:
    model = Quadratic(torch.tensor([1.0, 2.0, 3.0]), centre=0.5, dtype=torch.float64)
    assert held(model, normal(5, 1), quadratic_loss) == {"vmap"}


class Tokens(nn.Module):
    """Token and position embeddings, tied unembedding, a block called twice; positions come without a batch."""

    def __init__(self, batch_of_one: bool) -> None:
        super().__init__()
        self.batch_of_one = batch_of_one
        self.embed, self.position = nn.Embedding(11, 6, padding_idx=2), nn.Embedding(9, 6)
        self.block = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU())
        self.norm, self.gain = nn.RMSNorm(6), nn.Linear(6, 6, bias=False)
        self.unembed = nn.Linear(6, 11, bias=False)
        self.unembed.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1])
        x = self.embed(ids) + self.gain(self.position(positions[None] if self.batch_of_one else positions))
        for _ in range(2):
            x = x + self.block(x)
        return self.unembed(self.norm(x))


def next_token(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(ids)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)


@pytest.mark.parametrize("batch_of_one", [True, False])
@pytest.mark.parametrize(("rows", "tokens", "lanes"), [(3, 5, 2), (1, 6, 3), (2, 4, 2), (3, 9, 3), (1, 4, 1)])
def test_shared_tied_and_repeated(batch_of_one: bool, rows: int, tokens: int, lanes: int) -> None:
    model = seeded(lambda: Tokens(batch_of_one))
    assert held(model, token_rows(rows, tokens, 11), next_token, lanes=lanes) == {"registry"}
    assert held(model, token_rows(rows, tokens, 11), next_token, ["block.*"], lanes=lanes) == {"registry"}
    assert held(model, token_rows(rows, tokens, 11), next_token, ["position.*"], lanes=lanes) == {"registry"}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.out(x + self.attention(y, y, y, attn_mask=causal, need_weights=False)[0])


def test_multihead_attention() -> None:
    assert held(seeded(Attention), normal(3, 5, 6), squares) == {"registry", "vmap"}


class Learned(nn.Module):
    """A toy transformer whose positions are a bare parameter: the whole model is one unit, attention included."""

    def __init__(self, rows: bool) -> None:
        super().__init__()
        self.rows = rows
        self.position, self.qkv = nn.Parameter(torch.randn(9, 6)), nn.Linear(6, 18)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x + self.position[: x.shape[1]]).chunk(3, -1)
        if self.rows:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril().expand(len(x), 1, -1, -1)
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], seen)


@pytest.mark.parametrize("rows", [True, False])
def test_attention_inside_a_unit_is_folded(rows: bool) -> None:
    model = seeded(lambda: Learned(rows))
    assert held(model, normal(3, 5, 6), squares) == {"vmap"}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x)[0])


def test_a_module_without_vmap_loops() -> None:
    assert held(seeded(Recurrent), normal(3, 5, 4), squares) == {"registry", "loop"}


class Branching(nn.Module):
    """Data-dependent control flow around a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.w
        return y if y.sum() > 0 else -2 * y


def test_control_flow_loops() -> None:
    model = nn.Sequential(nn.Linear(4, 4), seeded(Branching)).double()
    assert held(model, normal(3, 4), squares) == {"registry", "loop"}


def test_parametrized_weights() -> None:
    model = seeded(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2)))
    assert held(model, normal(5, 4), squares) == {"registry", "vmap"}


class Unusual(nn.Embedding):
    """An embedding that reads its table by indexing."""

    def forward(self, ids: Tensor) -> Tensor:
        return 2 * self.weight[ids]


def test_an_embedding_of_an_unknown_kind_is_a_unit_of_its_own() -> None:
    model = seeded(lambda: nn.Sequential(nn.Identity(), Unusual(11, 4), nn.Linear(4, 11)))
    stack = stacked(model, None, lanes=2)
    ids = token_rows(3, 5, 11)
    assert_lanes_exact(model, stack, next_token, ids, rows=3)
    assert stack.rungs == {"1": "vmap", "2": "registry"}


class Nested(nn.Module):
    """A block that hands tensors and a plain value over in a dict, with a bare gain of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.linear = nn.Parameter(torch.randn(4)), nn.Linear(4, 4)

    def forward(self, state: dict[str, Any], *, scale: float) -> dict[str, Any]:
        return {"x": self.linear(state["x"]) * self.gain * scale, "steps": state["steps"] + 1}


class Carrying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Nested(), Nested()])

    def forward(self, x: Tensor) -> Tensor:
        state: dict[str, Any] = {"x": x, "steps": 0}
        for block in self.blocks:
            state = block(state, scale=0.5)
        return state["x"] * state["steps"]


def test_nested_arguments() -> None:
    assert held(seeded(Carrying), normal(5, 4), squares) == {"vmap"}


@pytest.mark.parametrize("name", ["GPTNeoX", "Mamba", "Gemma"])
def test_gradient_checkpointing(name: str) -> None:
    model = hugging_face.tiny(name)
    model.activation_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.train()  # checkpoints in train mode alone; nothing here drops out
    model.requires_grad_(True)

    def losses(called: nn.Module, ids: Tensor) -> Tensor:
        return next_token(lambda ids: called(ids).logits, ids)

    stack = stacked(model, None, lanes=3)
    batch = token_rows(3, 7, hugging_face.VOCABULARY)
    assert check_stack(stack, losses, batch) is None
    plain = hugging_face.tiny(name)
    assert_lanes_exact(plain, stack, losses, batch, rows=3)


@pytest.mark.parametrize(
    ("positions", "normalization"), [("standard", "LN"), ("rotary", "RMS"), ("shortformer", "LNPre")]
)
def test_transformer_lens(positions: str, normalization: str) -> None:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=2,
        d_model=12,
        n_ctx=10,
        d_head=4,
        n_heads=3,
        d_vocab=11,
        act_fn="gelu",
        d_mlp=16,
        normalization_type=normalization,
        positional_embedding_type=positions,
        rotary_dim=4 if positions == "rotary" else None,
        seed=1,
        device="cpu",
        dtype=torch.float64,
    )
    model = HookedTransformer(config).eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    for lanes in (1, 3):
        assert "loop" not in held(model, token_rows(3, 7, 11), next_token, lanes=lanes)
    assert "loop" not in held(model, token_rows(3, 7, 11), next_token, ["blocks.1.attn.W_Q"])


@pytest.mark.parametrize(("rows", "tokens", "lanes"), [(2, 4, 2), (4, 8, 2), (3, 9, 3), (2, 6, 3)])
def test_positions_that_look_like_a_batch(rows: int, tokens: int, lanes: int) -> None:
    """T is a multiple of L·B, and nothing was checked before the first call."""
    model = seeded(lambda: Tokens(batch_of_one=False))
    stack = stacked(model, None, lanes)
    assert_lanes_exact(model, stack, next_token, token_rows(rows, tokens, 11), rows)


def test_rows_of_a_lanes_own() -> None:
    model = seeded(lambda: Tokens(batch_of_one=False))
    stack = stacked(model, None, lanes=2)
    ids = token_rows(6, 4, 11)
    folded = next_token(stack.model, stack.take(ids))
    both = next_token(stack.model, stack.expand(ids))
    torch.testing.assert_close(folded, torch.cat([both[:3], both[9:]]), rtol=1e-12, atol=1e-12)
