# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a Dockerfile says of its build: stages, build arguments and base images. Pure logic: no files, no Docker.

It reads FROM, ARG, COPY, ADD and RUN, and nothing else. The directive ``# escape=`` is a comment to it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

_CONTINUED = re.compile(r"(?<!\\)\\[ \t]*$")
# Words as BuildKit splits them: quotes keep spaces in. A quote that nothing closes is a character like others.
_WORD = re.compile(r"""(?:\\.|[^\s"'\\]|"(?:\\.|[^"\\])*"|'[^']*'|["'\\])+""", re.DOTALL)
# A word of its own, and nothing between it and its name: "<< EOF" and "<<<EOF" are the shell's.
_HEREDOC = re.compile(r"""\d*<<(?P<tabs>-?)(?P<quote>["']?)(?P<name>[^\s<"']+)(?P=quote)\Z""")
# The innermost of nested ones, such as ${X}, $X, ${X:-default}, ${X:+alternative}.
_VARIABLE = re.compile(
    r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<sign>:?[-+])(?P<word>[^{}$]*))?\})"
)


@dataclass
class Stage:
    """A stage. name: '' where it has none; base: the image or stage of its FROM, as written; needs: the names and
    numbers of stages, and the images, that it copies from or mounts."""

    name: str
    base: str
    needs: set[str] = field(default_factory=set)


@dataclass
class Dockerfile:
    """A Dockerfile. global_args: the ARGs before the first FROM, each with its default as written, or None; args:
    the names of all ARGs; heredocs, mounts: whether any instruction has one."""

    stages: list[Stage] = field(default_factory=list)
    global_args: dict[str, str | None] = field(default_factory=dict)
    args: set[str] = field(default_factory=set)
    heredocs: bool = False
    mounts: bool = False

    def stage_names(self) -> list[str]:
        """Return the names of the stages that have one, in order."""
        return [stage.name for stage in self.stages if stage.name]

    def stage(self, target: str = "") -> Stage | None:
        """Return the stage of this name (in any case) or number, the last one for '', or None."""
        numbers = self._wanted(target)
        return self.stages[numbers[0]] if numbers else None

    def bases_of(self, target: str = "", build_args: Mapping[str, object] | None = None) -> list[str]:
        """Return the images, sorted, that a build of the target pulls: its own, and those of all stages it needs.

        An image whose name holds a variable without a value is left out.
        """
        values = self._values(build_args or {})
        bases: set[str] = set()
        seen: set[int] = set()
        waiting = self._wanted(target)
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            stage = self.stages[number]
            # A FROM refers to the stages above it alone, and only its variables are expanded.
            references = [(_expand(stage.base, values), number)] + [(need, None) for need in stage.needs]
            for reference, end in references:
                stages = self._numbers(reference, end)
                waiting.extend(stages)
                if not stages and reference not in ("", "scratch") and "$" not in reference:
                    bases.add(reference)
        return sorted(bases)

    def _wanted(self, target: str) -> list[int]:
        return (self._numbers(target) if target else list(range(len(self.stages))))[-1:]

    def _numbers(self, reference: str, end: int | None = None) -> list[int]:
        """Return the numbers of the stages that a reference means: one or none.

        Where the platform completes the name (``base-${TARGETARCH}``, in vLLM's Dockerfile.cpu), all that it may be.
        """
        names = [stage.name.lower() for stage in self.stages[:end]]
        pattern = _VARIABLE.sub("*", reference).lower()
        if pattern != reference.lower():
            return [
                number for number, name in enumerate(names) if pattern.strip("*") and fnmatch.fnmatch(name, pattern)
            ]
        # The last one of a name that is given twice.
        found = [number for number, name in enumerate(names) if name and name == pattern][-1:]
        if not found and end is None and pattern.isdigit() and int(pattern) < len(names):
            found = [int(pattern)]
        return found

    def _values(self, build_args: Mapping[str, object]) -> dict[str, str | None]:
        values: dict[str, str | None] = {}
        for name, default in self.global_args.items():
            if name in build_args:
                values[name] = str(build_args[name])
            else:
                values[name] = None if default is None else _expand(default, values)
        return values


def parse(text: str) -> Dockerfile:
    """Return the Dockerfile of a text."""
    dockerfile = Dockerfile()
    for keyword, words, heredoc in _instructions(text):
        flags = list(takewhile(lambda word: word.startswith("--"), words))
        operands = words[len(flags) :]
        dockerfile.heredocs = dockerfile.heredocs or heredoc
        if keyword == "FROM" and operands:
            named = len(operands) > 2 and operands[1].upper() == "AS"
            dockerfile.stages.append(Stage(operands[2] if named else "", _unquoted(operands[0])))
        elif keyword == "ARG":
            for word in operands:
                name, given, default = word.partition("=")
                dockerfile.args.add(name)
                if not dockerfile.stages:
                    dockerfile.global_args[name] = _unquoted(default) if given else None
        elif keyword in ("COPY", "ADD", "RUN") and dockerfile.stages:
            mounts = [flag[len("--mount=") :] for flag in flags if flag.startswith("--mount=")]
            settings = [setting for mount in mounts for setting in _unquoted(mount).split(",")]
            settings += [flag[len("--") :] for flag in flags if keyword != "RUN"]
            dockerfile.mounts = dockerfile.mounts or bool(mounts)
            dockerfile.stages[-1].needs.update(
                setting[len("from=") :] for setting in settings if setting.startswith("from=")
            )
    return dockerfile


def _instructions(text: str) -> Iterator[tuple[str, list[str], bool]]:
    """Give (keyword, words, whether it has a heredoc) of each instruction."""
    lines = iter(text.lstrip("\ufeff").replace("\r\n", "\n").split("\n"))
    for instruction in _joined(lines):
        words = _WORD.findall(instruction)
        keyword = words.pop(0).upper()
        matches = [_HEREDOC.match(word) for word in words] if keyword in ("RUN", "COPY", "ADD") else []
        heredocs = [match for match in matches if match]
        for heredoc in heredocs:
            for body in lines:
                if (body.lstrip("\t") if heredoc.group("tabs") else body) == heredoc.group("name"):
                    break
        yield keyword, words, bool(heredocs)


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Give instructions without comments, each in one line."""
    instruction = ""
    for line in lines:
        # Comments and empty lines do not end an instruction that goes on.
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        instruction += _CONTINUED.sub("", line)
        if not _CONTINUED.search(line):
            yield instruction
            instruction = ""
    if instruction.strip():
        yield instruction


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] in "\"'" and word[-1] == word[0] else word


def _expand(text: str, values: Mapping[str, str | None]) -> str:
    """Return a text with its variables expanded; those that nothing tells stay as they are."""

    def value_of(variable: re.Match[str]) -> str:
        name, sign, word = variable.group("plain") or variable.group("name"), variable.group("sign"), variable["word"]
        value = values.get(name)
        if not sign:
            return variable.group(0) if name not in values else value or ""
        is_set = value is not None and (value != "" or not sign.startswith(":"))
        if sign.endswith("+"):
            return word if is_set else ""
        return value or "" if is_set else word

    # Each round takes the innermost.
    for _dummy in range(text.count("$")):
        text = _VARIABLE.sub(value_of, text)
    return text
