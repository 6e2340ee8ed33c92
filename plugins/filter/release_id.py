# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: release_id
short_description: The id of a rendered container
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - A short hash over everything that the container is made of. Equal containers have equal ids, on every host.
options:
  _input:
    description: The rendered container.
    type: dict
    required: true
    version_added: 0.1.0
"""

EXAMPLES = r"""
release: "{{ {'image': 'sha256:4f1c', 'command': ['/vllm/model']} | llmops.vllm.release_id }}"
"""

RETURN = r"""
_value:
  description: Twelve hexadecimal digits.
  type: str
  sample: 12ff31d3c190
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _release


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"release_id": _release.release_id}
