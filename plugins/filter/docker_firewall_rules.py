# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: docker_firewall_rules
short_description: Rules of a host's firewall for the deployments of the catalogue
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Turns C(allow_from) of the deployments of a host into what the role C(docker_firewall) takes. Deployments that
    everybody may reach have no rule.
positional: host
options:
  _input:
    description: The deployments that M(llmops.vllm.vllm_catalogue) returned.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  host:
    description: Name of the host.
    type: str
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# [{'name': 'chat', 'address': '192.0.2.11', 'port': 30080, 'allow_from': ['192.0.2.1/32']}]
docker_firewall_rules: "{{ [{'name': 'chat', 'hosts': ['gpu1'], 'addresses': {'gpu1': '192.0.2.11'}, 'port': 30080,
                             'allowed': ['192.0.2.1/32']}] | llmops.vllm.docker_firewall_rules('gpu1') }}"
"""

RETURN = r"""
_value:
  description: The rules.
  type: list
  elements: dict
  sample:
    - {name: chat, address: 192.0.2.11, port: 30080, allow_from: [192.0.2.1/32]}
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Deployment


def docker_firewall_rules(deployments: list[Deployment], host: str) -> list[dict[str, Any]]:
    """Return the rules of a host."""
    return [
        {
            "name": deployment["name"],
            "address": deployment["addresses"][host],
            "port": deployment["port"],
            "allow_from": deployment["allowed"],
        }
        for deployment in deployments
        if host in deployment["hosts"] and deployment["allowed"] is not None
    ]


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"docker_firewall_rules": docker_firewall_rules}
