# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What is on its way to a snapshot: ``dest/.incomplete/``, which outlives its process.

Contents are kept under their checksum, not their path, so that a killed run, another commit
and a second copy in the repository all find what is there. They go with the snapshot that they
became part of; those of another commit wait for the run that wants it.

    <id>          whole, checked by this run, and synced (<id>.unchecked: only its size was looked at)
    <id>.part     the first bytes of it
    <id>.synced   how many of these bytes are on the disk for sure
    boot_id       the boot of the machine in which all this was written
    tree/         the snapshot that is being put together
    xet/          what the Hub's client is bringing; no other process can go on with it
    new*          files that are about to get their names
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ansible_collections.llmops.vllm.plugins.module_utils import _snapshot
from ansible_collections.llmops.vllm.plugins.module_utils._meter import folder_bytes

if TYPE_CHECKING:
    from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile, Manifest

# What file systems say that cannot link, or not here or not once more.
NO_LINK = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_CONTENT = re.compile(r"([0-9a-f]{40,64})(\.part|\.unchecked|\.synced)?\Z")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Staging:
    """The folder of contents below dest. Only who holds the lock of dest may change it.

    check: sha256 or size; how contents are checked before they get here.
    """

    def __init__(self, dest: str, check: str = "sha256") -> None:
        self.dest = dest
        self.check = check
        self.path = os.path.join(dest, _snapshot.STAGING)

    def open(self) -> None:
        """Make the folder, or take over what an earlier run left in it."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        self._clear()
        boot_id, notes = _read(BOOT_ID), os.path.join(self.path, "boot_id")
        if _read(notes) != boot_id:
            # Bytes that were written, but not synced, before the machine went down may be anything.
            for name in os.listdir(self.path):
                content, suffix = os.path.splitext(name)
                if suffix == ".part":
                    path = os.path.join(self.path, name)
                    os.truncate(path, min(self._synced(content), os.path.getsize(path)))
            self._write(notes, boot_id)
        for name in os.listdir(self.path):
            match = _CONTENT.match(name)
            if match and match.group(2) in (None, ".unchecked"):
                self._doubt(os.path.join(self.path, name), match.group(1))

    def contents(self) -> dict[str, list[str]]:
        """Return {id: [its paths here]} of the contents that runs have left; {} where there are none."""
        found: dict[str, list[str]] = {}
        for name in os.listdir(self.path) if os.path.isdir(self.path) else []:
            content = _CONTENT.match(name)
            if content:
                found.setdefault(content.group(1), []).append(os.path.join(self.path, name))
        return found

    def idle_bytes(self, wanted: Iterable[HubFile]) -> int:
        """Return how many bytes become free when the contents go that are none of wanted."""
        total = folder_bytes(os.path.join(self.path, "xet"))
        for path in self._idle(wanted):
            stat = os.stat(path)
            total += stat.st_size if stat.st_nlink == 1 else 0
        return total

    def drop_idle(self, wanted: Iterable[HubFile]) -> None:
        """Take away the contents that are none of wanted."""
        for path in self._idle(wanted):
            os.unlink(path)

    def whole(self, wanted: HubFile) -> str:
        """Return the path of a content that is whole, and checked as it has to be."""
        return self._path(wanted) + ("" if self.check == "sha256" else ".unchecked")

    def part(self, wanted: HubFile) -> str:
        """Return the path of the first bytes of a content."""
        return self._path(wanted) + ".part"

    def held_bytes(self, wanted: HubFile) -> int:
        """Return how many bytes of a content are here."""
        for path in (self.whole(wanted), self.part(wanted)):
            with contextlib.suppress(OSError):
                return min(os.path.getsize(path), wanted.size)
        return 0

    def sync_part(self, wanted: HubFile, length: int) -> None:
        """Bring the first length bytes of a part to the disk, and note it."""
        _snapshot.sync(self.part(wanted))
        self._write(self._path(wanted) + ".synced", str(length))

    def accept(self, wanted: HubFile) -> None:
        """Turn a part that was checked into a whole content."""
        part = self.part(wanted)
        os.chmod(part, 0o644)
        _snapshot.sync(part)
        os.replace(part, self.whole(wanted))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(wanted) + ".synced")

    def reject(self, wanted: HubFile) -> None:
        """Forget a part."""
        for path in (self.part(wanted), self._path(wanted) + ".synced"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def publish(self, folder: str, files: Collection[HubFile], manifest: Manifest) -> None:
        """Put contents that are all here under their paths into a snapshot.

        A new snapshot appears at once. In one that is there, files are replaced one by one: a
        running container keeps the folder that it was started with.
        """
        exists = os.path.isdir(folder)
        notes = _snapshot.read_manifest(folder) if exists else None
        if notes and notes["verified"] != manifest["verified"] == "size":
            # Before the first file: a run that is killed on the way must not leave it under a checked one's name.
            self.note(folder, {**notes, "verified": "size"})
        target = folder if exists else os.path.join(self.path, "tree")
        if not exists:
            os.makedirs(target, exist_ok=True)
            # It says whose contents these are, should they be found there.
            self.note(target, manifest)
        uses = collections.Counter(map(_snapshot.content_id, files))
        for wanted in files:
            path = os.path.join(target, wanted.path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            uses[_snapshot.content_id(wanted)] -= 1
            os.replace(self._second_name(self.whole(wanted), not uses[_snapshot.content_id(wanted)]), path)
            os.chmod(path, 0o644)
        folders = {target}
        for wanted in files:
            path = os.path.dirname(wanted.path)
            while path:
                folders.add(os.path.join(target, path))
                path = os.path.dirname(path)
        for path in folders:
            os.chmod(path, 0o755)
            _snapshot.sync(path)
        if exists:
            self.note(folder, manifest)
        else:
            os.rename(target, folder)
        _snapshot.sync(self.dest)

    def note(self, folder: str, manifest: Manifest) -> None:
        """Put a manifest into a snapshot's folder."""
        self._write(os.path.join(folder, _snapshot.MANIFEST), _snapshot.manifest_text(manifest))
        _snapshot.sync(folder)

    def link(self, source: str, wanted: HubFile) -> None:
        """Take over a checked content from another snapshot."""
        os.replace(self._second_name(source), self.whole(wanted))
        self.reject(wanted)

    def close(self, done: Iterable[HubFile] = (), prune: bool = False) -> None:
        """End the work. done: [HubFile] of a snapshot that is complete now; their contents go, with prune all others.

        What stays is for the run that wants it. When that is nothing, the folder goes.
        """
        self._clear()
        gone = set(map(_snapshot.content_id, done))
        stay = 0
        for content, paths in self.contents().items():
            if prune or content in gone:
                for path in paths:
                    os.unlink(path)
            else:
                stay += sum(os.path.getsize(path) for path in paths if not path.endswith(".synced"))
        if not stay:
            shutil.rmtree(self.path)

    def _clear(self) -> None:
        """Take away what is of no use to another run."""
        # A name too many of a content would make it look like another snapshot's.
        for name in os.listdir(self.path):
            if name.startswith("new"):
                os.unlink(os.path.join(self.path, name))
        tree = os.path.join(self.path, "tree")
        notes = _snapshot.read_manifest(tree)
        for wanted in notes["files"] if notes else []:
            path = os.path.join(tree, wanted.path)
            if os.path.isfile(path):
                # Where there are no second names, it may be the only one.
                self._doubt(path, _snapshot.content_id(wanted))
        for path in (tree, os.path.join(self.path, "xet")):
            shutil.rmtree(path, ignore_errors=True)

    def _idle(self, wanted: Iterable[HubFile]) -> list[str]:
        used = set(map(_snapshot.content_id, wanted))
        return [path for content, paths in self.contents().items() if content not in used for path in paths]

    def _path(self, wanted: HubFile) -> str:
        return os.path.join(self.path, _snapshot.content_id(wanted))

    def _doubt(self, path: str, content: str) -> None:
        """Make a whole content of an earlier run a part, which is read again before it counts."""
        if os.stat(path).st_nlink > 1:
            # Another snapshot's file, which nobody may write to. It can be linked again.
            os.unlink(path)
            return
        self._write(os.path.join(self.path, content + ".synced"), str(os.path.getsize(path)))
        os.replace(path, os.path.join(self.path, content + ".part"))

    def _synced(self, content: str) -> int:
        try:
            return int(_read(os.path.join(self.path, content + ".synced")))
        except ValueError:
            return 0

    def can_link(self, source: str | None = None) -> bool:
        """Return whether a file, by default one of this folder, can have a second name here."""
        new = os.path.join(self.path, "new")
        try:
            os.link(source or os.path.join(self.path, "boot_id"), new)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            return False
        os.unlink(new)
        return True

    def _second_name(self, source: str, last: bool = False) -> str:
        """Give a file a second name, and return it. Where the file system knows none, that is a copy.

        last: nobody needs the first name any more, so that it can do instead of a copy.
        """
        new = os.path.join(self.path, "new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        try:
            os.link(source, new)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            if last:
                return source
            shutil.copyfile(source, new)
            os.chmod(new, 0o644)
            _snapshot.sync(new)
        return new

    def _write(self, path: str, text: str) -> None:
        """Write a small file as a whole, synced."""
        new = os.path.join(self.path, "new-%s" % threading.get_ident())
        with open(new, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        os.replace(new, path)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""
