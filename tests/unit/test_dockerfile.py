"""Tests of what is read in a Dockerfile."""

from __future__ import annotations

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._dockerfile import Stage, parse

VARIED = r"""
# syntax=docker/dockerfile:1
arg CUDA_VERSION=12.9.1 UBUNTU_VERSION="22.04"
ARG BUILD_BASE_IMAGE=nvidia/cuda:${CUDA_VERSION}-devel-ubuntu20.04
ARG FINAL_BASE_IMAGE='nvidia/cuda:${CUDA_VERSION}-base-ubuntu$UBUNTU_VERSION'
ARG EMPTY

from --platform=$BUILDPLATFORM ${BUILD_BASE_IMAGE} as Base
ARG torch_cuda_arch_list='7.0 7.5 8.0+PTX' max_jobs=2
RUN apt-get update \
    # FROM comment AS no-stage
    && echo "# no comment" \

    && apt-get install -y git
FROM base AS build
COPY --chown=1:1 --from=rust /vllm-rs vllm/
RUN --mount=type=cache,target=/root/.cache \
    --mount=type=bind,source=.git,target=.git \
    --mount=type=bind,from=ghcr.io/astral-sh/uv:0.5,source=/uv,target=/bin/uv \
    echo --mount=type=bind,from=nothing
FROM rust:1.90 AS rust
FROM build AS dev
FROM $FINAL_BASE_IMAGE AS vllm-openai
ADD --from=build /dist dist/
COPY --from=0 /a b
FROM scratch
COPY --from=vllm-openai / /
"""


def test_stages() -> None:
    assert parse(VARIED).stages == [
        Stage("Base", "${BUILD_BASE_IMAGE}"),
        Stage("build", "base", {"rust", "ghcr.io/astral-sh/uv:0.5"}),
        Stage("rust", "rust:1.90"),
        Stage("dev", "build"),
        Stage("vllm-openai", "$FINAL_BASE_IMAGE", {"build", "0"}),
        Stage("", "scratch", {"vllm-openai"}),
    ]


def test_arguments() -> None:
    dockerfile = parse(VARIED)
    assert list(dockerfile.global_args.items()) == [
        ("CUDA_VERSION", "12.9.1"),
        ("UBUNTU_VERSION", "22.04"),
        ("BUILD_BASE_IMAGE", "nvidia/cuda:${CUDA_VERSION}-devel-ubuntu20.04"),
        ("FINAL_BASE_IMAGE", "nvidia/cuda:${CUDA_VERSION}-base-ubuntu$UBUNTU_VERSION"),
        ("EMPTY", None),
    ]
    assert dockerfile.args == set(dockerfile.global_args) | {"torch_cuda_arch_list", "max_jobs"}


@pytest.mark.parametrize(
    ("target", "name"),
    [("", ""), ("base", "Base"), ("BASE", "Base"), ("vllm-openai", "vllm-openai"), ("2", "rust"), ("5", "")],
)
def test_stage(target: str, name: str) -> None:
    assert parse(VARIED).stage(target).name == name


@pytest.mark.parametrize("target", ["nonsense", "6", "ubuntu:22.04", "base*"])
def test_stage_that_is_not_there(target: str) -> None:
    assert parse(VARIED).stage(target) is None
    assert parse(VARIED).bases_of(target) == []


def test_stage_names() -> None:
    assert parse(VARIED).stage_names() == ["Base", "build", "rust", "dev", "vllm-openai"]


def test_nothing() -> None:
    dockerfile = parse("# nothing\n\\\n")
    assert dockerfile.stages == []
    assert dockerfile.stage() is None
    assert dockerfile.bases_of() == []


DEVEL, BASE = "nvidia/cuda:%s-devel-ubuntu20.04", "nvidia/cuda:%s-base-ubuntu22.04"


@pytest.mark.parametrize(
    ("target", "build_args", "bases"),
    [
        ("base", {}, [DEVEL % "12.9.1"]),
        ("base", {"CUDA_VERSION": "13.0.2"}, [DEVEL % "13.0.2"]),
        ("base", {"BUILD_BASE_IMAGE": "mirror/cuda:1"}, ["mirror/cuda:1"]),
        ("base", {"max_jobs": 4, "UNDECLARED": "x"}, [DEVEL % "12.9.1"]),
        ("dev", {}, ["ghcr.io/astral-sh/uv:0.5", DEVEL % "12.9.1", "rust:1.90"]),
        ("vllm-openai", {}, ["ghcr.io/astral-sh/uv:0.5", BASE % "12.9.1", DEVEL % "12.9.1", "rust:1.90"]),
        ("", {}, ["ghcr.io/astral-sh/uv:0.5", BASE % "12.9.1", DEVEL % "12.9.1", "rust:1.90"]),
        ("rust", {}, ["rust:1.90"]),
    ],
)
def test_bases(target: str, build_args: dict, bases: list) -> None:
    assert parse(VARIED).bases_of(target, build_args) == bases


@pytest.mark.parametrize(
    ("args", "base", "build_args", "bases"),
    [
        ("A=1", "x:$A", {}, ["x:1"]),
        ("A=1", "x:${A}b", {}, ["x:1b"]),
        ("A=1", "x:${A:-2}", {}, ["x:1"]),
        ("A", "x:${A:-2}", {}, ["x:2"]),
        ("A=", "x:${A:-2}", {}, ["x:2"]),
        ("A=", "x:1${A-2}", {}, ["x:1"]),
        ("A", "x:1${A-2}", {}, ["x:12"]),
        ("B=2", "x:${A:-2}", {}, ["x:2"]),
        ("A=1 B=2", "x:${A:-${B}}", {}, ["x:1"]),
        ("A B=2", "x:${A:-${B}}", {}, ["x:2"]),
        ("A=1", "x:1${A:+-slim}", {}, ["x:1-slim"]),
        ("A", "x:1${A:+-slim}", {}, ["x:1"]),
        ("A", "x:1${A:+-slim}", {"A": "yes"}, ["x:1-slim"]),
        ("A", "x${A}:1", {}, ["x:1"]),
        ("A=1 B=${A}.2 C=x:$B", "$C", {}, ["x:1.2"]),
        ("A=1 B=${A}.2 C=x:$B", "$C", {"A": 3}, ["x:3.2"]),
        ('A="x:1"', '"$A"', {}, ["x:1"]),
        # Nothing that a build can pull.
        ("A", "$A", {}, []),
        ("A=scratch", "$A", {}, []),
        ("B=1", "$A", {}, []),
        ("B=1", "$A", {"A": "undeclared"}, []),
        ("A=1.2", "x:${A%.2}", {}, []),
        ("A=$A", "x:$A", {"A": "$A"}, []),
    ],
)
def test_variables(args: str, base: str, build_args: dict, bases: list) -> None:
    assert parse("ARG %s\nFROM %s\n" % (args, base)).bases_of("", build_args) == bases


def test_argument_of_a_stage_does_not_name_a_base() -> None:
    text = "ARG A=1\nFROM x:$A AS one\nARG A=2\nFROM x:$A AS two\n"
    assert parse(text).bases_of() == ["x:1"]


def test_stage_that_the_platform_names() -> None:
    """vLLM's Dockerfile.cpu goes on from base-amd64 or base-arm64."""
    text = (
        "FROM ubuntu:22.04 AS common\nFROM common AS base-amd64\nFROM debian:13 AS base-arm64\n"
        "FROM alpine AS other\nFROM base-${TARGETARCH} AS vllm-openai\n"
    )
    assert parse(text).bases_of("vllm-openai") == ["debian:13", "ubuntu:22.04"]


def test_references_to_stages() -> None:
    # A FROM sees the stages above it, a COPY all of them, and a stage may be called like its image.
    assert parse("FROM ubuntu AS ubuntu\nFROM ubuntu AS last\n").bases_of() == ["ubuntu"]
    assert parse("FROM later\nCOPY --from=LATER / /\nFROM x AS later\n").bases_of("0") == ["later", "x"]
    assert parse("FROM a AS s\nFROM b AS s\nFROM s\n").bases_of() == ["b"]
    assert parse("FROM a AS one\nCOPY --from=two / /\nFROM one AS two\n").bases_of() == ["a"]


@pytest.mark.parametrize(
    ("text", "heredocs"),
    [
        ("RUN <<EOF\nFROM body AS body\nEOF", True),
        ("RUN <<'EOF'\nFROM body\nEOF", True),
        ('RUN <<"EOF"\nFROM body\nEOF', True),
        ("RUN <<-EOF\n\tFROM body\n\tEOF", True),
        ("RUN --mount=type=cache,target=/c \\\n  python3 - <<'PYEOF'\nFROM body\n EOF\nPYEOF", True),
        ("COPY <<A <<B /\nFROM body\nA\nFROM body\nB", True),
        ("RUN 3<<EOF cat\nFROM body # \\\nEOF", True),
        ("ADD <<EOF /x\n# FROM body\nEOF", True),
        ("RUN cat <<< FROM", False),
        ("RUN cat <<<EOF", False),
        ("RUN cat << EOF", False),
        ("RUN echo $((1<<2))", False),
        ("RUN echo ' <<EOF '", False),
        ('RUN echo " <<EOF "', False),
        ("RUN echo it\\'s <<EOF\nFROM body\nEOF", True),
        ("ENV X=<<EOF", False),
    ],
)
def test_heredocs(text: str, heredocs: bool) -> None:
    dockerfile = parse("FROM x AS first\n%s\nFROM first AS last\n" % text)
    assert dockerfile.heredocs is heredocs
    assert dockerfile.stage_names() == ["first", "last"]


@pytest.mark.parametrize(
    ("text", "mounts"),
    [
        ("RUN --mount=type=cache,target=/c true", True),
        ("run --network=none --mount=type=cache,target=/c true", True),
        ("RUN echo --mount=type=cache", False),
        ("COPY --from=x a b", False),
    ],
)
def test_mounts(text: str, mounts: bool) -> None:
    assert parse("FROM x\n%s\n" % text).mounts is mounts


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffFROM x AS y\n",
        "FROM x AS y",
        "FROM x AS y\r\n",
        "\tFROM\tx\tAS\ty  \n",
        "FROM x \\  \n  AS y\n",
        "FROM x \\\n# FROM z\n\n  AS y\n",
        "FROM x AS y \\\n",
        "FROM x AS y\nRUN echo \\\\\nRUN it's\n",
        "ARG A='\\'\nFROM x AS y\n",
    ],
)
def test_lines(text: str) -> None:
    assert parse(text).stages == [Stage("y", "x")]
