"""Tests of the module gpu_info on a host made of a folder and of tools that print what nvidia-smi and others print."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.llmops.vllm.plugins.module_utils import _gpu, _gpu_host, _nvml
from ansible_collections.llmops.vllm.plugins.modules import gpu_info

DATA = Path(__file__).parents[1] / "data" / "nvidia_smi"
MIB = 2**20
CAPABILITIES = "--query-gpu=index,uuid,compute_cap --format=csv,noheader"
ONE, TWO = "1f" * 32, "2e" * 32
NO_GPU = "no NVIDIA GPU is on the PCI bus and no NVIDIA driver is loaded: this host can serve on its CPU alone"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (a@b)  Tue Sep 23 2025\n"
CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Fri Jan 10 20:00:00 UTC 2025\nGCC version:  12.2.0\n"
)


def read(name: str) -> str:
    return (DATA / name).read_text()


class Machine:
    """A host: a folder with its files, and one with its tools."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.root.mkdir()
        self.bin.mkdir()

    def file(self, name: str, text: str = "") -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tool(self, name: str, answers: dict[str, Any] | None = None) -> None:
        """A tool that prints, for its arguments, a text or (exit code, stdout, stderr), and fails for all others."""
        lines = ["#!/bin/sh", 'case "$*" in']
        for number, (arguments, answer) in enumerate((answers or {}).items()):
            code, output, errors = (0, answer, "") if isinstance(answer, str) else answer
            for stream, text in (("out", output), ("err", errors)):
                (self.bin / f"{name}.{number}.{stream}").write_text(text)
            printed = f"/bin/cat '{self.bin}/{name}.{number}.out'; /bin/cat '{self.bin}/{name}.{number}.err' >&2"
            lines.append(f"{shlex.quote(arguments)}) {printed}; exit {code} ;;")
        self.script(name, "\n".join([*lines, "*) exit 64 ;;", "esac"]) + "\n")

    def script(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def pci(self, address: str, vendor: str = "0x10de", kind: str = "0x030200", driver: str = "") -> None:
        folder = f"sys/bus/pci/devices/{address}"
        self.file(folder + "/vendor", vendor + "\n")
        self.file(folder + "/class", kind + "\n")
        if driver:
            (self.root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
            (self.root / folder / "driver").symlink_to(self.root / "sys/bus/pci/drivers" / driver)

    def library(self, version: str, folder: str = "usr/lib/x86_64-linux-gnu") -> None:
        self.file(f"{folder}/libnvidia-ml.so.{version}")
        (self.root / folder / "libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{version}")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setattr(gpu_info.GpuInfo, "root", str(made.root))
    monkeypatch.setattr(_nvml, "pynvml", None)
    return made


@pytest.fixture
def look(machine: Machine, run_module: Any) -> Callable[..., dict[str, Any]]:
    def run(**params: Any) -> dict[str, Any]:
        result = run_module(gpu_info.main, **params)
        assert not result["failed"], result
        assert result["changed"] is False
        return result

    return run


def rtx_5090(machine: Machine) -> None:
    machine.tool("nvidia-smi", {"-q -x": read("580_rtx5090.xml"), CAPABILITIES: read("580_rtx5090.capabilities.csv")})
    machine.file("proc/driver/nvidia/version", OPEN)
    machine.library("580.95.05")
    machine.pci("0000:0b:00.0", kind="0x030000", driver="nvidia")
    machine.pci("0000:0b:00.1", kind="0x040300")
    machine.pci("0000:00:02.0", vendor="0x8086", kind="0x030000")


def test_a_host_in_order(machine: Machine, look: Any) -> None:
    rtx_5090(machine)
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap1", "null"):
        machine.file("dev/" + name)
    machine.file("proc/9120/cgroup", f"0::/system.slice/docker-{ONE}.scope\n")
    machine.file("proc/3301/cgroup", "0::/user.slice/user-1000.slice/session-2.scope\n")
    machine.tool(
        "nvidia-ctk",
        {
            "--version": "NVIDIA Container Toolkit CLI version 1.20.0\ncommit: f202b80a\n",
            "cdi list": (0, "nvidia.com/gpu=0\nnvidia.com/gpu=all\n", 'level=info msg="Found 2 CDI devices"\n'),
        },
    )
    for name in ("nvidia-container-runtime-hook", "nvidia-container-runtime", "nvidia-container-cli"):
        machine.tool(name)
    machine.file("etc/nvidia-container-runtime/config.toml", "[nvidia-container-cli]\n#no-cgroups = true\n")
    machine.file("var/run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\n")
    machine.file("etc/cdi/other.json", '{"kind": "example.com/net"}\n')
    machine.tool(
        "systemctl",
        {
            "is-active nvidia-fabricmanager": (3, "inactive\n", ""),
            "is-enabled nvidia-cdi-refresh.path": "enabled\n",
        },
    )
    found = look()
    (gpu,) = found.pop("gpus")
    assert (gpu["name"], gpu["compute_capability"], gpu["memory"]["free"]) == (
        "NVIDIA GeForce RTX 5090", "12.0", 2978 * MIB,
    )  # fmt: skip
    assert [process["container"] for process in gpu["processes"]] == ["", "", ONE]
    for key in ("failed", "output", "changed", "invocation"):
        found.pop(key, None)
    assert found == {
        "source": "nvidia-smi",
        "driver": {
            "version": "580.95.05",
            "cuda": "13.0",
            "open_kernel_module": True,
            "loaded": True,
            "kernel_version": "580.95.05",
            "library_version": "580.95.05",
            "mismatch": False,
        },
        "topology": {"links": [], "nvlink": False},
        "nvswitch": {"present": False, "fabric_manager": {"installed": False, "version": "", "active": False}},
        "devices": ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"],
        "toolkit": {
            "version": "1.20.0",
            "hook": str(machine.bin / "nvidia-container-runtime-hook"),
            "runtime": str(machine.bin / "nvidia-container-runtime"),
            "ctk": str(machine.bin / "nvidia-ctk"),
            "cli": str(machine.bin / "nvidia-container-cli"),
            "no_cgroups": False,
        },
        "cdi": {
            "specs": ["/var/run/cdi/nvidia.yaml"],
            "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=all"],
            "refresh": "enabled",
            "missing": [],
        },
        "pci_gpus": 1,
        "problems": [],
    }


def test_a_host_with_nvswitches(machine: Machine, look: Any) -> None:
    machine.tool(
        "nvidia-smi",
        {
            "-q -x": read("535_a100x8.xml"),
            CAPABILITIES: read("535_a100x8.capabilities.csv"),
            "-L": read("535_a100x8.list.txt"),
            "topo -m": read("topo_8.txt"),
        },
    )
    machine.file("proc/driver/nvidia/version", CLOSED)
    machine.file("dev/nvidia-nvswitch0")
    machine.tool("nv-fabricmanager", {"--version": "\n\n\tFabric Manager version is : 535.161.08\n\n"})
    machine.tool("systemctl", {"is-active nvidia-fabricmanager": "active\n"})
    found = look()
    gpus = found["gpus"]
    devices = ["nvidia.com/gpu=" + gpu["uuid"] for gpu in gpus[1:]]
    machine.tool("nvidia-ctk", {"cdi list": "\n".join(devices) + "\n"})
    found = look()
    assert [gpu["index"] for gpu in found["gpus"]] == list(range(8))
    assert len(found["topology"]["links"]) == 28
    assert found["topology"]["links"][0] == {"between": [0, 1], "kind": "NV12"}
    assert found["topology"]["nvlink"] is True
    manager = {"installed": True, "version": "535.161.08", "active": True}
    assert found["nvswitch"] == {"present": True, "fabric_manager": manager}
    assert found["driver"]["open_kernel_module"] is False
    # GPU 0, and the parts of GPU 7, which is used by its parts alone.
    parts = [device["uuid"] for device in gpus[7]["mig"]["devices"]]
    assert found["cdi"]["missing"] == [gpus[0]["uuid"], *parts]
    assert found["problems"] == []


@pytest.mark.parametrize(
    ("nodes", "present"),
    [
        (["dev/nvidia-nvswitchctl"], False),
        (["dev/nvidia-nvswitchctl", "dev/nvidia-nvswitch3"], True),
        (["proc/driver/nvidia-nvswitch/devices/0000:c1:00.0"], True),
        ([], False),
    ],
)
def test_nvswitches(machine: Machine, look: Any, nodes: list[str], present: bool) -> None:
    for node in nodes:
        machine.file(node)
    assert look()["nvswitch"]["present"] is present


def test_a_host_without_gpus(machine: Machine, look: Any) -> None:
    found = look(source="nvidia-smi")
    assert (found["source"], found["gpus"], found["pci_gpus"], found["devices"]) == ("none", [], 0, [])
    assert found["driver"] == {
        "version": "",
        "cuda": "",
        "open_kernel_module": False,
        "loaded": False,
        "kernel_version": "",
        "library_version": "",
        "mismatch": False,
    }
    assert found["nvswitch"]["fabric_manager"] == {"installed": False, "version": "", "active": None}
    assert found["problems"] == [NO_GPU]


def test_check_mode_tells_the_same(machine: Machine, run_module: Any) -> None:
    rtx_5090(machine)
    for_real, checked = (run_module(gpu_info.main, check_mode=mode) for mode in (False, True))
    assert (checked["gpus"], checked["driver"]) == (for_real["gpus"], for_real["driver"])


NO_DRIVER = (9, read("error_no_driver.txt"), "")
INSTALL = "install the NVIDIA driver, or load it (modprobe nvidia)"


@pytest.mark.parametrize("tool", [None, {"-q -x": NO_DRIVER}], ids=["no nvidia-smi", "nvidia-smi"])
@pytest.mark.parametrize(
    ("drivers", "sentence"),
    [
        ([""], "1 NVIDIA GPU is on the PCI bus and no driver is loaded: " + INSTALL),
        (["", ""], "2 NVIDIA GPUs are on the PCI bus and no driver is loaded: " + INSTALL),
        (["nouveau"], "1 NVIDIA GPU is on the PCI bus and no driver is loaded but nouveau: " + INSTALL),
        (
            ["nouveau", "vfio-pci"],
            "2 NVIDIA GPUs are on the PCI bus and no driver is loaded but nouveau and vfio-pci: " + INSTALL,
        ),
        ([], NO_GPU),
    ],
)
def test_gpus_without_a_driver(machine: Machine, look: Any, tool: Any, drivers: list[str], sentence: str) -> None:
    for number, driver in enumerate(drivers):
        machine.pci(f"0000:0{number}:00.0", driver=driver)
    if tool:
        machine.tool("nvidia-smi", tool)
    found = look()
    assert found["problems"] == [sentence]
    assert (found["pci_gpus"], found["driver"]["loaded"], found["source"]) == (len(drivers), False, "none")


# what nvidia-smi answers, the sentence, or its beginning
BROKEN = [
    (None, "the NVIDIA driver 535.161.08 is loaded and nvidia-smi is not on the host: install the driver's utilities"),
    (
        NO_DRIVER,
        "nvidia-smi does not reach the NVIDIA driver 535.161.08, which is loaded ('NVIDIA-SMI has failed because it "
        "couldn't communicate with the NVIDIA driver'): look for NVRM in dmesg, and reboot the host",
    ),
    (
        (6, read("error_no_devices.txt"), ""),
        "the NVIDIA driver 535.161.08 finds no GPU that it can use, of 1 on the PCI bus ('No devices were found'): ",
    ),
    (
        (12, read("error_no_library.txt"), ""),
        "the NVIDIA driver 535.161.08 is loaded and its library libnvidia-ml.so.1 is not on the host (NVIDIA-SMI ",
    ),
    (
        (255, read("error_unknown.txt"), ""),
        "nvidia-smi tells nothing of the GPUs ('Failed to initialize NVML: Unknown Error'): look for NVRM in dmesg",
    ),
    ((139, "", ""), "nvidia-smi tells nothing of the GPUs ('nvidia-smi -q -x has printed no XML, exit code 139'): "),
    ((15, read("error_lost.txt"), ""), "the GPU 0000:01:00.0 does not answer (Unknown Error): look for its Xid"),
]


@pytest.mark.parametrize(("answer", "beginning"), BROKEN)
def test_a_driver_that_does_not_work(machine: Machine, look: Any, answer: Any, beginning: str) -> None:
    machine.file("proc/driver/nvidia/version", CLOSED)
    machine.pci("0000:01:00.0", driver="nvidia")
    if answer:
        machine.tool("nvidia-smi", {"-q -x": answer})
    found = look()
    (sentence,) = found["problems"]
    assert sentence.startswith(beginning)
    assert (found["source"], found["gpus"], found["driver"]["version"]) == ("none", [], "535.161.08")


def test_a_mismatch(machine: Machine, look: Any) -> None:
    machine.file("proc/driver/nvidia/version", CLOSED.replace("535.161.08", "535.154.05"))
    machine.library("535.161.08")
    machine.tool("nvidia-smi", {"-q -x": (18, read("error_mismatch.txt"), "")})
    found = look()
    driver = found["driver"]
    assert (driver["mismatch"], driver["kernel_version"], driver["library_version"]) == (
        True,
        "535.154.05",
        "535.161.08",
    )
    (sentence,) = found["problems"]
    assert sentence.startswith(
        "the kernel has the NVIDIA driver 535.154.05 loaded, and its library on the host is 535.161.08: reboot the host"
    )


def test_a_mismatch_that_only_the_files_show(machine: Machine, look: Any) -> None:
    rtx_5090(machine)
    machine.file("proc/driver/nvidia/version", OPEN.replace("580.95.05", "580.65.06"))
    found = look()
    assert found["driver"]["mismatch"] is True
    assert len(found["gpus"]) == 1
    assert len(found["problems"]) == 1


def test_fewer_gpus_than_on_the_bus(machine: Machine, look: Any) -> None:
    rtx_5090(machine)
    machine.pci("0000:41:00.0", driver="vfio-pci")
    found = look()
    assert found["problems"] == [
        "2 NVIDIA GPUs are on the PCI bus and nvidia-smi shows 1 (vfio-pci has some): look for NVRM and Xid in dmesg"
    ]


def test_a_tool_that_hangs_is_killed(machine: Machine, look: Any) -> None:
    pids = machine.bin / "pids"
    # It starts another process, which has its output as well.
    machine.script("nvidia-smi", f"#!/bin/sh\n/bin/sleep 60 &\necho $$ $! >>'{pids}'\nwait\n")
    machine.file("proc/driver/nvidia/version", CLOSED)
    before = time.monotonic()
    found = look(timeout=1)
    assert time.monotonic() - before < 10
    assert found["problems"] == [
        "'nvidia-smi -q -x' did not end within 1 s and was given up: the driver hangs, look for NVRM and Xid in dmesg, "
        "and reboot the host"
    ]
    assert (found["source"], found["gpus"]) == ("none", [])
    (asked,) = pids.read_text().splitlines()
    assert not any(runs(int(pid)) for pid in asked.split())


def test_another_tool_that_hangs_hides_nothing_else(machine: Machine, look: Any) -> None:
    rtx_5090(machine)
    machine.script(
        "nvidia-ctk",
        '#!/bin/sh\n[ "$1" = cdi ] && exec /bin/sleep 60\necho NVIDIA Container Toolkit CLI version 1.17.8\n',
    )
    found = look(timeout=1)
    assert found["toolkit"]["version"] == "1.17.8"
    assert (found["cdi"]["devices"], len(found["gpus"])) == ([], 1)
    assert found["problems"] == [
        "'nvidia-ctk cdi list' did not end within 1 s and was given up: run it by hand to see what it waits for, or "
        "raise the timeout"
    ]


def test_a_tool_that_cannot_be_started(machine: Machine, look: Any) -> None:
    machine.script("nvidia-smi", "#!/nowhere/interpreter\n")
    machine.file("proc/driver/nvidia/version", CLOSED)
    (sentence,) = look()["problems"]
    assert sentence.startswith("nvidia-smi tells nothing of the GPUs (")
    assert "No such file or directory" in sentence


def runs(pid: int) -> bool:
    """Whether a process is there and not merely unreaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Nvml:
    """Stands in for the module pynvml; _nvml.ask is what it answers, or raises, or hangs in."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def ask(self, lib: Any) -> Any:
        assert lib is self
        return self.answer() if callable(self.answer) else self.answer


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> Callable[[Any], None]:
    def use(answer: Any) -> None:
        made = Nvml(answer)
        monkeypatch.setattr(_nvml, "pynvml", made)
        monkeypatch.setattr(_nvml, "ask", made.ask)

    return use


def told(**values: Any) -> dict[str, Any]:
    return {**_gpu.told("nvml"), **values}


PROCESS = {"pid": 77, "name": "a", "type": "C", "memory": None}


@pytest.mark.parametrize("source", ["auto", "nvml"])
def test_nvml_is_asked_first(machine: Machine, nvml: Any, look: Any, source: str) -> None:
    rtx_5090(machine)
    machine.file("proc/77/cgroup", f"4:memory:/docker/{TWO}\n")
    gpu = _gpu.gpu(0, uuid="GPU-a", name="by NVML", processes=[dict(PROCESS)])
    nvml(told(gpus=[gpu], version="580.95.05", cuda="13.0"))
    found = look(source=source)
    assert (found["source"], found["gpus"][0]["name"]) == ("nvml", "by NVML")
    assert found["gpus"][0]["processes"] == [{**PROCESS, "container": TWO}]
    assert found["driver"]["cuda"] == "13.0"


def test_nvidia_smi_alone_is_asked_on_request(machine: Machine, nvml: Any, look: Any) -> None:
    rtx_5090(machine)
    nvml(told(gpus=[_gpu.gpu(0, name="by NVML")]))
    assert look(source="nvidia-smi")["gpus"][0]["name"] == "NVIDIA GeForce RTX 5090"


def crash() -> None:
    os._exit(3)


@pytest.mark.parametrize(
    "answer", [told(reason="no_library", text="NVML Shared Library Not Found"), told(), crash, lambda: 1 / 0]
)
def test_where_nvml_tells_nothing_nvidia_smi_is_asked(machine: Machine, nvml: Any, look: Any, answer: Any) -> None:
    rtx_5090(machine)
    nvml(answer)
    found = look()
    assert (found["source"], len(found["gpus"]), found["problems"]) == ("nvidia-smi", 1, [])


@pytest.mark.parametrize("source", ["auto", "nvml"])
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            told(reason="no_driver", text="Driver Not Loaded"),
            "nvml does not reach the NVIDIA driver 535.161.08, which is loaded ('Driver Not Loaded'): ",
        ),
        (crash, "nvml tells nothing of the GPUs ('NVML ended without an answer'): "),
        (
            told(reason="mismatch"),
            "the kernel has the NVIDIA driver 535.161.08 loaded, and its library on the host is ",
        ),
    ],
)
def test_what_nvml_says_is_told_where_there_is_no_nvidia_smi(
    machine: Machine, nvml: Any, look: Any, source: str, answer: Any, sentence: str
) -> None:
    machine.file("proc/driver/nvidia/version", CLOSED)
    nvml(answer)
    found = look(source=source)
    assert [one[: len(sentence)] for one in found["problems"]] == [sentence]
    assert (found["source"], found["driver"]["mismatch"]) == ("none", "mismatch" in str(answer))


def test_nvml_that_hangs_is_killed_and_nvidia_smi_not_tried(machine: Machine, nvml: Any, look: Any) -> None:
    rtx_5090(machine)
    pid = machine.bin / "pid"

    def hang() -> None:
        pid.write_text(str(os.getpid()))
        time.sleep(60)

    nvml(hang)
    found = look(timeout=1)
    assert found["problems"] == [
        "'NVML' did not end within 1 s and was given up: the driver hangs, look for NVRM and Xid in dmesg, and reboot "
        "the host"
    ]
    assert found["source"] == "none"
    assert not runs(int(pid.read_text()))


def test_nvml_without_pynvml_fails(machine: Machine, run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nvml, "PYNVML_ERROR", "ImportError: No module named 'pynvml'")
    failed = run_module(gpu_info.main, source="nvml")
    assert failed["failed"]
    assert "nvidia-ml-py" in failed["msg"]


def test_a_large_answer_comes_through_whole() -> None:
    answer = {"text": "x" * 1_000_000}
    assert _gpu_host.apart(lambda: answer, 20) == answer


CGROUPS = [
    (f"12:devices:/docker/{ONE}\n11:cpu:/docker/{ONE}\n0::/\n", ONE),
    (f"0::/system.slice/docker-{ONE}.scope\n", ONE),
    (f"0::/system.slice/docker-{ONE}.scope/init.scope\n", ONE),
    (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ONE}.scope\n", ONE),
    (f"11:cpu:/kubepods/burstable/pod1b2c3d4e-0000-1111-2222-333344445555/{ONE}\n", ONE),
    (f"0::/kubepods.slice/kubepods-pod1b2c.slice/cri-containerd-{ONE}.scope\n", ONE),
    (f"4:memory:/docker/{ONE}/docker/{TWO}\n", ONE),
    (f"0::/system.slice/docker-{ONE}.scope/docker/{TWO}\n", ONE),
    (f"1:name=systemd:/\n0::/docker/{ONE}\n", ONE),
    ("0::/user.slice/user-1000.slice/session-2.scope\n", ""),
    (f"0::/docker/{ONE[:-1]}\n", ""),
    (f"0::/docker/{ONE}0\n", ""),
    ("0::/\n", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), CGROUPS)
def test_the_container_of_a_process(text: str, expected: str) -> None:
    assert _gpu.container_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPEN, ("580.95.05", True)),
        (CLOSED, ("535.161.08", False)),
        ("NVRM version: NVIDIA UNIX Open Kernel Module  570.86.15  Release Build\n", ("570.86.15", True)),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.135  Fri\n", ("550.135", False)),
        ("GCC version:  gcc version 12.2.0\n", ("", False)),
        ("", ("", False)),
    ],
)
def test_the_kernel_module(text: str, expected: tuple[str, bool]) -> None:
    assert _gpu.kernel_module(text) == expected


# version of the file, version in an error, -> version
@pytest.mark.parametrize(
    ("of_file", "said", "expected"),
    [
        ("535.161.08", "", "535.161.08"),
        ("535.161.08", "535.161", "535.161.08"),
        ("535.161.08", "535.161.08", "535.161.08"),
        ("535.161.08", "535.16", "535.16"),
        ("", "535.161", "535.161"),
        ("", "", ""),
    ],
)
def test_the_version_of_the_library(of_file: str, said: str, expected: str) -> None:
    assert _gpu.library_version(of_file, said) == expected


@pytest.mark.parametrize(
    ("kernel", "library", "reason", "expected"),
    [
        ("535.154.05", "535.161.08", "", True),
        ("535.161.08", "535.161.08", "", False),
        ("535.161.08", "", "", False),
        ("", "535.161.08", "", False),
        ("", "", "mismatch", True),
        ("535.161.08", "535.161", "mismatch", True),
    ],
)
def test_whether_kernel_and_library_fit(kernel: str, library: str, reason: str, expected: bool) -> None:
    assert _gpu.is_mismatch(kernel, library, reason) is expected


def test_the_library_is_the_one_that_programs_load(machine: Machine) -> None:
    host = _gpu_host.Host(str(machine.root), 1)
    assert host.library_version() == ""
    machine.library("470.1.1", "usr/lib/i386-linux-gnu")
    assert host.library_version() == ""
    # A file that an upgrade has left behind.
    machine.file("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.535.54.03")
    machine.library("535.161.08")
    assert host.library_version() == "535.161.08"


@pytest.mark.parametrize(
    "folder", ["usr/lib64", "usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu/nvidia/current"]
)
def test_places_of_the_library(machine: Machine, folder: str) -> None:
    machine.library("580.65.06", folder)
    assert _gpu_host.Host(str(machine.root), 1).library_version() == "580.65.06"


def test_tools_are_found_beside_the_path(machine: Machine) -> None:
    host = _gpu_host.Host(str(machine.root), 1)
    assert host.which("nvidia-smi") == ""
    machine.file("usr/lib/wsl/lib/nvidia-smi")
    assert host.which("nvidia-smi") == ""
    (machine.root / "usr/lib/wsl/lib/nvidia-smi").chmod(0o755)
    assert host.which("nvidia-smi") == str(machine.root / "usr/lib/wsl/lib/nvidia-smi")
    machine.tool("nvidia-smi")
    assert host.which("nvidia-smi") == str(machine.bin / "nvidia-smi")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no-cgroups = true", True),
        ("[nvidia-container-cli]\n  no-cgroups=true  # rootless\n", True),
        ("#no-cgroups = true", False),
        ("# no-cgroups = true\nno-cgroups = false\n", False),
        ("no-cgroups = false", False),
        ("", False),
    ],
)
def test_no_cgroups(text: str, expected: bool) -> None:
    assert _gpu.no_cgroups(text) is expected


def test_cdi_devices_are_those_of_nvidia() -> None:
    text = (
        'time="2026-01-01T00:00:00Z" level=info msg="Found 4 CDI devices"\n'
        "nvidia.com/gpu=0\n  nvidia.com/gpu=0:1\nexample.com/net=eth0\nnvidia.com/gpu=all\n"
        "management.nvidia.com/gpu=all\n"
    )
    assert _gpu.cdi_devices(text) == [
        "nvidia.com/gpu=0", "nvidia.com/gpu=0:1", "nvidia.com/gpu=all", "management.nvidia.com/gpu=all",
    ]  # fmt: skip


WHOLE = _gpu.gpu(0, uuid="GPU-a")
DIVIDED = _gpu.gpu(1, uuid="GPU-b", mig={"enabled": True, "pending": True, "devices": [{"uuid": "MIG-c"}]})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["0", "1", "all"], []),
        (["GPU-a", "MIG-c"], []),
        (["GPU-a", "GPU-b"], ["MIG-c"]),
        (["0", "GPU-x"], ["GPU-a", "MIG-c"]),
    ],
)
def test_what_cdi_does_not_name(names: list[str], expected: list[str]) -> None:
    devices = ["nvidia.com/gpu=" + name for name in names]
    assert _gpu.missing_in_cdi([WHOLE, DIVIDED], devices) == expected


@pytest.mark.parametrize(
    ("printed", "refresh"),
    [
        ("enabled\n", "enabled"),
        ((1, "disabled\n", ""), "disabled"),
        ((1, "masked\n", ""), "masked"),
        ((4, "not-found\n", ""), ""),
        ((1, "", "Failed to get unit file state for nvidia-cdi-refresh.path: No such file or directory\n"), ""),
    ],
)
def test_the_unit_that_writes_cdi(machine: Machine, look: Any, printed: Any, refresh: str) -> None:
    machine.tool("systemctl", {"is-enabled nvidia-cdi-refresh.path": printed})
    assert look()["cdi"]["refresh"] == refresh


@pytest.mark.parametrize(
    ("printed", "active"),
    [
        ("active\n", True),
        ((3, "inactive\n", ""), False),
        ((3, "failed\n", ""), False),
        ((1, "", "System has not been booted with systemd as init system (PID 1). Can't operate.\n"), None),
    ],
)
def test_whether_the_fabric_manager_runs(machine: Machine, look: Any, printed: Any, active: bool | None) -> None:
    machine.tool("systemctl", {"is-active nvidia-fabricmanager": printed})
    assert look()["nvswitch"]["fabric_manager"]["active"] is active


def test_gpus_on_the_bus(machine: Machine) -> None:
    machine.pci("0000:01:00.0", kind="0x030000", driver="nvidia")
    machine.pci("0000:02:00.0", kind="0x030200")
    machine.pci("0000:01:00.1", kind="0x040300", driver="snd_hda_intel")
    machine.pci("0000:03:00.0", kind="0x068000", driver="nvidia-nvswitch")
    machine.pci("0000:04:00.0", vendor="0x1002", kind="0x030000", driver="amdgpu")
    assert _gpu_host.Host(str(machine.root), 1).pci_gpus() == ["nvidia", ""]


def shape(told: Any, documented: dict[str, Any]) -> None:
    """Compare what is returned with what is documented, name by name."""
    assert set(told) == set(documented)
    for key, value in told.items():
        inner = documented[key].get("contains")
        if inner and isinstance(value, list):
            assert value, key
            shape(value[0], inner)
        elif inner:
            shape(value, inner)


def test_what_is_returned_is_documented(machine: Machine, look: Any) -> None:
    machine.tool(
        "nvidia-smi",
        {
            "-q -x": read("535_a100x8.xml"),
            "-L": read("535_a100x8.list.txt"),
            "topo -m": read("topo_8.txt"),
        },
    )
    found = look()
    # The first of the GPUs has a process, the last has MIG devices: one of both.
    found["gpus"][0]["mig"] = found["gpus"][7]["mig"]
    for key in ("failed", "output", "changed", "invocation"):
        found.pop(key, None)
    shape(found, yaml.safe_load(gpu_info.RETURN))


def test_every_value_has_a_description_and_every_plain_one_a_sample() -> None:
    def walk(documented: dict[str, Any]) -> None:
        for name, value in documented.items():
            assert value["description"], name
            assert "contains" in value or "sample" in value, name
            walk(value.get("contains", {}))

    walk(yaml.safe_load(gpu_info.RETURN))


def test_sentences_are_single() -> None:
    driver = {"loaded": True, "version": "1.2", "kernel_version": "1.2", "library_version": "", "mismatch": False}
    for reason in _gpu._REASONS:
        (sentence,) = _gpu.problems({**told(), "reason": reason, "text": "why"}, driver, ["nvidia"])
        assert not re.search(r"\.\s|\n", sentence)
        assert "%(" not in sentence
        assert "  " not in sentence


def test_the_result_is_json(machine: Machine, look: Any) -> None:
    rtx_5090(machine)
    assert json.loads(look()["output"])["gpus"]
