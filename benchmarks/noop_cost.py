"""What a run of site.yml costs that has nothing to do: modules that are run on hosts, and CPU time of the controller.

    .venv/bin/python benchmarks/noop_cost.py [--hosts 1 3] [--tasks]

Hosts are containers with systemd and a Docker of their own, as those of the scenarios: two GPUs by the account of their
nvidia-smi, a signed repository with stubs of NVIDIA's packages, a double of the Hub with a small model, and an image of
the double of vLLM that comes as an archive. All of the catalogue is the collection's own way: one deployment on GPUs
with an API key and a chat template. site.yml runs twice, and is measured the third time, which must change nothing.

A module task is a task that runs a module on a host, delegated and run_once ones included; its further runs (a loop, an
action of several modules) are counted beside it. With --tasks each of them is listed. Takes some minutes a host.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[1]
MOLECULE = PROJECT / "molecule"
IMAGE = "vllm-double:bench"
NAME = "bench-noop-%d"


def host_variables(folder: Path) -> dict:
    fingerprint = "{{ lookup('ansible.builtin.file', ephemeral ~ '/' ~ inventory_hostname ~ '.fingerprint') }}"
    return {
        "ansible_connection": "community.docker.docker",
        "test_host_image": "llmops-test-host:bookworm-docker",
        # What the scenarios' prepare.yml want to know.
        "ephemeral": str(folder),
        "vllm_server_image": IMAGE,
        "vllm_server_model_path": "/home/llm/vllm/model/llmops--other/0123456789abcdef0123456789abcdef01234567",
        "hub_token": "hf_token_of_the_benchmark",
        "hub_options": [],
        "nvidia_container_toolkit_repository_url": "http://127.0.0.1:8090",
        "nvidia_container_toolkit_repository_fingerprint": fingerprint,
    }


def catalogue(folder: Path, archive: Path) -> dict:
    return {
        "vllm_deployments": [
            {
                "name": "tiny",
                "model": {"repo_id": "llmops/tiny"},
                "api_key": "sk-key-of-the-benchmark",
                "chat_template": "vicuna",
                "engine_args": {"max_model_len": 2048},
                "environment": {"VLLM_CPU_KVCACHE_SPACE": 1},
                "shm_size": "16m",
                "tmp_size": "16m",
                "start_timeout": 60,
            }
        ],
        "vllm_hub_endpoint": "http://127.0.0.1:8765",
        "vllm_hub_token": "hf_token_of_the_benchmark",
        # The GPUs of the recording were in use.
        "vllm_preflight_ignore": ["fabric_manager", "gpu_memory_taken"],
        "vllm_lock_file": str(folder / "vllm.lock.yml"),
        "vllm_image_name": IMAGE,
        "vllm_image_source": "archive",
        "vllm_image_archive": str(archive),
        "vllm_image_archive_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }


class Bench:
    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self.archive = folder / "double.tar"

    def inventory(self, count: int, variables: dict) -> Path:
        hosts = {NAME % number: {} for number in range(1, count + 1)}
        group = {"hosts": hosts, "vars": host_variables(self.folder)}
        path = self.folder / f"{count}-{'all' if variables else 'bare'}.yml"
        # JSON is YAML, and keeps templates as they are.
        path.write_text(json.dumps({"test_hosts": group, "vllm": {"children": {"test_hosts": {}}, "vars": {}}}))
        if variables:
            (self.folder / "group_vars").mkdir(exist_ok=True)
            (self.folder / "group_vars/all.yml").write_text(yaml.safe_dump(variables))
        return path

    def set_up(self) -> None:
        bare = self.inventory(self.most, {})
        self.ansible(bare, MOLECULE / "shared/create.yml")
        # That of the toolkit last: it leaves a source behind that apt refuses, until the role has put it aside.
        for scenario in ("vllm_server", "model_snapshot", "nvidia_container_toolkit"):
            self.ansible(bare, MOLECULE / scenario / "prepare.yml")
        for number in range(1, self.most + 1):
            host = NAME % number
            docker("cp", MOLECULE / "nvidia_container_toolkit/files/nvidia-smi", f"{host}:/usr/bin/nvidia-smi")
            docker("cp", PROJECT / "tests/data/nvidia_smi", f"{host}:/srv/nvidia_smi")
        docker("exec", NAME % 1, "docker", "save", "--output", "/srv/double.tar", IMAGE)
        docker("cp", f"{NAME % 1}:/srv/double.tar", self.archive)

    def measure(self, count: int) -> list[dict]:
        inventory = self.inventory(count, catalogue(self.folder, self.archive))
        for _run in range(2):
            self.ansible(inventory, PROJECT / "site.yml")
        before, began = children(), time.monotonic()
        noted = self.folder / f"{count}.jsonl"
        noted.unlink(missing_ok=True)
        said = self.ansible(inventory, PROJECT / "site.yml", noted)
        cpu, seconds = children() - before, time.monotonic() - began
        if len(re.findall(r"changed=0 ", said)) != count:
            sys.exit(f"the third run is none without changes:\n{said[-3000:]}")
        lines = [json.loads(line) for line in noted.read_text().splitlines()]
        return [*lines, {"whole": cpu, "wall": seconds}]

    def ansible(self, inventory: Path, playbook: Path, noted: Path | None = None) -> str:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MOLECULE_EPHEMERAL_DIRECTORY": str(self.folder),
        }
        if noted:
            environment |= {
                "ANSIBLE_CALLBACK_PLUGINS": str(PROJECT / "tests/support/callback"),
                "ANSIBLE_CALLBACKS_ENABLED": "module_runs",
                "MODULE_RUNS_FILE": str(noted),
            }
        command = [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, playbook]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"{playbook} fails:\n{run.stdout[-5000:]}{run.stderr[-2000:]}")
        return run.stdout

    def tear_down(self) -> None:
        self.ansible(self.inventory(self.most, {}), MOLECULE / "shared/destroy.yml")


def docker(*arguments: object) -> None:
    subprocess.run(["docker", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def by_play(lines: list[dict], count: int) -> dict[str, tuple[float, float, float]]:
    """Return {play: (module tasks, runs of modules, CPU seconds)}, each a host, in the order of the plays."""
    tasks, runs, cpu = collections.defaultdict(set), collections.Counter(), collections.Counter()
    for line in lines:
        if "module" in line:
            tasks[line["play"]].add((line["number"], line["host"]))
            runs[line["play"]] += 1
        elif "cpu" in line:
            cpu[line["play"]] += line["cpu"]
    return {play: (len(tasks[play]) / count, runs[play] / count, cpu[play] / count) for play in cpu}


def print_table(found: dict[int, list[dict]]) -> None:
    heads = "".join(f" module tasks, {count} | runs | CPU s |" for count in found)
    print(f"| a host, with so many hosts |{heads}\n|---|{'---|' * 3 * len(found)}")
    columns = [by_play(lines, count) for count, lines in found.items()]
    sums = [[sum(column) for column in zip(*plays.values(), strict=True)] for plays in columns]
    for play in columns[0]:
        print(f"| {play or 'start and end'} |{cells(plays.get(play, (0, 0, 0)) for plays in columns)}")
    # Of the whole process, its exit included.
    wholes = [lines[-1]["whole"] / count for count, lines in found.items()]
    print(f"| all |{cells((*of[:2], whole) for of, whole in zip(sums, wholes, strict=True))}")
    for count, lines in found.items():
        print(f"\n{count} hosts: {lines[-1]['whole']:.1f} s of CPU, {lines[-1]['wall']:.1f} s in all")


def cells(rows) -> str:
    return "".join(f" {tasks:.1f} | {runs:.1f} | {cpu:.1f} |" for tasks, runs, cpu in rows)


def print_tasks(lines: list[dict]) -> None:
    host = NAME % 1
    for line in lines:
        if line.get("host") == host:
            print(f"{line['play']}\t{line['role'].split('.')[-1]}\t{line['task'].split(' : ')[-1]}\t{line['module']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--tasks", action="store_true", help="list the modules that are run on one host")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="leave the hosts, and the inventory there, for more"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noop-cost-") as temporary:
        bench = Bench(args.keep or Path(temporary), max(args.hosts))
        try:
            if not bench.archive.exists():
                bench.set_up()
            found = {count: bench.measure(count) for count in args.hosts}
        finally:
            if not args.keep:
                bench.tear_down()
    print_table(found)
    if args.tasks:
        print()
        print_tasks(found[args.hosts[0]])


if __name__ == "__main__":
    main()
