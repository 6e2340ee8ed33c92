"""Tests of the release: its id, the fingerprint of a key, Docker's device requests."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._release import (
    ID_LENGTH,
    device_requests,
    release_id,
    secret_fingerprint,
)

CONTAINER = {
    "image": "sha256:4f1c",
    "command": ["/vllm/model", "--max-model-len", "4095"],
    "environment": {"HF_HUB_OFFLINE": "1", "HOME": "/cache"},
    "mounts": [{"type": "bind", "source": "/a", "read_only": True}],
    "user": None,
    "memory": "6g",
}


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(inner) for key, inner in reversed(value.items())}
    return [reordered(inner) for inner in value] if isinstance(value, list) else value


def test_equal_containers_have_equal_ids() -> None:
    release = release_id(CONTAINER)
    assert re.fullmatch(r"[0-9a-f]{%d}" % ID_LENGTH, release)
    assert release_id(copy.deepcopy(CONTAINER)) == release
    assert list(reordered(CONTAINER)) != list(CONTAINER)
    assert release_id(reordered(CONTAINER)) == release
    # The same on every host and in every version: an id that moves replaces every container.
    assert release == "8f22e5db06d4"


def test_the_id_does_not_depend_on_the_process() -> None:
    code = f"from {release_id.__module__} import release_id; print(release_id({CONTAINER!r}))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert answers == {release_id(CONTAINER)}


def test_every_change_matters() -> None:
    changes: list[dict[str, Any]] = [
        {"image": "sha256:4f1d"},
        {"command": ["/vllm/model", "--max-model-len", "4096"]},
        {"command": ["/vllm/model", "4095", "--max-model-len"]},
        {"command": ["/vllm/model --max-model-len", "4095"]},
        {"command": [*CONTAINER["command"], ""]},
        {"environment": {**CONTAINER["environment"], "A": ""}},
        {"environment": {"HF_HUB_OFFLINE": "1"}},
        {"environment": {"HF_HUB_OFFLINE": 1, "HOME": "/cache"}},
        {"mounts": []},
        {"mounts": [{"type": "bind", "source": "/a", "read_only": False}]},
        {"user": ""},
        {"user": "None"},
        {"memory": "6G"},
        {"more": None},
    ]
    ids = [release_id(CONTAINER), *(release_id({**CONTAINER, **change}) for change in changes)]
    for key in CONTAINER:
        ids.append(release_id({other: value for other, value in CONTAINER.items() if other != key}))
    assert len(set(ids)) == len(ids)


def test_fingerprint() -> None:
    secret = "sk-Abc123-secret"
    fingerprint = secret_fingerprint(secret, "chat")
    assert re.fullmatch(r"[0-9a-f]{16}", fingerprint)
    assert secret_fingerprint(secret, "chat") == fingerprint
    others = [("sk-Abc123-secreT", "chat"), (secret, "code"), (secret + " ", "chat"), ("ключ", "chat")]
    assert len({fingerprint, *(secret_fingerprint(*other) for other in others)}) == 5
    assert secret_fingerprint("", "chat") == secret_fingerprint(None, "chat") == ""
    assert secret not in fingerprint


REQUEST = {"driver": "nvidia", "capabilities": [["gpu"]]}


@pytest.mark.parametrize(
    ("gpus", "requests"),
    [
        ("none", []),
        ("all", [{**REQUEST, "count": -1}]),
        (1, [{**REQUEST, "count": 1}]),
        (8, [{**REQUEST, "count": 8}]),
        ([0], [{**REQUEST, "device_ids": ["0"]}]),
        ((0, 2), [{**REQUEST, "device_ids": ["0", "2"]}]),
        (["GPU-5f2a", 1], [{**REQUEST, "device_ids": ["GPU-5f2a", "1"]}]),
    ],
)
def test_device_requests(gpus: Any, requests: list) -> None:
    assert device_requests(gpus) == requests


@pytest.mark.parametrize("gpus", ["", "ALL", "2", "0,1", 0, -1, True, False, None, 1.5, [], (), {}, {"count": 1}])
def test_bad_gpus(gpus: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^gpus is .*: it takes all, none, a count, or a list of indices or UUIDs$"
    ) as error:
        device_requests(gpus)
    assert f"gpus is {gpus!r}:" in str(error.value)
