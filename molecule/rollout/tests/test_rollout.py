"""The fleet after it went forward and back: all hosts serve the first release, and none is left out."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def is_load_balancer(host):
    return host.backend.get_hostname().endswith("-lb")


def test_each_host_serves_the_release_from_before(host, is_load_balancer):
    if is_load_balancer:
        pytest.skip("it serves nothing itself")
    found = json.loads(host.check_output("docker inspect tiny"))[0]
    assert "--max-model-len 2048" in " ".join(found["Config"]["Cmd"]).replace("=", " ")
    assert found["State"]["Running"]
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    releases = "/home/llm/vllm/releases/tiny"
    current, previous = (json.loads(host.file(f"{releases}/{name}").content_string) for name in ("current", "previous"))
    assert current["id"] == found["Config"]["Labels"]["llmops.vllm.release"]
    assert current["rollback"] and current["undoes"] == previous["rollout"]
    assert not host.file("/var/lib/llmops-vllm/rollout.json").exists


def test_the_engine_is_reached_by_the_load_balancer_alone(host, is_load_balancer):
    if is_load_balancer:
        pytest.skip("it has no engine")
    (listening,) = {line.split()[3] for line in host.check_output("ss -Hltn sport = :30080").splitlines()}
    assert listening.startswith("198.18.1.")


def test_all_servers_are_in_use(host, is_load_balancer):
    if not is_load_balancer:
        pytest.skip("of the load balancer alone")
    rows = [line.split(",") for line in host.check_output(
        "echo 'show stat' | socat - UNIX-CONNECT:/run/haproxy/admin.sock"
    ).splitlines()]  # fmt: skip
    head = rows[0]
    servers = [dict(zip(head, row, strict=False)) for row in rows[1:] if len(row) > 1 and ":" in row[1]]
    assert {server["svname"]: server["status"] for server in servers} == {
        f"mol-rollout-{number}:tiny": "UP" for number in (1, 2, 3)
    }
