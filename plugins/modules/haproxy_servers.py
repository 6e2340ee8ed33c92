#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_servers
short_description: Drains servers of a running HAProxy, and has them ready again
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Looks at the servers of a running HAProxy by its admin socket, has them drained or ready, and waits until nothing
    is under way to them, or until their checks have found them up.
  - A server is told by what was decided about it, not by its status. So one that is C(DOWN) can be drained as well, and
    stays drained when it comes up.
  - Health checks go on while a server is drained. One that is made ready gets requests when its check has found it up,
    and not before.
  - What an operator has put into maintenance is left alone.
  - A command that meets a reload is sent once more, to the new process. When a reload during the wait has lost what was
    decided, it is decided again.
notes:
  - The management guide of HAProxy has the commands and columns that are meant here.
  - A drained server still gets requests that are bound to it by a cookie or a stick table.
  - Requests that wait in the queue of a server, as with C(maxconn) and a hash or a cookie, go to others in HAProxy 2.6
    when it is drained, with C(option redispatch). HAProxy 3.0 sends all of them to it at once. With
    C(balance leastconn), they wait in the queue of the backend, and are not concerned.
  - After a reload, the old process goes on with the requests that it has, and the new one knows nothing of them. They
    are counted where O(master_socket) answers.
  - HAProxy takes the states in O(save_state) over when its configuration has C(server-state-file) with that path, and
    C(load-server-state-from-file global). With that it takes over a server's B(port), even if the configuration has
    another one by now, and that the server was C(DOWN). So have the file brought up to date right before each reload,
    and write the new port into the line of a server whose port has changed.
attributes:
  check_mode:
    support: full
    description: It does not wait. RV(servers[].admin) is what it would be, all else is as it is.
  diff_mode:
    support: full
    description: Shows what is decided about each server that changes, before and after.
  idempotent:
    support: full
    description: What is drained, or ready, is left alone.
options:
  socket:
    description: HAProxy's admin socket, the C(stats socket) with C(level admin) of its configuration.
    type: path
    default: /run/haproxy/admin.sock
    version_added: 0.2.0
  master_socket:
    description:
      - Socket of HAProxy's master process, as it is started by the distributions (C(haproxy -S)). It tells of requests
        that processes from before a reload still work on.
      - Where there is none, or that of another HAProxy, those are not counted.
    type: path
    default: /run/haproxy-master.sock
    version_added: 0.2.0
  servers:
    description:
      - Names of servers. One that several backends have is meant in all of them.
      - With an empty list, all are looked at. With O(state), there has to be a name.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  backends:
    description: Names of backends, to mean the servers in these alone.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  missing_ok:
    description: Leave out names that HAProxy does not have. They are an error otherwise.
    type: bool
    default: false
    version_added: 0.2.0
  state:
    description:
      - What the servers shall be. Without it, they are only looked at.
      - V(drained) - they get no new requests, and those under way go on. Health checks go on.
      - V(ready) - they get requests when their checks find them up.
    type: str
    choices: [drained, ready]
    version_added: 0.2.0
  wait:
    description:
      - Seconds to wait, at most. With V(0), or without O(state), it does not wait.
      - With O(state=drained), until no session and no queued request of theirs is left. Connections that HAProxy or a
        client keeps open for later requests are no sessions.
      - With O(state=ready), until HAProxy has found each up that is not in maintenance.
    type: int
    default: 0
    version_added: 0.2.0
  save_state:
    description:
      - File in which the states of all servers are kept, HAProxy's C(server-state-file), so that a reload does not lose
        them. It is written after a change, and when something else is decided about a server than it says.
      - Without O(state), it is brought up to date in all that lasts, for a reload that comes next.
      - Its folder has to be there. The file is readable for its owner and its group.
    type: path
    default: ""
    version_added: 0.2.0
  timeout:
    description: Seconds that HAProxy may take to answer.
    type: int
    default: 10
    version_added: 0.2.0
seealso:
  - module: community.general.haproxy
  - module: llmops.vllm.vllm_probe
"""

EXAMPLES = r"""
- name: Look at all servers
  llmops.vllm.haproxy_servers:
  register: haproxy

- name: Say which are not up
  ansible.builtin.debug:
    msg: "{{ item.backend }}/{{ item.name }} is {{ item.status }}, {{ item.check }}"
  loop: "{{ haproxy.servers | rejectattr('status', 'in', ['UP', 'no check']) }}"

- name: Replace what serves, one host at a time, behind several load balancers
  hosts: vllm
  serial: 1
  tasks:
    - name: Have every load balancer send nothing more there, and wait for what is under way
      llmops.vllm.haproxy_servers:
        servers: ["{{ inventory_hostname }}:karakuri-70b"]
        state: drained
        wait: 600
        save_state: /var/lib/haproxy/server-state
      delegate_to: "{{ item }}"
      loop: "{{ groups['load_balancers'] }}"
      become: true

    - name: Replace it
      ansible.builtin.include_role:
        name: llmops.vllm.vllm_server

    - name: Have every load balancer send requests again, and wait until its checks have found the server up
      llmops.vllm.haproxy_servers:
        servers: ["{{ inventory_hostname }}:karakuri-70b"]
        state: ready
        wait: 60
        save_state: /var/lib/haproxy/server-state
      delegate_to: "{{ item }}"
      loop: "{{ groups['load_balancers'] }}"
      become: true

- name: Keep the states as they are now, before a reload
  llmops.vllm.haproxy_servers:
    save_state: /var/lib/haproxy/server-state
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: ["drain karakuri/gpu1:karakuri-70b", "save the states of all servers in /var/lib/haproxy/server-state"]
running:
  description: Whether a HAProxy listens on O(socket). If not, the task fails, and this tells why.
  returned: always
  type: bool
  sample: true
maintenance:
  description: Whether a server that is meant is in maintenance, and so left alone.
  returned: always
  type: bool
  sample: false
waited:
  description: Seconds that it had to wait.
  returned: always
  type: float
  sample: 12.1
servers:
  description: The servers that are meant, in HAProxy's order. Counters are those of the process that runs now.
  returned: always
  type: list
  elements: dict
  contains:
    backend:
      description: Name of its backend.
      type: str
      sample: karakuri
    name:
      description: Its name.
      type: str
      sample: gpu1:karakuri-70b
    address:
      description: Its IP address; empty for a name that has not been resolved.
      type: str
      sample: 192.0.2.11
    port:
      description: Its port.
      type: int
      sample: 30080
    status:
      description:
        - What HAProxy calls its status - V(UP), V(DOWN), V(DRAIN), V(MAINT), V(NOLB), or V(no check).
        - A drained one is V(DOWN) when its check fails.
      type: str
      sample: DRAIN
    admin:
      description: What was decided about it - V(ready), V(drain) or V(maint).
      type: str
      sample: drain
    sessions:
      description: Requests that it works on.
      type: int
      sample: 0
    queue:
      description: Requests that wait for it in HAProxy.
      type: int
      sample: 0
    old_sessions:
      description: Both, in processes from before a reload.
      type: int
      sample: 0
    weight:
      description: Its weight now.
      type: int
      sample: 1
    requests:
      description: Requests that it has answered, with whatever status; for C(mode tcp), sessions that it was given.
      type: int
      sample: 48211
    responses_5xx:
      description: Those that it has answered with a status of 500 or more. HAProxy's own answers are not among them.
      type: int
      sample: 2
    connection_errors:
      description: Requests for which no connection to it could be made (C(econ)).
      type: int
      sample: 0
    response_errors:
      description: Answers that broke off or were none (C(eresp)).
      type: int
      sample: 0
    retries:
      description: How often a connection to it was tried again.
      type: int
      sample: 0
    redispatches:
      description: Requests that were given to another server instead.
      type: int
      sample: 0
    check:
      description: What its last check found; empty for a server without checks.
      type: str
      sample: 'Layer7 check passed: 200'
    since:
      description: Seconds since it went up or down. A drain is neither.
      type: int
      sample: 86211
"""

import contextlib
import os
import tempfile
import time
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.llmops.vllm.plugins.module_utils import _haproxy, _haproxy_cli

# Seconds between two looks.
INTERVAL = 1.0


class ServerStates:
    """Has servers of a HAProxy drained or ready. result: what is known so far, for a failure as well."""

    def __init__(self, module: AnsibleModule) -> None:
        params = module.params
        self.module = module
        self.names = params["servers"]
        self.backends = params["backends"]
        self.missing_ok = params["missing_ok"]
        self.state = params["state"]
        self.seconds = params["wait"]
        self.save_state = params["save_state"]
        self.haproxy = _haproxy_cli.Cli(params["socket"], params["master_socket"], params["timeout"])
        self.chosen: list[_haproxy.Server] = []
        self.text = ""
        self.result: dict[str, Any] = {
            "changed": False,
            "running": True,
            "actions": [],
            "maintenance": False,
            "waited": 0.0,
            "servers": [],
        }

    def run(self) -> dict[str, Any]:
        """Return the result."""
        if self.state and not self.names:
            raise _haproxy.HaproxyError(
                "no server is named, and all of them are never %s at once: name those that are meant in servers"
                % ("drained" if self.state == "drained" else "made ready")
            )
        if self.save_state and not os.path.isdir(os.path.dirname(self.save_state)):
            raise _haproxy.HaproxyError(
                "the folder of %s is not there: make it, or name another file in save_state" % self.save_state
            )
        self._look()
        change = _haproxy.to_change(self.chosen, self.state)
        before = {server.label: server.result["admin"] for server in self.chosen}
        if self.module.check_mode:
            self._note(change)
            for server in change:
                server.result["admin"] = _haproxy.WORDS[self.state]
        else:
            self._bring()
        after = {server["backend"] + "/" + server["name"]: server["admin"] for server in self.result["servers"]}
        if change:
            self._show(before, after)
        if self.save_state:
            self._keep(bool(change))
        if not self.module.check_mode and self.state and self.seconds:
            self._wait()
            # What the checks have found since is of use for a reload as well.
            if self.save_state and self.result["changed"]:
                self._write()
        if self.haproxy.unread_master:
            self.module.warn(
                "requests that processes from before a reload still work on are not counted, since the master socket "
                "cannot be used: %s" % self.haproxy.unread_master
            )
        return self.result

    def _look(self) -> None:
        found, self.text = self.haproxy.look()
        self.chosen = _haproxy.select(found, self.names, self.backends, self.missing_ok)
        self.result["servers"] = [server.result for server in self.chosen]
        self.result["maintenance"] = any(server.in_maintenance() for server in self.chosen)

    def _note(self, servers: list[_haproxy.Server], why: str = "") -> None:
        words = {"drained": "drain %s", "ready": "make %s ready"}
        for server in servers:
            self.result["changed"] = True
            self.result["actions"].append(words[self.state] % server.label + why)

    def _bring(self, why: str = "") -> None:
        """Have the servers as they shall be, and look whether they are: a reload in between can have lost it."""
        for attempt in range(2):
            change = _haproxy.to_change(self.chosen, self.state)
            if not change:
                return
            self.haproxy.set_state(change, _haproxy.WORDS[self.state])
            if attempt == 0:
                self._note(change, why)
            self._look()
        change = _haproxy.to_change(self.chosen, self.state)
        if change:
            raise _haproxy.HaproxyError(
                "HAProxy does not keep %s %s: see in its log whether it is reloaded all the time, and run again"
                % (", ".join(server.label for server in change), self.state)
            )

    def _wait(self) -> None:
        begun = time.monotonic()
        while True:
            left = _haproxy.unfinished(self.chosen, self.state)
            self.result["waited"] = round(time.monotonic() - begun, 1)
            if not left:
                return
            rest = begun + self.seconds - time.monotonic()
            if rest <= 0:
                raise _haproxy.HaproxyError(_haproxy.why_unfinished(left, self.state, self.seconds))
            time.sleep(min(INTERVAL, rest))
            pid = self.haproxy.pid
            self._look()
            self._hold(pid)

    def _hold(self, pid: str) -> None:
        """Decide again what a reload has lost. Where there was none, somebody else wants something else."""
        lost = _haproxy.to_change(self.chosen, self.state)
        if not lost:
            return
        if self.haproxy.pid == pid:
            raise _haproxy.HaproxyError(
                "somebody else has set %s to %s meanwhile: ask who works on this HAProxy, and run again"
                % (", ".join(server.label for server in lost), lost[0].result["admin"])
            )
        self._bring(" again, since a reload has lost it")

    def _show(self, before: dict[str, str], after: dict[str, str]) -> None:
        changed = [label for label in before if before[label] != after.get(label)]
        self.result["diff"] = {
            "before_header": "servers of HAProxy",
            "after_header": "servers of HAProxy",
            "before": "".join("%s %s\n" % (label, before[label]) for label in changed),
            "after": "".join("%s %s\n" % (label, after[label]) for label in changed if label in after),
        }

    def _keep(self, change: bool) -> None:
        """Write the states, unless the file has them already."""
        if not change:
            with (
                contextlib.suppress(FileNotFoundError, UnicodeDecodeError),
                open(self.save_state, encoding="utf-8") as stream,
            ):
                if _haproxy.same_states(stream.read(), self.text, admin_alone=bool(self.state)):
                    return
        self.result["changed"] = True
        self.result["actions"].append("save the states of all servers in %s" % self.save_state)
        if not self.module.check_mode:
            self._write()

    def _write(self) -> None:
        handle, new = tempfile.mkstemp(prefix=".server-state.", dir=os.path.dirname(self.save_state))
        try:
            with open(handle, "w", encoding="utf-8") as stream:
                stream.write(self.text)
                stream.flush()
                with contextlib.suppress(FileNotFoundError):
                    old = os.stat(self.save_state)
                    os.fchown(stream.fileno(), old.st_uid, old.st_gid)
                os.fchmod(stream.fileno(), 0o640)
                os.fsync(stream.fileno())
            os.replace(new, self.save_state)
        except BaseException:
            os.unlink(new)
            raise


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            socket=dict(type="path", default="/run/haproxy/admin.sock"),
            master_socket=dict(type="path", default="/run/haproxy-master.sock"),
            servers=dict(type="list", elements="str", default=[]),
            backends=dict(type="list", elements="str", default=[]),
            missing_ok=dict(type="bool", default=False),
            state=dict(type="str", choices=["drained", "ready"]),
            wait=dict(type="int", default=0),
            save_state=dict(type="path", default=""),
            timeout=dict(type="int", default=10),
        ),
        supports_check_mode=True,
    )
    act = ServerStates(module)
    try:
        result = act.run()
    except _haproxy.HaproxyError as error:
        act.result["running"] = not isinstance(error, _haproxy.NotRunning)
        module.fail_json(msg=str(error), **act.result)
    except OSError as error:
        module.fail_json(
            msg="the states of the servers cannot be kept: %s" % error, exception=traceback.format_exc(), **act.result
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
