# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: load_balancer_backends
short_description: Gives the backends of the catalogue the keys of their engines
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - The catalogue keeps API keys out of what it returns. The role C(load_balancer) needs them, to ask the engines.
positional: deployments
options:
  _input:
    description: The backends that M(llmops.vllm.vllm_catalogue) returned.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  deployments:
    description: C(vllm_deployments), as they were written.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# [{'name': 'chat', 'models': ['chat'], 'tls': False, 'api_key': 'sk-1', 'servers': []}]
load_balancer_backends: "{{ [{'name': 'chat', 'models': ['chat'], 'tls': false, 'deployment': 'chat', 'servers': []}]
                            | llmops.vllm.load_balancer_backends([{'name': 'chat', 'api_key': 'sk-1'}]) }}"
"""

RETURN = r"""
_value:
  description: The backends as the role C(load_balancer) takes them.
  type: list
  elements: dict
  sample:
    - {name: chat, models: [chat], tls: false, api_key: sk-1, servers: []}
"""

from collections.abc import Callable
from typing import Any

_SERVER_KEYS = ("name", "address", "port", "max_requests")


def load_balancer_backends(backends: list[dict[str, Any]], deployments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the backends as the role load_balancer takes them."""
    keys = {deployment["name"]: deployment.get("api_key") or "" for deployment in deployments}
    return [
        {
            "name": backend["name"],
            "models": backend["models"],
            "tls": backend["tls"],
            "api_key": keys[backend["deployment"]],
            "servers": [{key: server[key] for key in _SERVER_KEYS} for server in backend["servers"]],
        }
        for backend in backends
    ]


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"load_balancer_backends": load_balancer_backends}
