"""Which driver an image needs, and whether a host's will do."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.plugin_utils import cuda

REQUIRE = "cuda>=12.9 brand=unknown,driver>=535,driver<536 brand=tesla,driver>=535,driver<536"


def driver(version: str = "", known: str = "") -> dict[str, Any]:
    return {"version": version, "cuda": known}


def gpu(name: str, brand: str = "NVIDIA", capability: str = "8.0") -> dict[str, Any]:
    return {"name": name, "brand": brand, "compute_capability": capability}


@pytest.mark.parametrize(
    ("image", "environment", "expected"),
    [
        ("vllm/vllm-openai:v0.4.1", {}, "12.1"),
        ("vllm/vllm-openai:v0.4.2", {}, "12.4"),
        ("vllm/vllm-openai:v0.8.5.post1", {}, "12.4"),
        ("vllm/vllm-openai:v0.9.0", {}, "12.8"),
        ("vllm/vllm-openai:v0.11.0", {}, "12.8"),
        ("vllm/vllm-openai:v0.11.1", {}, "12.9"),
        ("vllm/vllm-openai:v0.19.1", {}, "12.9"),
        ("vllm/vllm-openai:v0.20.0", {}, "13.0"),
        ("docker.io/vllm/vllm-openai:v0.32.0-x86_64", {}, "13.0"),
        ("vllm/vllm-openai:v0.32.0-cu129", {}, "12.9"),
        ("vllm/vllm-openai:v0.32.0-cu126-ubuntu2404", {}, "12.6"),
        ("vllm/vllm-openai:cu130-nightly", {}, "13.0"),
        ("vllm/vllm-openai:latest", {}, ""),
        ("vllm/vllm-openai@sha256:" + "1" * 64, {}, ""),
        ("vllm/vllm-openai-cpu:v0.32.0", {}, ""),
        ("vllm/vllm-openai-rocm:v0.32.0", {}, ""),
        ("registry.example.com/llm/vllm:v0.32.0", {}, ""),
        ("registry.example.com/llm/vllm:v0.32.0", {"CUDA_VERSION": "12.8.1"}, "12.8"),
        ("vllm/vllm-openai:v0.32.0", {"CUDA_VERSION": "12.9.1", "NVIDIA_REQUIRE_CUDA": "cuda>=12.8"}, "12.9"),
        ("mine:1", {"NVIDIA_REQUIRE_CUDA": REQUIRE}, "12.9"),
    ],
)
def test_which_cuda_an_image_has(image: str, environment: dict[str, str], expected: str) -> None:
    assert cuda.needed(image, environment) == expected


@pytest.mark.parametrize(
    ("needed", "have", "expected"),
    [
        ("13.0", driver("580.65.06", "13.0"), "full"),
        ("12.9", driver("580.65.06", "13.0"), "full"),
        ("13.0", driver("590.48.01", "13.1"), "full"),
        ("12.9", driver("570.195.03", "12.8"), "minor"),
        ("12.9", driver("525.60.13", "12.0"), "minor"),
        ("13.2", driver("580.95.05", "13.0"), "minor"),
        ("13.0", driver("575.57.08", "12.9"), "older"),
        ("12.1", driver("520.61.05", "11.8"), "older"),
        # A driver that does not say what it knows: its version does.
        ("13.0", driver("580.65.06"), "full"),
        ("13.0", driver("579.99"), "older"),
        ("12.9", driver("570.26"), "minor"),
        ("12.9", driver("999.1"), "full"),
        ("12.9", driver("390.157"), ""),
        ("12.9", driver(), ""),
        ("", driver("580.65.06", "13.0"), ""),
        # A host that has the compatibility package itself: what the driver says counts.
        ("13.0", driver("535.161.08", "13.0"), "full"),
    ],
)
def test_how_a_driver_runs_it(needed: str, have: dict[str, Any], expected: str) -> None:
    assert cuda.compatibility(needed, have) == expected


@pytest.mark.parametrize(
    ("name", "brand", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "NVIDIA", True),
        ("NVIDIA A100 80GB PCIe", "", True),
        ("A100-PCIE-40GB", "Tesla", True),
        ("NVIDIA A10G", "NVIDIA", True),
        ("NVIDIA A30", "NVIDIA", True),
        ("NVIDIA H100 80GB HBM3", "NVIDIA", True),
        ("NVIDIA H200 NVL", "NVIDIA", True),
        ("NVIDIA GH200 480GB", "NVIDIA", True),
        ("NVIDIA B200", "NVIDIA", True),
        ("NVIDIA L4", "NVIDIA", True),
        ("NVIDIA L40S", "NVIDIA", True),
        ("Tesla T4", "Tesla", True),
        ("Tesla V100-SXM2-16GB", "Tesla", True),
        ("Tesla K80", "Tesla", True),
        ("NVIDIA GeForce RTX 4090", "GeForce", False),
        ("NVIDIA RTX A4000", "NVIDIA RTX", False),
        ("NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX", False),
        ("Quadro RTX 8000", "Quadro RTX", False),
        ("NVIDIA TITAN V", "Titan", False),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA", False),
        ("NVIDIA GB10", "NVIDIA", False),
        ("NVIDIA CMP 170HX", "NVIDIA", False),
    ],
)
def test_gpus_for_data_centres(name: str, brand: str, expected: bool) -> None:
    assert cuda.is_datacentre(gpu(name, brand)) is expected


@pytest.mark.parametrize(
    ("needed", "version", "name", "expected"),
    [
        ("13.0", "535.161.08", "NVIDIA A100-SXM4-80GB", True),
        ("13.0", "550.163.01", "NVIDIA L4", True),
        ("13.0", "570.195.03", "NVIDIA H100 80GB HBM3", True),
        ("13.0", "570.195.03", "NVIDIA GeForce RTX 4090", False),
        ("13.0", "560.35.03", "NVIDIA A100-SXM4-80GB", False),
        ("13.0", "470.256.02", "NVIDIA A100-SXM4-80GB", False),
        ("12.4", "470.256.02", "NVIDIA A100-SXM4-80GB", True),
        ("12.4", "520.61.05", "NVIDIA A100-SXM4-80GB", False),
        ("14.0", "580.65.06", "NVIDIA A100-SXM4-80GB", False),
    ],
)
def test_forward_compatibility(needed: str, version: str, name: str, expected: bool) -> None:
    assert cuda.can_forward(needed, driver(version), [gpu(name)]) is expected


def test_forward_compatibility_is_for_all_gpus_or_none() -> None:
    gpus = [gpu("NVIDIA A100-SXM4-80GB"), gpu("NVIDIA GeForce RTX 4090", "GeForce")]
    assert not cuda.can_forward("13.0", driver("570.195.03"), gpus)


A100, GEFORCE = gpu("NVIDIA A100-SXM4-80GB", "Tesla"), gpu("NVIDIA GeForce RTX 4090", "GeForce", "8.9")


@pytest.mark.parametrize(
    ("requirement", "have", "gpus", "expected"),
    [
        (REQUIRE, driver("575.57.08", "12.9"), [GEFORCE], ""),
        (REQUIRE, driver("570.195.03", "12.8"), [GEFORCE], "cuda>=12.9"),
        (REQUIRE, driver("535.161.08", "12.2"), [A100], ""),
        (REQUIRE, driver("535.161.08", "12.2"), [GEFORCE], "cuda>=12.9"),
        # Each GPU has to meet it.
        (REQUIRE, driver("535.161.08", "12.2"), [A100, GEFORCE], "cuda>=12.9"),
        (REQUIRE, driver("536.0", "12.2"), [A100], "cuda>=12.9"),
        # What is not told counts as met.
        (REQUIRE, driver("535.161.08", ""), [GEFORCE], ""),
        (REQUIRE, driver("535.161.08", "12.2"), [gpu("NVIDIA A100", "")], ""),
        (REQUIRE, driver("535.161.08", "12.2"), [], ""),
        ("brand=Tesla", driver("1", "1"), [A100], ""),
        ("brand!=geforce", driver("1", "1"), [GEFORCE], "brand!=geforce"),
        ("brand=nvidiartx", driver("1", "1"), [gpu("NVIDIA RTX A4000", "NVIDIA RTX")], ""),
        ("arch>=8.9", driver("1", "1"), [GEFORCE], ""),
        ("arch>=8.9", driver("1", "1"), [A100], "arch>=8.9"),
        ("cuda>=12.9", driver("1", "12.10"), [A100], ""),
        ("cuda=12.9", driver("1", "12.9.0"), [A100], ""),
        ("cuda<=12.9", driver("1", "12.10"), [A100], "cuda<=12.9"),
        ("driver>580,driver<590", driver("585.1", ""), [A100], ""),
        ("driver>580,driver<590", driver("590", ""), [A100], "driver>580,driver<590"),
        # The toolkit calls it an invalid expression, and starts nothing.
        ("sunshine", driver("1", "1"), [A100], "sunshine"),
        ("moon>=1", driver("1", "1"), [A100], "moon>=1"),
        ("", driver("1", "1"), [A100], ""),
        ("  cuda>=1  ", driver("1", "1"), [A100], ""),
    ],
)
def test_the_condition_of_an_image(requirement: str, have: dict[str, Any], gpus: list[Any], expected: str) -> None:
    assert cuda.unmet({"NVIDIA_REQUIRE_CUDA": requirement}, have, gpus) == expected


def test_all_conditions_count_but_those_that_are_switched_off() -> None:
    environment = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.0", "NVIDIA_REQUIRE_DRIVER": "driver>=999"}
    have = driver("580.65.06", "13.0")
    assert cuda.unmet(environment, have, [A100]) == "driver>=999"
    assert cuda.unmet({**environment, "NVIDIA_DISABLE_REQUIRE": "1"}, have, [A100]) == ""
    assert cuda.unmet({**environment, "NVIDIA_DISABLE_REQUIRE": "no"}, have, [A100]) == "driver>=999"
    assert cuda.unmet({"NVIDIA_REQUIRE_JETPACK": "csv-mounts=all"}, have, [A100]) == ""


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        ("13.0", "R580 (580.65.06) or newer"),
        ("12.7", "R525 (525.60.13) or newer"),
        ("13.9", "R580 (580.65.06) or newer"),
        ("14.0", "that knows CUDA 14.0"),
    ],
)
def test_the_driver_in_words(needed: str, expected: str) -> None:
    assert cuda.driver_text(needed) == expected


def test_drivers_grow_with_cuda() -> None:
    ordered = sorted(cuda.DRIVER_OF, key=cuda.numbers)
    drivers = [cuda.numbers(cuda.DRIVER_OF[version]) for version in ordered]
    assert drivers == sorted(drivers)
    for major, least in cuda.DRIVER_OF_MAJOR.items():
        first = next(version for version in ordered if cuda.numbers(version)[0] == major)
        assert cuda.numbers(least) <= cuda.numbers(cuda.DRIVER_OF[first])
