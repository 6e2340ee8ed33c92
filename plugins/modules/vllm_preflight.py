#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_preflight
short_description: Says what would go wrong, from what was seen of the hosts
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Compares the deployments of the catalogue with what M(llmops.vllm.vllm_host_info) has seen of their hosts. Each
    finding is one sentence with the way out; all of all hosts are told at once.
  - It fails when one of them is an error. Warnings are shown, and change nothing.
  - Runs on the controller; no host is touched.
attributes:
  check_mode:
    support: full
    description: It does the same. The report is written as well, as no host is changed by it.
  diff_mode:
    support: none
    description: It changes no host.
options:
  deployments:
    description: The deployments, as M(llmops.vllm.vllm_catalogue) returns them.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  hosts:
    description: What M(llmops.vllm.vllm_host_info) returned, by the names of the hosts.
    type: dict
    required: true
    version_added: 0.2.0
  image_source:
    description: Where images come from, as the role C(vllm_image) has it.
    type: str
    default: pull
    version_added: 0.2.0
  image_builder:
    description: The host that makes or brings images; empty where each does for itself.
    type: str
    default: ''
    version_added: 0.2.0
  image_size:
    description: Gigabytes that an image for CUDA takes once it is unpacked.
    type: float
    default: 30
    version_added: 0.2.0
  manage_toolkit:
    description: Whether the NVIDIA Container Toolkit is installed where it is missing.
    type: bool
    default: true
    version_added: 0.2.0
  toolkit_mode:
    description: How containers get at GPUs, as the role C(nvidia_container_toolkit) has it.
    type: str
    default: auto
    version_added: 0.2.0
  install_docker:
    description: Whether Docker is installed where it is missing.
    type: bool
    default: true
    version_added: 0.2.0
  ignore:
    description: Codes of findings that are left out.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  report_file:
    description: A file on the controller for all that was seen and found, as JSON. It is replaced as a whole.
    type: path
    version_added: 0.2.0
seealso:
  - module: llmops.vllm.vllm_host_info
  - module: llmops.vllm.vllm_catalogue
"""

EXAMPLES = r"""
- name: Look at the host
  llmops.vllm.vllm_host_info:
    ports: [30080]
  register: seen

- name: Find what would go wrong
  llmops.vllm.vllm_preflight:
    deployments: "{{ vllm_catalogue.deployments }}"
    hosts: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'seen'))) }}"
    ignore: [clock]
    report_file: preflight.json
  run_once: true
"""

RETURN = r"""
findings:
  description: What was found, the errors of each host first. C(deployment) is empty for what concerns the whole host.
  returned: always
  type: list
  elements: dict
  sample:
    - code: port_taken
      severity: error
      host: gpu1
      deployment: karakuri-70b
      text: nginx (pid 812) holds the port 30080
      remedy: choose another port, or stop what holds it
errors:
  description: How many of them are errors.
  returned: always
  type: int
  sample: 1
warnings_count:
  description: How many of them are warnings.
  returned: always
  type: int
  sample: 0
msg:
  description: The errors, or else the warnings, as they are shown.
  returned: always
  type: str
  sample: |-
    1 problem on 1 host:
    - gpu1, karakuri-70b: nginx (pid 812) holds the port 30080: choose another port, or stop what holds it
"""
