"""Tests of the filters: each is there under its file's name, and its documented example holds."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from jinja2.nativetypes import NativeEnvironment

from ansible_collections.llmops.vllm.plugins.filter import device_requests, reserved_engine_args

FOLDER = Path(__file__).resolve().parents[2] / "plugins" / "filter"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def plugin(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.llmops.vllm.plugins.filter.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_is_documented_under_its_name(name: str) -> None:
    module = plugin(name)
    assert list(module.FilterModule().filters()) == [name]
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["name"] == name
    assert "_input" in documentation["options"]
    assert yaml.safe_load(module.RETURN)["_value"]["description"]


@pytest.mark.parametrize("name", NAMES)
def test_the_documented_example_holds(name: str) -> None:
    examples = plugin(name).EXAMPLES
    (expression,) = yaml.safe_load(examples).values()
    assert f"llmops.vllm.{name}" in expression
    environment = NativeEnvironment()
    environment.filters.update(
        (f"llmops.vllm.{other}", filter_)
        for other in NAMES
        for filter_ in plugin(other).FilterModule().filters().values()
    )
    value = environment.from_string(expression).render(vllm_server_api_key="sk-Abc123-secret")
    comment = re.search(r"^# (.*)$", examples, re.MULTILINE)
    if comment:
        assert value == ast.literal_eval(comment.group(1))
    else:
        digits = {"release_id": 12, "secret_fingerprint": 16}[name]
        assert re.fullmatch(r"[0-9a-f]{%d}" % digits, str(value))


def test_an_error_is_one_of_ansible() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^gpus is 0: it takes all, none, a count, or a list"):
        device_requests.device_requests(0)


def test_reserved_options_as_they_were_spelled() -> None:
    given = {"--port": 1, "max_model_len": 2, "api-key": 3}
    assert reserved_engine_args.reserved_engine_args(given) == ["--port", "api-key"]
