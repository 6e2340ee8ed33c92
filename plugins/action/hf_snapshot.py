# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import COMMIT
from ansible_collections.llmops.vllm.plugins.plugin_utils.progress import ProgressActionBase


class ActionModule(ProgressActionBase):
    """The module of the same name, with live progress."""

    def _run_with_progress(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        # Most runs find a pinned commit complete: a look costs one module, a background job three.
        args = self._task.args
        if COMMIT.match(str(args.get("revision"))) and args.get("state", "present") == "present":
            looked = self._look(task_vars)
            if looked.get("failed") or not looked.get("changed"):
                return looked
        return super()._run_with_progress(task_vars)

    def _look(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        self._task.check_mode = True
        try:
            looked: dict[str, Any] = self._execute_module(task_vars=task_vars)
            return looked
        finally:
            self._task.check_mode = False
