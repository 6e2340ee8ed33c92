"""Tests of the line that says how far a snapshot is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _meter
from ansible_collections.llmops.vllm.plugins.module_utils._meter import Meter, folder_bytes, human_seconds


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_line_of_a_download(clock: Clock) -> None:
    meter = Meter("org/name", 40_000_000_000, begun_with=4_000_000_000, clock=clock)
    assert meter.line() == "org/name: 10 % fetched (4.0 GB of 40.0 GB, 0 B/s)"
    with meter.file("a.safetensors"), meter.file("b.safetensors"):
        clock.now += 10
        meter.add(6_000_000_000)
        assert meter.line() == (
            "org/name: 25 % fetched (10.0 GB of 40.0 GB, 600.0 MB/s, 50 s left, a.safetensors and 1 more)"
        )
    meter.add(30_000_000_000)
    assert meter.line().startswith("org/name: 100 % fetched (40.0 GB of 40.0 GB, ")
    assert "left" not in meter.line()


def test_what_holds_it_up_is_said(clock: Clock) -> None:
    meter = Meter("org/name", 100, clock=clock)
    with meter.file("a"), meter.file("b") as note:
        note("no byte for 30 s from cdn.example, attempt 2 of 6")
        assert meter.line() == (
            "org/name: 0 % fetched (0 B of 100 B, 0 B/s, b: no byte for 30 s from cdn.example, attempt 2 of 6)"
        )
        note("")
        assert meter.line() == "org/name: 0 % fetched (0 B of 100 B, 0 B/s, a and 1 more)"
    assert meter.line() == "org/name: 0 % fetched (0 B of 100 B, 0 B/s)"


def test_silence_is_said(clock: Clock) -> None:
    meter = Meter("org/name", 100, clock=clock)
    with meter.file("a"):
        clock.now += 12
        assert meter.line() == "org/name: 0 % fetched (0 B of 100 B, 0 B/s, a, no byte for 12 s)"
        meter.add(1)
        assert "no byte" not in meter.line()


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    meter = Meter("org/name", 10**9, clock=clock)
    meter.add(10**8)
    for _second in range(60):
        clock.now += 1
        meter.add(1000)
        line = meter.line()
    assert ", 1.0 kB/s, " in line


def test_bytes_that_have_to_come_again_are_taken_back(clock: Clock) -> None:
    meter = Meter("org/name", 1000, clock=clock)
    meter.add(999)
    assert ": 99 % " in meter.line()
    meter.take_back(999)
    assert ": 0 % " in meter.line()
    assert meter.moved == 999


def test_what_somebody_else_writes_counts(tmp_path: Path, clock: Clock) -> None:
    meter = Meter("org/name", 1000, clock=clock)
    with meter.folder(str(tmp_path / "not-yet")):
        assert ": 0 % " in meter.line()
        (tmp_path / "not-yet" / "deep").mkdir(parents=True)
        (tmp_path / "not-yet" / "deep" / "file").write_bytes(b"x" * 500)
        assert ": 50 % " in meter.line()
    assert meter.moved == 500
    assert ": 50 % " in meter.line()


def test_what_somebody_else_did_not_finish_counts_no_more(tmp_path: Path, clock: Clock) -> None:
    meter = Meter("org/name", 1000, clock=clock)
    with pytest.raises(RuntimeError), meter.folder(str(tmp_path)):
        (tmp_path / "file").write_bytes(b"x" * 500)
        raise RuntimeError
    assert (meter.moved, meter.done) == (0, 0)


def test_downloads_may_begin_while_they_are_counted(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter("org/name", 1000, clock=clock)
    begun = iter("bcdefghijklmnopqrstuvwxyz")

    def begin(_path: str) -> int:
        meter._folders.add(next(begun))
        return 5

    monkeypatch.setattr(_meter, "folder_bytes", begin)
    with meter.folder("a"):
        assert "5 B of 1.0 kB" in meter.line()


def test_nothing_to_do(clock: Clock) -> None:
    assert Meter("org/name", 0, clock=clock).line() == "org/name: 0 % fetched (0 B of 0 B, 0 B/s)"


def test_a_wait_goes_with_its_file(clock: Clock) -> None:
    meter = Meter("org/name", 100, clock=clock)
    with pytest.raises(RuntimeError), meter.file("a") as note:
        note("status 503 from hub.example, attempt 2 of 6")
        raise RuntimeError
    assert meter.line() == "org/name: 0 % fetched (0 B of 100 B, 0 B/s)"


def test_folder_bytes(tmp_path: Path) -> None:
    assert folder_bytes(str(tmp_path / "nothing")) == 0
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("nowhere")
    assert folder_bytes(str(tmp_path)) == 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min"), (90000, "25 h 0 min")],
)
def test_human_seconds(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text
