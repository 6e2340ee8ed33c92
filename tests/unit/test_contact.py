"""What a newcomer gets to see when the way to a host is wrong: one sentence that names the way out."""

# ruff: noqa: E501 (a table of what is said)

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.llmops.vllm.plugins.plugin_utils.contact import why_not

PROJECT = Path(__file__).parents[2]

# What OpenSSH 9.2, sudo 1.9 and ansible-core 2.19 said of a host of Debian 12, one fault after the other.
SAID = [
    (
        "Failed to connect to the host via ssh: ssh: Could not resolve hostname gpu1.example.com: Name or service not known",
        "gpu1 cannot be reached, nobody here knows the address gpu1.example.com: correct ansible_host in the inventory",
    ),
    (
        "Failed to connect to the host via ssh: ssh: connect to host 192.0.2.11 port 2222: Connection refused",
        "gpu1 cannot be reached at 192.0.2.11 port 2222 (Connection refused): see that it is up and lets SSH in there, "
        "or correct ansible_host and ansible_port in the inventory",
    ),
    (
        "Failed to connect to the host via ssh: Host key verification failed.",
        "the SSH key of gpu1 is not known here: connect once by hand and compare it (ssh -p 2222 admin@192.0.2.11)",
    ),
    (
        "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\r\nHost key verification failed.",
        "gpu1 has another SSH key than the one that is known here of 192.0.2.11: find out why; where it was installed "
        "anew, forget the old key (ssh-keygen -R '[192.0.2.11]:2222') and connect once by hand "
        "(ssh -p 2222 admin@192.0.2.11)",
    ),
    (
        "Failed to connect to the host via ssh: admin@192.0.2.11: Permission denied (publickey,password).",
        "gpu1 does not let admin in (SSH there takes publickey,password): name the account with ansible_user and its key "
        "with ansible_ssh_private_key_file, until ssh -p 2222 admin@192.0.2.11 gets in",
    ),
    (
        "Missing sudo password",
        "sudo on gpu1 asks admin for a password: give it with --ask-become-pass, or let that account use sudo without one",
    ),
    (
        "Incorrect sudo password",
        "sudo on gpu1 does not take the password that was given for admin: give its right one with --ask-become-pass",
    ),
    (
        "Module result deserialization failed: No start of json char found admin is not in the sudoers file.\n",
        "admin may not become root by sudo on gpu1: let it, or name an account that may with ansible_user",
    ),
    (
        "Module result deserialization failed: No start of json char found /bin/sh: 1: sudo: not found\n",
        "gpu1 has no sudo: install it there, or connect as root (ansible_user: root)",
    ),
    (
        "The module interpreter '/usr/bin/python3' was not found. /bin/sh: 1: /usr/bin/python3: not found\n",
        "gpu1 has no Python at /usr/bin/python3: install python3 there, or name where it is with "
        "ansible_python_interpreter",
    ),
    (
        "ansible-core requires a minimum of Python version 3.8. Current version: 3.6.8 (default, Nov 15 2024, 08:11:39)",
        "the Python of gpu1 is 3.6.8, and 3.9 is the least: install a newer one beside it and name it with "
        "ansible_python_interpreter",
    ),
    (
        "SyntaxError: future feature annotations is not defined\n",
        "the Python of gpu1 is too old, and 3.9 is the least: install a newer one beside it and name it with "
        "ansible_python_interpreter",
    ),
    (
        "TypeError: 'type' object is not subscriptable\n",
        "the Python of gpu1 is too old, and 3.9 is the least: install a newer one beside it and name it with "
        "ansible_python_interpreter",
    ),
    (
        "Failed to connect to the host via ssh: Received disconnect from 192.0.2.11 port 2222:2: Too many authentication failures",
        "gpu1 has refused admin after too many keys: name the right one with ansible_ssh_private_key_file, and let SSH "
        "offer it alone (IdentitiesOnly yes), until ssh -p 2222 admin@192.0.2.11 gets in",
    ),
    (
        "Traceback (most recent call last):\nModuleNotFoundError: No module named 'shutil'\n",
        "the Python of gpu1 lacks its own module shutil: install all of python3 there, not only its minimal package",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), SAID, ids=lambda text: text[:40])
def test_what_is_said_of_the_way_to_a_host(text: str, sentence: str) -> None:
    assert why_not("gpu1", text, "192.0.2.11", 2222, "admin") == sentence


def test_what_the_inventory_leaves_out() -> None:
    refused = why_not("gpu1", "Permission denied (publickey).")
    assert refused.startswith("gpu1 does not let your account in (SSH there takes publickey): ")
    assert refused.endswith(", until ssh gpu1 gets in")
    assert "ssh-keygen -R gpu1)" in why_not("gpu1", "REMOTE HOST IDENTIFICATION HAS CHANGED!")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no space left on device",
        "ModuleNotFoundError: No module named 'docker'",
        "Failed to connect to the host via ssh: what?",
    ],
)
def test_what_no_rule_knows_stays_as_it_is(text: str) -> None:
    assert why_not("gpu1", text) is None


@pytest.fixture
def preflight(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the preflight as a newcomer does; ssh: what stands in for the client of OpenSSH."""

    def run(*args: str | Path, ssh: str = "exit 0") -> subprocess.CompletedProcess[str]:
        client = tmp_path / "ssh"
        client.write_text(f"#!/bin/sh\n{ssh}\n")
        client.chmod(0o755)
        return subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "llmops.vllm.preflight", *args],
            capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, stdin=subprocess.DEVNULL,
            env={
                **os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_SSH_EXECUTABLE": str(client),
                "ANSIBLE_SSH_RETRIES": "0", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "ansible"),
            },
        )  # fmt: skip

    return run


def test_a_host_that_nobody_knows(preflight: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The inventory as it is shipped, whose host is one of example.com."""
    unknown = "echo 'ssh: Could not resolve hostname gpu1.example.com: Name or service not known' >&2; exit 255"
    run = preflight("-i", PROJECT / "inventories/single", ssh=unknown)
    # Ansible counts it as a host that is lost.
    assert run.returncode == 4
    assert "gpu1 cannot be reached, nobody here knows the address gpu1.example.com: correct ansible_host" in run.stdout


def test_a_host_without_sudo(preflight: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Its shell runs here, but for what is asked by sudo."""
    shell = """
        for last; do :; done
        case $last in
        *sudo*) echo '/bin/sh: 1: sudo: not found' >&2; exit 127 ;;
        *) exec sh -c "$last" ;;
        esac"""
    run = preflight(
        "-i", PROJECT / "inventories/single", "-e", f"ansible_remote_tmp={tmp_path}/remote",
        "-e", f"ansible_python_interpreter={sys.executable}", ssh=shell,
    )  # fmt: skip
    assert run.returncode == 2
    assert "gpu1 has no sudo: install it there, or connect as root (ansible_user: root)\n" in run.stdout


@pytest.mark.parametrize("given", [["-i", "inventories/singel"], ["-i", "empty"]])
def test_an_inventory_without_hosts_is_no_success(
    preflight: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, given: list[str]
) -> None:
    """Ansible itself only warns, skips every play, and ends with 0."""
    (tmp_path / "empty").write_text("")
    run = preflight(*given)
    assert run.returncode == 2
    assert (
        f"The inventory {tmp_path / given[1]} has no host: name a folder or a file that has one with -i" in run.stdout
    )


@pytest.mark.parametrize(
    ("version", "refused"), [("2.14.18", True), ("2.18.9", True), ("2.19.0", False), ("2.20.1", False)]
)
def test_an_ansible_that_is_too_old(version: str, refused: bool) -> None:
    """It is refused before anything of ours is loaded, which it could not do."""
    (play,) = yaml.safe_load((PROJECT / "playbooks/catalogue.yml").read_text())
    first = play["tasks"][0]
    assert first["name"] == "Refuse an Ansible that is too old"
    templar = Templar(DataLoader(), variables={"ansible_version": {"full": version}})
    assert templar.evaluate_conditional(trust_as_template(first["when"])) is refused
    (least,) = re.findall(r"needs ([\d.]+) or newer", first["ansible.builtin.fail"]["msg"])
    assert yaml.safe_load((PROJECT / "meta/runtime.yml").read_text())["requires_ansible"] == f">={least}.0"
