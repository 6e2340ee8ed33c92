"""What the check of a whole inventory costs: a fleet of 100 hosts, beside a playbook that does nothing.

    .venv/bin/python benchmarks/preflight.py [--hosts 100] [--rounds 5]

Writes an inventory into a temporary folder: three groups of GPU hosts, ten deployments, and a file of variables for
each host. Prints a table: seconds of `playbooks/preflight.yml --tags inventory` with it, of the task in it that checks
everything, and of an empty playbook of one task on the same hosts, which is Ansible itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent
GROUPS = 3
DEPLOYMENTS = 10
CHECK = "TASK [Check the catalogue and its lock file]"
EMPTY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: nothing
      run_once: true
      tags: inventory
"""


def write_inventory(folder: Path, count: int) -> None:
    hosts = [f"gpu{number}" for number in range(1, count + 1)]
    groups = {f"rack{number}": {"hosts": dict.fromkeys(hosts[number::GROUPS])} for number in range(GROUPS)}
    deployments = [
        {
            "name": f"model-{number}",
            "hosts": "vllm" if number < 2 else f"rack{number % GROUPS}",
            "model": {"repo_id": f"example/model-{number}"},
            "port": 30080 + number,
            "gpus": [number % 8],
            "engine_args": {"max_model_len": 4096, "gpu_memory_utilization": 0.3, "enable_prefix_caching": True},
        }
        for number in range(DEPLOYMENTS)
    ]
    documents = {
        "hosts.yml": {"vllm": {"children": groups}},
        "group_vars/all.yml": {
            "vllm_deployments": deployments,
            "vllm_image_name": "vllm/vllm-openai:v0.32.0",
            "vllm_become": True,
        },
        **{f"group_vars/rack{number}.yml": {"vllm_hub_max_rate": "100M"} for number in range(GROUPS)},
        **{
            f"host_vars/{host}.yml": {"ansible_host": f"192.0.2.{number % 250}", "vllm_internal_address": "192.0.2.1"}
            for number, host in enumerate(hosts)
        },
    }
    for path, document in documents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(document))


def seconds_of_playbook(inventory: Path, playbook: Path) -> tuple[float, float]:
    """Of the whole run, and of the task of the check in it."""
    argv = [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, playbook, "--tags", "inventory"]
    env = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    check = check_began = 0.0
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("TASK") and check_began and not check:
                check = time.monotonic() - check_began
            if line.startswith(CHECK):
                check_began = time.monotonic()
    if process.returncode:
        raise SystemExit("the playbook fails: run it by hand")
    return time.monotonic() - began, check


def main() -> int:
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--hosts", type=int, default=100)
    cli.add_argument("--rounds", type=int, default=5)
    args = cli.parse_args()
    whole, checks, empties = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        inventory, empty = Path(folder) / "inventory", Path(folder) / "empty.yml"
        write_inventory(inventory, args.hosts)
        empty.write_text(EMPTY)
        for _round in range(args.rounds):
            seconds, check = seconds_of_playbook(inventory, PROJECT / "playbooks/preflight.yml")
            whole.append(seconds)
            checks.append(check)
            empties.append(seconds_of_playbook(inventory, empty)[0])
    print(f"| {args.hosts} hosts, {DEPLOYMENTS} deployments, median of {args.rounds} | |\n|---|---|")
    print(f"| `preflight.yml --tags inventory` | {statistics.median(whole):.2f} s |")
    print(f"| its task that checks everything | {statistics.median(checks):.2f} s |")
    print(f"| an empty playbook on the same hosts | {statistics.median(empties):.2f} s |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
