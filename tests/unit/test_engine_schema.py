"""Tests of which options a vLLM takes: from its parser, its help, and the table of the releases."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_parser import parser_of, recorded

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_schema as schemas
from ansible_collections.llmops.vllm.plugins.module_utils._engine_args import schema_of_version
from ansible_collections.llmops.vllm.plugins.module_utils._engine_history import HISTORY

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = sorted(recorded(), key=schemas.version_key)
SOME = ["0.4.2", "0.6.3", "0.8.5", "0.11.0", "0.20.0", "0.32.0", "0.33.0"]


def test_the_table_is_what_the_parsers_give() -> None:
    assert subprocess.run([sys.executable, ROOT / "tools/engine_history.py", "--check"], check=False).returncode == 0


def test_the_releases_that_are_known() -> None:
    assert len(VERSIONS) == 76
    assert (VERSIONS[0], VERSIONS[-1]) == ("0.4.2", "0.33.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_has_the_options_of_a_release(version: str) -> None:
    told = schemas.from_actions(version, recorded()[version]).options
    table = schema_of_version(version)
    assert table.table == table.version == version
    assert table.options.keys() == told.keys()
    for name, option in told.items():
        # Of some the table knows the type from another release.
        known = replace(table.options[name], kind=option.kind, default=None)
        assert known == replace(option, default=None)


@pytest.mark.parametrize("version", SOME)
def test_the_help_tells_the_same_but_for_types(version: str) -> None:
    told = schemas.from_actions(version, recorded()[version]).options
    read = schemas.from_help(version, parser_of(version).format_help()).options
    # argparse lists what the parser of a release keeps to itself.
    assert read.keys() == told.keys()
    for name, option in told.items():
        if option.form in (schemas.FLAG, schemas.PAIR):
            assert read[name].form == option.form, name
            assert set(option.negatives) == set(read[name].negatives), name
        elif option.form == schemas.VALUE:
            assert read[name].form == schemas.VALUE, name
            assert read[name].nargs == option.nargs, name
            choices = [str(choice) for choice in option.choices if choice != "None"]
            # A choice with a comma in it cannot be told from two.
            if not any("," in choice for choice in choices):
                assert list(read[name].choices) == choices, name


HELP = """\
usage: vllm serve [model_tag] [options]

positional arguments:
  model_tag             The model tag to serve (optional if specified in
                        config) (default: None)

options:
  --headless            Run in headless mode. (default: False)
  --seed SEED           Random seed. (default: 0)
  -q METHOD, --quantization METHOD
                        Method used to quantize the weights. (default: None)

ModelConfig:
  --dtype {auto,half,None}
                        Data type (default: auto)
  --enable-prefix-caching, --no-enable-prefix-caching
                        Whether to enable it. (default: True)
  --lora-modules LORA_MODULES [LORA_MODULES ...]
                        name=path
  --task TASK           [DEPRECATED] what it does
"""


def test_a_help_text() -> None:
    options = schemas.from_help("0.12.0", HELP).options
    assert list(options) == [
        "headless", "seed", "quantization", "dtype", "enable_prefix_caching", "lora_modules", "task",
    ]  # fmt: skip
    assert (options["headless"].form, options["headless"].default) == (schemas.FLAG, False)
    assert (options["seed"].form, options["seed"].default) == (schemas.VALUE, 0)
    assert options["quantization"].flags == ("--quantization", "-q")
    assert options["dtype"].choices == ("auto", "half")
    assert options["enable_prefix_caching"].negatives == ("--no-enable-prefix-caching",)
    assert options["enable_prefix_caching"].default is True
    assert options["lora_modules"].nargs == "+"
    assert options["task"].deprecated and not options["seed"].deprecated


@pytest.mark.parametrize("text", ["", "no such thing\n", "usage: sh [-c]\n"])
def test_a_help_text_of_something_else(text: str) -> None:
    assert schemas.from_help("", text).options == {}


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.32.0", "0.32.0"),
        ("vllm/vllm-openai:v0.32.0-x86_64", "0.32.0"),
        ("registry:5000/vllm/vllm-openai:v0.6.1.post2", "0.6.1.post2"),
        ("llmops-vllm-cpu:0.32.0", "0.32.0"),
        ("vllm/vllm-openai:v0.20.0@sha256:" + "ab" * 32, "0.20.0"),
        ("vllm/vllm-openai:latest", ""),
        ("vllm", ""),
        ("registry:5000/vllm", ""),
        ("vllm:test-0.32.0", ""),
    ],
)
def test_the_version_of_a_tag(image: str, version: str) -> None:
    assert schemas.version_of_tag(image) == version


def test_versions_are_compared_as_numbers() -> None:
    versions = ["0.4.2", "0.6.3", "0.6.3.post1", "0.10.0", "0.10.1.1", "0.10.2", "0.32.0", "1.0.0"]
    backwards = versions[::-1]
    assert sorted(backwards, key=schemas.version_key) == versions
    assert schemas.version_key("v0.32.0") == schemas.version_key("0.32.0+cpu")
    assert schemas.version_key("main") == ()


def test_a_release_between_or_after_those_that_are_known() -> None:
    assert schema_of_version("0.20.9").table == "0.20.2"
    assert schema_of_version("0.40.0").table == "0.33.0"
    assert schema_of_version("0.33.0.dev5").table == "0.33.0"


@pytest.mark.parametrize(
    ("version", "why"), [("0.4.1", "^vLLM 0.4.1 is older than 0.4.2"), ("latest", "^'latest' is no version of vLLM")]
)
def test_a_release_of_which_nothing_is_known(version: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        schema_of_version(version)


def test_when_an_option_came_and_went() -> None:
    assert schemas.lifetime("worker_use_ray", HISTORY) == ("0.4.2", "0.7.0")
    assert schemas.lifetime("--worker-use-ray", HISTORY) == ("0.4.2", "0.7.0")
    assert schemas.lifetime("distributed_executor_backend", HISTORY) == ("0.4.3", "")
    assert schemas.lifetime("no_such_option", HISTORY) is None


def test_the_names_of_an_option() -> None:
    schema = schema_of_version("0.33.0")
    for name, positive in (
        ("enable_log_requests", True),
        ("--enable-log-requests", True),
        ("disable_log_requests", False),
        ("no_enable_log_requests", False),
    ):
        option, found = schema.find(name)
        assert (option.name, found) == ("enable_log_requests", positive)
    assert schema.find("tp")[0].name == "tensor_parallel_size"
    assert schema.find("nothing")[0] is None
