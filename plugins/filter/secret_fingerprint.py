# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: secret_fingerprint
short_description: What changes with a secret and does not give it away
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - A slow, salted hash of a secret, so that a new secret makes a new release without being readable in it.
options:
  _input:
    description: The secret. An empty one gives an empty string.
    type: str
    required: true
    version_added: 0.1.0
  deployment:
    description: Name of the deployment that it belongs to.
    type: str
    required: true
    version_added: 0.1.0
positional: deployment
"""

EXAMPLES = r"""
fingerprint: "{{ vllm_server_api_key | llmops.vllm.secret_fingerprint('karakuri-70b') }}"
"""

RETURN = r"""
_value:
  description: Sixteen hexadecimal digits, or an empty string.
  type: str
  sample: 4f2da02ae784c68b
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _release


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"secret_fingerprint": _release.secret_fingerprint}
