"""Gradients over part of the coordinates: named parameters, rows and columns of a weight, any mask."""

import one_by_one
import pytest
import torch
from architectures import classification_loss, cnn, gpt2, images
from models import token_rows
from one_by_one import relative

from sltfast import per_sample

EXACT = 1e-12  # thousands of roundings of float64
QKV, EMBED, GAIN = "transformer.h.0.attn.c_attn.weight", "transformer.wte.weight", "transformer.h.1.ln_1.weight"


def block(shape, rows, columns):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def scattered(*shape, seed=5):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3


MASKS = {
    "a head": {QKV: block((16, 48), slice(None), slice(8, 16))},
    "rows of the tied embedding": {EMBED: block((32, 16), slice(3, 20), slice(None))},
    "a corner of the tied embedding": {EMBED: block((32, 16), slice(3, 20), slice(0, 7))},
    "scattered": {QKV: scattered(16, 48), EMBED: scattered(32, 16), GAIN: scattered(16)},
    "whole and part": {QKV: None, GAIN: scattered(16)},
}


def masked(rows, masks):
    return [{n: row[n] if m is None else row[n] * m for n, m in masks.items()} for row in rows]


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS.keys())
def test_only_the_masked_coordinates_count(masks):
    model, ids = gpt2().double(), token_rows(5)
    rows = masked(one_by_one.gradients(model, ids), masks)
    norms = per_sample.gradient_norms(model, ids, param_masks=masks)
    assert relative(norms, one_by_one.norms(rows)) < EXACT
    weights = torch.linspace(-1, 1, 5, dtype=torch.float64)
    sums = per_sample.weighted_sum(model, ids, weights, param_masks=masks)
    assert list(sums) == [n for n, _ in model.named_parameters() if n in masks]
    for name, value in sums.items():
        true = sum(w * row[name] for w, row in zip(weights, rows, strict=True))
        torch.testing.assert_close(value, true, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("name", ["body.0.weight", "body.3.weight"])
@pytest.mark.parametrize("mask", ["filters", "scattered"])
def test_masks_of_convolutions(name, mask):
    model, (x, y) = cnn().double(), images()
    batch, shape = (x.double(), y), dict(model.named_parameters())[name].shape
    chosen = scattered(*shape) if mask == "scattered" else block(shape, slice(1, 3), slice(None))
    rows = masked(one_by_one.gradients(model, batch, classification_loss), {name: chosen})
    norms = per_sample.gradient_norms(model, batch, classification_loss, param_masks={name: chosen})
    assert relative(norms, one_by_one.norms(rows)) < EXACT


def test_a_tied_weight_answers_to_both_names():
    model, ids = gpt2().double(), token_rows(4)
    by_first, by_second = (per_sample.gradient_norms(model, ids, param_masks=n) for n in (EMBED, "lm_head.weight"))
    assert torch.equal(by_first, by_second)
    v = {"lm_head.weight": torch.ones(32, 16, dtype=torch.float64)}
    assert torch.equal(
        per_sample.inner_products(model, ids, v), per_sample.inner_products(model, ids, {EMBED: v["lm_head.weight"]})
    )
    with pytest.raises(ValueError, match=r"names 'transformer.wte.weight' twice"):
        per_sample.inner_products(model, ids, {**v, EMBED: v["lm_head.weight"]})
