"""Tests of the plan of packages: which version is meant by what users write."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.filter.package_plan import FilterModule

plan = FilterModule().filters()["package_plan"]

# What apt-cache madison prints: the newest first, a version once for each source that has it.
MADISON = [
    " docker-ce | 5:26.1.10-1~debian.12~bookworm | https://docker.example bookworm/stable amd64 Packages",
    " docker-ce | 5:26.1.1-1~debian.12~bookworm | https://docker.example bookworm/stable amd64 Packages",
    " docker-ce | 5:26.1.1-1~debian.12~bookworm | https://mirror.example bookworm/stable amd64 Packages",
    "containerd.io | 1.7.2-1 | https://docker.example bookworm/stable amd64 Packages",
]
NAMES = ["docker-ce", "containerd.io"]
FULL = "5:26.1.1-1~debian.12~bookworm"
NEWEST = "5:26.1.10-1~debian.12~bookworm"


def wanted(
    version: str,
    installed: list[str] | None = None,
) -> dict[str, str]:
    found = plan(NAMES, installed or [], MADISON, ["docker-ce"], version)
    return {package["name"]: package["wanted"] for package in found}


@pytest.mark.parametrize(
    ("version", "meant"),
    [
        ("", NEWEST),
        ("26.1.1", FULL),
        ("26.1.10", NEWEST),
        ("5:26.1.1", FULL),
        (FULL, FULL),
        ("26.1", ""),
        ("6.1.1", ""),
        ("26.1.11", ""),
        ("26.1.1-1~debian.12~bookworm", FULL),
    ],
)
def test_a_version_is_found_without_epoch_and_revision(version: str, meant: str) -> None:
    # Packages that are not pinned have versions of their own.
    assert wanted(version) == {"docker-ce": meant, "containerd.io": "1.7.2-1"}


def test_what_is_installed_stays_unless_a_version_is_asked_for() -> None:
    there = [f"install installed docker-ce {FULL}", "hold installed containerd.io 1.6.0-1"]
    assert wanted("", there) == {"docker-ce": FULL, "containerd.io": "1.6.0-1"}
    assert wanted("26.1.10", there)["docker-ce"] == NEWEST


def test_an_installed_version_that_no_source_has_any_more_is_still_the_wanted_one() -> None:
    assert wanted("20.10.24", ["install installed docker-ce 20.10.24+dfsg1-1"])["docker-ce"] == "20.10.24+dfsg1-1"


def test_a_removed_package_of_which_settings_stayed_is_not_installed() -> None:
    lines = ["deinstall config-files docker-ce 1.0", "unknown not-installed containerd.io"]
    assert [package["installed"] for package in plan(NAMES, lines, MADISON, NAMES, "")] == ["", ""]


def test_what_the_plan_says_of_a_package() -> None:
    there = ["hold installed docker-ce 5:25.0.1-1"]
    files = ["docker-ce | 5:26.1.1-1 | docker-ce_26.1.1-1_amd64.deb", "docker-ce | 5:26.0.0-1 | old.deb"]
    assert plan(["docker-ce"], there, files, ["docker-ce"], "26.1.1") == [
        {
            "name": "docker-ce",
            "installed": "5:25.0.1-1",
            "held": True,
            "pinned": True,
            "versions": ["5:26.1.1-1", "5:26.0.0-1"],
            "wanted": "5:26.1.1-1",
            "changes": True,
            "file": "docker-ce_26.1.1-1_amd64.deb",
        }
    ]


def test_a_package_that_no_source_has() -> None:
    nothing: dict[str, Any] = plan(["ghost"], [], MADISON, [], "")[0]
    assert (nothing["wanted"], nothing["versions"], nothing["file"]) == ("", [], "")
