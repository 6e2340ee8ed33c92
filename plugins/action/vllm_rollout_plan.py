# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

import time
import uuid
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.llmops.vllm.plugins.plugin_utils.rollout_plan import PlanError, make_plan


class ActionModule(ActionBase):
    """Plans a rollout on the controller; no host is touched."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(
            argument_spec=dict(
                deployments=dict(type="list", elements="dict", required=True),
                backends=dict(type="list", elements="dict", required=True),
                pending=dict(type="dict", required=True),
                load_balancers=dict(type="dict", default={}),
                batches=dict(type="raw", default=[1, "25%", "100%"]),
                lost=dict(type="list", elements="str", default=[]),
                max_lost=dict(type="int", default=0),
            )
        )
        try:
            plan = make_plan(
                args["deployments"],
                args["backends"],
                args["pending"],
                args["load_balancers"],
                args["batches"],
                args["lost"],
                args["max_lost"],
            )
        except PlanError as error:
            raise AnsibleActionFail(str(error)) from None
        result.update(changed=False, **plan.as_dict())
        result["id"] = "%s-%s" % (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), uuid.uuid4().hex[:8])
        result["turn_seconds"] = _longest_turn(args["deployments"], result["work"])
        result["msg"] = plan.text()
        return result


def _longest_turn(deployments: list[dict[str, Any]], work: dict[str, dict[str, str]]) -> int:
    """Return the seconds that a host's turn may take: its drains, its starts, and the way back."""
    seconds = {
        one["name"]: one["drain_timeout"] + 2 * (one["stop_timeout"] + one["start_timeout"]) for one in deployments
    }
    return max((sum(seconds[name] for name in mine) for mine in work.values()), default=0)
