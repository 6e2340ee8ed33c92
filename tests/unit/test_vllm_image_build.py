"""Tests of the module vllm_image_build: a real checkout, a double of Docker's SDK, and a command docker that tells what
it was called with and says what BuildKit would."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import time
import types
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _build_plan, _builder, _engine_image, _image
from ansible_collections.llmops.vllm.plugins.modules import vllm_image_build

NAME = "own/vllm:v0.32.0"
DOCKERFILE = """\
ARG BASE=own/cuda:12
FROM ${BASE} AS build
ARG max_jobs=2
ARG nvcc_threads=8
ARG torch_cuda_arch_list='8.0 9.0'
ARG RUN_WHEEL_CHECK=true
ARG EXTRA
RUN make
FROM debian AS vllm-openai
COPY --from=build /wheels /wheels
FROM vllm-openai AS vllm-openai-nonroot
"""
BUILT = """\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s

#5 [build 2/2] RUN make
#5 0.234 compiling
#5 DONE 3.1s
"""
FAILED = """\
#5 [build 2/2] RUN make
#5 0.234 compiling a.cu
#5 0.567 a.cu:7: error: no such thing
#5 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2
"""
# Tells its arguments, one a line, and its environment; a name goes to an image that was built.
COMMAND = """\
#!/bin/sh
case "$1 $2" in
    "version --format") echo "$FAKE_CLIENT"; exit ;;
    "buildx version") exit "$FAKE_BUILDX_CODE" ;;
esac
env >"$FAKE/environment"
printf '%s\\n' "$@" >"$FAKE/argv"
cat "$FAKE/log"
[ -z "$FAKE_HANGS" ] || exec sleep 60
exit "$FAKE_CODE"
"""


class Docker:
    """A host's images, by their names, and what registries have: IDs, or errors. built: the arguments of each build."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.here = {"own/cuda:12": image("cuda"), "debian": image("debian")}
        self.registry: dict[str, Any] = {}
        self.pulled: list[tuple[str, str | None]] = []
        self.built: list[list[str]] = []
        self.server = "26.1.5+dfsg1"
        self.timeouts: list[int] = []
        self.errors = docker.errors
        self.images = self.api = self

    def from_env(self, timeout: int) -> Docker:
        self.timeouts.append(timeout)
        return self

    def version(self) -> dict[str, str]:
        return {"Version": self.server}

    def info(self) -> dict[str, str]:
        return {"DockerRootDir": str(self.folder)}

    def get(self, name: str) -> Any:
        self.look()
        if name not in self.here:
            raise docker.errors.ImageNotFound(f"No such image: {name}")
        return types.SimpleNamespace(attrs=self.here[name])

    def look(self) -> None:
        """Name the image that the command has built since."""
        argv = self.folder / "argv"
        if not argv.exists():
            return
        words = argv.read_text().splitlines()
        argv.unlink()
        self.built.append(words)
        if os.environ["FAKE_CODE"] == "0" and not os.environ["FAKE_HANGS"]:
            labels = dict(word.split("=", 1) for word in values(words, "--label"))
            self.here[values(words, "--tag")[0]] = image(str(words), labels)

    def pull(self, base: str, tag: str | None, stream: bool, decode: bool) -> Any:
        assert stream
        assert decode
        self.pulled.append((base, tag))
        found = self.registry.get(base, docker.errors.NotFound("404 Client Error", explanation="manifest unknown"))
        if isinstance(found, Exception):
            raise found
        if "error" not in found:
            self.here[base] = found
        return iter([{"status": "Pulling"}, found])


def image(content: str, labels: dict[str, str] | None = None, pulled: bool = False) -> dict[str, Any]:
    return {
        "Id": "sha256:" + hashlib.sha256(content.encode()).hexdigest(),
        "RepoDigests": ["some/where@sha256:" + "1" * 64] if pulled else [],
        "Config": {"Labels": labels},
    }


def values(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


class Host:
    """A checkout, a Docker, and the module with both."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: Any) -> None:
        self.monkeypatch, self.run_module = monkeypatch, run_module
        self.folder = tmp_path / "docker"
        self.bin = tmp_path / "bin"
        self.checkout = tmp_path / "src/vllm"
        for folder in (self.folder, self.bin, self.checkout):
            folder.mkdir(parents=True)
        command = self.bin / "docker"
        command.write_text(COMMAND)
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.bin}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE", str(self.folder))
        for name in ("DOCKER_BUILDKIT", "BUILDX_NO_DEFAULT_ATTESTATIONS"):
            monkeypatch.delenv(name, raising=False)
        self.says(BUILT)
        self.command()
        self.docker = Docker(self.folder)
        monkeypatch.setattr(_engine_image, "docker", self.docker)
        monkeypatch.setattr(_builder, "machine", lambda: (64, 30 * 1024**3))
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        self.git("init", "--quiet")
        self.commit({"docker/Dockerfile": DOCKERFILE, "setup.py": ""})
        self.git("tag", "v0.32.0")

    def says(self, log: str, code: int = 0, hangs: bool = False) -> None:
        (self.folder / "log").write_text(log)
        self.monkeypatch.setenv("FAKE_CODE", str(code))
        self.monkeypatch.setenv("FAKE_HANGS", "yes" if hangs else "")

    def command(self, client: str = "26.1.5+dfsg1", buildx: bool = True) -> None:
        self.monkeypatch.setenv("FAKE_CLIENT", client)
        self.monkeypatch.setenv("FAKE_BUILDX_CODE", "0" if buildx else "1")

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        argv = ["git", "-C", self.checkout, *who, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            path = self.checkout / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def build(self, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        params = {"name": NAME, "checkout": str(self.checkout), "cuda_archs": ["8.9"], **params}
        result = self.run_module(vllm_image_build.main, check_mode, **params)
        self.docker.look()
        return result

    @property
    def builds(self) -> int:
        return len(self.docker.built)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: Any) -> Host:
    return Host(tmp_path, monkeypatch, run_module)


def refused(result: dict[str, Any]) -> str:
    assert result["failed"]
    assert "Traceback" not in result["msg"]
    return result["msg"]


def test_check_real_again(host: Host) -> None:
    checked = host.build(check_mode=True)
    assert (checked["changed"], checked["id"], host.builds, checked["differences"]) == (True, "", 0, [])
    # Nor is anything written beside the checkout.
    assert [path.name for path in host.checkout.parent.iterdir()] == ["vllm"]

    real = host.build()
    assert (real["failed"], real["changed"], host.builds) == (False, True, 1)
    assert real["id"] == host.docker.here[NAME]["Id"]
    assert real["recipe"] == checked["recipe"]
    assert real["recipe"] == {
        "commit": host.git("rev-parse", "HEAD"),
        "dockerfile": "docker/Dockerfile",
        "dockerfile_sha256": hashlib.sha256(DOCKERFILE.encode()).hexdigest(),
        "target": "vllm-openai",
        "args": {"torch_cuda_arch_list": "8.9", "RUN_WHEEL_CHECK": "false"},
        "bases": {name: host.docker.here[name]["Id"] for name in ("debian", "own/cuda:12")},
    }
    assert real["machine_args"] == {"max_jobs": "7", "nvcc_threads": "2"}
    assert (real["diff"]["before"], json.loads(real["diff"]["after"])) == ("", real["recipe"])

    for check_mode in (True, False):
        again = host.build(check_mode=check_mode)
        assert (again["changed"], again["id"], again["differences"]) == (False, real["id"], [])
        assert again["recipe"] == real["recipe"]
        assert again["diff"]["before"] == again["diff"]["after"] == real["diff"]["after"]
    assert (host.builds, host.docker.pulled) == (1, [])


def test_the_labels(host: Host) -> None:
    recipe = host.build(name="reg.example.com:5000/llm/vllm:v1")["recipe"]
    labels = host.docker.here["reg.example.com:5000/llm/vllm:v1"]["Config"]["Labels"]
    assert labels.keys() == {"llmops.vllm.inputs", "llmops.vllm.recipe", "llmops.vllm.repository"}
    assert labels["llmops.vllm.inputs"] == _build_plan.digest_of(recipe)
    assert json.loads(labels["llmops.vllm.recipe"]) == recipe
    assert labels["llmops.vllm.repository"] == "reg.example.com:5000/llm/vllm"


ARGUMENTS = ["RUN_WHEEL_CHECK=false", "max_jobs=7", "nvcc_threads=2", "torch_cuda_arch_list=8.9"]


@pytest.mark.parametrize(
    ("client", "buildx", "begin", "environment"),
    [
        (
            "26.1.5+dfsg1",
            True,
            ["buildx", "build", "--builder", "default", "--load"],
            {"BUILDX_NO_DEFAULT_ATTESTATIONS=1"},
        ),
        ("20.10.24+dfsg1", False, ["build"], {"DOCKER_BUILDKIT=1"}),
    ],
)
def test_what_the_command_is_told(
    host: Host, client: str, buildx: bool, begin: list[str], environment: set[str]
) -> None:
    host.docker.server = client
    host.command(client, buildx)
    host.build()
    (argv,) = host.docker.built
    assert argv[: len(begin)] == begin
    assert values(argv, "--progress") == ["plain"]
    assert values(argv, "--tag") == [NAME]
    assert values(argv, "--file") == [f"{host.checkout}/docker/Dockerfile"]
    assert values(argv, "--target") == ["vllm-openai"]
    assert values(argv, "--build-arg") == ARGUMENTS
    assert len(values(argv, "--label")) == 3
    assert argv[-1] == str(host.checkout)
    # Nothing else: begin, options with their values, the context.
    assert len(argv) == len(begin) + 2 * (4 + len(ARGUMENTS) + 3) + 1
    given = set((host.folder / "environment").read_text().splitlines())
    both = {"DOCKER_BUILDKIT=1", "BUILDX_NO_DEFAULT_ATTESTATIONS=1"}
    assert given & both == environment
    # A pull may take as long as a build, without a word.
    assert host.docker.timeouts == [14400]


def test_a_dockerfile_whose_last_stage_has_no_name(host: Host) -> None:
    host.commit({"Dockerfile.cpu": "FROM debian\n"})
    host.build(device="cpu", cuda_archs=[])
    (argv,) = host.docker.built
    assert (values(argv, "--target"), values(argv, "--build-arg")) == ([], [])
    assert values(argv, "--file") == [f"{host.checkout}/Dockerfile.cpu"]


@pytest.mark.parametrize(
    ("params", "differences"),
    [
        ({"cuda_archs": ["9.0"]}, ["build argument torch_cuda_arch_list: 8.9 -> 9.0"]),
        ({"build_args": {"EXTRA": 1}}, ["build argument EXTRA: none -> 1"]),
        ({"target": "build"}, ["target: vllm-openai -> build", "base debian: BASE -> none"]),
        ({"build_args": {"max_jobs": 3}}, ["build argument max_jobs: none -> 3"]),
    ],
)
def test_a_change_of_what_was_asked_for_builds(host: Host, params: dict[str, Any], differences: list[str]) -> None:
    before = host.build()
    differences = [line.replace("BASE", host.docker.here["debian"]["Id"][:19]) for line in differences]
    for check_mode in (True, False):
        changed = host.build(check_mode=check_mode, **params)
        assert (changed["changed"], changed["differences"]) == (True, differences)
        assert json.loads(changed["diff"]["before"]) == before["recipe"]
        assert json.loads(changed["diff"]["after"]) == changed["recipe"]
        assert host.builds == 1 + (not check_mode)
        assert (changed["id"] == before["id"]) is check_mode
    assert not host.build(**params)["changed"]
    assert host.build()["changed"]


def test_a_change_of_the_source_builds(host: Host) -> None:
    old = host.build()["recipe"]["commit"]
    new = host.commit({"docker/Dockerfile": DOCKERFILE.replace("RUN make", "RUN make -k")})
    one, two = host.build()["differences"]
    assert one == f"source commit: {old[:12]} -> {new[:12]}"
    assert two.startswith("content of the Dockerfile: ")
    assert host.builds == 2


def test_a_checkout_that_another_run_has_moved_is_not_built(host: Host) -> None:
    commit = host.commit({"README": "one"})
    assert host.build(commit=commit)["recipe"]["commit"] == commit
    other = host.commit({"README": "two"})
    result = host.build(commit=commit)
    assert result["failed"]
    assert result["msg"] == (
        f"{host.checkout} is at {other}, not at {commit}: another run has checked that out meanwhile, run again"
    )
    assert host.builds == 1


def test_a_checkout_that_moves_while_bases_are_pulled_is_not_built(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_image_build.ImageBuild, "_pull", lambda _self, _bases: host.commit({"README": "moved"}))
    assert "another run has checked that out meanwhile" in host.build()["msg"]
    assert host.builds == 0


@pytest.mark.parametrize("params", [{"max_jobs": 2}, {"max_jobs": 1}, {"timeout": 60}, {"min_free": 10**12}])
def test_what_the_machine_gives_is_no_change(
    host: Host, monkeypatch: pytest.MonkeyPatch, params: dict[str, Any]
) -> None:
    host.build()
    monkeypatch.setattr(_builder, "machine", lambda: (2, 4 * 1024**3))
    again = host.build(**params)
    assert (again["failed"], again["changed"], host.builds) == (False, False, 1)
    assert again["machine_args"]["max_jobs"] == str(params.get("max_jobs", 1))


def test_an_image_of_others_under_the_name_is_replaced(host: Host) -> None:
    host.docker.here[NAME] = image("pulled", pulled=True)
    result = host.build()
    assert (result["changed"], result["differences"], host.builds) == (True, [], 1)
    assert result["id"] != image("pulled")["Id"]


@pytest.mark.parametrize("recipe", ["{", "[]", '{"bases": null, "args": [], "commit": 7}'])
def test_an_image_whose_labels_are_broken_is_replaced(host: Host, recipe: str) -> None:
    labels = {_image.INPUTS_LABEL: "1" * 64, _image.RECIPE_LABEL: recipe}
    host.docker.here[NAME] = image("broken", labels)
    result = host.build()
    assert (result["failed"], result["changed"], result["differences"], host.builds) == (False, True, [], 1)


def test_a_base_that_has_moved_is_taken_when_asked_to(host: Host) -> None:
    host.docker.here["debian"] = image("debian", pulled=True)
    host.build()
    before = host.docker.here["debian"]["Id"]
    host.docker.registry["debian"] = image("new debian", pulled=True)
    # Nobody asks, and check mode fetches none.
    assert not host.build()["changed"]
    assert not host.build(check_mode=True, update=True)["changed"]
    assert host.docker.pulled == []

    updated = host.build(update=True)
    after = image("new debian")["Id"]
    assert updated["differences"] == [f"base debian: {before[:19]} -> {after[:19]}"]
    # One of the host itself, which no registry has, stays.
    assert host.docker.pulled == [("debian", "latest"), ("own/cuda:12", None)]
    assert updated["recipe"]["bases"]["debian"] == after
    assert host.builds == 2
    assert not host.build(update=True)["changed"]


def test_a_base_that_is_not_here_is_fetched_for_a_build_alone(host: Host) -> None:
    base = host.docker.here.pop("debian")
    host.docker.registry["debian"] = base
    checked = host.build(check_mode=True)
    assert (checked["changed"], checked["recipe"]["bases"]["debian"], host.docker.pulled) == (True, "", [])
    assert host.build()["recipe"]["bases"]["debian"] == base["Id"]
    assert host.docker.pulled == [("debian", "latest")]
    # It was built on it: to look at it is no reason to fetch it.
    del host.docker.here["debian"]
    for check_mode in (True, False):
        again = host.build(check_mode=check_mode)
        assert (again["changed"], again["recipe"]["bases"]["debian"]) == (False, base["Id"])
    assert (len(host.docker.pulled), host.builds) == (1, 1)


def test_what_differs_is_told_of_the_bases_that_were_fetched(host: Host) -> None:
    """It is another one than that of the last build."""
    before = host.docker.here["debian"]["Id"]
    host.build()
    del host.docker.here["debian"]
    host.docker.registry["debian"] = image("new debian", pulled=True)
    result = host.build(cuda_archs=["9.0"])
    after = result["recipe"]["bases"]["debian"]
    assert after == image("new debian")["Id"]
    assert result["differences"] == [
        "build argument torch_cuda_arch_list: 8.9 -> 9.0",
        f"base debian: {before[:19]} -> {after[:19]}",
    ]
    assert json.loads(result["diff"]["after"]) == result["recipe"]
    assert not host.build(cuda_archs=["9.0"])["changed"]


@pytest.mark.parametrize(
    ("base", "tag"),
    [
        ("alpine", "latest"),
        ("debian:12", None),
        ("localhost:5000/cuda", "latest"),
        ("localhost:5000/cuda:12", None),
        (f"debian@sha256:{'1' * 64}", None),
    ],
)
def test_of_a_base_without_a_tag_one_is_pulled(host: Host, base: str, tag: str | None) -> None:
    """Docker's SDK pulls all tags of such a name, before 4.0."""
    host.docker.registry[base] = image("base", pulled=True)
    assert host.build(build_args={"BASE": base})["recipe"]["bases"][base] == image("base")["Id"]
    assert host.docker.pulled == [(base, tag)]


@pytest.mark.parametrize(
    "error",
    [
        docker.errors.NotFound("404 Client Error", explanation="manifest unknown"),
        # It may come in the middle.
        {"error": "manifest unknown"},
    ],
)
@pytest.mark.parametrize("update", [False, True])
def test_a_base_that_cannot_be_pulled(host: Host, error: Any, update: bool) -> None:
    if update:
        host.docker.here["debian"] = image("debian", pulled=True)
    else:
        del host.docker.here["debian"]
    host.docker.registry["debian"] = error
    assert refused(host.build(update=update)) == (
        "the base image debian cannot be pulled: manifest unknown; bring it to the host, or name another one by the "
        "build argument that stands for it"
    )
    assert host.builds == 0


def test_a_build_that_fails(host: Host) -> None:
    before = host.build()["id"]
    host.says(FAILED, code=1)
    result = host.build(cuda_archs=["9.0"])
    assert refused(result) == f"{NAME} was not built: step [build 2/2] RUN make failed: a.cu:7: error: no such thing"
    assert result["step"] == "[build 2/2] RUN make"
    assert result["log"] == ["compiling a.cu", "a.cu:7: error: no such thing"]
    assert (host.builds, host.docker.here[NAME]["Id"]) == (2, before)
    # Nothing says that it was built, so that the next run tries again.
    host.says(BUILT)
    assert host.build(cuda_archs=["9.0"])["changed"]
    assert host.builds == 3


def test_a_build_that_runs_out_of_memory(host: Host) -> None:
    host.says(FAILED.replace("error: no such thing", "c++: fatal error: Killed signal terminated program"), code=1)
    assert refused(host.build(build_args={"max_jobs": "6"})).endswith(
        "step [build 2/2] RUN make ran out of memory: set max_jobs to 3 or less, it was 6"
    )


def test_a_build_that_takes_too_long(host: Host) -> None:
    host.says("#5 [build 2/2] RUN make\n#5 0.234 compiling\n", hangs=True)
    began = time.monotonic()
    result = host.build(timeout=1)
    assert refused(result) == (
        f"the build of {NAME} took longer than 1 s and was stopped at [build 2/2] RUN make: compiling: raise "
        "vllm_image_timeout; what is done is kept, and the next run goes on from there"
    )
    assert (NAME in host.docker.here, host.builds) == (False, 1)
    assert 1 <= time.monotonic() - began < 30
    host.says("", hangs=True)
    assert "was stopped at its begin: raise" in refused(host.build(timeout=1))


def test_another_run_on_the_host(host: Host) -> None:
    with open(f"{host.checkout}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The slash at the end is no other checkout.
        said = refused(host.build(timeout=0, checkout=f"{host.checkout}/"))
        assert said.startswith("another run has been building on this host for 0 s")
        # Check mode waits for nobody.
        assert host.build(check_mode=True, timeout=0)["changed"]
    assert host.builds == 0


def test_a_dockerfile_of_ones_own(host: Host, tmp_path: Path) -> None:
    own = tmp_path / "own.Dockerfile"
    own.write_text("FROM debian AS vllm-openai\nRUN own\n")
    result = host.build(dockerfile=str(own), cuda_archs=[])
    assert result["recipe"]["dockerfile"] == str(own)
    assert result["recipe"]["dockerfile_sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()
    (argv,) = host.docker.built
    assert (values(argv, "--file"), argv[-1]) == ([str(own)], str(host.checkout))
    own.write_text("FROM debian AS vllm-openai\nRUN other\n")
    assert host.build(dockerfile=str(own), cuda_archs=[])["changed"]
    own.unlink()
    said = refused(host.build(dockerfile=str(own)))
    assert said == f"{NAME} cannot be built: [Errno 2] No such file or directory: '{own}'"


def test_another_dockerfile_of_the_checkout(host: Host) -> None:
    host.commit({"docker/Dockerfile.own": "FROM debian AS vllm-openai\n"})
    host.build(dockerfile="./docker//Dockerfile.own", cuda_archs=[])
    assert values(host.docker.built[0], "--file") == [f"{host.checkout}/docker/Dockerfile.own"]
    # One that is not committed is not there on the next host.
    (host.checkout / "Dockerfile.mine").write_text("FROM debian\n")
    assert refused(host.build(dockerfile="Dockerfile.mine")).startswith("the source has no 'Dockerfile.mine': set")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"target": "vllm-opnai"}, "docker/Dockerfile has no stage 'vllm-opnai', but build, vllm-openai"),
        ({"build_args": {"MAX_JOBS": 1}}, "docker/Dockerfile declares no build argument 'MAX_JOBS': did you mean"),
        ({"precompiled": True}, "docker/Dockerfile declares no VLLM_USE_PRECOMPILED"),
        # The checkout says that it is 0.32.0.
        ({"cuda_archs": ["7.0"]}, "vLLM 0.32.0 has no kernels for compute capability '7.0'"),
        ({"device": "cpu"}, "the source has neither docker/Dockerfile.cpu nor Dockerfile.cpu"),
        ({"min_free": 10**12}, "DOCKER has "),
    ],
)
@pytest.mark.parametrize("check_mode", [False, True])
def test_what_cannot_be_built(host: Host, params: dict[str, Any], said: str, check_mode: bool) -> None:
    assert refused(host.build(check_mode, **params)).startswith(said.replace("DOCKER", str(host.folder)))
    assert host.builds == 0


def test_a_source_without_tags(host: Host) -> None:
    host.git("tag", "--delete", "v0.32.0")
    assert host.build(cuda_archs=["7.0"])["changed"]


def test_what_should_be_known_is_said_when_it_is_built(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(vllm_image_build.AnsibleModule, "warn", lambda _module, warning: said.append(warning))
    host.build(cuda_archs=[])
    (note,) = said
    assert note.startswith("docker/Dockerfile compiles for every GPU architecture of its default list")
    host.build(cuda_archs=[])
    assert said == [note]


def test_folders_that_are_no_checkout(host: Host, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(host.build(checkout=str(tmp_path / "empty")))
    assert said.startswith(f"{tmp_path}/empty is no checkout of a git repository: fatal: not a git repository")
    said = refused(host.build(checkout=str(tmp_path / "none")))
    assert said.startswith(f"{tmp_path}/none is no checkout of a git repository: fatal: cannot change to")
    # Its .git is a file.
    host.git("worktree", "add", "--quiet", str(tmp_path / "tree"))
    assert refused(host.build(checkout=str(tmp_path / "tree"))) == (
        f"{tmp_path}/tree has no folder .git, which the build needs: make it with git clone"
    )
    assert host.builds == 0


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("docker", "the command docker is missing on this host: install it, with the role docker_engine"),
        ("git", "the command git is missing on this host: install it"),
    ],
)
def test_a_command_that_is_missing(host: Host, missing: str, said: str) -> None:
    if missing == "docker":
        (host.bin / "docker").unlink()
        (host.bin / "git").symlink_to(shutil.which("git"))
    host.monkeypatch.setenv("PATH", str(host.bin))
    assert refused(host.build()) == said


def test_a_command_that_does_not_work(host: Host) -> None:
    (host.bin / "docker").write_text("#!/bin/sh\necho 'permission denied while trying to connect' >&2\nexit 1\n")
    assert refused(host.build()) == (
        "the command docker does not work on this host: permission denied while trying to connect"
    )


@pytest.mark.parametrize(
    ("server", "client", "dockerfile", "said"),
    [
        ("26.1.5", "26.1.5", DOCKERFILE, "Docker 26.1.5 builds with BuildKit only by its plugin buildx"),
        (
            "20.10.24",
            # The command may be newer than the daemon.
            "26.1.5",
            DOCKERFILE.replace("RUN make", "RUN <<EOF\nmake\nEOF"),
            "the Dockerfile has heredocs (RUN <<EOF), which Docker 20.10.24 cannot read",
        ),
    ],
)
def test_a_docker_that_cannot_build_it(host: Host, server: str, client: str, dockerfile: str, said: str) -> None:
    host.commit({"docker/Dockerfile": dockerfile})
    host.docker.server = server
    host.command(client, buildx=False)
    for check_mode in (True, False):
        assert refused(host.build(check_mode)).startswith(said)
    assert host.builds == 0


@pytest.mark.parametrize(
    "error",
    [
        docker.errors.DockerException("Error while fetching server API version: Connection refused"),
        docker.errors.APIError("500 Server Error", explanation="driver failed"),
    ],
)
def test_docker_that_does_not_answer(host: Host, error: Exception) -> None:
    def fail(**_how: Any) -> None:
        raise error

    host.docker.from_env = fail
    assert refused(host.build()) == f"{NAME} cannot be built: {error}"


def test_how_far_it_is(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(vllm_image_build.Progress, "say", lambda _progress, line: said.append(line))
    host.docker.registry["debian"] = host.docker.here.pop("debian")
    host.build(progress_file=str(tmp_path / "progress/file"))
    assert said[0] == ""
    assert said[1] == "pulling debian"
    assert "[build 2/2] RUN make: compiling" in said


def test_the_lock_is_for_those_who_build(host: Host) -> None:
    host.build()
    lock = Path(f"{host.checkout}.lock")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_the_sdk_that_is_not_there(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine_image, "DOCKER_ERROR", "Traceback")
    assert "docker" in run_module(vllm_image_build.main, name=NAME, checkout="/srv/vllm")["msg"]
