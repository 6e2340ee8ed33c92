"""Tests of how contents come to the host: what is made of parts, of answers, and of hosts on the way.

test_hf_snapshot_faults.py has what breaks on the way of a whole run.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import socket
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import urllib3
from conftest import FILES, LARGE, REPOSITORY, WEIGHTS, asked, write_files
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hub import Fault, Hub
from test_hf_snapshot import TOKEN, damage, fetched, moved, require_published

from ansible_collections.llmops.vllm.plugins.module_utils import _hub, _retry, _snapshot, _transfer
from ansible_collections.llmops.vllm.plugins.module_utils._meter import Meter
from ansible_collections.llmops.vllm.plugins.module_utils._progress import Progress
from ansible_collections.llmops.vllm.plugins.module_utils._retry import Passing
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile, SnapshotError
from ansible_collections.llmops.vllm.plugins.module_utils._staging import Staging
from ansible_collections.llmops.vllm.plugins.module_utils._transfer import Content, Gathered, Transfer, Wrong
from ansible_collections.llmops.vllm.plugins.modules import hf_snapshot

MODEL = HubFile("model.safetensors", len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest(), "b" * 40)


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    made = Staging(str(tmp_path))
    made.open()
    return made


def transfer(staging: Any = None, **params: Any) -> Transfer:
    return Transfer(
        SimpleNamespace(repo_id="org/large", endpoint="http://hub"), "c" * 40, staging, Meter("org/large", 0), **params
    )


# A content as it grows.


def grown(staging: Staging, begun: bytes, *pieces: bytes) -> Content:
    with open(staging.part(MODEL), "wb") as stream:
        stream.write(begun)
    with open(staging.part(MODEL), "ab", buffering=0) as stream:
        content = Content(MODEL, stream, staging)
        for piece in pieces:
            content.append(piece)
    return content


@pytest.mark.parametrize("cut", [0, 1, 2_999_999, 3_000_000])
def test_what_is_there_and_what_comes_make_the_checksum(staging: Staging, cut: int) -> None:
    content = grown(staging, WEIGHTS[:cut], WEIGHTS[cut:])
    content.check()
    assert content.length == len(WEIGHTS)
    assert Path(staging.part(MODEL)).read_bytes() == WEIGHTS


def test_a_part_that_is_too_long_is_cut(staging: Staging) -> None:
    content = grown(staging, WEIGHTS + b"more")
    content.check()
    assert Path(staging.part(MODEL)).read_bytes() == WEIGHTS


def test_a_wrong_byte_before_or_after(staging: Staging) -> None:
    for begun, piece in ((b"x" + WEIGHTS[1:100], WEIGHTS[100:]), (WEIGHTS[:100], WEIGHTS[100:-1] + b"x")):
        found = hashlib.sha256(begun + piece).hexdigest()
        with pytest.raises(Wrong, match=f"it has the checksum {found}, the Hub lists {MODEL.sha256}"):
            grown(staging, begun, piece).check()


def test_more_than_listed_is_wrong_at_once(staging: Staging) -> None:
    with pytest.raises(Wrong, match="it is longer than the 3000000 bytes that the Hub lists"):
        grown(staging, WEIGHTS[:-1], b"xx")


def test_sizes_alone_need_no_checksum(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path), "size")
    staging.open()
    content = grown(staging, bytes(len(WEIGHTS)))
    assert content.digest is None
    content.check()


@pytest.mark.parametrize("check", ["sha256", "size"])
def test_a_restart_forgets_all(tmp_path: Path, check: str) -> None:
    staging = Staging(str(tmp_path), check)
    staging.open()
    with open(staging.part(MODEL), "ab", buffering=0) as stream:
        content = Content(MODEL, stream, staging)
        content.append(b"x" * 100)
        content.restart()
        assert (content.length, Path(stream.name).stat().st_size) == (0, 0)
        content.append(WEIGHTS)
        content.check()
    assert Path(staging.part(MODEL)).read_bytes() == WEIGHTS


def test_pieces_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_transfer.time, "monotonic", lambda: now[0])
    gathered = Gathered()
    gathered.add(b"a" * 16384)
    assert not gathered.is_due()
    now[0] = 1.1
    assert gathered.is_due(), "a slow stream is written each second"
    gathered.add(b"b")
    assert gathered.take() == b"a" * 16384 + b"b"
    assert (gathered.length, gathered.take(), gathered.is_due()) == (0, b"", False)
    gathered.add(bytes(_transfer.CHUNK // 2))
    assert gathered.is_due()


# What is tried again.


def persist(
    failures: list[Passing], retries: int, grows: list[int] | None = None
) -> tuple[int, list[str], list[float]]:
    """How often an attempt is made that fails so many times, what is said, and how long one waits."""
    made, notes, waits = [], [], []
    one = transfer(retries=retries)
    one.stopped.wait = waits.append  # type: ignore[method-assign]
    left, lengths = list(failures), iter(grows or [])

    def attempt() -> None:
        made.append(1)
        if left:
            raise left.pop(0)

    one._persist(MODEL, notes.append, attempt, (lambda: next(lengths)) if grows else lambda: 0)
    return len(made), notes, waits


def test_each_attempt_is_named() -> None:
    made, notes, waits = persist([Passing("status 503 from cdn"), Passing("reset", "40")], 2)
    assert made == 3
    assert notes == ["status 503 from cdn, attempt 2 of 3", "reset, attempt 3 of 3 in 40 s"]
    assert waits[0] < 1 and 40 <= waits[1] < 41


@pytest.mark.parametrize(("retries", "times"), [(0, "1 attempt"), (1, "2 attempts"), (3, "4 attempts")])
def test_after_the_last_attempt_it_is_a_sentence(retries: int, times: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        persist([Passing("status 503 from cdn")] * 9, retries)
    assert str(caught.value) == (
        f"model.safetensors of org/large could not be fetched in {times}: status 503 from cdn: "
        "run again later, it goes on from there"
    )


def test_only_a_mebibyte_is_progress() -> None:
    mebibyte = 1024 * 1024
    # Each attempt is measured before and after; a length that shrinks, because a part was dropped, is no progress.
    for step, passes in ((mebibyte, True), (mebibyte - 1, False), (-mebibyte, False)):
        lengths = [position for number in range(9) for position in (number * step, (number + 1) * step)]
        if passes:
            assert persist([Passing("cut")] * 8, 1, lengths)[0] == 9
        else:
            with pytest.raises(SnapshotError, match="in 2 attempts: cut"):
                persist([Passing("cut")] * 8, 1, lengths)


def test_no_wait_outlasts_the_end(snapshot: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is to come again in five minutes, another is refused: nobody waits for the first."""
    waits, delay = threading.Event(), _retry.delay

    def watched(*args: Any) -> float:
        waits.set()
        return delay(*args)

    class Patient(Hub):
        def before(self, request: Any) -> bool:
            # No other file is refused before the first one waits.
            assert "/resolve/" not in request.path or waits.wait(20)
            return False

    monkeypatch.setattr(_retry, "delay", watched)
    with Patient(root, gated=[REPOSITORY]) as hub:
        hub.faults.append(Fault(path="model.safetensors", status=429, headers={"Retry-After": "300"}))
        assert f"{REPOSITORY} on {hub.url} is gated: " in snapshot(hub, max_workers=4)["msg"]


# Parts of earlier runs.


@pytest.mark.parametrize(
    ("begun", "requests"),
    [
        (b"", [(None, 3_000_000)]),
        (WEIGHTS[:1], [(1, 2_999_999)]),
        (WEIGHTS[:-1], [(2_999_999, 1)]),
        (WEIGHTS, []),
        (WEIGHTS + b"more", []),
        (b"x" + WEIGHTS[1:], [(None, 3_000_000)]),
        (bytes(3_000_010), [(None, 3_000_000)]),
        (bytes(1000), [(1000, 2_999_000), (None, 3_000_000)]),
    ],
    ids=["empty", "one byte", "all but one", "whole", "longer", "wrong", "wrong and longer", "wrong and shorter"],
)
def test_a_part_of_an_earlier_run(
    snapshot: Any, large: Path, dest: Path, begun: bytes, requests: list[tuple[int | None, int]]
) -> None:
    staging = Staging(str(dest))
    staging.open()
    Path(staging.part(MODEL)).write_bytes(begun)
    with Hub(large) as hub:
        result = snapshot(hub, repo_id="org/large")
        assert asked(hub) == requests
    assert (dest / result["commit"] / "model.safetensors").read_bytes() == WEIGHTS
    assert result["bytes_downloaded"] == sum(sent for _start, sent in requests) + len(LARGE["config.json"])
    assert [path.name for path in dest.iterdir()] == [result["commit"]]


def test_progress_counts_what_an_earlier_run_brought(
    snapshot: Any, large: Path, dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    said = threading.Event()

    def say(_self: Progress, line: str) -> None:
        lines.append(line)
        if "fetched" in line:
            said.set()

    class Patient(Hub):
        def before(self, request: Any) -> bool:
            assert "/resolve/" not in request.path or said.wait(20)
            return False

    monkeypatch.setattr(Progress, "say", say)
    staging = Staging(str(dest))
    staging.open()
    Path(staging.part(MODEL)).write_bytes(bytes(1_500_000))
    with Patient(large) as hub:
        assert snapshot(hub, repo_id="org/large", progress_file=str(tmp_path / "line"))["verified"]
    first = next(line for line in lines if "fetched" in line)
    assert first.startswith("org/large: 49 % fetched (1.5 MB of 3.0 MB, ")
    # It was wrong: once it is dropped, it counts no more.
    assert not any(line.startswith(f"org/large: {percent} % ") for percent in range(101, 200) for line in lines)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault(close_after=1_200_000), Fault(ignore_range=True)],
        [Fault(reset_after=1_200_000), Fault(reset_after=700_000)],
        [Fault(flip=5)],
        [Fault(close_after=1_200_000), Fault(status=416)],
        [Fault(flip=5, close_after=1_200_000)],
    ],
    ids=str,
)
@pytest.mark.parametrize("begun", [b"", WEIGHTS[:5000], bytes(5000)], ids=["nothing", "a part", "a wrong part"])
def test_progress_ends_with_all(
    snapshot: Any, large: Path, dest: Path, begun: bytes, faults: list[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    meters: list[Meter] = []
    kept = type("Kept", (Meter,), {"file": lambda self, path: (meters.append(self), Meter.file(self, path))[1]})
    monkeypatch.setattr(hf_snapshot, "Meter", kept)
    if begun:
        staging = Staging(str(dest))
        staging.open()
        Path(staging.part(MODEL)).write_bytes(begun)
    with Hub(large) as hub:
        hub.faults += [Fault(**{**vars(fault), "path": "model.safetensors"}) for fault in faults]
        result = snapshot(hub, repo_id="org/large")
    if result["failed"]:
        # What this run brought was wrong, after what an earlier one brought.
        assert "arrived wrong twice" in result["msg"] and begun == bytes(5000)
    else:
        assert meters[0].done == meters[0].total == sum(map(len, LARGE.values()))


@pytest.mark.parametrize("verify", ["sha256", "size"])
@pytest.mark.parametrize("kind", ["416", "another range", "another end", "the beginning"])
def test_a_range_that_is_not_the_one(snapshot: Any, large: Path, dest: Path, kind: str, verify: str) -> None:
    class Odd(Hub):
        def send_content(self, request: Any, entry: Any, headers: dict[str, str]) -> None:
            if request.answer.start is None:
                return super().send_content(request, entry, headers)
            if kind == "416":
                request.send_head(416, {"Content-Length": "0"})
                return None
            ranges = {
                "another range": (999, 2_999_001),
                "another end": (1000, 5000),
                # So many bytes are missing, but these are others.
                "the beginning": (0, 2_999_000),
            }
            first, count = ranges[kind]
            fields = {"Content-Range": f"bytes {first}-{first + count - 1}/3000000", "Content-Length": str(count)}
            request.send_head(206, fields)
            self.send_body(request, entry, first, first + count)
            return None

    staging = Staging(str(dest))
    staging.open()
    Path(staging.part(MODEL)).write_bytes(WEIGHTS[:1000])
    with Odd(large) as hub:
        result = snapshot(hub, repo_id="org/large", verify=verify)
        assert [start for start, _sent in asked(hub)] == [1000, None]
    assert (dest / result["commit"] / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_page_about_an_error_costs_nothing_that_is_here(snapshot: Any, large: Path, dest: Path, path: str) -> None:
    """A proxy's, with the status 200."""

    class Proxy(Hub):
        pages = 1

        def send_content(self, request: Any, entry: Any, headers: dict[str, str]) -> None:
            if entry.path == path and self.pages:
                self.pages -= 1
                request.send_head(200, {"Content-Length": "50"})
                request.wfile.write(b"x" * 50)
            else:
                super().send_content(request, entry, headers)

    staging = Staging(str(dest))
    staging.open()
    Path(staging.part(MODEL)).write_bytes(WEIGHTS[:2_700_000])
    with Proxy(large) as hub:
        assert snapshot(hub, repo_id="org/large")["verified"]
        assert [sent for _start, sent in asked(hub)][-1] == 300_000


@pytest.mark.parametrize("linked", [False, True])
def test_what_an_earlier_run_has_checked_may_be_damaged_by_now(
    snapshot: Any, served: Hub, dest: Path, root: Path, linked: bool
) -> None:
    """A disk can forget, and a content that was linked is damaged together with its snapshot."""
    if linked:
        old = snapshot(served)["commit"]
        moved(root, {**FILES, "config.json": b'{"new": 1}\n'})
    served.faults.append(Fault(path="config.json", status=403))
    assert snapshot(served, max_workers=1)["failed"]
    (whole,) = (path for path in dest.glob(".incomplete/*") if path.stat().st_size == len(FILES["model.safetensors"]))
    damage(dest / old / "model.safetensors" if linked else whole)
    served.log.clear()
    result = snapshot(served)
    assert (dest / result["commit"] / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert "model.safetensors" in fetched(served)


def test_what_was_checked_is_good_enough_for_sizes(snapshot: Any, served: Hub) -> None:
    served.faults.append(Fault(path="config.json", status=403))
    assert snapshot(served, max_workers=1)["failed"]
    served.log.clear()
    assert not snapshot(served, verify="size")["failed"]
    assert "model.safetensors" not in fetched(served)


# Answers.


class Chunked(Hub):
    """Sends files without a length, as some proxies do, and `extra` bytes more or less."""

    extra = 0

    def send_content(self, request: Any, entry: Any, headers: dict[str, str]) -> None:
        content = entry.file.read_bytes()
        content = content + bytes(self.extra) if self.extra >= 0 else content[: self.extra]
        request.send_head(200, {"Transfer-Encoding": "chunked"})
        for start in range(0, len(content), 100_000):
            piece = content[start : start + 100_000]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (0, None),
        # What is right may have something behind it.
        (7, None),
        (-7, "could not be fetched in 2 attempts: 127.0.0.1 closed the connection after 2999993 of 3000000 bytes"),
    ],
)
def test_answers_without_a_length(snapshot: Any, large: Path, extra: int, message: str | None) -> None:
    with Chunked(large) as hub:
        hub.extra = extra
        result = snapshot(hub, repo_id="org/large", allow_patterns=["*.safetensors"], retries=1)
    if message:
        assert result["msg"].startswith(f"model.safetensors of org/large {message}")
    else:
        assert result["verified"]


def test_what_is_asked(snapshot: Any, large: Path) -> None:
    heads = []

    class Looking(Hub):
        def before(self, request: Any) -> bool:
            if "/resolve/" in request.path:
                heads.append({name.lower(): value for name, value in request.headers.items()})
            return False

    with Looking(large, token=TOKEN) as hub:
        hub.faults.append(Fault(path="model.safetensors", close_after=1_000_000))
        assert snapshot(hub, repo_id="org/large", token=TOKEN, max_workers=1)["verified"]
    assert [head.get("range") for head in heads] == [None, "bytes=1000000-", None]
    for head in heads:
        # Compressed, an answer could not be checked against the size, nor be resumed.
        assert head["accept-encoding"] == "identity"
        assert head["authorization"] == f"Bearer {TOKEN}"
        assert "llmops.vllm" in head["user-agent"]


@pytest.mark.parametrize("header", ["\xb2", "1e9", "soon", "Sat, 99 Foo 2026"])
def test_a_pause_that_is_no_number(snapshot: Any, served: Hub, header: str) -> None:
    served.faults.append(Fault(path="model.safetensors", status=429, headers={"Retry-After": header}))
    assert snapshot(served)["verified"]


def test_redirects_without_end(snapshot: Any, served: Hub) -> None:
    again = {"Location": f"/{REPOSITORY}/resolve/main/model.safetensors"}
    served.faults.append(Fault(path="model.safetensors", status=302, headers=again, times=None))
    assert snapshot(served)["msg"] == "127.0.0.1 redirects without end: choose another endpoint"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/revision/", stall_after=10),
        Fault(path="/revision/", reset_after=0),
        Fault(path="/revision/", reset_after=10),
        Fault(path="/revision/", close_after=10),
        Fault(path="/revision/", status=502, times=5),
        Fault(path="/revision/", status=504),
    ],
    ids=str,
)
def test_a_listing_that_fails_is_asked_for_again(snapshot: Any, served: Hub, dest: Path, fault: Fault) -> None:
    fault = Fault(**vars(fault))
    served.faults.append(fault)
    require_published(snapshot(served, timeout=1), dest)
    assert fault.times == 0, "the fault did not act"


# Side by side.


@pytest.mark.parametrize("workers", [1, 3])
def test_so_many_files_at_once(snapshot: Any, root: Path, workers: int) -> None:
    write_files(root / "org" / "many", {f"{number}.json": b"%d" % number for number in range(2 * workers)})
    together, active, peak = threading.Barrier(workers, timeout=20), [], []

    class Meeting(Hub):
        def send_content(self, request: Any, entry: Any, headers: dict[str, str]) -> None:
            active.append(1)
            peak.append(len(active))
            together.wait()
            active.pop()
            super().send_content(request, entry, headers)

    with Meeting(root) as hub:
        assert snapshot(hub, repo_id="org/many", max_workers=workers)["verified"]
    assert max(peak) == workers


def test_one_refusal_ends_all(snapshot: Any, large: Path, dest: Path) -> None:
    with Hub(large) as hub:
        hub.faults.append(Fault(path="model.safetensors", rate=300_000))
        hub.faults.append(Fault(path="config.json", status=403))
        result = snapshot(hub, repo_id="org/large")
        assert result["msg"].startswith(f"org/large on {hub.url} is forbidden to anonymous requests")
        assert hub.bytes_sent < len(WEIGHTS) // 2
        # What has come is of use.
        begun = sum(path.stat().st_size for path in dest.glob(f".incomplete/{MODEL.sha256}.part"))
        hub.log.clear()
        assert snapshot(hub, repo_id="org/large")["verified"]
        assert asked(hub)[0][0] == (begun or None)


def test_large_files_come_first(snapshot: Any, root: Path) -> None:
    write_files(root / "org" / "many", {f"{size}.json": b"x" * size for size in (5, 5000, 50, 50_000)})
    with Hub(root) as hub:
        assert snapshot(hub, repo_id="org/many", max_workers=1)["verified"]
        assert [answer.sent for answer in hub.log[1:]] == [50_000, 5000, 50, 5]


def test_the_client_has_a_folder_for_each_file(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two of them write is counted once."""
    monkeypatch.setattr(_transfer, "HTTP_LIMIT", 0)
    files = {f"{name}.safetensors": name.encode() * 5000 for name in "ab"}
    wanted = [HubFile(p, len(c), hashlib.sha256(c).hexdigest(), "b" * 40) for p, c in files.items()]
    both = threading.Barrier(2, timeout=10)

    def download(_commit: str, path: str, folder: str) -> str:
        write_files(Path(folder), {path: files[path]})
        both.wait()
        return f"{folder}/{path}"

    one = transfer(staging)
    one.hub = SimpleNamespace(repo_id="org/large", has_xet=True, download=download)
    one.fetch(wanted)
    assert one.meter.moved == 10_000
    assert {Path(staging.whole(f)).read_bytes() for f in wanted} == set(files.values())


def test_the_client_begins_each_attempt_in_an_empty_folder(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves files under random names, which nobody goes on with."""
    monkeypatch.setattr(_transfer, "HTTP_LIMIT", 0)
    found = []

    def download(_commit: str, path: str, folder: str) -> str:
        found.append([file.name for file in Path(folder).rglob("*")])
        write_files(Path(folder), {f"{len(found)}.incomplete" if len(found) < 3 else path: WEIGHTS})
        if len(found) < 3:
            raise Passing("reset")
        return f"{folder}/{path}"

    write_files(Path(staging.path) / "xet" / MODEL.sha256, {"killed.incomplete": WEIGHTS})
    one = transfer(staging)
    one.hub = SimpleNamespace(repo_id="org/large", has_xet=True, download=download)
    one.fetch([MODEL])
    assert found == [[], [], []]
    assert one.meter.moved == one.meter.done == len(WEIGHTS)


# Hosts on the way.


def test_a_content_network_that_refuses_for_ever(snapshot: Any, large: Path) -> None:
    with Hub(large, cdn=True) as hub:
        hub.faults.append(Fault(path="model.safetensors", host="cdn", status=403, times=None))
        result = snapshot(hub, repo_id="org/large", retries=2)
        assert result["msg"] == (
            "model.safetensors of org/large could not be fetched in 3 attempts: status 403 from localhost: "
            "run again later, it goes on from there"
        )
        # Each time at a new address.
        assert [answer.host for answer in hub.log if "model.safetensors" in answer.path] == ["hub", "cdn"] * 3


@pytest.mark.parametrize("status", [400, 401, 404, 410])
def test_a_content_network_that_does_not_have_it(snapshot: Any, large: Path, status: int) -> None:
    with Hub(large, cdn=True) as hub:
        hub.faults.append(Fault(path="model.safetensors", host="cdn", status=status, times=None))
        result = snapshot(hub, repo_id="org/large")
        assert result["msg"] == (
            f"localhost, to which {hub.url} redirects, answered with HTTP status {status} for model.safetensors: "
            "use another endpoint"
        )
        assert [answer.host for answer in hub.log if "model.safetensors" in answer.path] == ["hub", "cdn"]


@pytest.mark.parametrize("kind", ["stall", "nobody", "reset"])
def test_the_host_that_does_not_answer_is_the_one_named(
    snapshot: Any, large: Path, kind: str, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """Who has to open a firewall has to know which host it is."""
    with Hub(large, cdn=True) as hub:
        if kind == "nobody":
            hub.cdn_url = f"http://localhost:{free_port}"
        else:
            # Not even the head comes.
            cut = {"stall": {"stall_after": -1}, "reset": {"reset_after": 5}}
            hub.faults.append(Fault(path="model.safetensors", host="cdn", times=None, **cut[kind]))
        result = snapshot(hub, repo_id="org/large", retries=0, timeout=1)
    said = "no byte for 1 s from localhost: " if kind == "stall" else "localhost: "
    assert f"could not be fetched in 1 attempt: {said}" in result["msg"]


@pytest.mark.parametrize("machine", ["default", "machine localhost", "machine 127.0.0.1"])
def test_nobody_gets_passwords_of_the_account(
    snapshot: Any, large: Path, tmp_path: Path, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"{machine} login me password Secret123\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Hub(large, cdn=True) as hub:
        assert snapshot(hub, repo_id="org/large", retries=0)["verified"]
        assert not any(answer.authorized for answer in hub.log)


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for loopback that is its own authority, and what a server needs to use it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_files(folder, {"ca.pem": made.public_bytes(pem), "server.pem": private + made.public_bytes(pem)})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return folder / "ca.pem", context


def test_certificates(
    snapshot_process: Any, root: Path, dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, context = certificate(tmp_path)
    for name in _hub.CERTIFICATE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with Hub(root) as hub:
        hub.url = hub.url.replace("http:", "https:")
        hub._server.socket = context.wrap_socket(hub._server.socket, server_side=True)
        # In processes of their own: the client keeps what it trusts. With a second attempt the first would take long.
        output = snapshot_process(hub).communicate(timeout=60)[0]
        message = json.loads(output)["msg"]
        assert message.startswith(f"the certificate of {hub.url} is not trusted (")
        assert message.endswith("): name the bundle of its authority in REQUESTS_CA_BUNDLE")
        assert not dest.exists()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        output = snapshot_process(hub).communicate(timeout=60)[0]
        require_published({"failed": False, **json.loads(output)}, dest)


def test_a_content_network_with_a_certificate_of_its_own(snapshot: Any, large: Path, tmp_path: Path) -> None:
    _bundle, context = certificate(tmp_path)
    with Hub(large, cdn=True) as hub:
        hub.cdn_url = hub.cdn_url.replace("http:", "https:")
        hub._cdn.socket = context.wrap_socket(hub._cdn.socket, server_side=True)
        message = snapshot(hub, repo_id="org/large")["msg"]
    assert message.startswith("the certificate of localhost is not trusted (")


PIECE = urllib3.exceptions.ReadTimeoutError(None, "http://hub", "Read timed out.")


@pytest.mark.parametrize(
    ("error", "reason", "timeout"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer", False),
        (
            urllib3.exceptions.ProtocolError(
                "Connection broken", ConnectionResetError(104, "Connection reset by peer")
            ),
            "Connection reset by peer",
            False,
        ),
        (
            requests.ConnectionError(
                urllib3.exceptions.MaxRetryError(None, "/", socket.gaierror(-2, "Name or service not known"))
            ),
            "Name or service not known",
            False,
        ),
        (requests.ConnectionError(PIECE), "None: Read timed out.", True),
        (requests.ConnectionError(), "ConnectionError", False),
        (requests.ConnectionError("first\nsecond"), "first", False),
    ],
    ids=str,
)
def test_the_reason_of_an_error(error: Exception, reason: str, timeout: bool) -> None:
    assert _transfer._reason(error) == reason
    assert _transfer._is_timeout(error) == timeout


def test_equal_contents_come_once(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    came = []
    monkeypatch.setattr(Transfer, "_fetch_file", lambda self, wanted: came.append(_snapshot.content_id(wanted)))
    transfer(staging).fetch([MODEL, MODEL._replace(path="copy.safetensors")])
    assert came == [MODEL.sha256]
