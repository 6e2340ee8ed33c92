#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_due
short_description: Says what has something to do on a host, and why
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Compares the seals of a host (M(llmops.vllm.vllm_seal)), as M(llmops.vllm.vllm_host_info) has seen them, with the
    variables of today. What was sealed from the same variables, and of which nothing has changed on the host, has
    nothing to do. Whatever is in doubt has.
  - Seals of what has something to do are broken, so that a run that ends halfway leaves none behind.
  - It says so in one line. Runs on the controller; the host is touched only where a seal is to be broken.
attributes:
  check_mode:
    support: full
    description: Seals are read, and none is broken.
  diff_mode:
    support: none
    description: It changes nothing but seals.
options:
  seals:
    description: The seals, each with the same keys as with M(llmops.vllm.vllm_seal).
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
        version_added: 0.2.0
      role:
        description: The role that it is for.
        type: str
        version_added: 0.2.0
      inputs:
        description: What else goes into it.
        type: dict
        default: {}
        version_added: 0.2.0
      observe:
        description: What to look at, besides what the role says.
        type: dict
        default: {}
        version_added: 0.2.0
  seen:
    description:
      - What M(llmops.vllm.vllm_host_info) has returned in this run. Without it everything has something to do.
    type: dict
    default: {}
    version_added: 0.2.0
  after:
    description: RV(due) of an earlier task. What comes after something that runs has something to do as well.
    type: dict
    default: {}
    version_added: 0.2.0
  in_order:
    description: Each of O(seals) comes after those that stand before it.
    type: bool
    default: false
    version_added: 0.2.0
  full:
    description: Everything has something to do.
    type: bool
    default: false
    version_added: 0.2.0
seealso:
  - module: llmops.vllm.vllm_seal
  - module: llmops.vllm.vllm_host_info
"""

EXAMPLES = r"""
- name: Look at the host
  llmops.vllm.vllm_host_info:
  register: seen

- name: See what has something to do
  llmops.vllm.vllm_due:
    seen: "{{ seen }}"
    seals:
      - name: docker_engine
        role: docker_engine
  register: due

- name: Bring Docker up
  ansible.builtin.include_role:
    name: llmops.vllm.docker_engine
  when: due.due.docker_engine | length > 0
"""

RETURN = r"""
due:
  description: Why each has something to do, by the names of the seals; empty for what has nothing to do.
  returned: always
  type: dict
  sample: {docker_engine: /etc/docker/daemon.json is not as it was, vllm_host: ""}
any:
  description: Whether one of them has something to do.
  returned: always
  type: bool
  sample: true
notes:
  description: The notes of those seals that hold.
  returned: always
  type: dict
  sample: {vllm_host: {}}
msg:
  description: The line that is shown.
  returned: always
  type: str
  sample: "docker_engine runs: /etc/docker/daemon.json is not as it was"
"""
