"""Findings: hosts in order have none, and each way in which one is not in order has its code and its sentence."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.plugin_utils import findings as under_test
from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import read_catalogue
from ansible_collections.llmops.vllm.plugins.plugin_utils.findings import CODES, bytes_of, findings, weights_size
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Network

PROJECT = Path(__file__).parents[2]
GB, GIB = 10**9, 2**30
HOST, MODEL, IMAGE = "gpu1", "org/llama-70b-awq", "vllm/vllm-openai:v0.32.0"
COMMIT = "1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f"
CONTAINER, OTHER = "1f" * 32, "2e" * 32
CDI = "GPU-0000-1111"
# As nvidia/cuda:13.0 and nvidia/cuda:12.9 have them, with fewer brands.
BRANDS = ("unknown", "grid", "tesla", "nvidia", "quadro", "quadrortx", "nvidiartx")
REQUIRE_13 = "cuda>=13.0 " + " ".join(
    f"brand={b},driver>={d},driver<{d + 1}" for d in (535, 550, 565, 570, 575) for b in BRANDS
)
REQUIRE_129 = "cuda>=12.9 " + " ".join(
    f"brand={b},driver>={d},driver<{d + 1}" for d in (535, 550, 560, 565, 570) for b in BRANDS
)


def gpu(index: int, name: str, brand: str, capability: str, gib: float, **other: Any) -> dict[str, Any]:
    total = int(gib * GIB)
    return {
        "index": index,
        "uuid": f"GPU-0000-{index}",
        "name": name,
        "architecture": "",
        "compute_capability": capability,
        "brand": brand,
        "pci_bus_id": f"00000000:0{index}:00.0",
        "compute_mode": "Default",
        "persistence_mode": False,
        "ecc": True,
        "memory": {"total": total, "reserved": 0, "used": 0, "free": total},
        "mig": {"enabled": False, "pending": False, "devices": []},
        "fabric": {"state": "", "status": ""},
        "processes": [],
        **other,
    }


def gpu_info(gpus: list[dict[str, Any]], version: str = "580.95.05", cuda: str = "13.0") -> dict[str, Any]:
    return {
        "source": "nvidia-smi" if gpus else "none",
        "pci_gpus": len(gpus),
        "gpus": gpus,
        "problems": [],
        "devices": [],
        "driver": {
            "version": version,
            "cuda": cuda,
            "open_kernel_module": True,
            "loaded": bool(version),
            "kernel_version": version,
            "library_version": version,
            "mismatch": False,
        },
        "topology": {"links": [], "nvlink": False},
        "nvswitch": {"present": False, "fabric_manager": {"installed": False, "version": "", "active": None}},
        "toolkit": {"version": "", "hook": "", "runtime": "", "ctk": "", "cli": "", "no_cgroups": False},
        "cdi": {"specs": [], "devices": [], "refresh": "", "missing": []},
    }


def disk(path: str, free: float, device: str = "/dev/sda1", mount: str = "/", **other: Any) -> dict[str, Any]:
    return {
        "path": path,
        "exists": True,
        "mount": mount,
        "device": device,
        "type": "ext4",
        "total": 2000 * GB,
        "free": int(free * GB),
        "read_only": False,
        "network": False,
        **other,
    }


def seen(gpu_result: dict[str, Any] | None, **other: Any) -> dict[str, Any]:
    files = {
        "config.json": 1000,
        "model-1.safetensors": 20 * GB,
        "model-2.safetensors": 16 * GB,
        "pytorch_model.bin": 36 * GB,
    }
    return {
        "system": {
            "platform": "Linux",
            "id": "ubuntu",
            "id_like": ["debian"],
            "version_id": "24.04",
            "name": "Ubuntu 24.04.3 LTS",
            "kernel": "6.8.0",
            "architecture": "x86_64",
            "service_manager": "systemd",
            "python": "3.12.3",
        },
        "memory": {"total": 256 * GIB, "available": 250 * GIB},
        "shm": {"total": 128 * GIB, "free": 128 * GIB},
        "time": 1.0,
        "clock_offset": 0.0,
        "cpus": 64,
        "addresses": ["127.0.0.1", "192.0.2.11"],
        "models_dir": "/home/llm/vllm/model",
        "endpoint": "https://huggingface.co",
        "filesystems": [disk("/var/lib/docker", 500), disk("/home/llm/vllm/model", 500)],
        "ports": {},
        "docker": {
            "installed": False,
            "answers": False,
            "error": "",
            "version": "",
            "api_version": "",
            "storage_driver": "",
            "root_dir": "/var/lib/docker",
            "image_dir": "/var/lib/docker",
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
        },
        "urls": [],
        "registries": [
            {
                "registry": "registry-1.docker.io",
                "url": "https://registry-1.docker.io/v2/",
                "status": 401,
                "seconds": 0.1,
                "error": "",
                "images": [IMAGE],
            }
        ],
        "models": [
            {
                "repo_id": MODEL,
                "revision": "main",
                "folder": "",
                "there": False,
                "status": 200,
                "error": "",
                "refusal": "",
                "commit": COMMIT,
                "files": files,
                "present": [],
                "staged": 0,
            }
        ],
        "gpu": gpu_result,
        **other,
    }


def a100x8() -> dict[str, Any]:
    host = seen(gpu_info([gpu(n, "NVIDIA A100-SXM4-80GB", "NVIDIA", "8.0", 80) for n in range(8)]))
    host["gpu"]["nvswitch"] = {
        "present": True,
        "fabric_manager": {"installed": True, "version": "580.95.05", "active": True},
    }
    host["gpu"]["topology"] = {"links": [{"between": [0, 1], "kind": "NV12"}], "nvlink": True}
    return host


def h100x8() -> dict[str, Any]:
    host = a100x8()
    fabric = {"state": "Completed", "status": "Success"}
    host["gpu"]["gpus"] = [gpu(n, "NVIDIA H100 80GB HBM3", "NVIDIA", "9.0", 80, fabric=fabric) for n in range(8)]
    return host


def rtx4090() -> dict[str, Any]:
    host = seen(gpu_info([gpu(0, "NVIDIA GeForce RTX 4090", "GeForce", "8.9", 24)]))
    host["models"][0]["files"] = {"config.json": 1000, "model.safetensors": 5 * GB}
    return host


def t4() -> dict[str, Any]:
    host = seen(gpu_info([gpu(0, "Tesla T4", "Tesla", "7.5", 15)]))
    host["models"][0]["files"] = {"config.json": 1000, "model.safetensors": 5 * GB}
    # One with the runbook's Docker of Debian 12, and a driver that does not say which CUDA it knows.
    host["docker"].update(installed=True, answers=True, version="20.10.24+dfsg1", storage_driver="overlay2")
    host["gpu"]["driver"]["cuda"] = ""
    return host


def cpu() -> dict[str, Any]:
    host = seen(None, registries=[])
    host["models"][0]["files"] = {"config.json": 1000, "model.safetensors": 5 * GB}
    return host


def deployment(name: str = "llama", **other: Any) -> dict[str, Any]:
    return {"name": name, "model": {"repo_id": MODEL}, **other}


def complete(*deployments: dict[str, Any], image: str = IMAGE) -> list[dict[str, Any]]:
    return of_hosts([HOST], *deployments, image=image)


def of_hosts(hosts: list[str], *deployments: dict[str, Any], image: str = IMAGE) -> list[dict[str, Any]]:
    network = Network({}.get, lambda pattern: list(hosts), {})
    return read_catalogue(list(deployments), network, {}, image)[0]


TP4 = {"tensor_parallel_size": 4, "quantization": "awq"}


def serving(host: dict[str, Any], name: str = "llama", used: float = 70, **labels: str) -> dict[str, Any]:
    """The host as it is once a deployment serves there, on its first GPU."""
    labels = {
        "llmops.vllm.deployment": name,
        "llmops.vllm.home": "/home/llm/vllm",
        **{f"llmops.vllm.{key}": value for key, value in labels.items()},
    }
    container = {"id": CONTAINER, "name": name, "labels": labels, "ports": [{"address": "127.0.0.1", "port": 30080}]}
    host["docker"].update(
        installed=True, answers=True, version="29.1.3", storage_driver="overlayfs", containers=[container]
    )
    host["docker"]["images"] = {
        IMAGE: {
            "id": "sha256:1",
            "size": 28 * GB,
            "environment": {"CUDA_VERSION": "13.0.3", "NVIDIA_REQUIRE_CUDA": REQUIRE_13},
        }
    }
    host["ports"] = {"30080": {"addresses": ["127.0.0.1"], "pid": 7, "process": "docker-proxy", "container": name}}
    host["registries"] = []
    taken(host, used, CONTAINER)
    return host


def taken(host: dict[str, Any], used: float, container: str = "", pid: int = 4711, name: str = "python3") -> None:
    first = host["gpu"]["gpus"][0]
    first["processes"].append(
        {"pid": pid, "name": name, "type": "C", "memory": int(used * GIB), "container": container}
    )
    first["memory"]["used"] += int(used * GIB)
    first["memory"]["free"] -= int(used * GIB)


def whole(host: dict[str, Any]) -> dict[str, Any]:
    """The host with its snapshot, and with no Hub that it could reach."""
    host["models"][0].update(
        there=True, status=0, present=["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors"]
    )
    host["filesystems"] = [disk("/var/lib/docker", 2), disk("/home/llm/vllm/model", 2)]
    return host


def changed(host: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    change(host)
    return host


def shared(utilization: float, **other: Any) -> list[dict[str, Any]]:
    args = {"gpu_memory_utilization": utilization}
    return [
        deployment("llama", engine_args=args, **other),
        deployment("mistral", port=30081, engine_args=args, **other),
    ]


GOOD = {
    "eight A100 with NVSwitches": (a100x8, [deployment(engine_args=TP4)]),
    "eight H100, four of them by index": (h100x8, [deployment(gpus=[4, 5, 6, 7], engine_args=TP4)]),
    "GPUs by UUID": (a100x8, [deployment(gpus=["GPU-0000-2", "GPU-0000-3"])]),
    "a GeForce": (rtx4090, [deployment()]),
    "a T4 with an old Docker": (t4, [deployment(engine_args={"dtype": "half"})]),
    "a CPU": (cpu, [deployment(gpus="none", image="vllm/vllm-openai-cpu:v0.32.0")]),
    "an image of one's own, of which nothing is known": (
        lambda: changed(rtx4090(), lambda h: h["gpu"]["driver"].update(version="535.161.08", cuda="12.2")),
        [deployment(image="registry.example.com/llm/vllm:blue")],
    ),
    "a GPU that is shared on purpose": (a100x8, shared(0.45, gpus=[0])),
    "a GPU that is shared with one that serves already": (
        lambda: serving(a100x8(), "mistral", 36),
        [
            deployment("mistral", engine_args={"gpu_memory_utilization": 0.45}, gpus=[0]),
            deployment(port=30081, engine_args={"gpu_memory_utilization": 0.45}, gpus=[0]),
        ],
    ),
    "what serves already": (lambda: whole(serving(a100x8())), [deployment(engine_args=TP4)]),
    "what serves already, on a full disk and without the Hub": (
        lambda: changed(
            whole(serving(a100x8())), lambda h: h["models"][0].update(files={**h["models"][0]["files"]}, error="")
        ),
        [deployment(engine_args=TP4)],
    ),
    "an older release that serves on the same port": (
        lambda: serving(a100x8(), release="before"),
        [deployment(engine_args=TP4)],
    ),
    "a MIG device": (
        lambda: changed(
            a100x8(),
            lambda h: h["gpu"]["gpus"][0]["mig"].update(
                enabled=True,
                devices=[
                    {
                        "uuid": "MIG-1",
                        "profile": "3g.40gb",
                        "gpu_instance": 1,
                        "compute_instance": 0,
                        "memory": {"total": 40 * GIB, "used": 0, "free": 40 * GIB},
                    }
                ],
            ),
        ),
        [deployment(gpus=["MIG-1"])],
    ),
    "forward compatibility, asked for": (
        lambda: changed(
            a100x8(),
            lambda h: (
                h["gpu"]["driver"].update(version="570.195.03", cuda="12.8"),
                h["gpu"]["nvswitch"]["fabric_manager"].update(version="570.195.03"),
            ),
        ),
        [deployment(engine_args=TP4, environment={"VLLM_ENABLE_CUDA_COMPATIBILITY": 1})],
    ),
    "a download that was broken off, on a disk that has room for the rest": (
        lambda: changed(
            a100x8(),
            lambda h: (
                h["models"][0].update(staged=30 * GB),
                h.update(filesystems=[disk("/var/lib/docker", 40), disk("/home/llm/vllm/model", 40)]),
            ),
        ),
        [deployment(engine_args=TP4)],
    ),
    "images and snapshots on two disks": (
        lambda: changed(
            a100x8(),
            lambda h: h.update(
                filesystems=[disk("/var/lib/docker", 31), disk("/home/llm/vllm/model", 37, "/dev/sdb1", "/home")]
            ),
        ),
        [deployment(engine_args=TP4)],
    ),
    "a port on another address": (
        lambda: changed(
            a100x8(),
            lambda h: h["ports"].update(
                {"30080": {"addresses": ["192.0.2.11"], "pid": 1, "process": "nginx", "container": ""}}
            ),
        ),
        [deployment(engine_args=TP4)],
    ),
    "two deployments that exchange their ports": (
        lambda: serving(a100x8(), "mistral", 36),
        [{**shared(0.45, gpus=[0])[1], "port": 30082}, shared(0.45, gpus=[0])[0]],
    ),
    "the model twice in its repository": (
        lambda: changed(
            rtx4090(),
            lambda h: h["models"][0].update(
                files={"config.json": 1, "consolidated.safetensors": 15 * GB, "model-1.safetensors": 15 * GB}
            ),
        ),
        [deployment()],
    ),
    "a model that is quantized while it loads": (
        lambda: changed(
            rtx4090(), lambda h: h["models"][0].update(files={"config.json": 1, "model-1.safetensors": 40 * GB})
        ),
        [deployment(engine_args={"quantization": "fp8"})],
    ),
    "a cluster of Ray": (
        rtx4090,
        [deployment(engine_args={"tensor_parallel_size": 2, "distributed_executor_backend": "ray"})],
    ),
    "two hosts, half of the GPUs each": (
        a100x8,
        [deployment(engine_args={"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "nnodes": 2})],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_host_in_order_has_no_finding(name: str) -> None:
    host, deployments = GOOD[name]
    assert findings(HOST, complete(*deployments), host(), {}) == []


D = deployment(engine_args=TP4)
R580 = "R580 (580.65.06) or newer"
OLD = {"version": "535.161.08", "cuda": "12.2"}
AN_APP = {"addresses": ["0.0.0.0"], "pid": 812, "process": "nginx", "container": ""}


def driver(host: dict[str, Any], version: str, cuda: str) -> None:
    host["gpu"]["driver"].update(version=version, cuda=cuda, kernel_version=version, library_version=version)
    if host["gpu"]["nvswitch"]["present"]:
        host["gpu"]["nvswitch"]["fabric_manager"]["version"] = version


def first(host: dict[str, Any], **values: Any) -> None:
    host["gpu"]["gpus"][0].update(values)


def mig(host: dict[str, Any]) -> None:
    device = {
        "uuid": "MIG-1",
        "profile": "3g.40gb",
        "gpu_instance": 1,
        "compute_instance": 0,
        "memory": {"total": 40 * GIB, "used": 0, "free": 40 * GIB},
    }
    first(host, mig={"enabled": True, "pending": True, "devices": [device]})


# Name: (a host in order, what is changed, deployments, settings, code, severity, sentence).
BROKEN: dict[str, tuple[Any, ...]] = {
    "another system": (
        a100x8,
        lambda h: h["system"].update(platform="Darwin", architecture="arm64"),
        [D],
        {},
        "os_unsupported",
        "error",
        "it is Darwin on arm64: vLLM in Docker runs on Linux, on x86_64 and aarch64",
    ),
    "a distribution without Docker": (
        a100x8,
        lambda h: h["system"].update(id="arch", id_like=[], name="Arch Linux"),
        [D],
        {},
        "os_unsupported",
        "error",
        (
            "it runs Arch Linux and has no Docker, which the roles install on Debian, Ubuntu and the RHEL "
            "family: install Docker there first"
        ),
    ),
    "a distribution with Docker": (
        lambda: whole(serving(a100x8())),
        lambda h: h["system"].update(id="arch", id_like=[], name="Arch Linux"),
        [D],
        {},
        "os_unsupported",
        "warning",
        "it runs Arch Linux, on which the roles have not been tried: try it on one host first (--limit)",
    ),
    "no systemd": (
        rtx4090,
        lambda h: h["system"].update(service_manager=""),
        [deployment()],
        {},
        "no_service_manager",
        "warning",
        "systemd does not run, so nothing starts Docker and readies the GPUs after a reboot: see to that yourself",
    ),
    "a clock that is a little off": (
        cpu,
        lambda h: h.update(clock_offset=-45.0),
        [deployment(gpus="none")],
        {},
        "clock",
        "warning",
        "its clock is 45 s behind the controller's: set it, and let NTP keep it (timedatectl set-ntp true)",
    ),
    "a clock that is off": (
        cpu,
        lambda h: h.update(clock_offset=4000.0),
        [deployment(gpus="none")],
        {},
        "clock",
        "error",
        (
            "its clock is 66 minutes ahead of the controller's, with which TLS fails: set it, and let NTP "
            "keep it (timedatectl set-ntp true)"
        ),
    ),
    "little memory": (
        cpu,
        lambda h: (h["memory"].update(total=3 * GIB), h["models"][0].update(files={})),
        [deployment(gpus="none", shm_size="1g", tmp_size="1g")],
        {},
        "memory",
        "warning",
        "it has 3.2 GB of memory: take a host with 4.0 GB or more",
    ),
    "a limit beyond the memory": (
        cpu,
        lambda h: h["memory"].update(total=64 * GIB),
        [deployment(gpus="none", memory="100g")],
        {},
        "memory",
        "error",
        "memory is limited to 107.4 GB and the host has 68.7 GB: lower memory, or take another host",
    ),
    "shared memory beyond it": (
        t4,
        lambda h: h["memory"].update(total=16 * GIB),
        [deployment()],
        {},
        "shm",
        "warning",
        "shm_size and tmp_size may take 19.3 GB of memory together and the host has 17.2 GB: lower shm_size",
    ),
    "no Docker to be installed": (
        a100x8,
        lambda h: None,
        [D],
        {"install_docker": False},
        "docker_missing",
        "error",
        ("it has no Docker and docker_engine_install is false: install Docker, or set docker_engine_install to true"),
    ),
    "an old Docker": (
        t4,
        lambda h: h["docker"].update(version="19.03.15"),
        [deployment()],
        {},
        "docker_too_old",
        "error",
        "its Docker is 19.03.15: bring it to 20.10 or newer",
    ),
    "a Docker without CDI": (
        t4,
        lambda h: None,
        [deployment()],
        {"toolkit_mode": "cdi"},
        "docker_too_old",
        "error",
        (
            "its Docker is 20.10.24+dfsg1, and nvidia_container_toolkit_mode is cdi: bring it to 26.1 or "
            "newer, or set the mode to auto"
        ),
    ),
    "vfs": (
        t4,
        lambda h: h["docker"].update(storage_driver="vfs"),
        [deployment()],
        {},
        "docker_storage_driver",
        "warning",
        (
            "Docker keeps images with vfs, which is slow and takes many times their size: use overlay2 "
            "(storage-driver in /etc/docker/daemon.json; images have to be pulled again)"
        ),
    ),
    "rootless": (
        t4,
        lambda h: h["docker"].update(rootless=True),
        [deployment()],
        {},
        "docker_rootless",
        "warning",
        "Docker runs without root, which the roles have not been tried with: use a Docker that runs as root",
    ),
    "no GPU": (
        rtx4090,
        lambda h: h.update(gpu=gpu_info([], "", "")),
        [deployment()],
        {},
        "no_gpu",
        "error",
        (
            "the host has no NVIDIA GPU and gpus is all: take it out of hosts, or serve on its CPU with gpus "
            "none and an image for CPUs"
        ),
    ),
    "no driver": (
        rtx4090,
        lambda h: h.update(gpu={**gpu_info([], "", ""), "pci_gpus": 2}),
        [deployment()],
        {},
        "no_gpu",
        "error",
        (
            f"2 NVIDIA GPUs are on the PCI bus and no NVIDIA driver is loaded: install the driver, {R580} for "
            f"CUDA 13.0 of the image"
        ),
    ),
    "a driver that shows nothing": (
        rtx4090,
        lambda h: h.update(gpu={**gpu_info([]), "pci_gpus": 1, "problems": ["the GPU has fallen off the bus: reboot"]}),
        [deployment()],
        {},
        "no_gpu",
        "error",
        "the NVIDIA driver 580.95.05 is loaded and shows no GPU: the GPU has fallen off the bus: reboot",
    ),
    "a GPU that is lost": (
        a100x8,
        lambda h: h["gpu"]["problems"].append(
            "9 NVIDIA GPUs are on the PCI bus and nvidia-smi shows 8: look for NVRM and Xid in dmesg"
        ),
        [D],
        {},
        "gpu_problem",
        "warning",
        "9 NVIDIA GPUs are on the PCI bus and nvidia-smi shows 8: look for NVRM and Xid in dmesg",
    ),
    "a driver that was upgraded and not loaded": (
        rtx4090,
        lambda h: h["gpu"]["driver"].update(mismatch=True, library_version="580.105.08"),
        [deployment()],
        {},
        "driver_mismatch",
        "error",
        (
            "the kernel has the NVIDIA driver 580.95.05 loaded and its library is 580.105.08, so no "
            "container with GPUs starts: reboot the host"
        ),
    ),
    "an old driver of a GeForce": (
        rtx4090,
        lambda h: driver(h, "570.195.03", "12.8"),
        [deployment()],
        {},
        "driver_too_old",
        "error",
        (
            f"the NVIDIA driver 570.195.03 knows CUDA up to 12.8 and the image has 13.0: install the driver "
            f"{R580}, or take an image for the CUDA that the driver knows"
        ),
    ),
    "forward compatibility of a GeForce": (
        rtx4090,
        lambda h: driver(h, "570.195.03", "12.8"),
        [deployment(environment={"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"})],
        {},
        "driver_too_old",
        "error",
        (
            f"the NVIDIA driver 570.195.03 knows CUDA up to 12.8 and the image has 13.0, which "
            f"VLLM_ENABLE_CUDA_COMPATIBILITY does not bridge for this driver and NVIDIA GeForce RTX 4090: "
            f"install the driver {R580}, or take an image for the CUDA that the driver knows"
        ),
    ),
    "an old driver of a data centre": (
        a100x8,
        lambda h: driver(h, "535.161.08", "12.2"),
        [D],
        {},
        "driver_needs_forward_compatibility",
        "error",
        (
            f"the NVIDIA driver 535.161.08 knows CUDA up to 12.2 and the image has 13.0: install the driver "
            f"{R580}, or set VLLM_ENABLE_CUDA_COMPATIBILITY to 1 in environment, or take an image for the "
            f"CUDA that the driver knows"
        ),
    ),
    "a driver of a branch without forward compatibility": (
        a100x8,
        lambda h: driver(h, "560.35.03", "12.6"),
        [D],
        {},
        "driver_too_old",
        "error",
        (
            f"the NVIDIA driver 560.35.03 knows CUDA up to 12.6 and the image has 13.0: install the driver "
            f"{R580}, or take an image for the CUDA that the driver knows"
        ),
    ),
    "minor version compatibility": (
        rtx4090,
        lambda h: driver(h, "550.163.01", "12.4"),
        [deployment(image="vllm/vllm-openai:v0.32.0-cu129")],
        {},
        "driver_minor",
        "warning",
        (
            "the NVIDIA driver 550.163.01 knows CUDA up to 12.4 and the image has 12.9, so that what is "
            "compiled at run time may fail: install the driver R575 (575.51.03) or newer if it does"
        ),
    ),
    "an image that the toolkit will not start": (
        rtx4090,
        lambda h: (
            driver(h, "570.195.03", "12.8"),
            h["docker"]["images"].update(
                {
                    IMAGE: {
                        "id": "",
                        "size": 1,
                        "environment": {"CUDA_VERSION": "12.9.1", "NVIDIA_REQUIRE_CUDA": REQUIRE_129},
                    }
                }
            ),
        ),
        [deployment()],
        {},
        "cuda_requirement",
        "error",
        (
            "the NVIDIA driver 570.195.03 does not meet the image's condition cuda>=12.9 for NVIDIA GeForce "
            "RTX 4090, so that the container toolkit refuses to start it: install the driver R575 "
            "(575.51.03) or newer, take another image, or set NVIDIA_DISABLE_REQUIRE to 1 in environment if "
            "you know that it runs"
        ),
    ),
    "a Volta": (
        t4,
        lambda h: first(h, name="Tesla V100-SXM2-16GB", compute_capability="7.0"),
        [deployment()],
        {},
        "compute_capability",
        "error",
        (
            "Tesla V100-SXM2-16GB has the compute capability 7.0 and vLLM 0.32.0 needs 7.5: take a newer "
            "GPU, or vLLM before 0.20.0"
        ),
    ),
    "AWQ on a Volta": (
        t4,
        lambda h: first(h, name="Tesla V100-SXM2-16GB", compute_capability="7.0"),
        [deployment(image="vllm/vllm-openai:v0.9.2", engine_args={"quantization": "awq"})],
        {},
        "compute_capability",
        "error",
        (
            "Tesla V100-SXM2-16GB has the compute capability 7.0 and quantization awq needs 7.5: take a "
            "newer GPU, or a model that is quantized otherwise"
        ),
    ),
    "bfloat16 on a T4": (
        t4,
        lambda h: None,
        [deployment(engine_args={"dtype": "bfloat16"})],
        {},
        "compute_capability",
        "error",
        "Tesla T4 has the compute capability 7.5 and dtype bfloat16 needs 8.0: set dtype to half",
    ),
    "too few": (
        rtx4090,
        lambda h: None,
        [deployment(gpus=2)],
        {},
        "too_few_gpus",
        "error",
        "gpus asks for 2 and the host has 1: lower gpus, or take another host",
    ),
    "an index that is not there": (
        rtx4090,
        lambda h: None,
        [deployment(gpus=[0, 3])],
        {},
        "too_few_gpus",
        "error",
        "gpus names 3 and the host has the GPU 0: name GPUs that it has, by index or UUID (nvidia-smi -L)",
    ),
    "a model that is spread too wide": (
        a100x8,
        lambda h: h["gpu"]["gpus"].__delitem__(slice(4, 8)),
        [deployment(engine_args={"tensor_parallel_size": 8})],
        {},
        "too_few_gpus",
        "error",
        (
            "engine_args spread the model over 8 GPUs (tensor_parallel_size 8, pipeline_parallel_size 1) and "
            "the host has 4: lower tensor_parallel_size, or take another host"
        ),
    ),
    "a whole GPU that is divided": (
        a100x8,
        mig,
        [deployment(gpus=[0])],
        {},
        "mig_mode",
        "error",
        (
            "GPU 0 is divided by MIG and gpus asks for the whole: name MIG devices in gpus (MIG-1), or turn "
            "MIG off (nvidia-smi -mig 0)"
        ),
    ),
    "a MIG device that is not there": (
        a100x8,
        mig,
        [deployment(gpus=["MIG-2"])],
        {},
        "mig_mode",
        "error",
        (
            "gpus names the MIG device MIG-2 and the host has MIG-1: name one that it has, or make it "
            "(nvidia-smi mig -cgi ... -C)"
        ),
    ),
    "a prohibited GPU": (
        rtx4090,
        lambda h: first(h, compute_mode="Prohibited"),
        [deployment()],
        {},
        "compute_mode",
        "error",
        (
            "the compute mode of GPU 0 is Prohibited, which lets in no process: set it to Default "
            "(nvidia-smi -c DEFAULT)"
        ),
    ),
    "no Fabric Manager": (
        h100x8,
        lambda h: h["gpu"]["nvswitch"]["fabric_manager"].update(installed=False, version=""),
        [D],
        {},
        "fabric_manager",
        "error",
        (
            "the host has NVSwitches and no Fabric Manager, without which CUDA does not start: install "
            "nvidia-fabricmanager 580.95.05, the version of the driver, and start it"
        ),
    ),
    "a Fabric Manager of another version": (
        h100x8,
        lambda h: h["gpu"]["nvswitch"]["fabric_manager"].update(version="580.82.07"),
        [D],
        {},
        "fabric_manager",
        "error",
        (
            "the Fabric Manager is 580.82.07 and the NVIDIA driver 580.95.05, with which it does not work: "
            "install the same version of both"
        ),
    ),
    "a Fabric Manager that is stopped": (
        h100x8,
        lambda h: h["gpu"]["nvswitch"]["fabric_manager"].update(active=False),
        [D],
        {},
        "fabric_manager",
        "error",
        (
            "the Fabric Manager does not run, without which CUDA does not start: start it (systemctl enable "
            "--now nvidia-fabricmanager)"
        ),
    ),
    "a fabric that is not ready": (
        h100x8,
        lambda h: first(h, fabric={"state": "In Progress", "status": ""}),
        [D],
        {},
        "fabric_manager",
        "error",
        (
            "the NVLink fabric of GPU 0 is In Progress: wait until it is Completed, or look at the log of "
            "nvidia-fabricmanager"
        ),
    ),
    "memory of a GPU that a stranger holds": (
        rtx4090,
        lambda h: taken(h, 20),
        [deployment()],
        {},
        "gpu_memory_taken",
        "error",
        (
            "GPU 0 has 4.0 of 24.0 GiB free and gpu_memory_utilization 0.92 needs 22.1: stop what holds the "
            "rest (python3, pid 4711 with 20.0 GiB), or set gpu_memory_utilization to 0.16 or less"
        ),
    ),
    "memory of a GPU that a strange container holds": (
        a100x8,
        lambda h: (
            taken(h, 60, OTHER, 99, "ollama"),
            h["docker"]["containers"].append({"id": OTHER, "name": "ollama", "labels": {}, "ports": []}),
        ),
        [D],
        {},
        "gpu_memory_taken",
        "error",
        (
            "GPU 0 has 20.0 of 80.0 GiB free and gpu_memory_utilization 0.92 needs 73.6: stop what holds the "
            "rest (ollama, pid 99 in the container ollama with 60.0 GiB), or set gpu_memory_utilization to "
            "0.25 or less"
        ),
    ),
    "memory of a GPU that another inventory's container holds": (
        lambda: whole(serving(a100x8(), "llama", 70)),
        lambda h: (
            h["docker"]["containers"][0].update(name="theirs", ports=[]),
            h["docker"]["containers"][0]["labels"].update({"llmops.vllm.home": "/srv/other"}),
            h.update(ports={}),
        ),
        [D],
        {},
        "gpu_memory_taken",
        "error",
        (
            "GPU 0 has 10.0 of 80.0 GiB free and gpu_memory_utilization 0.92 needs 73.6: stop what holds the "
            "rest (python3, pid 4711 in the container theirs with 70.0 GiB), or set gpu_memory_utilization "
            "to 0.12 or less"
        ),
    ),
    "weights that are too big": (
        rtx4090,
        lambda h: h["models"][0].update(files={"config.json": 1, "model.safetensors": 36 * GB}),
        [deployment()],
        {},
        "weights_too_big",
        "error",
        (
            "the weights are 33.5 GiB and 0.92 of 1 GPU (gpu_memory_utilization) is 22.1 GiB: give it more "
            "GPUs (gpus, tensor_parallel_size), or take a smaller or a quantized model"
        ),
    ),
    "weights that are too big for one of eight": (
        a100x8,
        lambda h: h["models"][0]["files"].update({"model-1.safetensors": 100 * GB}),
        [deployment()],
        {},
        "weights_too_big",
        "error",
        (
            "the weights are 108.0 GiB and 0.92 of 1 GPU (gpu_memory_utilization) is 73.6 GiB: give it more "
            "GPUs (gpus, tensor_parallel_size), or take a smaller or a quantized model"
        ),
    ),
    "weights that are too big unless they are halved": (
        rtx4090,
        lambda h: h["models"][0].update(repo_id="org/name", files={"config.json": 1, "model.safetensors": 30 * GB}),
        [deployment(model={"repo_id": "org/name"})],
        {},
        "weights_too_big",
        "warning",
        (
            "the weights are 27.9 GiB and 0.92 of 1 GPU (gpu_memory_utilization) is 22.1 GiB: give it more "
            "GPUs (gpus, tensor_parallel_size), or take a smaller or a quantized model; if they are float32, "
            "they take half of it"
        ),
    ),
    "weights that are too big for the memory": (
        cpu,
        lambda h: h["models"][0]["files"].update({"model.safetensors": 80 * GB}),
        [deployment(gpus="none", memory="32g")],
        {},
        "weights_too_big",
        "error",
        (
            "the weights are 74.5 GiB and memory is limited to 32.0 GiB: take a smaller or a quantized "
            "model, or raise memory"
        ),
    ),
    "no container toolkit": (
        rtx4090,
        lambda h: None,
        [deployment()],
        {"manage_toolkit": False},
        "container_toolkit",
        "error",
        (
            "it has no NVIDIA Container Toolkit, without which no container gets a GPU: install it, or set "
            "vllm_manage_toolkit to true"
        ),
    ),
    "a toolkit for Docker without root": (
        rtx4090,
        lambda h: h["gpu"]["toolkit"].update(no_cgroups=True),
        [deployment()],
        {},
        "no_cgroups",
        "error",
        (
            "no-cgroups is true in /etc/nvidia-container-runtime/config.toml, with which containers may not "
            "use the GPUs that they see: set it to false; it is for Docker without root"
        ),
    ),
    "stale CDI devices": (
        rtx4090,
        lambda h: h["gpu"]["cdi"].update(missing=["GPU-0000-0"]),
        [deployment()],
        {},
        "cdi_stale",
        "warning",
        (
            "the CDI devices lack GPU-0000-0: write them anew (systemctl restart nvidia-cdi-refresh, or "
            "nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml)"
        ),
    ),
    "no room for the image": (
        a100x8,
        lambda h: h.update(
            filesystems=[disk("/var/lib/docker", 20), disk("/home/llm/vllm/model", 500, "/dev/sdb1", "/home")]
        ),
        [D],
        {},
        "disk_image",
        "error",
        "/ has 20.0 GB free and images need 30.0 GB: free 10.0 GB there, or use another disk",
    ),
    "no room for the snapshot": (
        a100x8,
        lambda h: h.update(
            filesystems=[disk("/var/lib/docker", 50), disk("/home/llm/vllm/model", 30, "/dev/sdb1", "/home")]
        ),
        [D],
        {},
        "disk_snapshot",
        "error",
        "/home has 30.0 GB free and snapshots need 36.0 GB: free 6.0 GB there, or use another disk",
    ),
    "no room for both": (
        a100x8,
        lambda h: h.update(filesystems=[disk("/var/lib/docker", 50), disk("/home/llm/vllm/model", 50)]),
        [D],
        {},
        "disk_snapshot",
        "error",
        (
            "/ has 50.0 GB free and images need 30.0 GB and snapshots 36.0 GB of it: free 16.0 GB there, or "
            "use another disk"
        ),
    ),
    "a disk with errors": (
        a100x8,
        lambda h: h.update(
            filesystems=[
                disk("/var/lib/docker", 500),
                disk("/home/llm/vllm/model", 500, "/dev/sdb1", "/home", read_only=True),
            ]
        ),
        [D],
        {},
        "disk_read_only",
        "error",
        (
            "/home is mounted read-only and snapshots go to /home/llm/vllm/model: mount it for writing (a "
            "disk with errors is remounted like that: see dmesg)"
        ),
    ),
    "weights on NFS": (
        a100x8,
        lambda h: h["filesystems"][1].update(type="nfs4", network=True, device="0:44", mount="/home"),
        [D],
        {},
        "disk_network",
        "warning",
        (
            "/home/llm/vllm/model is on a network file system (nfs4), from which weights load slowly: use a "
            "local disk, or set safetensors_load_strategy to prefetch in engine_args where vLLM has it"
        ),
    ),
    "a port of a process": (
        a100x8,
        lambda h: h["ports"].update({"30080": AN_APP}),
        [D],
        {},
        "port_taken",
        "error",
        "nginx (pid 812) holds the port 30080: choose another port, or stop what holds it",
    ),
    "a port of a strange container": (
        a100x8,
        lambda h: h["ports"].update({"30080": {**AN_APP, "container": "grafana"}}),
        [D],
        {},
        "port_taken",
        "error",
        "the container grafana holds the port 30080: choose another port, or stop what holds it",
    ),
    "a port of a deployment that is gone": (
        lambda: whole(serving(a100x8(), "mistral", 0)),
        lambda h: None,
        [D],
        {},
        "port_taken",
        "error",
        "the container mistral holds the port 30080: choose another port, or stop what holds it",
    ),
    "an address of another host": (
        cpu,
        lambda h: None,
        [deployment(gpus="none", listen="192.0.2.12", allow_unauthenticated=True)],
        {},
        "address_unknown",
        "error",
        "listen is 192.0.2.12 and the host has 127.0.0.1, 192.0.2.11: set listen (or, for 'internal', "
        "vllm_internal_address) to one of them",
    ),
    "no Hub": (
        a100x8,
        lambda h: h["models"][0].update(status=0, error="connection refused", files={}),
        [D],
        {},
        "hub_unreachable",
        "error",
        (
            "the Hub at https://huggingface.co cannot be asked for org/llama-70b-awq (connection refused): "
            "let the host reach it, or name a mirror that it reaches as vllm_hub_endpoint"
        ),
    ),
    "a Hub in trouble": (
        a100x8,
        lambda h: h["models"][0].update(status=503, error="HTTP status 503", files={}),
        [D],
        {},
        "hub_unreachable",
        "warning",
        (
            "the Hub at https://huggingface.co cannot be asked for org/llama-70b-awq (HTTP status 503): let "
            "the host reach it, or name a mirror that it reaches as vllm_hub_endpoint"
        ),
    ),
    "a gated model": (
        a100x8,
        lambda h: h["models"][0].update(refusal="gated"),
        [D],
        {},
        "model_gated",
        "error",
        (
            "org/llama-70b-awq on https://huggingface.co is gated: accept its terms at "
            "https://huggingface.co/org/llama-70b-awq and set vllm_hub_token to a token of that account"
        ),
    ),
    "a model that is not there": (
        a100x8,
        lambda h: h["models"][0].update(refusal="not_found", files={}),
        [D],
        {},
        "model_not_found",
        "error",
        (
            "org/llama-70b-awq on https://huggingface.co does not exist, or is private: correct repo_id, or "
            "set vllm_hub_token to a token that may read it"
        ),
    ),
    "a revision that is not there": (
        a100x8,
        lambda h: h["models"][0].update(refusal="revision", commit="", files={}),
        [D],
        {},
        "model_not_found",
        "error",
        (
            "org/llama-70b-awq on https://huggingface.co has no revision 'main': name a branch, a tag or a "
            "full commit of it, or resolve it anew with -e vllm_update=true"
        ),
    ),
    "a token that is refused": (
        a100x8,
        lambda h: h["models"][0].update(refusal="token", files={}),
        [D],
        {},
        "token_refused",
        "error",
        (
            "the token was refused for org/llama-70b-awq on https://huggingface.co: correct vllm_hub_token "
            "or vllm_hub_token_file"
        ),
    ),
    "a token that may not": (
        a100x8,
        lambda h: h["models"][0].update(refusal="forbidden", files={}),
        [D],
        {},
        "token_refused",
        "error",
        "org/llama-70b-awq on https://huggingface.co is forbidden: set vllm_hub_token to a token that may read it",
    ),
    "pickled weights alone": (
        a100x8,
        lambda h: h["models"][0].update(files={"config.json": 1, "pytorch_model.bin": 5}),
        [D],
        {},
        "model_files",
        "error",
        (
            "org/llama-70b-awq has pickled weights only (pytorch_model.bin), which can run code when they "
            "are loaded: choose a repository with safetensors, or set weights to 'any' if you trust its "
            "authors"
        ),
    ),
    "no registry": (
        a100x8,
        lambda h: h["registries"][0].update(status=0, error="no answer within 10 s"),
        [D],
        {},
        "registry_unreachable",
        "error",
        (
            "vllm/vllm-openai:v0.32.0 cannot be pulled from registry-1.docker.io (no answer within 10 s): "
            "let the host reach it, let another host bring the image (vllm_image_builder), or load it from a "
            "file (vllm_image_source: archive)"
        ),
    ),
    "no registry that is seen, but mirrors": (
        t4,
        lambda h: (
            h["registries"][0].update(status=0, error="connection refused"),
            h["docker"].update(registry_mirrors=["https://mirror.example.com"]),
        ),
        [deployment()],
        {},
        "registry_unreachable",
        "warning",
        (
            "vllm/vllm-openai:v0.32.0 cannot be pulled from registry-1.docker.io (connection refused): let "
            "the host reach it, let another host bring the image (vllm_image_builder), or load it from a "
            "file (vllm_image_source: archive)"
        ),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_host_that_is_not_in_order(name: str) -> None:
    host, change, deployments, settings, code, severity, sentence = BROKEN[name]
    found = findings(HOST, complete(*deployments), changed(host(), change), settings)
    assert [(one["code"], one["severity"], under_test.sentence(one)) for one in found] == [(code, severity, sentence)]
    (one,) = found
    assert one["host"] == HOST
    assert one["deployment"] in ("", "llama")


def test_a_gpu_for_one_process_alone_that_two_deployments_get() -> None:
    host = changed(a100x8(), lambda h: first(h, compute_mode="Exclusive_Process"))
    found = findings(HOST, complete(*shared(0.45, gpus=[0])), host, {})
    assert [(one["code"], one["deployment"]) for one in found] == [
        ("compute_mode", "llama"),
        ("compute_mode", "mistral"),
    ]
    assert found[0]["text"] == "the compute mode of GPU 0 is Exclusive_Process and mistral gets it as well"


def documented() -> str:
    page = (PROJECT / "docs/preflight.md").read_text()
    return page[page.index("## What is found") : page.index("## The driver")]


def test_every_code_is_tested_and_documented() -> None:
    assert {row[4] for row in BROKEN.values()} == set(CODES)
    table = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", documented(), re.MULTILINE))
    assert table == CODES


def test_every_severity_that_is_documented_is_found() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| .*? \| ([a-z, ]+) \|$", documented(), re.MULTILINE))
    found: dict[str, set[str]] = {}
    for row in BROKEN.values():
        found.setdefault(row[4], set()).add(row[5])
    assert {code: set(text.split(", ")) for code, text in table.items()} == found


def test_errors_come_first_and_all_at_once() -> None:
    host = changed(
        rtx4090(),
        lambda h: (taken(h, 20), h["system"].update(service_manager=""), h["ports"].update({"30080": AN_APP})),
    )
    found = findings(HOST, complete(deployment()), host, {})
    assert [one["code"] for one in found] == ["gpu_memory_taken", "port_taken", "no_service_manager"]


def test_a_deployment_of_another_host_is_none_of_its_business() -> None:
    elsewhere = of_hosts(["gpu2"], deployment(gpus=64))
    assert findings(HOST, elsewhere, rtx4090(), {}) == []


def test_the_host_that_brings_images_has_room_for_those_of_all() -> None:
    elsewhere = of_hosts(
        ["gpu2"], deployment(image="a:1", gpus=[0]), deployment("other", port=1, image="b:1", gpus=[1])
    )
    host = changed(
        cpu(), lambda h: h.update(models=[], filesystems=[disk("/var/lib/docker", 50), disk("/home/llm/vllm/model", 1)])
    )
    found = findings(HOST, elsewhere, host, {"image_builder": HOST})
    assert [one["text"] for one in found] == ["/ has 50.0 GB free and images need 60.0 GB"]
    assert findings(HOST, elsewhere, host, {"image_builder": "gpu3"}) == []
    assert findings(HOST, elsewhere, host, {"image_builder": HOST, "image_source": "build"}) == []
    assert findings(HOST, elsewhere, host, {"image_builder": HOST, "image_source": "wheels"}) == []


def test_the_size_of_an_image_can_be_set() -> None:
    host = changed(
        a100x8(),
        lambda h: h.update(filesystems=[disk("/var/lib/docker", 20), disk("/home/llm/vllm/model", 500, "/dev/sdb1")]),
    )
    assert findings(HOST, complete(D), host, {"image_size": 10 * GB}) == []


def test_containerds_images_are_where_it_keeps_them() -> None:
    host = changed(
        a100x8(),
        lambda h: (
            h["docker"].update(image_dir="/var/lib/containerd"),
            h["filesystems"].append(disk("/var/lib/containerd", 5, "/dev/sdc1", "/var/lib/containerd")),
        ),
    )
    assert [one["text"] for one in findings(HOST, complete(D), host, {})] == [
        "/var/lib/containerd has 5.0 GB free and images need 30.0 GB"
    ]


def test_files_that_other_snapshots_have_need_no_room() -> None:
    host = changed(
        a100x8(),
        lambda h: (
            h["models"][0].update(present=["model-1.safetensors", "model-2.safetensors"]),
            h.update(filesystems=[disk("/var/lib/docker", 31), disk("/home/llm/vllm/model", 31)]),
        ),
    )
    assert findings(HOST, complete(D), host, {}) == []


def test_a_process_whose_memory_is_not_told_is_no_guess() -> None:
    host = serving(a100x8(), used=70)
    host["gpu"]["gpus"][0]["processes"][0]["memory"] = None
    assert findings(HOST, complete(D), host, {}) == []


def test_the_switch_of_the_condition() -> None:
    deployments = [deployment(environment={"NVIDIA_DISABLE_REQUIRE": True})]
    host = changed(
        rtx4090(),
        lambda h: (
            driver(h, "570.195.03", "12.8"),
            h["docker"]["images"].update(
                {
                    IMAGE: {
                        "id": "",
                        "size": 1,
                        "environment": {"CUDA_VERSION": "12.9.1", "NVIDIA_REQUIRE_CUDA": REQUIRE_129},
                    }
                }
            ),
        ),
    )
    assert [one["code"] for one in findings(HOST, complete(*deployments), host, {})] == ["driver_minor"]


def test_nothing_that_was_seen_is_changed() -> None:
    host, deployments = serving(a100x8()), complete(D)
    before = copy.deepcopy((host, deployments))
    findings(HOST, deployments, host, {})
    assert (host, deployments) == before


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16g", 16 * GIB),
        ("512m", 512 * 2**20),
        ("1.5GiB", 3 * GIB // 2),
        ("100", 100),
        ("2gb", 2 * GIB),
        ("", 0),
        ("much", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


def test_weights_are_counted_once() -> None:
    def files(**sizes: int) -> list[Any]:
        return [under_test.HubFile(name.replace("_", ".", 1), size, None, "") for name, size in sizes.items()]

    assert weights_size(files(model_safetensors=3, consolidated_safetensors=3)) == 3
    assert weights_size(files(consolidated_safetensors=3)) == 3
    assert weights_size(files(weights_gguf=3, other_gguf=4)) == 0
    assert weights_size([under_test.HubFile("onnx/model.safetensors", 3, None, "")]) == 0
