"""Runs a command, and does something at the moment when its output says where it is.

    python tests/support/interrupt.py --at REGEX (--do COMMAND | --kill) -- PROGRAM [ARGUMENT ...]

The program's output is passed on. At the first line that REGEX matches, COMMAND is run by a shell before the next line
is read, or the program and all that it has started in its process group get SIGKILL, as when a controller loses its
power. Ends with the program's exit code; with 137 when it was killed, and with 99 when the line never came or COMMAND
failed, for then nothing was tested.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="interrupt", allow_abbrev=False)
    parser.add_argument("--at", type=re.compile, required=True)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--do")
    how.add_argument("--kill", action="store_true")
    parser.add_argument("program", nargs="+")
    args = parser.parse_args(argv)
    # Else Python holds back what a pipe gets.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    program = subprocess.Popen(
        args.program,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    )
    assert program.stdout
    done = False
    for line in program.stdout:
        print(line, end="", flush=True)
        if done or not args.at.search(line):
            continue
        done = True
        if args.kill:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            print("interrupt: killed", flush=True)
            return 137
        print(f"interrupt: {args.do}", flush=True)
        if subprocess.run(args.do, shell=True, check=False).returncode:
            print("interrupt: that failed", flush=True)
            program.wait()
            return 99
    program.wait()
    if not done:
        print(f"interrupt: no line was like {args.at.pattern}", flush=True)
        return 99
    return program.returncode


if __name__ == "__main__":
    sys.exit(main())
