# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which NVIDIA driver an image of vLLM needs, and whether a host's driver will do. Pure.

Sources, read in November 2026:

- CUDA Toolkit release notes, "CUDA Toolkit and Corresponding Driver Versions" and the table of minor version
  compatibility: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/
- Forward compatibility, and which GPUs have it: https://docs.nvidia.com/deploy/cuda-compatibility/
- NVIDIA_REQUIRE_CUDA, as libnvidia-container's src/cli/dsl.c and configure.c evaluate it; the branches that CUDA 13
  images admit are those of nvidia/cuda:13.0.
- CUDA_VERSION of vLLM's Dockerfiles, 0.4.2 to 0.33.0, and its suffixes of tags (-cu129).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._engine_schema import version_key, version_of_tag

# CUDA -> the driver that knows it.
DRIVER_OF = {
    "11.8": "520.61.05",
    "12.0": "525.60.13",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
    "13.2": "595.45.04",
    "13.3": "610.43.02",
}
# Major version of CUDA -> the driver from which on all of its versions run, by minor version compatibility.
DRIVER_OF_MAJOR = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
# Major version of CUDA -> branches of older drivers on which it runs by forward compatibility.
FORWARD_BRANCHES = {12: (470,), 13: (535, 550, 565, 570, 575)}
FORWARD_VARIABLE = "VLLM_ENABLE_CUDA_COMPATIBILITY"

# From which version of vLLM on its images have which CUDA, the newest first.
_CUDA_OF_VLLM = (("0.20.0", "13.0"), ("0.11.1", "12.9"), ("0.9.0", "12.8"), ("0.4.2", "12.4"), ("0.0.0", "12.1"))
_VLLM_IMAGE = re.compile(r"(.*/)?vllm/vllm-openai[:@]")
_TAGGED_CUDA = re.compile(r"[-:]cu(1\d)(\d)(?![\w.])")
# Names of GPUs for data centres; a workstation's or a gamer's has one of _NOT in its name.
_DATACENTRE = re.compile(
    r"\b(A2|A10G?|A16|A30X?|A40|A100X?|A800|B100|B200|B300|GB200|GB300|GH200|H20|H100|H200|H800|L4|L20|L40S?|P4|P40|P100"
    r"|T4G?|V100S?)\b"
)
_NOT_DATACENTRE = re.compile(r"\b(RTX|GTX|GeForce|Quadro|TITAN|Jetson)\b", re.IGNORECASE)
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FACTOR = re.compile(r"([a-z]+)(!=|<=|>=|=|<|>)(.+)")


def numbers(version: str) -> tuple[int, ...]:
    """Return what a version of a driver, or of CUDA, sorts by: 580.65.06 is (580, 65, 6)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def branch(version: str) -> int:
    """Return the branch of a driver: 580 of 580.65.06; 0 for none."""
    return (numbers(version) or (0,))[0]


def needed(image: str, environment: Mapping[str, str]) -> str:
    """Return the CUDA that an image has, such as "13.0", or '' where nothing tells.

    environment: variables of the image where it is at hand, else {}; then its tag tells, for vLLM's own images.
    """
    found = re.match(r"\d+\.\d+", environment.get("CUDA_VERSION", "")) or re.match(
        r"cuda>=(\d+\.\d+)", environment.get("NVIDIA_REQUIRE_CUDA", "")
    )
    if found:
        return found.group(found.lastindex or 0)
    if environment or not _VLLM_IMAGE.match(image):
        return ""
    tagged = _TAGGED_CUDA.search(image)
    if tagged:
        return "%s.%s" % tagged.groups()
    version = version_of_tag(image)
    if not version:
        return ""
    return next(cuda for since, cuda in _CUDA_OF_VLLM if version_key(version) >= version_key(since))


def driver_text(cuda: str) -> str:
    """Return the driver that knows a CUDA, in words: "R580 (580.65.06) or newer"."""
    found = DRIVER_OF.get(cuda) or DRIVER_OF_MAJOR.get(numbers(cuda)[0] if cuda else 0)
    return "R%d (%s) or newer" % (branch(found), found) if found else "that knows CUDA %s" % cuda


def known_by(driver: Mapping[str, str]) -> str:
    """Return the highest CUDA that a driver knows, by its own account or by its version; '' where nothing tells.

    driver: as gpu_info returns it.
    """
    if driver["cuda"] or not driver["version"]:
        return driver["cuda"]
    have = numbers(driver["version"])
    known = [cuda for cuda, least in DRIVER_OF.items() if numbers(least) <= have]
    return max(known, key=numbers, default="")


def compatibility(cuda: str, driver: Mapping[str, str]) -> str:
    """Return how a driver runs a CUDA: full, minor (by minor version compatibility), older (of an older major version),
    or '' where nothing tells.
    """
    known = known_by(driver)
    if not known or not cuda:
        return ""
    have, want = numbers(known)[:2], numbers(cuda)[:2]
    if have >= want:
        return "full"
    return "minor" if have[0] == want[0] else "older"


def can_forward(cuda: str, driver: Mapping[str, str], gpus: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether forward compatibility is for this driver and these GPUs."""
    branches = FORWARD_BRANCHES.get(numbers(cuda)[0], ())
    return branch(driver["version"]) in branches and all(map(is_datacentre, gpus))


def is_datacentre(gpu: Mapping[str, Any]) -> bool:
    name = gpu["name"]
    if _NOT_DATACENTRE.search(name) or _plain(gpu["brand"]) in ("geforce", "titan", "quadro", "quadrortx", "nvidiartx"):
        return False
    return bool(_DATACENTRE.search(name)) or _plain(gpu["brand"]) == "tesla"


def is_on(value: object) -> bool:
    """Return whether a variable of an environment switches something on, as Go's ParseBool and vLLM's int() read it."""
    return str(value).strip() in _TRUE


def unmet(environment: Mapping[str, str], driver: Mapping[str, str], gpus: Sequence[Mapping[str, Any]]) -> str:
    """Return the first condition that keeps the container toolkit from starting an image, such as "cuda>=12.9", or ''.

    environment: variables of the image and of the container. Each NVIDIA_REQUIRE_* has to hold for each GPU: a space
    means or, a comma means and. What the driver does not tell counts as met.
    """
    if is_on(environment.get("NVIDIA_DISABLE_REQUIRE", "")):
        return ""
    for name, requirement in sorted(environment.items()):
        # The one for Jetson boards is not looked at elsewhere.
        if not name.startswith("NVIDIA_REQUIRE_") or name == "NVIDIA_REQUIRE_JETPACK":
            continue
        terms = [term for term in requirement.split(" ") if term]
        for gpu in gpus or [{}]:
            facts = {
                "cuda": driver["cuda"],
                "driver": driver["version"],
                "arch": gpu.get("compute_capability", ""),
                "brand": _plain(gpu.get("brand", "")),
            }
            if terms and not any(_holds(term, facts) for term in terms):
                return terms[0]
    return ""


def _holds(term: str, facts: Mapping[str, str]) -> bool:
    return all(_factor_holds(factor, facts) for factor in term.split(",") if factor)


def _factor_holds(factor: str, facts: Mapping[str, str]) -> bool:
    match = _FACTOR.fullmatch(factor)
    if not match or match.group(1) not in facts:
        return False
    name, operator, value = match.groups()
    have = facts[name]
    if not have:
        return True
    if name == "brand":
        return (have == _plain(value)) == (operator == "=")
    one, other = numbers(have), numbers(value)
    # 12.9 and 12.9.0 are the same.
    length = max(len(one), len(other))
    one, other = one + (0,) * (length - len(one)), other + (0,) * (length - len(other))
    return {
        "=": one == other,
        "!=": one != other,
        "<": one < other,
        "<=": one <= other,
        ">": one > other,
        ">=": one >= other,
    }[operator]


def _plain(brand: str) -> str:
    """Return a brand as the conditions write it: NVML says "NVIDIA RTX", and they say nvidiartx."""
    return re.sub(r"[^a-z0-9]", "", brand.lower())
