"""What ansible-builder finds in the installed tarball, and whether the modules agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from controller import MODULES, PROJECT, TOOLS, Installed
from packaging.requirements import Requirement

# Of what modules require, that which is part of a host and of no execution environment.
OF_A_HOST = {"nvidia-smi"}
SYSTEM = {"git"}


@pytest.fixture(scope="module")
def introspected(installed: Installed) -> dict[str, list[str]]:
    """The requirements that come from this collection, by kind."""
    folder = installed.folder / "collections"
    run = subprocess.run([TOOLS / "ansible-builder", "introspect", folder], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    listed = yaml.safe_load(run.stdout[run.stdout.index("python:") :])
    return {
        kind: [line.split("#")[0].strip() for line in lines if "llmops.vllm" in line.partition("from collection ")[2]]
        for kind, lines in listed.items()
    }


def test_it_finds_what_modules_require(introspected: dict[str, list[str]]) -> None:
    required: dict[str, str] = {}
    system = set()
    for document in MODULES.values():
        for sentence in document.get("requirements", []):
            name, version = re.match(r"([\w-]+)(?: >= ([\d.]+))?", sentence).groups()
            if name in SYSTEM:
                system.add(name)
            elif name not in OF_A_HOST:
                required[name] = f">={version}" if version else required.get(name, "")
    found = [Requirement(line) for line in introspected["python"]]
    assert {requirement.name: str(requirement.specifier) for requirement in found} == required
    assert {line.split()[0] for line in introspected["system"]} == system


def test_what_the_hosts_get_satisfies_it(introspected: dict[str, list[str]]) -> None:
    defaults = yaml.safe_load((PROJECT / "roles/vllm_host/defaults/main.yml").read_text())
    pins = dict(pin.split("==") for pin in defaults["vllm_host_requirements"])
    asked = [Requirement(line) for line in introspected["python"]]
    assert pins.keys() == {requirement.name for requirement in asked}
    assert all(pins[requirement.name] in requirement.specifier for requirement in asked)


def test_the_definition_of_the_docs_makes_a_build_context(tarball: Path, tmp_path: Path) -> None:
    page = (PROJECT / "docs/execution_environment.md").read_text()
    definition = re.search(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL).group(1)
    (tmp_path / "execution-environment.yml").write_text(definition)
    shutil.copy(tarball, tmp_path)
    run = subprocess.run(
        [TOOLS / "ansible-builder", "create"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "context/_build/collections" / tarball.name).is_file()
    (file,) = tmp_path.glob("context/*file")
    assert "openssh-clients" in (tmp_path / "context/_build/bindep.txt").read_text()
    assert "ansible-galaxy collection install" in file.read_text()
