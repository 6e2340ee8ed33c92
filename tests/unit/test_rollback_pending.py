"""Tests of what goes back when the newest rollout is undone."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.filter.rollback_pending import rollback_pending


def record(rollout: str = "r1", at: int = 1, **other: Any) -> dict[str, Any]:
    given = {"id": f"id-{rollout}", "rollout": rollout, "started_at": f"2026-11-0{at}T00:00:00Z", "rollback": False}
    return {"current": {**given, **other}, "has_previous": True, "running": f"id-{rollout}"}


def back(undoes: str, at: int) -> dict[str, Any]:
    return record("r9", at, rollback=True, undoes=undoes)


@pytest.mark.parametrize(
    ("hosts", "pending"),
    [
        # All came with the newest rollout.
        ([record("r2", 2), record("r2", 3)], ["rollback", "rollback"]),
        # It ended at the first host.
        ([record("r2", 2), record("r1", 1)], ["rollback", "nothing"]),
        # It has been undone; run twice, it does not go forward again.
        ([back("r2", 4), back("r2", 5)], ["nothing", "nothing"]),
        # The rollback was interrupted.
        ([back("r2", 4), record("r2", 3)], ["nothing", "rollback"]),
        # Undone, and rolled out anew.
        ([record("r3", 5), back("r2", 4)], ["rollback", "nothing"]),
        # A release that has not passed its gate.
        ([{**record("r1", 1), "running": "id-of-none"}, back("r2", 4)], ["rollback", "nothing"]),
        # A host that has come with the rollout.
        ([{**record("r2", 2), "has_previous": False}, record("r2", 2)], ["stuck", "rollback"]),
        # Nothing runs there yet.
        ([{"current": {}, "has_previous": False, "running": ""}, record("r2", 2)], ["nothing", "rollback"]),
        # Records of versions that knew no rollouts.
        ([{**record(), "current": {"id": "id-r1", "started_at": "2026"}}], ["rollback"]),
    ],
)
def test_what_goes_back(hosts: list[dict], pending: list[str]) -> None:
    recorded = {f"gpu{number}": {"chat": found} for number, found in enumerate(hosts)}
    assert [rollback_pending(recorded, host)["chat"] for host in recorded] == pending


def test_each_deployment_has_its_own_newest_rollout() -> None:
    recorded = {
        "gpu1": {"chat": record("r1", 1), "embed": record("r2", 2)},
        "gpu2": {"embed": record("r1", 1)},
    }
    assert rollback_pending(recorded, "gpu1") == {"chat": "rollback", "embed": "rollback"}
    assert rollback_pending(recorded, "gpu2") == {"embed": "nothing"}
