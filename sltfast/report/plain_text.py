"""Components and neighbours as a terminal shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sltfast.report.neighbours import influence_of
from sltfast.report.tokens import Piece, Vocabulary
from sltfast.tables import number, plus_minus, table

if TYPE_CHECKING:
    import xarray as xr

LETTERS = 64  # of a passage
NEIGHBOURS = 3


def component_table(tree: xr.DataTree) -> str:
    """One line a component: λ̂, R̂, ESS, and χ ± SE of every data set.

    Args:
        tree: from ``sltfast.susceptibilities``.
    """
    parts, datasets = tree["components"].to_dataset(), tree["datasets"].to_dataset()
    names = [str(name) for name in datasets["dataset"].values]
    rows = []
    for index, name in enumerate(parts["wr"].values):
        llc, se, rhat, ess = (float(parts[key].values[index]) for key in ("llc_mean", "llc_se", "rhat", "ess"))
        chi = zip(datasets["sus"].values[index].tolist(), datasets["se"].values[index].tolist(), strict=True)
        rows.append([str(name), plus_minus(llc, se), number(rhat), number(ess, 3), *(plus_minus(*one) for one in chi)])
    return table(["component", "λ̂ ± SE", "R̂", "ESS", *(f"χ {name}" for name in names)], rows)


def neighbour_lists(result: xr.Dataset, piece: Piece, *, each: int) -> str:
    """Some passages of every observable, those with the surest neighbours, each with the passages that help it most.

    Args:
        result: from ``sltfast.bif`` or ``sltfast.compute_bif``, with standard errors.
        piece: token id → text.
        each: passages of each observable.
    """
    influence, vocabulary = influence_of(result), Vocabulary(piece)
    ids, names = result["input_ids"].values, [str(name) for name in result["observable"].values]
    helps = 0 if int(result.attrs["sign"]) > 0 else 1
    nearest = [influence.nearest(row, NEIGHBOURS)[helps] for row in range(len(influence.rows))]
    sureness = [max((abs(one.value) / one.se for one in found if one.se > 0), default=0.0) for found in nearest]
    lines = []
    for name in dict.fromkeys(names):
        of_name = [row for row in np.argsort(sureness)[::-1].tolist() if names[influence.rows[row]] == name]
        for row in of_name[:each]:
            lines.append(f"{name}: {_opening(vocabulary, ids[influence.rows[row]])}")
            lines += [
                f"    {plus_minus(one.value, one.se)}  {names[one.item]}: {_opening(vocabulary, ids[one.item])}"
                for one in nearest[row]
            ]
    return "\n".join(lines)


def _opening(vocabulary: Vocabulary, ids: np.ndarray) -> str:
    return " ".join(vocabulary.text(ids, 2 * LETTERS).split())[:LETTERS]
