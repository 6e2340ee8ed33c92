#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_lease
short_description: Holds a lease on a host, so that one rollout at a time changes it
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - A lease has an owner and an end. Who finds somebody else's is refused until it has ended.
  - The action plugin knows the process that runs the playbook. The lease of one that ran on the same controller and is
    dead is taken over at once; that of another controller after its end, or with O(take_over).
  - Times are those of the host's own clock.
attributes:
  check_mode:
    support: full
    description: It is looked whether the lease could be held.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: partial
    details: A lease that is held already becomes longer, which is a change.
    description: A lease that was given back is not given back again.
options:
  state:
    description:
      - V(held) - this owner has the lease.
      - V(released) - this owner has it no longer; the lease of another one is left alone.
    type: str
    choices: [held, released]
    default: held
    version_added: 0.2.0
  owner:
    description: Name of the rollout.
    type: str
    required: true
    version_added: 0.2.0
  seconds:
    description: How long the lease holds.
    type: int
    default: 3600
    version_added: 0.2.0
  take_over:
    description: Name of another owner whose lease may be ended, as the refusal says it.
    type: str
    default: ""
    version_added: 0.2.0
  path:
    description: File of the lease.
    type: path
    default: /var/lib/llmops-vllm/rollout.json
    version_added: 0.2.0
  holder:
    description: The owner for people. Set by the action plugin.
    type: str
    default: somebody
    version_added: 0.2.0
  controller:
    description: Where the owner runs. Set by the action plugin.
    type: str
    default: ""
    version_added: 0.2.0
  process:
    description: What tells the owner's process from any other of the controller. Set by the action plugin.
    type: str
    default: ""
    version_added: 0.2.0
"""

EXAMPLES = r"""
- name: Have the host for oneself, for an hour at most
  llmops.vllm.vllm_lease:
    owner: my-rollout
    seconds: 3600

- name: Give it back
  llmops.vllm.vllm_lease:
    owner: my-rollout
    state: released
"""

RETURN = r"""
lease:
  description: The lease that stands, or that stood in the way.
  returned: always
  type: dict
  sample:
    owner: 20261125T144500Z-3f1d8a20
    holder: ops@controller (process 4711)
    controller: 3f1d8a20
    process: "4711 81273"
    since: 1764081900.0
    until: 1764085500.0
held:
  description: Whether somebody else holds it.
  returned: always
  type: bool
  sample: false
taken_over:
  description: Why somebody else's lease was ended, or an empty string.
  returned: always
  type: str
  sample: ""
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.llmops.vllm.plugins.module_utils._lease import Lease, LeaseError, LeaseFile, LeaseHeld, decide


class HostLease:
    """Holds or releases the lease of this host."""

    def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
        self.file = LeaseFile(params["path"])
        self.released = params["state"] == "released"
        self.take_over = params["take_over"]
        self.check_mode = check_mode
        now = time.time()
        self.wish: Lease = {
            "owner": params["owner"],
            "holder": params["holder"],
            "controller": params["controller"],
            "process": params["process"],
            "since": now,
            "until": now + params["seconds"],
        }

    def run(self) -> dict[str, Any]:
        """Return the result; raise LeaseHeld or LeaseError."""
        if self.check_mode:
            return self._held()
        with self.file.locked():
            return self._held()

    def _held(self) -> dict[str, Any]:
        result: dict[str, Any] = {"changed": False, "lease": {}, "held": False, "taken_over": ""}
        found = self.file.read()
        if self.released:
            if found and found["owner"] == self.wish["owner"]:
                result["changed"] = True
                if not self.check_mode:
                    self.file.remove()
            return result
        lease, result["taken_over"] = decide(found, self.wish, self.wish["since"], self.take_over)
        result["lease"] = lease or found
        if lease:
            result["changed"] = True
            if not self.check_mode:
                self.file.write(lease)
        return result


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            state=dict(type="str", choices=["held", "released"], default="held"),
            owner=dict(type="str", required=True),
            seconds=dict(type="int", default=3600),
            take_over=dict(type="str", default=""),
            path=dict(type="path", default="/var/lib/llmops-vllm/rollout.json"),
            holder=dict(type="str", default="somebody"),
            controller=dict(type="str", default=""),
            process=dict(type="str", default=""),
        ),
        supports_check_mode=True,
    )
    try:
        result = HostLease(module.params, module.check_mode).run()
    except LeaseHeld as held:
        module.fail_json(msg=str(held), lease=held.lease, held=True, taken_over="")
    except LeaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
