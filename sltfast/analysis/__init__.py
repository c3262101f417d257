"""What is read off a response matrix, tokens × components: standardised, centred, its principal components.

In the order of the papers: ``response_matrix`` from susceptibilities, ``standardise`` its columns, ``centre_rows``,
then ``pca`` or ``whiten``.
"""

from .preprocessing import centre_rows, standardise
from .principal_components import pca, whiten
from .response import response_matrix

__all__ = ["centre_rows", "pca", "response_matrix", "standardise", "whiten"]
