"""Tests of the module vllm_image_info, with a double of Docker's SDK: who is asked, how often, and what is kept."""

from __future__ import annotations

import json
import os
import types
from pathlib import Path
from typing import Any

import docker.errors
import pytest
from requests.exceptions import ConnectionError as ConnectionLost
from requests.exceptions import ReadTimeout

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_image, _image
from ansible_collections.llmops.vllm.plugins.modules import vllm_image_info

REPOSITORY = "vllm/vllm-openai"
NAME = REPOSITORY + ":v0.32.0"
NEW, OLD, OLDER = "sha256:" + "4f1c" * 16, "sha256:" + "9a3e" * 16, "sha256:" + "77aa" * 16
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
TOLD = f"WARNING noise\n{_image.MARK}0.32.1\n"


def attrs(image_id: str = NEW, tags: tuple[str, ...] = (NAME,), created: str = "", digests: Any = ()) -> dict[str, Any]:
    references = [f"{REPOSITORY}@{digest}" for digest in digests]
    return {"Id": image_id, "RepoTags": list(tags), "RepoDigests": references, "Created": created, "Config": {}}


class Docker:
    """A host with images; runs: what each run of one ends with, (exit code, output) or what is raised.

    registry: what it says of a name, a digest or what is raised. gone: images that are away before one looks at them.
    """

    def __init__(self, *images: dict[str, Any], runs: Any = (), registry: Any = None, containers: Any = ()) -> None:
        self.here, self.runs, self.registry, self.of_containers = images, list(runs), registry, containers
        self.gone: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.timeouts: list[int] = []
        self.removed = 0
        self.id = "c1"
        # The real ones: many of them are an OSError.
        self.errors = docker.errors
        self.types = types.SimpleNamespace(DeviceRequest=lambda **request: request)
        self.containers, self.api = self, LowLevel(self)
        self.images = types.SimpleNamespace(get=self.get, get_registry_data=self.get_registry_data)

    def from_env(self, timeout: int) -> Docker:
        self.timeouts.append(timeout)
        return self

    def get(self, name: str) -> Any:
        repository, tag, digest = _image.split(name.removeprefix("docker.io/"))
        wanted = f"{repository}@{digest}" if digest else f"{repository}:{tag or 'latest'}"
        for image in self.here:
            if name == image["Id"] or wanted in image["RepoTags"] + image["RepoDigests"]:
                return types.SimpleNamespace(attrs=image)
        raise docker.errors.ImageNotFound(f"No such image: {name}")

    def get_registry_data(self, name: str) -> Any:
        if isinstance(self.registry, Exception):
            raise self.registry
        return types.SimpleNamespace(id=self.registry[name])

    def create(self, image: str, command: list[str], **settings: Any) -> Docker:
        self.asked.append({"image": image, "command": command, **settings})
        return self

    def start(self) -> None:
        if isinstance(self.runs[0], Exception):
            raise self.runs.pop(0)

    def wait(self, _container: str, timeout: int) -> dict[str, int]:
        return {"StatusCode": self.runs[0][0]}

    def logs(self) -> bytes:
        return self.runs.pop(0)[1].encode()

    def remove(self, force: bool) -> None:
        self.removed += 1


class LowLevel:
    """The part of the SDK that gives plain data."""

    def __init__(self, host: Docker) -> None:
        self.host = host
        self.wait = host.wait

    def inspect_image(self, image_id: str) -> dict[str, Any]:
        if image_id in self.host.gone:
            raise docker.errors.ImageNotFound(f"No such image: {image_id}")
        return self.host.get(image_id).attrs

    def images(self, all: bool) -> list[dict[str, Any]]:
        assert not all
        # One with names in two repositories may be listed twice.
        return [{"Id": image["Id"]} for image in self.host.here + self.host.here[:1]]

    def containers(self, all: bool) -> list[dict[str, Any]]:
        assert all
        return [{"ImageID": image_id} for image_id in self.host.of_containers]


@pytest.fixture
def look(run_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def run(host: Docker, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        monkeypatch.setattr(_engine_image, "docker", host)
        params = {"name": NAME, "records_dir": str(tmp_path / "images"), **params}
        return run_module(vllm_image_info.main, check_mode, **params)

    return run


def kept(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "images"
    return {path.name: json.loads(path.read_text()) for path in folder.iterdir()} if folder.exists() else {}


def no_python() -> Exception:
    why = 'exec: "python3": executable file not found in $PATH: unknown'
    return docker.errors.APIError("400 Client Error", explanation=why)


def test_the_version_is_asked_once(look: Any, tmp_path: Path) -> None:
    host = Docker(attrs(digests=[ONE]), runs=[(0, TOLD)])
    result = look(host, timeout=7)
    assert (result["failed"], result["changed"]) == (False, False)
    assert {key: result["image"][key] for key in ("id", "tags", "version", "digest")} == {
        "id": NEW,
        "tags": [NAME],
        "version": "0.32.1",
        "digest": ONE,
    }
    assert not {"registry_digest", "registry_error", "unused"} & result.keys()
    (asked,) = host.asked
    assert (asked["image"], asked["entrypoint"][:2], asked["command"]) == (NEW, ["python3", "-c"], [])
    assert (asked["network_mode"], asked["read_only"], asked["device_requests"]) == ("none", True, [])
    assert host.removed == 1
    assert set(host.timeouts) == {7}
    # From now on nobody is asked, under whatever name.
    again = look(Docker(attrs(tags=("own/vllm:latest",))), name="own/vllm")
    assert again["image"]["version"] == "0.32.1"
    assert kept(tmp_path) == {"4f1c4f1c4f1c.json": {"image": NEW, "version": "0.32.1"}}
    assert (tmp_path / "images/4f1c4f1c4f1c.json").stat().st_mode & 0o777 == 0o644
    # Another image under the name is another one.
    moved = look(Docker(attrs(OLD), runs=[(0, TOLD.replace("0.32.1", "0.33.0"))]))
    assert (moved["image"]["id"], moved["image"]["version"]) == (OLD, "0.33.0")
    assert len(kept(tmp_path)) == 2


def test_check_mode_keeps_nothing(look: Any, tmp_path: Path) -> None:
    assert look(Docker(attrs(), runs=[(0, TOLD)]), check_mode=True)["image"]["version"] == "0.32.1"
    assert kept(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", json.dumps({"image": OLD, "version": "0.1.0"})])
def test_a_file_that_is_none_of_ours_is_made_anew(look: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/4f1c4f1c4f1c.json").write_text(text)
    assert look(Docker(attrs(), runs=[(0, TOLD)]))["image"]["version"] == "0.32.1"
    assert kept(tmp_path)["4f1c4f1c4f1c.json"] == {"image": NEW, "version": "0.32.1"}


@pytest.mark.parametrize(
    ("run", "is_kept"),
    [
        (no_python(), False),
        # Next time it may.
        (ReadTimeout("Read timed out."), False),
        (docker.errors.APIError("500 Server Error", explanation="no space left on device"), False),
        ((137, ""), False),
        ((127, "python3: not found"), False),
        ((1, TOLD), False),
        # It has a Python, and no vLLM.
        ((0, ""), True),
        ((0, "Hello\n"), True),
    ],
)
def test_where_the_image_does_not_tell_its_tag_does(look: Any, tmp_path: Path, run: Any, is_kept: bool) -> None:
    host = Docker(attrs(), runs=[run])
    assert look(host)["image"]["version"] == "0.32.0"
    assert host.removed == 1
    assert kept(tmp_path) == ({"4f1c4f1c4f1c.json": {"image": NEW, "version": ""}} if is_kept else {})
    assert look(Docker(attrs(), runs=[(0, TOLD)]))["image"]["version"] == ("0.32.0" if is_kept else "0.32.1")


def test_a_name_that_is_not_there(look: Any, tmp_path: Path) -> None:
    host = Docker(attrs(OLD, tags=("debian:12",)), registry={NAME: ONE})
    result = look(host, registry=True)
    assert (result["image"], result["registry_digest"], result["failed"]) == (None, ONE, False)
    assert (host.asked, kept(tmp_path)) == ([], {})


@pytest.mark.parametrize(
    ("digests", "registry", "digest"),
    [
        ([ONE], ONE, ONE),
        ([ONE], TWO, ONE),
        ([], ONE, ""),
        # The list of platforms and the image of its own: no tag has moved.
        ([ONE, TWO], TWO, TWO),
    ],
)
def test_the_registry_is_asked(look: Any, digests: list[str], registry: str, digest: str) -> None:
    result = look(Docker(attrs(digests=digests), runs=[(0, TOLD)], registry={NAME: registry}), registry=True)
    assert (result["registry_digest"], result["registry_error"]) == (registry, "")
    assert result["image"]["digest"] == digest


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (docker.errors.APIError("500 Server Error", explanation="dial tcp 192.0.2.1:443: refused"), "dial tcp 192.0.2"),
        (docker.errors.NotFound("404 Client Error: manifest unknown"), "404 Client Error: manifest unknown"),
        (docker.errors.DockerException("Credentials store error"), "Credentials store error"),
        (ReadTimeout("UnixHTTPConnectionPool: Read timed out."), "it did not answer within 9 s"),
        (ConnectionLost("UnixHTTPConnectionPool: Read timed out."), "it did not answer within 9 s"),
    ],
)
def test_a_registry_that_does_not_tell(look: Any, error: Exception, said: str) -> None:
    result = look(Docker(attrs(digests=[ONE]), runs=[(0, TOLD)], registry=error), registry=True, timeout=9)
    assert result["registry_error"].startswith(said)
    assert (result["failed"], result["registry_digest"], result["image"]["digest"]) == (False, "", ONE)


IMAGES = (
    attrs(NEW, created="2026-01-03T00:00:00Z", digests=[ONE]),
    attrs(OLD, tags=(REPOSITORY + ":v0.31.0",), created="2026-01-02T00:00:00Z", digests=[TWO]),
    attrs(OLDER, tags=(REPOSITORY + ":v0.30.0",), created="2026-01-01T00:00:00Z"),
    attrs("sha256:" + "de" * 32, tags=("debian:12",)),
)


@pytest.mark.parametrize(
    ("name", "release", "containers", "unused"),
    [
        (NAME, None, (), [OLD, OLDER]),
        (NAME, OLDER, (), [OLD]),
        (NAME, None, (OLD,), [OLDER]),
        (NAME, OLDER, (OLD,), []),
        # The image that has the name is needed, however it is named.
        ("docker.io/" + NAME, None, (), [OLD, OLDER]),
        (f"{REPOSITORY}@{TWO}", None, (), [NEW, OLDER]),
        (f"{NAME}@{TWO}", None, (), [NEW, OLDER]),
        # None has it.
        (REPOSITORY + ":v0.33.0", None, (), [NEW, OLD, OLDER]),
        ("own/other:1", None, (), []),
    ],
)
def test_unused_images(
    look: Any, tmp_path: Path, name: str, release: str | None, containers: tuple[str, ...], unused: list[str]
) -> None:
    if release:
        (tmp_path / "releases/chat").mkdir(parents=True)
        (tmp_path / "releases/chat/aaaa.json").write_text(json.dumps({"image": release}))
    host = Docker(*IMAGES, runs=[(0, TOLD)], containers=containers)
    assert look(host, name=name, releases_dir=str(tmp_path / "releases"))["unused"] == unused


def test_images_that_are_wanted_as_well_are_none_of_the_older_ones(look: Any, tmp_path: Path) -> None:
    host = Docker(*IMAGES, runs=[(0, TOLD)])
    wanted = [REPOSITORY + ":v0.30.0", REPOSITORY + ":v0.99", "other:1"]
    assert look(host, releases_dir=str(tmp_path / "releases"), wanted=wanted)["unused"] == [OLD]


def test_an_image_that_another_run_takes_away_meanwhile(look: Any, tmp_path: Path) -> None:
    host = Docker(*IMAGES, runs=[(0, TOLD)])
    host.gone = {OLD}
    assert look(host, releases_dir=str(tmp_path / "releases"))["unused"] == [OLDER]


def test_releases_that_cannot_be_read(look: Any, tmp_path: Path) -> None:
    (tmp_path / "releases").write_text("no folder")
    result = look(Docker(*IMAGES, runs=[(0, TOLD)]), releases_dir=str(tmp_path / "releases"))
    assert result["failed"]
    assert result["msg"] == (f"nothing can be told of {NAME}: [Errno 20] Not a directory: '{tmp_path}/releases'")


@pytest.mark.parametrize(
    "error",
    [
        docker.errors.APIError("500 Server Error", explanation="driver failed"),
        docker.errors.DockerException("Error while fetching server API version: Connection refused"),
        ReadTimeout("Read timed out."),
    ],
)
def test_docker_that_does_not_answer(look: Any, tmp_path: Path, error: Exception) -> None:
    host = Docker(attrs(), runs=[(0, TOLD)])

    def fail(*_args: Any) -> None:
        raise error

    host.images.get = fail
    result = look(host)
    assert result["failed"]
    assert result["msg"] == f"nothing can be told of {NAME}: {error}"
    assert kept(tmp_path) == {}


def test_what_cannot_be_kept(look: Any, tmp_path: Path) -> None:
    (tmp_path / "images").write_text("no folder")
    result = look(Docker(attrs(), runs=[(0, TOLD)]))
    assert result["failed"]
    assert result["msg"] == f"nothing can be told of {NAME}: [Errno 17] File exists: '{tmp_path}/images'"


def test_two_runs_do_not_write_the_same_file(look: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has just begun to write, and ends while this one does."""
    replace = os.replace

    def other(source: str, target: str) -> None:
        for name in os.listdir(tmp_path / "images"):
            if not name.endswith(f".{os.getpid()}"):
                os.unlink(tmp_path / "images" / name)
        replace(source, target)

    monkeypatch.setattr(vllm_image_info.os, "replace", other)
    result = look(Docker(attrs(), runs=[(0, TOLD)]))
    assert not result["failed"], result.get("msg")
    assert [*kept(tmp_path)] == ["4f1c4f1c4f1c.json"]


def test_the_sdk_that_is_not_there(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine_image, "DOCKER_ERROR", "Traceback")
    assert "docker" in run_module(vllm_image_info.main, name=NAME)["msg"]
