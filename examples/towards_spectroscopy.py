"""What groups do tokens fall into by how the parts of a language model answer to them? (5 minutes)

A small GPT-NeoX learns synthetic text whose tokens know their kind. The susceptibilities χ of every head, MLP and
embedding to every token are standardised and centred; the rows' graph of nearest neighbours is cut into clusters, which
are compared with the kinds, and with those of a control at nβ = 0 (Gordon et al. 2601.12703).

python examples/towards_spectroscopy.py --figure towards_spectroscopy.png
"""

import argparse

import numpy as np
import xarray as xr

import sltfast
from sltfast.analysis import (
    centre_rows,
    compare_clusters,
    find_clusters,
    knn_graph,
    nearest_neighbours,
    pca,
    response_matrix,
    standardise,
    umap_plane,
)
from sltfast.demo.checks import Checks
from sltfast.demo.kinds import KINDS, VOCABULARY, KnownText, known_text
from sltfast.demo.language_model import trained_language_model
from sltfast.plotting.style import CHAIN_COLOURS, FAINT, new_figure
from sltfast.tables import table


def responses(arguments: argparse.Namespace, text: KnownText) -> xr.DataTree:
    """χ of every component to every token, and at nβ = 0."""
    rows = known_text(2000, seed=1).tokens
    size = {"hidden_size": 128, "heads": 8, "layers": 4} if arguments.full else {}
    model = trained_language_model(rows, vocabulary=VOCABULARY, steps=arguments.training_steps, **size)
    return sltfast.susceptibilities(
        model,
        rows,
        {"task": (known_text(48, seed=2).tokens, 2), "text": (text.tokens, len(text.tokens) // 12)},
        "all",
        sampling_task="task",
        estimator="single_chain",
        control=not arguments.no_control,
        lr=1e-4,
        n_beta=300.0,
        localization=1000.0,
        num_chains=4,
        num_draws=arguments.draws,
        num_burnin_steps=arguments.draws,
        num_steps_bw_draws=3,
        batch_size=12,
    )


def clustered(tree: xr.DataTree, kinds: np.ndarray, k: int) -> tuple[xr.DataArray, xr.Dataset, xr.Dataset, float]:
    """The matrix, its clusters, these beside the kinds, and how often a near neighbour is of the same kind."""
    matrix = centre_rows(standardise(response_matrix(tree)))
    clusters = find_clusters(knn_graph(matrix, k), min_size=10, max_share=0.2, max_conductance=0.4)
    near = nearest_neighbours(matrix, 5)
    return matrix, clusters, compare_clusters(clusters, kinds), float((kinds[near] == kinds[:, None]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training-steps", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=48, help="of 32 tokens, whose χ are estimated: a multiple of 12")
    parser.add_argument("--draws", type=int, default=40, help="of each of 4 chains")
    parser.add_argument("--no-control", action="store_true", help="do not sample at nβ = 0 too")
    parser.add_argument("--plane", choices=("umap", "pca"), default="umap")
    parser.add_argument("--full", action="store_true", help="4 layers of 8 heads and 60 000 tokens, for a GPU")
    parser.add_argument("--figure", default="towards_spectroscopy.png", help="write the figure to this file")
    arguments = parser.parse_args()
    if arguments.full:
        arguments.training_steps, arguments.rows, arguments.draws = 5000, 2004, 200

    text = known_text(arguments.rows, seed=3)
    tree = responses(arguments, text)
    kinds = text.kinds_of(tree)
    k = 45 if arguments.full else 15
    matrix, clusters, beside, same = clustered(tree, kinds, k)
    names = ("best", "size", "conductance", "precision", "recall", "base_rate", "p_value")
    columns = {**beside, **clusters}
    rows = [
        [str(columns["best"].values[c])] + [f"{columns[n].values[c]:.3g}" for n in names[1:]] for c in beside.cluster
    ]
    print(table(list(names), rows))

    checks = Checks()
    shares = np.array([(kinds == kind).mean() for kind in KINDS])
    rng = np.random.default_rng(0)
    near = nearest_neighbours(matrix, 5)
    # kinds of whole rows are dealt anew: tokens of a row stay together, as they depend on each other
    by_row = kinds.reshape(arguments.rows, -1)
    dealt = [by_row[rng.permutation(arguments.rows)].ravel() for _ in range(199)]
    chance = max(float((one[near] == one[:, None]).mean()) for one in dealt)
    found = f"{same:.0%}; {(shares**2).sum():.0%} by chance, at most {chance:.0%} of 199 permutations"
    checks.holds("near tokens are of the same kind (p = 1/200)", same > chance, found)
    strongest = beside["p_value"].values < 0.01
    found = f"{int(strongest.sum())} of {len(strongest)}"
    checks.holds("most clusters have a kind that they hold more of", bool(strongest.mean() > 0.5), found)
    if not arguments.no_control:
        *_, without, control = clustered(tree["control"], kinds, k)
        print(
            f"control at nβ = 0: near tokens of the same kind {control:.0%}, {without.sizes['cluster']} clusters; "
            f"mutual information with kinds {without.attrs['adjusted_mutual_info']:.2f}, "
            f"of χ {beside.attrs['adjusted_mutual_info']:.2f}"
        )
    draw(arguments, matrix, clusters, kinds)
    checks.finish()


def draw(arguments: argparse.Namespace, matrix: xr.DataArray, clusters: xr.Dataset, kinds: np.ndarray) -> None:
    """The tokens in the plane, by kind and by cluster."""
    if arguments.plane == "umap":
        plane, title = umap_plane(matrix, neighbours=45), "UMAP of χ"
    else:
        plane, title = pca(matrix, 2)["scores"].values, "principal components of χ"
    label = clusters["label"].values
    with new_figure(8.4, 4.0) as figure:
        left, right = figure.subplots(1, 2)
        for kind, colour in zip(KINDS, CHAIN_COLOURS, strict=False):
            left.scatter(*plane[kinds == kind].T, s=5, color=colour, label=kind, linewidths=0)
        left.legend(markerscale=3, loc="best")
        left.set_title(f"{title}: kinds of tokens")
        right.scatter(*plane[label < 0].T, s=4, color=FAINT, linewidths=0)
        for cluster in range(clusters.sizes["cluster"]):
            colour = CHAIN_COLOURS[cluster % len(CHAIN_COLOURS)]
            right.scatter(*plane[label == cluster].T, s=5, color=colour, linewidths=0)
        right.set_title(f"{clusters.sizes['cluster']} clusters found (grey: none)")
        for axes in (left, right):
            axes.set_xticks([])
            axes.set_yticks([])
    sltfast.plotting.save(figure, arguments.figure, dpi=100)


if __name__ == "__main__":
    main()
