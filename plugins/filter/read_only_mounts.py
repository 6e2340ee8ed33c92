# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: read_only_mounts
short_description: Read-only mounts of a container
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Makes of paths and their places in a container what M(community.docker.docker_container) takes as C(mounts).
options:
  _input:
    description: Each path on the host, and its place in the container.
    type: dict
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# [{'type': 'bind', 'source': '/srv/model', 'target': '/vllm/model', 'read_only': True}]
mounts: "{{ {'/srv/model': '/vllm/model'} | llmops.vllm.read_only_mounts }}"
"""

RETURN = r"""
_value:
  description: The mounts.
  type: list
  elements: dict
  sample:
    - {type: bind, source: /srv/model, target: /vllm/model, read_only: true}
"""

from collections.abc import Callable
from typing import Any


def read_only_mounts(places: dict[str, str]) -> list[dict[str, Any]]:
    """Return the mounts, in the order of the dictionary."""
    return [
        {"type": "bind", "source": source, "target": target, "read_only": True} for source, target in places.items()
    ]


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"read_only_mounts": read_only_mounts}
