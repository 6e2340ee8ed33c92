"""Tests of the Hub's client with errors for people, where no server is needed; the rest is in test_hf_snapshot.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import utils

from ansible_collections.llmops.vllm.plugins.module_utils import _hub
from ansible_collections.llmops.vllm.plugins.module_utils._retry import Passing
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile, SnapshotError

COMMIT = "944226b32a548845453fd9fb0889d5af1443340c"
OTHER = "1" * 40
URL = "http://hub.example"


def sibling(
    path: str = "config.json", size: int | None = 3, lfs: Any = None, blob_id: str | None = "b" * 40
) -> SimpleNamespace:
    return SimpleNamespace(rfilename=path, size=size, lfs=lfs, blob_id=blob_id)


def hub(
    sha: str | None = COMMIT, siblings: Any = (), error: Exception | None = None, tree: Any = (), **client: Any
) -> _hub.Hub:
    asked = {}

    def repo_info(repo_id: str, **kwargs: Any) -> SimpleNamespace:
        asked.update(kwargs, repo_id=repo_id)
        made.count += 1
        if error:
            raise error
        return SimpleNamespace(sha=sha, siblings=siblings)

    def list_repo_tree(repo_id: str, **kwargs: Any) -> list[SimpleNamespace]:
        asked["tree"] = {"repo_id": repo_id, **kwargs}
        return list(tree)

    def api(**kwargs: Any) -> SimpleNamespace:
        asked.update(kwargs)
        return SimpleNamespace(repo_info=repo_info, list_repo_tree=list_repo_tree)

    made = _hub.Hub(SimpleNamespace(HfApi=api, utils=utils, **client), URL + "/", "org/name", timeout=7, retries=1)
    made.asked = asked
    made.count = 0
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
    assert one.asked["timeout"] == 7
    assert (one.asked["endpoint"], one.asked["revision"], one.asked["files_metadata"]) == (URL, "main", True)


@pytest.mark.parametrize("siblings", [None, [], [sibling()] * (_hub.MOST_SIBLINGS + 1)])
def test_a_list_that_may_be_short_is_not_trusted(siblings: Any) -> None:
    folder = SimpleNamespace(path="a", tree_id="d" * 40)
    lfs = SimpleNamespace(sha256="c" * 64, size=5)
    tree = [folder, *(SimpleNamespace(path=f"a/{n}", size=5, lfs=lfs, blob_id="b" * 40) for n in range(3))]
    one = hub(siblings=siblings, tree=tree)
    assert one.listing("main") == (COMMIT, [HubFile(f"a/{n}", 5, "c" * 64, "b" * 40) for n in range(3)])
    # Of the commit: the branch may have moved by now.
    assert one.asked["tree"] == {"repo_id": "org/name", "recursive": True, "revision": COMMIT, "repo_type": "model"}


def test_pages_of_a_list_are_not_waited_for_without_end() -> None:
    one = hub()
    one.listing("main")
    session, limits = utils.get_session(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(session), "request", lambda *_args, **kwargs: limits.append(kwargs["timeout"]))
        session.request("GET", URL, timeout=None)
    assert limits == [7]


def test_a_list_that_is_not_to_be_used_is_asked_for_once() -> None:
    one = hub(tree=[SimpleNamespace(path="../x", size=5, lfs=None, blob_id="b" * 40)])
    with pytest.raises(SnapshotError, match=r"lists the file '\.\./x' of org/name, which lies outside the snapshot"):
        one.listing("main")


@pytest.mark.parametrize("siblings", [None, []])
def test_an_empty_repository(siblings: Any) -> None:
    assert hub(siblings=siblings).listing(COMMIT) == (COMMIT, [])


@pytest.mark.parametrize(
    ("revision", "answer", "sentence"),
    [
        (
            "main",
            {"siblings": [wrong]},
            f"{URL} lists no size and checksum of config.json of org/name: use a Hub or a mirror that does",
        )
        for wrong in (
            sibling(size=None),
            sibling(blob_id=None),
            sibling(blob_id="../../etc/passwd"),
            sibling(blob_id="B" * 40),
            sibling(blob_id="b" * 40 + "\n"),
            sibling(lfs={"sha256": "c" * 63}),
            sibling(lfs={"sha256": "g" * 64}),
            # Its blob id is that of a pointer, not of its content.
            sibling(lfs={"sha256": None}),
        )
    ]
    + [
        *[
            (
                "main",
                {"siblings": [sibling(), sibling(path)]},
                f"{URL} lists the file '{path}' of org/name, which lies outside the snapshot: do not use it",
            )
            for path in ("/etc/passwd", "../x", "a/../../x", "a/..", "a\0b")
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


class Response(SimpleNamespace):
    """What the client's errors carry, whatever HTTP library is below."""


def http_error(status: int, **headers: str) -> Exception:
    error = utils.HfHubHTTPError.__new__(utils.HfHubHTTPError)
    error.response = Response(status_code=status, headers=headers)
    return error


@pytest.mark.parametrize(
    ("error", "sentence", "asked"),
    [
        (TimeoutError("timed out\nmore"), f"{URL} cannot be reached for org/name: timed out", 2),
        (ConnectionResetError(104, "reset"), f"{URL} cannot be reached for org/name: [Errno 104] reset", 2),
        (ValueError(), f"{URL} cannot be reached for org/name: ValueError", 1),
        (utils.HFValidationError("Cannot have --"), "'org/name' is no name of a repository: Cannot have --", 1),
        (
            ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            f"the certificate of {URL} is not trusted ([SSL: CERTIFICATE_VERIFY_FAILED] self-signed): "
            "name the bundle of its authority in REQUESTS_CA_BUNDLE",
            1,
        ),
        (http_error(503), f"{URL} answered with HTTP status 503 for org/name", 2),
        (http_error(429, **{"Retry-After": "0"}), f"{URL} answered with HTTP status 429 for org/name", 2),
        (http_error(401), f"org/name on {URL} needs a token: pass one that may read it", 1),
        (http_error(403), f"org/name on {URL} is forbidden to anonymous requests: pass a token that may read it", 1),
        (http_error(404), f"{URL} answered with HTTP status 404 for org/name", 1),
    ],
)
def test_the_clients_errors(error: Exception, sentence: str, asked: int) -> None:
    one = hub(error=error)
    said: list[str] = []
    one.say = said.append
    with pytest.raises(SnapshotError) as caught:
        one.listing("main")
    assert str(caught.value) == sentence
    assert one.count == asked
    assert said == ([f"org/name: {sentence}, attempt 2 of 2"] if asked > 1 else [])


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (TimeoutError("timed out"), Passing, f"{URL} cannot be reached for org/name: timed out"),
        (http_error(503), Passing, f"{URL} answered with HTTP status 503 for org/name"),
        (http_error(403), SnapshotError, f"org/name on {URL} is forbidden to anonymous requests: pass a token"),
        (
            ValueError("The file is too large to be downloaded using the regular download method."),
            SnapshotError,
            "big.safetensors of org/name could not be fetched by the Hub's client, which large files need: "
            "The file is too large",
        ),
        (OSError(28, "No space left on device"), OSError, "[Errno 28] No space left on device"),
    ],
)
def test_the_clients_errors_with_a_large_file(error: Exception, kind: type[Exception], sentence: str) -> None:
    def download(*_args: Any, **_kwargs: Any) -> None:
        raise error

    with pytest.raises(kind) as caught:
        hub(hf_hub_download=download).download(COMMIT, "big.safetensors", "/dest")
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (503, Passing, f"{URL} answered with HTTP status 503 for org/name"),
        (403, SnapshotError, f"org/name on {URL} is forbidden to anonymous requests: pass a token that may read it"),
    ],
)
def test_what_the_client_hides_is_said(status: int, kind: type[Exception], sentence: str) -> None:
    def download(*_args: Any, **_kwargs: Any) -> None:
        raise utils.LocalEntryNotFoundError("An error happened, and it is not in the cache") from http_error(status)

    with pytest.raises(kind) as caught:
        hub(hf_hub_download=download).download(COMMIT, "big.safetensors", "/dest")
    assert str(caught.value) == sentence


@pytest.mark.parametrize("given", _hub.CERTIFICATE_VARIABLES)
def test_one_bundle_of_certificates_is_for_all(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _hub.CERTIFICATE_VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv(given, "/etc/mine.pem")
    _hub.import_client(URL)
    assert {_hub.os.environ[name] for name in _hub.CERTIFICATE_VARIABLES} == {"/etc/mine.pem"}


def test_the_environment_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "0")
    client, error = _hub.import_client(_hub.DEFAULT_ENDPOINT + "/")
    environment = _hub.os.environ
    assert (client.__name__, error) == ("huggingface_hub", None)
    assert "HF_HUB_OFFLINE" not in environment
    assert "TRANSFORMERS_OFFLINE" not in environment
    assert (environment["HF_HUB_DISABLE_XET"], environment["HF_HUB_DISABLE_TELEMETRY"]) == ("0", "1")
    _hub.import_client(URL)
    assert environment["HF_HUB_DISABLE_XET"] == "1"
