"""Zarr's files on disk, each there whole or not at all: after a kill, a full disk or a power cut."""

from __future__ import annotations

import asyncio
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from sltfast.results.durable import PARTIAL, sync_directory, write_atomically


class WholeFiles(LocalStore):
    """Zarr's local store, whose content is on disk before it gets its name; names are after ``settle``.

    Args:
        root: the store's directory.
        aside: a directory of the same file system, where what is not yet whole is written: readers never see it.
    """

    def __init__(self, root: Path, aside: Path) -> None:
        super().__init__(root)
        self._aside = aside
        self._touched: set[Path] = set()

    async def set(self, key: str, value: Buffer) -> None:
        """Write one file."""
        self._check_writable()
        path = Path(self.root) / key
        partial = self._aside / (key.replace("/", ".") + PARTIAL)
        await asyncio.to_thread(self._write, path, partial, value.to_bytes())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write one file where none is."""
        if not await self.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Remove one file, or a directory."""
        self._touched.add((Path(self.root) / key).parent)
        await super().delete(key)

    def _write(self, path: Path, partial: Path, content: bytes) -> None:
        self._touched.add(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, named=False, partial=partial)

    def settle(self) -> None:
        """Every name written so far is on disk when this returns."""
        root = Path(self.root)
        touched, self._touched = self._touched, set()
        above = {parent for path in touched for parent in path.parents if parent.is_relative_to(root)}
        for directory in sorted(touched | above, key=lambda path: -len(path.parts)):
            if directory.exists():
                sync_directory(directory)
