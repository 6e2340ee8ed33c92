# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: device_requests
short_description: Docker's device requests for a deployment's GPUs
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - What C(docker run --gpus) means, in the form that M(community.docker.docker_container) takes.
options:
  _input:
    description: V(all), V(none), a count, or a list of indices or UUIDs.
    type: raw
    required: true
    version_added: 0.1.0
"""

EXAMPLES = r"""
# [{'driver': 'nvidia', 'capabilities': [['gpu']], 'device_ids': ['0', '2']}]
requests: "{{ [0, 2] | llmops.vllm.device_requests }}"
"""

RETURN = r"""
_value:
  description: The device requests.
  type: list
  elements: dict
  sample:
    - {driver: nvidia, capabilities: [[gpu]], device_ids: ['0', '2']}
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.llmops.vllm.plugins.module_utils import _release


def device_requests(gpus: object) -> list[dict[str, Any]]:
    """Return the device requests, with an error that Ansible shows as one sentence."""
    try:
        return _release.device_requests(gpus)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"device_requests": device_requests}
