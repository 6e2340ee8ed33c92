"""Tests of the tool that interrupts a program where its output says where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"


def run(*options: str, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SUPPORT / "interrupt.py", *options, "--", "bash", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_command_is_run_at_the_line(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"echo first; echo second; while [ ! -e {mark} ]; do sleep 0.05; done; echo seen; exit 3"
    result = run("--at", "^sec", "--do", f"touch {mark}", program=program)
    assert result.returncode == 3
    assert result.stdout.splitlines() == ["first", "second", f"interrupt: touch {mark}", "seen"]


def test_all_of_a_program_is_killed_at_the_line(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = run("--at", "second", "--kill", program=f"(sleep 2; touch {mark}) & echo second; sleep 60")
    assert result.returncode == 137
    assert subprocess.run(["sleep", "3"], check=True) and not mark.exists()


def test_a_line_that_never_comes_is_no_success() -> None:
    result = run("--at", "third", "--do", "true", program="echo first")
    assert (result.returncode, "no line was like third" in result.stdout) == (99, True)


def test_neither_is_a_command_that_fails() -> None:
    assert run("--at", "first", "--do", "false", program="echo first").returncode == 99
