# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which files of a repository belong to a snapshot. Pure: the same listing gives the same choice.

Patterns are those of the Hub's client: fnmatch over the whole path, and a pattern that ends
with a slash means all below that folder.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile, SnapshotError

# Formats whose loading can run code that the file brings:
# https://huggingface.co/docs/hub/security-pickle
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# What transformers, PEFT and diffusers call pickled weights; other files hold an optimizer's state and the like.
WEIGHTS = ("pytorch_model*.bin", "adapter_model*.bin", "diffusion_pytorch_model*.bin")
# Formats that hold numbers only.
PLAIN = (".safetensors", ".gguf")
# The same weights for other frameworks than the one that vLLM uses.
FOREIGN = (".h5", ".msgpack", ".ot")
# Where Llama's repositories keep the weights a second time, as their authors trained them.
ORIGINAL = "original/"


class Choice(NamedTuple):
    """What is wanted of a repository.

    allow_patterns, ignore_patterns: empty for none. weights: safetensors_only or any; None where there are none, as in
    a dataset.
    """

    allow_patterns: list[str]
    ignore_patterns: list[str]
    weights: str | None


def select(files: Sequence[HubFile], choice: Choice, where: str) -> tuple[list[HubFile], list[HubFile]]:
    """Return ([HubFile] taken, [HubFile] left out as duplicates of weights that are taken).

    files: the whole listing. where: the repository and its commit, for the errors.
    Who names files by allow_patterns gets all that match; pickled weights only with weights=any.
    """
    matching = [f for f in files if _matches(f.path, choice)]
    if not matching:
        raise SnapshotError(
            "none of the %d files of %s matches allow_patterns %s without ignore_patterns %s: change the patterns"
            % (len(files), where, choice.allow_patterns or "*", choice.ignore_patterns or "(none)")
        )
    duplicates = _duplicates(matching) if choice.weights and not choice.allow_patterns else []
    taken = [f for f in matching if f not in duplicates]
    if choice.weights == "safetensors_only":
        pickled = [f for f in taken if f.path.endswith(PICKLED)]
        if pickled and not any(f.path.endswith(PLAIN) for f in taken):
            raise SnapshotError(
                "%s has pickled weights only (%s), which can run code when they are loaded: "
                "choose a repository with safetensors, or set weights to 'any' if you trust its authors"
                % (where, pickled[0].path)
            )
        alone = _without_plain(pickled, taken)
        if alone:
            raise SnapshotError(
                "%s has pickled weights (%s) in a folder without safetensors, which can run code when they are loaded: "
                "leave them out by ignore_patterns, or set weights to 'any' if you trust its authors"
                % (where, alone[0].path)
            )
        duplicates += pickled
        taken = [f for f in taken if f not in pickled]
    return taken, duplicates


def _without_plain(pickled: Iterable[HubFile], files: Iterable[HubFile]) -> list[HubFile]:
    """Return those of pickled that are the only weights of their folder: a model without them would not be whole."""
    folders = {posixpath.dirname(f.path) for f in files if f.path.endswith(PLAIN)}
    named = [f for f in pickled if any(fnmatch.fnmatchcase(posixpath.basename(f.path), w) for w in WEIGHTS)]
    return [f for f in named if posixpath.dirname(f.path) not in folders]


def _matches(path: str, choice: Choice) -> bool:
    if choice.allow_patterns and not _any_match(path, choice.allow_patterns):
        return False
    return not _any_match(path, choice.ignore_patterns)


def _any_match(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, p + "*" if p.endswith("/") else p) for p in patterns)


def _duplicates(files: Sequence[HubFile]) -> list[HubFile]:
    """Return those whose weights stand beside them as safetensors."""
    folders = {posixpath.dirname(f.path) for f in files if f.path.endswith(".safetensors")}
    elsewhere = any(not (folder + "/").startswith(ORIGINAL) for folder in folders)
    return [
        f
        for f in files
        if (f.path.endswith(PICKLED + FOREIGN) and posixpath.dirname(f.path) in folders)
        or (elsewhere and f.path.startswith(ORIGINAL))
    ]
