"""Tests of the action plugin vllm_rollout_plan: what a playbook gets of a plan, and one that must not begin."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.llmops.vllm.plugins.action import vllm_rollout_plan

CHAT = {
    "name": "chat", "hosts": ["gpu1", "gpu2"], "min_available": 1, "balanced": False,
    "drain_timeout": 600, "stop_timeout": 60, "start_timeout": 2400,
}  # fmt: skip
SMALL = {**CHAT, "name": "small", "hosts": ["gpu1"], "min_available": 0, "drain_timeout": 0, "start_timeout": 300}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def start(*deployments: dict[str, Any], **args: Any) -> dict[str, Any]:
        given = {"deployments": list(deployments), "backends": [], **args}
        plugin = vllm_rollout_plan.ActionModule(MagicMock(args=given), *[MagicMock() for dummy in range(5)])
        monkeypatch.setattr(vllm_rollout_plan.ActionBase, "run", lambda self, tmp, task_vars: {})
        return plugin.run(task_vars={})

    return start


def test_a_plan(run: Any) -> None:
    pending = {"gpu1": {"chat": "replace", "small": "start"}, "gpu2": {"chat": "replace"}}
    result = run(CHAT, SMALL, pending=pending)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}", result.pop("id"))
    assert result.pop("msg").startswith("batch 1: replace chat on gpu1; start small on gpu1\nbatch 2: replace chat on")
    models = [
        {"name": "chat", "total": 2, "serving": 2, "floor": 1},
        {"name": "small", "total": 1, "serving": 0, "floor": 0},
    ]
    assert result == {
        "changed": False,
        "batches": [["gpu1"], ["gpu2"]],
        "order": ["gpu1", "gpu2"],
        "work": pending,
        "idle": [],
        "held": [],
        "models": models,
        # gpu1 has both: 600 + 2 * (60 + 2400), and 2 * (60 + 300).
        "turn_seconds": 5520 + 720,
    }


def test_nothing_to_do_takes_no_time(run: Any) -> None:
    result = run(CHAT, pending={"gpu1": {"chat": "nothing"}, "gpu2": {"chat": "nothing"}})
    assert (result["batches"], result["turn_seconds"]) == ([], 0)
    assert result["msg"] == "Nothing to roll out: what runs on gpu1 and gpu2 is what it is to be."


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            {"lost": ["gpu2"]},
            r"^1 host is lost before the rollout begins \(gpu2\) and vllm_max_lost is 0: ",
        ),
        ({"batches": "all"}, r"^vllm_rollout_batches is 'all', it takes a list such as "),
        ({"batches": ["some"]}, r"^'some' is neither a number of hosts nor a part of them such as '25%': correct it$"),
    ],
)
def test_one_that_must_not_begin(run: Any, args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnsibleActionFail, match=sentence):
        run(CHAT, pending={"gpu1": {"chat": "replace"}}, **args)
