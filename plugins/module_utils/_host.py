# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a host is and has: system, memory, file systems, ports, and its Docker. It is only looked at.

Standard library alone: a host is looked at before anything is installed on it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import socket
import struct
import time
import urllib.parse
from collections.abc import Container, Iterable, Iterator
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _dockerd, _reach

# What the kernel calls file systems that are elsewhere. FUSE has both; fuseblk is a local disk.
NETWORK_TYPES = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|ceph|lustre|glusterfs|beegfs|gpfs|afs|9p|ocfs2|gfs2|fuse\..+|fuse"
)
# Where programs are that the PATH of a module may lack.
_TOOL_FOLDERS = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "bin", "sbin", "snap/bin")
_LISTENS = "0A"
_CONTAINER = re.compile(r"[0-9a-f]{64}")
# What an image says of the driver that it needs.
_IMAGE_VARIABLES = re.compile(r"(CUDA_VERSION|NVIDIA_REQUIRE_\w+|NVIDIA_DISABLE_REQUIRE)=(.*)", re.DOTALL)
OUR_LABELS = "llmops.vllm."
# Those that do not run as well.
_OURS = urllib.parse.urlencode({"all": 1, "filters": json.dumps({"label": ["llmops.vllm.deployment"]})})
# With Docker 29 and newer, images are containerd's by default.
_SNAPSHOTTER = "io.containerd.snapshotter.v1"
_CONTAINERD_ROOT = "/var/lib/containerd"


class Host:
    """This host. root: where its files begin."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def path(self, name: str) -> str:
        return os.path.join(self.root, name.lstrip("/"))

    def read(self, name: str) -> str:
        """Return the text of a file, or '' where it cannot be read."""
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError:
            return ""

    def has_tool(self, name: str) -> bool:
        return any(os.access(self.path(os.path.join(folder, name)), os.X_OK) for folder in _TOOL_FOLDERS)

    def system(self) -> dict[str, Any]:
        release = dict(_assignments(self.read("etc/os-release") or self.read("usr/lib/os-release")))
        kernel = os.uname()
        # As systemd itself says that one should look for it.
        manager = "systemd" if os.path.isdir(self.path("run/systemd/system")) else self.read("proc/1/comm").strip()
        return {
            "platform": kernel.sysname,
            "id": release.get("ID", ""),
            "id_like": release.get("ID_LIKE", "").split(),
            "version_id": release.get("VERSION_ID", ""),
            "name": release.get("PRETTY_NAME", "") or release.get("NAME", ""),
            "kernel": kernel.release,
            "architecture": kernel.machine,
            "service_manager": manager if manager in ("systemd", "init", "openrc-init", "runit", "s6-svscan") else "",
        }

    def memory(self) -> dict[str, int]:
        sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", self.read("proc/meminfo"), re.MULTILINE))
        return {
            "total": int(sizes.get("MemTotal", 0)) * 1024,
            "available": int(sizes.get("MemAvailable", 0)) * 1024,
        }

    def shm(self) -> dict[str, int]:
        try:
            found = os.statvfs(self.path("dev/shm"))
        except OSError:
            return {"total": 0, "free": 0}
        return {"total": found.f_blocks * found.f_frsize, "free": found.f_bavail * found.f_frsize}

    def addresses(self) -> list[str]:
        """Return the IPv4 addresses that the host has."""
        table = self.read("proc/net/fib_trie").partition("Local:")[2] or self.read("proc/net/fib_trie")
        found = re.findall(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL", table)
        return sorted(set(found), key=lambda text: tuple(map(int, text.split("."))))

    def filesystem(self, path: str) -> dict[str, Any]:
        """Return what is known of the file system that a path is on, or will be on once it is made."""
        there = os.path.realpath(self.path(path))
        exists = os.path.exists(there)
        while not os.path.exists(there):
            there = os.path.dirname(there)
        mount = self._mount(os.path.join("/", os.path.relpath(there, os.path.realpath(self.root))))
        found = os.statvfs(there)
        return {
            "path": path,
            "exists": exists,
            "mount": mount["mount"],
            "device": mount["device"],
            "type": mount["type"],
            "total": found.f_blocks * found.f_frsize,
            # As df tells it: what a file system keeps back for root is no room for images.
            "free": found.f_bavail * found.f_frsize,
            "read_only": mount["read_only"],
            "network": bool(NETWORK_TYPES.fullmatch(mount["type"])),
        }

    def _mount(self, path: str) -> dict[str, Any]:
        best: dict[str, Any] = {"mount": "/", "device": "", "type": "", "read_only": False}
        for line in self.read("proc/self/mountinfo").splitlines():
            words = line.split(" ")
            if "-" not in words[6:] or len(words) < 10:
                continue
            tail = words[words.index("-", 6) + 1 :]
            mount = _unescaped(words[4])
            inside = mount == "/" or path == mount or path.startswith(mount + "/")
            # Of two at the same place the later one lies on top.
            if inside and len(mount) >= len(best["mount"]):
                options = words[5].split(",") + tail[2].split(",")
                # A bind mount is on the file system of its source: they share what is free.
                device = _unescaped(tail[1]) if tail[1].startswith("/") else words[2]
                best = {"mount": mount, "device": device, "type": tail[0], "read_only": "ro" in options}
        return best

    def listeners(self, ports: Container[int]) -> dict[int, dict[str, Any]]:
        """Return {port: {addresses, pid, process, container}} of those of ports that something listens on.

        container: ID of the container that the process is in, or ''.
        """
        found: dict[int, dict[str, Any]] = {}
        inodes: dict[str, int] = {}
        for name, size in (("proc/net/tcp", 4), ("proc/net/tcp6", 16)):
            for line in self.read(name).splitlines()[1:]:
                words = line.split()
                if len(words) < 10 or words[3] != _LISTENS:
                    continue
                address, dummy, port = words[1].partition(":")
                number = int(port, 16)
                if number in ports:
                    entry = found.setdefault(number, {"addresses": [], "pid": 0, "process": "", "container": ""})
                    entry["addresses"].append(_address(address, size))
                    inodes[words[9]] = number
        for pid, inode in self._sockets() if inodes else ():
            holds = inodes.get(inode)
            if holds and not found[holds]["pid"]:
                container = _CONTAINER.search(self.read("proc/%d/cgroup" % pid))
                found[holds].update(
                    pid=pid,
                    process=self.read("proc/%d/comm" % pid).strip(),
                    container=container.group(0) if container else "",
                )
        return found

    def _sockets(self) -> Iterator[tuple[int, str]]:
        """Return (pid, inode) of each socket that a process holds."""
        for name in sorted(filter(str.isdigit, os.listdir(self.path("proc"))), key=int):
            folder = self.path("proc/%s/fd" % name)
            # A process may end meanwhile, and be another user's.
            with contextlib.suppress(OSError):
                for handle in os.listdir(folder):
                    with contextlib.suppress(OSError):
                        target = os.readlink(os.path.join(folder, handle))
                        if target.startswith("socket:["):
                            yield int(name), target[len("socket:[") : -1]


class Docker:
    """Docker on this host, by its API."""

    def __init__(self, host: Host, socket_path: str, timeout: float) -> None:
        self.host, self.socket_path, self.timeout = host, socket_path, timeout

    def look(self, images: Iterable[str]) -> dict[str, Any]:
        """Return what is known of it, and of the images of these names."""
        result = {
            "installed": self.host.has_tool("dockerd"),
            "answers": False,
            "error": "",
            "version": "",
            "api_version": "",
            "storage_driver": "",
            "root_dir": self._configured_root(),
            "live_restore": False,
            "cgroup_driver": "",
            "runtimes": [],
            "default_runtime": "",
            "cdi_spec_dirs": [],
            "registry_mirrors": [],
            "insecure_registries": [],
            "proxies": False,
            "security_options": [],
            "rootless": False,
            "images": {},
            "containers": [],
            "deployments": [],
        }
        result["image_dir"] = result["root_dir"]
        try:
            info = self.get("/info")
            version = self.get("/version")
            images_found = {name: found for name, found in ((name, self._image(name)) for name in images) if found}
            containers = self.get("/containers/json")
            ours = self.get("/containers/json?" + _OURS) or []
            deployments = [self.get("/containers/%s/json" % entry["Id"]) for entry in ours]
        except (OSError, ValueError, http.client.HTTPException) as error:
            result["error"] = _first_line(error)
            return result
        registries = info.get("RegistryConfig") or {}
        security = info.get("SecurityOptions") or []
        known = registries.get("IndexConfigs") or {}
        result.update(
            # Something that answers is there, wherever it is installed.
            installed=True,
            answers=True,
            version=version.get("Version") or "",
            api_version=version.get("ApiVersion") or "",
            storage_driver=info.get("Driver") or "",
            root_dir=info.get("DockerRootDir") or result["root_dir"],
            live_restore=bool(info.get("LiveRestoreEnabled")),
            cgroup_driver=info.get("CgroupDriver") or "",
            runtimes=sorted(info.get("Runtimes") or {}),
            default_runtime=info.get("DefaultRuntime") or "",
            cdi_spec_dirs=info.get("CDISpecDirs") or [],
            registry_mirrors=[_reach.without_credentials(url) for url in registries.get("Mirrors") or []],
            insecure_registries=sorted(name for name, index in known.items() if not index.get("Secure", True)),
            # Their addresses may hold a password.
            proxies=bool(info.get("HttpProxy") or info.get("HttpsProxy")),
            security_options=security,
            rootless="name=rootless" in security,
            images=images_found,
            containers=[_container(entry) for entry in containers],
            # One may go between the two looks.
            deployments=[_deployment(attrs) for attrs in deployments if attrs],
        )
        contained = any(_SNAPSHOTTER in pair for pair in info.get("DriverStatus") or [])
        result["image_dir"] = _CONTAINERD_ROOT if contained else result["root_dir"]
        return result

    def get(self, address: str) -> Any:
        """Return what the API answers, or None for nothing of that name."""
        connection = _dockerd.UnixConnection(self.socket_path, self.timeout)
        try:
            connection.request("GET", address)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status == 404:
            return None
        if response.status != 200:
            raise ValueError("HTTP status %d" % response.status)
        return json.loads(body.decode("utf-8"))

    def _image(self, name: str) -> dict[str, Any] | None:
        attrs = self.get("/images/%s/json" % urllib.parse.quote(name, safe="/:@"))
        if not attrs:
            return None
        settings = map(_IMAGE_VARIABLES.fullmatch, (attrs.get("Config") or {}).get("Env") or ())
        return {
            "id": attrs["Id"],
            "size": attrs.get("Size", 0),
            "environment": {match.group(1): match.group(2) for match in settings if match},
        }

    def _configured_root(self) -> str:
        try:
            settings = json.loads(self.host.read("etc/docker/daemon.json") or "{}")
            return settings.get("data-root") or "/var/lib/docker"
        except (ValueError, AttributeError):
            return "/var/lib/docker"


def holders(
    listeners: dict[int, dict[str, Any]], containers: list[dict[str, Any]], ports: Container[int]
) -> dict[str, dict[str, Any]]:
    """Return {port as text: {addresses, pid, process, container}}: what holds the ports, containers by their names.

    A port that Docker publishes has a process of Docker behind it or, without the userland proxy, none at all.
    """
    names = {entry["id"]: entry["name"] for entry in containers}
    held = {
        port: dict(entry, container=names.get(entry["container"], entry["container"][:12]))
        for port, entry in listeners.items()
    }
    for entry in containers:
        for published in entry["ports"]:
            if published["port"] in ports:
                empty = {"addresses": [], "pid": 0, "process": ""}
                holder = held[published["port"]] = dict(held.get(published["port"], empty), container=entry["name"])
                holder["addresses"] = holder["addresses"] + [published["address"]]
    return {
        str(port): dict(holder, addresses=sorted(set(holder["addresses"]))) for port, holder in sorted(held.items())
    }


def folder_size(path: str) -> int:
    """Return the bytes that the files below a folder take on its disk; holes in them take none."""
    size = 0
    for place, dummy, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_blocks * 512
    return size


def now() -> float:
    return round(time.time(), 3)


def our_labels(labels: dict[str, str] | None) -> dict[str, str]:
    """Return those labels of a container that this collection gave it."""
    return {key: value for key, value in (labels or {}).items() if key.startswith(OUR_LABELS)}


def _deployment(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a container of ours, be it running or not."""
    state = attrs.get("State") or {}
    return {
        "id": attrs["Id"],
        "name": attrs["Name"].lstrip("/"),
        "image": attrs["Image"],
        "running": bool(state.get("Running")),
        "started_at": state.get("StartedAt") or "",
        "restart_policy": ((attrs.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "",
        "labels": our_labels((attrs.get("Config") or {}).get("Labels")),
    }


def _container(entry: dict[str, Any]) -> dict[str, Any]:
    ports = entry.get("Ports") or []
    return {
        "id": entry["Id"],
        "name": (entry.get("Names") or [""])[0].lstrip("/"),
        "labels": our_labels(entry.get("Labels")),
        "ports": [
            {"address": port.get("IP") or "0.0.0.0", "port": port["PublicPort"]}
            for port in ports
            if port.get("PublicPort") and port.get("Type", "tcp") == "tcp"
        ],
    }


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Return (name, value) of each line of a file such as os-release."""
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            with contextlib.suppress(ValueError):
                yield name, "".join(shlex.split(value))


def _unescaped(text: str) -> str:
    r"""Return a path of mountinfo as it is: a space in it is written \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _address(text: str, size: int) -> str:
    """Return an address of /proc/net/tcp as people write it: words of four bytes, each in the CPU's order."""
    words = struct.unpack(">%dI" % (size // 4), bytes.fromhex(text))
    packed = struct.pack("=%dI" % (size // 4), *words)
    if size == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    found = socket.inet_ntop(socket.AF_INET6, packed)
    return found[len("::ffff:") :] if found.startswith("::ffff:") and "." in found else found


def _first_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0].lower()
