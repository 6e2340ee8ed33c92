# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollback_pending
short_description: Tells which deployments of a host go back when the newest rollout is undone
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - The newest rollout of a deployment is that of its newest record on any host; when that is a rollback, the rollout
    that it undoes. Hosts whose current release came with it go back. Others were not reached by it, or have gone back
    already.
  - A host goes back as well when its container has a release that is not recorded, as one that has not passed its gate.
positional: host
options:
  _input:
    description:
      - What is recorded on each host of each deployment, as C(current), C(has_previous) and C(running).
    type: dict
    required: true
    version_added: 0.2.0
  host:
    description: Name of the host.
    type: str
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# {'chat': 'rollback'}
pending: "{{ {'gpu1': {'chat': {'current': {'id': '1f3a', 'rollout': 'r2', 'started_at': '2026-11-25'},
              'has_previous': true, 'running': '1f3a'}}} | llmops.vllm.rollback_pending('gpu1') }}"
"""

RETURN = r"""
_value:
  description:
    - By deployment V(rollback), V(nothing), or V(stuck) for one that would go back and has nothing to go back to.
  type: dict
  sample: {chat: rollback}
"""

from collections.abc import Callable
from typing import Any


def rollback_pending(recorded: dict[str, dict[str, Any]], host: str) -> dict[str, str]:
    """Return {deployment: rollback, nothing or stuck} of a host."""
    return {name: _pending(name, mine, recorded) for name, mine in recorded[host].items()}


def _pending(name: str, mine: dict[str, Any], recorded: dict[str, dict[str, Any]]) -> str:
    current = mine["current"]
    if not current:
        return "nothing"
    if mine["running"] != current["id"]:
        return "rollback"
    undone = _newest_rollout([found[name]["current"] for found in recorded.values() if name in found])
    if current.get("rollback") or current.get("rollout", "") != undone:
        return "nothing"
    return "rollback" if mine["has_previous"] else "stuck"


def _newest_rollout(records: list[dict[str, Any]]) -> str:
    newest = max((record for record in records if record), key=lambda record: record["started_at"])
    undone: str = newest["undoes"] if newest.get("rollback") else newest.get("rollout", "")
    return undone


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"rollback_pending": rollback_pending}
