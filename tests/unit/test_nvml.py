"""What NVML tells, by a double of pynvml that has the functions of nvidia-ml-py; and that nvidia-smi tells the same."""

from __future__ import annotations

import ctypes
import itertools
import types
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _gpu, _nvidia_smi, _nvml

DATA = Path(__file__).parents[1] / "data" / "nvidia_smi"
MIB = 2**20
NOT_SUPPORTED, NOT_FOUND, NO_FUNCTION, LOST, RESET = 3, 6, 13, 15, 16
# Missing in nvidia-ml-py 11.450, the oldest that works.
NEWER = (
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetGpuFabricInfo",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlMemory_v2",
    "c_nvmlGpuFabricInfo_t",
    "c_nvmlGpuFabricInfo_v2_t",
    "c_nvmlGpuFabricInfoV_t",
)


class NVMLError(Exception):
    """As in pynvml: an error with the value of NVML."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


class Fabric(ctypes.Structure):
    _fields_ = [("status", ctypes.c_uint), ("cliqueId", ctypes.c_uint32), ("state", ctypes.c_uint)]


class Device:
    """A GPU or MIG device: the answers of the functions about it, by the end of their names; an int is an error."""

    def __init__(self, uuid: str, name: str, memory: tuple[int, ...], **answers: Any) -> None:
        self.answers = {"UUID": uuid, "Name": name, **answers}
        self.memory = [size * MIB for size in memory]
        self.mig: dict[int, Device] = answers.get("mig", {})


class Library:
    """The module pynvml on a pretended machine.

    errors: function -> error. missing: names that this pynvml lacks. text: as pynvml returns it, str or bytes.
    """

    NVMLError = NVMLError
    nvmlMemory_v2 = 0x02000028
    NVML_NVLINK_MAX_LINKS = 18
    c_nvmlGpuFabricInfo_t = c_nvmlGpuFabricInfo_v2_t = c_nvmlGpuFabricInfoV_t = Fabric

    def __init__(
        self,
        *devices: Device | int,
        version: str = "550.90.07",
        cuda: int = 12040,
        errors: dict[str, int] | None = None,
        missing: tuple[str, ...] = (),
        text: Any = str,
        ancestors: dict[tuple[int, int], int] | None = None,
    ) -> None:
        self.devices, self.version, self.cuda, self.text = devices, version, cuda, text
        self.errors, self.missing, self.ancestors = errors or {}, missing, ancestors or {}
        self.running = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("nvml", "c_nvml")):
            if name in self.missing:
                raise AttributeError(name)
            if name in self.errors:
                return self._raise(self.errors[name])
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        if name in self.missing or not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)
        return lambda device: self._answer(device, name.removeprefix("nvmlDeviceGet"))

    def _raise(self, value: int) -> Any:
        def function(*_args: Any, **_kwargs: Any) -> None:
            raise NVMLError(value)

        return function

    def _string(self, value: str) -> Any:
        return value.encode() if self.text is bytes else value

    def _answer(self, device: Device, key: str) -> Any:
        answer = device.answers.get(key, NVMLError(NOT_SUPPORTED))
        if isinstance(answer, Exception):
            raise answer
        return self._string(answer) if isinstance(answer, str) else answer

    def nvmlInit(self) -> None:
        self.running += 1

    def nvmlShutdown(self) -> None:
        self.running -= 1

    def nvmlErrorString(self, value: int) -> Any:
        return self._string({23: "Insufficient Resources"}[value])

    def nvmlSystemGetDriverVersion(self) -> Any:
        return self._string(self.version)

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlSystemGetProcessName(self, pid: int) -> Any:
        for device in self.devices:
            if pid in device.answers.get("names", {}):
                return self._string(device.answers["names"][pid])
        raise NVMLError(NOT_FOUND)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        if isinstance(self.devices[index], int):
            raise NVMLError(self.devices[index])
        return self.devices[index]

    def nvmlDeviceGetPciInfo(self, device: Device) -> Any:
        return types.SimpleNamespace(busId=self._string(device.answers["bus"]))

    def nvmlDeviceGetMemoryInfo(self, device: Device, version: int | None = None) -> Any:
        if not device.memory:
            raise NVMLError(NOT_SUPPORTED)
        total, reserved, used, free = device.memory
        if version:
            return types.SimpleNamespace(total=total, reserved=reserved, used=used, free=free)
        return types.SimpleNamespace(total=total, used=used + reserved, free=free)

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:
        return 7 if device.mig else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, number: int) -> Device:
        if number not in device.mig:
            raise NVMLError(NOT_FOUND)
        return device.mig[number]

    def nvmlDeviceGetGpuFabricInfoV(self, device: Device, reference: Any) -> int:
        # What ctypes.byref refers to.
        reference._obj.state, reference._obj.status = self._answer(device, "fabric")
        return 0

    nvmlDeviceGetGpuFabricInfo = nvmlDeviceGetGpuFabricInfoV

    def nvmlDeviceGetNvLinkState(self, device: Device, link: int) -> int:
        links = self._answer(device, "links")
        if link >= len(links):
            raise NVMLError(NOT_SUPPORTED)
        return int(links[link] is not None)

    def nvmlDeviceGetNvLinkRemotePciInfo(self, device: Device, link: int) -> Any:
        return types.SimpleNamespace(busId=self._string(self._answer(device, "links")[link][0]))

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, device: Device, link: int) -> int:
        return self._answer(device, "links")[link][1]

    def nvmlDeviceGetTopologyCommonAncestor(self, one: Device, other: Device) -> int:
        pair = (self.devices.index(one), self.devices.index(other))
        if pair not in self.ancestors:
            raise NVMLError(NOT_SUPPORTED)
        return self.ancestors[pair]


def process(pid: int, mib: int | None) -> Any:
    return types.SimpleNamespace(pid=pid, usedGpuMemory=mib and mib * MIB)


def read(name: str) -> str:
    return (DATA / name).read_text()


def uuids(name: str) -> list[str]:
    return [line.split(", ")[1] for line in read(name).splitlines()]


# Links to a switch, to another GPU, to a CPU of IBM.
SWITCHED = [("00000000:00:00.0", 2)]
CPU = [("00000004:00:00.0", 1)]


def to(bus: str) -> list[tuple[str, int]]:
    return [(bus, 0)]


def h100(uuid: str, bus: str, **answers: Any) -> Device:
    base = {
        "Architecture": 9,
        "CudaComputeCapability": (9, 0),
        "Brand": 14,
        "bus": bus,
        "ComputeMode": 0,
        "PersistenceMode": 1,
        "EccMode": [1, 1],
        "MigMode": [0, 0],
        "fabric": (3, 0),
        "links": SWITCHED * 18,
        "ComputeRunningProcesses": [],
        "GraphicsRunningProcesses": [],
        "MPSComputeRunningProcesses": [],
    }
    memory = answers.pop("memory", (81559, 530, 1, 81028))
    return Device(uuid, "NVIDIA H100 80GB HBM3", memory, **{**base, **answers})


def two_h100() -> list[Device]:
    """The machine of 550_h100x2.xml."""
    one, other = uuids("550_h100x2.capabilities.csv")
    return [
        h100(
            one,
            "00000000:19:00.0",
            memory=(81559, 530, 72770, 8259),
            ComputeRunningProcesses=[process(90411, 72760)],
            names={90411: "/opt/venv/bin/python3"},
        ),
        h100(other, "00000000:3B:00.0", ComputeMode=3, fabric=(2, 0)),
    ]


def eight_a100() -> list[Device]:
    """The machine of 535_a100x8.xml."""
    listed = [line.rpartition("UUID: ")[2].rstrip(")") for line in read("535_a100x8.list.txt").splitlines()]
    parts = [
        (1, "3g.40gb", (40192, 0, 37, 40154)),
        (5, "2g.20gb", (19968, 0, 12, 19955)),
        (13, "1g.10gb", (9728, 0, 8012, 1716)),
    ]
    mig = {
        # Numbers need not be without gaps.
        2 * number: Device(
            listed[8 + number],
            f"NVIDIA A100-SXM4-80GB MIG {profile}",
            memory,
            GpuInstanceId=instance,
            ComputeInstanceId=0,
        )
        for number, (instance, profile, memory) in enumerate(parts)
    }
    devices = []
    for index, bus in enumerate(("07", "0F", "47", "4E", "87", "90", "B7", "BD")):
        used = {0: 73106, 7: 8061}.get(index, 4)
        work = {0: (48213, 73102, "VLLM::Worker_TP0"), 7: (51877, 8000, "/usr/bin/python3")}.get(index)
        devices.append(
            Device(
                listed[index],
                "NVIDIA A100-SXM4-80GB",
                (81920, 587, used, 81333 - used),
                Architecture=7,
                CudaComputeCapability=(8, 0),
                Brand=14,
                bus=f"00000000:{bus}:00.0",
                ComputeMode=0,
                PersistenceMode=1,
                EccMode=[1, 1],
                MigMode=[1, 1] if index == 7 else [0, 0],
                mig=mig if index == 7 else {},
                links=SWITCHED * 12,
                ComputeRunningProcesses=[process(*work[:2])] if work else [],
                GraphicsRunningProcesses=[],
                names={work[0]: work[2]} if work else {},
            )
        )
    return devices


class Smi:
    def __init__(self, name: str, topology: str) -> None:
        self.answers = {"-q -x": name + ".xml", "-L": name + ".list.txt", "topo -m": topology}
        self.capabilities = name + ".capabilities.csv"

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        return 0, read(self.answers.get(" ".join(arguments), self.capabilities)), ""


MACHINES = [
    ("550_h100x2", "topo_2.txt", {}, two_h100),
    ("535_a100x8", "topo_8.txt", {"version": "535.161.08", "cuda": 12020}, eight_a100),
]


@pytest.mark.parametrize("text", [str, bytes])
@pytest.mark.parametrize(("name", "topology", "driver", "machine"), MACHINES)
def test_nvml_and_nvidia_smi_tell_the_same(name: str, topology: str, driver: Any, machine: Any, text: Any) -> None:
    by_smi = _nvidia_smi.ask(Smi(name, topology))
    by_nvml = _nvml.ask(Library(*machine(), text=text, **driver))
    assert by_nvml.pop("source") != by_smi.pop("source")
    assert by_nvml == by_smi


@pytest.mark.parametrize("expected", [(0, "GPU-a", "550.90.07", "12.4")])
def test_text_is_str_whatever_pynvml_returns(expected: tuple[Any, ...]) -> None:
    device = h100("GPU-a", "00000000:19:00.0", ComputeRunningProcesses=[process(7, 1)], names={7: "a"})
    answer = _nvml.ask(Library(device, text=bytes))
    (gpu,) = answer["gpus"]
    assert (gpu["index"], gpu["uuid"], answer["version"], answer["cuda"]) == expected
    assert (gpu["pci_bus_id"], gpu["processes"][0]["name"]) == ("00000000:19:00.0", "a")


def test_what_is_not_supported_has_the_values_of_nothing() -> None:
    bare = Device("GPU-a", "NVIDIA A", (), bus="00000000:01:00.0")
    answer = _nvml.ask(Library(bare, errors={"nvmlSystemGetCudaDriverVersion_v2": NOT_SUPPORTED}))
    assert answer["gpus"] == [_gpu.gpu(0, uuid="GPU-a", name="NVIDIA A", pci_bus_id="00000000:01:00.0")]
    assert (answer["cuda"], answer["problems"], answer["reason"]) == ("", [], "")


def test_the_oldest_pynvml_lacks_some_functions() -> None:
    devices = two_h100()
    answer = _nvml.ask(Library(*devices, missing=NEWER))
    first = answer["gpus"][0]
    # The first version counts what is reserved as used.
    assert first["memory"] == {"total": 81559 * MIB, "reserved": 0, "used": 73300 * MIB, "free": 8259 * MIB}
    assert first["fabric"] == {"state": "", "status": ""}
    assert [process["pid"] for process in first["processes"]] == [90411]
    # The kind of a link's end is not told: what is no GPU is a switch.
    assert answer["links"] == [(0, 1, "NV18")]


def test_an_old_driver_under_a_new_pynvml() -> None:
    device = h100("GPU-a", "00000000:01:00.0")
    device.answers["ComputeRunningProcesses"] = NVMLError(NO_FUNCTION)
    device.answers["ComputeRunningProcesses_v2"] = [process(11, 5)]
    library = Library(device, errors={"nvmlDeviceGetGpuFabricInfoV": NO_FUNCTION})
    real = library.nvmlDeviceGetMemoryInfo

    def memory(handle: Device, version: int | None = None) -> Any:
        if version:
            raise NVMLError(NO_FUNCTION)
        return real(handle)

    library.nvmlDeviceGetMemoryInfo = memory
    (gpu,) = _nvml.ask(library)["gpus"]
    assert gpu["memory"] == {"total": 81559 * MIB, "reserved": 0, "used": 531 * MIB, "free": 81028 * MIB}
    assert [process["pid"] for process in gpu["processes"]] == [11]
    # The older function knows the fabric as well.
    assert gpu["fabric"] == {"state": "Completed", "status": "Success"}


# compute, graphics, MPS -> (pid, type, memory in MiB)
KINDS = [
    ([process(1, 10)], [], [], [(1, "C", 10)]),
    ([], [process(1, 10)], [], [(1, "G", 10)]),
    ([process(1, 10)], [process(1, 10)], [], [(1, "C+G", 10)]),
    ([process(2, 10)], [], [process(2, 10)], [(2, "M+C", 10)]),
    ([process(9, 3), process(4, None)], [], [], [(4, "C", None), (9, "C", 3)]),
    ([types.SimpleNamespace(pid=5, usedGpuMemory=2**64 - 1)], [], [], [(5, "C", None)]),
    ([process(6, 0)], [], [], [(6, "C", 0)]),
]


@pytest.mark.parametrize(("compute", "graphics", "mps", "expected"), KINDS)
def test_processes(compute: Any, graphics: Any, mps: Any, expected: list[tuple[Any, ...]]) -> None:
    device = h100(
        "GPU-a",
        "00000000:01:00.0",
        ComputeRunningProcesses=compute,
        GraphicsRunningProcesses=graphics,
        MPSComputeRunningProcesses=mps,
    )
    (gpu,) = _nvml.ask(Library(device))["gpus"]
    found = [(one["pid"], one["type"], one["memory"]) for one in gpu["processes"]]
    assert found == [(pid, kind, mib and mib * MIB) for pid, kind, mib in expected]
    assert {one["name"] for one in gpu["processes"]} == {""}


FABRICS = [
    ((0, 0), "", ""),
    ((1, 0), "Not Started", ""),
    ((2, 0), "In Progress", ""),
    ((3, 0), "Completed", "Success"),
    ((3, 23), "Completed", "Insufficient Resources"),
]


@pytest.mark.parametrize("text", [str, bytes])
@pytest.mark.parametrize(("told", "state", "status"), FABRICS)
def test_fabric(told: tuple[int, int], state: str, status: str, text: Any) -> None:
    library = Library(h100("GPU-a", "00000000:01:00.0", fabric=told), text=text)
    assert _nvml.ask(library)["gpus"][0]["fabric"] == {"state": state, "status": status}


A, B = "00000000:01:00.0", "00000000:02:00.0"
# links of GPU 0, links of GPU 1, the common ancestor on PCIe -> kind
LINKS = [
    (SWITCHED * 18, SWITCHED * 18, 50, "NV18"),
    (SWITCHED * 18, SWITCHED * 16, 50, "NV16"),
    (SWITCHED * 2 + [None], SWITCHED * 2, 50, "NV2"),
    (to(B) * 4, to(A) * 4, 30, "NV4"),
    (to(B.lower()) * 2 + [None] * 4, to(A.lower()) * 2, 30, "NV2"),
    (CPU * 3, CPU * 3, 50, "SYS"),
    ([], [], 0, "PIX"),
    ([], [], 10, "PIX"),
    ([], [], 20, "PXB"),
    ([None] * 4, [], 30, "PHB"),
    ([], [], 40, "NODE"),
    ([], [], 50, "SYS"),
    (SWITCHED * 4, [], 50, "SYS"),
    ([], [], None, None),
]


@pytest.mark.parametrize(("first", "second", "ancestor", "kind"), LINKS)
def test_links(first: Any, second: Any, ancestor: int | None, kind: str | None) -> None:
    devices = [h100("GPU-a", A, links=first), h100("GPU-b", B, links=second)]
    ancestors = {} if ancestor is None else {(0, 1): ancestor}
    assert _nvml.ask(Library(*devices, ancestors=ancestors))["links"] == ([(0, 1, kind)] if kind else [])


def test_direct_links_are_those_between_two_of_more_gpus() -> None:
    buses = [f"00000000:0{number}:00.0" for number in range(3)]
    ends = [to(buses[1]) * 2 + to(buses[2]), to(buses[0]) * 2, to(buses[0])]
    devices = [h100(f"GPU-{bus}", bus, links=links) for bus, links in zip(buses, ends, strict=True)]
    answer = _nvml.ask(Library(*devices, ancestors=dict.fromkeys(itertools.combinations(range(3), 2), 40)))
    assert answer["links"] == [(0, 1, "NV2"), (0, 2, "NV1"), (1, 2, "NODE")]


@pytest.mark.parametrize("value", [LOST, RESET, 999])
def test_a_gpu_that_cannot_be_reached_does_not_hide_the_others(value: int) -> None:
    answer = _nvml.ask(Library(value, h100("GPU-b", B)))
    assert [gpu["index"] for gpu in answer["gpus"]] == [1]
    assert answer["problems"] == [_gpu.lost("0", f"error {value}")]


@pytest.mark.parametrize("value", [LOST, RESET])
def test_a_gpu_that_is_lost_while_it_is_asked(value: int) -> None:
    broken = h100("GPU-a", A)
    broken.answers["Architecture"] = NVMLError(value)
    answer = _nvml.ask(Library(broken, h100("GPU-b", B)))
    assert [gpu["index"] for gpu in answer["gpus"]] == [1]
    assert answer["problems"] == [_gpu.lost("0", f"error {value}")]


def test_a_gpu_that_is_lost_while_its_links_are_asked() -> None:
    broken = h100("GPU-a", A)
    broken.answers["links"] = NVMLError(LOST)
    answer = _nvml.ask(Library(broken, h100("GPU-b", B)))
    assert [gpu["uuid"] for gpu in answer["gpus"]] == ["GPU-a", "GPU-b"]
    assert answer["links"] == []
    assert answer["problems"] == [
        "NVML tells nothing of the links between GPUs (error 15): look for NVRM and Xid in dmesg"
    ]


INIT = [(9, "no_driver"), (12, "no_library"), (18, "mismatch"), (4, "other"), (999, "other")]


@pytest.mark.parametrize(("value", "reason"), INIT)
def test_nvml_that_does_not_start(value: int, reason: str) -> None:
    answer = _nvml.ask(Library(errors={"nvmlInit": value}))
    assert (answer["reason"], answer["text"], answer["gpus"]) == (reason, f"error {value}", [])


def test_no_gpus() -> None:
    answer = _nvml.ask(Library())
    assert (answer["gpus"], answer["reason"], answer["version"]) == ([], "no_devices", "550.90.07")


def test_nvml_is_ended_even_when_the_end_fails() -> None:
    library = Library(*two_h100())
    _nvml.ask(library)
    assert library.running == 0
    assert len(_nvml.ask(Library(*two_h100(), errors={"nvmlShutdown": 1}))["gpus"]) == 2


@pytest.mark.parametrize(
    ("number", "name"), [(5, "Volta"), (6, "Turing"), (8, "Ada Lovelace"), (10, "Blackwell"), (0xFFFFFFFF, "")]
)
def test_architectures_have_the_names_of_nvidia_smi(number: int, name: str) -> None:
    (gpu,) = _nvml.ask(Library(h100("GPU-a", A, Architecture=number)))["gpus"]
    assert gpu["architecture"] == name


@pytest.mark.parametrize(("number", "name"), [(12020, "12.2"), (13000, "13.0"), (10010, "10.1"), (0, "")])
def test_the_version_of_cuda(number: int, name: str) -> None:
    assert _nvml.ask(Library(h100("GPU-a", A), cuda=number))["cuda"] == name


def test_a_mig_device_of_an_old_driver_has_no_profile() -> None:
    part = Device("MIG-a", "A100-PCIE-40GB", (4864, 0, 0, 4864), GpuInstanceId=7, ComputeInstanceId=0)
    (gpu,) = _nvml.ask(Library(h100("GPU-a", A, MigMode=[1, 1], mig={0: part})))["gpus"]
    assert [(device["uuid"], device["profile"]) for device in gpu["mig"]["devices"]] == [("MIG-a", "")]
