"""Tests of the plan of a rollout: batches, floors, skips, and what must not begin."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.plugin_utils.rollout_plan import PlanError, amount, make_plan, stop_reasons


def hosts(count: int) -> list[str]:
    return [f"gpu{number}" for number in range(1, count + 1)]


def deployment(on: list[str], name: str = "chat", **other: Any) -> dict[str, Any]:
    return {"name": name, "hosts": on, "min_available": "75%", "balanced": True, **other}


def backends(*deployments: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": one["name"], "servers": [{"host": host, "deployment": one["name"]} for host in one["hosts"]]}
        for one in deployments
        if one["balanced"]
    ]


def server(name: str, admin: str = "ready", status: str = "UP") -> dict[str, Any]:
    return {"name": name, "admin": admin, "status": status}


def plan(*deployments: dict[str, Any], pending: Any = "replace", sizes: Any = None, **other: Any) -> Any:
    """pending: what all have to do, or {host: {deployment: what}} for those that have something else to do."""
    found: dict[str, dict[str, str]] = {}
    for one in deployments:
        for host in one["hosts"]:
            if host in other.get("lost", ()):
                continue
            special = pending.get(host, {}).get(one["name"], "replace") if isinstance(pending, dict) else pending
            found.setdefault(host, {})[one["name"]] = special
    seen = other.pop("seen", {})
    return make_plan(list(deployments), backends(*deployments), found, seen, sizes or [1, "25%", "100%"], **other)


def test_a_word_that_is_none_is_refused() -> None:
    with pytest.raises(PlanError, match="pending of 'chat' on 'gpu1' is 'replaec': it takes unknown, start, replace"):
        plan(deployment(hosts(1)), pending="replaec")


@pytest.mark.parametrize(
    ("count", "sizes", "batches"),
    [
        (1, None, [1]),
        (2, None, [1, 1]),
        (3, None, [1, 1, 1]),
        (4, None, [1, 1, 1, 1]),
        (8, None, [1, 2, 2, 2, 1]),
        (20, None, [1, 5, 5, 5, 4]),
        (200, None, [1, 50, 50, 50, 49]),
        (10, [3], [3, 3, 3, 1]),
        (10, ["10%"], [1] * 10),
        (3, ["1%"], [1, 1, 1]),
    ],
)  # fmt: skip
def test_batches_are_as_large_as_asked_for_and_the_floor_allows(count: int, sizes: Any, batches: list[int]) -> None:
    made = plan(deployment(hosts(count)), sizes=sizes)
    assert [len(batch) for batch in made.batches] == batches
    assert [host for batch in made.batches for host in batch] == hosts(count)


@pytest.mark.parametrize(
    ("floor", "largest"), [(0, 10), ("0%", 10), (9, 1), ("90%", 1), ("50%", 5), ("55%", 5), (4, 6)]
)
def test_the_floor_holds_in_every_batch(floor: Any, largest: int) -> None:
    made = plan(deployment(hosts(10), min_available=floor), sizes=["100%"])
    assert max(len(batch) for batch in made.batches) == largest


def test_hosts_that_are_right_are_in_no_batch() -> None:
    made = plan(deployment(hosts(3)), pending={"gpu2": {"chat": "nothing"}})
    assert made.batches == [["gpu1"], ["gpu3"]]
    assert made.idle == ["gpu2"] and set(made.work) == {"gpu1", "gpu3"}
    made = plan(deployment(hosts(3)), pending="nothing")
    assert made.batches == [] and made.idle == hosts(3)
    assert made.text() == "Nothing to roll out: what runs on gpu1 and 2 other hosts is what it is to be."


def test_only_deployments_that_change_have_work() -> None:
    made = plan(
        deployment(hosts(2)),
        deployment(hosts(2), "embed"),
        pending={"gpu1": {"chat": "nothing"}, "gpu2": {"embed": "nothing"}},
    )
    assert made.work == {"gpu1": {"embed": "replace"}, "gpu2": {"chat": "replace"}}


def test_hosts_that_serve_nothing_come_first_and_cost_nothing() -> None:
    made = plan(deployment(hosts(4)), pending={"gpu3": {"chat": "start"}, "gpu4": {"chat": "start"}}, sizes=[4])
    # Two of four serve and the floor is three: the others have to be there first.
    assert made.batches == [["gpu3", "gpu4"], ["gpu1"], ["gpu2"]]
    assert made.models[0].serving == 2


def test_a_fleet_that_serves_nothing_yet_starts_in_the_sizes_asked_for() -> None:
    made = plan(deployment(hosts(9)), pending="start", sizes=[1, "100%"])
    assert [len(batch) for batch in made.batches] == [1, 8]


def test_what_the_load_balancers_say_counts() -> None:
    names = [f"{host}:chat" for host in hosts(3)]
    up = [server(name) for name in names]
    # It runs, and a load balancer's check finds it dead.
    seen = {"lb1": up, "lb2": [server(names[0], status="DOWN"), *up[1:]]}
    made = plan(deployment(hosts(3)), seen=seen)
    assert made.batches == [["gpu1"], ["gpu2"], ["gpu3"]] and made.models[0].serving == 2
    # A host that takes no part serves, or not, as they say.
    chat = deployment(hosts(3))
    pending = {"gpu1": {"chat": "replace"}}
    assert make_plan([chat], backends(chat), pending, {"lb1": up}, [1]).batches == [["gpu1"]]
    with pytest.raises(PlanError, match="2 of the 3 hosts of chat serve and min_available is 2, so gpu1 cannot"):
        make_plan([chat], backends(chat), pending, {"lb1": [*up[:2], server(names[2], status="DOWN")]}, [1])


def test_a_host_that_was_left_drained_is_found() -> None:
    seen = {"lb1": [server("gpu1:chat", admin="drain", status="DRAIN"), server("gpu2:chat")], "lb2": []}
    made = plan(deployment(hosts(2)), pending="nothing", seen=seen)
    assert made.work == {"gpu1": {"chat": "admit"}} and made.batches == [["gpu1"]]
    assert "take back in chat on gpu1" in made.text()


def test_maintenance_is_left_alone() -> None:
    seen = {"lb1": [server("gpu1:chat", admin="maint", status="MAINT"), server("gpu2:chat")]}
    made = plan(deployment(hosts(2)), pending="nothing", seen=seen)
    assert made.batches == [] and made.held == ["gpu1:chat"]
    # It changes like any other, and costs nothing.
    made = plan(deployment(hosts(2), min_available=1), pending={"gpu2": {"chat": "nothing"}}, seen=seen)
    assert made.batches == [["gpu1"]]
    assert "gpu1:chat is in maintenance at the load balancer, and is left out of it" in made.text()


def test_without_load_balancers_each_deployment_has_its_floor() -> None:
    one = deployment(hosts(4), balanced=False)
    assert [len(batch) for batch in plan(one, sizes=["100%"]).batches] == [1, 1, 1, 1]
    # A host alone has nobody to stand in for it.
    assert plan(deployment(["gpu1"], balanced=False)).batches == [["gpu1"]]


def test_a_host_that_several_models_need_waits_for_all_of_them() -> None:
    made = plan(
        deployment(["gpu1", "gpu2"]),
        deployment(["gpu2", "gpu3"], "embed"),
        deployment(["gpu4"], "score"),
        sizes=["100%"],
    )
    assert made.batches == [["gpu1", "gpu3", "gpu4"], ["gpu2"]]


def test_servers_of_one_backend_stand_in_for_each_other() -> None:
    first, second = deployment(["gpu1"], "a"), deployment(["gpu2"], "b", min_available=1)
    shared = [
        {"name": "m", "servers": [{"host": "gpu1", "deployment": "a"}, {"host": "gpu2", "deployment": "b"}]},
    ]
    pending = {"gpu1": {"a": "replace"}, "gpu2": {"b": "replace"}}
    assert make_plan([first, second], shared, pending, {}, ["100%"]).batches == [["gpu1"], ["gpu2"]]


@pytest.mark.parametrize(
    ("deployments", "other", "problem"),
    [
        (
            [deployment(hosts(3), min_available=3)],
            {},
            "chat has 3 hosts and min_available keeps 3 of them serving, so gpu1 can never be replaced: set "
            "min_available to 2 or less",
        ),
        (
            [deployment(hosts(3), min_available="100%")],
            {},
            "chat has 3 hosts and min_available keeps 3 of them serving, so gpu1 can never be replaced: set "
            "min_available to 2 or less",
        ),
        (
            [deployment(hosts(3))],
            {"lost": ["gpu2"]},
            "1 host is lost before the rollout begins (gpu2) and vllm_max_lost is 0: bring it back, take it out of the "
            "inventory, or raise vllm_max_lost",
        ),
        (
            [deployment(hosts(3))],
            {"lost": ["gpu2", "gpu3"], "max_lost": 1},
            "2 hosts are lost before the rollout begins (gpu2, gpu3) and vllm_max_lost is 1: bring them back, take "
            "them out of the inventory, or raise vllm_max_lost",
        ),
        (
            [deployment(hosts(3))],
            {"lost": ["gpu2"], "max_lost": 1},
            "2 of the 3 hosts of chat serve and min_available is 2, so gpu1 cannot be replaced while gpu2 is out "
            "(lost): bring it back, or lower min_available",
        ),
        (
            [deployment(hosts(1))],
            {"sizes": ["half"]},
            "'half' is neither a number of hosts nor a part of them such as '25%': correct it",
        ),
        (
            [deployment(hosts(1))],
            {"sizes": "25%"},
            "vllm_rollout_batches is '25%', it takes a list such as [1, '25%', '100%']",
        ),
    ],
)  # fmt: skip
def test_what_must_not_begin(deployments: list[dict], other: dict, problem: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan(*deployments, **other)
    assert str(caught.value) == problem


def test_lost_hosts_within_the_budget_are_left_out() -> None:
    made = plan(deployment(hosts(8)), lost=["gpu8"], max_lost=1)
    assert [host for batch in made.batches for host in batch] == hosts(7)
    assert max(len(batch) for batch in made.batches) == 1


@pytest.mark.parametrize(("given", "total", "means"), [(3, 10, 3), ("3", 10, 3), ("25%", 3, 1), ("25%", 10, 2), ("100%", 7, 7), ("0%", 7, 1), (0, 7, 1)])  # fmt: skip # noqa: E501
def test_amounts(given: Any, total: int, means: int) -> None:
    assert amount(given, total, at_least=1) == means


def test_two_hundred_hosts_with_four_models_keep_every_floor() -> None:
    on = hosts(200)
    models = [
        deployment(on[start::4] + on[start + 1 :: 8], f"model{start}", min_available=floor)
        for start, floor in enumerate(("75%", "90%", 20, "50%"))
    ]
    made = plan(*models, pending={"gpu7": {"model2": "start"}}, sizes=[1, "10%", "100%"])
    order = [host for batch in made.batches for host in batch]
    assert sorted(order) == sorted(made.work) and len(order) == len(set(order))
    for group in made.models:
        members = [host for host, _name in group.members]
        for number, batch in enumerate(made.batches):
            down = {"gpu7"} if number == 0 and group.name == "model2" else set()
            assert len(members) - len(down | (set(members) & set(batch))) >= group.floor


def stops(batch: list[str], seen: dict | None = None, **other: Any) -> list[str]:
    one = deployment(hosts(4), min_available=3)
    work = {host: {"chat": "replace"} for host in hosts(4)}
    up = {"lb1": [server(f"{host}:chat") for host in hosts(4)]} if seen is None else seen
    return stop_reasons([one], backends(one), work, batch, up, **other)


def test_a_batch_begins_while_enough_serve() -> None:
    assert stops(["gpu1"]) == []
    assert stops(["gpu1"], lost=["gpu4"], max_lost=1) == []
    assert stops(["gpu4"], seen={}, lost=["gpu4"], max_lost=1) == []


def test_a_batch_does_not_begin_when_something_went_down_meanwhile() -> None:
    up = [server(f"{host}:chat") for host in hosts(3)]
    seen = {"lb1": [*up, server("gpu4:chat", status="DOWN")]}
    short = "3 of the 4 hosts of chat serve and min_available is 3, so gpu1 cannot be taken out: see what is down"
    assert stops(["gpu1"], seen=seen) == [short]
    # The one that is down can be repaired.
    assert stops(["gpu4"], seen=seen) == []
    assert stops(["gpu1"], seen={}, lost=["gpu2"], max_lost=1) == [short]


def test_a_batch_does_not_begin_with_too_many_lost() -> None:
    assert stops(["gpu1"], lost=["gpu3", "gpu4"], max_lost=1) == [
        "2 hosts are lost (gpu3, gpu4) and vllm_max_lost is 1: bring back what is lost"
    ]
