"""Tests of the command line that options of vLLM give, or of what is wrong with them."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from engine_parser import Refused, parse, recorded

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_changes as changes
from ansible_collections.llmops.vllm.plugins.module_utils import _engine_schema as schemas
from ansible_collections.llmops.vllm.plugins.module_utils._engine_args import (
    RESERVED,
    EngineArgsError,
    Rendered,
    render,
    reserved_in,
    schema_of_version,
    with_snapshots,
)
from ansible_collections.llmops.vllm.plugins.module_utils._engine_history import HISTORY
from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import KEYS

NEWEST = "0.33.0"
# Releases before and after most changes.
TABLE = ["0.4.2", "0.6.3", "0.8.5", "0.11.0", "0.20.0", "0.32.0", "0.33.0"]

# The complete list of options that vLLM had in the spring of 2024, each with a value of its time.
OF_2024: dict[str, Any] = {
    "uvicorn_log_level": "info",
    "allow_credentials": True,
    "allowed_origins": ["https://example.com"],
    "allowed_methods": ["GET", "POST"],
    "allowed_headers": ["*"],
    "lora_modules": {"sql": "/vllm/lora"},
    "response_role": "assistant",
    "ssl_keyfile": "/run/secrets/tls.key",
    "ssl_certfile": "/run/secrets/tls.crt",
    "ssl_ca_certs": "/run/secrets/ca.crt",
    "ssl_cert_reqs": 0,
    "root_path": "/llm",
    "middleware": ["a.b", "c.d"],
    "tokenizer": "/vllm/model",
    "skip_tokenizer_init": True,
    "revision": "main",
    "code_revision": "main",
    "tokenizer_revision": "main",
    "tokenizer_mode": "auto",
    "trust_remote_code": True,
    "download_dir": "/cache",
    "load_format": "auto",
    "dtype": "half",
    "kv_cache_dtype": "fp8",
    "quantization_param_path": "/vllm/scales.json",
    "max_model_len": 4095,
    "guided_decoding_backend": "outlines",
    "worker_use_ray": True,
    "pipeline_parallel_size": 2,
    "tensor_parallel_size": 2,
    "max_parallel_loading_workers": 2,
    "ray_workers_use_nsight": True,
    "block_size": 16,
    "enable_prefix_caching": True,
    "use_v2_block_manager": True,
    "num_lookahead_slots": 2,
    "seed": 7,
    "swap_space": 8,
    "gpu_memory_utilization": 0.9,
    "num_gpu_blocks_override": 512,
    "max_num_batched_tokens": 4096,
    "max_num_seqs": 64,
    "max_logprobs": 5,
    "disable_log_stats": True,
    "quantization": "awq",
    "enforce_eager": True,
    "max_context_len_to_capture": 4096,
    "max_seq_len_to_capture": 4096,
    "disable_custom_all_reduce": True,
    "tokenizer_pool_size": 2,
    "tokenizer_pool_type": "ray",
    "tokenizer_pool_extra_config": "{}",
    "enable_lora": True,
    "max_loras": 2,
    "max_lora_rank": 32,
    "lora_extra_vocab_size": 512,
    "lora_dtype": "float16",
    "max_cpu_loras": 4,
    "fully_sharded_loras": True,
    "device": "cuda",
    "image_input_type": "pixel_values",
    "image_token_id": 32000,
    "image_input_shape": "1,3,336,336",
    "image_feature_size": 576,
    "scheduler_delay_factor": 0.5,
    "enable_chunked_prefill": True,
    "speculative_model": "/vllm/draft",
    "num_speculative_tokens": 5,
    "speculative_max_model_len": 2048,
    "speculative_disable_by_batch_size": 8,
    "ngram_prompt_lookup_max": 4,
    "ngram_prompt_lookup_min": 1,
    "model_loader_extra_config": {},
    "engine_use_ray": True,
    "disable_log_requests": True,
    "max_log_len": 100,
}
# What each release refuses of it, as there is no one thing to take instead.
REFUSED = {
    "0.4.2": {"speculative_disable_by_batch_size"},
    "0.6.3": {"image_feature_size", "image_input_shape", "image_input_type", "image_token_id"},
}
REFUSED["0.8.5"] = REFUSED["0.6.3"] | {"quantization_param_path", "speculative_disable_by_batch_size"}
REFUSED["0.11.0"] = REFUSED["0.8.5"] | {
    "scheduler_delay_factor",
    "max_context_len_to_capture",
    "max_seq_len_to_capture",
}
REFUSED["0.20.0"] = REFUSED["0.11.0"] | {"lora_extra_vocab_size"}
REFUSED["0.32.0"] = REFUSED["0.33.0"] = REFUSED["0.20.0"]


schema = functools.cache(schema_of_version)


def rendered(engine_args: dict[str, Any], version: str = NEWEST, **more: Any) -> Rendered:
    return render(engine_args, schema(version), **more)


def problems(engine_args: dict[str, Any], version: str = NEWEST, **more: Any) -> list[str]:
    with pytest.raises(EngineArgsError) as caught:
        rendered(engine_args, version, **more)
    return caught.value.problems


def test_the_list_of_2024_is_complete() -> None:
    of_its_day = {schemas.plain(flag) for flag in ("--help", "--speculative-disable-by-batch-size")}
    for action in recorded()["0.4.2"]:
        of_its_day |= {schemas.plain(flag) for flag in action["flags"] if flag.startswith("--")}
    assert OF_2024.keys() | {"help"} | set(RESERVED) - {"model_tag"} == of_its_day
    assert len(of_its_day) == 83


@pytest.mark.parametrize("version", TABLE)
@pytest.mark.parametrize("name", OF_2024)
def test_options_of_2024(name: str, version: str) -> None:
    """Each becomes what the parser of the release takes, or a refusal that says what to do."""
    args = {name: OF_2024[name]}
    try:
        result = rendered(args, version)
    except EngineArgsError as error:
        assert name in REFUSED[version]
        (problem,) = error.problems
        assert problem.startswith(name)
        assert " is gone since vLLM " in problem or " came with vLLM " in problem
        assert ": " in problem
    else:
        assert name not in REFUSED[version]
        taken = parse(version, result.argv)
        option, positive = schema(version).find(name)
        assert option or result.translated
        if option and isinstance(args[name], bool):
            assert taken[option.name] is (args[name] is positive)
        elif option and isinstance(args[name], (int, float)):
            # Of some options the recorded parser does not tell the type.
            assert float(taken[option.name]) == args[name]


@pytest.mark.parametrize("version", TABLE)
def test_an_inventory_of_2024_as_a_whole(version: str) -> None:
    args = {name: value for name, value in OF_2024.items() if name not in REFUSED[version]}
    # It is a draft model or the prompt that speculates.
    args = {name: value for name, value in args.items() if not name.startswith("ngram")}
    if version == "0.4.2":
        del args["max_seq_len_to_capture"]
    result = rendered(args, version)
    parse(version, result.argv)
    assert "--model" not in result.argv


@pytest.mark.parametrize(
    ("engine_args", "argv"),
    [
        ({}, []),
        ({"quantization": "awq"}, ["--quantization", "awq"]),
        ({"max_model_len": 4095}, ["--max-model-len", "4095"]),
        ({"max_model_len": "4095"}, ["--max-model-len", "4095"]),
        ({"max_model_len": "8k"}, ["--max-model-len", "8k"]),
        ({"max_model_len": "auto"}, ["--max-model-len", "auto"]),
        ({"max_model_len": -1}, ["--max-model-len", "-1"]),
        ({"gpu_memory_utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"gpu_memory_utilization": 1}, ["--gpu-memory-utilization", "1"]),
        ({"seed": 0}, ["--seed", "0"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enable_prefix_caching": False}, ["--disable-prefix-caching"]),
        ({"disable_prefix_caching": True}, ["--disable-prefix-caching"]),
        ({"no_enable_prefix_caching": False}, ["--enable-prefix-caching"]),
        ({"disable_log_stats": False}, []),
        ({"revision": None}, []),
        ({"no_such_option": None}, []),
        ({"tokenizer": ""}, ["--tokenizer", ""]),
        ({"lora_modules": ["a=/x", "b=/y"]}, ["--lora-modules", "a=/x", "b=/y"]),
        ({"lora_modules": {"a": "/x", "b": "/y"}}, ["--lora-modules", "a=/x", "b=/y"]),
        ({"lora_modules": [{"path": "/x", "name": "a"}]}, ["--lora-modules", "a=/x"]),
        (
            {"lora_modules": [{"path": "/x", "name": "a", "base_model_name": "b"}]},
            ["--lora-modules", '{"base_model_name": "b", "name": "a", "path": "/x"}'],
        ),
        ({"quantization": "none"}, []),
        ({"cudagraph_capture_sizes": (1, 2)}, ["--cudagraph-capture-sizes", "1", "2"]),
        ({"middleware": ["a.b", "c.d"]}, ["--middleware", "a.b", "--middleware", "c.d"]),
        ({"allowed_origins": ["*"]}, ["--allowed-origins", '["*"]']),
        ({"allowed_origins": '["*"]'}, ["--allowed-origins", '["*"]']),
        (
            {"hf_overrides": {"b": 1, "a": {"d": True, "c": None}}},
            ["--hf-overrides", '{"a": {"c": null, "d": true}, "b": 1}'],
        ),
        ({"compilation_config.mode": 3}, ["--compilation-config", '{"mode": 3}']),
        (
            {"compilation_config": {"mode": 3}, "compilation_config.cudagraph-x": "a"},
            ["--compilation-config", '{"cudagraph-x": "a", "mode": 3}'],
        ),
        ({"override_generation_config": {"text": "日本"}}, ["--override-generation-config", '{"text": "日本"}']),
        ({"max-model-len": 1}, ["--max-model-len", "1"]),
        ({"--max-model-len": 1, "--no_async-scheduling": True}, ["--max-model-len", "1", "--no-async-scheduling"]),
        ({"tokenizer": "two words; $(x)"}, ["--tokenizer", "two words; $(x)"]),
        ({"tokenizer": "-x"}, ["--tokenizer=-x"]),
        ({"tp": 2}, ["--tensor-parallel-size", "2"]),
    ],
)
def test_argv(engine_args: dict[str, Any], argv: list[str]) -> None:
    assert rendered(engine_args).argv == argv
    parse(NEWEST, argv)


@pytest.mark.parametrize(
    ("version", "engine_args", "argv"),
    [
        # Booleans: a flag, a value, a pair.
        ("0.4.2", {"enable_chunked_prefill": True}, ["--enable-chunked-prefill"]),
        ("0.4.2", {"enable_chunked_prefill": False}, []),
        ("0.6.3", {"enable_chunked_prefill": False}, ["--enable-chunked-prefill=false"]),
        ("0.8.5", {"enable_chunked_prefill": False}, ["--no-enable-chunked-prefill"]),
        ("0.33.0", {"enable_chunked_prefill": False}, ["--disable-chunked-prefill"]),
        # Spelled as it stood there.
        ("0.4.2", {"max_seq_len_to_capture": 10}, ["--max-seq_len-to-capture", "10"]),
        ("0.6.3", {"limit_mm_per_prompt": {"image": 2, "video": 1}}, ["--limit-mm-per-prompt", "image=2,video=1"]),
        ("0.32.0", {"limit_mm_per_prompt": {"image": 2}}, ["--limit-mm-per-prompt", '{"image": 2}']),
    ],
)
def test_argv_by_version(version: str, engine_args: dict[str, Any], argv: list[str]) -> None:
    assert rendered(engine_args, version).argv == argv
    parse(version, argv)


def test_a_document_does_not_depend_on_its_order() -> None:
    one, other = ({"a": 1, "b": [1, "ä"]}, {"b": [1, "ä"], "a": 1})
    assert rendered({"hf_overrides": one}).argv == rendered({"hf_overrides": other}).argv
    assert json.loads(rendered({"hf_overrides": one}).argv[1]) == one


@pytest.mark.parametrize(
    ("version", "engine_args", "problem"),
    [
        (
            NEWEST,
            {"max_modle_len": 1},
            "vLLM 0.33.0 has no option max_modle_len: did you mean max_model_len or max_log_len?",
        ),
        (NEWEST, {"zzz": 1}, "vLLM 0.33.0 has no option zzz: leave it out"),
        (
            NEWEST,
            {"max_model_len": "many"},
            "max_model_len is 'many', it takes a whole number, one such as 8k, or auto",
        ),
        (
            NEWEST,
            {"max_model_len": "1.5K"},
            "max_model_len is '1.5K', it takes a whole number, one such as 8k, or auto",
        ),
        (NEWEST, {"max_model_len": 0}, "max_model_len is 0, it takes 1 or more"),
        (NEWEST, {"max_model_len": True}, "max_model_len is true, it takes a whole number, one such as 8k, or auto"),
        ("0.6.3", {"max_model_len": "8k"}, "max_model_len is '8k', it takes a whole number"),
        (NEWEST, {"seed": 1.5}, "seed is 1.5, it takes a whole number"),
        (NEWEST, {"gpu_memory_utilization": "lots"}, "gpu_memory_utilization is 'lots', it takes a number"),
        (NEWEST, {"gpu_memory_utilization": 90}, "gpu_memory_utilization is 90, it takes more than 0 and at most 1"),
        (NEWEST, {"gpu_memory_utilization": 0}, "gpu_memory_utilization is 0, it takes more than 0 and at most 1"),
        (NEWEST, {"tensor_parallel_size": 0}, "tensor_parallel_size is 0, it takes 1 or more"),
        (
            NEWEST,
            {"dtype": "fp16"},
            "dtype is 'fp16', it takes one of auto, bfloat16, float, float16, float32, half",
        ),
        ("0.4.2", {"block_size": 24}, "block_size is 24, it takes one of 8, 16, 32"),
        (NEWEST, {"enforce_eager": "true"}, "enforce_eager is 'true', it takes true or false: write it without quotes"),
        (NEWEST, {"enforce_eager": 1}, "enforce_eager is 1, it takes true or false"),
        (NEWEST, {"tokenizer": ["a"]}, "tokenizer is a list, it takes text"),
        (NEWEST, {"tokenizer": {"a": 1}}, "tokenizer is a dictionary, it takes text"),
        (NEWEST, {"lora_modules": []}, "lora_modules is an empty list: leave it out"),
        (NEWEST, {"allowed_origins": "*"}, "allowed_origins is '*', it takes a dictionary, a list or JSON"),
        (NEWEST, {"max_model_len": 1, "max-model-len": 2}, "max_model_len is given twice: leave one out"),
        (
            NEWEST,
            {"enable_prefix_caching": True, "no_enable_prefix_caching": True},
            "enable_prefix_caching and no_enable_prefix_caching are the same option: leave one out",
        ),
        (
            "0.6.3",
            {"async_scheduling": True},
            "async_scheduling came with vLLM 0.10.0, and this is 0.6.3: leave it out, or take a newer image",
        ),
        # argparse takes the beginning of an option for the option.
        (
            "0.24.0",
            {"device": "cpu"},
            "device is gone since vLLM 0.10.0; this is 0.24.0, which would take it for device_ids: take the image for "
            "that device; vLLM finds it itself, and gpus chooses the GPUs",
        ),
        (NEWEST, {"max_model": 1}, "vLLM 0.33.0 has no option max_model: did you mean max_model_len?"),
        # What came after it is gone as well.
        (
            NEWEST,
            {"max_context_len_to_capture": 1024},
            "max_context_len_to_capture is gone since vLLM 0.6.4: leave it out; cudagraph_capture_sizes limits by batch "
            "size, not by length",
        ),
        (
            NEWEST,
            {"guided_decoding_backend": "outlines", "structured_outputs_config": {"backend": "xgrammar"}},
            "guided_decoding_backend is gone since vLLM 0.12.0: set structured_outputs_config: {backend: ...}",
        ),
        (
            "0.32.0",
            {"speculative_model": "/x", "speculative_config": "{}"},
            "speculative_model is gone since vLLM 0.8.3: set speculative_config: {model: ...}",
        ),
        (
            NEWEST,
            {"enable_reasoning": True},
            "enable_reasoning is gone since vLLM 0.10.0: set reasoning_parser, which alone enables it",
        ),
        (
            NEWEST,
            {"task": "draft"},
            "task is gone since vLLM 0.13.0: set runner (generate or pooling) and convert (embed, classify or reward)",
        ),
    ],
)
def test_a_problem(version: str, engine_args: dict[str, Any], problem: str) -> None:
    assert problems(engine_args, version) == [problem]


def test_all_problems_are_told_at_once() -> None:
    assert len(problems({"max_modle_len": 1, "dtype": "fp16", "seed": "x", "enforce_eager": True})) == 3


@pytest.mark.parametrize("name", ["max_model", "tokenizer_r"])
def test_the_beginning_of_an_option_is_none(name: str) -> None:
    """Though vLLM itself would take it for one."""
    assert "has no option" in problems({name: 1})[0]


@pytest.mark.parametrize(
    ("version", "engine_args", "argv", "said"),
    [
        (
            NEWEST,
            {"worker_use_ray": True},
            ["--distributed-executor-backend", "ray"],
            "worker_use_ray: true became distributed_executor_backend: ray",
        ),
        (NEWEST, {"worker_use_ray": False}, [], "worker_use_ray: false is left out"),
        (
            NEWEST,
            {"guided_decoding_backend": "outlines"},
            ["--structured-outputs-config", '{"backend": "outlines"}'],
            "guided_decoding_backend: outlines became structured_outputs_config: {backend: outlines}",
        ),
        (
            NEWEST,
            {"speculative_model": "[ngram]"},
            ["--speculative-config", '{"method": "ngram"}'],
            "speculative_model: [ngram] became speculative_config: {method: ngram}",
        ),
        (NEWEST, {"swap_space": 8}, [], "swap_space: 8 is left out, since vLLM recomputes instead of swapping"),
        (NEWEST, {"device": "auto"}, [], "device: auto is left out"),
        (
            NEWEST,
            {"task": "embed"},
            ["--runner", "pooling", "--convert", "embed"],
            "task: embed became runner: pooling, convert: embed",
        ),
        (NEWEST, {"task": "auto"}, [], "task: auto is left out"),
        ("0.32.0", {"disable_log_requests": True}, [], "disable_log_requests: true is left out"),
        (
            "0.32.0",
            {"disable_log_requests": False},
            ["--enable-log-requests"],
            "disable_log_requests: false became enable_log_requests: true",
        ),
        ("0.33.0", {"disable_log_requests": True}, ["--disable-log-requests"], ""),
        (
            "0.8.5",
            {"max_context_len_to_capture": 9},
            ["--max-seq-len-to-capture", "9"],
            "max_context_len_to_capture: 9 became max_seq_len_to_capture: 9",
        ),
        (
            NEWEST,
            {"lora_extra_vocab_size": 256},
            [],
            "lora_extra_vocab_size: it is left out, since it is gone and had its default",
        ),
        (
            NEWEST,
            {"cuda_graph_sizes": [64]},
            ["--max-cudagraph-capture-size", "64"],
            "cuda_graph_sizes: [64] became max_cudagraph_capture_size: 64",
        ),
        (
            NEWEST,
            {"cuda_graph_sizes": [1, 2]},
            ["--cudagraph-capture-sizes", "1", "2"],
            "cuda_graph_sizes: [1, 2] became cudagraph_capture_sizes: [1, 2]",
        ),
        (
            NEWEST,
            {"disable_mm_preprocessor_cache": True},
            ["--mm-processor-cache-gb", "0"],
            "disable_mm_preprocessor_cache: true became mm_processor_cache_gb: 0",
        ),
        (
            NEWEST,
            {"enable_multimodal_encoder_data_parallel": True},
            ["--mm-encoder-tp-mode", "data"],
            "enable_multimodal_encoder_data_parallel: true became mm_encoder_tp_mode: data",
        ),
        (
            NEWEST,
            {"enable_reasoning": True, "reasoning_parser": "qwen3"},
            ["--reasoning-parser", "qwen3"],
            "enable_reasoning: true is left out",
        ),
    ],
)
def test_translated(version: str, engine_args: dict[str, Any], argv: list[str], said: str) -> None:
    result = rendered(engine_args, version)
    assert result.argv == argv
    assert result.translated == ([said] if said else [])
    parse(version, result.argv)
    if said:
        assert problems(engine_args, version, translate=False)


def test_settings_inside_a_value_are_not_translated() -> None:
    assert "set structured_outputs_config" in problems({"guided_decoding_backend": "outlines:no-fallback"})[0]


def test_methods_of_quantization_that_the_image_tells() -> None:
    told = schemas.from_actions(NEWEST, recorded()[NEWEST], ["awq", "gptq"])
    assert render({"quantization": "awq"}, told).argv == ["--quantization", "awq"]
    with pytest.raises(EngineArgsError, match=r"^quantization is 'bogus', it takes one of awq, gptq$"):
        render({"quantization": "bogus"}, told)


def test_a_family_becomes_one_document() -> None:
    result = rendered(
        {
            "speculative_model": "[ngram]",
            "num_speculative_tokens": 5,
            "ngram_prompt_lookup_max": 4,
            "speculative_config": {"prompt_lookup_min": 2},
        }
    )
    assert json.loads(result.argv[1]) == {
        "method": "ngram",
        "num_speculative_tokens": 5,
        "prompt_lookup_max": 4,
        "prompt_lookup_min": 2,
    }
    assert len(result.translated) == 3


def test_what_a_release_still_has_is_left_alone() -> None:
    assert rendered({"worker_use_ray": True}, "0.6.3").argv == ["--worker-use-ray"]
    assert rendered({"speculative_model": "/x"}, "0.6.3").argv == ["--speculative-model", "/x"]


@pytest.mark.parametrize("name", [name for name, entries in HISTORY.items() if entries[-1][1] is None])
def test_of_every_option_that_is_gone_it_is_known_what_to_do(name: str) -> None:
    assert changes.replacement(name, schema(NEWEST))


@pytest.mark.parametrize(
    "name", [*changes.RENAMED, *changes.FOLDED, *changes.WITHOUT_EFFECT, *changes.INSTEAD, *changes._SPECIAL]
)
def test_what_is_told_of_an_option_is_told_of_one(name: str) -> None:
    assert HISTORY[name][-1][1] is None


def test_moved_defaults_are_those_of_the_releases() -> None:
    for since, name, _what in changes.MOVED_DEFAULTS:
        assert schemas.lifetime(name, HISTORY) is not None
        assert since in recorded()


@pytest.mark.parametrize(
    ("version", "engine_args", "before", "warning"),
    [
        ("0.5.3", {"quantization": "awq"}, "", "quantization: awq makes vLLM 0.5.3 take its slow kernel"),
        ("0.23.0", {"quantization": "awq"}, "", "quantization: awq makes vLLM 0.23.0 take its slow kernel"),
        ("0.24.0", {"quantization": "awq"}, "", ""),
        ("0.4.3", {"quantization": "awq"}, "", ""),
        ("0.9.0", {"quantization": "gptq"}, "", ""),
        ("0.20.0", {}, "0.19.1", "since vLLM 0.20.0 the default of gpu_memory_utilization is 0.92, and was 0.9"),
        ("0.20.0", {"gpu_memory_utilization": 0.9}, "0.19.1", ""),
        ("0.20.0", {}, "0.20.0", ""),
        ("0.20.0", {}, "", ""),
        ("0.19.1", {}, "0.20.0", ""),
        ("0.32.0", {"gpu_memory_utilization": 0.9}, "0.31.0", "since vLLM 0.32.0 the default of allowed_origins is []"),
        ("0.12.0", {"task": "embed"}, "", "task is deprecated in vLLM 0.12.0: set runner"),
    ],
)
def test_a_trap(version: str, engine_args: dict[str, Any], before: str, warning: str) -> None:
    warnings = rendered(engine_args, version, upgraded_from=before).warnings
    assert len(warnings) == bool(warning), warnings
    if warning:
        assert warnings[0].startswith(warning)


def test_what_is_added_where_it_is_known() -> None:
    quiet = {"disable_access_log_for_endpoints": "/health"}
    assert rendered({}, where_known=quiet).argv == ["--disable-access-log-for-endpoints", "/health"]
    assert rendered({}, "0.9.0", where_known=quiet).argv == []
    own = {"disable-access-log-for-endpoints": "/ping"}
    assert rendered(own, where_known=quiet).argv == ["--disable-access-log-for-endpoints", "/ping"]


def test_snapshots_stand_for_their_folders() -> None:
    paths = {"draft": "/vllm/model/org--draft/0a", "sql": "/vllm/model/org--sql/0b"}
    given = {
        "speculative_config": {"model": "snapshot:draft", "n": 5, "of": ["snapshot:draft/part"]},
        "lora_modules": ["sql=snapshot:sql"],
        "tokenizer": "a snapshot:draft",
        "seed": 1,
    }
    assert with_snapshots(given, paths) == {
        "speculative_config": {"model": paths["draft"], "n": 5, "of": [paths["draft"] + "/part"]},
        "lora_modules": ["sql=" + paths["sql"]],
        "tokenizer": "a snapshot:draft",
        "seed": 1,
    }
    with pytest.raises(EngineArgsError) as caught:
        with_snapshots({"tokenizer": "snapshot:tok", "x": "snapshot:tok"}, paths)
    assert caught.value.problems == ["snapshot:tok is named, and snapshots has draft, sql: add it there"]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_option_is_found_in_every_spelling(name: str) -> None:
    key = RESERVED[name]
    for spelled in (name, name.replace("_", "-"), f"--{name}", "--" + name.replace("_", "-")):
        assert reserved_in({"quantization": "awq", spelled: 1}) == [(spelled, key)]
    assert key in KEYS


def test_what_is_not_reserved() -> None:
    assert reserved_in({"hosts": 1, "ports": 1, "model_impl": 1, "tokenizer": 1, "api_server_count": 2, 1: 2}) == []


def test_the_recorded_parser_refuses_what_it_does_not_know() -> None:
    """Else the tests above would show nothing."""
    for argv in (["--no-such-option"], ["--dtype", "fp16"], ["--seed", "x"], ["--enforce-eager=1"]):
        with pytest.raises(Refused):
            parse(NEWEST, argv)
    assert parse("0.24.0", ["--device", "cuda"])["device_ids"] == "cuda"
