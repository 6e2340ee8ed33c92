#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Which NVIDIA GPUs a host has, and whether containers can use them
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Tells the GPUs of a host with their memory, links, MIG devices and processes, the driver with its kernel module and
    library, NVSwitches and the Fabric Manager, and the NVIDIA Container Toolkit with its CDI devices.
  - A host without GPUs, or with a driver that does not work, is an answer and no error. RV(problems) says why in
    sentences.
  - Run it as root. Others may not see the processes of all users, nor which containers they are in.
requirements:
  - nvidia-smi, which comes with the driver, or pynvml (the package nvidia-ml-py, 11.450 or newer)
attributes:
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
options:
  source:
    description:
      - Who is asked. V(nvml) asks the driver's library through pynvml, V(nvidia-smi) runs the command.
      - V(auto) asks NVML where pynvml can be imported, and C(nvidia-smi) where that tells of no GPU.
    type: str
    choices: [auto, nvml, nvidia-smi]
    default: auto
    version_added: 0.2.0
  timeout:
    description:
      - Seconds that NVML, and each command, may take. One that takes longer is killed and reported in RV(problems), as
        a driver that is broken lets them hang for ever.
    type: int
    default: 30
    version_added: 0.2.0
seealso:
  - name: nvidia-smi
    description: What the values mean.
    link: https://docs.nvidia.com/deploy/nvidia-smi/index.html
"""

EXAMPLES = r"""
- name: Look at the GPUs
  llmops.vllm.gpu_info:
  register: found

- name: Say what is wrong
  ansible.builtin.debug:
    msg: "{{ found.problems }}"
  when: found.problems | length > 0

- name: Refuse a host where GPU 0 has too little free memory
  ansible.builtin.assert:
    that: found.gpus[0].memory.free >= 40 * 1024 ** 3

- name: Ask nvidia-smi, and wait no longer than ten seconds for it
  llmops.vllm.gpu_info:
    source: nvidia-smi
    timeout: 10
"""

RETURN = r"""
source:
  description: Who told of the GPUs, V(nvml) or V(nvidia-smi); V(none) where there are none to tell of.
  returned: always
  type: str
  sample: nvidia-smi
driver:
  description: The NVIDIA driver.
  returned: always
  type: dict
  contains:
    version:
      description: Its version, or that of the kernel module where nobody else told; empty without a driver.
      type: str
      sample: 580.65.06
    cuda:
      description: The highest version of CUDA that it knows; empty where it did not tell.
      type: str
      sample: "13.0"
    open_kernel_module:
      description: Whether the open kernel module is loaded.
      type: bool
      sample: true
    loaded:
      description: Whether a kernel module is loaded.
      type: bool
      sample: true
    kernel_version:
      description: Version of the kernel module that is loaded; empty for none.
      type: str
      sample: 580.65.06
    library_version:
      description: Version of C(libnvidia-ml) on the host, or the one that an error names; empty where there is none.
      type: str
      sample: 580.65.06
    mismatch:
      description: Whether kernel module and library are of different versions, so that no new process can use a GPU.
      type: bool
      sample: false
gpus:
  description: The GPUs, in the order of their indices.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Its number, as C(nvidia-smi) counts.
      type: int
      sample: 0
    uuid:
      description: Its UUID.
      type: str
      sample: GPU-6b0e3a52-0c3f-4e58-9a0d-7d0c54c1f1aa
    name:
      description: Its name.
      type: str
      sample: NVIDIA H100 80GB HBM3
    architecture:
      description: Its architecture; empty where the driver does not tell (before 470).
      type: str
      sample: Hopper
    compute_capability:
      description: Its compute capability; empty where neither the driver nor the architecture tells it.
      type: str
      sample: "9.0"
    brand:
      description: Its brand, in the driver's words, which change between versions; may be empty.
      type: str
      sample: NVIDIA
    pci_bus_id:
      description: Its address on the PCI bus.
      type: str
      sample: "00000000:19:00.0"
    memory:
      description: Its memory; all 0 where the driver does not tell, as for GPUs that share the host's.
      type: dict
      contains:
        total:
          description: Bytes in all.
          type: int
          sample: 85520809984
        reserved:
          description: Bytes that the driver keeps for itself; 0 before 510, which counts them as used.
          type: int
          sample: 555745280
        used:
          description: Bytes in use.
          type: int
          sample: 0
        free:
          description: Bytes that are free.
          type: int
          sample: 84964016128
    compute_mode:
      description: V(Default), V(Exclusive_Process), V(Prohibited) or V(Exclusive_Thread); empty where it is not told.
      type: str
      sample: Default
    persistence_mode:
      description: Whether the driver stays loaded without a process; null where it is not told.
      type: bool
      sample: true
    ecc:
      description: Whether ECC is on; null for a GPU without ECC.
      type: bool
      sample: true
    mig:
      description: Its parts, where it is divided.
      type: dict
      contains:
        enabled:
          description: Whether MIG is on.
          type: bool
          sample: false
        pending:
          description: Whether MIG is on after the next reset of the GPU.
          type: bool
          sample: false
        devices:
          description: Its MIG devices.
          type: list
          elements: dict
          contains:
            uuid:
              description: UUID of the device.
              type: str
              sample: MIG-2d7c2f6e-6b1c-5b0e-8a5f-41d6a3f0c9d2
            profile:
              description: Its profile; empty where the driver does not tell.
              type: str
              sample: 3g.40gb
            gpu_instance:
              description: Number of its GPU instance, or -1.
              type: int
              sample: 2
            compute_instance:
              description: Number of its compute instance, or -1.
              type: int
              sample: 0
            memory:
              description: Its memory in bytes.
              type: dict
              sample: {"total": 42144366592, "used": 44040192, "free": 42100326400}
    fabric:
      description: How the GPU stands with the NVLink fabric, from 525 on; empty for a GPU without.
      type: dict
      contains:
        state:
          description: V(Completed), V(In Progress) or V(Not Started); may be empty.
          type: str
          sample: Completed
        status:
          description: V(Success), or what went wrong; may be empty.
          type: str
          sample: Success
    processes:
      description: The processes that use it.
      type: list
      elements: dict
      contains:
        pid:
          description: ID of the process.
          type: int
          sample: 48213
        name:
          description: Its name; may be empty.
          type: str
          sample: VLLM::EngineCore
        type:
          description: V(C) for computing, V(G) for graphics, V(C+G) for both, V(M+C) for a client of MPS; may be empty.
          type: str
          sample: C
        memory:
          description: Bytes that it uses; null where the driver does not tell.
          type: int
          sample: 76302778368
        container:
          description: ID of the container that it is in, by its cgroup; empty for none.
          type: str
          sample: 3f1d0c9e2b7a4d6f8e5c1a0b9d8f7e6c5b4a39281706f5e4d3c2b1a09f8e7d6c
topology:
  description: How the GPUs are linked.
  returned: always
  type: dict
  contains:
    links:
      description: One entry for each pair of GPUs.
      type: list
      elements: dict
      contains:
        between:
          description: Indices of the two.
          type: list
          elements: int
          sample: [0, 1]
        kind:
          description:
            - V(NV18) for 18 NVLinks, and so on. Over PCIe, from near to far, V(PIX), V(PXB), V(PHB), V(NODE), V(SYS).
          type: str
          sample: NV18
    nvlink:
      description: Whether any two are linked by NVLink.
      type: bool
      sample: true
nvswitch:
  description: The switches between the GPUs.
  returned: always
  type: dict
  contains:
    present:
      description: Whether the host has any that its kernel drives.
      type: bool
      sample: true
    fabric_manager:
      description: The service that a host with NVSwitches needs.
      type: dict
      contains:
        installed:
          description: Whether it is installed.
          type: bool
          sample: true
        version:
          description: Its version, which has to be that of the driver; empty where it is not installed.
          type: str
          sample: 580.65.06
        active:
          description: Whether its service runs; null on a host without systemd.
          type: bool
          sample: true
devices:
  description: Device nodes of the driver.
  returned: always
  type: list
  elements: str
  sample: [/dev/nvidia-uvm, /dev/nvidia0, /dev/nvidiactl]
toolkit:
  description: The NVIDIA Container Toolkit.
  returned: always
  type: dict
  contains:
    version:
      description: Its version; empty where it is not installed.
      type: str
      sample: 1.20.0
    hook:
      description: Path of C(nvidia-container-runtime-hook), which Docker looks for when it starts; may be empty.
      type: str
      sample: /usr/bin/nvidia-container-runtime-hook
    runtime:
      description: Path of C(nvidia-container-runtime); may be empty.
      type: str
      sample: /usr/bin/nvidia-container-runtime
    ctk:
      description: Path of C(nvidia-ctk); may be empty.
      type: str
      sample: /usr/bin/nvidia-ctk
    cli:
      description: Path of C(nvidia-container-cli); may be empty.
      type: str
      sample: /usr/bin/nvidia-container-cli
    no_cgroups:
      description: Whether C(no-cgroups) is on in its configuration, as for Docker without root.
      type: bool
      sample: false
cdi:
  description: What containers can name by CDI.
  returned: always
  type: dict
  contains:
    specs:
      description: Files in C(/etc/cdi) and C(/var/run/cdi) that have NVIDIA devices.
      type: list
      elements: str
      sample: [/var/run/cdi/nvidia.yaml]
    devices:
      description: Names of the NVIDIA devices, by C(nvidia-ctk cdi list).
      type: list
      elements: str
      sample: [nvidia.com/gpu=0, nvidia.com/gpu=all]
    refresh:
      description:
        - State of the unit C(nvidia-cdi-refresh.path), such as V(enabled), V(disabled) or V(masked); empty where there
          is none.
      type: str
      sample: enabled
    missing:
      description:
        - UUIDs of GPUs that no device is named by, and of the MIG devices on GPUs with MIG. Told only where devices
          are named by UUIDs.
      type: list
      elements: str
      sample: []
pci_gpus:
  description: How many NVIDIA GPUs are on the PCI bus, with a driver or without.
  returned: always
  type: int
  sample: 8
problems:
  description: What is wrong with driver and GPUs, or could not be told, a sentence with its way out for each.
  returned: always
  type: list
  elements: str
  sample:
    - "1 NVIDIA GPU is on the PCI bus and no driver is loaded: install the NVIDIA driver, or load it (modprobe nvidia)"
"""

import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.llmops.vllm.plugins.module_utils import _gpu, _gpu_host, _nvidia_smi, _nvml

# What systemctl is-active says of a unit; anything else is an error.
_STATES = ("active", "reloading", "inactive", "failed", "activating", "deactivating", "unknown")


class GpuInfo:
    """Looks at the GPUs of this host."""

    # Where the files of the host begin.
    root = "/"

    def __init__(self, params: dict[str, Any]) -> None:
        self.source = params["source"]
        self.timeout = params["timeout"]
        self.host = _gpu_host.Host(self.root, self.timeout)
        self.late: list[str] = []

    def run(self) -> dict[str, Any]:
        """Return the result."""
        answer = self._ask()
        driver = self._driver(answer)
        pci = self.host.pci_gpus()
        gpus = sorted(answer["gpus"], key=lambda gpu: gpu["index"])
        for gpu in gpus:
            for process in gpu["processes"]:
                process["container"] = _gpu.container_of(self.host.read("proc/%d/cgroup" % process["pid"]))
        return {
            "changed": False,
            "source": answer["source"] if gpus else "none",
            "driver": driver,
            "gpus": gpus,
            "topology": _gpu.topology(answer["links"]),
            "nvswitch": self._nvswitch(),
            "devices": [name for name in self.host.names("dev/nvidia*") if not self.host.is_folder(name)],
            "toolkit": self._toolkit(),
            "cdi": self._cdi(gpus),
            "pci_gpus": len(pci),
            "problems": _gpu.problems(answer, driver, pci) + self.late,
        }

    def _ask(self) -> dict[str, Any]:
        asked = None
        if self.source != "nvidia-smi" and _nvml.pynvml:
            asked, hangs = self._ask_nvml()
            if asked["gpus"] or hangs or self.source == "nvml":
                return asked
        answer = _nvidia_smi.ask(lambda *arguments: self.host.run("nvidia-smi", *arguments))
        return asked if asked and answer["reason"] == "missing" else answer

    def _ask_nvml(self) -> tuple[dict[str, Any], bool]:
        """Return (the answer, whether NVML hangs)."""
        answer = _gpu.told("nvml")
        try:
            return _gpu_host.apart(lambda: _nvml.ask(_nvml.pynvml), self.timeout), False
        except _gpu.Late as error:
            answer["problems"].append(str(error))
            return answer, True
        except RuntimeError as error:
            answer.update(reason="other", text=str(error))
            return answer, False

    def _driver(self, answer: dict[str, Any]) -> dict[str, Any]:
        kernel, is_open = _gpu.kernel_module(self.host.read("proc/driver/nvidia/version"))
        library = _gpu.library_version(self.host.library_version(), answer["library"])
        return {
            "version": answer["version"] or kernel,
            "cuda": answer["cuda"],
            "open_kernel_module": is_open,
            "loaded": self.host.exists("proc/driver/nvidia/version"),
            "kernel_version": kernel,
            "library_version": library,
            "mismatch": _gpu.is_mismatch(kernel, library, answer["reason"]),
        }

    def _nvswitch(self) -> dict[str, Any]:
        version = self._output("nv-fabricmanager", "--version")
        state = (self._output("systemctl", "is-active", "nvidia-fabricmanager") or "").strip()
        return {
            "present": bool(
                self.host.names("dev/nvidia-nvswitch[0-9]*") or self.host.names("proc/driver/nvidia-nvswitch/devices/*")
            ),
            "fabric_manager": {
                "installed": bool(self.host.which("nv-fabricmanager")),
                "version": _gpu.first_version(version or ""),
                "active": state == "active" if state in _STATES else None,
            },
        }

    def _toolkit(self) -> dict[str, Any]:
        return {
            "version": _gpu.first_version(self._output("nvidia-ctk", "--version") or ""),
            "hook": self.host.which("nvidia-container-runtime-hook"),
            "runtime": self.host.which("nvidia-container-runtime"),
            "ctk": self.host.which("nvidia-ctk"),
            "cli": self.host.which("nvidia-container-cli"),
            "no_cgroups": _gpu.no_cgroups(self.host.read("etc/nvidia-container-runtime/config.toml")),
        }

    def _cdi(self, gpus: list[dict[str, Any]]) -> dict[str, Any]:
        files = [
            name
            for folder in ("etc/cdi", "var/run/cdi")
            for ending in ("yaml", "json")
            for name in self.host.names("%s/*.%s" % (folder, ending))
        ]
        devices = _gpu.cdi_devices(self._output("nvidia-ctk", "cdi", "list") or "")
        state = (self._output("systemctl", "is-enabled", "nvidia-cdi-refresh.path") or "").strip()
        return {
            "specs": sorted(name for name in files if "nvidia.com" in self.host.read(name)),
            "devices": devices,
            "refresh": "" if state == "not-found" else state,
            "missing": _gpu.missing_in_cdi(gpus, devices),
        }

    def _output(self, *command: str) -> str | None:
        """Return what a tool prints, or None where it is missing or hangs."""
        try:
            result = self.host.run(*command)
        except _gpu.Late as error:
            self.late.append(str(error))
            return None
        return result[1] if result else None


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            source=dict(type="str", default="auto", choices=["auto", "nvml", "nvidia-smi"]),
            timeout=dict(type="int", default=30),
        ),
        supports_check_mode=True,
    )
    if module.params["source"] == "nvml" and not _nvml.pynvml:
        module.fail_json(msg=missing_required_lib("nvidia-ml-py"), exception=_nvml.PYNVML_ERROR)
    try:
        module.exit_json(**GpuInfo(module.params).run())
    except OSError as error:
        module.fail_json(msg="the GPUs of this host cannot be told: %s" % error, exception=traceback.format_exc())


if __name__ == "__main__":
    main()
