# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Snapshots on disk: what belongs to one, whether it is all there, and whether it is right.

A snapshot is the folder ``dest/<commit>/``. It appears by a rename when every file in it has
been checked, and its files are never changed: a damaged one is replaced as a whole. Its
manifest ``.snapshot.json`` says what it holds. Nothing here talks to the Hub.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, NamedTuple, TypedDict, cast

if TYPE_CHECKING:
    from _hashlib import HASH

MANIFEST = ".snapshot.json"
# What is on its way, in dest: see _staging.py.
STAGING = ".incomplete"
COMMIT = re.compile(r"[0-9a-f]{40}\Z")
# A snapshot; one that was being taken away; what version 0.1.0 left beside one when it was killed.
_PART = re.compile(r"([0-9a-f]{40})(?:\.old)?\Z|\.([0-9a-f]{40})\.(?:removed|incomplete|lock)\Z")
BUFFER = 256 * 1024


class HubFile(NamedTuple):
    """A file of a commit, as the Hub lists it.

    path: relative, with slashes. size: bytes. sha256: of the content, for LFS files. blob_id: git's id of the content,
    for the others (the Hub gives no sha256 for these).
    """

    path: str
    size: int
    sha256: str | None
    blob_id: str | None


class Manifest(TypedDict):
    """What a snapshot holds and how it was checked; left_out: files of the commit that are not in it."""

    repo_id: str
    repo_type: str
    commit: str
    endpoint: str
    verified: str
    verified_at: str
    completed_at: str
    files: list[HubFile]
    left_out: list[HubFile]


class SnapshotError(Exception):
    """One sentence that says what is wrong and what to do."""


def content_id(wanted: HubFile) -> str:
    """Return what tells the content of a HubFile from any other: its sha256, or its git blob id."""
    # The Hub lists one of them, or the file is refused.
    return cast(str, wanted.sha256 or wanted.blob_id)


def new_digest(wanted: HubFile) -> HASH:
    """Return a hashlib object whose hexdigest() after all bytes is content_id(wanted)."""
    if wanted.sha256:
        return hashlib.sha256()
    # git hashes a header before the content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    return hashlib.sha1(b"blob %d\0" % wanted.size, usedforsecurity=False)


def feed(digest: HASH, path: str, count_bytes: Callable[[int], object] | None = None) -> None:
    """Pass a file through a digest; count_bytes is called with the length of each piece."""
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as stream:
        while True:
            length = stream.readinto(buffer)
            if not length:
                return
            digest.update(view[:length])
            if count_bytes:
                count_bytes(length)


def content_error(
    path: str, wanted: HubFile, check: str = "sha256", count_bytes: Callable[[int], object] | None = None
) -> str | None:
    """Return why the file at path is not the one that the Hub lists, or None when it is.

    check: sha256 reads the content (git's own hash for files that are not in LFS), size does not.
    """
    if os.path.islink(path):
        # What it points to is nobody's to keep, and a container that has this folder alone may not even see it.
        return "%s is a symbolic link" % wanted.path
    if not os.path.isfile(path):
        return "%s is missing" % wanted.path
    size = os.path.getsize(path)
    if size != wanted.size:
        return "%s has %d bytes, the Hub lists %d" % (wanted.path, size, wanted.size)
    if check == "size":
        return None
    digest = new_digest(wanted)
    feed(digest, path, count_bytes)
    if digest.hexdigest() != content_id(wanted):
        return "%s has the %s %s, the Hub lists %s" % (
            wanted.path,
            "sha256" if wanted.sha256 else "git blob id",
            digest.hexdigest(),
            content_id(wanted),
        )
    return None


def content_errors(
    paths: Mapping[str, HubFile], check: str = "sha256", count_bytes: Callable[[int], object] | None = None
) -> dict[str, str]:
    """Return {path: why it is wrong} for {path: HubFile}, hashed on all cores."""
    largest_first = sorted(paths, key=lambda path: -paths[path].size)
    # The digests run outside Python's lock, so that threads use all cores.
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        jobs = {path: pool.submit(content_error, path, paths[path], check, count_bytes) for path in largest_first}
        results = {path: job.result() for path, job in jobs.items()}
    return {path: error for path, error in results.items() if error}


def wrong_modes(folder: str, files: Iterable[HubFile]) -> dict[str, int]:
    """Return {path: mode} of files of a snapshot, and of folders on the way to them, that not everybody can read."""
    wanted = {folder: 0o755, os.path.join(folder, MANIFEST): 0o644}
    for f in files:
        wanted[os.path.join(folder, f.path)] = 0o644
        parent = os.path.dirname(f.path)
        while parent:
            wanted[os.path.join(folder, parent)] = 0o755
            parent = os.path.dirname(parent)
    found = {path: mode for path, mode in wanted.items() if os.path.exists(path)}
    return {path: mode for path, mode in found.items() if os.stat(path).st_mode & 0o777 != mode}


def manifest(
    repo_id: str,
    repo_type: str,
    commit: str,
    endpoint: str,
    files: Iterable[HubFile],
    left_out: Iterable[HubFile],
    verified: str,
    now: float,
) -> Manifest:
    """Return the manifest of a snapshot as a dict.

    files, left_out: [HubFile] that it holds, and those of the commit that it does not; with both, what
    other patterns choose is known without asking the Hub. verified: sha256 or size. now: seconds.
    """
    return {
        "repo_id": repo_id,
        "repo_type": repo_type,
        "commit": commit,
        "endpoint": endpoint,
        "verified": verified,
        "verified_at": utc(now),
        "completed_at": utc(now),
        "files": sorted(files),
        "left_out": sorted(left_out),
    }


def utc(seconds: float) -> str:
    """Return a time as ISO 8601: 2026-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def read_manifest(folder: str) -> Manifest | None:
    """Return the manifest of a snapshot, or None when folder has none that says all that is needed."""
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as stream:
            found = json.load(stream)
        for key in ("files", "left_out"):
            found[key] = [HubFile(**entry) for entry in found[key]]
        if any(not isinstance(found[key], str) for key in ("repo_id", "repo_type", "verified", "verified_at")):
            return None
        found.setdefault("completed_at", found["verified_at"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return cast(Manifest, found)


def manifest_text(content: Manifest) -> str:
    """Return a manifest as it stands in its file."""
    entries = {key: [f._asdict() for f in content[key]] for key in ("files", "left_out")}
    return json.dumps({**content, **entries}, indent=2) + "\n"


class Look:
    """The snapshots in dest as of one look: each manifest is read once, and not before somebody wants it."""

    def __init__(self, dest: str) -> None:
        self.dest = dest
        self._manifests: dict[str, Manifest | None] = {}

    def manifest(self, commit: str) -> Manifest | None:
        """Return the manifest of a commit's snapshot, None where there is none."""
        if commit not in self._manifests:
            self._manifests[commit] = read_manifest(os.path.join(self.dest, commit))
        return self._manifests[commit]

    @functools.cached_property
    def commits(self) -> dict[str, str]:
        """{commit: completed_at}, the newest first."""
        found = {}
        for name in os.listdir(self.dest) if os.path.isdir(self.dest) else []:
            folder = os.path.join(self.dest, name)
            # Another run may take it away meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if COMMIT.match(name) and os.path.isdir(folder):
                    notes = self.manifest(name)
                    found[name] = notes["completed_at"] if notes else utc(os.path.getmtime(folder))
        return dict(sorted(found.items(), key=lambda item: (item[1], item[0]), reverse=True))


def orphans(dest: str) -> list[str]:
    """Return the paths of what killed runs have left in dest and nobody will use."""
    names = os.listdir(dest) if os.path.isdir(dest) else []
    return sorted(os.path.join(dest, n) for n in names if _PART.match(n) and not COMMIT.match(n))


def parts(dest: str, commit: str | None = None) -> list[str]:
    """Return the names in dest that belong to the snapshot of commit, or to any snapshot."""
    names = os.listdir(dest) if os.path.isdir(dest) else []
    matches = {name: _PART.match(name) for name in names}
    found = [name for name, match in matches.items() if match and commit in (None, match.group(1) or match.group(2))]
    return sorted(found + [name for name in names if name == STAGING and not commit])


def remove_tree(path: str) -> None:
    """Take a file or folder away; a folder that is a snapshot is no snapshot any more from the first moment on."""
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
        return
    parent, name = os.path.split(path)
    if COMMIT.match(name):
        hidden = os.path.join(parent, ".%s.removed" % name)
        if os.path.isdir(hidden):
            shutil.rmtree(hidden)
        os.rename(path, hidden)
        path = hidden
    shutil.rmtree(path)


def require_space(dest: str, needed: int, min_free: int = 0, spare: int = 0) -> bool:
    """Raise SnapshotError unless the file system of dest has needed bytes free, and min_free more.

    spare: bytes that can be given up. Returns whether they have to be.
    """
    # Of what a symbolic link means, not of where it stands.
    existing = os.path.realpath(dest)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    mount = existing
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    free = shutil.disk_usage(existing).free
    if needed and needed + min_free > free + spare:
        room = " and %s that stay free (min_free)" % _mb(min_free) if min_free else ""
        raise SnapshotError(
            "%s needs %s%s, and %s has %d MB free: free %s there or choose another dest"
            % (dest, _mb(needed), room, mount, (free + spare) // 10**6, _mb(needed + min_free - free - spare))
        )
    return bool(needed and needed + min_free > free)


def _mb(count: int) -> str:
    # Rounded up: who frees so much has enough.
    return "%d MB" % -(-count // 10**6)


@contextlib.contextmanager
def locked(dest: str, when_waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock of dest: two runs never change it at once.

    when_waiting is called when another run holds it. The kernel drops the lock when its
    holder dies, so a file that stays is harmless.
    """
    ours = not os.path.isdir(dest)
    os.makedirs(dest, mode=0o755, exist_ok=True)
    path = os.path.join(dest, ".lock")
    while True:
        try:
            stream = open(path, "a", encoding="utf-8")  # noqa: SIM115
        except FileNotFoundError:
            # The holder before took dest itself away.
            os.makedirs(dest, mode=0o755, exist_ok=True)
            continue
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if when_waiting:
                    when_waiting()
                fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_file(path, stream):
                # The holder before took the file away, and a third run may have locked a new one by now.
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    if ours:
                        # Nothing has come of it.
                        os.rmdir(dest)
            return


def is_held(dest: str) -> bool:
    """Return whether a run holds the lock of dest, without waiting and without a trace."""
    try:
        with open(os.path.join(dest, ".lock"), encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def _is_file(path: str, stream: IO[str]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except OSError:
        return False


def sync(path: str) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
