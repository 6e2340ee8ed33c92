"""Tests of the Hub's client with errors for people, where no server is needed; the rest is in test_hf_snapshot.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import utils

from ansible_collections.llmops.vllm.plugins.module_utils import _hub
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile, SnapshotError

COMMIT = "944226b32a548845453fd9fb0889d5af1443340c"
OTHER = "1" * 40
URL = "http://hub.example"


def sibling(path: str = "config.json", size: int | None = 3, lfs: Any = None) -> SimpleNamespace:
    return SimpleNamespace(rfilename=path, size=size, lfs=lfs, blob_id="b" * 40)


def hub(sha: str | None = COMMIT, siblings: Any = (), error: Exception | None = None, **client: Any) -> _hub.Hub:
    asked = {}

    def model_info(repo_id: str, **kwargs: Any) -> SimpleNamespace:
        asked.update(kwargs, repo_id=repo_id)
        if error:
            raise error
        return SimpleNamespace(sha=sha, siblings=siblings)

    def api(**kwargs: Any) -> SimpleNamespace:
        asked.update(kwargs)
        return SimpleNamespace(model_info=model_info)

    made = _hub.Hub(SimpleNamespace(HfApi=api, utils=utils, **client), URL + "/", "org/name", None)
    made.asked = asked
    return made


@pytest.mark.parametrize(
    "lfs", [{"sha256": "c" * 64, "size": 5, "pointer_size": 9}, SimpleNamespace(sha256="c" * 64, size=5)]
)
def test_listing(lfs: Any) -> None:
    one = hub(siblings=[sibling(), sibling("a/model.safetensors", 5, lfs), sibling("..hidden", 0)])
    assert one.listing("main") == (
        COMMIT,
        [
            HubFile("config.json", 3, None, "b" * 40),
            HubFile("a/model.safetensors", 5, "c" * 64, "b" * 40),
            HubFile("..hidden", 0, None, "b" * 40),
        ],
    )
    # False, not None, by which the client would send a token of this host.
    assert one.asked["token"] is False
    assert (one.asked["endpoint"], one.asked["revision"], one.asked["files_metadata"]) == (URL, "main", True)


@pytest.mark.parametrize("siblings", [None, []])
def test_an_empty_repository(siblings: Any) -> None:
    assert hub(siblings=siblings).listing(COMMIT) == (COMMIT, [])


@pytest.mark.parametrize(
    ("revision", "answer", "sentence"),
    [
        (
            "main",
            {"siblings": [sibling(size=None)]},
            f"{URL} lists no sizes and checksums of the files of org/name: use a Hub or a mirror that does",
        ),
        *[
            (
                "main",
                {"siblings": [sibling(), sibling(path)]},
                f"{URL} lists the file '{path}' of org/name, which lies outside the snapshot: do not use it",
            )
            for path in ("/etc/passwd", "../x", "a/../../x", "a/..")
        ],
        *[
            (
                "main",
                {"sha": sha},
                f"{URL} says that 'main' of org/name is the commit '{sha}': use a Hub or a mirror that knows it",
            )
            for sha in (None, "", "main", "../x", COMMIT.upper())
        ],
        (
            OTHER,
            {"sha": COMMIT},
            f"{URL} says that '{OTHER}' of org/name is the commit '{COMMIT}': use a Hub or a mirror that knows it",
        ),
    ],
)
def test_an_answer_that_is_not_to_be_used(revision: str, answer: dict, sentence: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        hub(**answer).listing(revision)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TimeoutError("timed out\nmore"), f"{URL} cannot be reached for org/name: timed out"),
        (ValueError(), f"{URL} cannot be reached for org/name: ValueError"),
        (ConnectionResetError(104, "reset"), f"{URL} cannot be reached for org/name: [Errno 104] reset"),
        (utils.HFValidationError("Cannot have --"), "'org/name' is no name of a repository: Cannot have --"),
    ],
)
def test_the_clients_errors(error: Exception, sentence: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        hub(error=error).listing("main")
    assert str(caught.value) == sentence

    def download(*_args: Any, **_kwargs: Any) -> None:
        raise error

    with pytest.raises(SnapshotError) as caught:
        hub(snapshot_download=download).fetch(COMMIT, "/dest", None, None, 8)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(30, "Read-only file system"),
        PermissionError(13, "Permission denied", "/dest/x"),
        NotADirectoryError(20, "Not a directory", "/dest/x"),
        OSError(36, "File name too long", "/dest/" + "x" * 300),
    ],
)
def test_errors_of_the_disk(error: OSError) -> None:
    def download(*_args: Any, **_kwargs: Any) -> None:
        raise error

    with pytest.raises(SnapshotError) as caught:
        hub(snapshot_download=download).fetch(COMMIT, "/dest", None, None, 8)
    assert str(caught.value) == f"cannot write to /dest: {error}"


@pytest.mark.parametrize(
    ("allow", "ignore", "left"),
    [
        (None, None, ["a.bin", "b/c.json", "d.json"]),
        (["*.json"], None, ["b/c.json", "d.json"]),
        (["b/*"], [], ["b/c.json"]),
        (["b/"], None, ["b/c.json"]),
        (None, ["*.bin"], ["b/c.json", "d.json"]),
        (["*.json"], ["b/*"], ["d.json"]),
        (["x"], None, []),
    ],
)
def test_matching(allow: Any, ignore: Any, left: list[str]) -> None:
    files = [HubFile(path, 1, None, "b" * 40) for path in ("a.bin", "b/c.json", "d.json")]
    assert [file.path for file in hub().matching(files, allow, ignore)] == left


def test_the_environment_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "0")
    client, error = _hub.import_client(_hub.DEFAULT_ENDPOINT + "/")
    environment = _hub.os.environ
    assert (client.__name__, error) == ("huggingface_hub", None)
    assert "HF_HUB_OFFLINE" not in environment
    assert (environment["HF_HUB_DISABLE_XET"], environment["HF_HUB_DISABLE_TELEMETRY"]) == ("0", "1")
    _hub.import_client(URL)
    assert environment["HF_HUB_DISABLE_XET"] == "1"
