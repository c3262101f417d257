"""A disk that loses power.

What is on disk is what ``fsync`` promised: of a file its content as of its last one, of a directory the names in it.
"""

import os
import random
import stat
import threading
from contextlib import suppress


class Disk:
    """What a power cut would leave of a folder; ``cuts`` are such states, {path: content or None of a directory}."""

    def __init__(self, root, monkeypatch):
        self.root, self.seeded, self.lock = root, random.Random(0), threading.Lock()
        self.contents, self.names, self.kept, self.cuts = {}, {root.stat().st_ino: {}}, [], []
        self.really = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor):
        with self.lock:
            self.cuts += [self.state(0.0), self.state(0.5)]
            self.kept.append(os.dup(descriptor))  # so that its number is not given to another file
            number, here = os.fstat(descriptor).st_ino, f"/proc/self/fd/{descriptor}"
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                self.names[number] = self.listed(here)
            else:
                with open(here, "rb") as file:
                    self.contents[number] = file.read()
        self.really(descriptor)

    @staticmethod
    def listed(folder):
        with os.scandir(folder) as entries:
            return {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries}

    def seen(self):
        """Names by folder and content by file, at one moment: other threads move files meanwhile."""
        while True:
            with suppress(FileNotFoundError):
                before, now = self.listings(), {}
                for folder, _, files in os.walk(self.root):
                    for name in files:
                        path = os.path.join(folder, name)
                        with open(path, "rb") as file:
                            now[os.fstat(file.fileno()).st_ino] = file.read()
                if self.listings() == before:
                    return before, now

    def listings(self):
        return {os.stat(folder).st_ino: self.listed(folder) for folder, _, _ in os.walk(self.root)}

    def state(self, luck):
        """A state in which each change that was not promised is on disk with this probability."""
        listings, now = self.seen()
        state = {}

        def lucky():
            return self.seeded.random() < luck

        def content(number):
            promised = self.contents.get(number, b"")
            latest = now.get(number, promised)  # of a file that lost its name what was promised
            if latest.startswith(promised):  # appended since: any part of it
                return latest[: self.seeded.randint(len(promised), len(latest))] if lucky() else promised
            return latest if lucky() else promised

        def walk(number, at):
            promised, latest = self.names.get(number, {}), listings.get(number, {})
            for name in sorted(promised.keys() | latest.keys()):
                entry = (latest if number in listings and lucky() else promised).get(name)
                if entry is not None:
                    state[f"{at}{name}"] = None if entry[1] else content(entry[0])
                    if entry[1]:
                        walk(entry[0], f"{at}{name}/")

        walk(self.root.stat().st_ino, "")
        return state

    def close(self):
        for descriptor in self.kept:
            os.close(descriptor)


def restore(state, folder):
    folder.mkdir(parents=True)
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
