"""Clusters of points: sets that a walk on their graph of neighbours is slow to leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.analysis.pagerank import PageRank
from sltfast.analysis.sweep_cut import Cut, sweep_cut

if TYPE_CHECKING:
    import xarray as xr

ROUND = 64  # seeds between two looks at how much is new
SAME = 0.5  # of two sets' union: what they share if they are one cluster found twice
BEYOND = 10  # times as far is looked where a cut is all that was reached
STAYS = 0.5  # of a walk's time: what it spends in a set that is all it has reached


def find_clusters(
    graph: Any,
    *,
    teleport: float = 0.001,
    tolerance: float | None = None,
    min_size: int = 20,
    max_share: float = 0.1,
    max_conductance: float = 0.25,
    main_body: float = 0.99,
    stop_share: float = 0.001,
    seed: int = 0,
) -> xr.Dataset:
    """Clusters of a graph by personalised PageRank and sweep cuts, from seeds that no cluster holds yet.

    From each seed: push (``PageRank``), rank what was reached by p_v/d_v, take the sweep cut. It is a cluster where
    φ(S) ≤ ``max_conductance``, and where it is not simply all that was reached (the main body, in which a push ends
    nowhere in particular) even at ε/10, unless half of the walk's time is accounted for there. Of two clusters that
    share half of their union the one of smaller φ is kept. Seeds come in rounds of 64; a round that clusters less
    than ``stop_share`` of the nodes anew is the last. The same arguments give the same clusters.

    Args:
        graph: scipy sparse [n, n], symmetric, as from ``knn_graph``.
        teleport: α of the walk: sets with φ well below ~√α are seen; the smaller, the farther it goes.
        tolerance: ε of the push; None: 1/(max_share · vol(graph)), which reaches ``max_share`` of the graph at most.
        min_size: nodes of a cluster, at least.
        max_share: of all nodes that one cluster may hold.
        max_conductance: φ of a cluster, at most.
        main_body: share of the nodes reached from which on a set counts as all of them.
        stop_share: share of all nodes below which a round is the last.
        seed: of the order in which nodes are tried.

    Returns:
        ``xr.Dataset``. Of a cluster, by rising φ: ``conductance``, ``size``, ``seed``. ``label`` (token): of the
        clusters that hold the token the one of smallest φ, −1: none. ``member_token`` and ``member_cluster`` (member):
        all pairs, clusters may overlap. attrs: the settings and ``seeds_tried``.

    Raises:
        TypeError, ValueError: as ``PageRank``; settings out of range.
        MissingExtra: scipy is not installed.

    Source: Gordon et al. 2601.12703 (k = 45, α = 0.001, at least 20 tokens, main body 0.99, stop at 0.1 %); the order
        of seeds, the rule for duplicates and ``max_conductance`` are this package's.
    """
    _check(min_size, max_share, max_conductance, main_body, stop_share)
    walk = PageRank(graph, teleport)
    n = len(walk.degrees)
    epsilon = 1 / (max_share * walk.volume) if tolerance is None else tolerance
    kept: list[tuple[Cut, int]] = []
    covered, order, tried = np.zeros(n, dtype=bool), np.random.default_rng(seed).permutation(n), 0
    largest = max(min_size, int(max_share * n))
    fresh = n
    while fresh >= max(1, stop_share * n):
        before = int(covered.sum())
        seeds, order = order[:ROUND], order[ROUND:]
        for node in seeds.tolist():
            if covered[node]:
                continue
            tried += 1
            cut = _cluster(walk, node, epsilon, (min_size, largest), max_conductance, main_body)
            if cut is not None:
                _keep(kept, cut, node)
                covered[cut.nodes] = True
        fresh = int(covered.sum()) - before
        order = order[~covered[order]]
    return _table(kept, n, {"teleport": teleport, "tolerance": epsilon, "seeds_tried": tried, "seed": seed})


def _cluster(
    walk: PageRank, node: int, epsilon: float, sizes: tuple[int, int], max_conductance: float, main_body: float
) -> Cut | None:
    """The cluster around a node, if there is one."""
    for nearer in (epsilon, epsilon / BEYOND):
        reached = walk.push(node, nearer)
        if len(reached.nodes) < sizes[0]:
            return None
        ranked = reached.nodes[np.argsort(-reached.mass / walk.degrees[reached.nodes], kind="stable")]
        cut = sweep_cut(walk.graph, ranked, *sizes, degrees=walk.degrees)
        if cut is None or cut.conductance > max_conductance:
            return None
        if len(cut.nodes) < main_body * min(len(ranked), sizes[1]) or reached.mass.sum() >= STAYS:
            return cut
    return None


def _keep(kept: list[tuple[Cut, int]], cut: Cut, node: int) -> None:
    """Add a cut, unless it or a better one is there; what it betters goes."""
    same = [index for index, (other, _) in enumerate(kept) if _overlap(other.nodes, cut.nodes) >= SAME]
    if any(kept[index][0].conductance <= cut.conductance for index in same):
        return
    for index in reversed(same):
        del kept[index]
    kept.append((cut, node))


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard's |a ∩ b|/|a ∪ b|."""
    smaller, larger = sorted((len(a), len(b)))
    if smaller < SAME * larger:
        return 0.0  # it cannot reach SAME
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def _table(kept: list[tuple[Cut, int]], n: int, settings: dict[str, Any]) -> xr.Dataset:
    import xarray as xr

    kept = sorted(kept, key=lambda one: (one[0].conductance, one[1]))
    label = np.full(n, -1)
    for index in reversed(range(len(kept))):
        label[kept[index][0].nodes] = index
    sizes = np.array([len(cut.nodes) for cut, _ in kept], dtype=np.int64)
    return xr.Dataset(
        {
            "conductance": ("cluster", np.array([cut.conductance for cut, _ in kept], dtype=np.float64)),
            "size": ("cluster", sizes),
            "seed": ("cluster", np.array([node for _, node in kept], dtype=np.int64)),
            "label": ("token", label),
            "member_token": ("member", np.concatenate([np.zeros(0, np.int64), *(np.sort(c.nodes) for c, _ in kept)])),
            "member_cluster": ("member", np.repeat(np.arange(len(kept)), sizes)),
        },
        coords={"cluster": np.arange(len(kept))},
        attrs=settings,
    )


def _check(min_size: Any, max_share: float, max_conductance: float, main_body: float, stop_share: float) -> None:
    if isinstance(min_size, bool) or not isinstance(min_size, int) or min_size < 2:
        raise ValueError(f"min_size must be a whole number >= 2, got {min_size!r}")
    shares = {"max_share": max_share, "max_conductance": max_conductance, "main_body": main_body}
    for name, value in {**shares, "stop_share": stop_share}.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {value!r}")
