"""Tests of what a log of vLLM's start says; the lines are those of vLLM 0.32."""

from __future__ import annotations

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._startup_log import decisive_line, plain, stage

API, CORE, WORKER = "(APIServer pid=1) ", "(EngineCore pid=71) ", "(Worker_TP0 pid=90) "
INFO = "INFO 11-22 21:53:10 [api_server.py:1350] "
ERROR = "ERROR 11-22 21:53:12 [core.py:1136] "
WARNING = "WARNING 11-22 21:53:09 [interface.py:225] "

BEFORE = [
    API + INFO + "vLLM server version 0.32.0, serving model /vllm/model",
    API + INFO + "non-default args: {'model': '/vllm/model', 'max_model_len': 4095}",
    # Not taken for an error by vLLM itself.
    API
    + WARNING
    + "Failed to import Triton kernels. Please make sure your triton version is compatible. Error: No module",
    API + WARNING + "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory",
    API + INFO + "Using max model len 4095, error: none",
]
POINTER = [
    API + "Traceback (most recent call last):",
    API + '  File "/usr/local/bin/vllm", line 10, in <module>',
    API + "    sys.exit(main())",
    API + "             ^^^^^^",
    API
    + "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
]
AFTER = [
    "[rank0]:[W1122 21:53:13 ProcessGroupNCCL.cpp:1524] Warning: WARNING: destroy_process_group() was not called",
    "/usr/lib/python3.12/multiprocessing/resource_tracker.py:254: UserWarning: there appear to be 1 leaked objects",
    "  warnings.warn('resource_tracker: There appear to be %d '",
]
USAGE = [
    "usage: api_server.py [-h] [--host HOST] [--port PORT] [--log-error-stack | --no-log-error-stack]",
    *(f"                     [--option-{number} OPTION_{number}]" for number in range(280)),
]


def engine_failure(cause: str) -> list[str]:
    """A failure of the engine's process: its traceback, then the server's, which only points at it."""
    return [
        CORE + ERROR + "EngineCore failed to start.",
        CORE + ERROR + "Traceback (most recent call last):",
        CORE
        + ERROR
        + '  File "/opt/vllm/lib/python3.12/site-packages/vllm/v1/engine/core.py", line 1127, in run_engine_core',
        CORE + ERROR + "    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)",
        CORE + ERROR + "                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        CORE + ERROR + cause,
        CORE + "Process EngineCore:",
        CORE + "Traceback (most recent call last):",
        CORE + '  File "/usr/lib/python3.12/multiprocessing/process.py", line 314, in _bootstrap',
        CORE + "    self.run()",
        CORE + cause,
        *POINTER,
    ]


def config_failure(model: str, cause: str) -> list[str]:
    """A failure of pydantic's checks: its first line names only the model."""
    return [
        API + "Traceback (most recent call last):",
        API
        + '  File "/opt/vllm/lib/python3.12/site-packages/vllm/engine/arg_utils.py", line 1500, in create_model_config',
        API + "    return ModelConfig(",
        API + "           ^^^^^^^^^^^^",
        API + f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {model}",
        API + f"  {cause} [type=value_error, input_value=ArgsKwargs((), {{'model': '/model'}}), input_type=ArgsKwargs]",
        API + "    For further information visit https://errors.pydantic.dev/2.12/v/value_error",
    ]


KV = (
    "ValueError: To serve at least one request with the model's max seq len (60000), (1.29 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the estimated "
    "maximum model length is 46464."
)
CASES = {
    "unknown option": (
        [*USAGE, "api_server.py: error: unrecognized arguments: --no-such-flag"],
        "api_server.py: error: unrecognized arguments: --no-such-flag",
    ),
    "folder missing": (
        config_failure("ModelConfig", "Value error, Invalid repository ID or local directory specified: '/model'."),
        "Value error, Invalid repository ID or local directory specified: '/model'.",
    ),
    "wrong quantization": (
        config_failure(
            "VllmConfig",
            "Value error, Quantization method specified in the model config (awq) does not match the quantization "
            "method specified in the `quantization` argument (gptq).",
        ),
        "Value error, Quantization method specified in the model config (awq) does not match",
    ),
    "max_model_len too long": (
        config_failure(
            "ModelConfig",
            "Value error, User-specified max_model_len (999999) is greater than the derived max_model_len "
            "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json).",
        ),
        "Value error, User-specified max_model_len (999999) is greater than the derived max_model_len",
    ),
    "wrong type": (
        config_failure("ModelConfig\nmax_model_len", "Input should be a valid integer"),
        "Input should be a valid integer",
    ),
    "truncated weights": (
        engine_failure("safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata"),
        "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata",
    ),
    "KV cache too small": (engine_failure(KV), KV),
    "no memory for blocks": (
        engine_failure("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
        "ValueError: No available memory for the cache blocks.",
    ),
    "weights 0600": (
        engine_failure("PermissionError: [Errno 13] Permission denied: '/model/model.safetensors'"),
        "PermissionError: [Errno 13] Permission denied: '/model/model.safetensors'",
    ),
    "shm": (
        [CORE + ERROR + "Insufficient space in /dev/shm: 64 MiB available, 160 MiB required", *POINTER],
        "Insufficient space in /dev/shm",
    ),
    "out of GPU memory": (
        engine_failure("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB."),
        "torch.OutOfMemoryError: CUDA out of memory.",
    ),
    "worker": (
        [
            WORKER + ERROR + "WorkerProc failed to start.",
            WORKER + ERROR + "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
            CORE + ERROR + "Exception: WorkerProc initialization failed due to an exception in a background process.",
            *POINTER,
        ],
        "RuntimeError: NCCL error: unhandled system error",
    ),
    "without a message": (engine_failure("AssertionError"), "AssertionError"),
    "port taken": (
        [API + "OSError: [Errno 98] Address already in use"],
        "OSError: [Errno 98] Address already in use",
    ),
    "no entrypoint": (
        ["/bin/sh: 1: exec: vllm: not found"],
        "/bin/sh: 1: exec: vllm: not found",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_decisive_line(case: str) -> None:
    lines, expected = CASES[case]
    for noise_before in ([], BEFORE):
        for noise_after in ([], AFTER):
            if case != "no entrypoint" or not noise_after:
                found = decisive_line("\n".join([*noise_before, *lines, *noise_after]) + "\n")
                assert found.startswith(expected), found
                assert len(found) <= 500


def test_a_log_that_just_stops_gives_its_last_line() -> None:
    assert decisive_line("\n".join([*BEFORE, CORE + INFO + "Loading weights", "", "  "])) == "Loading weights"
    assert decisive_line("") == ""
    assert decisive_line("\n \n\x1b[0m\n") == ""
    assert decisive_line("x" * 600) == "x" * 500


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (API + INFO + "Started", "Started"),
        ("\x1b[1;36m(APIServer pid=1)\x1b[0;0m INFO 11-22 21:53:10 [api_server.py:1350] Started", "Started"),
        (CORE + ERROR + "    raise ValueError(", "raise ValueError("),
        ("INFO:     Application startup complete.", "INFO:     Application startup complete."),
        ("(EngineCore pid=71) text", "text"),
        ("INFO 11-22 21:53:10 text", "text"),
        ("  text  ", "text"),
        ("", ""),
    ],
)
def test_plain(line: str, text: str) -> None:
    assert plain(line) == text


@pytest.mark.parametrize(
    ("log", "text"),
    [
        ("", ""),
        ("hello", "hello"),
        (API + INFO + "one\n" + API + INFO + "two\n", "two"),
        # words of others are no progress, as long as there is some
        (API + INFO + "Loading weights\n(pid=7) a word of a library\n", "Loading weights"),
        ("a word of a library\nanother\n", "another"),
        ("a word of a library\n" + API + INFO + "Loading weights\n", "Loading weights"),
        # tqdm redraws its bar inside one line
        (
            CORE + "\rLoading safetensors checkpoint shards:   0% Completed | 0/2 [00:00<?, ?it/s]"
            "\rLoading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01]\n\n",
            "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01]",
        ),
        # the looks of the probe itself
        (
            API + INFO + 'Loading weights\n(APIServer pid=1) INFO:     127.0.0.1:4 - "GET /health HTTP/1.1" 200 OK\n',
            "Loading weights",
        ),
        (API + INFO + "x" * 100, "x" * 89 + "…"),
        (API + INFO + "x" * 90, "x" * 90),
    ],
)
def test_stage(log: str, text: str) -> None:
    assert stage(log) == text
