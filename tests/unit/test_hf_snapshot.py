"""Tests of the module hf_snapshot: the real client against the double of the Hub, and Hubs that misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hub import Entry, Handler, Hub, Refusal

from ansible_collections.llmops.vllm.plugins.module_utils import _snapshot
from ansible_collections.llmops.vllm.plugins.modules import hf_snapshot

REPOSITORY = "org/name"
TOKEN = "hf_AbcSecret123"
FILES = {
    "config.json": b"{}\n",
    "empty.txt": b"",
    "model.safetensors": bytes(range(256)) * 40,
    "onnx/deep/odd [1]*?.bin": b"0123456789",
    "tokenizer.json": b'{"a": 1}\n',
}
TOTAL = sum(map(len, FILES.values()))


def tree(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, content in FILES.items():
        file = tmp_path / "root" / REPOSITORY / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "root"


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "models" / "org--name"


@pytest.fixture
def hub(root: Path) -> Iterator[Hub]:
    with Hub(root) as served:
        yield served


@pytest.fixture
def snapshot(run_module: Any, dest: Path) -> Any:
    """Runs the module for a Hub, with 2 workers."""

    def run(hub: Hub | str, **params: Any) -> dict[str, Any]:
        endpoint = hub if isinstance(hub, str) else hub.url
        base = {"repo_id": REPOSITORY, "dest": str(dest), "endpoint": endpoint, "max_workers": 2}
        return run_module(hf_snapshot.main, **{**base, **params})

    return run


def require_published(result: dict[str, Any], dest: Path, files: dict[str, bytes] | None = None) -> Path:
    """The folder of a result, which is exactly these files (or all), alone in dest and readable for all."""
    files = FILES if files is None else files
    assert not result["failed"], result
    folder = dest / result["commit"]
    assert result["path"] == str(folder)
    found = tree(folder)
    assert set(found) == {*files, ".snapshot.json"}
    assert {path: found[path] for path in files} == files
    assert [path.name for path in dest.iterdir()] == [result["commit"]]
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    manifest = json.loads((folder / ".snapshot.json").read_text())
    assert {entry["path"] for entry in manifest["files"]} == set(files)
    assert (manifest["repo_id"], manifest["commit"], manifest["verified"]) == (REPOSITORY, result["commit"], "sha256")
    return folder


def test_check_mode_writes_nothing(snapshot: Any, hub: Hub, dest: Path) -> None:
    result = snapshot(hub, check_mode=True)
    assert not result["failed"], result
    assert result["changed"]
    assert (result["files"], result["bytes_total"], result["bytes_downloaded"]) == (len(FILES), TOTAL, TOTAL)
    assert result["verified"] is False
    assert result["path"] == str(dest / result["commit"])
    assert result["diff"]["before"] == ""
    assert result["diff"]["after"] == "".join(f"{path}\n" for path in sorted(FILES))
    assert not dest.parent.exists()
    assert hub.requests == [f"GET /api/models/{REPOSITORY}/revision/main"]


def test_check_then_run_then_again(snapshot: Any, hub: Hub, dest: Path) -> None:
    predicted = snapshot(hub, check_mode=True)
    first = snapshot(hub)
    folder = require_published(first, dest)
    same = ("changed", "commit", "path", "files", "bytes_total", "bytes_downloaded", "repo_id", "revision", "diff")
    assert {key: predicted[key] for key in same} == {key: first[key] for key in same}
    assert first["verified"] is True
    before = {path: path.stat().st_mtime_ns for path in [dest, folder, *folder.rglob("*")]}

    for revision, requests in (("main", 1), (first["commit"], 0)):
        for check_mode in (True, False):
            hub.requests.clear()
            again = snapshot(hub, revision=revision, check_mode=check_mode)
            assert not again["changed"]
            assert "diff" not in again
            assert (again["commit"], again["files"], again["bytes_total"]) == (first["commit"], len(FILES), TOTAL)
            assert (again["bytes_downloaded"], again["verified"]) == (0, True)
            assert len(hub.requests) == requests, hub.requests
    assert before == {path: path.stat().st_mtime_ns for path in [dest, folder, *folder.rglob("*")]}
    assert not snapshot("http://127.0.0.1:9", revision=first["commit"])["changed"]


def test_a_branch_that_moved_is_a_new_folder(snapshot: Any, hub: Hub, dest: Path, root: Path) -> None:
    old = snapshot(hub)
    (root / REPOSITORY / "config.json").write_bytes(b'{"new": 1}\n')
    (root / REPOSITORY / "empty.txt").unlink()
    new = snapshot(hub)
    assert new["changed"]
    assert new["commit"] != old["commit"]
    assert {path.name for path in dest.iterdir()} == {old["commit"], new["commit"]}
    assert tree(dest / old["commit"])["config.json"] == b"{}\n"
    assert "empty.txt" not in tree(dest / new["commit"])


def test_patterns(snapshot: Any, hub: Hub, dest: Path) -> None:
    few = {path: FILES[path] for path in ("config.json", "tokenizer.json")}
    result = snapshot(hub, allow_patterns=["*.json"])
    require_published(result, dest, few)
    assert (result["files"], result["bytes_downloaded"]) == (2, sum(map(len, few.values())))
    assert not snapshot(hub, allow_patterns=["*.json"])["changed"]
    assert not snapshot(hub, allow_patterns=["config.*"], revision=result["commit"])["changed"]

    # Other patterns add to it.
    more = {**few, "onnx/deep/odd [1]*?.bin": b"0123456789"}
    hub.requests.clear()
    result = snapshot(hub, allow_patterns=["onnx/*"])
    require_published(result, dest, more)
    assert (result["files"], result["bytes_downloaded"]) == (3, 10)
    assert result["diff"]["before"] == "config.json\ntokenizer.json\n"

    # Without patterns it is completed, and what is there is not fetched again.
    assert snapshot(hub, check_mode=True)["bytes_downloaded"] == TOTAL - sum(map(len, more.values()))
    hub.requests.clear()
    require_published(snapshot(hub), dest)
    fetched = [request for request in hub.requests if request.startswith("GET /org/name/resolve")]
    # The client makes an empty file without a request.
    assert fetched == [f"GET /org/name/resolve/{result['commit']}/model.safetensors"]

    hub.requests.clear()
    assert not snapshot(hub, ignore_patterns=["*.safetensors"])["changed"]
    require_published(snapshot(hub, revision=result["commit"]), dest)


def test_a_pinned_commit_is_completed_too(snapshot: Any, hub: Hub, dest: Path) -> None:
    commit = snapshot(hub, ignore_patterns=["*.safetensors"])["commit"]
    hub.requests.clear()
    assert not snapshot(hub, revision=commit, ignore_patterns=["*.safetensors"])["changed"]
    assert hub.requests == []
    result = snapshot(hub, revision=commit)
    assert result["changed"]
    require_published(result, dest)
    hub.requests.clear()
    # Whole: it holds what any patterns let through.
    assert not snapshot(hub, revision=commit)["changed"]
    assert not snapshot(hub, revision=commit, allow_patterns=["*.json"])["changed"]
    assert hub.requests == []


def test_patterns_that_let_everything_through_make_it_whole(snapshot: Any, hub: Hub, dest: Path) -> None:
    commit = snapshot(hub, ignore_patterns=["*.gguf"])["commit"]
    hub.requests.clear()
    assert not snapshot(hub, revision=commit)["changed"]
    assert hub.requests == []


def test_each_of_two_patterns_is_remembered(snapshot: Any, hub: Hub, dest: Path) -> None:
    commit = snapshot(hub, allow_patterns=["*.json", "*.bin"])["commit"]
    snapshot(hub, allow_patterns=["*.txt"])
    hub.requests.clear()
    for patterns in (["*.bin", "*.json"], ["*.txt"]):
        assert not snapshot(hub, revision=commit, allow_patterns=patterns)["changed"]
    assert hub.requests == []
    assert snapshot(hub, revision=commit, check_mode=True)["bytes_downloaded"] == len(FILES["model.safetensors"])


def test_patterns_that_match_nothing(snapshot: Any, hub: Hub, dest: Path) -> None:
    result = snapshot(hub, allow_patterns=["*.gguf"])
    assert result["failed"]
    assert result["msg"].startswith(f"none of the {len(FILES)} files of {REPOSITORY} at ")
    assert result["msg"].endswith(
        "matches allow_patterns ['*.gguf'] without ignore_patterns (none): change the patterns"
    )
    assert not dest.exists()


@pytest.mark.parametrize("damage", ["gone", "short", "manifest", "all"])
def test_a_damaged_snapshot_is_repaired(snapshot: Any, hub: Hub, dest: Path, damage: str) -> None:
    commit = snapshot(hub)["commit"]
    hub.requests.clear()
    folder = dest / commit
    if damage == "gone":
        (folder / "config.json").unlink()
    elif damage == "short":
        (folder / "model.safetensors").write_bytes(b"x")
    elif damage == "manifest":
        (folder / ".snapshot.json").write_text("{")
    else:
        for path in FILES:
            (folder / path).unlink()
    assert snapshot(hub, revision=commit, check_mode=True)["changed"]
    result = snapshot(hub, revision=commit)
    assert result["changed"]
    require_published(result, dest)
    fetched = [request for request in hub.requests if request.startswith("GET /org/name/resolve")]
    assert len(fetched) == {"gone": 1, "short": 1, "manifest": 0, "all": len(FILES) - 1}[damage], fetched
    assert not snapshot(hub, revision=commit)["changed"]


class Flips(Hub):
    """A fault: one byte of these files is wrong, as often as said; the size stays."""

    wrong: dict[str, int]

    def send_body(self, request: Handler, entry: Entry, start: int, end: int) -> None:
        if self.wrong.get(entry.path, 0) > 0 and start < end:
            self.wrong[entry.path] -= 1
            data = bytearray(b"".join(self.chunks(entry, start, end)))
            data[len(data) // 2] ^= 1
            request.wfile.write(data)
        else:
            super().send_body(request, entry, start, end)


@pytest.mark.parametrize("path", ["model.safetensors", "config.json", "onnx/deep/odd [1]*?.bin"])
def test_a_flipped_byte_is_never_published(snapshot: Any, root: Path, dest: Path, path: str) -> None:
    with Flips(root) as hub:
        hub.wrong = {path: 2}
        result = snapshot(hub)
        assert result["failed"]
        kind = "sha256" if path.endswith(".safetensors") else "git blob id"
        assert f" arrived wrong twice ({path} has the {kind} " in result["msg"]
        assert result["msg"].endswith(f"): run again, or ask who runs {hub.url}")
        assert not any(path.is_dir() and not path.name.startswith(".") for path in dest.iterdir())
        # Good from now on: what arrived right is not fetched again.
        hub.requests.clear()
        require_published(snapshot(hub), dest)
        assert len([request for request in hub.requests if request.startswith("GET /org/name/resolve")]) == 1


def test_a_byte_that_is_flipped_once_is_fetched_again(snapshot: Any, root: Path, dest: Path) -> None:
    with Flips(root) as hub:
        hub.wrong = {"model.safetensors": 1, "config.json": 1}
        require_published(snapshot(hub), dest)


def test_many_wrong_files_make_no_wall_of_text(snapshot: Any, root: Path, dest: Path) -> None:
    for number in range(20):
        (root / REPOSITORY / f"part-{number}.json").write_text("{}")
    with Flips(root) as hub:
        hub.wrong = {f"part-{number}.json": 2 for number in range(20)}
        result = snapshot(hub, allow_patterns=["part-*"])
    assert "; and 17 more): run again" in result["msg"]


def test_refusals(snapshot: Any, hub: Hub, dest: Path) -> None:
    where = f" on {hub.url}"
    anonymous = snapshot(hub, repo_id="org/other")
    assert anonymous["msg"] == (
        f"org/other{where} does not exist, or is private and no token was passed: "
        "check repo_id, or pass a token that may read it"
    )
    known = snapshot(hub, repo_id="org/other", token=TOKEN)
    assert known["msg"] == (
        f"org/other{where} does not exist, or is private and the token may not read it: "
        "check repo_id, or pass a token that may read it"
    )
    assert TOKEN not in known["output"]
    for revision in ("v9", "0" * 40):
        assert snapshot(hub, revision=revision)["msg"] == (
            f"{REPOSITORY}{where} has no revision '{revision}': name a branch, a tag or a full commit of it"
        )
    assert snapshot(hub, repo_id="org/na--me")["msg"].startswith("'org/na--me' is no name of a repository: ")
    assert snapshot(hub, max_workers=0)["msg"] == "max_workers is 0: it takes 1 or more"
    assert not dest.exists()


@pytest.mark.parametrize("token", [TOKEN + "\n", "hf_Abc Secret123", "hf_schlüssel"])
def test_a_token_that_no_header_takes_is_not_shown(snapshot: Any, hub: Hub, token: str) -> None:
    result = snapshot(hub, token=token)
    assert result["msg"] == "the token has a space, a line break or a character that is not ASCII: correct it"
    assert token.strip() not in result["output"]
    assert hub.requests == []


def test_an_endpoint_with_a_password_is_not_shown(snapshot: Any, hub: Hub) -> None:
    result = snapshot(hub, endpoint=hub.url.replace("//", "//user:Secret123@"))
    assert result["msg"] == "endpoint holds a user or a password: leave them out, and pass a token"
    assert hub.requests == []


def test_a_pinned_commit_of_another_repository(snapshot: Any, hub: Hub, dest: Path) -> None:
    commit = snapshot(hub)["commit"]
    assert snapshot(hub, repo_id="org/other", revision=commit)["failed"]


def test_a_snapshot_that_was_uploaded_as_a_repository(snapshot: Any, hub: Hub, dest: Path, root: Path) -> None:
    (root / REPOSITORY / ".snapshot.json").write_text("{}")
    result = snapshot(hub)
    require_published(result, dest)
    assert not snapshot(hub)["changed"]
    assert not snapshot(hub, revision=result["commit"])["changed"]


def test_gated(snapshot: Any, root: Path, dest: Path) -> None:
    with Hub(root, gated=[REPOSITORY]) as hub:
        for given in ({}, {"token": TOKEN}):
            result = snapshot(hub, **given)
            assert result["msg"] == (
                f"{REPOSITORY} on {hub.url} is gated: accept its terms at {hub.url}/{REPOSITORY} "
                "and pass a token of that account"
            )
            assert TOKEN not in result["output"]
    assert [path.name for path in dest.iterdir() if not path.name.startswith(".")] == []


def test_private(snapshot: Any, root: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Anonymous means anonymous, even if the host has a token of its own.
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with Hub(root, token=TOKEN) as hub:
        assert "or is private and no token was passed" in snapshot(hub)["msg"]
        wrong = snapshot(hub, token="hf_wrongSecret")
        assert (
            wrong["msg"]
            == f"the token was refused for {REPOSITORY} on {hub.url}: pass one that is valid and may read it"
        )
        assert "hf_wrongSecret" not in wrong["output"]
        assert not dest.exists()
        result = snapshot(hub, token=TOKEN)
        folder = require_published(result, dest)
        assert TOKEN not in result["output"]
        assert TOKEN not in (folder / ".snapshot.json").read_text()


def test_nobody_answers(snapshot: Any, free_port: int, dest: Path) -> None:
    url = f"http://127.0.0.1:{free_port}"
    result = snapshot(url + "/")
    assert result["msg"].startswith(f"{url} cannot be reached for {REPOSITORY}: ")
    assert "\n" not in result["msg"]
    assert not dest.exists()


class Busy(Hub):
    """A fault: every answer whose path has `part` in it is 503."""

    part = ""

    def before(self, request: Handler) -> bool:
        if self.part in request.path:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "maintenance")
        return False


def test_a_hub_in_trouble(snapshot: Any, root: Path, dest: Path) -> None:
    with Busy(root) as hub:
        hub.part = "/api/models"
        result = snapshot(hub)
        assert result["failed"]
        assert "503" in result["msg"]
        assert "Traceback" not in result["output"]
        assert not dest.exists()
        hub.part = "nothing like that"
        require_published(snapshot(hub), dest)


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_full_disk(snapshot: Any, hub: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch, check_mode: bool) -> None:
    monkeypatch.setattr(_snapshot.shutil, "disk_usage", lambda path: Usage(0, 0, TOTAL - 1))
    result = snapshot(hub, check_mode=check_mode)
    assert result["failed"]
    assert result["msg"].startswith(f"{dest} needs 1 MB and /")
    assert result["msg"].endswith(" has 0 MB free: free 1 MB there or choose another dest")
    assert not dest.exists()


def test_a_dest_that_cannot_be_one(snapshot: Any, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    result = snapshot(hub, dest=str(file))
    assert result["msg"] == f"cannot write to {file}: [Errno 17] File exists: '{file}': choose another dest"
    result = snapshot(hub, dest=f"{file}/models")
    assert result["msg"].startswith(f"cannot write to {file}/models: [Errno 20] Not a directory: ")

    def denied(path: str, *_args: Any, **_kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(_snapshot.os, "makedirs", denied)
    result = snapshot(hub, dest="/srv/models")
    assert result["msg"] == "/srv/models may not be written: become root, or choose another dest"


def test_the_library_is_missing(snapshot: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "Failed to import the required Python library (huggingface_hub)" in snapshot(hub)["msg"]


def test_absent_one(snapshot: Any, hub: Hub, dest: Path, root: Path) -> None:
    old = snapshot(hub)["commit"]
    (root / REPOSITORY / "config.json").write_bytes(b'{"new": 1}\n')
    new = snapshot(hub)["commit"]
    for left in (f".{old}.incomplete", f"{old}.old"):
        (dest / left).mkdir()
    (dest / f".{old}.lock").touch()
    hub.requests.clear()
    expected = sorted(str(dest / name) for name in (old, f"{old}.old", f".{old}.incomplete", f".{old}.lock"))
    for check_mode in (True, False):
        result = snapshot(hub, state="absent", revision=old, check_mode=check_mode)
        assert (result["changed"], result["removed"]) == (True, expected)
        assert result["diff"] == {"before": "".join(f"{path}\n" for path in expected), "after": ""}
        assert (dest / old).exists() == check_mode
    result = snapshot(hub, state="absent", revision=old)
    assert (result["changed"], result["removed"]) == (False, [])
    assert [path.name for path in dest.iterdir()] == [new]
    assert hub.requests == []


def test_absent_all(snapshot: Any, hub: Hub, dest: Path, root: Path) -> None:
    assert snapshot(hub, state="absent")["removed"] == []
    snapshot(hub)
    (root / REPOSITORY / "config.json").write_bytes(b'{"new": 1}\n')
    snapshot(hub)
    (dest / f".{'1' * 40}.incomplete").mkdir()
    assert snapshot(hub, state="absent", check_mode=True)["removed"] == [str(dest)]
    assert dest.exists()
    result = snapshot(hub, state="absent", revision="any")
    assert (result["changed"], result["removed"]) == (True, [str(dest)])
    assert not dest.exists()
    result = snapshot(hub, state="absent")
    assert (result["changed"], result["removed"]) == (False, [])


def test_absent_takes_away_nothing_that_is_not_its_own(snapshot: Any, hub: Hub, dest: Path) -> None:
    """Such as all models, when dest is the folder above, or a home."""
    commit = snapshot(hub)["commit"]
    assert snapshot(hub, state="absent", dest=str(dest.parent))["removed"] == []
    (dest / "notes.txt").write_text("mine")
    (dest / "other").mkdir()
    assert snapshot(hub, state="absent")["removed"] == [str(dest / commit)]
    assert sorted(path.name for path in dest.iterdir()) == ["notes.txt", "other"]
    assert not snapshot(hub, state="absent")["changed"]


class Holds(Hub):
    """A fault: half of the weights, then nothing until it is told to go on."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.half_sent = threading.Event()
        self.go_on = threading.Event()

    def send_body(self, request: Handler, entry: Entry, start: int, end: int) -> None:
        if entry.path == "model.safetensors" and not self.go_on.is_set():
            middle = (start + end) // 2
            super().send_body(request, entry, start, middle)
            request.wfile.flush()
            self.half_sent.set()
            self.go_on.wait(20)
            start = middle
        super().send_body(request, entry, start, end)


def process(hub: Hub, dest: Path, **params: Any) -> subprocess.Popen[str]:
    """The module as a process of its own, as Ansible runs it."""
    child = subprocess.Popen(
        [sys.executable, "-m", hf_snapshot.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    args = {"repo_id": REPOSITORY, "dest": str(dest), "endpoint": hub.url, **params}
    child.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": args}))
    child.stdin.close()
    child.stdin = None
    return child


def test_killed_in_the_middle(snapshot: Any, root: Path, dest: Path, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    with Holds(root) as hub:
        child = process(hub, dest, progress_file=str(progress))
        assert hub.half_sent.wait(20)
        deadline = time.monotonic() + 10
        while f"of {TOTAL / 1000:.1f} kB" not in (line := progress.read_text()):
            assert time.monotonic() < deadline, line
            time.sleep(0.01)
        assert line.startswith(f"{REPOSITORY}: ")
        child.kill()
        child.communicate()
        assert [path.name for path in dest.iterdir() if not path.name.startswith(".")] == []
        hub.go_on.set()
        require_published(snapshot(hub), dest)


def test_two_processes_at_once(root: Path, dest: Path) -> None:
    with Holds(root) as hub:
        children = [process(hub, dest) for _number in range(2)]
        # Both have seen that there is nothing yet; one downloads, the other waits for it.
        deadline = time.monotonic() + 20
        while len([request for request in hub.requests if "/revision/main" in request]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert hub.half_sent.wait(20)
        hub.go_on.set()
        results = []
        for child in children:
            output, errors = child.communicate(timeout=30)
            assert child.returncode == 0, output + errors
            results.append({"failed": False, **json.loads(output)})
        assert sorted(result["changed"] for result in results) == [False, True]
        for result in results:
            require_published(result, dest)
        fetched = [request for request in hub.requests if request.startswith("GET /org/name/resolve")]
        assert len(fetched) == len(set(fetched)) == len(FILES) - 1, fetched
