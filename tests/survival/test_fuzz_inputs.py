"""Restrictions, data sets and files that nobody thought of: what was asked for, or an error of ours."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from fuzzing import EXAMPLES, ODD, Properties, outcome
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from models import Mlp, tiny_neox

from sltfast.data import as_source, leaves
from sltfast.observables import LONGEST_NAME, observable_id
from sltfast.restriction import Restriction, create_param_masks, head_names, restriction_names
from sltfast.results.identity import restriction_digest
from sltfast.results.journal import Journal, read_journal
from sltfast.results.layout import ArraySpec
from sltfast.results.place import place_of
from sltfast.results.state import read_state

PROPERTIES = Properties()

LANGUAGE_MODEL, SMALL = tiny_neox(), Mlp()
LISTED = restriction_names(LANGUAGE_MODEL)
PARAMETERS = dict(LANGUAGE_MODEL.named_parameters())
REAL = st.sampled_from([*LISTED, *head_names(LANGUAGE_MODEL), *PARAMETERS, "all heads", "l0h*", "*.bias", "l? mlp"])
PARTS = st.one_of(
    REAL, st.sampled_from(["all", "l0  mlp", "l9", "l0h99", "l1g7"]), st.text("lh01 *?[].mt", max_size=8),
    st.from_regex(r"l[0-9]{1,2}( attn| mlp|h[0-9]{1,2}|g[0-9])?", fullmatch=True), st.text(max_size=5),
)  # fmt: skip


def chosen(names):
    """One flat mask of the whole language model."""
    masks = create_param_masks(LANGUAGE_MODEL, names)
    assert all(mask is None or mask.shape == PARAMETERS[name].shape for name, mask in masks.items())
    whole = {name: torch.full(p.shape, name in masks) for name, p in PARAMETERS.items()}
    whole |= {name: mask for name, mask in masks.items() if mask is not None}
    return torch.cat([mask.flatten() for mask in whole.values()])


@PROPERTIES.of(st.lists(REAL, min_size=1, max_size=4))
def unions_of_names(names):
    together = chosen(names)
    parts = torch.stack([chosen(name) for name in names])
    assert torch.equal(together, parts.any(0))
    assert bool(parts.any(1).all())
    assert Restriction.of(LANGUAGE_MODEL, iter(names)).numel == int(together.sum())


@PROPERTIES.of(st.one_of(PARTS, st.lists(PARTS, max_size=3), ODD))
def restrictions_by_name(names):
    restriction = outcome(lambda: Restriction.of(LANGUAGE_MODEL, names))
    if restriction is None or names is None or isinstance(names, dict):
        return
    masks = create_param_masks(LANGUAGE_MODEL, names)
    again = Restriction.of(LANGUAGE_MODEL, masks)
    assert restriction_digest(again) == restriction_digest(restriction)
    assert again.numel == restriction.numel == int(chosen(names).sum()) > 0


MASKS = st.one_of(
    st.none(),
    arrays_of.arrays(
        st.sampled_from(["?", "f4", "i8", "u1", "c8"]),
        st.sampled_from([(5, 3), (5, 3), (5,), (1, 5), (1,), (3, 5), (0,)]),
        elements=st.integers(0, 1), fill=st.nothing(),
    ).map(torch.from_numpy),
    st.sampled_from([
        torch.ones(5, 3).to_sparse(), torch.ones(5, 3, device="meta"), torch.full((5, 3), 0.5), torch.ones(3, 5).T,
        torch.full((5,), torch.nan), torch.ones(1).expand(5), torch.zeros(5, 3),
    ]),
    ODD,
)  # fmt: skip
MASKED = st.sampled_from(["first.weight", "first.weight", "first.bias", "second.weight"])


@PROPERTIES.of(st.dictionaries(st.one_of(MASKED, ODD.filter(lambda key: key.__hash__)), MASKS, max_size=3))
def restrictions_by_mask(masks):
    restriction = outcome(lambda: Restriction.of(SMALL, masks))
    if restriction is None:
        return
    shapes = dict(SMALL.named_parameters())
    given = {name: torch.ones(shapes[name].shape) if mask is None else mask for name, mask in masks.items()}
    assert restriction.numel == sum(int((mask != 0).sum()) for mask in given.values()) > 0
    again = Restriction.of(SMALL, {name: mask != 0 for name, mask in given.items()})
    assert restriction_digest(again) == restriction_digest(restriction)


SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = arrays_of.arrays(
    st.sampled_from(["f4", "f8", ">f4", "f2", "i8", "u2", "u8", "?", "c8", "U2", "O", "M8[D]", "f4,f4"]), SHAPES
)
TENSORS = arrays_of.arrays(st.sampled_from(["f4", "i8", "?", "c8"]), SHAPES).map(torch.from_numpy)
VIEWS = st.sampled_from([
    np.arange(6.0)[::-1], np.zeros(3, dtype="f4,i1")["f0"], np.ma.masked_equal(np.arange(3), 1),
    np.broadcast_to(1.0, (3, 2)), torch.ones(3, 2).to_sparse(), torch.ones(3, device="meta"), torch.ones(1).expand(4),
    torch.ones(3, 2, dtype=torch.complex64).conj(), torch.zeros(3, dtype=torch.complex64).conj().imag,
    torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), torch.ones(3, requires_grad=True),
    torch.utils.data.TensorDataset(), memoryview(b"abc"),
    torch.utils.data.TensorDataset(torch.ones(3)), range(4), {1, 2}, frozenset(), iter([1.0]), bytearray(b"ab"),
    [{"a": torch.ones(2)}, {"b": torch.ones(2)}], [10**400, 1], [[10**400]], ["a"], [None], [[[[]]]],
])  # fmt: skip
PART = st.one_of(ARRAYS, TENSORS, VIEWS, st.lists(st.integers(0, 9), max_size=4), ODD)
DATA = st.one_of(
    PART, st.tuples(PART, PART), st.lists(PART, max_size=3), st.dictionaries(st.text(max_size=3), PART, max_size=3),
    st.lists(st.tuples(TENSORS, st.integers(0, 3)), max_size=3),
    st.dictionaries(st.text(max_size=2), TENSORS, max_size=2),
)  # fmt: skip


@PROPERTIES.of(DATA, st.one_of(st.none(), st.integers(1, 5), ODD))
def data_sets(data, buffer_size):
    source = outcome(lambda: as_source(data, buffer_size=buffer_size))
    if source is None:
        return
    assert len(source) >= 1
    whole = leaves(source.fetch(np.arange(len(source))))
    assert whole
    for row in range(len(source)):
        one = leaves(source.fetch(np.array([row])))
        assert all(
            torch.equal(part[row : row + 1].nan_to_num(), own.nan_to_num())
            for part, own in zip(whole, one, strict=True)
        )
    if isinstance(data, np.ndarray | torch.Tensor):
        np.testing.assert_array_equal(
            whole[0].resolve_neg().numpy(force=True), data.detach() if isinstance(data, torch.Tensor) else data
        )
    assert as_source(source) is source
    assert len(source.fingerprint()) == 32


@PROPERTIES.of(st.text())
def names_of_observables(name):
    found = outcome(lambda: observable_id(name), names=[name])
    if found is not None:
        assert found.isidentifier() or not found.isascii()
        assert observable_id(found) == found
        assert len(found.encode()) <= LONGEST_NAME + 1
        assert "/" not in found


NO_HOME = st.sampled_from(["~nobody-of-that-name/run", "\ud800", "a\0b", "/", ".", "..", "x/" * 3000, "\udcff"])


@PROPERTIES.of(st.one_of(st.text(max_size=300), NO_HOME, ODD))
def paths(path):
    with suppress(OSError):  # what the system says of a name
        found = outcome(lambda: place_of(path), names=["output_path"])
        assert found is None or found.is_absolute()


SPECS = [ArraySpec("a", ("chain", "step"), (2, 9), "float64", "step")]


@PROPERTIES.of(st.binary(max_size=120), st.integers(0, 200), st.binary(max_size=6))
def journals_and_states_of_any_bytes(folder, tail, cut, noise):
    path = folder / "x"
    path.unlink(missing_ok=True)
    journal = Journal(path, SPECS)
    written = [np.full((1, 1), float(row)) for row in range(4)]
    for row, values in enumerate(written):
        journal.append(0, 0, row, values)
    journal.close()
    content = path.read_bytes()
    kept = content[: min(cut, len(content))]
    path.write_bytes(kept + noise + tail)
    for record, values in zip(read_journal(path, SPECS), written, strict=False):
        np.testing.assert_array_equal(record.values, values)
    path.write_bytes(tail)
    with pytest.warns(UserWarning, match="is damaged"):
        assert read_state(path) is None


@PROPERTIES.parametrized
def test_fuzz(name, tmp_path):
    PROPERTIES.hold(name, tmp_path)


@pytest.mark.soak
@PROPERTIES.parametrized
def test_a_hundred_times_as_many_examples(name, tmp_path):
    PROPERTIES.hold(name, tmp_path, 100 * EXAMPLES)
