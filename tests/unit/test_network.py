"""Tests of who reaches whom: addresses, who may ask an engine, and what the load balancers spread requests over."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import CatalogueError, read_catalogue
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Network

ADDRESSES = {"gpu1": "192.0.2.11", "gpu2": "192.0.2.12", "lb1": "192.0.2.1", "lb2": "192.0.2.2", "mon": "192.0.2.9"}
GROUPS = {"vllm": ["gpu1", "gpu2"], "load_balancers": ["lb1"], "first": ["gpu1"]}


def read(*deployments: dict[str, Any], groups: dict | None = None, addresses: dict | None = None) -> tuple[list, list]:
    groups = GROUPS if groups is None else groups
    known = {**groups, **{host: [host] for host in ADDRESSES}}
    network = Network((addresses or ADDRESSES).get, lambda pattern: list(known.get(pattern, [])), groups)
    given = [{"name": "chat", "model": {"repo_id": "org/name"}, "api_key": "sk-1", **one} for one in deployments]
    return read_catalogue(given, network, {}, "image:1")


def problems(*deployments: dict[str, Any], **inventory: Any) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        read(*deployments, **inventory)
    return caught.value.problems


def server(host: str, deployment: str = "chat", port: int = 30080, **other: Any) -> dict[str, Any]:
    return {
        "name": f"{host}:{deployment}",
        "host": host,
        "deployment": deployment,
        "address": ADDRESSES[host],
        "port": port,
        "max_requests": 256,
        **other,
    }


INTERNAL = {"listen": "internal"}


def test_each_host_listens_on_its_internal_address() -> None:
    (entry,), backends = read(INTERNAL)
    assert entry["addresses"] == entry["reached_at"] == {"gpu1": "192.0.2.11", "gpu2": "192.0.2.12"}
    assert entry["balanced"]
    assert backends == [
        {
            "name": "chat",
            "models": ["chat"],
            "deployment": "chat",
            "tls": False,
            "servers": [server("gpu1"), server("gpu2")],
        }
    ]


def test_an_engine_is_reached_by_load_balancers_and_monitoring_alone() -> None:
    (entry,), _backends = read(INTERNAL)
    assert entry["allowed"] == ["192.0.2.1/32"]
    (entry,), _backends = read(INTERNAL, groups={**GROUPS, "monitoring": ["mon"]})
    assert entry["allowed"] == ["192.0.2.1/32", "192.0.2.9/32"]


@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        ({}, None),
        ({"listen": "192.0.2.11", "hosts": "gpu1"}, None),
        ({"listen": "0.0.0.0", "allow_from": []}, []),
        ({**INTERNAL, "allow_from": ["10.0.0.0/8", "192.0.2.77"]}, ["10.0.0.0/8", "192.0.2.77/32"]),
        ({**INTERNAL, "allow_from": ["10.1.2.3/8", "vllm", "lb1"]}, ["10.0.0.0/8", "192.0.2.1/32", "192.0.2.11/32", "192.0.2.12/32"]),  # noqa: E501
    ],
)  # fmt: skip
def test_who_may_reach_it_can_be_said(keys: dict, allowed: list[str] | None) -> None:
    (entry,), _backends = read(keys)
    assert entry["allowed"] == allowed


def test_without_load_balancers_nothing_is_balanced_or_closed() -> None:
    (entry,), backends = read(INTERNAL, groups={"vllm": ["gpu1", "gpu2"]})
    assert (entry["allowed"], entry["balanced"], backends) == (None, False, [])


def test_what_listens_on_loopback_is_behind_a_load_balancer_of_its_own_host_alone() -> None:
    (entry,), backends = read({})
    assert (entry["balanced"], backends) == (False, [])
    (entry,), backends = read({"hosts": "gpu1"}, groups={**GROUPS, "load_balancers": ["gpu1"]})
    assert entry["balanced"] and entry["allowed"] is None
    assert backends[0]["servers"] == [server("gpu1", address="127.0.0.1")]


def test_what_listens_on_all_addresses_is_reached_at_the_internal_one() -> None:
    (entry,), backends = read({"listen": "0.0.0.0"})
    assert set(entry["addresses"].values()) == {"0.0.0.0"}
    assert [one["address"] for one in backends[0]["servers"]] == ["192.0.2.11", "192.0.2.12"]


def test_names_that_the_same_deployments_serve_are_one_backend() -> None:
    _deployments, backends = read(
        {**INTERNAL, "served_model_names": ["a", "b/x"], "hosts": "gpu1", "engine_args": {"max_num_seqs": 8}},
        {**INTERNAL, "name": "other", "served_model_names": ["b/x"], "hosts": "gpu2", "port": 1},
    )
    assert [(one["name"], one["models"], one["deployment"]) for one in backends] == [
        ("a", ["a"], "chat"),
        ("b_x", ["b/x"], "chat"),
    ]
    assert backends[0]["servers"] == [server("gpu1", max_requests=8)]
    assert backends[1]["servers"] == [server("gpu1", max_requests=8), server("gpu2", "other", 1)]


TWO = [{**INTERNAL, "hosts": "gpu1"}, {**INTERNAL, "hosts": "gpu2", "name": "other", "served_model_names": ["chat"]}]


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ({"api_key": "sk-2"}, {}, "api_key"),
        ({}, {"task": "embed"}, "task"),
        ({"tls_certificate": "/a", "tls_key": "/b"}, {}, "tls_certificate and tls_key"),
    ],
)
def test_deployments_of_one_model_are_alike(first: dict, second: dict, key: str) -> None:
    assert problems({**TWO[0], **first}, {**TWO[1], **second}) == [
        f"'chat' and 'other' serve 'chat' behind the load balancers with different {key}: make them alike"
    ]


@pytest.mark.parametrize(
    ("keys", "inventory", "problem"),
    [
        (
            INTERNAL,
            {"addresses": {"gpu1": "192.0.2.11", "lb1": "192.0.2.1"}},
            "listens on the internal address, and gpu2 has no vllm_internal_address: set it in the inventory",
        ),
        (
            INTERNAL,
            {"addresses": {**ADDRESSES, "gpu2": "gpu2.example.com"}},
            "listens on the internal address, and vllm_internal_address of gpu2 is 'gpu2.example.com': "
            "it takes an IPv4 address",
        ),
        (
            INTERNAL,
            {"addresses": {"gpu1": "192.0.2.11", "gpu2": "192.0.2.12"}},
            "is reached by the load balancers and the monitoring alone, and lb1 has no vllm_internal_address: "
            "set it in the inventory",
        ),
        (
            {"listen": "0.0.0.0"},
            {"addresses": {"gpu1": "192.0.2.11"}},
            "is behind the load balancers and listens on all addresses, and gpu2 has no vllm_internal_address: "
            "set it in the inventory",
        ),
        (
            {**INTERNAL, "allow_from": ["fe80::1"]},
            {},
            "allow_from has 'fe80::1', which is no IPv4 address or network and matches no host",
        ),
        (
            {"allow_from": ["10.0.0.0/8"]},
            {},
            "allow_from has no meaning for a loopback address: remove it, or listen on another one",
        ),
        (
            {"min_available": "80"},
            {},
            None,
        ),
        (
            {"min_available": "101%"},
            {},
            "min_available is '101%', it takes a number of hosts, or a part of them such as '75%'",
        ),
        (
            {"min_available": -1},
            {},
            "min_available is '-1', it takes a number of hosts, or a part of them such as '75%'",
        ),
        ({"drain_timeout": -1}, {}, "drain_timeout is -1, it takes 0 or more"),
    ],
)  # fmt: skip
def test_mistakes(keys: dict, inventory: dict, problem: str | None) -> None:
    if problem is None:
        assert read(keys, **inventory)
    else:
        assert problems(keys, **inventory) == ["deployment 'chat': " + problem]


def test_a_host_that_haproxy_cannot_name() -> None:
    network = Network({"gpu/1": "192.0.2.11", "lb1": "192.0.2.1"}.get, lambda pattern: ["gpu/1"], GROUPS)
    with pytest.raises(CatalogueError, match=r"cannot call a server 'gpu/1:chat': HAProxy takes letters"):
        read_catalogue(
            [{"name": "chat", "model": {"repo_id": "org/name"}, "api_key": "sk-1", **INTERNAL}], network, {}, "image:1"
        )
