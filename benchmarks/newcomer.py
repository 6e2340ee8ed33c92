"""How long somebody new waits for the first results: setup, lint and unit tests in a fresh Debian 12.

    .venv/bin/python benchmarks/newcomer.py

The machine is a container that has Python, git and make and nothing else, with a clone of the commit that is checked
out; installing git and make is not part of the time. The load of this machine is printed: it makes all of it longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
CONTAINER = "mol-matrix-newcomer"
IMAGE = "llmops-test-host:bookworm"
TARGETS = ["setup", "lint", "test-unit"]


def inside(script: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", "exec", CONTAINER, "bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def cpu_seconds() -> float:
    """What all processes of the container have used."""
    of_v1, of_v2 = "/sys/fs/cgroup/cpuacct/cpuacct.usage", "/sys/fs/cgroup/cpu.stat"
    said = inside(f"cat {of_v1} 2>/dev/null || sed -n 's/usage_usec \\(.*\\)/\\1000/p' {of_v2}")
    return int(said.stdout) / 1e9


def measure() -> int:
    options = ["--detach", "--pull", "never", "--name", CONTAINER, f"--volume={PROJECT}:/srv/origin:ro"]
    subprocess.run(
        ["docker", "run", *options, "--entrypoint", "sleep", IMAGE, "infinity"], check=True, capture_output=True
    )
    made = inside(
        """
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq && apt-get install -qq -y --no-install-recommends git make >/dev/null
        git config --global --add safe.directory '*'
        git clone --quiet /srv/origin /root/llmops.vllm
        """
    )
    if made.returncode:
        print(made.stdout)
        return 1
    total = 0.0
    for target in TARGETS:
        before, began = cpu_seconds(), time.monotonic()
        run = inside(f"cd /root/llmops.vllm && make {target}")
        took = time.monotonic() - began
        total += took
        if run.returncode:
            print(run.stdout[-4000:])
            return 1
        print(
            f"make {target:10} {took:5.0f} s, {cpu_seconds() - before:4.0f} s of CPU; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    print(f"{'together':15} {total:5.0f} s on {os.cpu_count()} cores")
    return 0


def remove() -> None:
    subprocess.run(["docker", "rm", "--force", "--volumes", CONTAINER], capture_output=True, check=False)


if __name__ == "__main__":
    subprocess.run([PROJECT / "tools/test_host_image.sh", IMAGE.partition(":")[2]], check=True)
    remove()
    try:
        sys.exit(measure())
    finally:
        remove()
