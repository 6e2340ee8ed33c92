# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a role looks at on a host, as one digest for each thing: equal digests, and nothing of it has changed.

It is only looked at. Standard library alone, since a host is looked at before anything is installed on it.
"""

from __future__ import annotations

import glob
import grp
import hashlib
import http.client
import json
import os
import pwd
import re
import stat
import subprocess
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from typing import Any, NoReturn

from ansible_collections.llmops.vllm.plugins.module_utils import _host

# What Docker tells of itself that somebody has set; the rest of /info changes by itself.
DOCKER_SETTINGS = (
    "ServerVersion",
    "Driver",
    "DockerRootDir",
    "LiveRestoreEnabled",
    "CgroupDriver",
    "LoggingDriver",
    "Runtimes",
    "DefaultRuntime",
    "RegistryConfig",
    "CDISpecDirs",
    "SecurityOptions",
    "HttpProxy",
    "HttpsProxy",
    "NoProxy",
)
# What there is to look at, and how a person calls one of it.
KINDS = {
    "files": "%s",
    "stats": "%s",
    "folders": "the folder %s",
    "trees": "what is in %s",
    "packages": "the package %s",
    "units": "the unit %s",
    "accounts": "the account %s",
    "groups": "the group %s",
    "docker": "what Docker says of its %s",
    "images": "the image %s",
    "containers": "the container %s",
}
_RPM = ("var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/Packages")
_UNIT_PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")
# Compiled when a module is first used.
_NOT_OF_A_TREE = ("__pycache__",)


class CannotTell(Exception):
    """What a thing is cannot be told now; then it counts as changed."""


class Observer:
    """Looks at things of this host. docker_get: returns what Docker's API answers, None for nothing of that name."""

    def __init__(self, root: str, docker_get: Callable[[str], Any]) -> None:
        self.host = _host.Host(root)
        self.docker_get = docker_get
        self._installed: list[list[str]] | None = None

    def observe(self, what: Mapping[str, Iterable[str]]) -> dict[str, str]:
        """Return {thing: digest} of {kind: [names]}; the digest of what cannot be told is ''."""
        found = {}
        for kind, names in sorted(what.items()):
            for name in names:
                thing = KINDS[kind] % name
                try:
                    found[thing] = digest(getattr(self, "_" + kind)(name))
                except (CannotTell, OSError, LookupError, TypeError, ValueError, subprocess.SubprocessError):
                    found[thing] = ""
        return found

    def _matches(self, pattern: str) -> list[str]:
        place = os.path.join(glob.escape(self.host.root), pattern.lstrip("/"))
        return sorted(path for path in glob.glob(place) if os.path.lexists(path))

    def _files(self, pattern: str) -> list[list[Any]]:
        """Content, mode and owner of files."""
        return [
            _entry(path, path) + [_content(path) if os.path.isfile(path) else None] for path in self._matches(pattern)
        ]

    def _stats(self, pattern: str) -> list[list[Any]]:
        """Size and time of files that would take long to read."""
        return [_entry(path, path, times=True) for path in self._matches(pattern)]

    def _folders(self, path: str) -> list[Any] | None:
        """Mode and owner of a folder, or of anything else; null where there is none."""
        path = self.host.path(path)
        return _entry(path, path) if os.path.lexists(path) else None

    def _trees(self, path: str) -> list[list[Any]] | None:
        """All that is in a folder: names, modes, owners, and of files sizes and times."""
        top = self.host.path(path)
        if not os.path.lexists(top):
            return None
        found = [_entry(top, "")]
        if not os.path.isdir(top):
            return found
        for place, folders, names in os.walk(top, onerror=_raise):
            folders[:] = sorted(name for name in folders if name not in _NOT_OF_A_TREE)
            for name in folders + sorted(names):
                inner = os.path.join(place, name)
                found.append(_entry(inner, os.path.relpath(inner, top), times=not os.path.isdir(inner)))
        return found

    def _packages(self, pattern: str) -> list[list[Any]]:
        """Name, state and version of packages; where only rpm could tell, when its database was changed last."""
        if self._installed is None:
            self._installed = _dpkg(self.host.read("var/lib/dpkg/status"))
        if self._installed:
            return sorted(entry for entry in self._installed if fnmatch(entry[0], pattern))
        for name in _RPM:
            path = self.host.path(name)
            if os.path.exists(path):
                return [
                    [near, os.stat(near).st_size, os.stat(near).st_mtime_ns]
                    for near in (path, path + "-wal")
                    if os.path.exists(near)
                ]
        raise CannotTell("no database of packages")

    def _units(self, name: str) -> str | list[str]:
        if not os.path.isdir(self.host.path("run/systemd/system")):
            return "no systemd"
        shown = subprocess.run(
            ["systemctl", "show", "--property", ",".join(_UNIT_PROPERTIES), "--", name],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
        return sorted(shown.splitlines())

    def _accounts(self, name: str) -> list[Any] | None:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return [entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell]

    def _groups(self, name: str) -> list[Any] | None:
        try:
            entry = grp.getgrnam(name)
        except KeyError:
            return None
        return [entry.gr_gid, sorted(entry.gr_mem)]

    def _docker(self, name: str) -> dict[str, Any]:
        if name != "settings":
            raise CannotTell(name)
        info = self._ask("/info", needed=True)
        # Docker's own are told after a start, and not after a reload.
        runtimes = {
            key: value for key, value in (info.get("Runtimes") or {}).items() if not key.startswith("io.containerd.")
        }
        return {key: runtimes if key == "Runtimes" else info.get(key) for key in DOCKER_SETTINGS}

    def _images(self, name: str) -> list[Any] | None:
        if name == "*":
            return sorted(
                [image["Id"], sorted(image.get("RepoTags") or ())] for image in self._ask("/images/json", needed=True)
            )
        found = self._ask("/images/%s/json" % urllib.parse.quote(name, safe="/:@"))
        return found and [found["Id"], sorted(found.get("RepoTags") or ()), sorted(found.get("RepoDigests") or ())]

    def _containers(self, name: str) -> list[Any] | None:
        if name == "*":
            return sorted(
                [each["Id"], each["ImageID"], each["State"], _host.our_labels(each.get("Labels"))]
                for each in self._ask("/containers/json?all=1", needed=True)
            )
        found = self._ask("/containers/%s/json" % urllib.parse.quote(name, safe=""))
        return found and [
            found["Id"],
            found["Image"],
            # When it was started is none of it: Docker itself starts it again, after a restart of the host.
            bool(found["State"]["Running"]),
            found["HostConfig"]["RestartPolicy"]["Name"],
            _host.our_labels(found["Config"].get("Labels")),
        ]

    def _ask(self, address: str, needed: bool = False) -> Any:
        try:
            answer = self.docker_get(address)
        except http.client.HTTPException as error:
            raise CannotTell(str(error)) from error
        if needed and answer is None:
            raise CannotTell(address)
        return answer


def digest(value: object) -> str:
    """Return a digest of what JSON can say; equal values have equal ones."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _entry(path: str, name: str, times: bool = False) -> list[Any]:
    found = os.lstat(path)
    entry = [name, found.st_mode, found.st_uid, found.st_gid]
    if stat.S_ISLNK(found.st_mode):
        # One that leads nowhere has not changed itself.
        return entry + [os.readlink(path), os.path.exists(path)]
    return entry + ([found.st_size, found.st_mtime_ns] if times else [])


def _content(path: str) -> str:
    hashed = hashlib.sha256()
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            hashed.update(piece)
    return hashed.hexdigest()


def _dpkg(status: str) -> list[list[str]]:
    """Return [name, state, version] of each package that dpkg knows."""
    stanzas = re.split(r"\n\n+", status)
    fields = [dict(re.findall(r"^(Package|Status|Version): (.*)$", stanza, re.MULTILINE)) for stanza in stanzas]
    return [[each["Package"], each.get("Status", ""), each.get("Version", "")] for each in fields if "Package" in each]


def _raise(error: OSError) -> NoReturn:
    raise error
