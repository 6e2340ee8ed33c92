# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display

from ansible_collections.llmops.vllm.plugins.plugin_utils import sealing, seals

display = Display()


class ActionModule(sealing.SealActionBase):
    """Compares what was sealed with what is, on the controller."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(
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
                    ),
                ),
                seen=dict(type="dict", default={}),
                after=dict(type="dict", default={}),
                in_order=dict(type="bool", default=False),
                full=dict(type="bool", default=False),
            )
        )
        there = args["seen"].get("seals")
        due = seals.judge(self._wanted(args["seals"], task_vars), there, args["after"], args["in_order"], args["full"])
        names = [name for name, why in due.items() if why]
        if not self._task.check_mode:
            # Those of a host that was not looked at may be there.
            result.update(self._broken([name for name in names if there is None or name in there], task_vars))
        result.setdefault("changed", False)
        if result.get("failed"):
            return result
        notes = {name: there[name].get("notes", {}) for name in due if name not in names}
        result.update(due=due, any=bool(names), notes=notes, msg=seals.line(due))
        if due:
            display.display("  [%s] %s" % (task_vars["inventory_hostname"], result["msg"]))
        return result

    def _wanted(self, entries: list[dict[str, Any]], task_vars: dict[str, Any]) -> dict[str, dict[str, str] | str]:
        wanted: dict[str, dict[str, str] | str] = {}
        for entry in entries:
            try:
                wanted[entry["name"]], dummy = self.sealed_of(entry, task_vars)
            except sealing.Unknown as error:
                wanted[entry["name"]] = str(error)
        return wanted

    def _broken(self, names: list[str], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Break seals; return what of the module's result is an error."""
        if not names:
            return {}
        args = {"seals": [{"name": name} for name in names], "state": "absent"}
        done = self._execute_module(module_name="llmops.vllm.vllm_seal", module_args=args, task_vars=task_vars)
        return done if done.get("failed") else {}
