"""What the tarball holds, and what it leaves out."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from controller import PROJECT, TOOLS

# All that users get. What else is at the top of the checkout is for those who work on it.
WANTED = {
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.ja.md", "README.md", "changelogs", "docs", "inventories",
    "meta", "playbooks", "plugins", "requirements.yml", "roles", "site.yml",
}  # fmt: skip
OF_THE_BUILD = {"MANIFEST.json", "FILES.json"}
# How the site is built, which users find built.
UNWANTED = "docs/site/"
# What lies around in the checkout of somebody who works on it and runs it.
DEBRIS = [
    ".env",
    ".github/workflows/test.yml",
    ".secrets.baseline",
    ".vault_password",
    ".venv/bin/python",
    ".work/wheels/a.whl",
    "changelogs/.plugin-cache.yaml",
    "collections/ansible_collections/a/b/README.md",
    "docs/_build/index.html",
    "id_ed25519.pem",
    "inventories/fleet.keys/engines",
    "inventories/fleet/llm.key",
    "inventories/single/group_vars/.all.yml.swp",
    "inventories/single/group_vars/all.yml.orig",
    "inventories/single/vllm.lock.yml",
    "llmops-vllm-0.1.0.tar.gz",
    "playbooks/site.retry",
    "plugins/modules/__pycache__/gpu_info.pyc",
    "roles/vllm_host/.DS_Store",
    "vault-password.txt",
]


def expected(tracked: set[str]) -> set[str]:
    wanted = {name for name in tracked if name.split("/")[0] in WANTED and not name.startswith(UNWANTED)}
    return wanted | OF_THE_BUILD


def files_of(tarball: Path) -> set[str]:
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive if not member.isdir()}


@pytest.fixture(scope="session")
def tracked() -> set[str]:
    """The files of the checkout that git knows, with those of this change."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name}


def test_users_get_these_files_and_no_others(tarball: Path, tracked: set[str]) -> None:
    assert files_of(tarball) == expected(tracked)


@pytest.mark.parametrize("folder", ["tests", "molecule", "tools", "benchmarks", ".ci", ".config", ".github"])
def test_the_developers_folders_stay_out(tarball: Path, folder: str) -> None:
    assert not [name for name in files_of(tarball) if name.split("/")[0] == folder]


def test_nothing_in_it_is_hidden_a_link_or_can_be_written_by_others(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if any(part.startswith(".") for part in Path(member.name).parts)]
    assert not [member.name for member in members if member.issym() or member.islnk()]
    assert not [member.name for member in members if member.mode & 0o022]


def test_what_lies_around_stays_out_of_a_plain_build_too(tracked: set[str], tmp_path: Path) -> None:
    """`ansible-galaxy collection build` or `install` of a checkout knows build_ignore alone."""
    checkout = tmp_path / "checkout"
    for name in [*tracked, *DEBRIS]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        if name in tracked:
            shutil.copy2(PROJECT / name, checkout / name, follow_symlinks=False)
        else:
            (checkout / name).write_text("not for users\n")
    command = [TOOLS / "ansible-galaxy", "collection", "build", "--output-path", tmp_path, checkout]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.tar.gz")
    assert files_of(built) == expected(tracked)


def test_it_is_small_enough_for_galaxy_and_for_people(tarball: Path) -> None:
    assert tarball.stat().st_size < 2_000_000


def test_its_manifest_says_what_galaxy_yml_says(tarball: Path) -> None:
    said = yaml.safe_load((PROJECT / "galaxy.yml").read_text())
    with tarfile.open(tarball) as archive:
        info = json.load(archive.extractfile("MANIFEST.json"))["collection_info"]
    for key in ("namespace", "name", "version", "dependencies", "authors", "tags", "repository", "license_file"):
        assert info[key] == said[key], key
    assert tarball.name == f"llmops-vllm-{said['version']}.tar.gz"
