"""The module vllm_host_info on a host that is a folder, with a Docker that answers on a socket, a Hub and web servers."""

# ruff: noqa: E501 (tables of what is answered)

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import socketserver
import ssl
import stat
import subprocess
import threading
import time
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import unquote

import hub
import pytest
import yaml
from conftest import FILES, REPOSITORY

from ansible_collections.llmops.vllm.plugins.action import vllm_host_info as action
from ansible_collections.llmops.vllm.plugins.module_utils import _host, _observed, _reach, _snapshot
from ansible_collections.llmops.vllm.plugins.modules import vllm_host_info

CONTAINER = "3f1d" * 16
IMAGE = "vllm/vllm-openai:v0.32.0"
DEBIAN = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
# a comment
ID=debian
"""
MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:5 / /proc rw,nosuid - proc proc rw
30 22 8:17 / /home rw,relatime shared:2 - xfs /dev/sdb1 rw
31 30 0:44 / /home/llm/vllm/model rw,relatime shared:3 - nfs4 nas:/models rw,vers=4.2
32 22 8:33 / /srv/old\\040disk ro,relatime shared:4 - ext4 /dev/sdc1 rw
33 22 8:1 /docker /var/lib/docker rw,relatime shared:1 - ext4 /dev/sda1 rw
34 22 0:50 / /mnt/bucket rw - fuse.s3fs s3fs rw
35 22 0:60 / /mnt/ntfs rw - fuseblk /dev/sdd1 rw
"""
FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 192.0.2.0
        /24 link UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.0
        /8 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.11
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
"""
TCP_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def listener(address: str, port: int, inode: int, state: str = "0A") -> str:
    return (
        f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0   "
        f"     0 {inode} 1\n"
    )


# 127.0.0.1, 0.0.0.0 and ::1 in the order of a little-endian CPU, as on both architectures.
LOOPBACK, ANY = "0100007F", "00000000"
LOOPBACK6, MAPPED = "00000000000000000000000001000000", "0000000000000000FFFF00000B0200C0"


class Machine:
    """A host whose files are in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file("etc/os-release", DEBIAN)
        self.file("proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    8192 kB\n")
        self.file("proc/self/mountinfo", MOUNTS)
        self.file("proc/net/fib_trie", FIB_TRIE)
        self.file("proc/net/tcp", TCP_HEAD)
        self.file("proc/1/comm", "systemd\n")
        (root / "dev/shm").mkdir(parents=True)
        (root / "run/systemd/system").mkdir(parents=True)

    def file(self, name: str, text: str = "", executable: bool = False) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if executable:
            path.chmod(0o755)
        return path

    def process(self, pid: int, name: str, inodes: list[int], cgroup: str = "0::/\n") -> None:
        self.file(f"proc/{pid}/comm", name + "\n")
        self.file(f"proc/{pid}/cgroup", cgroup)
        (self.root / f"proc/{pid}/fd").mkdir()
        for number, inode in enumerate(inodes, 3):
            (self.root / f"proc/{pid}/fd/{number}").symlink_to(f"socket:[{inode}]")
        (self.root / f"proc/{pid}/fd/0").symlink_to("/dev/null")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "host")
    monkeypatch.setattr(vllm_host_info.HostInfo, "root", str(made.root))
    monkeypatch.setattr(vllm_host_info.HostInfo, "docker_socket", str(tmp_path / "none.sock"))
    # Loopback is all that the other tests let through; a socket of this machine has a path for an address.
    guarded = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            assert str(address).startswith(str(tmp_path))
            return super(socket.socket, self).connect(address)
        return guarded(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    return made


@pytest.fixture
def look(machine: Machine, run_module: Any) -> Callable[..., dict[str, Any]]:
    def run(**params: Any) -> dict[str, Any]:
        result = run_module(vllm_host_info.main, **{"timeout": 5, **params})
        assert not result["failed"], result
        assert result["changed"] is False
        return result

    return run


INFO = {
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"]],
    "DockerRootDir": "/var/lib/docker",
    "LiveRestoreEnabled": True,
    "CgroupDriver": "systemd",
    "Runtimes": {"runc": {}, "nvidia": {}},
    "DefaultRuntime": "runc",
    "CDISpecDirs": ["/etc/cdi"],
    "RegistryConfig": {
        "Mirrors": ["https://user:geheim@mirror.example.com/"],
        "IndexConfigs": {"docker.io": {"Secure": True}, "registry.lan:5000": {"Secure": False}},
    },
    "HttpProxy": "http://user:geheim@proxy.example.com:3128",
    "SecurityOptions": ["name=seccomp,profile=builtin"],
}
CONTAINERS = [
    {
        "Id": CONTAINER,
        "Names": ["/vllm"],
        "Labels": {"llmops.vllm.deployment": "karakuri-70b", "secret": "geheim"},
        "Ports": [
            {"IP": "127.0.0.1", "PrivatePort": 30080, "PublicPort": 30080, "Type": "tcp"},
            {"PrivatePort": 8000, "Type": "tcp"},
            {"IP": "::", "PublicPort": 53, "Type": "udp"},
        ],
    },
]
OURS = '/containers/json?all=1&filters={"label":+["llmops.vllm.deployment"]}'
INSPECTED = {
    "Id": CONTAINER,
    "Name": "/vllm",
    "Image": "sha256:1",
    "State": {"Running": False, "StartedAt": "2026-01-01T00:00:00Z"},
    "HostConfig": {"RestartPolicy": {"Name": "no"}},
    "Config": {"Labels": {"llmops.vllm.deployment": "karakuri-70b", "secret": "geheim"}},
}
IMAGES = {
    IMAGE: {
        "Id": "sha256:1",
        "Size": 28,
        "RepoTags": [IMAGE],
        "Config": {
            "Env": [
                "PATH=/bin",
                "CUDA_VERSION=13.0.3",
                "NVIDIA_REQUIRE_CUDA=cuda>=13.0 brand=tesla,driver>=535",
                "HF_TOKEN=geheim",
            ]
        },
    }
}


@pytest.fixture
def docker(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A Docker that answers on a socket; its answers can be changed."""
    answers: dict[str, Any] = {
        "/info": INFO,
        "/version": {"Version": "29.1.3", "ApiVersion": "1.52"},
        "/containers/json": CONTAINERS,
        OURS: [{"Id": CONTAINER}, {"Id": "gone"}],
        f"/containers/{CONTAINER}/json": INSPECTED,
    }
    answers |= {f"/images/{name}/json": image for name, image in IMAGES.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(unquote(self.path))
            if callable(answer):
                answer = answer()
            body = json.dumps(answer if answer is not None else {"message": "no such image"}).encode()
            self.send_response(200 if answer is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "docker"

        def log_message(self, *args: Any) -> None:
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    path = tmp_path / "docker.sock"
    monkeypatch.setattr(vllm_host_info.HostInfo, "docker_socket", str(path))
    server = Server(str(path), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield answers
    server.shutdown()
    server.server_close()


def test_a_fresh_host(look: Any, machine: Machine, tmp_path: Path) -> None:
    result = look(ports=[30080], images=[IMAGE])
    kernel = os.uname()
    assert {**result["system"], "python": ""} == {
        "platform": "Linux",
        "id": "debian",
        "id_like": [],
        "version_id": "12",
        "name": "Debian GNU/Linux 12 (bookworm)",
        "kernel": kernel.release,
        "architecture": kernel.machine,
        "service_manager": "systemd",
        "python": "",
    }
    assert re.match(r"3\.\d+\.\d+", result["system"]["python"])
    assert result["memory"] == {"total": 16 * 2**20, "available": 8 * 2**20}
    assert result["shm"]["total"] >= result["shm"]["free"] > 0
    assert abs(result["time"] - time.time()) < 60
    assert result["cpus"] >= 1
    assert result["addresses"] == ["127.0.0.1", "192.0.2.11"]
    assert (result["ports"], result["urls"], result["registries"], result["models"]) == ({}, [], [], [])
    found = result["docker"]
    assert (found["installed"], found["answers"], found["error"]) == (False, False, "no such file or directory")
    assert (found["root_dir"], found["images"], found["containers"]) == ("/var/lib/docker", {}, [])
    assert (result["models_dir"], result["endpoint"]) == ("/home/llm/vllm/model", "https://huggingface.co")


def test_a_host_of_which_nothing_can_be_read(look: Any, machine: Machine) -> None:
    for name in (
        "etc/os-release",
        "proc/meminfo",
        "proc/self/mountinfo",
        "proc/net/fib_trie",
        "proc/net/tcp",
        "proc/1/comm",
    ):
        (machine.root / name).unlink()
    for name in ("run/systemd/system", "dev/shm"):
        (machine.root / name).rmdir()
    result = look(ports=[30080])
    assert result["system"]["id"] == result["system"]["service_manager"] == ""
    assert result["memory"] == {"total": 0, "available": 0}
    assert result["shm"] == {"total": 0, "free": 0}
    assert result["addresses"] == []
    assert result["filesystems"][0]["mount"] == "/"


@pytest.mark.parametrize(
    ("path", "mount", "device", "kind", "network", "read_only"),
    [
        ("/var/lib/docker", "/var/lib/docker", "/dev/sda1", "ext4", False, False),
        ("/opt/x", "/", "/dev/sda1", "ext4", False, False),
        ("/home/llm/vllm/model", "/home/llm/vllm/model", "0:44", "nfs4", True, False),
        ("/home/llm/vllm/modelling", "/home", "/dev/sdb1", "xfs", False, False),
        ("/srv/old disk/models", "/srv/old disk", "/dev/sdc1", "ext4", False, True),
        ("/mnt/bucket/a", "/mnt/bucket", "0:50", "fuse.s3fs", True, False),
        ("/mnt/ntfs", "/mnt/ntfs", "/dev/sdd1", "fuseblk", False, False),
    ],
)
def test_file_systems(
    look: Any, machine: Machine, path: str, mount: str, device: str, kind: str, network: bool, read_only: bool
) -> None:
    (machine.root / mount.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (found,) = [one for one in look(paths=[path])["filesystems"] if one["path"] == path]
    assert (found["mount"], found["device"], found["type"]) == (mount, device, kind)
    assert (found["network"], found["read_only"]) == (network, read_only)
    assert found["exists"] is (path == mount)
    assert found["total"] >= found["free"] > 0


def test_a_mount_that_lies_on_another_is_the_one_that_counts(look: Any, machine: Machine) -> None:
    machine.file("proc/self/mountinfo", MOUNTS + "40 30 8:65 / /home rw - btrfs /dev/sde1 rw\n")
    (machine.root / "home").mkdir()
    assert look(paths=["/home"])["filesystems"][-1]["device"] == "/dev/sde1"


def test_a_folder_behind_a_link_is_where_the_link_leads(look: Any, machine: Machine) -> None:
    (machine.root / "home/data").mkdir(parents=True)
    (machine.root / "data").symlink_to(machine.root / "home/data")
    found = look(paths=["/data"])["filesystems"][-1]
    assert (found["path"], found["mount"], found["exists"]) == ("/data", "/home", True)


def test_who_listens(look: Any, machine: Machine, docker: dict[str, Any]) -> None:
    machine.file(
        "proc/net/tcp",
        TCP_HEAD
        + listener(LOOPBACK, 30080, 501)
        + listener(ANY, 9090, 502)
        + listener(LOOPBACK, 30082, 503, state="01")
        + listener(ANY, 30083, 504),
    )
    machine.file("proc/net/tcp6", TCP_HEAD + listener(LOOPBACK6, 9090, 505) + listener(MAPPED, 9091, 506))
    machine.process(812, "nginx", [502, 505])
    machine.process(4711, "docker-proxy", [501])
    machine.process(99, "python3", [506], cgroup=f"0::/system.slice/docker-{CONTAINER}.scope\n")
    assert look(ports=[30080, 9090, 9091, 30082, 30081, 30083])["ports"] == {
        "9090": {"addresses": ["0.0.0.0", "::1"], "pid": 812, "process": "nginx", "container": ""},
        "9091": {"addresses": ["192.0.2.11"], "pid": 99, "process": "python3", "container": "vllm"},
        "30080": {"addresses": ["127.0.0.1"], "pid": 4711, "process": "docker-proxy", "container": "vllm"},
        # Whose it is cannot be seen.
        "30083": {"addresses": ["0.0.0.0"], "pid": 0, "process": "", "container": ""},
    }


def test_a_published_port_without_a_process(look: Any, docker: dict[str, Any]) -> None:
    assert look(ports=[30080])["ports"] == {
        "30080": {"addresses": ["127.0.0.1"], "pid": 0, "process": "", "container": "vllm"}
    }


def test_docker(look: Any, docker: dict[str, Any]) -> None:
    result = look(images=[IMAGE, "missing:1"])
    assert result["docker"] == {
        "installed": True,
        "answers": True,
        "error": "",
        "version": "29.1.3",
        "api_version": "1.52",
        "storage_driver": "overlay2",
        "root_dir": "/var/lib/docker",
        "image_dir": "/var/lib/docker",
        "live_restore": True,
        "cgroup_driver": "systemd",
        "runtimes": ["nvidia", "runc"],
        "default_runtime": "runc",
        "cdi_spec_dirs": ["/etc/cdi"],
        "registry_mirrors": ["https://mirror.example.com/"],
        "insecure_registries": ["registry.lan:5000"],
        "proxies": True,
        "security_options": ["name=seccomp,profile=builtin"],
        "rootless": False,
        "images": {
            IMAGE: {
                "id": "sha256:1",
                "size": 28,
                "environment": {"CUDA_VERSION": "13.0.3", "NVIDIA_REQUIRE_CUDA": "cuda>=13.0 brand=tesla,driver>=535"},
            }
        },
        "containers": [
            {
                "id": CONTAINER,
                "name": "vllm",
                "labels": {"llmops.vllm.deployment": "karakuri-70b"},
                "ports": [{"address": "127.0.0.1", "port": 30080}],
            }
        ],
        "deployments": result["docker"]["deployments"],
    }
    assert "geheim" not in result["output"]


def test_docker_with_the_images_of_containerd_elsewhere(look: Any, docker: dict[str, Any]) -> None:
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    docker["/info"] = {
        **INFO,
        "DriverStatus": status,
        "DockerRootDir": "/data/docker",
        "SecurityOptions": ["name=rootless"],
    }
    result = look()
    assert result["docker"]["image_dir"] == "/var/lib/containerd"
    assert result["docker"]["rootless"] is True
    assert [one["path"] for one in result["filesystems"]] == [
        "/data/docker",
        "/var/lib/containerd",
        "/home/llm/vllm/model",
    ]


def test_a_docker_that_does_not_run(look: Any, machine: Machine) -> None:
    machine.file("usr/bin/dockerd", executable=True)
    machine.file("etc/docker/daemon.json", '{"data-root": "/data/docker"}')
    found = look()["docker"]
    assert (found["installed"], found["answers"], found["root_dir"]) == (True, False, "/data/docker")


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_settings_of_docker_that_are_none(look: Any, machine: Machine, text: str) -> None:
    machine.file("etc/docker/daemon.json", text)
    assert look()["docker"]["root_dir"] == "/var/lib/docker"


def test_a_docker_that_hangs(look: Any, docker: dict[str, Any]) -> None:
    ends = threading.Event()
    docker["/info"] = ends.wait
    begun = time.monotonic()
    found = look(timeout=1)["docker"]
    ends.set()
    assert (found["answers"], found["error"]) == (False, "timed out")
    assert time.monotonic() - begun < 5


# Addresses


def test_addresses(look: Any, serve: Any, free_port: int) -> None:
    url = serve({"/": {"ok": True}, "/v2/": (401, "who are you")})
    place = url.partition("//")[2]
    found = look(
        urls=[
            {"name": "page", "url": url + "/"},
            {"name": "registry", "url": f"http://user:geheim@{place}/v2/"},
            {"name": "nobody", "url": f"http://127.0.0.1:{free_port}/"},
            {"name": "nonsense", "url": "nonsense"},
        ]
    )
    assert [(one["name"], one["status"], one["error"]) for one in found["urls"][:3]] == [
        ("page", 200, ""),
        ("registry", 401, ""),
        ("nobody", 0, "connection refused"),
    ]
    assert found["urls"][3]["error"].startswith("unknown url type")
    assert found["urls"][1]["url"] == f"{url}/v2/"
    assert "geheim" not in json.dumps(found["urls"])
    assert all(one["seconds"] < 5 for one in found["urls"])


def test_silence_costs_one_timeout(look: Any, serve: Any) -> None:
    ends = threading.Event()
    url = serve({f"/{number}": lambda: (ends.wait(20), "late")[1:] and (200, "late") for number in range(4)})
    begun = time.monotonic()
    found = look(urls=[{"name": str(number), "url": f"{url}/{number}"} for number in range(4)], timeout=1)["urls"]
    took = time.monotonic() - begun
    ends.set()
    assert [one["error"] for one in found] == ["no answer within 1 s"] * 4
    assert took < 3


def test_a_name_that_nobody_resolves_in_time(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()
    monkeypatch.setattr(_reach.socket, "getaddrinfo", lambda *args, **kwargs: [ends.wait(20)][1:])
    begun = time.monotonic()
    (found,) = look(urls=[{"name": "slow", "url": "http://slow.example.com/"}], timeout=1)["urls"]
    ends.set()
    assert (found["status"], found["error"]) == (0, "no answer within 1 s")
    assert time.monotonic() - begun < 4


def test_a_name_that_is_unknown(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(_reach.socket, "getaddrinfo", unknown)
    (found,) = look(urls=[{"name": "hub", "url": "https://hub.example.com/"}])["urls"]
    assert found["error"] == "the name hub.example.com cannot be resolved"
    monkeypatch.setenv("https_proxy", "http://user:geheim@proxy.example.com:3128")
    (found,) = look(urls=[{"name": "hub", "url": "https://hub.example.com/"}])["urls"]
    assert found["error"] == "the name proxy.example.com cannot be resolved"


def test_the_proxy_of_the_environment_is_asked(
    look: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("http_proxy", serve({"http://hub.example.com/": {"by": "the proxy"}}))
    address = [{"name": "hub", "url": "http://hub.example.com/"}]
    assert look(urls=address)["urls"][0]["status"] == 200
    monkeypatch.setenv("http_proxy", f"http://user:geheim@127.0.0.1:{free_port}")
    assert look(urls=address)["urls"][0]["error"] == f"connection refused (by the proxy 127.0.0.1:{free_port})"


def test_a_connection_that_ends(look: Any, serve: Any) -> None:
    (found,) = look(urls=[{"name": "x", "url": serve({"/": None}) + "/"}])["urls"]
    assert found["error"] == "the connection ended without an answer"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            key,
            "-out",
            cert,
            "-days",
            "2",
            "-subj",
            "/CN=registry",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


def test_certificates(
    look: Any, machine: Machine, serve: Any, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, cert = certificate
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(cert, key)
    bind = socketserver.TCPServer.server_bind

    def secure(self: Any) -> None:
        bind(self)
        self.socket = made.wrap_socket(self.socket, server_side=True)

    monkeypatch.setattr("http.server.ThreadingHTTPServer.server_bind", secure)
    url = serve({"/v2/": {}}).replace("http://", "https://")
    monkeypatch.setattr("http.server.ThreadingHTTPServer.server_bind", bind)
    registry = url.partition("//")[2]
    address = [{"name": "x", "url": url + "/v2/"}]
    (found,) = look(urls=address)["urls"]
    assert found["error"].startswith("certificate not trusted: self")
    # Loopback is plain HTTP to Docker; any other place may have an authority that Docker trusts.
    monkeypatch.setattr(vllm_host_info, "_LOOPBACK", re.compile("never"))
    assert look(images=[f"{registry}/vllm:1"], pull=True)["registries"][0]["status"] == 0
    machine.file(f"etc/docker/certs.d/{registry}/ca.crt", cert.read_text())
    assert look(images=[f"{registry}/vllm:1"], pull=True)["registries"][0]["status"] == 200
    assert look(urls=address)["urls"][0]["status"] == 0
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    assert look(urls=address)["urls"][0]["status"] == 200


def test_registries_of_images_that_are_missing(look: Any, docker: dict[str, Any], serve: Any) -> None:
    place = serve({"/v2/": (401, "")}).partition("//")[2]
    images = [IMAGE, f"{place}/llm/vllm:1", f"{place}/llm/vllm:2"]
    (found,) = look(images=images, pull=True)["registries"]
    assert {**found, "seconds": 0} == {
        "registry": place,
        "url": f"http://{place}/v2/",
        "status": 401,
        "seconds": 0,
        "error": "",
        "images": images[1:],
    }
    assert look(images=images)["registries"] == []


def test_the_registry_of_names_without_one(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(_reach, "look", lambda url, timeout, authorities="": asked.append(url) or _reach.late(url, 1))
    found = look(
        images=["vllm/vllm-openai:v1", "docker.io/vllm/vllm-openai:v2", "localhost:5000/a:1", "quay.io/b/c"], pull=True
    )["registries"]
    assert [one["registry"] for one in found] == ["registry-1.docker.io", "localhost:5000", "quay.io"]
    assert sorted(asked) == ["http://localhost:5000/v2/", "https://quay.io/v2/", "https://registry-1.docker.io/v2/"]


# Models


def model(**values: Any) -> dict[str, Any]:
    return {"repo_id": REPOSITORY, "revision": "main", **values}


def test_a_model(look: Any, served: hub.Hub) -> None:
    (found,) = look(endpoint=served.url, models=[model()])["models"]
    commit = served.revisions(REPOSITORY)["main"].commit
    assert found == {
        "repo_id": REPOSITORY,
        "revision": "main",
        "commit": commit,
        "folder": "",
        "there": False,
        "status": 200,
        "error": "",
        "refusal": "",
        "files": {path: len(content) for path, content in FILES.items()},
        "present": [],
        "staged": 0,
    }
    assert served.requests == [f"GET /api/models/{REPOSITORY}/revision/main"]


def test_a_commit_is_asked_for_where_it_is_known(look: Any, served: hub.Hub) -> None:
    commit = served.revisions(REPOSITORY)["main"].commit
    (found,) = look(endpoint=served.url + "/", models=[model(commit=commit, folder=f"org--name/{commit}")])["models"]
    assert (found["status"], found["there"]) == (200, False)
    assert served.requests == [f"GET /api/models/{REPOSITORY}/revision/{commit}"]


def test_containers_of_deployments_that_do_not_run(look: Any, docker: dict[str, Any]) -> None:
    assert look()["docker"]["deployments"] == [
        {
            "id": CONTAINER,
            "name": "vllm",
            "image": "sha256:1",
            "running": False,
            "started_at": "2026-01-01T00:00:00Z",
            "restart_policy": "no",
            "labels": {"llmops.vllm.deployment": "karakuri-70b"},
        }
    ]


def test_seals(look: Any, machine: Machine) -> None:
    assert look()["seals"] == {}
    observe = {"files": ["/etc/os-release", "/etc/x"]}
    observed = _observed.Observer(str(machine.root), lambda address: None).observe(observe)
    seal = {"inputs": {"a": "1"}, "observe": observe, "observed": observed, "notes": {"n": 1}}
    machine.file("var/lib/llmops-vllm/seals.json", json.dumps({"format": 1, "seals": {"x": seal}}))
    assert look()["seals"] == {"x": {"inputs": {"a": "1"}, "changed": [], "notes": {"n": 1}}}
    machine.file("etc/x")
    assert look()["seals"]["x"]["changed"] == ["/etc/x"]


def snapshot(machine: Machine, commit: str, files: dict[str, bytes], left_out: tuple[str, ...] = ()) -> str:
    """A snapshot as hf_snapshot leaves it; returns its folder below that of the models."""
    entries = [
        _snapshot.HubFile(
            name,
            len(content),
            hashlib.sha256(content).hexdigest() if name.endswith("safetensors") else None,
            hub.git_blob_id(content),
        )
        for name, content in files.items()
    ]
    kept = [entry for entry in entries if entry.path not in left_out]
    notes = _snapshot.manifest(
        REPOSITORY, "model", commit, "x", kept, [e for e in entries if e not in kept], "sha256", 0
    )
    machine.file(f"home/llm/vllm/model/org--name/{commit}/.snapshot.json", _snapshot.manifest_text(notes))
    return f"org--name/{commit}"


def test_a_snapshot_that_is_there_needs_no_hub(look: Any, machine: Machine, free_port: int) -> None:
    folder = snapshot(machine, "1" * 40, FILES, left_out=("empty.txt",))
    (found,) = look(endpoint=f"http://127.0.0.1:{free_port}", models=[model(commit="1" * 40, folder=folder)])["models"]
    assert (found["there"], found["status"], found["error"], found["refusal"]) == (True, 0, "", "")
    assert found["files"] == {path: len(content) for path, content in FILES.items()}
    assert found["present"] == sorted(set(FILES) - {"empty.txt"})


def test_what_other_snapshots_and_a_broken_download_have(look: Any, machine: Machine, served: hub.Hub) -> None:
    snapshot(machine, "1" * 40, {**FILES, "config.json": b"another"})
    staged = machine.file("home/llm/vllm/model/org--name/.incomplete/x/model.part", "x" * 5000)
    (found,) = look(endpoint=served.url, models=[model()])["models"]
    assert found["there"] is False
    assert found["present"] == sorted(set(FILES) - {"config.json"})
    assert found["staged"] == staged.stat().st_blocks * 512 > 0


def test_holes_of_a_broken_download_take_no_room(tmp_path: Path) -> None:
    with open(tmp_path / "hole", "wb") as stream:
        stream.truncate(10_000_000)
    assert _host.folder_size(str(tmp_path)) < 10_000_000


def refused(look: Any, endpoint: str, **params: Any) -> tuple[int, str, str]:
    (found,) = look(endpoint=endpoint, **{"models": [model()], **params})["models"]
    return found["status"], found["refusal"], found["error"]


def test_refusals(look: Any, root: Path, machine: Machine) -> None:
    with hub.Hub(root, token="hf_right") as private:
        assert refused(look, private.url) == (401, "not_found", "")
        assert refused(look, private.url, token="hf_wrong") == (401, "token", "")
        assert refused(look, private.url, token="hf_right") == (200, "", "")
        assert refused(look, private.url, token="hf_right", models=[model(repo_id="org/none")]) == (
            404,
            "not_found",
            "",
        )
        assert refused(look, private.url, token="hf_right", models=[model(revision="v9")]) == (404, "revision", "")
        path = machine.file("etc/llmops-vllm/hub_token", "hf_right\n")
        assert refused(look, private.url, token_file="/etc/llmops-vllm/hub_token") == (200, "", "")
        path.write_text("\n")
        assert refused(look, private.url, token_file="/etc/llmops-vllm/hub_token") == (
            0,
            "token",
            "token_file /etc/llmops-vllm/hub_token is empty",
        )
        path.unlink()
        text = "token_file /etc/llmops-vllm/hub_token cannot be read (No such file or directory)"
        assert refused(look, private.url, token_file="/etc/llmops-vllm/hub_token") == (0, "token", text)
        text = "the token has a space, a line break or a character that is not ASCII"
        assert refused(look, private.url, token="hf right") == (0, "token", text)


def test_a_gated_model(look: Any, root: Path) -> None:
    with hub.Hub(root, gated=[REPOSITORY]) as gated:
        assert refused(look, gated.url, token="hf_other") == (200, "gated", "")
        assert refused(look, gated.url) == (200, "gated", "")
        assert gated.bytes_sent == 0


def test_a_gated_model_to_which_access_was_granted(look: Any, root: Path, serve: Any) -> None:
    listing = {"sha": "1" * 40, "gated": "auto", "siblings": [{"rfilename": "a b.json", "size": 3, "blobId": "x"}]}
    url = serve({f"/api/models/{REPOSITORY}/revision/main?blobs=true": listing})
    # The double answers HEAD with 501; whatever is no refusal is none.
    assert refused(look, url) == (200, "", "")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((503, "busy"), (503, "", "HTTP status 503")),
        ((403, "no"), (403, "forbidden", "")),
        ((200, "<html>"), (200, "", "an answer that is not the Hub's")),
        ((200, "[]"), (200, "", "an answer that is not the Hub's")),
        ((200, "{}"), (200, "", "an answer that is not the Hub's")),
        (None, (0, "", "the connection ended without an answer")),
    ],
)
def test_hubs_in_trouble(look: Any, serve: Any, answer: Any, expected: tuple[int, str, str]) -> None:
    url = serve({f"/api/models/{REPOSITORY}/revision/main?blobs=true": answer})
    assert refused(look, url) == expected


def test_a_list_that_may_lack_files_is_none(look: Any, serve: Any) -> None:
    siblings = [{"rfilename": str(number), "size": 1} for number in range(_reach.MOST_SIBLINGS + 1)]
    url = serve({f"/api/models/{REPOSITORY}/revision/main?blobs=true": {"sha": "1" * 40, "siblings": siblings}})
    (found,) = look(endpoint=url, models=[model()])["models"]
    assert (found["error"], found["files"]) == ("", {})


def redirecting(target: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization")))
            moved = not self.path.startswith("/moved")
            self.send_response(307 if moved else 404)
            self.send_header("Location", target or "/moved")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def test_the_token_goes_to_the_endpoint_alone(look: Any, serve: Any) -> None:
    elsewhere = serve({})
    for url, seen in redirecting(elsewhere + "/stolen"):
        refused(look, url, token="hf_secret")
        assert seen[0][1] == "Bearer hf_secret"
    assert serve.heads == {"/stolen": None}
    for url, seen in redirecting(""):
        refused(look, url, token="hf_secret")
        assert [head for _path, head in seen] == ["Bearer hf_secret"] * 2


def test_no_secret_is_shown(look: Any, root: Path) -> None:
    with hub.Hub(root, token="hf_right") as private:
        result = look(endpoint=private.url, token="hf_right", models=[model()])
    assert "hf_right" not in result["output"]


def test_a_model_without_a_name(machine: Machine, run_module: Any) -> None:
    result = run_module(vllm_host_info.main, models=[{"revision": "main"}])
    assert (result["failed"], result["msg"]) == (True, "one of models has no repo_id: add it")


def test_it_changes_nothing(look: Any, machine: Machine, served: hub.Hub, docker: dict[str, Any]) -> None:
    def files() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.lstat().st_mtime_ns, stat.S_IMODE(path.lstat().st_mode))
            for path in machine.root.rglob("*")
        }

    before = files()
    look(endpoint=served.url, models=[model()], images=[IMAGE], paths=["/srv/new"], ports=[1])
    assert files() == before


def test_what_is_documented_is_returned(look: Any, docker: dict[str, Any], served: hub.Hub, serve: Any) -> None:
    place = serve({"/v2/": {}}).partition("//")[2]
    result = look(
        endpoint=served.url,
        models=[model()],
        images=[IMAGE, f"{place}/a:1"],
        pull=True,
        urls=[{"name": "x", "url": f"http://{place}/v2/"}],
    )
    documented = yaml.safe_load(vllm_host_info.RETURN)
    # Added by the action, where the controller is.
    assert set(documented) - {"clock_offset", "gpu"} == set(result) - {"changed", "failed", "output", "invocation"}
    for name in ("system", "docker"):
        assert set(documented[name]["sample"]) == set(result[name])
    assert set(documented["docker"]["sample"]["deployments"][0]) == set(result["docker"]["deployments"][0])
    for name in ("filesystems", "urls", "registries"):
        assert set(documented[name]["sample"][0]) == set(result[name][0]), name
    assert set(documented["models"]["sample"][0]) | {"folder"} == set(result["models"][0])


# The action


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, Any], list[str | None]]]:
    def run(host: dict[str, Any], seen: dict[str, Any] | None = None, took: float = 1.0, **args: Any) -> Any:
        clock = iter([1000.0, 1000.0 + took])
        monkeypatch.setattr(action, "time", types.SimpleNamespace(time=lambda: next(clock)))
        others = [MagicMock() for _number in range(5)]
        plugin = action.ActionModule(MagicMock(args=args), *others)
        monkeypatch.setattr(action.ActionBase, "run", lambda self, tmp, task_vars: {})
        called: list[str | None] = []

        def module(module_name: str | None = None, **other: Any) -> dict[str, Any]:
            called.append(module_name)
            return dict(seen or {"changed": False, "source": "none", "_ansible_x": 1}) if module_name else dict(host)

        monkeypatch.setattr(plugin, "_execute_module", module)
        return plugin.run(task_vars={}), called

    return run


@pytest.mark.parametrize(
    ("at", "took", "expected"),
    [(1000.4, 1.0, 0.0), (1030.0, 60.0, 0.0), (990.0, 1.0, -10.0), (1401.0, 1.0, 400.0), (1061.0, 60.0, 1.0)],
)
def test_the_way_to_the_host_is_no_offset(act: Any, at: float, took: float, expected: float) -> None:
    result, called = act({"time": at}, took=took)
    assert result["clock_offset"] == expected
    assert called == [None, "llmops.vllm.gpu_info"]
    assert result["gpu"] == {"source": "none"}


@pytest.mark.parametrize(
    ("value", "asked"), [(False, False), ("no", False), ("False", False), (True, True), ("yes", True)]
)
def test_gpus_that_nobody_asks_for(act: Any, value: Any, asked: bool) -> None:
    result, called = act({"time": 1000.0}, gpu=value)
    assert called == [None] + ["llmops.vllm.gpu_info"] * asked
    assert (result["gpu"] is not None) is asked


def test_a_module_that_fails(act: Any) -> None:
    failed = {"failed": True, "msg": "no"}
    assert act(failed) == (failed, [None])
    result, _called = act({"time": 1000.0}, seen={"failed": True, "msg": "no"})
    assert (result["failed"], result["msg"]) == (True, "the GPUs cannot be looked at: no")
