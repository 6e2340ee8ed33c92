#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_catalogue
short_description: Reads and checks the catalogue of deployments
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - Completes the deployments of C(vllm_deployments) with their defaults and finds all mistakes at once, without
    touching a host.
  - Finds mistakes in the variables around it as well, those of all hosts of the inventory. A name that is nearly one of
    the collection's, or a value of another type, is an error; a name that only begins like them is a warning.
  - Knows from the lock file which commit, or which image, each branch or tag means, and writes there what was resolved.
  - Runs on the controller. API keys are never part of what it returns.
attributes:
  check_mode:
    support: full
    description: The lock file is not written.
  diff_mode:
    support: full
    description: Shows the change of the lock file.
  idempotent:
    support: full
    description: The lock file changes only with O(resolved).
options:
  deployments:
    description: The catalogue.
    type: list
    elements: dict
    required: true
    version_added: 0.1.0
  lock_file:
    description: Path of the lock file on the controller.
    type: path
    required: true
    version_added: 0.1.0
  default_image:
    description: Image of deployments that name none.
    type: str
    required: true
    version_added: 0.1.0
  update:
    description: Take nothing of a branch or a tag from the lock file, so that all are resolved anew.
    type: bool
    default: false
    version_added: 0.1.0
  resolved:
    description:
      - What was resolved, to be written into the lock file.
      - Results of M(llmops.vllm.hf_snapshot) have C(repo_id), C(revision) and C(commit). An image's source is given
        as C(repository), C(ref) and C(commit), an image as C(image) (without the tag), C(tag) and C(digest).
    type: list
    elements: dict
    default: []
    version_added: 0.1.0
  check_variables:
    description:
      - Look at the variables of all hosts as well. They are judged as they are written; templates and vaulted values
        are left alone.
    type: bool
    default: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
- name: Read the catalogue
  llmops.vllm.vllm_catalogue:
    deployments: "{{ vllm_deployments }}"
    lock_file: "{{ inventory_dir }}/vllm.lock.yml"
    default_image: vllm/vllm-openai:v0.32.0
  run_once: true
  register: vllm_catalogue
"""

RETURN = r"""
deployments:
  description: The deployments with all their keys, C(hosts) as a list of names, and C(model.commit).
  returned: success
  type: list
  elements: dict
  sample:
    - name: karakuri-70b
      hosts: [gpu1]
      port: 30080
backends:
  description:
    - What the load balancers spread requests over, one for each set of served names that the same deployments have.
    - A server is named after its host and its deployment, and takes at most C(max_requests) at once.
  returned: success
  type: list
  elements: dict
  version_added: 0.2.0
  sample:
    - name: karakuri-70b
      models: [karakuri-70b]
      deployment: karakuri-70b
      tls: false
      servers:
        - name: gpu1:karakuri-70b
          host: gpu1
          deployment: karakuri-70b
          address: 192.0.2.11
          port: 30080
          max_requests: 256
unlocked:
  description: Branches and tags whose commit is not known yet.
  returned: success
  type: list
  elements: dict
  sample:
    - repo_id: masao1211/karakuri-lm-70b-chat-v0.1-AWQ
      revision: main
lock:
  description: What the lock file says, by its parts; nothing with O(update).
  returned: success
  type: dict
  sample:
    snapshots: {masao1211/karakuri-lm-70b-chat-v0.1-AWQ: {main: 1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f}}
    sources: {}
    images: {vllm/vllm-openai: {v0.32.0: "sha256:9a3e..."}}
"""
