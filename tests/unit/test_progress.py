"""Tests of the line that a long-running module writes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._progress import Progress, human_bytes, process


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while path.read_text() != f"{process()}\n{text}":
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.01)


def test_the_file_lives_as_long_as_the_module(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "progress-1"
    counted = iter(range(1000))
    with Progress(str(path)) as progress:
        assert path.read_text() == f"{process()}\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        progress.say("by hand 日本")
        assert path.read_text(encoding="utf-8") == f"{process()}\nby hand 日本"
        with progress.every(0.01, lambda: f"line {min(next(counted), 3)}"):
            wait_for(path, "line 3")
            assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == []
    time.sleep(0.05)
    assert list(path.parent.iterdir()) == []


def test_a_process_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    number, start = process().split()
    assert int(number) == os.getpid() and int(start) > 0

    def denied(*_args: object, **_kwargs: object) -> None:
        raise PermissionError

    monkeypatch.setattr("builtins.open", denied)
    assert process() == "-"


def test_the_file_goes_with_a_failed_module(tmp_path: Path) -> None:
    path = tmp_path / "progress-1"
    with pytest.raises(RuntimeError, match="no"), Progress(str(path)) as progress, progress.every(1, lambda: "line"):
        raise RuntimeError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_somebody_took_away_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "progress-1"
    with Progress(str(path)):
        path.unlink()


def test_without_a_file_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Progress(None) as progress:
        progress.say("line")
        with progress.every(0.01, lambda: pytest.fail("nobody would read it")):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (117_600_000, "117.6 MB"),
        (37_203_456_789, "37.2 GB"),
        (1.5e12, "1.5 TB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_human_bytes(count: float, text: str) -> None:
    assert human_bytes(count) == text
