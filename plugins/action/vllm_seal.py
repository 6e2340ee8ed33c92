# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.vllm.plugins.plugin_utils import sealing


class ActionModule(sealing.SealActionBase):
    """Runs the module with what goes into each seal, of which no more than hashes leave the controller."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        args = self._task.args
        entries, not_sealed = [], {}
        for entry in args.get("seals") or []:
            if args.get("state", "present") == "absent":
                entries.append({"name": entry["name"]})
                continue
            try:
                inputs, observe = self.sealed_of(entry, task_vars)
            except sealing.Unknown as error:
                not_sealed[entry["name"]] = [str(error)]
                continue
            entries.append(
                {"name": entry["name"], "inputs": inputs, "observe": observe, "notes": entry.get("notes") or {}}
            )
        result.update(self._execute_module(module_args={**args, "seals": entries}, task_vars=task_vars))
        if "not_sealed" in result:
            result["not_sealed"].update(not_sealed)
        return result
