#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_firewall
short_description: Who may reach the ports that Docker publishes
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Rules of C(iptables) that let only named sources reach a published port. New connections of all others are dropped,
    those of containers on the same host among them. The host itself reaches its ports always.
  - They are in chains of their own in the table C(mangle), before Docker's. The rules of one run are loaded in one
    step.
  - What is loaded is compared, not the file alone, so that rules which somebody took out come back.
  - A unit of systemd loads them at boot before Docker starts. Without systemd a reboot forgets them, and the module
    warns.
attributes:
  check_mode:
    support: full
    description: It also refuses what it would refuse.
  diff_mode:
    support: full
    description: Of the files, and of what is loaded where that alone is different.
  idempotent:
    support: full
    description: Rules that are loaded, and a file that has them, are left alone.
options:
  rules:
    description: One for each port. Without any, all is taken away as with O(state=absent).
    type: list
    elements: dict
    default: []
    version_added: 0.2.0
    suboptions:
      name:
        description: Name of the deployment; it stands beside its rules as a comment.
        type: str
        required: true
        version_added: 0.2.0
      address:
        description:
          - IPv4 address of the host that the port is published on. V(0.0.0.0) stands for all of them, and then nobody
            reaches the port over IPv6.
        type: str
        required: true
        version_added: 0.2.0
      port:
        description: Port of the host.
        type: int
        required: true
        version_added: 0.2.0
      container_port:
        description:
          - Port in the container, O(rules[].port) by default. Nobody from outside reaches it past the published port,
            straight at a container's own address.
        type: int
        version_added: 0.2.0
      allow_from:
        description: IPv4 addresses and networks that may connect. An empty list means nobody.
        type: list
        elements: str
        required: true
        version_added: 0.2.0
  state:
    description: V(absent) takes away chains, files and unit.
    type: str
    choices: [present, absent]
    default: present
    version_added: 0.2.0
seealso:
  - module: llmops.vllm.docker_daemon
"""

EXAMPLES = r"""
- name: Let the load balancers and the monitoring in, and nobody else
  llmops.vllm.docker_firewall:
    rules:
      - name: karakuri-70b
        address: 10.1.0.11
        port: 30080
        allow_from: [10.1.0.5, 10.1.0.6, 10.2.0.0/24]

- name: Open all again
  llmops.vllm.docker_firewall:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: ["rules of IPv4 loaded", "/etc/llmops-vllm/firewall.rules written"]
drifted:
  description: Whether the rules that were loaded were others than those of the files.
  returned: always
  type: bool
  sample: false
persistent:
  description: Whether the rules are there after a reboot.
  returned: always
  type: bool
  sample: true
"""

import contextlib
import os
import shutil
import subprocess
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.llmops.vllm.plugins.module_utils import _docker_firewall

FILES = {4: "/etc/llmops-vllm/firewall.rules", 6: "/etc/llmops-vllm/firewall6.rules"}
UNIT = "/etc/systemd/system/llmops-vllm-firewall.service"
SYSTEMD = "/run/systemd/system"
FIB_TRIE = "/proc/net/fib_trie"
IPV6 = "/proc/net/if_inet6"
PROGRAMS = {4: ("iptables", "iptables-restore"), 6: ("ip6tables", "ip6tables-restore")}
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Firewall:
    """Brings the rules into the kernel, into files, and into the next boot."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.rules = module.params["rules"] if module.params["state"] == "present" else []
        self.has_systemd = os.path.isdir(SYSTEMD)
        self.programs = {
            version: (_program(iptables), _program(iptables_restore))
            for version, (iptables, iptables_restore) in PROGRAMS.items()
        }
        self.result: dict[str, Any] = {
            "changed": False,
            "actions": [],
            "drifted": False,
            "persistent": False,
            "diff": [],
        }

    def run(self) -> dict[str, Any]:
        """Return the result."""
        rules = _docker_firewall.read_rules(self.rules, self._local())
        wanted = {version: _docker_firewall.chains(rules, version) for version in FILES}
        if not os.path.exists(IPV6):
            wanted[6] = {}
        texts = {version: _docker_firewall.restore(wanted[version]) for version in FILES}
        before = {version: _read(path) for version, path in FILES.items()}
        plans = {version: self._plan(version, wanted[version], texts[version] == before[version]) for version in FILES}
        for version, text in plans.items():
            self._restore(version, text, "--test")
        for version, text in plans.items():
            if text:
                self._do("rules of IPv%d %s" % (version, "loaded" if wanted[version] else "taken out"))
            if not self.module.check_mode:
                self._restore(version, text)
        # After they are loaded: what cannot be must not stand there for the next boot.
        for version, path in FILES.items():
            self._file(path, before[version], texts[version], 0o600)
        if self.has_systemd:
            self._unit(wanted)
        if not rules and not self.module.check_mode:
            # Unless others keep something there.
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(FILES[4]))
        self.result["persistent"] = bool(rules) and self.has_systemd
        if rules and not self.has_systemd:
            self.module.warn(
                "no systemd runs on this host: a reboot forgets who may reach the ports, until the next run"
            )
        return self.result

    def _local(self) -> list[str]:
        with open(FIB_TRIE, encoding="utf-8") as stream:
            return _docker_firewall.local_addresses(stream.read())

    def _is_there(self, version: int) -> bool:
        return all(os.path.exists(program) for program in self.programs[version])

    def _plan(self, version: int, wanted: dict[str, list[str]], file_is_right: bool) -> str:
        """Return what iptables-restore has to do, '' for nothing."""
        program = self.programs[version][0]
        if not self._is_there(version):
            # In check mode Docker, which brings it, may only be installed now.
            if wanted and not self.module.check_mode:
                raise _docker_firewall.FirewallError("%s is not on this host: install the package iptables" % program)
            return _docker_firewall.restore(wanted)
        done = subprocess.run(
            [program, "--wait", "30", "--table", "mangle", "--list-rules"], check=False, capture_output=True, text=True
        )
        if done.returncode:
            if not wanted:
                # A kernel without this table, or without IPv6, has nothing of ours in it.
                return ""
            raise _docker_firewall.FirewallError(
                "the loaded rules cannot be read, since %s says: %s" % (program, _words(done.stderr))
            )
        loaded = _docker_firewall.read_listing(done.stdout)
        text = _docker_firewall.plan(wanted, loaded)
        if text and file_is_right:
            self.result["drifted"] = bool(wanted)
            after = _docker_firewall.afterwards(wanted, loaded)
            header = "loaded rules of IPv%d" % version
            self._diff(header, _docker_firewall.shown(loaded), _docker_firewall.shown(after))
        return text

    def _restore(self, version: int, text: str, *arguments: str) -> None:
        if not text or not self._is_there(version):
            return
        done = subprocess.run(
            [self.programs[version][1], "--wait", "30", "--noflush", *arguments],
            input=text,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise _docker_firewall.FirewallError(
                "the rules cannot be loaded, since %s says: %s" % (self.programs[version][1], _words(done.stderr))
            )

    def _file(self, path: str, before: str, after: str, mode: int) -> bool:
        """Have a file, or none where the text is empty; return whether that changed anything."""
        right = not after or (os.path.exists(path) and _mode(path) == mode)
        if before == after and right:
            return False
        self._do("%s %s" % (path, "written" if after else "removed"))
        if before != after:
            self._diff(path, before, after)
        if self.module.check_mode:
            return True
        if not after:
            os.remove(path)
            return True
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        new = path + ".new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as stream:
            stream.write(after)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(new, mode)
        os.replace(new, path)
        return True

    def _unit(self, wanted: dict[int, dict[str, list[str]]]) -> None:
        name = os.path.basename(UNIT)
        before = _read(UNIT)
        after = _docker_firewall.unit(self.programs, FILES, wanted) if any(wanted.values()) else ""
        if before and not after:
            self._systemctl("disable", "--now", name)
        if self._file(UNIT, before, after, 0o644):
            self._systemctl("daemon-reload")
        if not after:
            return
        show = ["systemctl", "show", "--property=ActiveState", "--property=UnitFileState", name]
        state = subprocess.run(show, check=False, capture_output=True, text=True).stdout
        if "UnitFileState=enabled" not in state:
            self._do("%s enabled" % name)
            self._systemctl("enable", name)
        # It loads once more what is loaded; what restarts Docker, restarts it only when it is active.
        if "ActiveState=active" not in state:
            self._do("%s started" % name)
            self._systemctl("start", name)

    def _systemctl(self, *arguments: str) -> None:
        if self.module.check_mode:
            return
        done = subprocess.run(["systemctl", *arguments], check=False, capture_output=True, text=True)
        if done.returncode:
            raise _docker_firewall.FirewallError(
                "what happens at the next boot is not sure, since systemctl %s says: %s"
                % (" ".join(arguments), _words(done.stderr))
            )

    def _do(self, action: str) -> None:
        self.result["changed"] = True
        self.result["actions"].append(action)

    def _diff(self, header: str, before: str, after: str) -> None:
        self.result["diff"].append({"before_header": header, "after_header": header, "before": before, "after": after})


def _program(name: str) -> str:
    return shutil.which(name, path=SEARCH_PATH) or "/usr/sbin/" + name


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def _mode(path: str) -> int:
    return os.stat(path).st_mode & 0o7777


def _words(text: str) -> str:
    return " ".join(text.split()) or "nothing"


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            rules=dict(
                type="list",
                elements="dict",
                default=[],
                options=dict(
                    name=dict(type="str", required=True),
                    address=dict(type="str", required=True),
                    port=dict(type="int", required=True),
                    container_port=dict(type="int"),
                    allow_from=dict(type="list", elements="str", required=True),
                ),
            ),
            state=dict(type="str", choices=["present", "absent"], default="present"),
        ),
        supports_check_mode=True,
    )
    try:
        module.exit_json(**Firewall(module).run())
    except _docker_firewall.FirewallError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="the rules cannot be changed: %s" % error, exception=traceback.format_exc())


if __name__ == "__main__":
    main()
