# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What ``docker build`` has to be told for a source tree of vLLM, 0.4.2 to 0.33.0. Pure logic: no files, no Docker."""

from __future__ import annotations

import difflib
import hashlib
import json
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._dockerfile import Dockerfile, parse
from ansible_collections.llmops.vllm.plugins.module_utils._engine_schema import version_key

DEVICES = ("cuda", "cpu")
# Plain `docker build` makes the last stage, which is vllm-openai-nonroot since 0.22.0 and vllm-openai-zen in the CPU
# file of 0.18.0 to 0.29.0. CPU files until 0.8.2 have no stage of this name; their last one serves.
SERVING_STAGE = "vllm-openai"
# The release that dropped GPUs of compute capability 7.0 (Volta).
_WITHOUT_VOLTA = "0.20.0"
_GIB = 1024**3
# What one compiler job of CUDA kernels takes at most.
_JOB_MEMORY = 4 * _GIB
_LEAST_MEMORY = 8 * _GIB
_ARCH = re.compile(r"(\d{1,2})\.(\d)([a-z]?)(\+PTX)?")
_PROXY = re.compile(r"(?:HTTP|HTTPS|FTP|NO|ALL)_PROXY|(?:http|https|ftp|no|all)_proxy")
# What Docker takes though no ARG declares it.
_PREDEFINED = re.compile(r"%s|BUILDKIT_\w+|SOURCE_DATE_EPOCH" % _PROXY.pattern)


class PlanError(Exception):
    """A build that cannot be as it is asked for; its text is one sentence."""


@dataclass(frozen=True)
class Plan:
    """A build. target: '' for the last stage, where it has no name; args: all build arguments; machine_args: the names
    of those that come from the machine and do not change the image; bases: the images that it pulls; heredocs: whether
    it takes Docker 23 to read it; notes: sentences for the operator."""

    dockerfile: str
    target: str
    args: dict[str, str]
    machine_args: tuple[str, ...] = ()
    bases: list[str] = field(default_factory=list)
    heredocs: bool = False
    notes: list[str] = field(default_factory=list)


def dockerfile_of(paths: Collection[str], device: str, wanted: str = "") -> str:
    """Return the path of the Dockerfile, of the repository's paths: the wanted one, or the one of the device."""
    if wanted:
        if posixpath.normpath(wanted) in paths:
            return posixpath.normpath(wanted)
        found = sorted(path for path in paths if posixpath.basename(path).startswith("Dockerfile"))
        raise PlanError(
            "the source has no '%s': set dockerfile to one that it has, %s" % (wanted, ", ".join(found))
            if found
            else "the source has no '%s', nor any Dockerfile: is it vLLM's?" % wanted
        )
    name = "Dockerfile" if device == "cuda" else "Dockerfile." + device
    # vLLM moved them to docker/ in 0.8.3.
    places = ["docker/" + name, name]
    for place in places:
        if place in paths:
            return place
    raise PlanError("the source has neither %s: name its Dockerfile with dockerfile" % " nor ".join(places))


def make_plan(
    path: str,
    text: str,
    version: str,
    device: str,
    cores: int,
    memory: int,
    target: str = "",
    build_args: Mapping[str, object] | None = None,
    cuda_archs: Iterable[object] = (),
    max_jobs: int = 0,
    precompiled: bool = False,
) -> Plan:
    """Return the plan of a build, or raise PlanError.

    path, text: of the Dockerfile; version: of vLLM, or '' where nothing tells; memory: of the machine, in bytes;
    max_jobs: 0 for as many as cores and memory allow.
    """
    dockerfile = parse(text)
    if not dockerfile.stages:
        raise PlanError("%s has no FROM: set dockerfile to a Dockerfile" % path)
    stage = _target(path, dockerfile, target)
    args = _given(path, dockerfile, build_args or {})
    archs = _architectures(cuda_archs, version)
    if precompiled and "VLLM_USE_PRECOMPILED" not in dockerfile.args:
        raise PlanError(
            "%s declares no VLLM_USE_PRECOMPILED, so that this source can only be compiled: "
            "set precompiled to false" % path
        )

    computed = {"max_jobs": str(max_jobs if max_jobs > 0 else max(1, min(cores, memory // _JOB_MEMORY)))}
    if device == "cuda":
        computed["nvcc_threads"] = "1" if args.get("max_jobs", computed["max_jobs"]) == "1" else "2"
    machine_args = tuple(name for name in computed if name in dockerfile.args and name not in args)
    if archs:
        computed["torch_cuda_arch_list"] = " ".join(archs)
    # The check keeps vLLM's own wheels small enough to publish; a private image may be as large as it is.
    computed["RUN_WHEEL_CHECK"] = "false"
    if precompiled:
        computed["VLLM_USE_PRECOMPILED"] = "1"
    args.update((name, value) for name, value in computed.items() if name in dockerfile.args and name not in args)

    return Plan(
        dockerfile=path,
        target=stage,
        args=args,
        machine_args=machine_args,
        bases=dockerfile.bases_of(stage, args),
        heredocs=dockerfile.heredocs,
        notes=_notes(path, dockerfile, args, archs, memory) if device == "cuda" and not precompiled else [],
    )


def inputs_of(plan: Plan, commit: str, dockerfile_text_digest: str, base_ids: Mapping[str, str]) -> dict[str, Any]:
    """Return what decides an image's content, as plain data. base_ids: {reference: id} of the plan's bases.

    Proxies decide nothing, and Docker keeps them out of the image: their URLs may hold a password.
    """
    return {
        "commit": commit,
        "dockerfile": plan.dockerfile,
        "dockerfile_sha256": dockerfile_text_digest,
        "target": plan.target,
        "args": {
            name: value
            for name, value in plan.args.items()
            if name not in plan.machine_args and not _PROXY.fullmatch(name)
        },
        "bases": {base: base_ids.get(base, "") for base in plan.bases},
    }


def digest_of(inputs: Mapping[str, Any]) -> str:
    """Return the SHA-256 of inputs: equal ones have equal digests, on every host."""
    document = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(document.encode("utf-8")).hexdigest()


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs between two inputs, one line each; nothing differs from {}, which no image was made of."""
    if not before:
        return []
    pairs = [
        ("source commit", before.get("commit"), after.get("commit")),
        ("Dockerfile", before.get("dockerfile"), after.get("dockerfile")),
        ("content of the Dockerfile", before.get("dockerfile_sha256"), after.get("dockerfile_sha256")),
        ("target", before.get("target"), after.get("target")),
    ]
    for label, key in (("build argument", "args"), ("base", "bases")):
        old, new = before.get(key) or {}, after.get(key) or {}
        pairs += [("%s %s" % (label, name), old.get(name), new.get(name)) for name in sorted(set(old) | set(new))]
    return ["%s: %s -> %s" % (label, _short(old), _short(new)) for label, old, new in pairs if old != new]


def _target(path: str, dockerfile: Dockerfile, wanted: str) -> str:
    names = dockerfile.stage_names()
    if wanted:
        stage = dockerfile.stage(wanted)
        if stage:
            return stage.name or wanted
        near = _nearest(wanted, names)
        if not names:
            hint = "leave target out"
        elif near:
            hint = "did you mean %s?" % near[0]
        else:
            hint = "set target to one of them"
        raise PlanError(
            "%s has no stage '%s', but %s: %s" % (path, wanted, ", ".join(names) or "one without a name", hint)
        )
    serving = dockerfile.stage(SERVING_STAGE)
    return serving.name if serving else dockerfile.stages[-1].name


def _given(path: str, dockerfile: Dockerfile, build_args: Mapping[str, object]) -> dict[str, str]:
    """Return the operator's build arguments as text."""
    for name in build_args:
        if name in dockerfile.args or _PREDEFINED.fullmatch(name):
            continue
        near = _nearest(name, dockerfile.args)
        hint = "did you mean %s?" % " or ".join(near) if near else "leave it out"
        raise PlanError("%s declares no build argument '%s': %s" % (path, name, hint))
    return {name: _text(value) for name, value in build_args.items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _architectures(cuda_archs: Iterable[object], version: str) -> list[str]:
    """Return the compute capabilities, each once, in their order."""
    found: dict[str, tuple[int, int, str, bool]] = {}
    for arch in map(str, cuda_archs):
        match = _ARCH.fullmatch(arch)
        if not match:
            raise PlanError("'%s' of cuda_archs is no compute capability: write it like 8.9, 9.0a or 12.0+PTX" % arch)
        major, minor = int(match.group(1)), int(match.group(2))
        if (major, minor) == (7, 0) and version_key(version) >= version_key(_WITHOUT_VOLTA):
            raise PlanError(
                "vLLM %s has no kernels for compute capability '%s', as %s dropped Volta: "
                "build 0.19.1 or older, or leave these hosts out" % (version, arch, _WITHOUT_VOLTA)
            )
        found[arch] = (major, minor, match.group(3), bool(match.group(4)))
    return sorted(found, key=found.__getitem__)


def _notes(path: str, dockerfile: Dockerfile, args: Mapping[str, str], archs: Sequence[str], memory: int) -> list[str]:
    """Return what an operator should know before CUDA kernels are compiled."""
    notes = []
    if archs and "torch_cuda_arch_list" not in dockerfile.args:
        notes.append("%s declares no torch_cuda_arch_list: cuda_archs has no effect on it" % path)
    elif "torch_cuda_arch_list" in dockerfile.args and not args.get("torch_cuda_arch_list"):
        notes.append(
            "%s compiles for every GPU architecture of its default list, which takes hours: "
            "set cuda_archs to those of your GPUs, such as 8.9" % path
        )
    if memory < _LEAST_MEMORY:
        notes.append(
            "compiling CUDA kernels takes up to %d GiB of memory a job and there are %.1f GiB: "
            "build where %d GiB or more are free" % (_JOB_MEMORY // _GIB, memory / _GIB, _LEAST_MEMORY // _GIB)
        )
    return notes


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return the names, three at most, that are most like a name, in any case: MAX_JOBS is like max_jobs."""
    by_lower = {other.lower(): other for other in sorted(names)}
    return [by_lower[near] for near in difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.7)]


def _short(value: str | None) -> str:
    """Return a value as a line shows it: hashes by their beginning, URLs without their passwords."""
    text = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b", r"\1", "none" if value is None else value or "''")
    return re.sub(r"://[^/@\s]+@", "://***@", text)
