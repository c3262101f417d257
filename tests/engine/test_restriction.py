"""Restriction: names, patterns, masks, ties, and where each coordinate stands in the full model."""

import pytest
import torch
from models import Mlp
from torch import nn

from sltfast.restriction import Restriction


def test_the_whole_model_counts_elements_in_parameter_order():
    restriction = Restriction.of(Mlp())
    assert [(s.name, s.element, s.moving) for s in restriction.segments] == [
        ("first.weight", 0, 15),
        ("first.bias", 15, 5),
        ("second.weight", 20, 5),
        ("second.bias", 25, 1),
    ]
    assert restriction.numel == 26


def test_elements_do_not_depend_on_the_restriction():
    restriction = Restriction.of(Mlp(), {"second.weight": None})
    assert [(s.name, s.element) for s in restriction.segments] == [("second.weight", 20)]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ("second.*", ["second.weight", "second.bias"]),
        (["*.bias"], ["first.bias", "second.bias"]),
        (["second.bias", "first.weight"], ["first.weight", "second.bias"]),
    ],
)
def test_patterns(patterns, names):
    assert [s.name for s in Restriction.of(Mlp(), patterns).segments] == names


def test_masks_of_zeros_and_ones_are_taken_and_full_ones_dropped():
    half = torch.zeros(5, 3)
    half[1, 2] = 1.0
    restriction = Restriction.of(Mlp(), {"first.weight": half, "first.bias": torch.ones(5, dtype=torch.bool)})
    assert restriction.numel == 6
    assert restriction.dense().segments[0].mask.nonzero().tolist() == [[5]]
    assert restriction.segments[1].whole


def test_an_all_false_mask_moves_nothing_of_its_parameter():
    masks = {"first.weight": torch.zeros(5, 3, dtype=torch.bool), "first.bias": None}
    assert [s.name for s in Restriction.of(Mlp(), masks).segments] == ["first.bias"]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight


def test_a_tied_weight_answers_to_both_names_and_counts_once():
    assert Restriction.of(Tied()).numel == 24
    assert [s.name for s in Restriction.of(Tied(), "head.weight").segments] == ["embed.weight"]
    upper, lower = torch.zeros(6, 4, dtype=torch.bool), torch.zeros(6, 4, dtype=torch.bool)
    upper[0], lower[5] = True, True
    assert Restriction.of(Tied(), {"embed.weight": upper, "head.weight": lower}).numel == 8


@pytest.mark.parametrize(
    ("masks", "error", "says"),
    [
        ({"fist.weight": None}, ValueError, "'first.weight'"),
        ("frist.*", ValueError, "no such parameter"),
        ({"first.weight": torch.ones(3, 5, dtype=torch.bool)}, ValueError, r"\(3, 5\).*\(5, 3\)"),
        ({"first.bias": torch.full((5,), 0.5)}, ValueError, "other than 0 and 1"),
        ({"first.bias": torch.zeros(5, dtype=torch.bool)}, ValueError, "selects no coordinate"),
        ({}, ValueError, "selects no coordinate"),
        ([], ValueError, "selects no coordinate"),
        ({"first.bias": [True] * 5}, TypeError, "tensor or None"),
        ([3], TypeError, "glob patterns"),
        (5, TypeError, "glob patterns"),
    ],
)
def test_bad_masks_are_refused(masks, error, says):
    with pytest.raises(error, match=says):
        Restriction.of(Mlp(), masks)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    model = Mlp()
    with torch.no_grad():
        model.first.weight[0, 0] = value
    with pytest.raises(ValueError, match=r"first\.weight.*1 NaN or infinite"):
        Restriction.of(model)
    assert Restriction.of(model, "second.*").numel == 6  # what does not move is the loss's concern


def test_frozen_parameters_stay_unless_named():
    model = Mlp()
    model.first.requires_grad_(False)
    assert Restriction.of(model).numel == 6
    assert Restriction.of(model, "*").numel == 26
    assert Restriction.of(model.requires_grad_(False)).numel == 26


def test_lazy_and_eight_bit_parameters_are_named():
    with pytest.raises(ValueError, match="lazy module"):
        Restriction.of(nn.Sequential(nn.LazyLinear(3)))
    model = nn.Module()
    model.small = nn.Parameter(torch.zeros(3).to(torch.float8_e4m3fn))
    with pytest.raises(TypeError, match=r"'small' has dtype torch.float8_e4m3fn"):
        Restriction.of(model)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="no parameters"):
        Restriction.of(nn.ReLU())
