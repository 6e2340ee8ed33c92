#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_seal
short_description: Writes down that something ended well on a host, so that it need not be done again
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - A seal of a host has a name, what went into it (variables), and what is there now of the things that it depends on.
    M(llmops.vllm.vllm_host_info) says of each seal what has changed since, and M(llmops.vllm.vllm_due) what follows.
  - A seal is for a role of this collection, whose variables and things it then knows by itself, or for anything else.
  - No seal is written while one of the things cannot be told.
attributes:
  check_mode:
    support: full
    description: No seal is written, and none is broken.
  diff_mode:
    support: none
    description: Seals are of no interest to people.
  idempotent:
    support: full
    description: A seal that is as it would be written is no change.
options:
  seals:
    description: The seals. Others of the host stay as they are.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
    suboptions:
      name:
        description: A name, such as that of a role, or C(vllm_server:karakuri-70b).
        type: str
        required: true
        version_added: 0.2.0
      role:
        description:
          - A role of this collection. All of its variables, as they are where the task stands, the files of the
            collection, and what the role itself says that it looks at, are part of the seal. Secrets are not; give a
            fingerprint of one in O(seals[].inputs) where it counts.
        type: str
        version_added: 0.2.0
      inputs:
        description:
          - What else goes into it, by names that a person understands. Only hashes leave the controller.
        type: dict
        default: {}
        version_added: 0.2.0
      observe:
        description:
          - What to look at, besides what the role says. Keys are C(files) and C(stats) (paths and patterns; C(stats)
            reads size and time alone), C(folders) (mode and owner), C(trees) (all below a folder), C(packages)
            (patterns), C(units), C(accounts), C(groups), C(docker) (V(settings)), C(images) and C(containers)
            (names, or C(*) for all).
        type: dict
        default: {}
        version_added: 0.2.0
      notes:
        description: What is to be known while the seal holds; M(llmops.vllm.vllm_host_info) returns it.
        type: dict
        default: {}
        version_added: 0.2.0
  state:
    description: V(absent) breaks the seals. Only their names count then.
    type: str
    choices: [present, absent]
    default: present
    version_added: 0.2.0
  path:
    description: The file of the seals.
    type: path
    default: /var/lib/llmops-vllm/seals.json
    version_added: 0.2.0
seealso:
  - module: llmops.vllm.vllm_due
  - module: llmops.vllm.vllm_host_info
"""

EXAMPLES = r"""
- name: Bring Docker up
  ansible.builtin.include_role:
    name: llmops.vllm.docker_engine
  when: due.due.docker_engine | length > 0

- name: Seal what has ended well
  llmops.vllm.vllm_seal:
    seals:
      - name: docker_engine
        role: docker_engine
  when: due.due.docker_engine | length > 0

- name: Seal a server
  llmops.vllm.vllm_seal:
    seals:
      - name: vllm_server:karakuri-70b
        inputs: {release: 0a1b2c3d4e5f}
        observe:
          containers: [vllm]
          files: [/etc/llmops-vllm/karakuri-70b/api_key]
        notes: {version: 0.32.0}
"""

RETURN = r"""
sealed:
  description: The names of the seals that hold now, or would in check mode.
  returned: always
  type: list
  elements: str
  sample: [docker_engine]
not_sealed:
  description: What could not be told of the others, by their names.
  returned: always
  type: dict
  sample: {vllm_image: ["image vllm/vllm-openai:v0.32.0"]}
"""

import contextlib
import os
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.llmops.vllm.plugins.module_utils import _host, _observed, _seals


class Seal:
    """Writes seals, or breaks them."""

    root = "/"
    docker_socket = "/var/run/docker.sock"

    def __init__(self, params: dict[str, Any]) -> None:
        self.path = params["path"]
        self.seals = params["seals"]
        self.breaks = params["state"] == "absent"
        self.result: dict[str, Any] = {"changed": False, "sealed": [], "not_sealed": {}}

    def run(self, check_mode: bool) -> dict[str, Any]:
        """Write or break them; return the result."""
        if self.breaks and not os.path.exists(self.path):
            return self.result
        new = {} if self.breaks else self._observed()
        self.result["sealed"] = sorted(new)
        # The lock is a file of its own, which check mode does not make.
        with contextlib.nullcontext() if check_mode else _seals.locked(self.path):
            before = _seals.read(self.path)
            after = {name: seal for name, seal in before.items() if name not in [each["name"] for each in self.seals]}
            after.update(new)
            self.result["changed"] = after != before
            # One that cannot be read is written anew, and one without seals goes.
            if not check_mode and (after != before or not after):
                _seals.write(self.path, after)
        return self.result

    def _observed(self) -> _seals.Seals:
        docker = _host.Docker(_host.Host(self.root), self.docker_socket, 30)
        observer = _observed.Observer(self.root, docker.get)
        found = {}
        for seal in self.seals:
            observed = observer.observe(seal["observe"])
            unknown = sorted(thing for thing, digest in observed.items() if not digest)
            if unknown:
                self.result["not_sealed"][seal["name"]] = unknown
            else:
                kept = {key: seal[key] for key in ("inputs", "observe", "notes")}
                found[seal["name"]] = dict(kept, observed=observed)
        return found


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            seals=dict(
                type="list",
                elements="dict",
                required=True,
                options=dict(
                    name=dict(type="str", required=True),
                    role=dict(type="str"),
                    inputs=dict(type="dict", default={}),
                    observe=dict(type="dict", default={}),
                    notes=dict(type="dict", default={}),
                ),
            ),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            path=dict(type="path", default=_seals.PATH),
        ),
        supports_check_mode=True,
    )
    for seal in module.params["seals"]:
        unknown = sorted(set(seal["observe"]) - set(_observed.KINDS))
        if unknown:
            module.fail_json(
                msg="observe of the seal '%s' has %s: it takes %s"
                % (seal["name"], ", ".join(unknown), ", ".join(sorted(_observed.KINDS)))
            )
    try:
        module.exit_json(**Seal(module.params).run(module.check_mode))
    except OSError as error:
        module.fail_json(
            msg="the seals in %s cannot be written: %s" % (module.params["path"], error),
            exception=traceback.format_exc(),
        )


if __name__ == "__main__":
    main()
