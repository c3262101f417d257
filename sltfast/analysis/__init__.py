"""What is read off chains, models and response matrices, beyond one estimate.

Response matrices, tokens × components, in the order of the papers: ``response_matrix`` from susceptibilities,
``standardise`` its columns, ``centre_rows``, then ``pca`` or ``whiten``. Learning coefficients without chains:
``volume_exponent``.
"""

from .preprocessing import centre_rows, standardise
from .principal_components import pca, whiten
from .response import response_matrix
from .volume import VolumeExponent, volume_exponent

__all__ = [
    "VolumeExponent",
    "centre_rows",
    "pca",
    "response_matrix",
    "standardise",
    "volume_exponent",
    "whiten",
]
