"""The collection as its users get it: built, and installed into an environment that has nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from controller import PROJECT, TOOLS, Installed

# The oldest that meta/runtime.yml promises, at the newest of its patches that the tools are pinned to.
CORE = next(
    line.strip()
    for line in (PROJECT / "tools/requirements.txt").read_text().splitlines()
    if line.startswith("ansible-core==")
)


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make build` makes."""
    folder = tmp_path_factory.mktemp("tarball")
    run = subprocess.run([PROJECT / "tools/build.sh", folder], capture_output=True, text=True, check=True)
    return Path(run.stdout.strip())


@pytest.fixture(scope="session")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """ansible-core and nothing else, the collections that ours depends on, and the tarball, without Galaxy."""
    folder = tmp_path_factory.mktemp("controller")
    uv = {**os.environ, "VIRTUAL_ENV": str(folder / "venv")}
    subprocess.run([TOOLS / "uv", "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    subprocess.run([TOOLS / "uv", "pip", "install", "--quiet", CORE], check=True, env=uv)
    community = PROJECT / ".venv/lib" / Path(os.__file__).parent.name / "site-packages/ansible_collections/community"
    (folder / "collections/ansible_collections").mkdir(parents=True)
    (folder / "collections/ansible_collections/community").symlink_to(community)
    collections = folder / "collections"
    controller = Installed(folder, collections / "ansible_collections/llmops/vllm")
    run = controller.run("ansible-galaxy", "collection", "install", "--offline", tarball, "-p", collections)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "llmops.vllm:" in run.stdout, run.stdout
    return controller
