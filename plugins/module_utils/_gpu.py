# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What is known of a host's GPUs, in one form whoever told it, and the sentences for what could not be told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MIB = 2**20
# The compute capability of architectures that have but one. Ampere has 8.0, 8.6 and 8.7, Blackwell 10.0 to 12.1.
_CAPABILITIES = {"Volta": "7.0", "Turing": "7.5", "Ada Lovelace": "8.9", "Hopper": "9.0"}

_VERSION = re.compile(r"\d+(?:\.\d+)+")
_CONTAINER = re.compile(r"(?:^|[/-])([0-9a-f]{64})(?:\.scope)?(?=/|$)")


class Late(Exception):
    """A tool did not end in time; a sentence for people."""


def told(source: str) -> dict[str, Any]:
    """Return an answer in which nothing is told yet.

    reason: why there are no GPUs, a key of _REASONS, or ''. text: what was said of it. library: the version of NVML's
    library that an error names. problems: sentences.
    """
    return {
        "source": source,
        "version": "",
        "cuda": "",
        "gpus": [],
        "links": [],
        "reason": "",
        "text": "",
        "library": "",
        "problems": [],
    }


def gpu(index: int, **values: Any) -> dict[str, Any]:
    """Return a GPU, of which nothing is known but what is given."""
    known: dict[str, Any] = {
        "index": index,
        "uuid": "",
        "name": "",
        "architecture": "",
        "compute_capability": "",
        "brand": "",
        "pci_bus_id": "",
        "memory": {"total": 0, "reserved": 0, "used": 0, "free": 0},
        "compute_mode": "",
        "persistence_mode": None,
        "ecc": None,
        "mig": {"enabled": False, "pending": False, "devices": []},
        "fabric": {"state": "", "status": ""},
        "processes": [],
    }
    known.update(values)
    known["compute_capability"] = known["compute_capability"] or _CAPABILITIES.get(known["architecture"], "")
    return known


def topology(links: Iterable[tuple[int, int, str]]) -> dict[str, Any]:
    """Return how GPUs are linked. links: (one index, the other, kind)."""
    found = sorted(links)
    return {
        "links": [{"between": [one, other], "kind": kind} for one, other, kind in found],
        "nvlink": any(kind.startswith("NV") for dummy_one, dummy_other, kind in found),
    }


def kernel_module(text: str) -> tuple[str, bool]:
    """Return (version, whether it is the open one) of the kernel module, from /proc/driver/nvidia/version."""
    line = next((line for line in text.splitlines() if line.startswith("NVRM version:")), "")
    found = _VERSION.search(line)
    return (found.group() if found else ""), "Open Kernel Module" in line


def first_version(text: str) -> str:
    """Return the first version in what a tool prints, or ''."""
    found = _VERSION.search(text)
    return found.group() if found else ""


def library_version(of_file: str, said: str) -> str:
    """Return the version of the library that is in use; said: as an error names it, often without the last number."""
    return said if said and not _is_version(of_file, said) else of_file


def is_mismatch(kernel: str, library: str, reason: str) -> bool:
    """Return whether the library is of another version than the kernel module, by NVML's account or ours."""
    return reason == "mismatch" or bool(kernel and library and kernel != library)


def container_of(text: str) -> str:
    """Return the ID of the container that a process is in, from /proc/PID/cgroup, or ''.

    Of containers within a container it is the outermost, the one that the host's Docker knows.
    """
    for line in text.splitlines():
        found = _CONTAINER.search(line.split(":", 2)[-1])
        if found:
            return found.group(1)
    return ""


def cdi_devices(text: str) -> list[str]:
    """Return the devices that nvidia-ctk cdi list prints."""
    return re.findall(r"^\s*([\w.-]*\bnvidia\.com/[\w.-]+=\S+)\s*$", text, re.MULTILINE)


def missing_in_cdi(gpus: Iterable[Mapping[str, Any]], devices: Iterable[str]) -> list[str]:
    """Return the UUIDs of GPUs, or of MIG devices on GPUs with MIG, that no CDI device is named by.

    Names are indices, UUIDs or both, as nvidia-ctk was told; indices tell nothing of what is missing.
    """
    names = {device.partition("=")[2] for device in devices}
    if not any(name.startswith(("GPU-", "MIG-")) for name in names):
        return []
    wanted = []
    for one in gpus:
        wanted += [device["uuid"] for device in one["mig"]["devices"]] if one["mig"]["enabled"] else [one["uuid"]]
    return [uuid for uuid in wanted if uuid and uuid not in names]


def no_cgroups(text: str) -> bool:
    """Return whether the toolkit's config.toml has no-cgroups on, and not as a comment."""
    return bool(re.search(r"^\s*no-cgroups\s*=\s*true\b", text, re.MULTILINE))


def late(command: str, seconds: float, way_out: str = "") -> str:
    """Return the sentence for a command that was given up."""
    return "'%s' did not end within %d s and was given up: %s" % (
        command,
        seconds,
        way_out or "run it by hand to see what it waits for, or raise the timeout",
    )


HANGS = "the driver hangs, look for NVRM and Xid in dmesg, and reboot the host"


def lost(name: str, why: str) -> str:
    """Return the sentence for a GPU that does not answer."""
    return (
        "the GPU %s does not answer (%s): look for its Xid in dmesg, then reset the GPU or reboot the host; when that "
        "does not help, the card or its slot is broken" % (name, why)
    )


def problems(answer: Mapping[str, Any], driver: Mapping[str, Any], pci: Sequence[str]) -> list[str]:
    """Return the sentences for what an answer lacks.

    driver: as the module returns it. pci: the kernel drivers of the NVIDIA GPUs on the PCI bus, '' for none.
    """
    sentences = list(answer["problems"])
    seen = len(answer["gpus"])
    if driver["mismatch"]:
        sentences.insert(
            0,
            "the kernel has the NVIDIA driver %s loaded, and its library on the host is %s: reboot the host (or unload "
            "and load its modules) before a container with GPUs is started anew"
            % (driver["kernel_version"] or "of unknown version", driver["library_version"] or "another one"),
        )
    if answer["reason"] and answer["reason"] != "mismatch":
        sentences.append(_why_none(answer, driver, pci))
    elif 0 < seen < len(pci) and not answer["problems"]:
        others = sorted({name for name in pci if name not in ("", "nvidia")})
        sentences.append(
            "%d NVIDIA GPUs are on the PCI bus and %s shows %d%s: look for NVRM and Xid in dmesg"
            % (len(pci), answer["source"], seen, " (%s has some)" % " and ".join(others) if others else "")
        )
    return sentences


def _why_none(answer: Mapping[str, Any], driver: Mapping[str, Any], pci: Sequence[str]) -> str:
    reason, text = answer["reason"], answer["text"]
    if reason in ("missing", "no_driver", "no_library") and not driver["loaded"]:
        if not pci:
            return (
                "no NVIDIA GPU is on the PCI bus and no NVIDIA driver is loaded: this host can serve on its CPU alone"
            )
        others = sorted({name for name in pci if name not in ("", "nvidia")})
        return (
            "%d NVIDIA GPU%s on the PCI bus and no driver is loaded%s: install the NVIDIA driver, or load "
            "it (modprobe nvidia)"
            % (len(pci), " is" if len(pci) == 1 else "s are", " but " + " and ".join(others) if others else "")
        )
    version = " " + driver["version"] if driver["version"] else ""
    values = {"text": text, "version": version, "pci": len(pci), "source": answer["source"]}
    return _REASONS[reason] % values


_REASONS = {
    "missing": "the NVIDIA driver%(version)s is loaded and nvidia-smi is not on the host: install the driver's "
    "utilities of the same version (nvidia-utils or nvidia-smi by name)",
    "no_library": "the NVIDIA driver%(version)s is loaded and its library libnvidia-ml.so.1 is not on the host "
    "(%(text)s): install the driver's libraries of the same version",
    "no_driver": "%(source)s does not reach the NVIDIA driver%(version)s, which is loaded ('%(text)s'): look for NVRM "
    "in dmesg, and reboot the host",
    "no_devices": "the NVIDIA driver%(version)s finds no GPU that it can use, of %(pci)d on the PCI bus ('%(text)s'): "
    "look for NVRM and Xid in dmesg",
    "other": "%(source)s tells nothing of the GPUs ('%(text)s'): look for NVRM in dmesg, and run nvidia-smi by hand",
}


def _is_version(version: str, short: str) -> bool:
    return version == short or version.startswith(short + ".")
