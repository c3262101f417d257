"""The table of what a restriction moves."""

import torch
from attending import ARCHITECTURES
from models import Mlp

from sltfast import create_param_masks, preview_weight_restriction


def test_a_head_as_a_table():
    model = ARCHITECTURES["llama_gqa"].make()
    total = sum(p.numel() for p in model.parameters())
    text = preview_weight_restriction(model, create_param_masks(model, "l0h1"))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["shape", "moving", "of", "%", "parameter", "where"]
    layer = "model.layers.0.self_attn"
    assert lines[1:] == [
        ["32", "×", "32", "256", "1,024", "25", f"{layer}.q_proj.weight", "rows", "8:16"],
        ["16", "×", "32", "256", "512", "50", f"{layer}.k_proj.weight", "rows", "0:8"],
        ["16", "×", "32", "256", "512", "50", f"{layer}.v_proj.weight", "rows", "0:8"],
        ["32", "×", "32", "256", "1,024", "25", f"{layer}.o_proj.weight", "columns", "8:16"],
        ["1,024", f"{total:,}", f"{100 * 1024 / total:.3g}", "total", "of", "the", "model"],
    ]
    assert preview_weight_restriction(model, "l0h1") == text
    assert repr(text) == text


def test_masks_blocks_and_names_alone():
    generator = torch.Generator().manual_seed(0)
    corner = torch.zeros(5, 3, dtype=torch.bool)
    corner[1:3, :2] = True
    text = preview_weight_restriction(Mlp(), {"first.weight": corner, "second.bias": None})
    assert "rows 1:3 × columns 0:2" in text
    assert text.splitlines()[2].endswith("second.bias  all")
    model = torch.nn.Linear(30, 30)
    text = preview_weight_restriction(model, {"weight": torch.rand(30, 30, generator=generator) < 0.5})
    assert text.splitlines()[1].endswith("weight  mask")
    striped = {"weight": (torch.arange(30) % 2 == 0).expand(30, 30)}
    assert "columns 0:1, 2:3, 4:5, 6:7, … (15 ranges)" in preview_weight_restriction(model, striped)
    assert preview_weight_restriction(Mlp(), "first.*", plain=True) == "first.weight\nfirst.bias"
    assert len(preview_weight_restriction(Mlp()).splitlines()) == 6
