"""A controller that has the collection as its users get it."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


def document(module: str) -> dict[str, Any]:
    """Return the documentation of a module of the checkout."""
    name = f"ansible_collections.llmops.vllm.plugins.modules.{module}"
    read: dict[str, Any] = yaml.safe_load(importlib.import_module(name).DOCUMENTATION)
    return read


def tool(name: str) -> ModuleType:
    """Return tools/<name>.py as a module."""
    spec = importlib.util.spec_from_file_location(name, PROJECT / f"tools/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = {path.stem: document(path.stem) for path in sorted((PROJECT / "plugins/modules").glob("[!_]*.py"))}


@dataclass
class Installed:
    """A controller with the tarball, in a folder outside the checkout."""

    folder: Path
    collection: Path

    def run(self, command: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, with no configuration but the place of the collections."""
        return subprocess.run(
            [self.folder / "venv/bin" / command, *arguments],
            cwd=self.folder, capture_output=True, text=True, check=False, timeout=120,
            env={
                "HOME": str(self.folder),
                "PATH": f"{self.folder}/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
                "ANSIBLE_NOCOLOR": "1",
                **environment,
            },
        )  # fmt: skip
