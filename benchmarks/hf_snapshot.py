"""What hf_snapshot costs beside the Hub's own client and curl, on loopback.

    .venv/bin/python benchmarks/hf_snapshot.py [--rounds 3] [--scale 1.0] [--folder DIR]

One double of the Hub (tests/support/hub.py) serves 2 GiB as one file, and as 200 files of 8 MiB. In each round every
tool fetches the same repository into an empty folder, one after the other; printed are the medians of wall time, CPU
seconds (of the tool's process, user and system) and peak memory. hf_snapshot checks every byte by sha256, the others
check nothing. Then: a run that finds nothing to do beside an empty module, `state: verified` beside `openssl dgst` on
all cores, and what is moved again after `kill -9`. --scale makes all sizes smaller. --folder needs 10 GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "support"))

from hub import Hub  # noqa: E402

MIB = 1 << 20
BIN = Path(sys.executable).parent
MODULE = "ansible_collections.llmops.vllm.plugins.modules.hf_snapshot"
EMPTY_MODULE = "from ansible.module_utils.basic import AnsibleModule\nAnsibleModule(argument_spec={}).exit_json()\n"


@dataclass
class Run:
    """What one process took: wall and CPU in seconds, peak memory in MiB."""

    wall: float
    cpu: float
    memory: float
    output: str


def measure(command: list[str], **environment: str) -> Run:
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.DEVNULL, env={**os.environ, **environment}, cwd=PROJECT
        )
        _pid, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode} of {' '.join(command)}\n{text}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def module(work: Path, **params: Any) -> list[str]:
    arguments = work / "arguments.json"
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": params}))
    return [sys.executable, "-m", MODULE, str(arguments)]


def result(run: Run) -> dict[str, Any]:
    return json.loads(run.output.strip().splitlines()[-1])


def make_repository(folder: Path, files: int, size: int) -> None:
    folder.mkdir(parents=True)
    for number in range(files):
        with (folder / f"model-{number + 1:05}-of-{files:05}.safetensors").open("wb") as stream:
            for start in range(0, size, MIB):
                stream.write(os.urandom(min(MIB, size - start)))


def print_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n{title}\n")
    for row in [head, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def downloads(hub: Hub, work: Path, repositories: dict[str, str], rounds: int) -> None:
    for repo_id, title in repositories.items():
        names = sorted(path.name for path in (hub.root / repo_id).iterdir())
        dest = work / "dest"

        def curl(repo_id: str = repo_id, names: list[str] = names, dest: Path = dest) -> Run:
            urls = work / "urls"
            resolve = f"{hub.url}/{repo_id}/resolve/main"
            urls.write_text("".join(f'url = "{resolve}/{name}"\noutput = "{dest}/{name}"\n' for name in names))
            dest.mkdir()
            return measure(["curl", "--silent", "--fail", "--parallel", "--parallel-max", "8", "--config", str(urls)])

        def client(repo_id: str = repo_id, dest: Path = dest) -> Run:
            command = [str(BIN / "hf"), "download", repo_id, "--local-dir", str(dest), "--max-workers", "8"]
            return measure(
                command, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HOME=str(work)
            )

        def ours(repo_id: str = repo_id, dest: Path = dest) -> Run:
            return measure(module(work, repo_id=repo_id, dest=str(dest), endpoint=hub.url))

        tools: dict[str, Callable[[], Run]] = {"curl": curl, f"hf download {client_version()}": client}
        tools["hf_snapshot, sha256 checked"] = ours
        runs: dict[str, list[Run]] = {name: [] for name in tools}
        for _round in range(rounds + 1):
            for name, tool in tools.items():
                shutil.rmtree(dest, ignore_errors=True)
                os.sync()
                runs[name].append(tool())
        shutil.rmtree(dest)
        rows, reference = [], medians(list(runs.values())[1][1:])
        for name, measured in runs.items():
            measured = measured[1:]  # the first round fills the page cache
            median = medians(measured)
            rows.append(
                [
                    name,
                    f"{median['wall']:.1f}",
                    f"{median['cpu']:.1f}",
                    f"{median['wall'] / reference['wall']:.2f}",
                    f"{median['cpu'] / reference['cpu']:.2f}",
                    f"{median['memory']:.0f}",
                    " ".join(f"{run.wall:.1f}/{run.cpu:.1f}" for run in measured),
                ]
            )
        head = ["tool", "wall s", "CPU s", "wall ratio", "CPU ratio", "peak MiB", "rounds (wall/CPU)"]
        print_table(title, head, rows)


def medians(runs: list[Run]) -> dict[str, float]:
    return {key: statistics.median(getattr(run, key) for run in runs) for key in ("wall", "cpu", "memory")}


def client_version() -> str:
    import huggingface_hub

    return huggingface_hub.__version__


def no_op(hub: Hub, work: Path, repo_id: str, rounds: int) -> None:
    dest = str(work / "dest")
    first = result(measure(module(work, repo_id=repo_id, dest=dest, endpoint=hub.url)))
    empty = work / "empty.py"
    empty.write_text(EMPTY_MODULE)
    (work / "empty.json").write_text('{"ANSIBLE_MODULE_ARGS": {}}')
    again = module(work, repo_id=repo_id, dest=dest, endpoint="http://127.0.0.1:9", revision=first["commit"])
    runs: dict[str, list[Run]] = {"empty module": [], f"nothing to do, {first['files']} files": []}
    for _round in range(max(rounds, 5)):
        runs["empty module"].append(measure([sys.executable, str(empty), str(work / "empty.json")]))
        runs[list(runs)[1]].append(measure(again))
    rows = [
        [
            name,
            f"{statistics.median(r.wall for r in measured):.3f}",
            f"{statistics.median(r.cpu for r in measured):.3f}",
        ]
        for name, measured in runs.items()
    ]
    print_table("A commit that is there (no request)", ["run", "wall s", "CPU s"], rows)
    shutil.rmtree(dest)


def verified(hub: Hub, work: Path, repo_id: str, rounds: int) -> None:
    dest = str(work / "dest")
    fetched = result(measure(module(work, repo_id=repo_id, dest=dest, endpoint=hub.url)))
    folder, commit = Path(fetched["path"]), fetched["commit"]
    files = sorted(folder.glob("*.safetensors"))
    cores = len(os.sched_getaffinity(0))
    # Without a file, openssl would wait for its input.
    shares = [share for share in (files[core::cores] for core in range(cores)) if share]
    runs: dict[str, list[float]] = {
        f"openssl dgst -sha256, {len(shares)} at once": [],
        "state: verified, in the module": [],
    }
    for _round in range(rounds + 1):
        started = time.monotonic()
        at_once = [
            subprocess.Popen(["openssl", "dgst", "-sha256", *share], stdout=subprocess.DEVNULL) for share in shares
        ]
        for process in at_once:
            process.wait()
        runs[list(runs)[0]].append(time.monotonic() - started)
        again = module(work, repo_id=repo_id, dest=dest, endpoint=hub.url, revision=commit, state="verified")
        runs[list(runs)[1]].append(result(measure(again))["elapsed"])
    base = statistics.median(list(runs.values())[0][1:])
    rows = [
        [
            name,
            f"{statistics.median(taken[1:]):.2f}",
            f"{statistics.median(taken[1:]) / base:.2f}",
            " ".join(f"{t:.2f}" for t in taken[1:]),
        ]
        for name, taken in runs.items()
    ]
    size = sum(file.stat().st_size for file in files) / (1 << 30)
    print_table(f"sha256 of {size:.1f} GiB in the page cache", ["run", "s", "ratio", "rounds"], rows)
    shutil.rmtree(dest)


def kills(hub: Hub, work: Path, repo_id: str) -> None:
    dest = work / "dest"
    total = sum(path.stat().st_size for path in (hub.root / repo_id).iterdir())
    command = module(work, repo_id=repo_id, dest=str(dest), endpoint=hub.url)

    def run_until(share: float) -> None:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PROJECT)
        staging = dest / ".incomplete"
        while process.poll() is None:
            held = 0
            for path in staging.glob("[0-9a-f]*[0-9a-f.part]") if staging.is_dir() else []:
                with contextlib.suppress(FileNotFoundError):
                    held += path.stat().st_size
            if held >= share * total:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()

    rows = []
    at_random = sorted(random.uniform(0.05, 0.95) for dummy in range(5))
    for title, shares in (("at 90 %", [0.9]), ("5 times at random", at_random)):
        before = hub.bytes_sent
        for share in shares:
            run_until(share)
        sent = hub.bytes_sent - before
        finished = result(measure(command))
        moved = hub.bytes_sent - before
        assert finished["verified"], finished
        rows.append(
            [
                title,
                " ".join(f"{share:.0%}" for share in shares),
                f"{finished['bytes_downloaded'] / total:.3f}",
                f"{moved / total:.3f}",
                f"{sent / total:.3f}",
            ]
        )
        shutil.rmtree(dest)
    head = ["killed", "where", "the last run moves", "sent in all", "sent before it"]
    print_table(f"kill -9, in parts of {total / (1 << 30):.1f} GiB", head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--only", choices=["downloads", "no-op", "verified", "kills"], action="append")
    args = parser.parse_args()
    parts = args.only or ["downloads", "no-op", "verified", "kills"]
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-") as folder:
        root, work = Path(folder) / "hub", Path(folder) / "work"
        work.mkdir()
        make_repository(root / "bench" / "one", 1, int(2048 * MIB * args.scale))
        make_repository(root / "bench" / "many", 200, int(8 * MIB * args.scale))
        if "verified" in parts:
            make_repository(root / "bench" / "large", 8, int(512 * MIB * args.scale))
        with Hub(root) as hub:
            for repository in hub.repositories():
                hub.snapshot(repository)
            if "downloads" in parts:
                one, many = f"{args.scale * 2:g} GiB in one file", f"200 files of {args.scale * 8:g} MiB"
                downloads(hub, work, {"bench/one": one, "bench/many": many}, args.rounds)
            if "no-op" in parts:
                no_op(hub, work, "bench/many", args.rounds)
            if "verified" in parts:
                verified(hub, work, "bench/large", args.rounds)
            if "kills" in parts:
                kills(hub, work, "bench/one")


if __name__ == "__main__":
    main()
