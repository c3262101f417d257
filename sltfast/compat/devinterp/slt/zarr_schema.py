"""What a zarr store of a run is laid out as: its arrays, and the attributes of its group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sltfast.compat.devinterp.slt.writing import validate_dtype_str_torch_numpy_compat

if TYPE_CHECKING:
    import zarr

XARRAY_NAN = "AAAAAAAA+H8="  # float64 NaN, as xarray writes _FillValue


@dataclass
class DataArraySpec:
    """One array: ``chunks`` default to all of it; floats are NaN and whole numbers 0 until they are written.

    Raises:
        ValueError: a dtype that torch and NumPy do not share.
        AssertionError: as many dimensions, sizes and chunks are needed.
    """

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype_str: str
    chunks: tuple[int, ...] = None  # type: ignore[assignment]
    attrs: dict[str, Any] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.chunks = self.shape if self.chunks is None else self.chunks
        self.attrs = {} if self.attrs is None else self.attrs
        validate_dtype_str_torch_numpy_compat(self.dtype_str)
        assert len(self.shape) == len(self.dims) == len(self.chunks), (
            f"shape {self.shape}, dims {self.dims} and chunks {self.chunks} must be equally long"
        )

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return np.dtype(self.dtype_str)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of a buffer for it."""
        dtype: torch.dtype = getattr(torch, self.dtype_str)
        return dtype

    def to_metadata(self) -> Any:
        """Zarr's own description of the array (``ArrayV3Metadata``), as xarray reads it back."""
        from zarr.codecs import BytesCodec, ZstdCodec
        from zarr.core.chunk_grids import RegularChunkGrid
        from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding
        from zarr.core.dtype import get_data_type_from_native_dtype
        from zarr.core.metadata import ArrayV3Metadata

        floats = self.numpy_dtype.kind in "fc"
        attributes = {**({"_FillValue": XARRAY_NAN} if floats else {}), **self.attrs}
        return ArrayV3Metadata(
            shape=self.shape,
            data_type=get_data_type_from_native_dtype(self.numpy_dtype),
            chunk_grid=RegularChunkGrid(chunk_shape=self.chunks),
            chunk_key_encoding=DefaultChunkKeyEncoding(separator="/"),
            codecs=[BytesCodec(), ZstdCodec(level=0, checksum=False)],
            fill_value=self.numpy_dtype.type(np.nan if floats else 0),
            attributes=attributes or None,
            dimension_names=self.dims or None,
        )


@dataclass
class ZarrSchema:
    """Arrays by name at the root of a store; attributes by group, "" for the root."""

    arrays_meta: dict[str, DataArraySpec] = field(default_factory=dict)
    group_attrs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def create_hierarchy(self, store: Any) -> tuple[zarr.Group, dict[str, Any]]:
        """Lay it out in a store, in place of what was there.

        Returns:
            The root group, and the arrays by name.
        """
        import zarr

        root = zarr.open_group(store, mode="w", zarr_format=3)
        root.update_attributes(self.group_attrs.get("", {}))
        wanted = {name: spec.to_metadata() for name, spec in self.arrays_meta.items()}
        made = dict(root.create_hierarchy(wanted, overwrite=True))
        return root, {name: made[name] for name in self.arrays_meta}
