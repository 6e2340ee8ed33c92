"""A rollout of 200 hosts, as Ansible runs it: the plan, its batches in order, and how many tasks that takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
HOSTS = [f"gpu{number:03}" for number in range(1, 201)]
# Of two hundred: six are right already, one is down, and 26 to 75 serve a second model as well.
RIGHT, DOWN, BOTH = HOSTS[100:106], "gpu150", HOSTS[25:75]

CATALOGUE = [
    {"name": "chat", "model": {"repo_id": "org/chat"}, "listen": "internal", "api_key": "sk-1", "gpus": [0]},
    {
        "name": "embed",
        "model": {"repo_id": "org/embed"},
        "hosts": "both",
        "port": 30081,
        "listen": "internal",
        "api_key": "sk-1",
        "gpus": [1],
        "min_available": "90%",
    },
]

# What rollout.yml does but for what it asks and changes on hosts and load balancers, of which there are none.
PLAYBOOK = """
- import_playbook: llmops.vllm.catalogue
- hosts: vllm_active
  gather_facts: false
  tasks:
    - set_fact:
        __vllm_pending: >-
          {{ {'chat': 'start' if inventory_hostname == 'gpu150'
                      else 'nothing' if inventory_hostname in right else 'replace'}
             | combine({'embed': 'replace'} if inventory_hostname in groups['both'] else {}) }}
    - llmops.vllm.vllm_rollout_plan:
        deployments: "{{ vllm_catalogue.deployments }}"
        backends: "{{ vllm_catalogue.backends }}"
        pending: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, '__vllm_pending'))) }}"
        batches: "{{ vllm_rollout_batches | default([1, '25%', '100%']) }}"
        lost: "{{ ansible_play_hosts_all | difference(ansible_play_hosts) }}"
      run_once: true
      register: vllm_rollout
- hosts: "{{ __vllm_plan.order | default([]) }}"
  gather_facts: false
  strategy: ansible.builtin.linear
  serial: "{{ __vllm_plan.batches | default([]) | map('length') | list or [1] }}"
  max_fail_percentage: 0
  vars:
    __vllm_plan: >-
      {{ groups['vllm_active'] | default([]) | map('extract', hostvars) | selectattr('vllm_rollout', 'defined')
         | map(attribute='vllm_rollout') | first | default({}) }}
  tasks:
    - import_tasks: TASKS/batch.yml
    - block:
        - set_fact:
            __vllm_turn: {deployment: "{{ item }}", step: done}
          loop: "{{ vllm_catalogue.deployments | selectattr('name', 'in', vllm_rollout.work[inventory_hostname]) }}"
          loop_control:
            label: "{{ item.name }}"
        - debug:
            msg: "BATCH {{ ansible_play_batch | to_json }}"
          run_once: true
- hosts: vllm_active
  gather_facts: false
  tasks:
    - assert:
        that: (__vllm_turn is defined) == (inventory_hostname not in right)
        quiet: true
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("fleet")
    inventory = {
        "vllm": {"hosts": {host: {"vllm_internal_address": f"10.0.0.{n}"} for n, host in enumerate(HOSTS, 1)}},
        "both": {"hosts": dict.fromkeys(BOTH)},
        "all": {"vars": {"vllm_deployments": CATALOGUE, "right": RIGHT}},
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "play.yml").write_text(PLAYBOOK.replace("TASKS", str(PROJECT / "playbooks/tasks")))
    ended = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", folder / "hosts.yml", folder / "play.yml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr
    return ended.stdout


def test_the_batches_are_those_of_the_plan(run: str) -> None:
    batches = [json.loads(json.loads('"' + text + '"')) for text in re.findall(r'"msg": "BATCH (.*)"', run)]
    order = [host for batch in batches for host in batch]
    # The one that is down first, and then in the order of the inventory as far as the floors let it.
    assert order[0] == DOWN
    assert sorted(order) == sorted(set(HOSTS) - set(RIGHT)) and len(order) == len(set(order))
    assert [len(batches[0]), len(batches[1])] == [1, 48]
    for number, batch in enumerate(batches):
        assert len(batch) <= (1 if number == 0 else 50 if number > 1 else 48)
        # 90 % of the 50 that serve the second model.
        assert len(set(batch) & set(BOTH)) <= 5


def test_it_takes_few_tasks_and_no_module(run: str) -> None:
    recap = re.findall(r"^(gpu\d+)\s+: ok=(\d+)\s+changed=(\d+).*skipped=(\d+)", run, re.MULTILINE)
    assert len(recap) == 200
    assert max(int(ok) + int(skipped) for _host, ok, _changed, skipped in recap) <= 20
    assert {changed for _host, _ok, changed, _skipped in recap} == {"0"}
