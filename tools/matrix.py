"""Run the collection on each controller that it promises to work on, and print a table of what ran.

Usage: tools/matrix.py [TEXT ...]     only the rows whose name has one of the TEXTs

A controller is a container of a test host's image (tools/test_host_image.sh) with a Python environment that has one
ansible-core and the tarball of `make build`. There the unit tests run, and where it is said below, the whole local
deployment by its full name: a real vLLM on the CPU, a second run that must change nothing, and a question.
Logs are in .work/matrix. It takes a container, and memory for one engine, at a time.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
WORK = PROJECT / ".work"
LOGS = WORK / "matrix"
COMMUNITY = next((PROJECT / ".venv/lib").glob("python3.*/site-packages/ansible_collections/community"))
COLUMNS = ("install", "unit tests", "deploys", "changes nothing", "answers", "no warnings")
# As molecule/shared/create.yml has them.
OPTIONS = """
    --detach --pull never --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined
    --security-opt apparmor=unconfined --device-cgroup-rule 'a *:* rwm' --cgroupns private --tmpfs /run
    --tmpfs /run/lock --tmpfs /tmp:exec --volume /var/lib/docker --stop-signal SIGRTMIN+3
"""
# What the unit tests import or call, at the versions that the tools have.
TEST_TOOLS = "docker gguf huggingface_hub numpy pytest pytest-xdist requests ruff safetensors tokenizers uv"
# Debian 13's systemd has no controllers where the outer machine has cgroup v1.
OF_THE_CONTAINER = re.compile("Docker warning: Your kernel does not support (memory|PIDs) limit")
QUESTION = {
    "model": "smollm2-135m",
    "messages": [{"role": "user", "content": "What is the capital of Japan?"}],
    "max_tokens": 32,
    "temperature": 0,
}


class Failure(Exception):
    """A step that did not pass, in one sentence."""


@dataclass
class Controller:
    """One row of the table."""

    system: str
    image: str
    core: str
    deploys: bool = False
    cells: dict[str, str] = field(default_factory=dict)
    found: str = ""

    @property
    def name(self) -> str:
        return f"{self.system}, ansible-core {self.core.strip('~=').removesuffix('.0') or 'newest'}"

    @property
    def container(self) -> str:
        return f"mol-matrix-{self.image}"

    def run(self, step: str, script: str, feed: bytes | None = None) -> str:
        """Run a shell script in the container; what it prints goes into a log as well."""
        log = LOGS / re.sub(r"\W+", "-", f"{self.name} {step}".lower())
        log = log.with_suffix(".log")
        command = ["docker", "exec", "--interactive", self.container, "bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, input=feed or b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        output = done.stdout.decode(errors="replace")
        log.write_text(output)
        if done.returncode:
            print("\n".join(output.splitlines()[-40:]))
            raise Failure(f"see {log.relative_to(PROJECT)}")
        return output

    def measure(self) -> None:
        """Fill the row, as far as it goes."""
        steps: dict[str, Callable[[], str | None]] = {"install": self.install, "unit tests": self.unit_tests}
        if self.deploys:
            steps |= {"deploys": self.deploy, "changes nothing": self.deploy_again, "answers": self.answer}
            steps |= {"no warnings": self.warnings}
        self.cells = dict.fromkeys(COLUMNS, "not run")
        try:
            try:
                self.start()
            except Failure as failure:
                self.cells["install"] = f"FAILED, {failure}"
                return
            for column, step in steps.items():
                began = time.monotonic()
                try:
                    said = step()
                except Failure as failure:
                    self.cells[column] = f"FAILED, {failure}"
                    # Without an installed collection nothing can follow, and no answer without a server.
                    if column in ("install", "deploys"):
                        break
                else:
                    self.cells[column] = said or f"{time.monotonic() - began:.0f} s"
                print(f"{self.name}: {column}: {self.cells[column]}", flush=True)
        finally:
            remove(self.container)

    def start(self) -> None:
        remove(self.container)
        volumes = [f"--volume={WORK}/{name}:/srv/{name}:ro" for name in ("wheels", "hub")]
        options = [option.strip("'") for option in re.findall(r"'[^']*'|\S+", OPTIONS)]
        command = ["docker", "run", *options, f"--name={self.container}", *volumes, f"llmops-test-host:{self.image}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for _dummy in range(60):
            state = subprocess.run(
                ["docker", "exec", self.container, "systemctl", "is-system-running"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if state.stdout.strip() == "running":
                return
            time.sleep(1)
        raise Failure(f"{self.container} has not booted: it is {state.stdout.strip() or state.stderr.strip()}")

    def install(self) -> str:
        tarball = subprocess.run(
            [PROJECT / "tools/build.sh"], capture_output=True, text=True, check=True
        ).stdout.strip()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
            cwd=PROJECT, capture_output=True, check=True,
        ).stdout  # fmt: skip
        files = [name for name in listed.split(b"\0") if name and (PROJECT / name.decode()).exists()]
        self.unpack(["-C", PROJECT, "--no-recursion", "--null", "--files-from=-"], "/srv/checkout", b"\0".join(files))
        self.unpack(["-C", COMMUNITY.parent, COMMUNITY.name], "/root/.ansible/collections/ansible_collections")
        self.unpack(["-C", Path(tarball).parent, Path(tarball).name], "/srv")
        self.run(
            "install",
            f"""
            python3 -m venv /opt/controller
            /opt/controller/bin/pip install --quiet --disable-pip-version-check 'ansible-core{self.core}'
            /opt/controller/bin/ansible-galaxy collection install --offline /srv/{Path(tarball).name}
            mkdir -p /root/site/.work
            cp -r /root/.ansible/collections/ansible_collections/llmops/vllm/inventories /root/site
            ln -s /srv/wheels /root/site/.work/wheels
            systemd-run --quiet --unit=hub python3 /srv/checkout/tests/support/hub.py --root /srv/hub --port 18765
            """,
        )
        version = "import ansible.release, platform; print(platform.python_version(), ansible.release.__version__)"
        self.found = self.run("version", f'/opt/controller/bin/python -c "{version}"').strip()
        return "core {1}, Python {0}".format(*self.found.split())

    def unpack(self, what: list[str | Path], folder: str, feed: bytes = b"") -> None:
        packed = subprocess.run(["tar", "-c", *what], input=feed, stdout=subprocess.PIPE, check=True).stdout
        self.run("unpack", f"mkdir -p {folder}; tar -x --no-same-owner -C {folder}", packed)

    def unit_tests(self) -> str:
        output = self.run(
            "unit tests",
            f"""
            cd /srv/checkout
            # The tests of image builds have repositories.
            export DEBIAN_FRONTEND=noninteractive
            command -v git >/dev/null || {{ apt-get update -qq && apt-get install -qq -y git >/dev/null; }}
            python3 -m venv .venv
            grep -v '^ansible-core==' tools/requirements.txt >/tmp/constraints
            export PIP_CONSTRAINT=/tmp/constraints PIP_DISABLE_PIP_VERSION_CHECK=1
            .venv/bin/pip install --quiet 'ansible-core{self.core}' {TEST_TOOLS}
            packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ansible_collections
            mkdir -p "$packages/llmops"
            cp -r /root/.ansible/collections/ansible_collections/community "$packages"
            ln -s "$PWD" "$packages/llmops/vllm"
            PATH=$PWD/.venv/bin:$PATH ANSIBLE_CONFIG=$PWD/ansible.cfg nice .venv/bin/pytest -q -n 2 tests/unit
            """,
        )
        passed = re.search(r"(\d+ passed.*?) in", output)
        if not passed:
            raise Failure("pytest has not said how many passed")
        return passed[1]

    def playbook(self, step: str) -> str:
        return self.run(
            step,
            """
            cd /root/site
            ANSIBLE_FORCE_COLOR=0 /opt/controller/bin/ansible-playbook -i inventories/local llmops.vllm.site
            """,
        )

    def deploy(self) -> None:
        self.output = self.playbook("deploys")

    def deploy_again(self) -> None:
        again = self.playbook("changes nothing")
        self.output += again
        if "changed=0" not in again or re.search(r"changed=[1-9]", again):
            raise Failure("the second run changed something")

    def answer(self) -> None:
        asked = f"curl --fail --silent --show-error -H 'Content-Type: application/json' -d '{json.dumps(QUESTION)}'"
        document = json.loads(self.run("answers", f"{asked} http://127.0.0.1:30080/v1/chat/completions"))
        if "Tokyo" not in document["choices"][0]["message"]["content"]:
            raise Failure(f"it said {document['choices'][0]['message']['content']!r}")

    def warnings(self) -> None:
        found = {line for line in self.output.splitlines() if re.match(r"\[(DEPRECATION )?WARNING\]", line)}
        found = {line for line in found if not OF_THE_CONTAINER.search(line)}
        if found:
            print("\n".join(sorted(found)))
            raise Failure(f"{len(found)} warnings, printed above")


def remove(container: str) -> None:
    subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True, check=False)


def hub_clients() -> list[tuple[str, dict[str, str]]]:
    """One row for each generation of the Hub's client."""
    sys.path[:0] = [str(PROJECT / "tests/support"), str(PROJECT / "tests/integration")]
    versions = importlib.import_module("test_hub_clients").VERSIONS

    rows = []
    for version in versions:
        log = LOGS / f"huggingface-hub-{version}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [PROJECT / ".venv/bin/pytest", "-q", "tests/integration", "-k", version],
                cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        passed = re.search(r"\d+ passed", log.read_text())
        result = passed[0] if passed and not done.returncode else f"FAILED, see {log.relative_to(PROJECT)}"
        rows.append((f"this machine, huggingface_hub {version}", {"integration tests": result}))
        print(f"{rows[-1][0]}: {result}", flush=True)
    return rows


CONTROLLERS = [
    Controller("Debian 12", "bookworm-docker", "~=2.19.0", deploys=True),
    Controller("Debian 13", "trixie-docker", "~=2.20.0"),
    # The newest that pip finds.
    Controller("Debian 13", "trixie-docker", "", deploys=True),
]


def main(wanted: list[str]) -> int:
    LOGS.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, dict[str, str]]] = []
    chosen = [row for row in CONTROLLERS if not wanted or any(text in row.name for text in wanted)]
    if chosen:
        images = sorted({controller.image for controller in chosen})
        subprocess.run([PROJECT / "tools/test_host_image.sh", *images], check=True)
    for controller in chosen:
        controller.measure()
        rows.append((controller.name, controller.cells))
    if not wanted or any(text in "huggingface_hub" for text in wanted):
        rows += hub_clients()
    if not rows:
        print(f"matrix: no row has {' or '.join(wanted)} in its name", file=sys.stderr)
        return 2
    print()
    for name, cells in rows:
        print(name)
        for column, cell in cells.items():
            print(f"  {column:18} {cell}")
    failed = sum(cell.startswith("FAILED") for _name, cells in rows for cell in cells.values())
    ran = sum(cell != "not run" for _name, cells in rows for cell in cells.values())
    print(f"{ran - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
