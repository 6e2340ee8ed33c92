"""Tests of what is refused before a load balancer is changed: each mistake has its sentence, and none of them a key."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.filter.load_balancer_mistakes import FilterModule

find = FilterModule().filters()["load_balancer_mistakes"]

NUMBERS = {
    "load_balancer_port": 8000,
    "load_balancer_stats_port": 8404,
    "load_balancer_body_bytes": 262144,
    "load_balancer_max_queue": 128,
    "load_balancer_queue_timeout": 60,
    "load_balancer_retry_after": 5,
    "load_balancer_retries": 3,
    "load_balancer_response_timeout": 3600,
    "load_balancer_max_connections": 4000,
}
PATHS = ["/v1/chat/completions", "/v1/files/", "/health/deep"]
KEY = "sk-that-nobody-may-read"


def server(**changes: Any) -> dict[str, Any]:
    return {"name": "gpu1:big", "address": "10.0.0.11", "port": 30080, "max_requests": 64, **changes}


def backend(**changes: Any) -> dict[str, Any]:
    return {"name": "big", "models": ["big", "org/big-70b"], "servers": [server()], "api_key": "sk-engine", **changes}


def client(name: str = "research", key: str = KEY) -> dict[str, str]:
    return {"name": name, "key": key}


GOOD = {"backends": [backend()], "api_keys": [client()], "paths": PATHS, "numbers": NUMBERS}


def test_nothing_is_wrong_with_what_is_right() -> None:
    other = backend(
        name="small.1", models=["small"], api_key="", tls=True, tls_ca="/etc/ssl/ca.crt",
        servers=[server(address="gpu2.example.com"), server(name="gpu2", address="fd00::2", max_requests=0)],
    )  # fmt: skip
    assert find([backend(), other], [client(), client("sales", "sk-2")], PATHS, NUMBERS) == []
    # One name twice in one backend is served all the same.
    assert find([backend(models=["big", "big"])], [], PATHS, NUMBERS) == []


def test_a_number_is_a_name_or_a_key_as_well() -> None:
    other = backend(name=70, models=[70], api_key=12345, servers=[server(name=1)])
    assert find([other], [{"name": 7, "key": 12345}], PATHS, NUMBERS) == []
    assert find([other], [{"name": 7, "key": 1}, {"name": 8, "key": "1"}], PATHS, NUMBERS) == [
        "the clients '7' and '8' have the same key: give each its own"
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backends": []}, "load_balancer_backends is empty: name the servers that requests go to"),
        (
            {"backends": [backend(name="big 70b")]},
            "the backend 'big 70b' cannot be named so: take letters, digits, '.', '_', ':' and '-'",
        ),
        (
            {"backends": [backend(name="big\n")]},
            "the backend 'big\n' cannot be named so: take letters, digits, '.', '_', ':' and '-'",
        ),
        ({"backends": [backend(name="llm")]}, "the backend 'llm' has a name that the role uses itself"),
        ({"backends": [backend(models=[])]}, "the backend 'big' has no models: name what clients ask for"),
        (
            {"backends": [backend(models=['big"'])]},
            "the model 'big\"' of the backend 'big' cannot be named so: take letters, digits and any of ._:/@+-",
        ),
        ({"backends": [backend(servers=[])]}, "the backend 'big' has no servers: name at least one"),
        ({"backends": [backend(servers=[server(name="")])]}, "the server '' of the backend 'big' cannot be named so"),
        (
            {"backends": [backend(servers=[server(), server(address="10.0.0.12")])]},
            "the backend 'big' has the server 'gpu1:big' twice: name it once",
        ),
        (
            {"backends": [backend(servers=[server(address="10.0.0.11:30080 backup")])]},
            "the server 'gpu1:big' has the address '10.0.0.11:30080 backup': it takes an IP address or a host name",
        ),
        (
            {"backends": [backend(servers=[server(port=0)])]},
            "the server 'gpu1:big' has the port 0: it takes 1 to 65535",
        ),
        (
            {"backends": [backend(servers=[server(max_requests=-1)])]},
            "the server 'gpu1:big' has max_requests -1: it takes 0, for no limit, or more",
        ),
        ({"backends": [backend(), backend(models=["x"])]}, "there are two backends 'big': put their servers into one"),
        (
            {"backends": [backend(), backend(name="other", models=["big"])]},
            "the model 'big' is in the backends 'big' and 'other': a request could go to one of them only",
        ),
        (
            {"backends": [backend(api_key=KEY + " x")]},
            "the api_key of the backend 'big' has spaces or is not ASCII: no header can have it",
        ),
        ({"backends": [backend(tls_ca="ca crt")]}, "the backend 'big' has the tls_ca 'ca crt': it takes the path"),
        ({"api_keys": [client("a b")]}, "the client 'a b' cannot be named so"),
        ({"api_keys": [client(key="")]}, "the client 'research' has an empty key: give it one, or take it out"),
        (
            {"api_keys": [client(key=KEY + "\n")]},
            "the key of the client 'research' has spaces or is not ASCII: give it another one",
        ),
        (
            {"api_keys": [client(), client(key="sk-2")]},
            "the client 'research' is there twice: give each key a name of its own",
        ),
        (
            {"api_keys": [client(), client("sales"), client("support")]},
            "the clients 'research' and 'sales' have the same key: give each its own",
        ),
        ({"paths": []}, "load_balancer_paths is empty: name the paths that get through"),
        ({"paths": ["/"]}, "load_balancer_paths has '/', which lets everything through: name the paths themselves"),
        ({"paths": ["v1"]}, "load_balancer_paths has 'v1': a path begins with '/'"),
        ({"paths": ["/v1/../metrics"]}, "load_balancer_paths has '/v1/../metrics': a path begins with '/'"),
        ({"paths": ["/v1//models"]}, "load_balancer_paths has '/v1//models': a path begins with '/'"),
        ({"paths": ["/v1/models?x=1"]}, "load_balancer_paths has '/v1/models?x=1': a path begins with '/'"),
        ({"paths": ["/health"]}, "load_balancer_paths has '/health', which the load balancer answers itself"),
        ({"numbers": {**NUMBERS, "load_balancer_max_queue": 0}}, "load_balancer_max_queue is 0: it takes 1 to 1048576"),
        ({"numbers": {**NUMBERS, "load_balancer_port": 65536}}, "load_balancer_port is 65536: it takes 1 to 65535"),
        (
            {"numbers": {**NUMBERS, "load_balancer_port": "8404"}},
            "load_balancer_port and load_balancer_stats_port are the same: choose two",
        ),
    ],
)
def test_a_mistake_is_found(changes: dict[str, Any], sentence: str) -> None:
    arguments = {**GOOD, **changes}
    (found,) = find(arguments.pop("backends"), **arguments)
    assert found.startswith(sentence)
    assert KEY not in found


def test_all_mistakes_are_found_at_once() -> None:
    found = find([backend(servers=[])], [client(key=""), client("a", KEY), client("b", KEY)], [], NUMBERS)
    assert len(found) == 4
    assert KEY not in " ".join(found)
