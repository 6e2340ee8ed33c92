# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Snapshots on disk: what belongs to one, whether it is all there, and whether it is right.

A snapshot is the folder ``dest/<commit>/``. It appears by a rename when every file in it has
been checked, and is never changed afterwards. Its manifest ``.snapshot.json`` says what it
holds. Nothing here talks to the Hub.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections import namedtuple

MANIFEST = ".snapshot.json"
COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_PART = re.compile(r"\.?([0-9a-f]{40})(?:\.incomplete|\.lock|\.old)?\Z")
CHUNK = 4 * 1024 * 1024

# path: relative, with slashes. size: bytes. sha256: of the content, for LFS files.
# blob_id: git's id of the content, for the others (the Hub gives no sha256 for these).
HubFile = namedtuple("HubFile", "path size sha256 blob_id")


class SnapshotError(Exception):
    """One sentence that says what is wrong and what to do."""


def content_error(folder, wanted):
    """Return why a file is not the one that the Hub lists, or None when it is.

    folder: the snapshot's folder. wanted: a HubFile.
    """
    path = os.path.join(folder, wanted.path)
    try:
        size = os.path.getsize(path)
    except OSError:
        return "%s is missing" % wanted.path
    if size != wanted.size:
        return "%s has %d bytes, the Hub lists %d" % (wanted.path, size, wanted.size)
    if wanted.sha256:
        kind, digest, expected = "sha256", hashlib.sha256(), wanted.sha256
    else:
        # git hashes a header before the content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        kind, digest, expected = "git blob id", hashlib.sha1(b"blob %d\0" % size), wanted.blob_id
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        return "%s has the %s %s, the Hub lists %s" % (wanted.path, kind, digest.hexdigest(), expected)
    return None


def is_part(name, commit=None):
    """Return whether an entry of dest belongs to the snapshot of commit, or to any snapshot.

    That is its folder, or what a killed run leaves beside it.
    """
    match = _PART.match(name)
    return bool(match) and commit in (None, match.group(1))


def selection(allow_patterns=None, ignore_patterns=None):
    """Return what patterns choose, as a manifest says it. Without patterns: all files."""
    return {"allow_patterns": sorted(allow_patterns or []), "ignore_patterns": sorted(ignore_patterns or [])}


def holds(manifest, wanted):
    """Return whether a manifest says that its snapshot has all files of a selection."""
    return wanted in manifest["selections"] or selection() in manifest["selections"]


def make_manifest(repo_id, commit, endpoint, files, selections, verified_at):
    """Return the manifest of a verified snapshot as a dict.

    selections: those that it holds; without them nobody could tell a part from the whole.
    verified_at: ISO 8601, UTC.
    """
    return {
        "repo_id": repo_id,
        "commit": commit,
        "endpoint": endpoint,
        "verified": "sha256",
        "verified_at": verified_at,
        "selections": selections,
        "files": [wanted._asdict() for wanted in sorted(files)],
    }


def read_manifest(folder):
    """Return the manifest of a complete snapshot, or None when folder holds none."""
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as stream:
            manifest = json.load(stream)
        manifest["files"] = [HubFile(**entry) for entry in manifest["files"]]
        manifest["selections"] = list(manifest["selections"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return manifest


def missing_files(folder, files):
    """Return those of files that are not in folder with their size (content is not read)."""
    missing = []
    for wanted in files:
        try:
            found = os.path.getsize(os.path.join(folder, wanted.path)) == wanted.size
        except OSError:
            found = False
        if not found:
            missing.append(wanted)
    return missing


def mount_of(path):
    """Return (existing ancestor of path, its mount point)."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    mount = path
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    return path, mount


def require_space(dest, needed):
    """Raise SnapshotError unless the file system of dest has needed bytes free."""
    existing, mount = mount_of(dest)
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise SnapshotError(
            "%s needs %d MB and %s has %d MB free: free %d MB there or choose another dest"
            % (dest, needed // 10**6 + 1, mount, free // 10**6, (needed - free) // 10**6 + 1)
        )


@contextlib.contextmanager
def locked(dest, commit):
    """Hold the lock of one commit in dest: two runs never build the same folder at once.

    The kernel drops the lock when its holder dies, so the file that stays is harmless.
    """
    os.makedirs(dest, mode=0o755, exist_ok=True)
    path = os.path.join(dest, ".%s.lock" % commit)
    while True:
        with open(path, "a", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_file(path, stream):
                # The holder before took the file away, and a third run may have locked a new one by now.
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return


def _is_file(path, stream):
    try:
        return os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except OSError:
        return False


def seed(staging, folder, files):
    """Hard-link into staging those of files that an earlier folder of the same commit holds."""
    for wanted in files:
        source = os.path.join(folder, wanted.path)
        target = os.path.join(staging, wanted.path)
        if os.path.isfile(source) and not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(source, target)


def publish(staging, folder, manifest):
    """Turn a staging folder whose files were all checked into the snapshot.

    Leaves exactly the manifest's files, readable for all, synced to disk before the rename.
    """
    keep = {wanted["path"] for wanted in manifest["files"]}
    for root, dirs, names in os.walk(staging, topdown=False):
        for name in names:
            path = os.path.join(root, name)
            if os.path.relpath(path, staging) in keep:
                os.chmod(path, 0o644)
                _sync(path)
            else:
                os.unlink(path)
        for name in dirs:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(root, name))
        if os.path.isdir(root):
            os.chmod(root, 0o755)
    path = os.path.join(staging, MANIFEST)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=2)
        stream.write("\n")
    os.chmod(path, 0o644)
    _sync(path)
    old = folder + ".old"
    shutil.rmtree(old, ignore_errors=True)
    if os.path.exists(folder):
        os.rename(folder, old)
    os.rename(staging, folder)
    _sync(os.path.dirname(folder))
    shutil.rmtree(old, ignore_errors=True)


def _sync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def folder_bytes(folder):
    """Return the bytes of all files below folder, partial downloads included."""
    total = 0
    for root, dummy, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.path.getsize(os.path.join(root, name))
    return total
