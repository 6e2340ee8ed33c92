"""The files of a server as its role writes them, here instead of on a host: who may read them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
ROLE = PROJECT / "roles/vllm_server"
UID = 2000

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to the user of a server, which only root can")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes the files of a server into a folder and returns it."""

    def write(**variables: str) -> Path:
        for name in ("crt", "key"):
            (tmp_path / f"tls.{name}").write_text(f"PEM of {name}\n")
            (tmp_path / f"tls.{name}").chmod(0o644)
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {
                **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
                **yaml.safe_load((ROLE / "vars/main.yml").read_text()),
                "ansible_python_interpreter": sys.executable,
                "vllm_server_name": "chat",
                "vllm_server_home": str(tmp_path / "home"),
                "vllm_server_secrets_dir": str(tmp_path / "secrets"),
                "__vllm_server_image_info": {"images": [{"Id": "sha256:0123456789abcdef", "Config": {"User": "vllm"}}]},
                **variables,
            },
            "tasks": [
                {"file": {"path": str(tmp_path / folder), "state": "directory"}}
                for folder in ("home", "home/cache", "secrets")
            ]
            + [{"include_tasks": str(ROLE / "tasks/files.yml")}],
        }
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
        run = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", "--diff",
             tmp_path / "play.yml"],
            capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        (tmp_path / "output").write_text(run.stdout + run.stderr)
        return tmp_path

    return write


def owner_and_mode(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_mode & 0o7777


@needs_root
def test_secrets_and_the_cache_are_for_the_server_alone(written: Callable[..., Path]) -> None:
    folder = written(
        vllm_server_api_key="sk-of-the-test",
        vllm_server_tls_certificate="{{ playbook_dir }}/tls.crt",
        vllm_server_tls_key="{{ playbook_dir }}/tls.key",
    )
    for name, text in (("api_key", "sk-of-the-test"), ("tls_certificate", "PEM of crt\n"), ("tls_key", "PEM of key\n")):
        assert (folder / "secrets/chat" / name).read_text() == text
        assert owner_and_mode(folder / "secrets/chat" / name) == (UID, 0o400), name
    # Who could write there would have the server run what it finds.
    assert owner_and_mode(folder / "home/cache/chat-0123456789ab") == (UID, 0o700)
    # Not even with --diff.
    shown = (folder / "output").read_text()
    assert "sk-of-the-test" not in shown
    assert "PEM of" not in shown


def test_a_server_that_has_not_passed_its_gate_is_not_started_again() -> None:
    def policies(name: str) -> list[str]:
        tasks = yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text())
        return [task["community.docker.docker_container"]["restart_policy"] for task in tasks
                if "restart_policy" in task.get("community.docker.docker_container", {})]  # fmt: skip

    assert policies("container") == ["no", "no"]
    assert policies("gate") == ["unless-stopped"]
    names = [task["name"] for task in yaml.safe_load((ROLE / "tasks/gate.yml").read_text())]
    assert names.index("Wait until the server answers") < names.index("Have Docker restart the server from now on")
