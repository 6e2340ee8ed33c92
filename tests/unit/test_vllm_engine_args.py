"""Tests of the module vllm_engine_args, with a double of Docker's SDK: who is asked, how often, and what is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from engine_parser import parser_of, recorded

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_image
from ansible_collections.llmops.vllm.plugins.modules import vllm_engine_args

IMAGE = "vllm/vllm-openai:v0.32.0"
ID = "sha256:" + "4f1c" * 16


def told(version: str) -> str:
    return (
        "INFO noise\n"
        + _engine_image._MARK
        + json.dumps({"version": version, "actions": recorded()[version], "quantizations": ["awq", "gptq"]})
        + "\n"
    )


class NotFound(Exception):
    pass


class APIError(Exception):
    def __init__(self, explanation: str) -> None:
        super().__init__(f"500 Server Error for http+docker://localhost: {explanation}")
        self.explanation = explanation


class Docker:
    """A host with one image; runs: what each of its runs ends with, (exit code, output)."""

    def __init__(self, runs: list[Any], entrypoint: list[str] | None = None) -> None:
        self.runs = runs
        self.asked: list[dict[str, Any]] = []
        self.removed = 0
        self.attrs = {"Id": ID, "Config": {"Entrypoint": entrypoint or ["vllm", "serve"]}}
        self.errors = types.SimpleNamespace(ImageNotFound=NotFound, NotFound=NotFound, APIError=APIError)
        self.types = types.SimpleNamespace(DeviceRequest=lambda **request: request)
        self.images = self.containers = self.api = self
        self.id = "c1"

    def from_env(self, **_how: Any) -> Docker:
        return self

    def get(self, name: str) -> Docker:
        if name != IMAGE and not name.startswith("own/"):
            raise NotFound(name)
        return self

    def list(self, **_filters: Any) -> list[Docker]:
        return []

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


@pytest.fixture
def check(run_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def run(sdk: Docker, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        monkeypatch.setattr(_engine_image, "docker", sdk)
        params = {"image": IMAGE, "schema_dir": str(tmp_path / "schemas"), **params}
        return run_module(vllm_engine_args.main, check_mode, **params)

    return run


def test_the_parser_is_asked_once(check: Any, tmp_path: Path) -> None:
    sdk = Docker([(0, told("0.32.0"))])
    result = check(sdk, engine_args={"max_model_len": 4095}, model_path="/m", served_model_names=["a", "b"], gpus=[0])
    assert result["argv"] == ["/m", "--served-model-name", "a", "b", "--max-model-len", "4095"]
    assert (result["version"], result["source"], result["entrypoint"]) == ("0.32.0", "parser", ["vllm", "serve"])
    assert result["changed"] is False
    (asked,) = sdk.asked
    assert asked["entrypoint"][:2] == ["python3", "-c"]
    assert (asked["network_mode"], asked["read_only"], asked["cap_drop"]) == ("none", True, ["ALL"])
    assert asked["device_requests"] == [{"driver": "nvidia", "capabilities": [["gpu"]], "device_ids": ["0"]}]
    assert sdk.removed == 1
    # From now on nobody is asked.
    again = check(Docker([]), engine_args={"max_model_len": 1})
    assert (again["argv"], again["source"]) == (["--max-model-len", "1"], "parser")
    (kept,) = (tmp_path / "schemas").iterdir()
    assert (kept.name, kept.stat().st_mode & 0o777) == ("4f1c4f1c4f1c.json", 0o644)


def test_check_mode_keeps_nothing(check: Any, tmp_path: Path) -> None:
    assert check(Docker([(0, told("0.32.0"))]), check_mode=True)["source"] == "parser"
    assert not (tmp_path / "schemas").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"image": "another"}'])
def test_a_file_that_is_none_of_ours_is_made_anew(check: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/4f1c4f1c4f1c.json").write_text(text)
    assert check(Docker([(0, told("0.32.0"))]))["source"] == "parser"


def test_where_there_is_no_parser_the_help_is_read(check: Any) -> None:
    text = parser_of("0.32.0").format_help()
    sdk = Docker([(1, "ModuleNotFoundError"), (2, "error: ignored explicit argument"), (0, text)])
    result = check(sdk, engine_args={"max_model_len": 4095})
    assert (result["source"], result["version"], result["argv"]) == ("help", "0.32.0", ["--max-model-len", "4095"])
    assert [(asked["entrypoint"], asked["command"]) for asked in sdk.asked[1:]] == [
        (None, ["--help=all"]),
        (None, ["--help"]),
    ]
    # With other devices it may tell its parser.
    assert check(Docker([(0, told("0.32.0"))]), gpus="all", check_mode=True)["source"] == "parser"
    assert check(Docker([]), engine_args={"max_modle_len": 1})["problems"] == [
        "vLLM 0.32.0 has no option max_modle_len: did you mean max_model_len or max_log_len?"
    ]


def test_where_nothing_is_told_the_table_counts(check: Any) -> None:
    sdk = Docker([(127, "no python3"), (0, "Hello"), (1, "")])
    result = check(sdk, engine_args={"max_model_len": 4095})
    assert (result["source"], result["version"]) == ("table", "0.32.0")
    assert len(sdk.asked) == 3
    nameless = check(Docker([]), image="own/vllm:latest")
    assert "names no version such as v0.32.0" in nameless["msg"]


def test_all_problems_at_once(check: Any) -> None:
    result = check(Docker([(0, told("0.32.0"))]), engine_args={"max_modle_len": 1, "dtype": "fp16"})
    assert result["failed"]
    assert len(result["problems"]) == 2
    assert result["msg"] == "engine_args: " + "; ".join(result["problems"])


def test_snapshots_and_what_was_replaced(check: Any) -> None:
    result = check(
        Docker([(0, told("0.32.0"))], ["python3", "-m", "vllm.entrypoints.openai.api_server"]),
        engine_args={"speculative_model": "snapshot:draft", "num_speculative_tokens": 3},
        snapshots={"draft": "/vllm/draft"},
        model_path="/m",
        where_known={"disable_access_log_for_endpoints": "/health", "no_such_option": 1},
    )
    assert result["argv"] == [
        "--model", "/m", "--speculative-config", '{"model": "/vllm/draft", "num_speculative_tokens": 3}',
        "--disable-access-log-for-endpoints", "/health",
    ]  # fmt: skip
    assert len(result["translated"]) == 2
    missing = check(Docker([]), engine_args={"tokenizer": "snapshot:tok"})
    assert missing["msg"] == "engine_args: snapshot:tok is named, and snapshots has none: add it there"


@pytest.mark.parametrize(
    ("runs", "image", "msg"),
    [
        ([], "no/such:image", "there is no image 'no/such:image' on this host: bring it with the role vllm_image"),
        (
            [APIError('could not select device driver "nvidia" with capabilities: [[gpu]]')],
            IMAGE,
            'Docker has no driver for GPUs (could not select device driver "nvidia" with capabilities: [[gpu]]): install',
        ),
        (
            [APIError("no space left on device")],
            IMAGE,
            f"Docker does not run the image '{IMAGE}': no space left on device",
        ),
    ],
)
def test_an_image_that_cannot_be_asked(check: Any, tmp_path: Path, runs: list, image: str, msg: str) -> None:
    sdk = Docker(runs)
    result = check(sdk, image=image)
    assert result["failed"]
    assert result["msg"].startswith(msg)
    assert sdk.removed == len(sdk.asked)
    assert not (tmp_path / "schemas").exists()


def test_what_cannot_be_kept_is_said(check: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = check(Docker([(0, told("0.32.0"))]), schema_dir=str(tmp_path / "file" / "schemas"))
    assert result["msg"].startswith("the options of the image cannot be kept: [Errno 20] Not a directory")


def test_a_docker_that_does_not_answer(check: Any) -> None:
    """What its SDK raises is of its own kind, and of no kind that is known here."""
    sdk = Docker([])

    def refuse(**_how: Any) -> None:
        raise RuntimeError("Error while fetching server API version")

    sdk.from_env = refuse
    result = check(sdk)
    assert result["msg"] == f"{IMAGE} could not be asked: Error while fetching server API version"


def test_warnings_name_the_image(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(vllm_engine_args.AnsibleModule, "warn", lambda _module, warning: said.append(warning))
    check(Docker([(0, told("0.23.0"))]), engine_args={"quantization": "awq"}, upgraded_from="0.19.1")
    assert said[0].startswith(f"{IMAGE}: quantization: awq makes vLLM 0.23.0 take its slow kernel")
    assert said[1].startswith(f"{IMAGE}: since vLLM 0.20.0 the default of gpu_memory_utilization is 0.92")


FAKE = {
    "vllm/__init__.py": "__version__ = '0.99.0'\n",
    "vllm/utils/__init__.py": "",
    "vllm/plugins.py": "def load_general_plugins(): pass\n",
    "vllm/model_executor/__init__.py": "",
    "vllm/model_executor/layers/__init__.py": "",
    "vllm/model_executor/layers/quantization.py": "QUANTIZATION_METHODS = ['fp8', 'awq']\n",
    "vllm/utils/argparse_utils.py": "import argparse\nclass FlexibleArgumentParser(argparse.ArgumentParser): pass\n",
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/openai/__init__.py": "",
    "vllm/entrypoints/openai/cli_args.py": """
import argparse, functools

def _optional_type(kind):
    def _optional_type(text):
        return None if text == "None" else kind(text)
    return _optional_type

def make_arg_parser(parser):
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--seed", type=_optional_type(int), default=0)
    parser.add_argument("--rate", type=functools.partial(float))
    parser.add_argument("--dtype", choices=["auto", None], default=object())
    parser.add_argument("--eager", action=argparse.BooleanOptionalAction)
    print("a line of vLLM's log")
    return parser
""",
}
OLD = """
import argparse

def make_arg_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    return parser
"""


@pytest.mark.parametrize("old", [False, True])
def test_the_script_that_runs_in_the_image(tmp_path: Path, old: bool) -> None:
    files = dict(FAKE)
    if old:
        files["vllm/entrypoints/openai/cli_args.py"] = OLD
        del files["vllm/utils/argparse_utils.py"]
        del files["vllm/plugins.py"]
        del files["vllm/model_executor/layers/quantization.py"]
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    said = subprocess.run(
        [sys.executable, "-c", _engine_image.PARSER_SCRIPT],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in said.splitlines() if line.startswith(_engine_image._MARK)]
    answer = json.loads(line.removeprefix(_engine_image._MARK))
    assert answer["version"] == "0.99.0"
    assert answer["quantizations"] == ([] if old else ["awq", "fp8"])
    by_name = {action["dest"]: action for action in answer["actions"]}
    if old:
        assert by_name["seed"]["type"] == "int"
        return
    assert by_name["seed"]["type"] == "optional_type[int]"
    assert by_name["rate"]["type"] == "float"
    assert (by_name["dtype"]["choices"], by_name["dtype"]["default"]) == (["auto", None], None)
    assert by_name["eager"]["flags"] == ["--eager", "--no-eager"]
    assert by_name["model_tag"]["flags"] == []


def test_the_sdk_that_is_not_there(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine_image, "DOCKER_ERROR", "Traceback")
    assert "docker" in run_module(vllm_engine_args.main, image=IMAGE)["msg"]
