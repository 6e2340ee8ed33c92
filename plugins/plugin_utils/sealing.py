# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What goes into the seal of a role: its variables as they are where a task stands, and what it says that it looks at.

A role says so in its vars/main.yml, in __<role>_seal: {inputs, observe}.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.llmops.vllm.plugins.plugin_utils import seals, variables

# The others take some of their defaults from it.
BASE_ROLE = "vllm_host"


class Unknown(Exception):
    """One sentence: why it cannot be told what goes into a seal."""


class SealActionBase(ActionBase):
    """An action that has to do with seals."""

    _supports_check_mode = True

    def sealed_of(self, entry: Mapping[str, Any], task_vars: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
        """Return (fingerprints of the inputs, what to observe) of one of the seals that a task names."""
        role, inputs, observe = entry.get("role"), dict(entry.get("inputs") or {}), dict(entry.get("observe") or {})
        if role:
            if role not in variables.role_names():
                raise AnsibleActionFail(
                    "the seal '%s' names the role '%s', which this collection does not have: it has %s"
                    % (entry["name"], role, ", ".join(variables.role_names()))
                )
            resolved = self._variables_of(role, task_vars)
            own = resolved.pop("__%s_seal" % role)
            inputs = {**resolved, **own.get("inputs", {}), **inputs, "the collection": seals.collection_fingerprint()}
            for kind, names in own.get("observe", {}).items():
                observe[kind] = list(names) + list(observe.get(kind, ()))
        observe = seals.plain(observe)
        return seals.fingerprints({**inputs, "what is looked at": observe}), observe

    def _variables_of(self, role: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return {name: value} of all variables of a role, and what it says of its seal."""
        path = os.path.realpath(os.path.join(variables.ROLES, role))
        known = {"role_path": path}
        for name in dict.fromkeys((BASE_ROLE, role)):
            for part in ("defaults", "vars"):
                known.update(self._read(os.path.join(variables.ROLES, name, part, "main.yml")))
        templar = self._templar.copy_with_new_env(available_variables={**known, **task_vars, "role_path": path})
        resolved = {}
        seal = "__%s_seal" % role
        names = [name for name in variables.options_of_role(role) if seals.counts(name)]
        for name in names + [seal]:
            if name not in known and name not in task_vars:
                # One that has no default, and nobody has set.
                continue
            try:
                resolved[name] = seals.plain(templar.template(task_vars.get(name, known.get(name))))
            except AnsibleError as error:
                raise Unknown("%s cannot be told (%s)" % (name, str(error).splitlines()[0])) from None
        if seal not in resolved:
            raise AnsibleActionFail("the role '%s' does not say what it looks at: add %s to its vars" % (role, seal))
        return resolved

    def _read(self, path: str) -> dict[str, Any]:
        if not os.path.exists(path):
            return {}
        return self._loader.load_from_file(os.path.realpath(path), trusted_as_template=True) or {}
