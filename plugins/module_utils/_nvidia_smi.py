# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What nvidia-smi tells of GPUs, by drivers from 418 on: its XML first, and small queries for what the XML lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, unescape

from ansible_collections.llmops.vllm.plugins.module_utils import _gpu

# nvidia-smi with arguments: (exit code, stdout, stderr).
Run = Callable[..., Optional[tuple[int, str, str]]]

# Instead of a value; with and without brackets, by driver and form of output.
_NOTHING = {
    "",
    "n/a",
    "none",
    "unknown",
    "not supported",
    "not available",
    "not applicable",
    "insufficient permissions",
    "requested functionality has been deprecated",
    "err!",
}
# Instead of a value, by a GPU that does not answer.
_BROKEN = {"gpu is lost", "unknown error", "gpu requires reset", "gpu requires restart"}
# What tells of GPUs when the XML does not. Drivers before 510 do not know compute_cap.
_FIELDS = ("index", "name", "uuid", "memory.total", "memory.free", "memory.used", "driver_version", "pci.bus_id")
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_LOST = re.compile(r"Unable to determine the device handle for GPU\s*(?P<gpu>.+?): (?P<why>[^:\n]+)$", re.MULTILINE)
_ERRORS = (
    ("mismatch", re.compile(r"Driver/library version mismatch")),
    ("no_driver", re.compile(r"couldn't communicate with the NVIDIA driver|Driver Not Loaded")),
    ("no_library", re.compile(r"couldn't find libnvidia-ml\.so|NVML Shared Library Not Found")),
    ("no_devices", re.compile(r"No devices were found")),
    ("other", re.compile(r"Failed to initialize NVML")),
)


def ask(run: Run) -> dict[str, Any]:
    """Return what nvidia-smi tells, as _gpu.told().

    run: takes the arguments of nvidia-smi and returns (exit code, stdout, stderr), or None where there is no
    nvidia-smi, or raises _gpu.Late.
    """
    answer = _gpu.told("nvidia-smi")
    try:
        _ask(run, answer)
    except _gpu.Late as error:
        # Where one question hangs, the others do as well.
        answer["problems"].append(str(error))
    for gpu in answer["gpus"]:
        for device in gpu["mig"]["devices"]:
            del device["number"]
    return answer


def _ask(run: Run, answer: dict[str, Any]) -> None:
    result = run("-q", "-x")
    if result is None:
        answer["reason"] = "missing"
        return
    code, output, errors = result
    document, rest = split_xml(output)
    said = "%s\n%s" % (rest, errors)
    try:
        found = parse_xml(document)
    except ValueError as error:
        _explain(said, answer)
        if not answer["reason"]:
            _fall_back(run, answer, said.strip() or "%s, exit code %d" % (error, code))
    else:
        answer.update(found, problems=answer["problems"] + found["problems"])
        _explain(said, answer)
        if not answer["gpus"] and not answer["reason"] and not answer["problems"]:
            answer.update(reason="no_devices", text="no GPU in nvidia-smi -q -x")
    if answer["gpus"]:
        answer["reason"] = ""
        _complete(run, answer)


def _explain(said: str, answer: dict[str, Any]) -> None:
    """Add what error messages tell."""
    for found in _LOST.finditer(said):
        name = re.search(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d", found.group("gpu"))
        sentence = _gpu.lost(name.group() if name else found.group("gpu"), found.group("why").strip().rstrip("."))
        if sentence not in answer["problems"]:
            answer["problems"].append(sentence)
    for reason, pattern in _ERRORS:
        line = next((line for line in said.splitlines() if pattern.search(line)), None)
        if line is not None:
            answer.update(reason=reason, text=_first_sentence(line))
            break
    library = re.search(r"NVML library version:\s*([\d.]+)", said)
    answer["library"] = library.group(1) if library else answer["library"]


def _fall_back(run: Run, answer: dict[str, Any], why: str) -> None:
    """Ask for the values one by one, which works where the XML is cut off or one GPU is gone."""
    result = run("--query-gpu=" + ",".join(_FIELDS), "--format=csv,noheader")
    dummy_code, output, errors = result or (1, "", "")
    answer["version"], answer["gpus"] = parse_query(output)
    _explain(output + "\n" + errors, answer)
    if not answer["gpus"] and not answer["reason"] and not answer["problems"]:
        answer.update(reason="other", text=_first_sentence(why))


def _complete(run: Run, answer: dict[str, Any]) -> None:
    """Add what the XML does not tell: indices, compute capabilities, names of MIG devices, links."""
    result = run("--query-gpu=index,uuid,compute_cap", "--format=csv,noheader")
    rows = parse_capabilities(result[1]) if result else {}
    for gpu in answer["gpus"]:
        index, capability = rows.get(gpu["uuid"], (gpu["index"], ""))
        gpu.update(index=index, compute_capability=capability or gpu["compute_capability"])
    if any(gpu["mig"]["enabled"] for gpu in answer["gpus"]):
        result = run("-L")
        name_mig_devices(answer["gpus"], parse_list(result[1]) if result else {})
    if len(answer["gpus"]) > 1:
        result = run("topo", "-m")
        answer["links"] = parse_topology(result[1]) if result else []


def split_xml(text: str) -> tuple[str, str]:
    """Return (the XML in what nvidia-smi -q -x has printed, all else)."""
    start, end = text.find("<nvidia_smi_log"), text.rfind("</nvidia_smi_log>")
    if start < 0:
        return "", text
    end = end + len("</nvidia_smi_log>") if end > 0 else len(text)
    return text[start:end], re.sub(r"<[?!][^>]*>", "", text[:start]) + "\n" + text[end:]


def parse_xml(document: str) -> dict[str, Any]:
    """Return version, cuda, gpus and problems of nvidia-smi -q -x, or raise ValueError."""
    if not document:
        raise ValueError("nvidia-smi -q -x has printed no XML")
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        try:
            # Names of processes are printed as they are, with & and control characters.
            root = ElementTree.fromstring(_mend(document))
        except ElementTree.ParseError as error:
            raise ValueError("nvidia-smi -q -x has printed XML that cannot be read (%s)" % error) from None
    gpus, problems = [], []
    for index, node in enumerate(root.findall("gpu")):
        broken = (node.findtext("uuid") or node.findtext("product_name") or "").strip().strip("[]")
        if broken.lower() in _BROKEN:
            problems.append(_gpu.lost(node.get("id", str(index)), broken))
        else:
            gpus.append(_parse_gpu(node, index))
    return {
        "version": _value(root, "driver_version"),
        # 610 speaks of the CUDA of the user-mode driver.
        "cuda": _value(root, "cuda_version") or _value(root, "cuda_umd_version"),
        "gpus": gpus,
        "problems": problems,
    }


def _parse_gpu(node: Element, index: int) -> dict[str, Any]:
    return _gpu.gpu(
        index,
        uuid=_value(node, "uuid"),
        name=_value(node, "product_name"),
        architecture=_value(node, "product_architecture"),
        brand=_value(node, "product_brand"),
        pci_bus_id=_value(node, "pci/pci_bus_id") or node.get("id", ""),
        memory=_memory(node, ("total", "reserved", "used", "free")),
        compute_mode=_value(node, "compute_mode"),
        persistence_mode=_switch(_value(node, "persistence_mode")),
        ecc=_switch(_value(node, "ecc_mode/current_ecc")),
        mig={
            "enabled": _switch(_value(node, "mig_mode/current_mig")) or False,
            "pending": _switch(_value(node, "mig_mode/pending_mig")) or False,
            "devices": [_parse_mig(device) for device in node.findall("mig_devices/mig_device")],
        },
        fabric={"state": _value(node, "fabric/state"), "status": _value(node, "fabric/status")},
        processes=[
            {
                "pid": int(_value(process, "pid")),
                "name": _value(process, "process_name"),
                "type": _value(process, "type"),
                "memory": _bytes(_value(process, "used_memory")),
            }
            for process in node.findall("processes/process_info")
            if _value(process, "pid").isdigit()
        ],
    )


def _parse_mig(node: Element) -> dict[str, Any]:
    return {
        # The number of the device in nvidia-smi -L, which alone tells its UUID and profile.
        "number": _number(_value(node, "index")),
        "uuid": "",
        "profile": "",
        "gpu_instance": _number(_value(node, "gpu_instance_id")),
        "compute_instance": _number(_value(node, "compute_instance_id")),
        "memory": _memory(node, ("total", "used", "free")),
    }


def name_mig_devices(gpus: Iterable[dict[str, Any]], listed: Mapping[str, Mapping[int, tuple[str, str]]]) -> None:
    """Give MIG devices the UUIDs and profiles of nvidia-smi -L."""
    for gpu in gpus:
        for device in gpu["mig"]["devices"]:
            found = listed.get(gpu["uuid"], {}).get(device["number"], ("", ""))
            device["profile"], device["uuid"] = found


def parse_list(text: str) -> dict[str, dict[int, tuple[str, str]]]:
    """Return {UUID of a GPU: {number of a MIG device: (profile, UUID)}} of nvidia-smi -L."""
    listed: dict[str, dict[int, tuple[str, str]]] = {}
    devices: dict[int, tuple[str, str]] = {}
    for line in text.splitlines():
        found = re.match(r"GPU \d+: .*\(UUID: (\S+)\)", line)
        if found:
            devices = listed.setdefault(found.group(1), {})
            continue
        found = re.match(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (\S+)\)", line)
        if found:
            devices[int(found.group(2))] = (found.group(1), found.group(3))
    return listed


def parse_capabilities(text: str) -> dict[str, tuple[int, str]]:
    """Return {UUID: (index, compute capability)} of --query-gpu=index,uuid,compute_cap."""
    rows = {}
    for line in text.splitlines():
        index, dummy, rest = line.partition(", ")
        uuid, dummy, capability = rest.partition(", ")
        if index.isdigit() and uuid:
            rows[uuid] = (int(index), capability.strip() if re.match(r"\d+\.\d+$", capability.strip()) else "")
    return rows


def parse_query(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Return (version of the driver, GPUs) of the query of _FIELDS."""
    gpus, version = [], ""
    for line in text.splitlines():
        values = [_clean(value) for value in line.split(",")]
        if len(values) != len(_FIELDS) or not values[0].isdigit():
            continue
        row = {field: values[place] for place, field in enumerate(_FIELDS)}
        version = version or row["driver_version"]
        memory = {key: _bytes(row["memory." + key]) or 0 for key in ("total", "used", "free")}
        gpus.append(
            _gpu.gpu(
                int(row["index"]),
                uuid=row["uuid"],
                name=row["name"],
                pci_bus_id=row["pci.bus_id"],
                memory=dict(memory, reserved=0),
            )
        )
    return version, gpus


def parse_topology(text: str) -> list[tuple[int, int, str]]:
    """Return (one index, the other, kind) for each pair of GPUs of nvidia-smi topo -m."""
    links: list[tuple[int, int, str]] = []
    columns: list[int] = []
    for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines():
        if not columns:
            # The GPUs come first, then network cards, then columns with blanks in their names.
            columns = [int(number) for number in re.findall(r"\bGPU(\d+)\b", line)]
            continue
        words = line.split()
        found = re.match(r"GPU(\d+)$", words[0]) if words else None
        if found:
            row = int(found.group(1))
            for place, kind in enumerate(words[1 : 1 + len(columns)]):
                if row < columns[place] and re.match(r"(NV\d+|PIX|PXB|PHB|NODE|SYS)$", kind):
                    links.append((row, columns[place], kind))
    return links


def _mend(document: str) -> str:
    document = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", document)
    return re.sub(
        r"(?s)(?<=<process_name>)(.*?)(?=</process_name>)", lambda found: escape(unescape(found.group(1))), document
    )


def _value(node: Element, path: str) -> str:
    return _clean(node.findtext(path) or "")


def _clean(text: str) -> str:
    value = text.strip()
    bare = value[1:-1].strip() if value[:1] + value[-1:] == "[]" else value
    return "" if bare.lower() in _NOTHING or bare.lower() in _BROKEN else value


def _switch(value: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(value)


def _memory(node: Element, keys: Iterable[str]) -> dict[str, int]:
    return {key: _bytes(_value(node, "fb_memory_usage/" + key)) or 0 for key in keys}


def _bytes(value: str) -> int | None:
    """Return '81920 MiB' in bytes, or None for what is no size."""
    found = re.match(r"(\d+) ?(\w+)$", value)
    return int(found.group(1)) * _UNITS[found.group(2)] if found and found.group(2) in _UNITS else None


def _number(value: str) -> int:
    return int(value) if value.isdigit() else -1


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[a-z])\.\s", " ".join(text.split()))[0].rstrip(".")[:300]
