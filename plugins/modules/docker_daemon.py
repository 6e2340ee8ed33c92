#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon
short_description: Settings of the Docker daemon, taken over without stopping what serves
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Keeps the settings of several owners in the one C(daemon.json) of a host. Each owner's are merged into it, and what
    is neither its own nor in its way stays.
  - The daemon takes them over by a reload where that is enough, and is restarted where it is not. A change that a
    killed run left behind is taken over by the next one.
  - A restart that would stop running containers is refused before anything is written. With C(live-restore) they go on
    running; when that is among the settings, it is turned on before the restart.
  - When the daemon does not come up with the new file, the old one is put back and the daemon is started with it.
attributes:
  check_mode:
    support: full
    description: It also refuses what it would refuse.
  diff_mode:
    support: full
    description: Passwords in addresses are left out.
  idempotent:
    support: full
    description: A file, and a daemon that has taken it over, are left alone.
options:
  owner:
    description: Whose settings these are. An owner's settings replace those that it had before.
    type: str
    required: true
    version_added: 0.2.0
  settings:
    description:
      - The owner's settings, spelled as in C(daemon.json). Objects are merged with those that are there; a list or a
        plain value takes the place of the one that is there, which O(state=absent) puts back.
    type: dict
    default: {}
    version_added: 0.2.0
  looks_for:
    description:
      - Names of programs that the daemon looks for when it starts. One that came after that means a restart, a newer
        version of one that was there does not.
      - With O(state=absent), those that go as well.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  state:
    description: V(absent) takes the owner's settings out again.
    type: str
    choices: [present, absent]
    default: present
    version_added: 0.2.0
  allow_disruption:
    description: Restart the daemon even though containers stop with it. Those that ran are started again.
    type: bool
    default: false
    version_added: 0.2.0
  path:
    description:
      - The file. By default the one that the running daemon was started with, else C(/etc/docker/daemon.json).
    type: path
    version_added: 0.2.0
  socket:
    description: The daemon's socket.
    type: path
    default: /var/run/docker.sock
    version_added: 0.2.0
  timeout:
    description: Seconds until a restarted daemon has to answer.
    type: int
    default: 60
    version_added: 0.2.0
seealso:
  - module: community.docker.docker_host_info
"""

EXAMPLES = r"""
- name: Have Docker keep its containers when it is restarted, and its logs small
  llmops.vllm.docker_daemon:
    owner: docker_engine
    settings:
      live-restore: true
      log-opts:
        max-size: 50m
        max-file: "3"

- name: Register the NVIDIA runtime
  llmops.vllm.docker_daemon:
    owner: nvidia_container_toolkit
    settings:
      runtimes:
        nvidia:
          path: nvidia-container-runtime
          args: []
    looks_for: [nvidia-container-runtime-hook]
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
  sample: /etc/docker/daemon.json
applied:
  description: How the daemon took the settings over, or would in check mode.
  returned: always
  type: str
  choices: [nothing, reload, restart, next start]
  sample: reload
reasons:
  description: Why it had to be reloaded or restarted.
  returned: always
  type: list
  elements: str
  sample: ["live-restore is set anew"]
backup_file:
  description: Copy of the file as it was before.
  returned: when a file was replaced
  type: str
  sample: /etc/docker/daemon.json.4711.2026-11-25@11:00:00~
running:
  description: Names of the containers that run.
  returned: always
  type: list
  elements: str
  sample: [karakuri-70b]
live_restore:
  description: Whether containers outlive a restart of the daemon as it runs now.
  returned: always
  type: bool
  sample: true
version:
  description: Version of the daemon; empty when none answers.
  returned: always
  type: str
  sample: 26.1.5
"""

import contextlib
import copy
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.llmops.vllm.plugins.module_utils import _docker_daemon, _dockerd

RECORD = "/var/lib/llmops-vllm/docker_daemon.json"
LOCK = "/run/llmops-vllm-docker_daemon.lock"
# Where systemd lets a service look for programs.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RELOAD_TIMEOUT = 15
RELOAD_PAUSE = 1


class DaemonSettings:
    """Brings an owner's settings into daemon.json, and the daemon to take them over."""

    def __init__(self, module: AnsibleModule) -> None:
        params = module.params
        self.module = module
        self.owner = params["owner"]
        self.settings = params["settings"] if params["state"] == "present" else {}
        self.looks_for = params["looks_for"]
        self.goes = params["state"] == "absent"
        self.allow_disruption = params["allow_disruption"]
        self.timeout = params["timeout"]
        self.old: dict[str, Any] = {}
        self.daemon = _dockerd.Daemon(params["socket"], params["timeout"])
        self.path = os.path.realpath(
            params["path"] or self.daemon.argument("--config-file") or "/etc/docker/daemon.json"
        )

    def run(self) -> dict[str, Any]:
        """Return the result."""
        text = self._text()
        record = self._record()
        self.old = copy.deepcopy(record)
        before = _docker_daemon.read(text, self.path)
        after, ours = _docker_daemon.merge(before, record["owners"].get(self.owner, []), self.settings)
        keys = _docker_daemon.changed_keys(before, after)
        self._look_for(record)
        how, reasons = self._how(before, after, record)
        running = self.daemon.running() if self.daemon.info else self._orphans()
        result = {
            "changed": bool(keys) or how in ("reload", "restart"),
            "path": self.path,
            "applied": how,
            "reasons": reasons,
            "running": sorted(running),
            "live_restore": bool(self.daemon.info and self.daemon.info.get("LiveRestoreEnabled")),
            "version": self.daemon.info.get("ServerVersion", "") if self.daemon.info else "",
        }
        self._refuse(after, keys, how, reasons, running)
        new = (_docker_daemon.render(after) if after else "") if keys else text
        if keys:
            result["diff"] = {
                "before_header": self.path,
                "after_header": self.path,
                "before": _docker_daemon.without_secrets(text),
                "after": _docker_daemon.without_secrets(new),
            }
            self._validate(_docker_daemon.render(after))
        if self.module.check_mode:
            if how in ("reload", "restart"):
                result["live_restore"] = bool(after.get("live-restore"))
            return result
        # Until it is done, what is no longer wanted is still the owner's as well.
        mine = {tuple(item["path"]) for item in ours}
        old = [item for item in record["owners"].get(self.owner, []) if tuple(item["path"]) not in mine]
        record["owners"][self.owner] = ours + old
        # Before the file: a run that is killed behind it has still something to take over.
        if keys:
            left = record.get("pending", {}).get("how", "nothing")
            least = max(_docker_daemon.how_to_apply(before, after), left, key=_docker_daemon.HOW.index)
            record["pending"] = {"how": least, "since": time.time()}
        self._keep(record)
        if keys:
            if text:
                result["backup_file"] = self.module.backup_local(self.path)
            self._write(new)
        self._apply(how, reasons, before, after, text, running)
        record["owners"][self.owner] = ours
        if not ours:
            del record["owners"][self.owner]
        # A daemon that does not answer yet may have read the file as it was: its start tells.
        if how != "next start" or not self.daemon.is_alive():
            record.pop("pending", None)
        self._keep(record)
        result["live_restore"] = bool((self.daemon.ask("/info") or {}).get("LiveRestoreEnabled"))
        return result

    def _text(self) -> str:
        try:
            with open(self.path, encoding="utf-8") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError:
            raise _docker_daemon.DaemonConfigError("%s is no text: correct it by hand" % self.path) from None

    def _record(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"owners": {}, "seen": {}}
        try:
            with open(RECORD, encoding="utf-8") as stream:
                return {**empty, **json.load(stream)}
        except FileNotFoundError:
            return empty
        except (ValueError, TypeError):
            raise _docker_daemon.DaemonConfigError(
                "%s, which tells whose settings are whose, is damaged: remove it, and the settings in %s are taken for "
                "the user's" % (RECORD, self.path)
            ) from None

    def _keep(self, record: dict[str, Any]) -> None:
        # Equal bytes stay as they are, so that a second run touches nothing.
        text = json.dumps(record, indent=1, sort_keys=True) + "\n"
        try:
            with open(RECORD, encoding="utf-8") as stream:
                if stream.read() == text:
                    return
        except OSError:
            pass
        if text == json.dumps({"owners": {}, "seen": {}}, indent=1, sort_keys=True) + "\n":
            if os.path.exists(RECORD):
                os.remove(RECORD)
            # Unless others keep records there.
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(RECORD))
            return
        os.makedirs(os.path.dirname(RECORD), mode=0o755, exist_ok=True)
        with open(RECORD + ".new", "w", encoding="utf-8") as stream:
            stream.write(text)
        # It can have a proxy's password, as daemon.json can.
        os.chmod(RECORD + ".new", 0o600)
        os.replace(RECORD + ".new", RECORD)

    def _look_for(self, record: dict[str, Any]) -> None:
        """Remember since when each program has been there: an upgrade makes its file new, and changes nothing."""
        for name in list(record["seen"]):
            if not shutil.which(name, path=SEARCH_PATH) or (self.goes and name in self.looks_for):
                del record["seen"][name]
        for name in [] if self.goes else self.looks_for:
            found = shutil.which(name, path=SEARCH_PATH)
            if found and name not in record["seen"]:
                record["seen"][name] = os.stat(os.path.realpath(found)).st_ctime

    def _how(self, before: dict[str, Any], after: dict[str, Any], record: dict[str, Any]) -> tuple[str, list[str]]:
        """Return how the daemon takes everything over, and why."""
        keys = _docker_daemon.changed_keys(before, after)
        if not self.daemon.info:
            return ("next start" if keys else "nothing"), []
        if not self.daemon.pid:
            if keys:
                raise _docker_daemon.DaemonConfigError(
                    "Docker answers on this host, but no process of it is known (%s): change its settings where it runs"
                    % " and ".join(_dockerd.PID_FILES)
                )
            return "nothing", []
        started = self.daemon.started()
        how = _docker_daemon.how_to_apply(before, after)
        reasons = ["%s is set anew" % key for key in keys]
        pending = record.get("pending", {})
        if pending.get("since", 0) > started:
            reasons.append("an earlier run was killed before Docker had taken its settings over")
            how = max(how, pending["how"], key=_docker_daemon.HOW.index)
        came = [name for name in self.looks_for if record["seen"].get(name, 0) > started]
        if came:
            reasons += ["%s came after its start" % name for name in came]
            how = "restart"
        return how, reasons

    def _orphans(self) -> dict[str, str]:
        count = _dockerd.orphans()
        return {"containers that outlived Docker (%d)" % count: ""} if count else {}

    def _refuse(
        self, after: dict[str, Any], keys: list[str], how: str, reasons: list[str], running: dict[str, str]
    ) -> None:
        info = self.daemon.info or {}
        swarm = (info.get("Swarm") or {}).get("LocalNodeState", "inactive")
        if after.get("live-restore") and swarm != "inactive":
            raise _docker_daemon.DaemonConfigError(
                "Docker is part of a swarm, and would not start with live-restore: turn live-restore off for this host"
            )
        if how == "next start" and running and not after.get("live-restore") and not self.allow_disruption:
            raise _docker_daemon.DaemonConfigError(
                "Docker does not answer, and %s would end with its next start: start it as it is first, or allow the "
                "disruption" % ", ".join(running)
            )
        if how != "restart":
            return
        if self.daemon.is_elsewhere():
            raise _docker_daemon.DaemonConfigError(
                "Docker has to be restarted (%s), and the unit docker.service is not what runs it: restart it where it "
                "is run, and run again" % "; ".join(reasons)
            )
        if self.allow_disruption:
            return
        if "data-root" in keys and info.get("Images", 0) + info.get("Containers", 0) > 0:
            raise _docker_daemon.DaemonConfigError(
                "Docker would no longer see the %d images and %d containers that are under %s: stop it, move that "
                "folder to %s, and run again, or allow the disruption"
                % (info["Images"], info["Containers"], info["DockerRootDir"], after.get("data-root", "its default"))
            )
        if running and not after.get("live-restore"):
            raise _docker_daemon.DaemonConfigError(
                "Docker has to be restarted (%s), and %s would stop with it: drain and stop it first, turn "
                "live-restore on, or allow the disruption" % ("; ".join(reasons), ", ".join(sorted(running)))
            )

    def _validate(self, text: str) -> None:
        """Ask the daemon that is installed whether it would start with a file, where it can tell (23.0 and newer)."""
        program = shutil.which("dockerd", path=SEARCH_PATH)
        if not program:
            return
        known = subprocess.run([program, "--help"], check=False, capture_output=True, text=True)
        if "--validate" not in known.stdout:
            return
        with tempfile.NamedTemporaryFile("w", prefix="daemon.", suffix=".json", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            arguments = [
                argument
                for number, argument in enumerate(self.daemon.arguments[1:])
                if not argument.startswith("--config-file") and self.daemon.arguments[number] != "--config-file"
            ]
            done = subprocess.run(
                [program, *arguments, "--validate", "--config-file", stream.name],
                check=False,
                capture_output=True,
                text=True,
            )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise _docker_daemon.DaemonConfigError(
                "Docker would not start with these settings (%s): correct them; nothing was changed"
                % (said[-1].replace(stream.name, self.path) if said else "it does not say why")
            )

    def _write(self, text: str) -> None:
        # No settings are no file: Docker does without.
        if not text:
            if os.path.exists(self.path):
                os.remove(self.path)
            return
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        mode = os.stat(self.path).st_mode & 0o7777 if os.path.exists(self.path) else 0o644
        new = self.path + ".new"
        with open(new, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(new, mode)
        self.module.atomic_move(new, self.path)

    def _apply(
        self,
        how: str,
        reasons: list[str],
        before: dict[str, Any],
        after: dict[str, Any],
        text: str,
        running: dict[str, str],
    ) -> None:
        survive = bool(running and after.get("live-restore"))
        # Before a restart as well: it is what the daemon has in mind when it ends that decides about its containers.
        if (how == "reload" or (how == "restart" and survive)) and not self._reload(before, after):
            self._restore(before, after, text)
            raise _docker_daemon.DaemonConfigError(
                "Docker did not take the settings over (%s): %s is as it was; its log tells why%s"
                % ("; ".join(reasons), self.path, self._words())
            )
        if how == "restart":
            if not self.daemon.restart():
                words = self._words()
                # One that starts without live-restore ends what it finds alive.
                self._write(_docker_daemon.render({**before, "live-restore": True}) if survive else text)
                back = self.daemon.restart()
                self._restore(before, {**before, "live-restore": True} if survive else before, text)
                if back:
                    self._start_again(running)
                raise _docker_daemon.DaemonConfigError(
                    "Docker did not start with the new settings%s; %s is as it was, and Docker %s"
                    % (words, self.path, "runs again" if back else "does not start with that either")
                )
            self._start_again(running)

    def _reload(self, before: dict[str, Any], after: dict[str, Any]) -> bool:
        """Have the daemon read the file again; return whether it has taken over what can be seen from outside."""
        for_reload = _docker_daemon.for_reload(before, after)
        if for_reload == after:
            self.daemon.reload()
            return self._has_taken_over(after)
        self._write(_docker_daemon.render(for_reload))
        self.daemon.reload()
        taken = self._has_taken_over(after)
        # Not all of it can be seen, and the daemon shall have read the file before it is another one.
        time.sleep(RELOAD_PAUSE)
        self._write(_docker_daemon.render(after) if after else "")
        return taken

    def _has_taken_over(self, after: dict[str, Any]) -> bool:
        """Whether a reloaded daemon shows what can be seen from outside."""
        flags = {"--live-restore", "--live-restore=true"}.intersection(self.daemon.arguments)
        live_restore = bool(after.get("live-restore") or flags)
        deadline = time.monotonic() + RELOAD_TIMEOUT
        while time.monotonic() < deadline:
            info = self.daemon.ask("/info") or {}
            if info.get("LiveRestoreEnabled") == live_restore and set(after.get("runtimes") or {}) <= set(
                info.get("Runtimes") or {}
            ):
                return True
            time.sleep(0.2)
        return False

    def _restore(self, before: dict[str, Any], after: dict[str, Any], text: str) -> None:
        """Put the old file and the old record back, in the place of a document that the daemon may have read."""
        if before != after and self.daemon.ask("/info"):
            self._reload(before=after, after=before)
        self._write(text)
        self.old.pop("pending", None)
        self._keep(self.old)

    def _words(self) -> str:
        words = self.daemon.last_words()
        return " (%s)" % words if words else ""

    def _start_again(self, running: dict[str, str]) -> None:
        """Containers that ran, run: Docker itself brings back only those whose restart policy says so."""
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            missing = set(running.values()) - set(self.daemon.running().values())
            if not missing:
                return
            for container in missing:
                self.daemon.ask("/containers/%s/start" % container, "POST")
            time.sleep(0.5)
        names = sorted(name for name, container in running.items() if container in missing)
        raise _docker_daemon.DaemonConfigError(
            "Docker was restarted, and %s, which ran before, did not come back: docker logs tells why"
            % ", ".join(names)
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            owner=dict(type="str", required=True),
            settings=dict(type="dict", default={}),
            looks_for=dict(type="list", elements="str", default=[]),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            allow_disruption=dict(type="bool", default=False),
            path=dict(type="path"),
            socket=dict(type="path", default="/var/run/docker.sock"),
            timeout=dict(type="int", default=60),
        ),
        supports_check_mode=True,
    )
    try:
        with open(LOCK, "w", encoding="utf-8") as lock:
            # Two runs at once would each write what the other has not seen.
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = DaemonSettings(module).run()
        module.exit_json(**result)
    except _docker_daemon.DaemonConfigError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="the settings of Docker cannot be changed: %s" % error, exception=traceback.format_exc())


if __name__ == "__main__":
    main()
