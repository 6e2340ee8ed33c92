# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_stops
short_description: Why the next batch of a rollout must not begin
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Looks at the lost hosts and at what serves now, for a plan is as old as the batches before this one.
positional: catalogue, work, seen, lost, max_lost
options:
  _input:
    description: The hosts of the batch.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
  catalogue:
    description: The result of M(llmops.vllm.vllm_catalogue).
    type: dict
    required: true
    version_added: 0.2.0
  work:
    description: C(work) of M(llmops.vllm.vllm_rollout_plan).
    type: dict
    required: true
    version_added: 0.2.0
  seen:
    description: What M(llmops.vllm.haproxy_servers) returned as C(servers) of each load balancer.
    type: dict
    required: true
    version_added: 0.2.0
  lost:
    description: Hosts that are lost.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
  max_lost:
    description: How many may be.
    type: int
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# ['1 host is lost (gpu1) and vllm_max_lost is 0: bring back what is lost']
reasons: "{{ ['gpu2'] | llmops.vllm.rollout_stops({'deployments': [], 'backends': []}, {}, {}, ['gpu1'], 0) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each reason.
  type: list
  elements: str
  sample: ["1 host is lost (gpu1) and vllm_max_lost is 0: bring back what is lost"]
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.plugin_utils.rollout_plan import Seen, Work, stop_reasons


def rollout_stops(
    batch: list[str], catalogue: dict[str, Any], work: Work, seen: Seen, lost: list[str], max_lost: int | str
) -> list[str]:
    """Return why a batch must not begin."""
    return stop_reasons(catalogue["deployments"], catalogue["backends"], work, batch, seen, lost, int(max_lost))


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"rollout_stops": rollout_stops}
