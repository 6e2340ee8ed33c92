#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_rollout_plan
short_description: Plans in which batches a fleet is rolled over
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Tells which hosts have something to do, and in which batches they do it, so that each model keeps as many serving
    hosts as it needs. Hosts that have nothing to do are in no batch.
  - Hosts that serve nothing come first, for they cost nothing and serve afterwards.
  - Fails when the rollout must not begin, as too many hosts are lost, or a model would have too few left.
  - Runs on the controller.
attributes:
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
  idempotent:
    support: full
    description: The same fleet has the same plan; only RV(id) differs.
options:
  deployments:
    description: The deployments of M(llmops.vllm.vllm_catalogue).
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
  pending:
    description:
      - What each deployment of each host has to do, by host and deployment, as the role C(vllm_server) tells it in
        C(vllm_server_pending).
    type: dict
    required: true
    version_added: 0.2.0
  load_balancers:
    description: What M(llmops.vllm.haproxy_servers) returned as C(servers) of each load balancer.
    type: dict
    default: {}
    version_added: 0.2.0
  batches:
    description:
      - Sizes of the batches, as numbers of hosts or parts of those that have something to do. The last one holds for
        all that follow. The first one is the canary.
    type: raw
    default: [1, 25%, 100%]
    version_added: 0.2.0
  lost:
    description: Hosts that should take part and cannot.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  max_lost:
    description: How many may be lost.
    type: int
    default: 0
    version_added: 0.2.0
"""

EXAMPLES = r"""
- name: Plan
  llmops.vllm.vllm_rollout_plan:
    deployments: "{{ vllm_catalogue.deployments }}"
    backends: "{{ vllm_catalogue.backends }}"
    pending: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'pending'))) }}"
    batches: [1, 50%]
  run_once: true
  register: plan
"""

RETURN = r"""
batches:
  description: The hosts of each batch.
  returned: success
  type: list
  elements: list
  sample: [[gpu1], [gpu2, gpu3]]
order:
  description: The hosts of all batches.
  returned: success
  type: list
  elements: str
  sample: [gpu1, gpu2, gpu3]
work:
  description:
    - What the deployments of these hosts have to do. V(start), V(replace), V(gate) (it runs and has not passed its
      gate), V(admit) (it only has to be taken back into the load balancers), V(rollback) or V(unknown).
  returned: success
  type: dict
  sample: {gpu1: {karakuri-70b: replace}}
idle:
  description: Hosts that have nothing to do.
  returned: success
  type: list
  elements: str
  sample: [gpu4]
held:
  description: Servers that somebody has put into maintenance at a load balancer; they are left there.
  returned: success
  type: list
  elements: str
  sample: ["gpu5:karakuri-70b"]
models:
  description: Of each group of servers that stand in for each other, how many there are, serve now, and have to.
  returned: success
  type: list
  elements: dict
  sample: [{name: karakuri-70b, total: 4, serving: 4, floor: 3}]
id:
  description: A name for this rollout.
  returned: success
  type: str
  sample: 20261125T144500Z-3f1d8a20
turn_seconds:
  description: The longest time that a host's turn may take.
  returned: success
  type: int
  sample: 5520
msg:
  description: The plan for people.
  returned: success
  type: str
  sample: "batch 1: replace karakuri-70b on gpu1"
"""
