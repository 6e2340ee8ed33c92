# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.llmops.vllm.plugins.plugin_utils.contact import why_not

# On the host a module cannot run another one.
GPU_MODULE = "llmops.vllm.gpu_info"
# Of what a module returns, what is Ansible's own.
_OWN = ("changed", "failed", "invocation", "warnings", "deprecations")


class ActionModule(ActionBase):
    """Runs the module, compares the host's clock with the one here, and looks at the GPUs."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        before = time.time()
        result.update(self._first_contact(task_vars))
        after = time.time()
        if result.get("failed") or "time" not in result:
            return result
        # The host has read its clock somewhere between the two.
        result["clock_offset"] = round(result["time"] - min(max(result["time"], before), after), 1)
        result["gpu"] = None
        if boolean(self._task.args.get("gpu", True)):
            gpu = self._execute_module(module_name=GPU_MODULE, module_args={}, task_vars=task_vars)
            if gpu.get("failed"):
                return {**gpu, "msg": "the GPUs cannot be looked at: {}".format(gpu.get("msg", ""))}
            result["gpu"] = {key: value for key, value in gpu.items() if key not in _OWN and not key.startswith("_")}
        return result

    def _first_contact(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module. It is most often the first that a host is asked for: a wrong way to it is found here."""
        try:
            look: dict[str, Any] = self._execute_module(task_vars=task_vars)
        except AnsibleError as error:
            sentence = self._why_not(str(error), task_vars)
            if not sentence:
                raise
            kind = AnsibleConnectionFailure if isinstance(error, AnsibleConnectionFailure) else AnsibleActionFail
            # None: Ansible adds the text of a cause to the message.
            raise kind(sentence) from None
        # Not of what a module that has run says. Where Python did not run, Ansible says no more than that the answer
        # was no JSON.
        if look.get("failed") and ("module_stderr" in look or "ansible-core requires" in look.get("msg", "")):
            sentence = self._why_not("%s %s" % (look.get("msg"), look.get("module_stderr", "")), task_vars)
            if sentence:
                raise AnsibleActionFail(sentence) from None
        return look

    def _why_not(self, text: str, task_vars: dict[str, Any] | None) -> str | None:
        play = self._play_context
        host = (task_vars or {}).get("inventory_hostname", play.remote_addr)
        return why_not(host, text, play.remote_addr, play.port, play.remote_user)
