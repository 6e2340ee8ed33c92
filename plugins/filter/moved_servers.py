# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: moved_servers
short_description: Servers that serve and would get another address at a load balancer
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Compares what a load balancer has with what it is to have. A server that is up at another address than the new one
    would be lost before its host has had its turn in a rollout.
positional: backends
options:
  _input:
    description: What M(llmops.vllm.haproxy_servers) returned as C(servers).
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  backends:
    description: The backends of M(llmops.vllm.vllm_catalogue).
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# ['gpu1:chat from 192.0.2.11:30080 to 192.0.2.11:30081']
moved: "{{ [{'name': 'gpu1:chat', 'address': '192.0.2.11', 'port': 30080, 'status': 'UP'}] | llmops.vllm.moved_servers(
            [{'servers': [{'name': 'gpu1:chat', 'address': '192.0.2.11', 'port': 30081}]}]) }}"
"""

RETURN = r"""
_value:
  description: Each such server with both addresses, for people.
  type: list
  elements: str
  sample: ["gpu1:chat from 192.0.2.11:30080 to 192.0.2.11:30081"]
"""

from collections.abc import Callable
from typing import Any


def moved_servers(servers: list[dict[str, Any]], backends: list[dict[str, Any]]) -> list[str]:
    """Return the servers that are up and would move."""
    wanted = {
        server["name"]: "%s:%s" % (server["address"], server["port"])
        for backend in backends
        for server in backend["servers"]
    }
    moved = {}
    for server in servers:
        here = "%s:%s" % (server["address"], server["port"])
        if server["status"] == "UP" and wanted.get(server["name"], here) != here:
            moved[server["name"]] = "%s from %s to %s" % (server["name"], here, wanted[server["name"]])
    return list(moved.values())


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"moved_servers": moved_servers}
