# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What NVML tells of GPUs, through pynvml of nvidia-ml-py, in the same form as _nvidia_smi.

Every function that is called by name here is in nvidia-ml-py 11.450.51, 11.495.46, 11.525.150, 12.535.161, 12.550.52,
12.570.86, 13.580.65 and 13.615.71, but for these, which are left out where they are missing:
nvmlDeviceGetMPSComputeRunningProcesses and nvmlDeviceGetNvLinkRemoteDeviceType (from 11.495),
nvmlDeviceGetGpuFabricInfo and version 2 of the memory (from 11.525), nvmlDeviceGetGpuFabricInfoV (from 12.550). A
function that pynvml has and the driver's library lacks raises NVMLError.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _gpu

try:
    # For those who call ask().
    import pynvml  # pylint: disable=unused-import

    PYNVML_ERROR = None
except ImportError:
    pynvml = None
    PYNVML_ERROR = traceback.format_exc()

# Values of NVML, which are the same in all its versions; pynvml has names for them only as they come up.
_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _GPU_IS_LOST, _RESET_REQUIRED, _MISMATCH = 9, 12, 15, 16, 18
_REASONS = {_DRIVER_NOT_LOADED: "no_driver", _LIBRARY_NOT_FOUND: "no_library", _MISMATCH: "mismatch"}
_ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
_BRANDS = {
    1: "Quadro",
    2: "Tesla",
    3: "NVS",
    4: "GRID",
    5: "GeForce",
    6: "Titan",
    7: "NVIDIA Virtual Applications",
    8: "NVIDIA Virtual PC",
    9: "NVIDIA Virtual Compute Server",
    10: "NVIDIA RTX Virtual Workstation",
    11: "NVIDIA Cloud Gaming",
    12: "Quadro RTX",
    13: "NVIDIA RTX",
    14: "NVIDIA",
    15: "GeForce RTX",
    16: "Titan RTX",
}
_COMPUTE_MODES = {0: "Default", 1: "Exclusive_Thread", 2: "Prohibited", 3: "Exclusive_Process"}
_FABRIC_STATES = {1: "Not Started", 2: "In Progress", 3: "Completed"}
_ANCESTORS = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
_MOST_LINKS = 18
_SWITCH = 2
# What NVML says of a process whose memory it does not know.
_NO_SIZE = 2**64 - 1


def ask(lib: ModuleType) -> dict[str, Any]:
    """Return what NVML tells, as _gpu.told(). lib: the module pynvml."""
    answer = _gpu.told("nvml")
    try:
        lib.nvmlInit()
    except lib.NVMLError as error:
        answer.update(reason=_REASONS.get(error.value, "other"), text=str(error))
        return answer
    try:
        _Nvml(lib).fill(answer)
    finally:
        with contextlib.suppress(lib.NVMLError):
            lib.nvmlShutdown()
    return answer


class _Nvml:
    def __init__(self, lib: ModuleType) -> None:
        self.lib = lib

    def fill(self, answer: dict[str, Any]) -> None:
        answer["version"] = _text(self._get("nvmlSystemGetDriverVersion", default=""))
        cuda = self._get("nvmlSystemGetCudaDriverVersion_v2", default=0)
        # 12040 is 12.4.
        answer["cuda"] = "%d.%d" % (cuda // 1000, cuda % 1000 // 10) if cuda else ""
        handles = {}
        count = self._get("nvmlDeviceGetCount", default=0)
        for index in range(count):
            try:
                handle = self.lib.nvmlDeviceGetHandleByIndex(index)
                answer["gpus"].append(self._gpu(index, handle))
                handles[index] = handle
            except self.lib.NVMLError as error:
                answer["problems"].append(_gpu.lost(str(index), str(error)))
        if not count:
            answer.update(reason="no_devices", text="NVML counts none")
        try:
            answer["links"] = self._links(handles, {gpu["index"]: gpu["pci_bus_id"] for gpu in answer["gpus"]})
        except self.lib.NVMLError as error:
            answer["problems"].append(
                "NVML tells nothing of the links between GPUs (%s): look for NVRM and Xid in dmesg" % error
            )

    def _get(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Return what a function returns, or the default where it is missing or says that it is not supported."""
        default = kwargs.get("default")
        function = getattr(self.lib, name, None)
        if function is None:
            return default
        try:
            return function(*args)
        except self.lib.NVMLError as error:
            if error.value in (_GPU_IS_LOST, _RESET_REQUIRED):
                raise
            return default

    def _gpu(self, index: int, handle: object) -> dict[str, Any]:
        major, minor = self._get("nvmlDeviceGetCudaComputeCapability", handle, default=(0, 0))
        mig, pending = self._get("nvmlDeviceGetMigMode", handle, default=(0, 0))
        return _gpu.gpu(
            index,
            uuid=_text(self.lib.nvmlDeviceGetUUID(handle)),
            name=_text(self._get("nvmlDeviceGetName", handle, default="")),
            architecture=_ARCHITECTURES.get(self._get("nvmlDeviceGetArchitecture", handle), ""),
            compute_capability="%d.%d" % (major, minor) if major else "",
            brand=_BRANDS.get(self._get("nvmlDeviceGetBrand", handle), ""),
            pci_bus_id=self._bus_id(self._get("nvmlDeviceGetPciInfo", handle)),
            memory=self._memory(handle),
            compute_mode=_COMPUTE_MODES.get(self._get("nvmlDeviceGetComputeMode", handle), ""),
            persistence_mode=_switch(self._get("nvmlDeviceGetPersistenceMode", handle)),
            ecc=_switch(self._get("nvmlDeviceGetEccMode", handle, default=(None, None))[0]),
            mig={"enabled": bool(mig), "pending": bool(pending), "devices": self._mig(handle) if mig else []},
            fabric=self._fabric(handle),
            processes=self._processes(handle),
        )

    def _memory(self, handle: object) -> dict[str, int]:
        """Version 2 tells what is reserved, and does not count it as used; version 1 does."""
        version = getattr(self.lib, "nvmlMemory_v2", None)
        memory = None
        if version:
            # A driver before 510 does not have it, nor a GPU with no memory of its own.
            with contextlib.suppress(self.lib.NVMLError):
                memory = self.lib.nvmlDeviceGetMemoryInfo(handle, version=version)
        memory = memory or self._get("nvmlDeviceGetMemoryInfo", handle)
        return {key: int(getattr(memory, key, 0)) for key in ("total", "reserved", "used", "free")}

    def _mig(self, handle: object) -> list[dict[str, Any]]:
        devices = []
        for number in range(self._get("nvmlDeviceGetMaxMigDeviceCount", handle, default=0)):
            # A number without a device is not found.
            device = self._get("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
            if device is None:
                continue
            memory = self._memory(device)
            profile = re.search(r"\bMIG (\S+)", _text(self._get("nvmlDeviceGetName", device, default="")))
            devices.append(
                {
                    "uuid": _text(self._get("nvmlDeviceGetUUID", device, default="")),
                    "profile": profile.group(1) if profile else "",
                    "gpu_instance": self._get("nvmlDeviceGetGpuInstanceId", device, default=-1),
                    "compute_instance": self._get("nvmlDeviceGetComputeInstanceId", device, default=-1),
                    "memory": {key: memory[key] for key in ("total", "used", "free")},
                }
            )
        return devices

    def _fabric(self, handle: object) -> dict[str, str]:
        ways = (
            ("nvmlDeviceGetGpuFabricInfoV", "c_nvmlGpuFabricInfoV_t"),
            ("nvmlDeviceGetGpuFabricInfoV", "c_nvmlGpuFabricInfo_v2_t"),
            ("nvmlDeviceGetGpuFabricInfo", "c_nvmlGpuFabricInfo_t"),
        )
        for name, structure in ways:
            if not hasattr(self.lib, structure):
                continue
            info = getattr(self.lib, structure)()
            if self._get(name, handle, ctypes.byref(info), default=-1) != -1:
                state = _FABRIC_STATES.get(info.state, "")
                # The status means something only once the GPU is registered.
                return {"state": state, "status": self._status(info.status) if state == "Completed" else ""}
        return {"state": "", "status": ""}

    def _status(self, code: int) -> str:
        return "Success" if code == 0 else _text(self._get("nvmlErrorString", code, default="Error %d" % code))

    def _processes(self, handle: object) -> list[dict[str, Any]]:
        kinds: dict[int, dict[str, int | None]] = {}
        for kind, name in (
            ("C", "nvmlDeviceGetComputeRunningProcesses"),
            ("G", "nvmlDeviceGetGraphicsRunningProcesses"),
            ("M+C", "nvmlDeviceGetMPSComputeRunningProcesses"),
        ):
            found = self._get(name, handle)
            if found is None:
                # A newer pynvml asks for a third version, which drivers before 510 lack.
                found = self._get(name + "_v2", handle, default=())
            for process in found:
                kinds.setdefault(process.pid, {})[kind] = getattr(process, "usedGpuMemory", None)
        return [
            {
                "pid": pid,
                "name": _text(self._get("nvmlSystemGetProcessName", pid, default="")),
                "type": "M+C" if "M+C" in sizes else "+".join(sorted(sizes)),
                "memory": max((size for size in sizes.values() if size not in (None, _NO_SIZE)), default=None),
            }
            for pid, sizes in sorted(kinds.items())
        ]

    def _links(self, handles: Mapping[int, object], bus_ids: Mapping[int, str]) -> list[tuple[int, int, str]]:
        """Return (one index, the other, kind): the number of NVLinks between two GPUs, or else their way over PCIe."""
        ends = {index: self._link_ends(handle, bus_ids) for index, handle in handles.items()}
        links = []
        for one in handles:
            for other in (index for index in handles if index > one):
                # Through a switch, each link of a GPU leads to all others.
                lines = ends[one].count(bus_ids[other]) or min(ends[one].count("switch"), ends[other].count("switch"))
                kind = "NV%d" % lines if lines else None
                if not kind:
                    ancestor = self._get("nvmlDeviceGetTopologyCommonAncestor", handles[one], handles[other])
                    kind = _ANCESTORS.get(ancestor)
                if kind:
                    links.append((one, other, kind))
        return links

    def _link_ends(self, handle: object, bus_ids: Mapping[int, str]) -> list[str]:
        """Return where the active NVLinks of a GPU lead to: PCI bus IDs of GPUs, or 'switch'."""
        ends = []
        for link in range(getattr(self.lib, "NVML_NVLINK_MAX_LINKS", _MOST_LINKS)):
            if self._get("nvmlDeviceGetNvLinkState", handle, link) != 1:
                continue
            remote = self._bus_id(self._get("nvmlDeviceGetNvLinkRemotePciInfo", handle, link))
            kind = self._get("nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
            if remote in bus_ids.values():
                ends.append(remote)
            elif kind in (None, _SWITCH):
                # An old pynvml does not tell the kind; what is no GPU is a switch then.
                ends.append("switch")
        return ends

    @staticmethod
    def _bus_id(info: object) -> str:
        return _text(getattr(info, "busId", "") if info else "").upper()


def _text(value: str | bytes) -> str:
    """Return a string of NVML, which an old pynvml leaves as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _switch(value: int | None) -> bool | None:
    return None if value is None else bool(value)
