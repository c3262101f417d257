"""What is read off chains, models and response matrices, beyond one estimate.

Response matrices, tokens × components, in the order of the papers: ``response_matrix`` from susceptibilities,
``standardise`` its columns, ``centre_rows``, then ``pca`` or ``whiten``. Learning coefficients without chains:
``volume_exponent``. Compression at a loss tolerance: ``critical_compression``, and whether it goes with λ̂:
``rank_correlation``.
"""

from .compression import CriticalCompression, critical_compression, factorised, pruned, quantised
from .preprocessing import centre_rows, standardise
from .principal_components import pca, whiten
from .rank_correlation import RankCorrelation, rank_correlation
from .response import response_matrix
from .volume import VolumeExponent, volume_exponent

__all__ = [
    "CriticalCompression",
    "RankCorrelation",
    "VolumeExponent",
    "centre_rows",
    "critical_compression",
    "factorised",
    "pca",
    "pruned",
    "quantised",
    "rank_correlation",
    "response_matrix",
    "standardise",
    "volume_exponent",
    "whiten",
]
