"""What it costs to bring an image from the host that has it to others, through the builder's registry or an archive.

    .venv/bin/python benchmarks/image_handover.py [--image llmops-vllm-cpu:0.32.0]

Hosts are containers with a Docker of their own, so the network is this machine's memory, and all of them share its
cores. What the table tells is that the builder pushes once, that every other host moves the image once, and that
nothing is built there. Needs the image of a finished `make deploy`, and 15 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[1]
BUILDER, TAKERS = "bench-image-builder", ["bench-image-1", "bench-image-2", "bench-image-3"]
PLAY = """\
- hosts: test_hosts
  gather_facts: true
  gather_subset: [min, network]
  roles: [llmops.vllm.vllm_image]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="llmops-vllm-cpu:0.32.0", help="an image of this machine's Docker")
    image = parser.parse_args().image
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), image)
        try:
            bench.set_up()
            print("| the run | seconds | MB received by each host that takes |\n|---|---|---|")
            bench.measure("registry set up, first host takes it", 1, "registry")
            bench.forget()
            bench.measure("one host takes it", 1, "registry")
            bench.forget()
            bench.measure("three hosts take it", 3, "registry")
            bench.measure("again, three hosts have it", 3, "registry")
            bench.forget()
            bench.measure("one host takes it by way of the controller", 1, "archive")
        finally:
            bench.tear_down()


class Bench:
    def __init__(self, folder: Path, image: str) -> None:
        self.folder, self.image = folder, image
        self.inventory = folder / "hosts.yml"
        self.play = folder / "play.yml"
        self.play.write_text(PLAY)

    def set_up(self) -> None:
        address = "{{ hostvars['%s'].ansible_facts.default_ipv4.address }}" % BUILDER
        self.inventory.write_text(
            yaml.safe_dump(
                {
                    "test_hosts": {
                        "hosts": {name: {} for name in [BUILDER, *TAKERS]},
                        "vars": {
                            "ansible_connection": "community.docker.docker",
                            "test_host_image": "llmops-test-host:bookworm-docker",
                            "vllm_image_name": self.image,
                            # The label of the image says that it is built of what the role has: nothing is built.
                            "vllm_image_source": "wheels",
                            "vllm_image_builder": BUILDER,
                            "vllm_image_registry_address": address,
                            "vllm_image_controller_dir": str(self.folder / "images"),
                        },
                    }
                }
            )
        )
        self.ansible(PROJECT / "molecule/shared/create.yml")
        with subprocess.Popen(["docker", "save", self.image], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "exec", "-i", BUILDER, "docker", "load"], stdin=saved.stdout, check=True)
        # The environment of the modules and the like, which is no part of what is measured.
        prepare = self.folder / "prepare.yml"
        prepare.write_text(PLAY.replace("vllm_image]", "vllm_host]"))
        self.ansible(prepare)

    def measure(self, what: str, takers: int, handover: str) -> None:
        hosts = TAKERS[:takers]
        before = [self.received(host) for host in hosts]
        started = time.monotonic()
        self.ansible(self.play, "--limit", ",".join([BUILDER, *hosts]), "-e", f"vllm_image_handover={handover}")
        seconds = time.monotonic() - started
        moved = [(self.received(host) - was) / 1e6 for host, was in zip(hosts, before, strict=True)]
        print(f"| {what} | {seconds:.1f} | {', '.join(f'{megabytes:.0f}' for megabytes in moved)} |", flush=True)

    def forget(self) -> None:
        for host in TAKERS:
            command = "docker image ls --quiet | sort -u | xargs --no-run-if-empty docker image rm --force"
            subprocess.run(["docker", "exec", host, "sh", "-c", command], check=True, stdout=subprocess.DEVNULL)

    def received(self, host: str) -> int:
        read = ["docker", "exec", host, "cat", "/sys/class/net/eth0/statistics/rx_bytes"]
        return int(subprocess.run(read, check=True, capture_output=True, text=True).stdout)

    def ansible(self, playbook: Path, *options: str) -> None:
        command = [Path(sys.executable).with_name("ansible-playbook"), "-i", self.inventory, playbook, *options]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(run.stdout[-3000:])

    def tear_down(self) -> None:
        self.ansible(PROJECT / "molecule/shared/destroy.yml")


if __name__ == "__main__":
    main()
