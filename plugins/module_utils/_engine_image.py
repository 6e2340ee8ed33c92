# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which options the vLLM of an image takes: asked in the image itself, once per image, and kept on the host."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_schema as schemas
from ansible_collections.llmops.vllm.plugins.module_utils._engine_args import schema_of_version

try:
    import docker
    import docker.errors
    import docker.types
    from requests.exceptions import ConnectionError as ConnectionLost
    from requests.exceptions import ReadTimeout

    DOCKER_ERROR = None
except ImportError:
    DOCKER_ERROR = traceback.format_exc()

# Tells containers of a run that was killed from all others.
LABEL = "llmops.vllm.parser"
_MARK = "llmops-vllm-parser:"
# Fewer options than the smallest vLLM has are no vLLM's help.
_FEWEST = 5

# Runs in the image, with its Python (3.8 or newer). The places are those of 0.4.2 to 0.33.0, the newest first.
PARSER_SCRIPT = r"""
import argparse, functools, importlib, json

def first(names, attribute):
    for name in names:
        try:
            return getattr(importlib.import_module(name), attribute)
        except (ImportError, AttributeError):
            pass

def parser():
    make = first(["vllm.entrypoints.common.cli_args", "vllm.entrypoints.launchers.cli_args",
                  "vllm.entrypoints.openai.cli_args"], "make_arg_parser")
    empty = first(["vllm.utils.argparse_utils", "vllm.utils"], "FlexibleArgumentParser")
    try:
        return make((empty or argparse.ArgumentParser)())
    except TypeError:
        return make()

def type_name(kind):
    if kind is None or isinstance(kind, str):
        return kind
    if isinstance(kind, functools.partial):
        return type_name(kind.func)
    name = getattr(kind, "__name__", type(kind).__name__)
    if name in ("_optional_type", "_parse_type"):
        for cell in kind.__closure__ or ():
            if callable(cell.cell_contents):
                return "%s[%s]" % (name.strip("_"), type_name(cell.cell_contents))
    return name

def plain(value):
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return None

made = parser()
actions = []
for action in made._actions:
    choices = None if action.choices is None else [plain(choice) for choice in action.choices]
    actions.append({
        "flags": list(action.option_strings), "dest": action.dest, "action": type(action).__name__,
        "type": type_name(action.type), "choices": choices, "default": plain(action.default),
        "nargs": action.nargs, "deprecated": bool(getattr(action, "deprecated", False)),
        "hidden": [flag for flag, other in made._option_string_actions.items()
                   if other is action and flag not in action.option_strings],
    })
import vllm
first(["vllm.plugins"], "load_general_plugins") and vllm.plugins.load_general_plugins()
methods = first(["vllm.model_executor.layers.quantization"], "QUANTIZATION_METHODS")
print("MARK" + json.dumps({"version": getattr(vllm, "__version__", ""), "actions": actions,
                           "quantizations": sorted(methods or [])}), flush=True)
""".replace("MARK", _MARK)


class ImageError(Exception):
    """The image cannot be asked; a sentence for people."""


class EngineImage:
    """An image of vLLM on this host.

    device_requests: Docker's, for the deployment's GPUs, since a parser is made for what is there. schema_dir: folder
    of what images have told. timeout: seconds that one question may take. keep: whether an answer is written there.
    """

    def __init__(
        self, name: str, device_requests: list[dict[str, Any]], schema_dir: str, timeout: int, keep: bool = True
    ) -> None:
        self.name, self.device_requests, self.timeout, self.keep = name, device_requests, timeout, keep
        self.client = docker.from_env(timeout=timeout)
        try:
            self.attrs = self.client.images.get(name).attrs
        except docker.errors.ImageNotFound:
            raise ImageError(
                "there is no image '%s' on this host: bring it with the role vllm_image, or correct its name" % name
            ) from None
        config = self.attrs.get("Config") or {}
        self.entrypoint = config.get("Entrypoint") or []
        self.id = self.attrs["Id"]
        self.path = os.path.join(schema_dir, self.id.rpartition(":")[2][:12] + ".json")
        # Whether the image was asked, by a container.
        self.asked = False

    def takes_model_first(self) -> bool:
        """Return whether the entrypoint is ``vllm serve`` (0.11.1 and newer), which wants the model as a word alone."""
        words = " ".join(self.entrypoint).split()
        return bool(words) and (words[-1] == "serve" or words[-1].endswith("vllm-nonroot-entrypoint.sh"))

    def schema(self) -> schemas.Schema:
        """Return the Schema of the image, from the file where it is kept, or else from the image."""
        answer = self._kept()
        if answer is None:
            answer = self._ask()
            if self.keep:
                self._write(answer)
        version = answer["version"] or schemas.version_of_tag(self.name)
        if answer["source"] == "parser":
            return schemas.from_actions(version, answer["actions"], answer["quantizations"])
        if answer["source"] == "help":
            return schemas.from_help(version, answer["help"])
        if not version:
            raise ImageError(
                "the vLLM of the image '%s' tells its options neither by its parser nor by --help, and the image's tag "
                "names no version such as v0.32.0: name the image so, or use one that has vLLM in it" % self.name
            )
        try:
            return schema_of_version(version)
        except ValueError as error:
            raise ImageError(str(error)) from None

    def _kept(self) -> dict[str, Any] | None:
        try:
            with open(self.path, encoding="utf-8") as stream:
                answer = json.load(stream)
        except (OSError, ValueError):
            return None
        # A file that another release of the collection wrote is asked anew; and an image that did not tell its parser,
        # when it is now run with other devices.
        if not isinstance(answer, dict) or answer.get("image") != self.id:
            return None
        if answer["source"] == "parser":
            return answer if "quantizations" in answer else None
        return answer if answer.get("devices") == self.device_requests else None

    def _write(self, answer: dict[str, Any]) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        new = "%s.%d" % (self.path, os.getpid())
        with open(new, "w", encoding="utf-8") as stream:
            json.dump(answer, stream)
        os.chmod(new, 0o644)
        os.replace(new, self.path)

    def _ask(self) -> dict[str, Any]:
        self.asked = True
        self._remove_leftovers()
        code, output = self.run(["python3", "-c", PARSER_SCRIPT], [])
        for line in output.splitlines():
            if code == 0 and line.startswith(_MARK):
                told = json.loads(line[len(_MARK) :])
                return {"image": self.id, "source": "parser", **told}
        answer = {"image": self.id, "version": "", "devices": self.device_requests}
        for option in ("--help=all", "--help"):
            code, output = self.run(None, [option])
            if code == 0 and len(schemas.from_help("", output).options) >= _FEWEST:
                return {**answer, "source": "help", "help": output}
        return {**answer, "source": "table"}

    def run(self, entrypoint: list[str] | None, command: list[str]) -> tuple[int, str]:
        """Return (exit code, output) of one run of the image, which sees nothing of the host."""
        api = self.client.api
        try:
            container = self.client.containers.create(
                self.id,
                command,
                entrypoint=entrypoint,
                labels={LABEL: ""},
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                tmpfs={"/tmp": "rw,nosuid,nodev,size=512m"},
                environment={"HOME": "/tmp", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
                device_requests=[docker.types.DeviceRequest(**request) for request in self.device_requests],
            )
        except docker.errors.APIError as error:
            raise ImageError(_refusal(self.name, error)) from None
        try:
            container.start()
            code = api.wait(container.id, timeout=self.timeout)["StatusCode"]
            return code, container.logs().decode("utf-8", "replace")
        except docker.errors.APIError as error:
            raise ImageError(_refusal(self.name, error)) from None
        except (ReadTimeout, ConnectionLost):
            raise ImageError(
                "the image '%s' did not answer within %d s: raise the timeout" % (self.name, self.timeout)
            ) from None
        finally:
            # Another run may just have taken it away.
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)

    def _remove_leftovers(self) -> None:
        for container in self.client.containers.list(all=True, filters={"label": LABEL, "status": "exited"}):
            # Another run may just have taken it away.
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True)


def _refusal(name: str, error: docker.errors.APIError) -> str:
    said = str(error.explanation or error)
    if "could not select device driver" in said:
        return (
            "Docker has no driver for GPUs (%s): install the NVIDIA Container Toolkit, or set gpus to none for a "
            "server on the CPU" % said
        )
    return "Docker does not run the image '%s': %s" % (name, said)
