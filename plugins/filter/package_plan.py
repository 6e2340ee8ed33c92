# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: package_plan
short_description: Which version of each package there shall be
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Compares what is installed with what the sources have. Users pin C(26.1.5); distributions call it
    C(26.1.5+dfsg1-9), vendors C(5:26.1.5-1~debian.12~bookworm).
options:
  _input:
    description: The packages.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
  installed:
    description: Lines of C(dpkg-query) with selection, status, package and version.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
  available:
    description: Lines of C(apt-cache madison), the preferred version first. The third column may be a file.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
  pinned:
    description: The packages that have the version.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
  version:
    description: The version, whole or without epoch and revision. Empty keeps what is installed, or takes the first.
    type: str
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# ['26.1.5-1']
wanted: >-
  {{ ['docker.io'] | llmops.vllm.package_plan(
       ['hold installed docker.io 26.1.4-1'], ['docker.io | 26.1.5-1 | trixie'], ['docker.io'], '26.1.5')
     | map(attribute='wanted') | list }}
"""

RETURN = r"""
_value:
  description:
    - For each package its C(name), the C(installed) version or an empty string, whether it is C(held) and C(pinned),
      the C(versions) that there are, the C(wanted) one (an empty string where there is none of the kind), whether that
      C(changes) something, and the third column of its line as C(file).
  type: list
  elements: dict
  sample:
    - name: docker.io
      installed: 26.1.4-1
      held: true
      pinned: true
      versions: [26.1.5-1]
      wanted: 26.1.5-1
      changes: true
      file: trixie
"""

import re
from collections.abc import Callable
from typing import Any


def newest(versions: list[str], wanted: str) -> str:
    """Return the first of the versions that is the wanted one, or ''."""
    if not wanted or wanted in versions:
        return wanted or (versions or [""])[0]
    # What may follow is a revision or a suffix of the packager, not a further digit or part.
    meant = re.compile(r"(\d+:)?" + re.escape(wanted) + r"([-+~].*)?\Z")
    return next((version for version in versions if meant.match(version)), "")


def package_plan(
    names: list[str], installed: list[str], available: list[str], pinned: list[str], version: str
) -> list[dict[str, Any]]:
    """Return the plan for each package."""
    there = {}
    for line in installed:
        selection, status, name, *found = line.split()
        if status == "installed":
            there[name] = (selection, found[0])
    rows = [[column.strip() for column in line.split("|")] for line in available]
    plan = []
    for name in names:
        selection, now = there.get(name, ("", ""))
        files = {row[1]: row[2] for row in reversed(rows) if len(row) == 3 and row[0] == name}
        versions = list(dict.fromkeys(row[1] for row in rows if len(row) == 3 and row[0] == name))
        asked = version if name in pinned else ""
        wanted = newest([now] * bool(now) + versions, asked)
        plan.append(
            {
                "name": name,
                "installed": now,
                "held": selection == "hold",
                "pinned": name in pinned,
                "versions": versions,
                "wanted": wanted,
                "changes": wanted != now,
                "file": files.get(wanted, ""),
            }
        )
    return plan


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"package_plan": package_plan}
