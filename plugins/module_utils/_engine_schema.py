# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which options a vLLM takes, and how: from its parser, from its help, or from the table of known releases.

Pure logic: no files, no images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

# {option: [(release since which it is so, what it is, or None where it is gone), ...]}
History = Mapping[str, Sequence[tuple[str, Optional[Mapping[str, Any]]]]]

# How an option is written.
FLAG = "flag"  # --x
PAIR = "pair"  # --x, --no-x
SWITCH = "switch"  # --x, --x=true, --x=false
VALUE = "value"  # --x 1, or with nargs --x 1 2
APPEND = "append"  # --x 1 --x 2

# What its values are. ANY: the parser does not tell.
INT, FLOAT, TEXT, JSON, JSON_OR_TEXT, HUMAN_INT, HUMAN_INT_OR_AUTO, KEY_VALUES, ANY = (
    "int",
    "float",
    "text",
    "json",
    "json or text",
    "human int",
    "human int or auto",
    "key=value",
    "any",
)

# argparse's type functions as the releases 0.4.2 to 0.33.0 name them.
_KINDS = {
    "int": INT,
    "float": FLOAT,
    "str": TEXT,
    "nullable_str": TEXT,
    "bool": TEXT,
    "loads": JSON,
    "from_json": JSON,
    "parse_dataclass": JSON,
    "from_cli": JSON,
    "union_dict_and_str": JSON_OR_TEXT,
    "nullable_kvs": KEY_VALUES,
    "human_readable_int": HUMAN_INT,
    "human_readable_int_or_auto": HUMAN_INT_OR_AUTO,
    "parse_reasoning_parser": TEXT,
}
_FORMS = {
    "_StoreTrueAction": FLAG,
    "BooleanOptionalAction": PAIR,
    "EnableDisableAction": PAIR,
    "StoreBoolean": SWITCH,
    "_AppendAction": APPEND,
}


@dataclass(frozen=True)
class Option:
    """One option. name: spelled with underscores; flags: how it is written, the usual way first."""

    name: str
    flags: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    form: str = VALUE
    kind: str = TEXT
    nargs: str | None = None
    choices: tuple[Any, ...] = ()
    default: object = None
    deprecated: bool = False


@dataclass
class Schema:
    """The options of one vLLM. source: parser, help or table; version: such as 0.32.0, or '' where nothing tells."""

    version: str
    source: str
    options: dict[str, Option]
    # The release whose table it is, where it is not that of the version itself.
    table: str = ""
    _spellings: dict[str, tuple[Option, bool]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for option in self.options.values():
            for flag in option.flags:
                self._spellings[plain(flag)] = (option, True)
            for flag in option.negatives:
                self._spellings.setdefault(plain(flag), (option, False))

    def find(self, name: object) -> tuple[Option | None, bool]:
        """Return (option, True), or (option, False) for the name of its negative, or (None, True)."""
        return self._spellings.get(plain(name), (None, True))

    def beginning_with(self, name: str) -> list[str]:
        """Return the spellings, other than the name itself, that begin with it."""
        return sorted(spelling for spelling in self._spellings if spelling.startswith(name) and spelling != name)


def plain(name: object) -> str:
    """Return a name of an option as inventories spell it: ``--max-seq_len`` is max_seq_len."""
    return str(name).lstrip("-").replace("-", "_")


def version_key(version: str) -> tuple[int, ...]:
    """Return what versions are compared by; what follows the numbers counts only as .postN."""
    numbers = re.match(r"v?(\d+(?:\.\d+)*)(?:\.post(\d+))?", version)
    if not numbers:
        return ()
    release = [int(number) for number in numbers.group(1).split(".")]
    return tuple((release + [0, 0, 0])[: max(3, len(release))]) + (int(numbers.group(2) or 0),)


def version_of_tag(image: str) -> str:
    """Return the version that an image's tag tells, or ''. ``vllm/vllm-openai:v0.32.0-x86_64`` tells 0.32.0."""
    match = re.search(r":v?(\d+\.\d+\.\d+(?:\.post\d+)?)(?:[-+][\w.-]+)?(?:@sha256:[0-9a-f]+)?\Z", image)
    return match.group(1) if match else ""


def from_actions(version: str, actions: Iterable[Mapping[str, Any]], quantizations: Iterable[str] = ()) -> Schema:
    """Return the schema of a parser. actions: argparse's actions as the script in the image writes them.

    quantizations: methods that vLLM knows, where its parser takes any text for one (0.9.2 and newer).
    """
    options = [option_of(action) for action in actions if action["flags"] and action["action"] != "_HelpAction"]
    options = [
        replace(option, choices=tuple(quantizations))
        if option.name == "quantization" and not option.choices
        else option
        for option in options
    ]
    return Schema(version, "parser", {option.name: option for option in options})


def option_of(action: Mapping[str, Any]) -> Option:
    """Return the option of an action."""
    flags = list(action["flags"])
    hidden = list(action.get("hidden") or [])
    long = next((flag for flag in flags if flag.startswith("--")), flags[0])
    form = _FORMS.get(action["action"], VALUE)
    negatives = []
    if form == PAIR:
        opposites = _opposites(long)
        negatives = [flag for flag in flags + hidden if flag in opposites]
    positives = [long] + [flag for flag in flags if flag != long and flag not in negatives]
    return Option(
        name=plain(long),
        flags=tuple(positives),
        negatives=tuple(negatives),
        form=form,
        kind=kind_of(action["type"]) if form in (VALUE, APPEND) else TEXT,
        nargs=action["nargs"] if action["nargs"] in ("+", "*", "?") and form == VALUE else None,
        choices=tuple(choice for choice in action["choices"] or () if choice is not None),
        default=None if action["default"] == "==SUPPRESS==" else action["default"],
        deprecated=bool(action["deprecated"]),
    )


def _opposites(flag: str) -> set[str]:
    found = {"--no-" + flag[2:]}
    for one, other in (("--enable-", "--disable-"), ("--disable-", "--enable-")):
        if flag.startswith(one):
            found.add(other + flag[len(one) :])
    return found


def kind_of(type_name: str | None) -> str:
    """Return the kind for the name of a type function; ``optional_type[int]`` is an int that may be left out."""
    if type_name is None:
        return TEXT
    inner = type_name
    while inner.endswith("]") and "[" in inner:
        inner = inner[inner.index("[") + 1 : -1]
    return _KINDS.get(inner, ANY)


# One option of a help text, as argparse prints it in any version of Python: "  --x X, -x X  what it does".
_HELP_OPTION = re.compile(r"^  (?P<flags>-{1,2}[A-Za-z].*?)(?:\s{2,}(?P<help>\S.*))?$")


def from_help(version: str, text: str) -> Schema:
    """Return the schema that a help text tells: names, choices, pairs and defaults; of types it says nothing."""
    options: dict[str, Option] = {}
    blocks: list[list[str]] = []
    for line in text.splitlines():
        match = _HELP_OPTION.match(line)
        if match:
            blocks.append([match.group("flags"), match.group("help") or ""])
        elif blocks and line.startswith("   "):
            blocks[-1][1] += " " + line.strip()
        elif blocks and line.strip():
            # The heading of a group.
            blocks.append(["", ""])
    for flags_text, help_text in blocks:
        option = _option_of_help(flags_text, help_text)
        if option and option.name != "help":
            options.setdefault(option.name, option)
    return Schema(version, "help", options)


def _option_of_help(flags_text: str, help_text: str) -> Option | None:
    choices: tuple[str, ...] = ()
    listed = re.search(r"\{([^}]*)\}", flags_text)
    if listed:
        choices = tuple(choice for choice in listed.group(1).split(",") if choice and choice != "None")
        flags_text = flags_text.replace(listed.group(0), "CHOICE")
    parts = [part.strip() for part in flags_text.split(", ")]
    flags = [part.split(" ")[0] for part in parts if part.startswith("-")]
    if not flags:
        return None
    long = next((flag for flag in flags if flag.startswith("--")), flags[0])
    takes = [part.partition(" ")[2] for part in parts if part.startswith("-")]
    metavar = takes[-1]
    negatives = tuple(flag for flag in flags if flag in _opposites(long))
    if negatives:
        form, nargs = PAIR, None
    elif not metavar:
        form, nargs = FLAG, None
    else:
        form = VALUE
        nargs = "+" if "..." in metavar else "?" if metavar.startswith("[") else None
    default = re.search(r"\(default: (.*?)\)\s*$", help_text)
    return Option(
        name=plain(long),
        flags=(long,) + tuple(flag for flag in flags if flag != long and flag not in negatives),
        negatives=negatives,
        form=form,
        kind=TEXT if choices or form != VALUE else ANY,
        nargs=nargs,
        choices=choices,
        default=_default_of_help(default.group(1)) if default else None,
        deprecated="deprecated" in help_text.lower()[:60],
    )


def _default_of_help(text: str) -> Any:
    if text in ("None", ""):
        return None
    try:
        return json.loads({"True": "true", "False": "false"}.get(text, text))
    except ValueError:
        return text


def from_table(version: str, history: History, releases: Sequence[str]) -> Schema:
    """Return the schema of a release from the table, or of the newest that is not newer.

    history and releases: those of _engine_history.
    """
    wanted = version_key(version)
    if not wanted:
        raise ValueError("'%s' is no version of vLLM, such as 0.32.0" % version)
    known = next((release for release in reversed(releases) if version_key(release) <= wanted), "")
    if not known:
        raise ValueError("vLLM %s is older than %s, the oldest whose options are known" % (version, releases[0]))
    options = {}
    for name, entries in history.items():
        current = None
        for since, record in entries:
            if version_key(since) <= wanted:
                current = record
        if current is not None:
            options[name] = of_record(name, current)
    return Schema(version, "table", options, table=known)


_DEFAULTS = Option(name="", flags=())


def to_record(option: Option) -> dict[str, Any]:
    """Return an option as the table keeps it: what is not as most options have it."""
    record = {}
    for key in ("flags", "negatives", "form", "kind", "nargs", "choices", "default", "deprecated"):
        value = getattr(option, key)
        if key == "flags" and value == ("--" + option.name.replace("_", "-"),):
            continue
        if value != getattr(_DEFAULTS, key):
            record[key] = list(value) if isinstance(value, tuple) else value
    return record


def of_record(name: str, record: Mapping[str, Any]) -> Option:
    """Return the option of a record."""
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) and key != "default" else value for key, value in record.items()
    }
    given.setdefault("flags", ("--" + name.replace("_", "-"),))
    return Option(name=name, **given)


def lifetime(name: str, history: History) -> tuple[str, str] | None:
    """Return (since, gone) of an option: the releases in which it came and went; gone is '' while it is there.

    An unknown name gives None.
    """
    entries = history.get(plain(name))
    if not entries:
        return None
    last = entries[-1]
    return entries[0][0], "" if last[1] is not None else last[0]
