"""Tests of what docker build is told, over the history of vLLM.

The source trees are small ones, written from recorded facts of each release (where its Dockerfiles are, their stages
and build arguments, their bases); they are not vLLM's own files.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._build_plan import (
    DEVICES,
    Plan,
    PlanError,
    changes,
    digest_of,
    dockerfile_of,
    inputs_of,
    make_plan,
)
from ansible_collections.llmops.vllm.plugins.module_utils._engine_schema import version_key

GIB = 1024**3
PATH = "docker/Dockerfile"


def since(version: str, first: str) -> bool:
    return version_key(version) >= version_key(first)


def newest(version: str, values: dict) -> str:
    """Return the value of the newest release that is not newer."""
    return [value for first, value in values.items() if since(version, first)][-1]


def cuda_dockerfile(version: str) -> str:
    cuda = newest(
        version, {"0": "12.4.1", "0.9.0": "12.8.1", "0.11.1": "12.9.1", "0.20.0": "13.0.2", "0.27.0": "13.0.3"}
    )
    archs = newest(
        version,
        {
            "0": "7.0 7.5 8.0 8.6 8.9 9.0+PTX",
            "0.9.0": "7.0 7.5 8.0 8.9 9.0 10.0+PTX",
            "0.9.2": "7.0 7.5 8.0 8.9 9.0 10.0 12.0",
            "0.20.0": "7.5 8.0 8.6 8.9 9.0 10.0 11.0 12.0",
        },
    )
    ubuntu = newest(version, {"0": "22.04", "0.28.0": "24.04"})
    if since(version, "0.9.2"):
        release = "${UBUNTU_VERSION}" if since(version, "0.18.1") else "22.04"
        oldest = "${UBUNTU_VERSION}" if since(version, "0.18.1") else "20.04"
        kind = newest(version, {"0": "devel", "0.12.0": "base"})
        lines = ["ARG CUDA_VERSION=%s" % cuda, "ARG UBUNTU_VERSION=%s" % ubuntu]
        lines += ["ARG BUILD_BASE_IMAGE=nvidia/cuda:${CUDA_VERSION}-devel-ubuntu%s" % oldest]
        lines += ["ARG FINAL_BASE_IMAGE=nvidia/cuda:${CUDA_VERSION}-%s-ubuntu%s" % (kind, release)]
        lines += ["FROM ${BUILD_BASE_IMAGE} AS base"]
        final = "FROM ${FINAL_BASE_IMAGE} AS vllm-base"
    else:
        lines = ["ARG CUDA_VERSION=%s" % cuda, "FROM nvidia/cuda:${CUDA_VERSION}-devel-ubuntu22.04 AS base"]
        final = "FROM nvidia/cuda:${CUDA_VERSION}-base-ubuntu22.04 AS vllm-base"
    lines += ["ARG torch_cuda_arch_list='%s'" % archs]
    if since(version, "0.6.3") and not since(version, "0.13.1"):
        lines += ["RUN <<EOF", "gcc --version", "EOF"]
    if since(version, "0.18.1") and not since(version, "0.19.2"):
        lines += ["RUN python3 <<'PYEOF'", "from pathlib import Path", "PYEOF"]
    if since(version, "0.22.0"):
        lines += ["FROM base AS rust-build", "RUN --mount=type=cache,target=/root/.cargo bash build_rust.sh"]
    lines += ["FROM base AS build", "ARG max_jobs=2", "ARG nvcc_threads=8", "ARG USE_SCCACHE"]
    if since(version, "0.22.0"):
        lines += ["COPY --from=rust-build /workspace/vllm/vllm-rs vllm/vllm-rs"]
    lines += ["RUN --mount=type=cache,target=/root/.cache/ccache \\"]
    if since(version, "0.6.2"):
        lines += ["    --mount=type=bind,source=.git,target=.git \\"]
    lines += ["    # Clean any existing CMake artifacts", "    python3 setup.py bdist_wheel --dist-dir=dist"]
    if since(version, "0.6.2"):
        lines += ["ARG VLLM_MAX_SIZE_MB=250", "ARG RUN_WHEEL_CHECK=true"]
    lines += ["FROM base as dev", "RUN pip install -r requirements-dev.txt"]
    lines += [final, "RUN --mount=type=bind,from=build,src=/workspace/dist,target=/dist pip install /dist/*.whl"]
    lines += ["FROM vllm-base AS test", "COPY tests tests"]
    if since(version, "0.7.0"):
        lines += ["FROM vllm-base AS vllm-sagemaker", 'ENTRYPOINT ["./sagemaker-entrypoint.sh"]']
    lines += ["FROM vllm-base AS vllm-openai", 'ENTRYPOINT ["vllm", "serve"]']
    if since(version, "0.22.0"):
        lines += ["FROM vllm-openai AS vllm-openai-nonroot", "USER vllm"]
    return "\n".join(lines) + "\n"


def cpu_dockerfile(version: str) -> str:
    base = newest(version, {"0": "ubuntu:22.04", "0.30.0": "ubuntu:25.04", "0.30.1": "ubuntu:22.04"})
    if not since(version, "0.8.3"):
        return "FROM %s AS cpu-test-1\nRUN --mount=type=cache,target=/c true\nFROM cpu-test-1 AS build\n" % base
    lines = ["FROM %s AS base" % base, "ARG PYTHON_VERSION=3.12"]
    if since(version, "0.11.1"):
        lines += ["ARG max_jobs=32"]
    lines += ["FROM base AS vllm-build", "ARG GIT_REPO_CHECK=0"]
    lines += ["ARG VLLM_CPU_X86=0" if since(version, "0.18.0") else "ARG VLLM_CPU_DISABLE_AVX512=0"]
    lines += ["RUN --mount=type=bind,source=.git,target=.git python3 setup.py bdist_wheel"]
    lines += ["FROM base AS vllm-test", "FROM vllm-build AS vllm-dev", "FROM base AS vllm-openai"]
    lines += ["RUN --mount=type=bind,from=vllm-build,source=/dist,target=/dist pip install /dist/*.whl"]
    if since(version, "0.18.0") and not since(version, "0.29.1"):
        lines += ["FROM vllm-openai AS vllm-openai-zen"]
    return "\n".join(lines) + "\n"


def tree(version: str) -> dict:
    """Return {path: text} of a release."""
    folder = "docker/" if since(version, "0.8.3") else ""
    files = {"Dockerfile": cuda_dockerfile(version), "Dockerfile.cpu": cpu_dockerfile(version), "Dockerfile.rocm": ""}
    return {"setup.py": "", **{folder + name: text for name, text in files.items()}}


OLD = ["max_jobs", "nvcc_threads", "torch_cuda_arch_list"]
ALL = ["RUN_WHEEL_CHECK"] + OLD


def cuda(*versions: str) -> list:
    return sorted("nvidia/cuda:" + version for version in versions)


CUDA_HISTORY = [
    ("0.4.2", "Dockerfile", OLD, False, cuda("12.4.1-devel-ubuntu22.04", "12.4.1-base-ubuntu22.04")),
    ("0.6.2", "Dockerfile", ALL, False, cuda("12.4.1-devel-ubuntu22.04", "12.4.1-base-ubuntu22.04")),
    ("0.6.3", "Dockerfile", ALL, True, cuda("12.4.1-devel-ubuntu22.04", "12.4.1-base-ubuntu22.04")),
    ("0.8.2", "Dockerfile", ALL, True, cuda("12.4.1-devel-ubuntu22.04", "12.4.1-base-ubuntu22.04")),
    ("0.8.3", PATH, ALL, True, cuda("12.4.1-devel-ubuntu22.04", "12.4.1-base-ubuntu22.04")),
    ("0.9.2", PATH, ALL, True, cuda("12.8.1-devel-ubuntu20.04", "12.8.1-devel-ubuntu22.04")),
    ("0.11.1", PATH, ALL, True, cuda("12.9.1-devel-ubuntu20.04", "12.9.1-devel-ubuntu22.04")),
    ("0.13.0", PATH, ALL, True, cuda("12.9.1-devel-ubuntu20.04", "12.9.1-base-ubuntu22.04")),
    ("0.18.0", PATH, ALL, False, cuda("12.9.1-devel-ubuntu20.04", "12.9.1-base-ubuntu22.04")),
    ("0.19.1", PATH, ALL, True, cuda("12.9.1-devel-ubuntu22.04", "12.9.1-base-ubuntu22.04")),
    ("0.20.0", PATH, ALL, False, cuda("13.0.2-devel-ubuntu22.04", "13.0.2-base-ubuntu22.04")),
    ("0.21.0", PATH, ALL, False, cuda("13.0.2-devel-ubuntu22.04", "13.0.2-base-ubuntu22.04")),
    ("0.22.0", PATH, ALL, False, cuda("13.0.2-devel-ubuntu22.04", "13.0.2-base-ubuntu22.04")),
    ("0.29.0", PATH, ALL, False, cuda("13.0.3-devel-ubuntu24.04", "13.0.3-base-ubuntu24.04")),
    ("0.30.0", PATH, ALL, False, cuda("13.0.3-devel-ubuntu24.04", "13.0.3-base-ubuntu24.04")),
    ("0.32.0", PATH, ALL, False, cuda("13.0.3-devel-ubuntu24.04", "13.0.3-base-ubuntu24.04")),
    ("0.33.0", PATH, ALL, False, cuda("13.0.3-devel-ubuntu24.04", "13.0.3-base-ubuntu24.04")),
]
OLD_CPU, CPU = "Dockerfile.cpu", "docker/Dockerfile.cpu"
CPU_HISTORY = [
    ("0.4.2", OLD_CPU, "build", [], "ubuntu:22.04"),
    ("0.6.2", OLD_CPU, "build", [], "ubuntu:22.04"),
    ("0.6.3", OLD_CPU, "build", [], "ubuntu:22.04"),
    ("0.8.2", OLD_CPU, "build", [], "ubuntu:22.04"),
    ("0.8.3", CPU, "vllm-openai", [], "ubuntu:22.04"),
    ("0.9.2", CPU, "vllm-openai", [], "ubuntu:22.04"),
    ("0.11.1", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
    ("0.13.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
    ("0.18.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
    ("0.20.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
    ("0.21.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
    ("0.22.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
    ("0.29.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
    ("0.30.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:25.04"),
    ("0.32.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
    ("0.33.0", CPU, "vllm-openai", ["max_jobs"], "ubuntu:22.04"),
]
HISTORY = [(version, "cuda", path, "vllm-openai", *rest) for version, path, *rest in CUDA_HISTORY] + [
    (version, "cpu", path, target, args, False, [base]) for version, path, target, args, base in CPU_HISTORY
]


@pytest.mark.parametrize(("version", "device", "path", "target", "args", "heredocs", "bases"), HISTORY)
def test_history(version: str, device: str, path: str, target: str, args: list, heredocs: bool, bases: list) -> None:
    files = tree(version)
    assert dockerfile_of(list(files), device) == path
    archs = ["8.9"] if device == "cuda" else []
    plan = make_plan(path, files[path], version, device, 16, 64 * GIB, cuda_archs=archs)
    assert plan == Plan(
        dockerfile=path,
        target=target,
        args=plan.args,
        machine_args=tuple(name for name in ("max_jobs", "nvcc_threads") if name in args),
        bases=bases,
        heredocs=heredocs,
        notes=[],
    )
    assert sorted(plan.args) == args


def plan_of(text: str = "", version: str = "0.33.0", device: str = "cuda", **options) -> Plan:
    options = {"cores": 16, "memory": 64 * GIB, **options}
    return make_plan(PATH, text or tree(version)[PATH], version, device, **options)


def refusal(**options) -> str:
    with pytest.raises(PlanError) as caught:
        plan_of(**options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "path"),
    [("docker/Dockerfile.rocm", "docker/Dockerfile.rocm"), ("./docker//Dockerfile", PATH), ("setup.py", "setup.py")],
)
def test_wanted_dockerfile(wanted: str, path: str) -> None:
    assert dockerfile_of(list(tree("0.33.0")), "cuda", wanted) == path


@pytest.mark.parametrize(
    ("paths", "device", "wanted", "sentence"),
    [
        (
            ["docker/Dockerfile.cpu", "docker/Dockerfile", "setup.py"],
            "cuda",
            "Dockerfile",
            "the source has no 'Dockerfile': set dockerfile to one that it has, docker/Dockerfile, "
            "docker/Dockerfile.cpu",
        ),
        (["a"], "cuda", "x", "the source has no 'x', nor any Dockerfile: is it vLLM's?"),
        (
            ["a"],
            "cuda",
            "",
            "the source has neither docker/Dockerfile nor Dockerfile: name its Dockerfile with dockerfile",
        ),
        (
            ["Dockerfile"],
            "cpu",
            "",
            "the source has neither docker/Dockerfile.cpu nor Dockerfile.cpu: name its Dockerfile with dockerfile",
        ),
    ],
)
def test_no_dockerfile(paths: list, device: str, wanted: str, sentence: str) -> None:
    with pytest.raises(PlanError) as caught:
        dockerfile_of(paths, device, wanted)
    assert str(caught.value) == sentence


def test_devices() -> None:
    assert [dockerfile_of(list(tree("0.33.0")), device) for device in DEVICES] == [PATH, CPU]


@pytest.mark.parametrize(
    ("text", "wanted", "target"),
    [
        ("", "vllm-openai-nonroot", "vllm-openai-nonroot"),
        ("", "VLLM-Sagemaker", "vllm-sagemaker"),
        ("FROM x AS one\nFROM y AS two\n", "", "two"),
        ("FROM x AS one\nFROM y\n", "", ""),
        ("FROM x AS one\nFROM y\n", "1", "1"),
        ("FROM x AS VLLM-OpenAI\nFROM y\n", "", "VLLM-OpenAI"),
    ],
)
def test_target(text: str, wanted: str, target: str) -> None:
    assert plan_of(text, target=wanted).target == target


@pytest.mark.parametrize(
    ("text", "target", "sentence"),
    [
        (
            "FROM x AS base\nFROM y AS vllm-openai\n",
            "vllm-opnai",
            "docker/Dockerfile has no stage 'vllm-opnai', but base, vllm-openai: did you mean vllm-openai?",
        ),
        (
            "FROM x AS base\nFROM y AS vllm-openai\n",
            "gpu",
            "docker/Dockerfile has no stage 'gpu', but base, vllm-openai: set target to one of them",
        ),
        ("# empty\n", "", "docker/Dockerfile has no FROM: set dockerfile to a Dockerfile"),
    ],
)
def test_no_target(text: str, target: str, sentence: str) -> None:
    assert refusal(text=text, target=target) == sentence


def test_no_stage_has_a_name() -> None:
    text = refusal(text="FROM x\n", target="base")
    assert text == "docker/Dockerfile has no stage 'base', but one without a name: leave target out"


def test_computed_args() -> None:
    plan = plan_of(cuda_archs=["9.0", "8.9"])
    assert plan.args == {
        "max_jobs": "16",
        "nvcc_threads": "2",
        "torch_cuda_arch_list": "8.9 9.0",
        "RUN_WHEEL_CHECK": "false",
    }
    assert plan.machine_args == ("max_jobs", "nvcc_threads")


@pytest.mark.parametrize(
    ("cores", "memory", "max_jobs", "jobs", "threads"),
    [
        (16, 64, 0, "16", "2"),
        (64, 64, 0, "16", "2"),
        (2, 64, 0, "2", "2"),
        (16, 11.9, 0, "2", "2"),
        (16, 7.9, 0, "1", "1"),
        (16, 1, 0, "1", "1"),
        (1, 64, 0, "1", "1"),
        (2, 4, 12, "12", "2"),
        (16, 64, 1, "1", "1"),
    ],
)
def test_jobs(cores: int, memory: float, max_jobs: int, jobs: str, threads: str) -> None:
    args = plan_of(cores=cores, memory=int(memory * GIB), max_jobs=max_jobs).args
    assert (args["max_jobs"], args["nvcc_threads"]) == (jobs, threads)


def test_operators_args_come_first() -> None:
    given = {"max_jobs": 1, "RUN_WHEEL_CHECK": True, "torch_cuda_arch_list": "8.0", "USE_SCCACHE": None}
    plan = plan_of(build_args=given, cuda_archs=["9.0"], max_jobs=8)
    assert plan.args == {
        "max_jobs": "1",
        "RUN_WHEEL_CHECK": "true",
        "torch_cuda_arch_list": "8.0",
        "USE_SCCACHE": "",
        "nvcc_threads": "1",
    }
    assert plan.machine_args == ("nvcc_threads",)
    assert plan.notes == []


def test_bases_of_the_args() -> None:
    assert plan_of(build_args={"BUILD_BASE_IMAGE": "mirror/devel", "FINAL_BASE_IMAGE": "mirror/base"}).bases == [
        "mirror/base",
        "mirror/devel",
    ]


@pytest.mark.parametrize(
    "name",
    ["HTTP_PROXY", "https_proxy", "NO_PROXY", "all_proxy", "ftp_proxy", "BUILDKIT_INLINE_CACHE", "SOURCE_DATE_EPOCH"],
)
def test_args_that_docker_knows(name: str) -> None:
    assert plan_of(build_args={name: 1}).args[name] == "1"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("max_job", "did you mean max_jobs?"),
        ("MAX_JOBS", "did you mean max_jobs?"),
        ("CUDA_VERSON", "did you mean CUDA_VERSION?"),
        ("Http_Proxy", "leave it out"),
        ("nonsense", "leave it out"),
    ],
)
def test_unknown_arg(name: str, hint: str) -> None:
    sentence = refusal(build_args={name: "1"})
    assert sentence == "docker/Dockerfile declares no build argument '%s': %s" % (name, hint)


@pytest.mark.parametrize(
    ("archs", "passed"),
    [
        (["8.9"], "8.9"),
        ([8.9, 12.0], "8.9 12.0"),
        (["12.0", "8.9", "8.9", "10.0", "9.0a", "9.0"], "8.9 9.0 9.0a 10.0 12.0"),
        (["8.6", "9.0+PTX"], "8.6 9.0+PTX"),
        (("10.0f", "9.0a+PTX"), "9.0a+PTX 10.0f"),
    ],
)
def test_architectures(archs: list, passed: str) -> None:
    assert plan_of(cuda_archs=archs).args["torch_cuda_arch_list"] == passed


@pytest.mark.parametrize("arch", ["89", "sm_89", "8.9 9.0", "", "8.9+ptx", "8.9\n", "Ada", "all"])
def test_no_architecture(arch: str) -> None:
    assert refusal(cuda_archs=["8.9", arch]) == (
        "'%s' of cuda_archs is no compute capability: write it like 8.9, 9.0a or 12.0+PTX" % arch
    )


@pytest.mark.parametrize("version", ["0.20.0", "0.32.0", "0.33.1.dev5+gabc", "v0.21.0", "0.20.0-7-gabc"])
def test_volta_is_refused(version: str) -> None:
    assert refusal(text=cuda_dockerfile("0.33.0"), version=version, cuda_archs=["7.0+PTX"]) == (
        "vLLM %s has no kernels for compute capability '7.0+PTX', as 0.20.0 dropped Volta: "
        "build 0.19.1 or older, or leave these hosts out" % version
    )


@pytest.mark.parametrize("version", ["0.4.2", "0.19.1", "0.19.2.dev3+gabc", ""])
def test_volta_is_built(version: str) -> None:
    plan = plan_of(cuda_dockerfile("0.19.1"), version=version, cuda_archs=["7.0", "7.5"])
    assert plan.args["torch_cuda_arch_list"] == "7.0 7.5"


PRECOMPILED = "FROM x AS vllm-openai\nARG VLLM_USE_PRECOMPILED max_jobs torch_cuda_arch_list\n"


def test_precompiled() -> None:
    plan = plan_of(PRECOMPILED, precompiled=True, memory=GIB)
    assert plan.args["VLLM_USE_PRECOMPILED"] == "1"
    # Nothing is compiled, so there is nothing to note.
    assert plan.notes == []
    assert "VLLM_USE_PRECOMPILED" not in plan_of(PRECOMPILED).args


def test_precompiled_is_not_there() -> None:
    assert refusal(precompiled=True) == (
        "docker/Dockerfile declares no VLLM_USE_PRECOMPILED, so that this source can only be compiled: "
        "set precompiled to false"
    )


HOURS = (
    "docker/Dockerfile compiles for every GPU architecture of its default list, which takes hours: "
    "set cuda_archs to those of your GPUs, such as 8.9"
)
MEMORY = (
    "compiling CUDA kernels takes up to 4 GiB of memory a job and there are 7.5 GiB: build where 8 GiB or more are free"
)


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ({"cuda_archs": ["8.9"]}, []),
        ({}, [HOURS]),
        ({"memory": int(7.5 * GIB)}, [HOURS, MEMORY]),
        ({"memory": 8 * GIB, "cuda_archs": ["8.9"]}, []),
        ({"build_args": {"torch_cuda_arch_list": "8.9"}}, []),
        ({"text": "FROM x\n"}, []),
        (
            {"text": "FROM x\n", "cuda_archs": ["8.9"]},
            ["docker/Dockerfile declares no torch_cuda_arch_list: cuda_archs has no effect on it"],
        ),
        ({"device": "cpu", "memory": GIB}, []),
    ],
)
def test_notes(options: dict, notes: list) -> None:
    assert plan_of(**options).notes == notes


COMMIT, SHA = "0123456789abcdef" * 2 + "01234567", "0123456789abcdef" * 4


def inputs(**options) -> dict:
    plan = plan_of(cuda_archs=["8.9"], **options)
    return inputs_of(plan, COMMIT, SHA, dict.fromkeys(plan.bases, "sha256:" + SHA))


def test_inputs() -> None:
    found = inputs(build_args={"USE_SCCACHE": "0", "https_proxy": "http://me:secret@proxy", "HTTP_PROXY": "x"})
    assert found == {
        "commit": COMMIT,
        "dockerfile": PATH,
        "dockerfile_sha256": SHA,
        "target": "vllm-openai",
        "args": {"USE_SCCACHE": "0", "torch_cuda_arch_list": "8.9", "RUN_WHEEL_CHECK": "false"},
        "bases": dict.fromkeys(cuda("13.0.3-devel-ubuntu24.04", "13.0.3-base-ubuntu24.04"), "sha256:" + SHA),
    }
    assert json.loads(json.dumps(found)) == found


def test_base_without_an_id() -> None:
    assert set(inputs_of(plan_of(), COMMIT, SHA, {})["bases"].values()) == {""}


def test_digest() -> None:
    digest = digest_of(inputs())
    assert len(digest) == 64
    assert digest == digest_of(dict(reversed(inputs().items())))
    # Another machine builds the same image.
    assert digest == digest_of(inputs(cores=2, memory=9 * GIB))
    assert digest != digest_of(inputs(build_args={"max_jobs": "16"}))
    assert digest != digest_of(inputs(target="vllm-openai-nonroot"))


def test_no_changes() -> None:
    assert changes(inputs(), inputs()) == []
    assert changes({}, inputs()) == []
    assert changes({}, {}) == []


def test_changes() -> None:
    other = "f" * 64
    before = inputs(build_args={"USE_SCCACHE": ""})
    plan = replace(
        plan_of(cuda_archs=["9.0"], build_args={"UBUNTU_VERSION": "22.04"}),
        dockerfile="Dockerfile",
        target="build",
        bases=["nvidia/cuda:13.0.3-base-ubuntu24.04"],
    )
    after = inputs_of(plan, "f" * 40, other, {"nvidia/cuda:13.0.3-base-ubuntu24.04": "sha256:" + other})
    assert changes(before, after) == [
        "source commit: 0123456789ab -> ffffffffffff",
        "Dockerfile: docker/Dockerfile -> Dockerfile",
        "content of the Dockerfile: 0123456789ab -> ffffffffffff",
        "target: vllm-openai -> build",
        "build argument UBUNTU_VERSION: none -> 22.04",
        "build argument USE_SCCACHE: '' -> none",
        "build argument torch_cuda_arch_list: 8.9 -> 9.0",
        "base nvidia/cuda:13.0.3-base-ubuntu24.04: sha256:0123456789ab -> sha256:ffffffffffff",
        "base nvidia/cuda:13.0.3-devel-ubuntu24.04: sha256:0123456789ab -> none",
    ]


def test_changes_of_another_release_of_the_collection() -> None:
    assert changes({"commit": COMMIT}, {"commit": "f" * 40}) == ["source commit: 0123456789ab -> ffffffffffff"]


def test_changes_hide_passwords() -> None:
    before, after = ({"args": {"PIP_INDEX_URL": "https://me:%s@pypi/simple" % word}} for word in ("old", "new"))
    assert changes(before, after) == [
        "build argument PIP_INDEX_URL: https://***@pypi/simple -> https://***@pypi/simple"
    ]
