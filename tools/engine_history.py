"""Writes plugins/module_utils/_engine_history.py: which options each release of vLLM takes.

    .venv/bin/python tools/engine_history.py [--add FILE...] [--check]

It is made from tests/data/engine_parsers.json.xz, the parsers of all known releases. --add adds parsers first: what the
role vllm_server keeps in schemas/ on a host. --check says whether the table is what the parsers give.

A parser is {"version": ..., "actions": [...]}, argparse's actions without their help.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_schema as schemas

# The release since which an option is so, and what it is, or None where it is gone.
Entry = tuple[str, dict[str, Any] | None]

ROOT = Path(__file__).resolve().parent.parent
PARSERS = ROOT / "tests" / "data" / "engine_parsers.json.xz"
TABLE = ROOT / "plugins" / "module_utils" / "_engine_history.py"
HEAD = '''# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which options each release of vLLM takes. Written by tools/engine_history.py, from the parsers of the releases.

RELEASES: those that are known, the oldest first. HISTORY: {option: [(release since which it is so, what it is, or None
where it is gone), ...]}.
"""

from __future__ import annotations

from typing import Any

'''
HISTORY_TYPE = "dict[str, list[tuple[str, dict[str, Any] | None]]]"
# Types that no recorded parser tells.
KINDS = {
    "max_lora_cls_labels": schemas.INT,
    "max_num_active_seqs": schemas.INT,
    "max_num_queued_reqs": schemas.INT,
    "max_num_queued_tokens": schemas.INT,
    "max_num_scheduled_tokens": schemas.INT,
}


def read_parsers() -> dict[str, list[dict[str, Any]]]:
    """Return the actions of each release, the oldest first."""
    parsers = json.loads(lzma.decompress(PARSERS.read_bytes()))
    return {version: parsers[version] for version in sorted(parsers, key=schemas.version_key)}


def write_parsers(parsers: dict[str, list[dict[str, Any]]]) -> None:
    text = json.dumps(parsers, sort_keys=True, separators=(",", ":"))
    PARSERS.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def table(parsers: dict[str, list[dict[str, Any]]]) -> dict[str, list[Entry]]:
    """Return the history. A type that a release does not tell is that of a release which does."""
    by_version = {version: schemas.from_actions(version, actions).options for version, actions in parsers.items()}
    told: dict[str, str] = dict(KINDS)
    for options in by_version.values():
        for name, option in options.items():
            if option.kind != schemas.ANY and option.form == schemas.VALUE and not option.choices:
                told[name] = option.kind
    history: dict[str, list[Entry]] = {}
    for version, options in by_version.items():
        for name in sorted(set(history) | set(options)):
            record = None
            if name in options:
                option = options[name]
                if option.kind == schemas.ANY:
                    option = replace(option, kind=schemas.TEXT if option.choices else told.get(name, schemas.ANY))
                # The text of a configuration object is no default that anybody could set.
                if isinstance(option.default, str) and re.match(r"\w*[({]", option.default):
                    option = replace(option, default=None)
                record = schemas.to_record(option)
            entries = history.setdefault(name, [])
            if (entries[-1][1] if entries else None) != record:
                entries.append((version, record))
    return history


def render(parsers: dict[str, list[dict[str, Any]]]) -> str:
    history = dict(sorted(table(parsers).items()))
    text = f"{HEAD}RELEASES = {tuple(parsers)!r}\nHISTORY: {HISTORY_TYPE} = {history!r}\n"
    ruff = [str(Path(sys.executable).with_name("ruff")), "format", "--stdin-filename", str(TABLE), "-"]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def main() -> int:
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--add", nargs="+", type=Path, default=[], metavar="FILE")
    cli.add_argument("--check", action="store_true")
    args = cli.parse_args()
    if args.add:
        parsers = read_parsers() if PARSERS.exists() else {}
        for path in args.add:
            parser = json.loads(path.read_text())
            parsers[parser["version"].split("+")[0]] = parser["actions"]
        write_parsers(parsers)
    text = render(read_parsers())
    if args.check:
        return 0 if TABLE.read_text() == text else 1
    TABLE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
