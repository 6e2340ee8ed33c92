"""Tests of the module hf_snapshot with Hubs, networks, disks and processes that break."""

from __future__ import annotations

import errno
import json
import os
import threading
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from conftest import FILES, LARGE, REPOSITORY, WEIGHTS, asked, wait_until, write_files
from hub import Fault, Hub
from test_hf_snapshot import TOKEN, TOTAL, Usage, fetched, moved, require_published

from ansible_collections.llmops.vllm.plugins.module_utils import _hub, _progress, _retry, _snapshot, _staging, _transfer

# Requests that fail in a way that passes.


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/revision/", status=503),
        Fault(path="/revision/", status=429, headers={"Retry-After": "0"}),
        Fault(path="/revision/", status=500, times=5),
        Fault(path="/resolve/", status=429, headers={"Retry-After": "0"}, times=3),
        Fault(path="/resolve/", status=500),
        Fault(path="/resolve/", status=502),
        Fault(path="/resolve/", status=504),
        Fault(path="model.safetensors", status=503, times=5),
        Fault(path="model.safetensors", close_after=0),
        Fault(path="model.safetensors", close_after=5000),
        Fault(path="model.safetensors", reset_after=0),
        Fault(path="model.safetensors", reset_after=5000),
        Fault(path="model.safetensors", flip=9000),
        Fault(path="config.json", flip=0),
        Fault(path="model.safetensors", short=100),
        Fault(path="model.safetensors", status=416),
        Fault(path="model.safetensors", stall_after=5000),
        Fault(path="model.safetensors", stall_after=-1),
    ],
    ids=str,
)
def test_what_passes(snapshot: Any, served: Hub, dest: Path, fault: Fault) -> None:
    fault = Fault(**vars(fault))
    served.faults.append(fault)
    require_published(snapshot(served, timeout=1), dest)
    assert fault.times == 0, "the fault did not act"


def test_it_goes_on_where_it_was_cut(snapshot: Any, large: Path, dest: Path) -> None:
    with Hub(large) as hub:
        hub.faults += [Fault(path="model.safetensors", reset_after=1_000_000)]
        hub.faults += [Fault(path="model.safetensors", close_after=500_000)]
        result = snapshot(hub, repo_id="org/large")
        assert result["verified"], result
        (first, second, third) = asked(hub)
        assert first == (None, 1_000_000)
        # A reset may cost what the kernel had not handed over yet.
        assert 0 < second[0] <= 1_000_000
        assert third == (second[0] + 500_000, len(WEIGHTS) - second[0] - 500_000)


def test_a_hub_that_knows_no_ranges(snapshot: Any, large: Path, dest: Path) -> None:
    with Hub(large) as hub:
        hub.faults += [Fault(path="model.safetensors", close_after=1_000_000)]
        hub.faults += [Fault(path="model.safetensors", ignore_range=True)]
        result = snapshot(hub, repo_id="org/large")
        assert result["verified"], result
        assert asked(hub) == [(None, 1_000_000), (1_000_000, len(WEIGHTS))]


@pytest.mark.parametrize("path", ["/revision/", "model.safetensors"])
def test_after_so_many_attempts_it_is_an_error(snapshot: Any, served: Hub, dest: Path, path: str) -> None:
    served.faults.append(Fault(path=path, status=503, times=None))
    result = snapshot(served, retries=2)
    assert result["failed"]
    assert len([answer for answer in served.log if path in answer.path]) == 3
    assert "503" in result["msg"]
    if path == "model.safetensors":
        assert result["msg"] == (
            f"model.safetensors of {REPOSITORY} could not be fetched in 3 attempts: status 503 from 127.0.0.1: "
            "run again later, it goes on from there"
        )
    served.faults.clear()
    require_published(snapshot(served), dest)


def test_attempts_that_bring_something_do_not_count(
    snapshot: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "PROGRESS", 100_000)
    with Hub(large) as hub:
        hub.faults.append(Fault(path="model.safetensors", close_after=200_000, times=10))
        assert snapshot(hub, repo_id="org/large", retries=1)["verified"]
        assert len(asked(hub)) == 11


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
@pytest.mark.parametrize("path", ["/revision/", "/resolve/"])
def test_what_does_not_pass(snapshot: Any, served: Hub, status: int, path: str) -> None:
    served.faults.append(Fault(path=path, status=status, times=None))
    result = snapshot(served, max_workers=1)
    assert result["failed"]
    assert len([answer for answer in served.log if path in answer.path]) == 1, "it was asked again"
    assert "\n" not in result["msg"] and "Traceback" not in result["output"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(status=401), "org/name on {url} needs a token: pass one that may read it"),
        (Fault(status=403), "org/name on {url} is forbidden to anonymous requests: pass a token that may read it"),
        (Fault(status=404), "{url} lists model.safetensors of org/name and does not serve it: use another endpoint"),
        (Fault(status=410), "{url} answered with HTTP status 410 for model.safetensors"),
        (Fault(status=401, code="RepoNotFound"), "org/name on {url} does not exist, or is private and no token was"),
        (Fault(status=403, code="GatedRepo"), "org/name on {url} is gated: accept its terms at {url}/org/name and"),
    ],
    ids=str,
)
def test_refusals_of_a_file(snapshot: Any, served: Hub, dest: Path, fault: Fault, message: str) -> None:
    served.faults.append(Fault(**{**vars(fault), "path": "model.safetensors"}))
    result = snapshot(served, max_workers=1)
    assert result["msg"].startswith(message.format(url=served.url))


@pytest.mark.parametrize("header", ["7", "date"])
@pytest.mark.parametrize("path", ["/revision/", "model.safetensors"])
def test_the_server_says_how_long_to_wait(
    snapshot: Any, served: Hub, path: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    event_wait = threading.Event.wait

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout and 5 < timeout < 60:
            waited.append(timeout)
            return self.is_set()
        return event_wait(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", wait)
    monkeypatch.setattr(_hub.time, "sleep", waited.append)
    value = formatdate(_retry.time.time() + 8, usegmt=True) if header == "date" else header
    served.faults.append(Fault(path=path, status=429, headers={"Retry-After": value}))
    assert snapshot(served)["verified"]
    assert any(6 < seconds < 9 for seconds in waited), waited


# Contents that are wrong.


@pytest.mark.parametrize("path", ["model.safetensors", "config.json", "docs/deep/odd [1]*? 100%.txt"])
def test_a_flipped_byte_is_never_published(snapshot: Any, served: Hub, dest: Path, path: str) -> None:
    served.faults.append(Fault(path=path, flip=1, times=2))
    result = snapshot(served, max_workers=1)
    assert result["failed"]
    assert result["msg"].startswith(f"{path} of {REPOSITORY} arrived wrong twice (it has the checksum ")
    assert result["msg"].endswith(f"): run again, or ask who runs {served.url}")
    assert not dest.exists() or [path.name for path in dest.iterdir()] == [".incomplete"]
    # Good from now on; what arrived right is not fetched again.
    before = fetched(served)
    require_published(snapshot(served), dest)
    assert sorted(set(before)) != sorted(before), "it was tried twice"
    assert len(fetched(served)) == len(FILES) - 1 + 2


def test_a_file_that_is_longer_than_listed(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    class Longer(Hub):
        def send_content(self, request: Any, entry: Any, headers: Any) -> None:
            if entry.path == "config.json":
                request.send_head(200, {"Content-Length": "50"})
                request.wfile.write(b"x" * 50)
            else:
                super().send_content(request, entry, headers)

    with Longer(root) as hub:
        result = snapshot(hub, retries=1)
        assert result["msg"].startswith(
            "config.json of org/name could not be fetched in 2 attempts: 127.0.0.1 sends 50 bytes, the Hub lists 3: "
        )


# Processes that are killed, and machines that lose power.


def test_killed_in_the_middle(snapshot: Any, snapshot_process: Any, large: Path, dest: Path, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    with Hub(large) as hub:
        fault = Fault(path="model.safetensors", stall_after=2_000_000)
        hub.faults.append(fault)
        child = snapshot_process(hub, repo_id="org/large", progress_file=str(progress))
        (part,) = wait_until(lambda: [p for p in dest.glob(".incomplete/*.part") if p.stat().st_size > 1_500_000])
        assert [path.name for path in dest.iterdir() if not path.name.startswith(".")] == []
        wait_until(lambda: "org/large: " in progress.read_text() and "model.safetensors" in progress.read_text())
        child.kill()
        child.communicate()
        held = part.stat().st_size
        result = snapshot(hub, repo_id="org/large")
        assert asked(hub)[1] == (held, len(WEIGHTS) - held)
        assert result["bytes_downloaded"] <= len(WEIGHTS) - held + len(LARGE["config.json"])
        assert [path.name for path in dest.iterdir()] == [result["commit"]]


def test_killed_again_and_again(snapshot: Any, snapshot_process: Any, large: Path, dest: Path) -> None:
    with Hub(large) as hub:
        for kill_at in (600_000, 1_500_000, 1_800_000, 2_700_000):
            held = sum(part.stat().st_size for part in dest.glob(".incomplete/*.part"))
            hub.faults = [Fault(path="model.safetensors", stall_after=kill_at - held)]
            child = snapshot_process(hub, repo_id="org/large", max_workers=1)
            # The last piece may not be written yet.
            least = kill_at - _transfer.CHUNK
            wait_until(lambda: asked(hub)[-1:] == [(held or None, kill_at - held)])  # noqa: B023
            wait_until(lambda: sum(p.stat().st_size for p in dest.glob(".incomplete/*.part")) >= least)  # noqa: B023
            child.kill()
            child.communicate()
        hub.faults = []
        assert snapshot(hub, repo_id="org/large")["verified"]
        starts = [start or 0 for start, _sent in asked(hub)]
        assert starts == sorted(starts)
        assert starts[-1] >= 2_700_000 - _transfer.CHUNK


def interrupted(snapshot: Any, hub: Hub, dest: Path, after: int) -> Path:
    """A part of the weights, as a failed run leaves it."""
    hub.faults = [Fault(path="model.safetensors", close_after=after), Fault(path="model.safetensors", status=403)]
    assert snapshot(hub, repo_id="org/large", max_workers=1)["failed"]
    hub.faults = []
    hub.log.clear()
    (part,) = dest.glob(".incomplete/*.part")
    assert part.stat().st_size == after
    return part


@pytest.mark.parametrize("synced", [0, 1_000_000])
def test_after_a_power_loss(
    snapshot: Any, large: Path, dest: Path, synced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "SYNC_EVERY", 500_000 if synced else 10**9)
    with Hub(large) as hub:
        part = interrupted(snapshot, hub, dest, 1_400_000)
        note = part.with_suffix(".synced")
        assert note.exists() == bool(synced)
        if synced:
            assert 500_000 <= int(note.read_text()) <= 1_400_000
            note.write_text(str(synced))
        # What the disk had not got yet is gone, though the size says otherwise.
        content = part.read_bytes()
        part.write_bytes(content[:synced] + bytes(len(content) - synced))
        (dest / ".incomplete" / "boot_id").write_text("the boot before")
        assert snapshot(hub, repo_id="org/large")["verified"]
        assert asked(hub) == [(synced or None, len(WEIGHTS) - synced)]


def test_a_part_that_is_wrong_is_fetched_anew(snapshot: Any, large: Path, dest: Path) -> None:
    with Hub(large) as hub:
        part = interrupted(snapshot, hub, dest, 1_400_000)
        part.write_bytes(b"x" + part.read_bytes()[1:])
        assert snapshot(hub, repo_id="org/large")["verified"]
        assert asked(hub) == [(1_400_000, len(WEIGHTS) - 1_400_000), (None, len(WEIGHTS))]


def test_a_part_serves_another_commit_too(snapshot: Any, large: Path, dest: Path) -> None:
    with Hub(large) as hub:
        interrupted(snapshot, hub, dest, 1_400_000)
        (large / "org/large").rename(large / "org/large@old")
        write_files(large / "org/large", {**LARGE, "config.json": b'{"new": 1}\n'})
        result = snapshot(hub, repo_id="org/large")
        assert asked(hub) == [(1_400_000, len(WEIGHTS) - 1_400_000)]
        assert [path.name for path in dest.iterdir()] == [result["commit"]]


@pytest.mark.parametrize("state", ["present", "verified"])
def test_work_on_one_commit_leaves_what_another_one_waits_for(
    snapshot: Any, served: Hub, dest: Path, root: Path, state: str
) -> None:
    """Such as a verification at night, while a new model is half here."""
    old = snapshot(served)["commit"]
    new = {**FILES, "model.safetensors": WEIGHTS}
    moved(root, new)
    served.faults += [
        Fault(path="model.safetensors", close_after=2_700_000),
        Fault(path="model.safetensors", status=403),
    ]
    assert snapshot(served)["failed"]
    (dest / old / "config.json").unlink()
    assert snapshot(served, revision=old, state=state)["fetched"] == ["config.json"]
    for check_mode in (True, False):
        assert not snapshot(served, revision=old, check_mode=check_mode)["changed"]
    served.log.clear()
    assert snapshot(served)["verified"]
    assert asked(served) == [(2_700_000, 300_000)]
    assert {path.name for path in dest.iterdir()} == {old, snapshot(served)["commit"]}


def test_what_nobody_will_fetch_goes_with_older_snapshots(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    old = snapshot(served)["commit"]
    moved(root, {**FILES, "model.safetensors": WEIGHTS})
    served.faults += [Fault(path="model.safetensors", close_after=5000), Fault(path="model.safetensors", status=403)]
    assert snapshot(served)["failed"]
    for check_mode in (True, False):
        result = snapshot(served, revision=old, keep=0, check_mode=check_mode)
        assert (result["changed"], result["removed"]) == (True, [str(dest / ".incomplete")])
    assert [path.name for path in dest.iterdir()] == [old]


@pytest.mark.parametrize("others", [False, True])
def test_killed_between_the_snapshot_and_the_end(
    snapshot: Any, served: Hub, dest: Path, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_staging.Staging, "close", lambda *_args, **_kwargs: None)
        commit = snapshot(served)["commit"]
    left = dest / ".incomplete"
    assert len(list(left.iterdir())) == 1 + len(FILES)
    if others:
        (left / f"{'5' * 64}.part").write_bytes(b"another commit's")
    served.requests.clear()
    with _snapshot.locked(str(dest)):
        # It may be another run's, which works on it.
        assert not snapshot(served, revision=commit, check_mode=True)["changed"]
    foretold = snapshot(served, revision=commit, check_mode=True)
    result = snapshot(served, revision=commit)
    assert (foretold["removed"], result["changed"], served.requests) == (result["removed"], True, [])
    assert len(result["removed"]) == (len(FILES) if others else 1)
    assert left.exists() == others
    assert not snapshot(served, revision=commit)["changed"]


def test_who_may_not_look_into_unfinished_work_sees_the_snapshot(
    snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = snapshot(served)["commit"]
    (dest / ".incomplete").mkdir()

    def denied(self: _staging.Staging) -> None:
        raise PermissionError(13, "Permission denied", self.path)

    monkeypatch.setattr(_staging.Staging, "contents", denied)
    for check_mode in (True, False):
        assert snapshot(served, revision=commit, check_mode=check_mode)["changed"] is False


@pytest.mark.parametrize("enough", [True, False])
def test_what_another_commit_left_makes_no_disk_too_small(
    snapshot: Any, large: Path, dest: Path, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, and then the branch moved on to other weights of the same size."""
    with Hub(large) as hub:
        stale = interrupted(snapshot, hub, dest, 1_400_000)
        (large / "org/large").rename(large / "org/large@old")
        write_files(large / "org/large", {**LARGE, "model.safetensors": WEIGHTS[::-1]})
        size = os.path.getsize

        def usage(_path: str) -> Any:
            used = sum(size(path) for path in dest.rglob("*") if path.is_file() and path.suffix != ".synced")
            return Usage(0, 0, len(WEIGHTS) + 1_000 - used - (0 if enough else 1_000_000))

        monkeypatch.setattr(_snapshot.shutil, "disk_usage", usage)
        for check_mode in (True, False):
            result = snapshot(hub, repo_id="org/large", check_mode=check_mode)
            assert result["failed"] != enough, result
            assert stale.exists() == (check_mode or not enough)
        if not enough:
            assert result["msg"].startswith(f"{dest} needs 4 MB, and ")


def test_check_mode_knows_what_has_come(snapshot: Any, large: Path, dest: Path) -> None:
    with Hub(large) as hub:
        interrupted(snapshot, hub, dest, 1_400_000)
        foretold = snapshot(hub, repo_id="org/large", check_mode=True)["bytes_downloaded"]
        assert foretold in (len(WEIGHTS) - 1_400_000, len(WEIGHTS) - 1_400_000 + len(LARGE["config.json"]))
        assert snapshot(hub, repo_id="org/large")["bytes_downloaded"] == foretold


def test_two_processes_at_once(snapshot_process: Any, served: Hub, dest: Path, tmp_path: Path) -> None:
    served.faults.append(Fault(path="model.safetensors", stall_after=5000, seconds=1))
    children = [snapshot_process(served, progress_file=str(tmp_path / f"line-{number}")) for number in range(2)]
    lines = [tmp_path / f"line-{number}" for number in range(2)]
    waits = f"{REPOSITORY}: waits for another run on {dest}"
    wait_until(lambda: any(line.exists() and line.read_text().endswith(waits) for line in lines))
    results = []
    for child in children:
        output, errors = child.communicate(timeout=30)
        assert child.returncode == 0, output + errors
        results.append({"failed": False, **json.loads(output)})
    assert sorted(result["changed"] for result in results) == [False, True]
    for result in results:
        require_published(result, dest)
        assert result["verified"]
    assert len(fetched(served)) <= len(FILES), "each file once, and once more what stalled"


def test_absent_waits_for_a_download(snapshot: Any, snapshot_process: Any, served: Hub, dest: Path) -> None:
    served.faults.append(Fault(path="model.safetensors", stall_after=5000, seconds=1))
    child = snapshot_process(served)
    wait_until(lambda: list(dest.glob(".incomplete/*.part")))
    result = snapshot(served, state="absent")
    assert child.wait(timeout=30) == 0
    assert (result["changed"], dest.exists()) == (True, False)


# The network between.


def test_the_token_stays_with_the_hub(snapshot: Any, large: Path, dest: Path) -> None:
    with Hub(large, token=TOKEN, cdn=True) as hub:
        hub.faults.append(Fault(path="model.safetensors", host="cdn", reset_after=1_000_000))
        result = snapshot(hub, repo_id="org/large", token=TOKEN)
        assert result["verified"], result
        seen = [(answer.host, answer.authorized) for answer in hub.log if "model.safetensors" in answer.path]
        assert seen == [("hub", True), ("cdn", False)] * 2
        assert asked(hub)[3][0] > 0, "it goes on there by Range"


def test_a_signed_address_that_expired_is_asked_for_again(snapshot: Any, large: Path) -> None:
    with Hub(large, cdn=True) as hub:
        hub.faults.append(Fault(path="model.safetensors", host="cdn", status=403))
        assert snapshot(hub, repo_id="org/large")["verified"]
        assert [answer.host for answer in hub.log if "model.safetensors" in answer.path] == ["hub", "cdn"] * 2


def test_a_stall_is_named(snapshot: Any, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(_progress.Progress, "say", lambda self, line: lines.append(line))
    with Hub(large, cdn=True) as hub:
        hub.faults.append(Fault(path="model.safetensors", host="cdn", stall_after=0, times=2))
        assert snapshot(hub, repo_id="org/large", timeout=1, progress_file=str(tmp_path / "line"))["verified"]
    assert any("model.safetensors: no byte for 1 s from localhost, attempt 2 of 6" in line for line in lines), lines


def test_connections_are_used_again(snapshot: Any, root: Path) -> None:
    write_files(root / "org" / "many", {f"part-{number}.json": b"%d" % number for number in range(20)})
    ports = set()

    class Counting(Hub):
        def before(self, request: Any) -> bool:
            if "/resolve/" in request.path:
                ports.add(request.client_address[1])
            return False

    with Counting(root) as hub:
        assert snapshot(hub, repo_id="org/many")["files"] == 20
    assert len(ports) <= 2


def test_a_certificate_that_nobody_vouches_for() -> None:
    message = _hub.untrusted("hub.example", ValueError("self-signed"))
    assert message.endswith("(self-signed): name the bundle of its authority in REQUESTS_CA_BUNDLE")


def test_the_rate_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [0.0], []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    monkeypatch.setattr(_transfer.time, "monotonic", lambda: now[0])
    limit = _transfer.RateLimit(1000, Stopped())
    limit.take(500)
    limit.take(500)
    now[0] = 10.0
    limit.take(100)
    assert waits == pytest.approx([0.5, 1.0, 0.1]), "a pause is no credit"


@pytest.mark.parametrize(("rate", "chunk"), [(None, 524288), (8_000_000_000, 524288), (1 << 20, 131072), (1000, 16384)])
def test_a_slow_stream_comes_in_small_pieces(rate: int | None, chunk: int) -> None:
    assert _transfer.Transfer(None, "", None, None, max_rate=rate).chunk == chunk


def test_a_limit_of_the_rate_is_kept(snapshot: Any, large: Path) -> None:
    with Hub(large) as hub:
        result = snapshot(hub, repo_id="org/large", max_rate="2M")
        assert result["verified"]
        assert result["elapsed"] > 1


# Files that plain HTTP does not bring.


def test_a_file_above_the_limit_comes_by_the_client(
    snapshot: Any, large: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "HTTP_LIMIT", 1_000_000)
    with Hub(large) as hub:
        # A mirror has no such limit, and no Xet.
        assert snapshot(hub, repo_id="org/large", dest=str(dest) + "-mirror")["verified"]
        assert not any(answer.method == "HEAD" for answer in hub.log)
        monkeypatch.setattr(_hub, "DEFAULT_ENDPOINT", hub.url)
        hub.faults.append(Fault(path="model.safetensors", flip=5))
        result = snapshot(hub, repo_id="org/large")
        assert result["verified"], result
        assert any(answer.method == "HEAD" for answer in hub.log)
        assert (dest / result["commit"] / "model.safetensors").read_bytes() == WEIGHTS
        assert [path.name for path in dest.iterdir()] == [result["commit"]]
        moved(large, FILES)


@pytest.mark.parametrize("methods", [["HEAD"], ["GET"], ["HEAD", "GET"]])
def test_the_hub_is_away_for_a_moment(snapshot: Any, large: Path, methods: list[str], monkeypatch: Any) -> None:
    """HEAD is what the client begins a file with; GET of the revision is the first contact of all."""
    monkeypatch.setattr(_transfer, "HTTP_LIMIT", 1_000_000)
    with Hub(large) as hub:
        monkeypatch.setattr(_hub, "DEFAULT_ENDPOINT", hub.url)
        faults = [Fault(path="", methods=[method], status=503) for method in methods]
        hub.faults += faults
        assert snapshot(hub, repo_id="org/large")["verified"]
        assert [fault.times for fault in faults] == [0] * len(faults)


# Disks.


def test_a_disk_that_fills_up(snapshot: Any, large: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub(large) as hub:
        append = _transfer.Content.append

        def full(self: _transfer.Content, piece: bytes) -> None:
            if self.length >= 1_000_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            append(self, piece)

        with monkeypatch.context() as patch:
            patch.setattr(_transfer.Content, "append", full)
            result = snapshot(hub, repo_id="org/large", max_workers=1)
        assert result["msg"] == (
            f"no space is left for {dest}: free some and run again, it goes on from where it stopped"
        )
        (part,) = dest.glob(".incomplete/*.part")
        held = part.stat().st_size
        assert held >= 1_000_000
        assert snapshot(hub, repo_id="org/large")["verified"]
        assert asked(hub)[-1] == (held, len(WEIGHTS) - held)


def test_a_disk_that_fills_up_at_the_end(
    snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_staging.Staging, "note", full)
        assert snapshot(served)["failed"]
    assert [path.name for path in dest.iterdir()] == [".incomplete"]
    served.log.clear()
    require_published(snapshot(served), dest)
    assert fetched(served) == [], "all of it was there"


def test_a_real_disk_that_is_full(snapshot: Any, large: Path, tmp_path: Path) -> None:
    """Nothing is asked for when it cannot fit; /dev/full stands in for no disk, so the numbers are the real ones."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with Hub(large) as hub:
        # Others write to it and free it meanwhile.
        result = snapshot(hub, repo_id="org/large", min_free=str(free + 10**9))
        assert result["failed"]
        mount = next(folder for folder in (tmp_path, *tmp_path.parents) if folder.is_mount())
        assert f"that stay free (min_free), and {mount} has " in result["msg"]
        assert fetched(hub) == []


def test_bytes_that_are_there_need_no_room(snapshot: Any, large: Path, dest: Path) -> None:
    with Hub(large) as hub:
        interrupted(snapshot, hub, dest, 1_400_000)
        assert (
            snapshot(hub, repo_id="org/large", check_mode=True)["bytes_downloaded"] < TOTAL + len(WEIGHTS) - 1_399_999
        )
