"""Tests of the command line that options of vLLM give."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._engine_args import RESERVED, reserved_in, to_argv
from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import KEYS


@pytest.mark.parametrize(
    ("engine_args", "argv"),
    [
        ({}, []),
        ({"quantization": "awq"}, ["--quantization", "awq"]),
        ({"max_model_len": 4095}, ["--max-model-len", "4095"]),
        ({"gpu_memory_utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"seed": 0}, ["--seed", "0"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"revision": None}, []),
        ({"dtype": ""}, ["--dtype", ""]),
        ({"lora_modules": ["a=/x", "b=/y"]}, ["--lora-modules", "a=/x", "b=/y"]),
        ({"sizes": (1, 2)}, ["--sizes", "1", "2"]),
        ({"lora_modules": [{"path": "/x", "name": "a"}]}, ["--lora-modules", '{"name": "a", "path": "/x"}']),
        (
            {"hf_overrides": {"b": 1, "a": {"d": True, "c": None}}},
            ["--hf-overrides", '{"a": {"c": null, "d": true}, "b": 1}'],
        ),
        ({"override": {"text": "日本"}}, ["--override", '{"text": "日本"}']),
        ({"max-model-len": 1}, ["--max-model-len", "1"]),
        ({"--max-model-len": 1, "--no_x": True}, ["--max-model-len", "1", "--no-x"]),
        ({"served": "two words; $(x)"}, ["--served", "two words; $(x)"]),
        ({"b": 1, "a": 2}, ["--b", "1", "--a", "2"]),
    ],
)
def test_argv(engine_args: dict[str, Any], argv: list[str]) -> None:
    assert to_argv(engine_args) == argv
    assert all(isinstance(word, str) for word in to_argv(engine_args))


def test_a_document_does_not_depend_on_its_order() -> None:
    assert to_argv({"x": {"a": 1, "b": 2}}) == to_argv({"x": {"b": 2, "a": 1}})
    assert json.loads(to_argv({"x": {"a": [1, "ä"]}})[1]) == {"a": [1, "ä"]}


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_option_is_found_in_every_spelling(name: str) -> None:
    key = RESERVED[name]
    for spelled in (name, name.replace("_", "-"), f"--{name}", "--" + name.replace("_", "-")):
        assert reserved_in({"quantization": "awq", spelled: 1}) == [(spelled, key)]
    assert key in KEYS


def test_what_is_not_reserved() -> None:
    assert reserved_in({"hosts": 1, "ports": 1, "model_impl": 1, "tokenizer": 1, "api_server_count": 2, 1: 2}) == []
