"""Tests of what a log of vLLM says of a start; the lines are those of vLLM 0.4 to 0.33."""

from __future__ import annotations

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._engine_log import (
    Startup,
    is_calm,
    is_ready,
    kv_cache_tokens,
    plain,
)

API, CORE = "(APIServer pid=1) ", "(EngineCore pid=71) "
INFO = "INFO 11-22 21:53:10 [api_server.py:1350] "
OLD = "INFO 05-12 12:11:25 "


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (API + INFO + "Started", "Started"),
        ("\x1b[1;36m(APIServer pid=1)\x1b[0;0m INFO 11-22 21:53:10 [api_server.py:1350] Started", "Started"),
        (CORE + "ERROR 11-22 21:53:12 [core.py:1136]     raise ValueError(", "raise ValueError("),
        ("INFO:     Application startup complete.", "INFO:     Application startup complete."),
        ("(EngineCore pid=71) text", "text"),
        (OLD + "metrics.py:334] Avg prompt throughput", "Avg prompt throughput"),
        (OLD + "[metrics.py:334] Avg prompt throughput", "Avg prompt throughput"),
        (OLD + "text", "text"),
        (OLD + "two words", "two words"),
        ("  text  ", "text"),
        ("", ""),
    ],
)
def test_plain(line: str, text: str) -> None:
    assert plain(line) == text


@pytest.mark.parametrize(
    ("line", "calm"),
    [
        (API + INFO + "error: none", True),
        ("\x1b[1;36m(APIServer pid=1)\x1b[0;0m WARNING 11-22 21:53:10 [x.py:1] Error: no", True),
        ("INFO:     127.0.0.1:4 - GET", True),
        (OLD + "x.py:1] Error: no", True),
        (CORE + "ERROR 11-22 21:53:12 [core.py:1136] ValueError: x", False),
        ("ValueError: x", False),
        ("/opt/torch/cuda/__init__.py:61: UserWarning: Can't initialize NVML", True),
        (
            "[W1122 21:53:13.5 socket.cpp:752] failed to bind to [::]:29500 (errno: 98 - Address already in use)",
            True,
        ),
        ("[rank0]:[W1122 21:53:13 ProcessGroupNCCL.cpp:1524] Warning: destroy_process_group() was not called", True),
    ],
)
def test_is_calm(line: str, calm: bool) -> None:
    assert is_calm(line) is calm


BAR = "Loading safetensors checkpoint shards:  {}% Completed | 1/2 [00:01<00:01,  1.00s/it]"
STAGES = [
    ("", "", None),
    ("hello", "", None),
    # until 0.15 and since
    (API + INFO + "vLLM API server version 0.10.1", "starting vLLM", None),
    (API + INFO + "vLLM server version 0.32.0, serving model /vllm/model", "starting vLLM", None),
    (API + INFO + " ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0", "starting vLLM", None),
    (
        OLD + "llm_engine.py:237] Initializing an LLM engine (v0.6.4) with config: model='/m'",
        "starting the engine",
        None,
    ),
    (CORE + INFO + "Initializing a V1 LLM engine (v0.32.0) with config: model='/m'", "starting the engine", None),
    (CORE + INFO + "Starting to load model /vllm/model/a--b/c...", "loading weights", None),
    (OLD + "model_runner.py:1014] Starting to load model /m...", "loading weights", None),
    (CORE + BAR.format("  0"), "loading weights", 0),
    (CORE + "\r" + BAR.format("  0") + "\r" + BAR.format(" 45"), "loading weights", 45),
    (CORE + BAR.format("100"), "loading weights", 100),
    ("Multi-thread loading shards:  12% Completed | 3/24 [00:01<00:09]", "loading weights", 12),
    ("Loading safetensors using Runai Model Streamer:  33% Completed | 1/3", "loading weights", 33),
    ("Loading pt checkpoint shards:  25% Completed | 1/4 [00:01<00:03]", "loading weights", 25),
    (CORE + INFO + "Loading weights took 1.00 seconds", "loading weights", None),
    (OLD + "model_runner.py:1025] Loading model weights took 34.5 GB", "loading weights", None),
    (CORE + INFO + "Model loading took 0.11 GiB memory and 1.2 seconds", "loading weights", None),
    (CORE + INFO + "Dynamo bytecode transform time: 4.5 s", "compiling", None),
    (CORE + INFO + "torch.compile takes 29.93 s in total", "compiling", None),
    (CORE + INFO + "torch.compile took 29.93 s in total", "compiling", None),
    (CORE + INFO + "Warming up model for the compilation...", "warming up", None),
    (CORE + INFO + "Available KV cache memory: 1.00 GiB", "making the KV cache", None),
    (OLD + "gpu_executor.py:81] # GPU blocks: 27896, # CPU blocks: 2048", "making the KV cache", None),
    (CORE + INFO + "GPU KV cache size: 23,296 tokens", "making the KV cache", None),
    (OLD + "model_runner.py:965] Capturing the model for CUDA graphs. This may lead to", "capturing graphs", None),
    ("Capturing CUDA graph shapes:  35%|###5      | 12/35 [00:05<00:10]", "capturing graphs", 35),
    (CORE + "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  35%|###5  | 12/35", "capturing graphs", 35),
    ("Capturing CUDA graphs (decode, FULL): 100%|##########| 35/35", "capturing graphs", 100),
    (CORE + INFO + "Graph capturing finished in 12 secs, took 0.55 GiB", "capturing graphs", None),
    (CORE + INFO + "init engine (profile, create kv cache, warmup model) took 9.1 s", "opening the port", None),
    (API + INFO + "Starting vLLM API server 0 on http://0.0.0.0:8000", "opening the port", None),
    (API + INFO + "Starting vLLM server on http://0.0.0.0:8000", "opening the port", None),
    (API + "INFO:     Application startup complete.", "ready", None),
    ("INFO:     Uvicorn running on http://0.0.0.0:30080 (Press CTRL+C to quit)", "ready", None),
]


@pytest.mark.parametrize(("log", "phase", "percent"), STAGES, ids=range(len(STAGES)))
def test_startup(log: str, phase: str, percent: int | None) -> None:
    for around in ("", "a word of a library\n"):
        startup = Startup(around + log + "\n" + around)
        assert (startup.phase, startup.percent) == (phase, percent)


@pytest.mark.parametrize(
    ("log", "text"),
    [
        ("", ""),
        (API + INFO + "one\n" + API + INFO + "two\n", "two"),
        (CORE + BAR.format(" 45") + "\n", "loading weights 45 %"),
        (CORE + BAR.format(" 45") + "\n" + CORE + INFO + "torch.compile took 1 s\n", "compiling"),
        # the looks of the probe itself
        (API + INFO + 'one\n(APIServer pid=1) INFO:     127.0.0.1:4 - "GET /health HTTP/1.1" 200 OK\n', "one"),
        # arguments, of which one can be the key
        (API + INFO + "one\n" + API + INFO + "non-default args: {'api_key': ['sk-1']}\n", "one"),
        (API + INFO + "one\n" + OLD + "api_server.py:153] args: Namespace(api_key='sk-1')\n", "one"),
        (API + INFO + "x" * 100, "x" * 89 + "…"),
        (API + INFO + "x" * 90, "x" * 90),
    ],
)
def test_startup_in_words(log: str, text: str) -> None:
    assert str(Startup(log)) == text


def test_the_line_of_the_phase_is_kept() -> None:
    assert Startup(CORE + BAR.format(" 45") + "\nother words\n").line == BAR.format(" 45")


@pytest.mark.parametrize(
    ("log", "tokens"),
    [
        ("", None),
        (OLD + "gpu_executor.py:81] # GPU blocks: 27896, # CPU blocks: 2048", 27896 * 16),
        (INFO + "GPU KV cache size: 23,296 tokens", 23296),
        (
            INFO + "CPU KV cache size: 1,023,296 tokens, Maximum concurrency for 2,048 tokens per request: 11.38x",
            1023296,
        ),
        (INFO + "GPU KV cache size: 5 tokens\n" + INFO + "GPU KV cache size: 7 tokens", 7),
    ],
)
def test_kv_cache_tokens(log: str, tokens: int | None) -> None:
    assert kv_cache_tokens(log) == tokens


def test_is_ready() -> None:
    assert is_ready("x\nINFO:     Application startup complete.\n")
    assert is_ready('INFO:     127.0.0.1:4 - "POST /v1/chat/completions HTTP/1.1" 200 OK')
    assert is_ready(INFO + "Engine 000: Avg prompt throughput: 0.0 tokens/s")
    assert not is_ready("INFO:     Waiting for application startup.\n")
