#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_image_build
short_description: Builds an image of vLLM from its source
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Builds the image from a checkout of vLLM's repository, with BuildKit. The Dockerfile and the stage that serves are
    found in the checkout itself, since both have moved in vLLM's history.
  - The image is labelled with what it was built from (commit, Dockerfile, arguments, base images) and is built again
    when, and only when, that changes. How many compilers run at once changes nothing of the image, and is left out.
  - The name goes to the new image when the build has succeeded, and stays where it is when it has not.
  - Two runs on one host build one after the other. What BuildKit has finished is kept by it, so that a build that was
    stopped goes on where it was.
requirements:
  - docker (Python SDK)
  - git, and Docker 23 or newer with its plugin buildx (20.10 without it builds what has no heredocs)
attributes:
  check_mode:
    support: full
    description: It says whether it would build, without fetching a base image.
  diff_mode:
    support: full
    description: It shows what the image was built from, and would be built from.
  idempotent:
    support: full
    description: An image that was built from the same is left alone.
options:
  name:
    description: Name and tag of the image.
    type: str
    required: true
    version_added: 0.2.0
  checkout:
    description: Folder on the host with the checkout, its C(.git) included, since the build reads the version there.
    type: path
    required: true
    version_added: 0.2.0
  commit:
    description: The commit that the checkout has to be at, in full. With another one the module fails.
    type: str
    version_added: 0.2.0
  device:
    description: What the image computes with, which decides the Dockerfile.
    type: str
    choices: [cuda, cpu]
    default: cuda
    version_added: 0.2.0
  dockerfile:
    description:
      - The Dockerfile, as a path in the checkout, or an absolute one to use another.
      - By default C(docker/Dockerfile) or, before vLLM 0.8.3, C(Dockerfile), with C(.cpu) behind it for the CPU.
    type: str
    default: ""
    version_added: 0.2.0
  target:
    description:
      - The stage to build. By default V(vllm-openai), or the last one of a Dockerfile without such a stage.
    type: str
    default: ""
    version_added: 0.2.0
  build_args:
    description:
      - Arguments of the build. One that the Dockerfile does not declare is refused.
      - They can be read in the image, so they are no place for secrets.
    type: dict
    default: {}
    version_added: 0.2.0
  cuda_archs:
    description:
      - Compute capabilities of the GPUs to compile for, such as V(8.9). Without any, the Dockerfile's own list is
        compiled, which takes hours.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  max_jobs:
    description: Compilers that run at once. V(0) computes it from the cores and the memory, 4 GiB for each.
    type: int
    default: 0
    version_added: 0.2.0
  precompiled:
    description: Take vLLM's compiled parts from its published wheels instead of compiling them.
    type: bool
    default: false
    version_added: 0.2.0
  update:
    description: Pull the base images anew, so that one whose tag has moved leads to a build.
    type: bool
    default: false
    version_added: 0.2.0
  min_free:
    description: Megabytes that must be free where Docker keeps its images.
    type: int
    default: 0
    version_added: 0.2.0
  timeout:
    description: Seconds that the build may take.
    type: int
    default: 14400
    version_added: 0.2.0
  progress_file:
    description: File for the line that the action plugin shows. Set by the action plugin.
    type: path
    version_added: 0.2.0
seealso:
  - module: llmops.vllm.vllm_image_info
"""

EXAMPLES = r"""
- name: Check vLLM out
  ansible.builtin.git:
    repo: https://github.com/vllm-project/vllm.git
    dest: /srv/vllm
    version: v0.32.0

- name: Build its image for the GPUs of the fleet
  llmops.vllm.vllm_image_build:
    name: registry.example.com/llm/vllm:v0.32.0
    checkout: /srv/vllm
    cuda_archs: ["8.9", "9.0"]
"""

RETURN = r"""
id:
  description: ID of the image; empty when it is not there yet, in check mode.
  returned: success
  type: str
  sample: sha256:4f1c...
differences:
  description: In what the image that is there differs from what was asked for.
  returned: success
  type: list
  elements: str
  sample: ["build argument torch_cuda_arch_list: 8.9 -> 9.0"]
recipe:
  description: What the image is built from. It is a label of the image.
  returned: success
  type: dict
  contains:
    commit:
      description: Commit of the checkout.
      type: str
      sample: 1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
    dockerfile:
      description: The Dockerfile.
      type: str
      sample: docker/Dockerfile
    target:
      description: The stage.
      type: str
      sample: vllm-openai
    args:
      description: The arguments that decide what is in the image.
      type: dict
      sample: {torch_cuda_arch_list: "8.9", RUN_WHEEL_CHECK: "false"}
    bases:
      description: The images that it is built on, with their IDs.
      type: dict
      sample: {"nvidia/cuda:12.9.1-devel-ubuntu22.04": "sha256:aa01..."}
machine_args:
  description: The arguments that were computed from the machine.
  returned: success
  type: dict
  sample: {max_jobs: "16", nvcc_threads: "2"}
step:
  description: The step of the build that failed.
  returned: failure of the build
  type: str
  sample: "[build 7/12] RUN python3 setup.py bdist_wheel"
log:
  description: The last lines that it wrote.
  returned: failure of the build
  type: list
  elements: str
  sample: ["0.234 hello"]
"""

import contextlib
import hashlib
import json
import os
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.llmops.vllm.plugins.module_utils import (
    _build_plan,
    _builder,
    _engine_image,
    _image,
)
from ansible_collections.llmops.vllm.plugins.module_utils._build_log import BuildLog
from ansible_collections.llmops.vllm.plugins.module_utils._builder import BuildError
from ansible_collections.llmops.vllm.plugins.module_utils._progress import PROGRESS_FILE_SPEC, Progress


class BuildFailure(BuildError):
    """A build that was begun and failed; log: its BuildLog."""

    def __init__(self, message: str, log: BuildLog) -> None:
        super().__init__(message)
        self.step, self.lines = log.failure()


class ImageBuild:
    """Builds an image from a checkout, unless the one that is there was built from the same."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.name = module.params["name"]
        self.checkout = module.params["checkout"]
        self.timeout = module.params["timeout"]
        # A pull may say nothing for minutes while a large layer is written.
        self.client = _engine_image.docker.from_env(timeout=self.timeout)
        self.progress = Progress(module.params["progress_file"])

    def run(self) -> dict[str, Any]:
        """Return the result, or raise BuildError or PlanError."""
        with self.progress, self._alone():
            commit, version = self._source()
            self._refuse_another_than(self.params["commit"] or commit)
            plan, text = self._plan(version)
            there = self._there()
            if self.params["update"] and not self.module.check_mode:
                self._pull(plan.bases)
            known = there["recipe"].get("bases", {}) if there else {}
            # A base that is not here is taken for the one that was: to look at it is no reason to fetch it.
            recipe = self._recipe(plan, commit, text, known)
            result = {
                "changed": not there or there["inputs"] != _build_plan.digest_of(recipe),
                "id": there["id"] if there else "",
                "machine_args": {name: plan.args[name] for name in sorted(plan.machine_args)},
            }
            if result["changed"]:
                for note in plan.notes:
                    self.module.warn(note)
                command, environment = self._command(plan)
                _builder.refuse_small_disk(self.client.info()["DockerRootDir"], self.params["min_free"])
                if not self.module.check_mode:
                    self._pull([base for base in plan.bases if not self._inspect(base)])
                    # It may have been moved while bases were pulled.
                    self._refuse_another_than(commit)
                    recipe = self._recipe(plan, commit, text, {})
                    self._build(command, environment, plan, recipe)
                    built = self._there()
                    if not built:
                        raise BuildError("%s was built, and is gone again: see what removes images there" % self.name)
                    result["id"] = built["id"]
            before = there["recipe"] if there else {}
            result["recipe"] = recipe
            result["differences"] = _build_plan.changes(before, recipe)
            result["diff"] = {"before": _page(before), "after": _page(recipe)}
            return result

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        if self.module.check_mode:
            return contextlib.nullcontext()
        return _builder.alone(self.checkout.rstrip("/") + ".lock", self.timeout, self.progress.say)

    def _source(self) -> tuple[str, str]:
        """Return the commit of the checkout, and the version of vLLM that it is, where a tag tells."""
        if not self.module.get_bin_path("git"):
            raise BuildError("the command git is missing on this host: install it")
        commit = self._git("rev-parse", "HEAD")
        if not os.path.isdir(os.path.join(self.checkout, ".git")):
            raise BuildError("%s has no folder .git, which the build needs: make it with git clone" % self.checkout)
        described = self._git("describe", "--tags", "--match", "v[0-9]*", allowed=(0, 128))
        return commit, described.lstrip("v")

    def _refuse_another_than(self, commit: str) -> None:
        found = self._git("rev-parse", "HEAD")
        if found != commit:
            raise BuildError(
                "%s is at %s, not at %s: another run has checked that out meanwhile, run again"
                % (self.checkout, found, commit)
            )

    def _git(self, *words: str, allowed: tuple[int, ...] = (0,)) -> str:
        code, out, err = self.module.run_command(["git", "-C", self.checkout] + list(words))
        if code not in allowed:
            raise BuildError("%s is no checkout of a git repository: %s" % (self.checkout, err.strip()))
        return out.strip() if code == 0 else ""

    def _plan(self, version: str) -> tuple[_build_plan.Plan, str]:
        wanted = self.params["dockerfile"]
        if os.path.isabs(wanted):
            path = wanted
        else:
            path = _build_plan.dockerfile_of(self._git("ls-files").splitlines(), self.params["device"], wanted)
        with open(os.path.join(self.checkout, path), encoding="utf-8") as stream:
            text = stream.read()
        cores, memory = _builder.machine()
        plan = _build_plan.make_plan(
            path,
            text,
            version,
            self.params["device"],
            cores,
            memory,
            target=self.params["target"],
            build_args=self.params["build_args"],
            cuda_archs=self.params["cuda_archs"],
            max_jobs=self.params["max_jobs"],
            precompiled=self.params["precompiled"],
        )
        return plan, text

    def _there(self) -> dict[str, Any] | None:
        """Return what is known of the image that has the name, or None."""
        attrs = self._inspect(self.name)
        return _image.describe(attrs, "") if attrs else None

    def _inspect(self, name: str) -> dict[str, Any] | None:
        try:
            attrs: dict[str, Any] = self.client.images.get(name).attrs
            return attrs
        except _engine_image.docker.errors.ImageNotFound:
            return None

    def _recipe(self, plan: _build_plan.Plan, commit: str, text: str, known: dict[str, str]) -> dict[str, Any]:
        """Return what the image is built from. known: {base: ID} of bases that need not be on the host."""
        ids = {base: (self._inspect(base) or {"Id": known.get(base, "")})["Id"] for base in plan.bases}
        return _build_plan.inputs_of(plan, commit, hashlib.sha256(text.encode("utf-8")).hexdigest(), ids)

    def _pull(self, bases: list[str]) -> None:
        for base in bases:
            self.progress.say("pulling %s" % base)
            there = self._inspect(base)
            tagged = "@" in base or _image.split(base)[1]
            try:
                for step in self.client.api.pull(base, None if tagged else "latest", stream=True, decode=True):
                    if "error" in step:
                        raise _engine_image.docker.errors.APIError(step["error"], explanation=step["error"])
            except _engine_image.docker.errors.APIError as error:
                # One of the host itself, which no registry has.
                if there and not there.get("RepoDigests"):
                    continue
                raise BuildError(
                    "the base image %s cannot be pulled: %s; bring it to the host, or name another one by the build "
                    "argument that stands for it" % (base, error.explanation or error)
                ) from None

    def _command(self, plan: _build_plan.Plan) -> tuple[list[str], dict[str, str]]:
        if not self.module.get_bin_path("docker"):
            raise BuildError("the command docker is missing on this host: install it, with the role docker_engine")
        code, client, said = self.module.run_command(["docker", "version", "--format", "{{.Client.Version}}"])
        if code != 0:
            raise BuildError("the command docker does not work on this host: %s" % said.strip())
        has_buildx = self.module.run_command(["docker", "buildx", "version"])[0] == 0
        return _builder.build_command(self.client.version()["Version"], client.strip(), has_buildx, plan.heredocs)

    def _build(
        self, command: list[str], environment: dict[str, str], plan: _build_plan.Plan, recipe: dict[str, Any]
    ) -> None:
        labels = {
            _image.INPUTS_LABEL: _build_plan.digest_of(recipe),
            _image.RECIPE_LABEL: json.dumps(recipe, sort_keys=True),
            _image.REPOSITORY_LABEL: _image.split(self.name)[0],
        }
        argv = command + ["--progress", "plain", "--tag", self.name]
        argv += ["--file", os.path.join(self.checkout, plan.dockerfile)]
        argv += ["--target", plan.target] if plan.target else []
        for label in sorted(labels.items()):
            argv += ["--label", "%s=%s" % label]
        for argument in sorted(plan.args.items()):
            argv += ["--build-arg", "%s=%s" % argument]
        log = BuildLog()

        def heed(line: str) -> None:
            log.feed(line)
            self.progress.say(log.doing)

        code = _builder.watch(argv + [self.checkout], environment, self.timeout, heed)
        if code is None:
            raise BuildFailure(
                "the build of %s took longer than %d s and was stopped at %s: raise vllm_image_timeout; what is done "
                "is kept, and the next run goes on from there" % (self.name, self.timeout, log.doing or "its begin"),
                log,
            )
        if code != 0:
            raise BuildFailure("%s was not built: %s" % (self.name, log.sentence(plan.args.get("max_jobs"))), log)


def _page(recipe: dict[str, Any]) -> str:
    return json.dumps(recipe, indent=2, sort_keys=True) + "\n" if recipe else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            checkout=dict(type="path", required=True),
            commit=dict(type="str"),
            device=dict(type="str", choices=list(_build_plan.DEVICES), default="cuda"),
            dockerfile=dict(type="str", default=""),
            target=dict(type="str", default=""),
            build_args=dict(type="dict", default={}),
            cuda_archs=dict(type="list", elements="str", default=[]),
            max_jobs=dict(type="int", default=0),
            precompiled=dict(type="bool", default=False),
            update=dict(type="bool", default=False),
            min_free=dict(type="int", default=0),
            timeout=dict(type="int", default=14400),
            progress_file=PROGRESS_FILE_SPEC,
        ),
        supports_check_mode=True,
    )
    if _engine_image.DOCKER_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=_engine_image.DOCKER_ERROR)
    try:
        module.exit_json(**ImageBuild(module).run())
    except BuildFailure as error:
        module.fail_json(msg=str(error), step=error.step, log=error.lines)
    except (BuildError, _build_plan.PlanError) as error:
        module.fail_json(msg=str(error))
    except Exception as error:
        # What the docker SDK raises differs between its versions and those of requests, and much of it is an OSError.
        module.fail_json(
            msg="%s cannot be built: %s" % (module.params["name"], error), exception=traceback.format_exc()
        )


if __name__ == "__main__":
    main()
