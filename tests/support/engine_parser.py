"""The parser of a release of vLLM, as tests/data/engine_parsers.json.xz has recorded it.

An argparse parser with the options, values and choices of the release, to see whether it takes a command line. What it
does with them is vLLM's to say.
"""

from __future__ import annotations

import argparse
import functools
import json
import lzma
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

RECORDED = Path(__file__).resolve().parent.parent / "data" / "engine_parsers.json.xz"


class Refused(Exception):
    """What the parser says, as it would stand in the log of a container that ended with 2."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(message)


class EnableDisable(argparse.Action):
    """--x and --no-x, or --enable-x and --disable-x."""

    def __init__(self, option_strings: Sequence[str], dest: str, negatives: Sequence[str], **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **kwargs)
        self.negatives = negatives

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string not in self.negatives)


def true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def human_int(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text)
    if not found:
        return int(text)
    factor = (1000 if found.group(2).islower() else 1024) ** ("kmgt".index(found.group(2).lower()) + 1)
    number = float(found.group(1)) * factor
    if found.group(2).isupper() and "." in found.group(1):
        raise ValueError
    return int(number)


def human_int_or_auto(text: str) -> int:
    return -1 if text in ("auto", "-1") else human_int(text)


def key_values(text: str) -> dict[str, int]:
    return {key: int(number) for key, number in (pair.split("=") for pair in text.split(","))}


TYPES: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "loads": json.loads,
    "from_json": json.loads,
    "parse_dataclass": json.loads,
    "human_readable_int": human_int,
    "human_readable_int_or_auto": human_int_or_auto,
    "nullable_kvs": key_values,
}


@functools.cache
def recorded() -> dict[str, list[dict[str, Any]]]:
    """The actions of each release."""
    actions: dict[str, list[dict[str, Any]]] = json.loads(lzma.decompress(RECORDED.read_bytes()))
    return actions


@functools.cache
def parser_of(version: str) -> Parser:
    parser = Parser(prog="vllm", add_help=False)
    for action in recorded()[version]:
        flags, kind = action["flags"], (action["type"] or "str").removesuffix("]").rpartition("[")[2]
        if not flags:
            parser.add_argument(action["dest"], nargs=action["nargs"])
            continue
        # argparse would have a default that is text parsed as a value.
        default = None if isinstance(action["default"], str) else action["default"]
        common: dict[str, Any] = {"dest": action["dest"], "default": default, "help": "what it does"}
        match action["action"]:
            case "_HelpAction":
                continue
            case "_StoreTrueAction":
                parser.add_argument(*flags, action="store_true", **common)
            case "BooleanOptionalAction" | "EnableDisableAction":
                every = [*flags, *action.get("hidden", [])]
                long = next(flag for flag in flags if flag.startswith("--"))
                negatives = [flag for flag in every if flag not in (long, "-ep", "-dpe", "-dph")]
                parser.add_argument(*every, action=EnableDisable, negatives=negatives, **common)
            case "StoreBoolean":
                parser.add_argument(*flags, nargs="?", const="True", type=true_or_false, **common)
            case "_AppendAction":
                parser.add_argument(*flags, action="append", **common)
            case _:
                choices = action["choices"] and [c for c in action["choices"] if c is not None]
                parser.add_argument(*flags, nargs=action["nargs"], choices=choices, type=TYPES.get(kind, str), **common)
    return parser


def parse(version: str, argv: Sequence[str]) -> dict[str, Any]:
    """What the release makes of a command line; raises Refused."""
    return vars(parser_of(version).parse_args(argv))
