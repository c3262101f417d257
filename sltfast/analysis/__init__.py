"""What is read off chains, models and response matrices, beyond one estimate.

Response matrices, tokens × components, in the order of the papers: ``response_matrix`` from susceptibilities,
``standardise`` its columns, ``centre_rows``, then ``pca`` or ``whiten``; ``knn_graph`` of its
rows, ``find_clusters`` of the graph, ``compare_clusters``, ``umap_plane``. Learning coefficients without chains:
``volume_exponent``. Compression at a loss tolerance: ``critical_compression``, and whether it goes with λ̂:
``rank_correlation``. Blocks of a loss kernel: ``block_contrast``. Sign changes and peaks over training: ``course``.
"""

from .block_contrast import BlockContrast, block_contrast
from .cluster_labels import compare_clusters
from .clusters import find_clusters
from .compression import CriticalCompression, critical_compression, factorised, pruned, quantised
from .course import Course, course
from .nearest_neighbours import knn_graph, nearest_neighbours
from .pagerank import PageRank
from .plane import umap_plane
from .preprocessing import centre_rows, standardise
from .principal_components import pca, whiten
from .rank_correlation import RankCorrelation, rank_correlation
from .response import response_matrix
from .sweep_cut import sweep_cut
from .volume import VolumeExponent, volume_exponent

__all__ = [
    "BlockContrast",
    "Course",
    "CriticalCompression",
    "PageRank",
    "RankCorrelation",
    "VolumeExponent",
    "block_contrast",
    "centre_rows",
    "compare_clusters",
    "course",
    "critical_compression",
    "factorised",
    "find_clusters",
    "knn_graph",
    "nearest_neighbours",
    "pca",
    "pruned",
    "quantised",
    "rank_correlation",
    "response_matrix",
    "standardise",
    "sweep_cut",
    "umap_plane",
    "volume_exponent",
    "whiten",
]
