"""The workflows run what the Makefile has, and a tag is released only when everything says its version."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from controller import PROJECT, tool

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))


def jobs(workflow: Path) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load(workflow.read_text())["jobs"].values()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_is_there(workflow: Path) -> None:
    called = set()
    for job in jobs(workflow):
        called |= set(job.get("strategy", {}).get("matrix", {}).get("target", []))
        for step in job["steps"]:
            for command in re.findall(r"\bmake ([a-z -]+)$", step.get("run", ""), re.MULTILINE):
                called |= set(command.split())
            for path in re.findall(r"\btools/[\w.]+", step.get("run", "")):
                assert (PROJECT / path).is_file()
    assert called and called <= TARGETS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_ends(workflow: Path) -> None:
    document = yaml.safe_load(workflow.read_text())
    assert document["permissions"] == {"contents": "read"}
    assert document["concurrency"]["group"]
    for job in jobs(workflow):
        assert job["timeout-minutes"]
        assert "permissions" not in job


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_their_versions_said(workflow: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", workflow.read_text())
    assert used
    for action, comment in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


def test_only_what_was_approved_sees_the_token() -> None:
    for workflow in WORKFLOWS:
        for job in jobs(workflow):
            assert ("secrets." in str(job)) == (job.get("environment") == "galaxy")


@pytest.fixture(scope="module")
def check_release() -> ModuleType:
    return tool("check_release")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A checkout of which v0.1.0 may be released."""
    for name in ("galaxy.yml", "changelogs/changelog.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    text = (tmp_path / "galaxy.yml").read_text()
    (tmp_path / "galaxy.yml").write_text(re.sub("(?m)^version: .*", "version: 0.1.0", text))
    (tmp_path / "changelogs/fragments").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("llmops-vllm-0.1.0.tar.gz\n")
    return tmp_path


def test_what_agrees_may_be_released(check_release: ModuleType, released: Path) -> None:
    assert check_release.problems(released, "v0.1.0") == []


def test_what_does_not_agree_may_not(check_release: ModuleType, released: Path) -> None:
    (released / "galaxy.yml").write_text("version: 9.0.0\n")
    (released / "changelogs/fragments/new.yml").write_text("---\n")
    assert check_release.problems(released, "v0.1.0") == [
        "the tag is v0.1.0 and galaxy.yml has 9.0.0: tag v9.0.0, or change galaxy.yml",
        "changelogs/changelog.yaml has no 9.0.0: run antsibull-changelog release",
        "new.yml in changelogs/fragments is in no release: run antsibull-changelog release",
        "docs/page.md names the tarball of 0.1.0: write 9.0.0",
    ]
