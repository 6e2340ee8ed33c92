# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What became of options of vLLM that are gone, and which defaults moved: 0.4.2 to 0.33.0.

Pure logic. When an option came and went is in _engine_history; here is what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible_collections.llmops.vllm.plugins.module_utils._engine_schema import Schema

# The option that took its place, with the same values.
RENAMED = {
    "chat_template_text_format": "chat_template_content_format",
    "max_context_len_to_capture": "max_seq_len_to_capture",
    "override_neuron_config": "additional_config",
    "override_pooler_config": "pooler_config",
}

# The option of JSON, and the key in it, that took its place.
FOLDED = {
    "guided_decoding_backend": ("structured_outputs_config", "backend"),
    "guided_decoding_disable_additional_properties": ("structured_outputs_config", "disable_additional_properties"),
    "guided_decoding_disable_any_whitespace": ("structured_outputs_config", "disable_any_whitespace"),
    "eplb_log_balancedness": ("eplb_config", "log_balancedness"),
    "eplb_step_interval": ("eplb_config", "step_interval"),
    "eplb_window_size": ("eplb_config", "window_size"),
    "num_redundant_experts": ("eplb_config", "num_redundant_experts"),
    "speculative_model": ("speculative_config", "model"),
    "num_speculative_tokens": ("speculative_config", "num_speculative_tokens"),
    "speculative_max_model_len": ("speculative_config", "max_model_len"),
    "speculative_draft_tensor_parallel_size": ("speculative_config", "draft_tensor_parallel_size"),
    "speculative_model_quantization": ("speculative_config", "quantization"),
    "ngram_prompt_lookup_max": ("speculative_config", "prompt_lookup_max"),
    "ngram_prompt_lookup_min": ("speculative_config", "prompt_lookup_min"),
}

# Options that had stopped to do anything before they went, or that vLLM now decides itself.
WITHOUT_EFFECT = {
    "disable_async_output_proc": "it belonged to the engine V0",
    "disable_frontend_multiprocessing": "the server always runs in a process of its own",
    "engine_use_ray": "the engine runs in a process of its own anyway",
    "expand_tools_even_if_tool_choice_none": "vLLM does so by itself",
    "multi_step_stream_outputs": "it belonged to multi-step scheduling, which is gone",
    "num_lookahead_slots": "vLLM takes it from speculative_config",
    "preemption_mode": "vLLM always recomputes",
    "swap_space": "vLLM recomputes instead of swapping",
    "tokenizer_pool_extra_config": "vLLM has no pool of tokenizers",
    "tokenizer_pool_size": "vLLM has no pool of tokenizers",
    "tokenizer_pool_type": "vLLM has no pool of tokenizers",
    "use_v2_block_manager": "vLLM has no other",
}

# What to do instead, where no other option means the same.
INSTEAD = {
    "calculate_kv_scales": "take a checkpoint with FP8 scales (llm-compressor makes them)",
    "cuda_graph_sizes": "set cudagraph_capture_sizes, or max_cudagraph_capture_size",
    "device": "take the image for that device; vLLM finds it itself, and gpus chooses the GPUs",
    "disable_image_processor": "leave it out",
    "disable_log_requests": "leave it out: requests are logged only with enable_log_requests",
    "disable_logprobs_during_spec_decoding": "leave it out",
    "disable_mm_preprocessor_cache": "set mm_processor_cache_gb to 0",
    "enable_bf16x3_router_gemm": "leave it out",
    "enable_lora_bias": "use an adapter without bias",
    "enable_mamba_fine_grained_prefix_cache": "leave it out",
    "enable_multimodal_encoder_data_parallel": "set mm_encoder_tp_mode to data",
    "enable_prompt_adapter": "use a LoRA adapter: prompt adapters are gone",
    "enable_reasoning": "set reasoning_parser, which alone enables it",
    "guided_decoding_disable_fallback": "leave it out: there is no fallback any more",
    "image_feature_size": "leave it out: it comes from the model",
    "image_input_shape": "leave it out: it comes from the model",
    "image_input_type": "leave it out: it comes from the model",
    "image_processor": "leave it out: it comes from the model",
    "image_processor_revision": "leave it out: it comes from the model",
    "image_token_id": "leave it out: it comes from the model",
    "logits_processor_pattern": "load processors by logits_processors",
    "long_lora_scaling_factors": "use adapters that need no scaling of the context",
    "lora_extra_vocab_size": "use an adapter that adds no tokens",
    "max_long_partial_prefills": "leave it out",
    "max_num_partial_prefills": "leave it out",
    "max_prompt_adapter_token": "use a LoRA adapter: prompt adapters are gone",
    "max_prompt_adapters": "use a LoRA adapter: prompt adapters are gone",
    "max_seq_len_to_capture": "leave it out; cudagraph_capture_sizes limits by batch size, not by length",
    "mm_cache_preprocessor": "set mm_processor_cache_gb",
    "num_scheduler_steps": "leave it out; async_scheduling is what came after it",
    "override_attention_dtype": "leave it out",
    "prompt_adapters": "use a LoRA adapter: prompt adapters are gone",
    "qlora_adapter_name_or_path": "set enable_lora and lora_modules",
    "quantization_param_path": "take a checkpoint with FP8 scales",
    "rope_scaling": "set hf_overrides: {rope_scaling: ...}, or rope_parameters for transformers 5",
    "rope_theta": "set hf_overrides: {rope_theta: ...}, or rope_parameters for transformers 5",
    "scheduler_delay_factor": "leave it out: it belonged to the engine V0",
    "spec_decoding_acceptance_method": "set rejection_sample_method in speculative_config",
    "speculative_disable_by_batch_size": "leave it out",
    "speculative_disable_mqa_scorer": "leave it out",
    "task": "set runner (generate or pooling) and convert (embed, classify or reward)",
    "typical_acceptance_sampler_posterior_alpha": "leave it out",
    "typical_acceptance_sampler_posterior_threshold": "leave it out",
    "use_gpu_for_pooling_score": "leave it out",
    "worker_use_ray": "set distributed_executor_backend to ray, in an image with Ray (0.18 and newer have none)",
}

_TASKS = {
    "generate": {"runner": "generate"},
    "transcription": {"runner": "generate"},
    "embed": {"runner": "pooling", "convert": "embed"},
    "embedding": {"runner": "pooling", "convert": "embed"},
    "classify": {"runner": "pooling", "convert": "classify"},
    "score": {"runner": "pooling", "convert": "classify"},
}

# (since which release, which option, what it means for who left it out).
MOVED_DEFAULTS = (
    ("0.6.5", "max_num_seqs", "is computed by vLLM, and was 256"),
    ("0.8.0", "enable_chunked_prefill", "is on"),
    ("0.8.0", "enable_prefix_caching", "is on"),
    (
        "0.8.0",
        "generation_config",
        "is auto: temperature, top_p and so on come from the model's own configuration",
    ),
    ("0.20.0", "gpu_memory_utilization", "is 0.92, and was 0.9"),
    ("0.32.0", "allowed_origins", "is [], and was ['*']: browsers of other origins are refused"),
)


def translated(args: Mapping[str, Any], schema: Schema) -> tuple[dict[str, Any], list[str]]:
    """Return (args, sentences): options that are gone are replaced where there is only one way to do so.

    args: {name: value}, spelled with underscores. schema: of the vLLM that is to take them.
    """
    result = dict(args)
    sentences = []
    for name, value in args.items():
        if value is None or schema.find(name)[0] is not None:
            continue
        instead = _instead_of(name, value, args)
        if instead is None or not all(_fits(key, inner, result, schema) for key, inner in instead.items()):
            continue
        del result[name]
        for key, inner in instead.items():
            result[key] = {**result.get(key, {}), **inner} if isinstance(inner, dict) else inner
        sentences.append(_sentence(name, value, instead))
    return result, sentences


def _fits(key: str, inner: Any, args: Mapping[str, Any], schema: Schema) -> bool:
    """Return whether vLLM knows the option, and the user has not set it to something else."""
    if schema.find(key)[0] is None:
        return False
    given = args.get(key, inner)
    if isinstance(inner, dict):
        return isinstance(given, dict) and all(given.get(part, value) == value for part, value in inner.items())
    return bool(given == inner)


def _sentence(name: str, value: Any, instead: Mapping[str, Any]) -> str:
    if not instead:
        why = WITHOUT_EFFECT.get(name)
        return "%s: %s is left out%s" % (name, _shown(value), ", since %s" % why if why else "")
    return "%s: %s became %s" % (
        name,
        _shown(value),
        ", ".join("%s: %s" % (key, _shown(inner)) for key, inner in instead.items()),
    )


def _shown(value: Any) -> Any:
    """Return a value as an inventory spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{%s}" % ", ".join("%s: %s" % (key, _shown(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return "[%s]" % ", ".join(str(_shown(inner)) for inner in value)
    return value


def _instead_of(name: str, value: Any, args: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the options that mean the same, {} where none is needed, or None where there is no single way."""
    special = _SPECIAL.get(name)
    if special:
        return special(value, args)
    if name in RENAMED:
        return {RENAMED[name]: value}
    if name in FOLDED:
        option, key = FOLDED[name]
        if name == "guided_decoding_backend" and ":" in str(value):
            # "outlines:no-fallback" had settings of the backend in it, which have keys of their own now.
            return None
        inner = {key: value}
        if name == "speculative_model" and value == "[ngram]":
            inner = {"method": "ngram"}
        return {option: inner}
    if name in WITHOUT_EFFECT:
        return {}
    return None


def _worker_use_ray(value: Any, dummy_args: Mapping[str, Any]) -> dict[str, Any] | None:
    return {"distributed_executor_backend": "ray"} if value is True else {} if value is False else None


def _device(value: Any, dummy_args: Mapping[str, Any]) -> dict[str, Any] | None:
    # Any other is a wish for another image.
    return {} if value in ("auto", "cuda") else None


def _disable_log_requests(value: Any, dummy_args: Mapping[str, Any]) -> dict[str, Any] | None:
    return {} if value is True else {"enable_log_requests": True} if value is False else None


def _task(value: Any, dummy_args: Mapping[str, Any]) -> dict[str, Any] | None:
    return {} if value == "auto" else _TASKS.get(value)


def _cuda_graph_sizes(value: Any, dummy_args: Mapping[str, Any]) -> dict[str, Any] | None:
    sizes = value if isinstance(value, list) else [value]
    if len(sizes) == 1:
        return {"max_cudagraph_capture_size": sizes[0]}
    return {"cudagraph_capture_sizes": sizes} if sizes else {}


def _enable_reasoning(value: Any, args: Mapping[str, Any]) -> dict[str, Any] | None:
    return {} if value is False or args.get("reasoning_parser") else None


def _disable_mm_preprocessor_cache(value: Any, dummy_args: Mapping[str, Any]) -> dict[str, Any] | None:
    return {"mm_processor_cache_gb": 0} if value is True else {} if value is False else None


def _encoder_data_parallel(value: Any, dummy_args: Mapping[str, Any]) -> dict[str, Any] | None:
    return {"mm_encoder_tp_mode": "data"} if value is True else {} if value is False else None


_SPECIAL: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any] | None]] = {
    "cuda_graph_sizes": _cuda_graph_sizes,
    "device": _device,
    "disable_log_requests": _disable_log_requests,
    "disable_mm_preprocessor_cache": _disable_mm_preprocessor_cache,
    "enable_multimodal_encoder_data_parallel": _encoder_data_parallel,
    "enable_reasoning": _enable_reasoning,
    "task": _task,
    "worker_use_ray": _worker_use_ray,
}


def replacement(name: str, schema: Schema) -> str:
    """Return what to do instead of an option that is gone, as the end of a sentence, or ''."""
    new = RENAMED.get(name)
    if new:
        return "set %s" % new if schema.find(new)[0] else replacement(new, schema)
    if name in FOLDED:
        return "set %s: {%s: ...}" % FOLDED[name]
    if name in WITHOUT_EFFECT:
        return "leave it out: %s" % WITHOUT_EFFECT[name]
    return INSTEAD.get(name, "")
