"""What the playbook costs beside a bare ``docker run`` of the same container.

    .venv/bin/python benchmarks/playbook_overhead.py [--rounds 3]

Needs a finished ``make deploy``: the image, the snapshot and the compile cache are in place. In each
round the container is removed and started again in both ways, one after the other, while one and the
same client asks its chat question over and over. Printed is the time from the start of the command
to the first token, per round and as the median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

PROJECT = Path(__file__).parents[1]
CONTAINER = "smollm2-135m"
URL = "http://127.0.0.1:30080/v1/chat/completions"
QUESTION = {
    "model": CONTAINER,
    "messages": [{"role": "user", "content": "What is the capital of Japan?"}],
    "max_tokens": 32,
    "stream": True,
}


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def bare_command() -> list[str]:
    """Return the ``docker run`` that makes the container that is deployed now."""
    found = json.loads(docker("inspect", CONTAINER))[0]
    config, host = found["Config"], found["HostConfig"]
    image_environment = json.loads(docker("image", "inspect", found["Image"]))[0]["Config"]["Env"]
    command = ["docker", "run", "--detach", "--name", CONTAINER, "--hostname", config["Hostname"]]
    command += ["--user", config["User"], "--read-only", "--cap-drop", "ALL"]
    command += ["--security-opt", "no-new-privileges", "--shm-size", str(host["ShmSize"])]
    command += ["--memory", str(host["Memory"]), "--pids-limit", str(host["PidsLimit"])]
    for target, options in host["Tmpfs"].items():
        command += ["--tmpfs", f"{target}:{options}"]
    for mount in host["Mounts"]:
        readonly = ",readonly" if mount.get("ReadOnly") else ""
        command += ["--mount", f"type=bind,source={mount['Source']},target={mount['Target']}{readonly}"]
    for port, bindings in host["PortBindings"].items():
        command += ["--publish", f"{bindings[0]['HostIp']}:{bindings[0]['HostPort']}:{port.split('/')[0]}"]
    for variable in config["Env"]:
        if variable not in image_environment:
            command += ["--env", variable]
    return [*command, found["Image"], *config["Cmd"]]


def seconds_to_first_token(command: list[str], timeout: float = 300) -> float:
    """Start a command and return the seconds until a chat question gets its first token."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
    )
    try:
        while True:
            took = time.monotonic() - started
            if took > timeout or process.poll():
                raise SystemExit(f"no answer after {took:.0f} s from: {' '.join(command)}")
            request = urllib.request.Request(URL, json.dumps(QUESTION).encode(), {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    for line in answer:
                        if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                            return time.monotonic() - started
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
    finally:
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    ways = {
        "docker run": bare_command(),
        "ansible-playbook site.yml": ["ansible-playbook", "-i", "inventories/local", "site.yml"],
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _round in range(rounds):
        for way, command in ways.items():
            docker("rm", "--force", CONTAINER)
            took[way].append(seconds_to_first_token(command))
    print(f"{'from the command to the first token, s':<40}{'median':>8}  rounds")
    for way, seconds in took.items():
        print(f"{way:<40}{statistics.median(seconds):>8.1f}  {' '.join(f'{s:.1f}' for s in seconds)}")
    bare, playbook = (statistics.median(seconds) for seconds in took.values())
    print(f"{'more':<40}{playbook - bare:>8.1f}")


if __name__ == "__main__":
    main()
