"""Tests of what a failure is taken for; the texts are those of vLLM 0.4 to 0.33, Docker and CUDA."""

from __future__ import annotations

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._diagnosis import ContainerEnd, Diagnosis, diagnose

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


def kv_cache(own: str, fits: str) -> str:
    """The text of V1, which says model or models, and an estimate since 0.8.4."""
    return (
        f"ValueError: To serve at least one request with the {own}'s max seq len (60000), (1.29 GiB KV cache is "
        f"needed, "
        f"which is larger than the available KV cache memory (1.0 GiB). {fits}Try increasing `gpu_memory_utilization` "
        "or decreasing `max_model_len` when initializing the engine."
    )


FITS = "Based on the available memory, the estimated maximum model length is 46464. "
RAISE = "set max_model_len to 46464 or less, or raise gpu_memory_utilization"
# Name -> (lines, code, sentence).
LOGS = {
    "unknown option": (
        [*USAGE, "api_server.py: error: unrecognized arguments: --no-such-flag 5"],
        "unknown_option",
        "the vLLM of the image does not know the option --no-such-flag 5: correct its name in engine_args, take it "
        "out, "
        "or use the image of a version that has it",
    ),
    "ambiguous option": (
        [*USAGE, "vllm serve: error: ambiguous option: --device could match --device-ids, --device-type"],
        "ambiguous_option",
        "the option --device is short for several: --device-ids, --device-type: write one of them into engine_args",
    ),
    "bad value": (
        [*USAGE, "vllm serve: error: argument --max-model-len: Could not convert many to int"],
        "bad_option_value",
        "the option --max-model-len has a value that vLLM does not take (Could not convert many to int): "
        "correct it in engine_args",
    ),
    "model missing": (
        config_failure("ModelConfig", "Value error, Invalid repository ID or local directory specified: '/model'."),
        "model_missing",
        "/model is no model: there is no such folder in the container, or it has no config.json: "
        "mount the folder of a whole snapshot there",
    ),
    "no such folder": (
        [
            API + "huggingface_hub.errors.HFValidationError: Repo id must use alphanumeric chars, '-', '_' or '.'. The "
            "name cannot start or end with '-' or '.' and the maximum length is 96: '/nothing'."
        ],
        "model_missing",
        "/nothing is no model: there is no such folder in the container: mount the folder of a whole snapshot there",
    ),
    "no such folder, deeper": (
        [
            API + "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or "
            "'namespace/repo_name': '/vllm/model/a'. Use `repo_type` argument if needed."
        ],
        "model_missing",
        "/vllm/model/a is no model: there is no such folder in the container: "
        "mount the folder of a whole snapshot there",
    ),
    "weights missing": (
        engine_failure("RuntimeError: Cannot find any model weights with `/model`"),
        "weights_missing",
        "/model has no weights that vLLM can load: bring the snapshot again with its *.safetensors files",
    ),
    "wrong quantization": (
        config_failure(
            "VllmConfig",
            "Value error, Quantization method specified in the model config (awq) does not match the quantization "
            "method specified in the `quantization` argument (gptq).",
        ),
        "quantization_mismatch",
        "the weights are quantized with awq, but quantization is gptq: set quantization to awq, or leave it out",
    ),
    "unknown quantization": (
        config_failure("VllmConfig", "Value error, Unknown quantization method: abc. Must be one of ['awq', 'gptq']."),
        "unknown_quantization",
        "this vLLM does not know the quantization abc: correct quantization, or use the image of a version that has it",
    ),
    "quantization and dtype": (
        engine_failure(
            "ValueError: torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]"
        ),
        "quantization_unsupported",
        "the quantization awq does not work with the dtype torch.bfloat16: set dtype to half",
    ),
    "quantization and GPU": (
        engine_failure(
            "ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 89. "
            "Current capability: 75."
        ),
        "quantization_needs_newer_gpu",
        "the quantization fp8 needs a GPU of compute capability 89, this one has 75: use weights of another "
        "quantization, or a newer GPU",
    ),
    "max_model_len too long": (
        config_failure(
            "ModelConfig",
            "Value error, User-specified max_model_len (999999) is greater than the derived max_model_len "
            "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json).",
        ),
        "max_model_len_too_long",
        "max_model_len is 999999, but the model was made for 8192: set max_model_len to 8192 or less",
    ),
    "wrong type": (
        config_failure("ModelConfig\nmax_model_len", "Input should be a valid integer"),
        "unknown",
        "it ended with exit code 1: Input should be a valid integer: read the rest of its log (docker logs)",
    ),
    "truncated weights": (
        engine_failure("safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata"),
        "weights_damaged",
        "a file of the weights is damaged (Error while deserializing header: incomplete metadata): "
        "have hf_snapshot repair the snapshot with state: verified",
    ),
    "KV cache, V1": (
        engine_failure(kv_cache("model", FITS)),
        "kv_cache_too_small",
        "a context of 60000 tokens needs 1.29 GiB of KV cache, and 1.0 GiB is there: " + RAISE,
    ),
    "KV cache, 0.8.4 to 0.21": (
        engine_failure(kv_cache("models", FITS)),
        "kv_cache_too_small",
        "a context of 60000 tokens needs 1.29 GiB of KV cache, and 1.0 GiB is there: " + RAISE,
    ),
    "KV cache, 0.7 to 0.8.3": (
        engine_failure(kv_cache("models", "")),
        "kv_cache_too_small",
        "a context of 60000 tokens needs 1.29 GiB of KV cache, and 1.0 GiB is there: "
        "decrease max_model_len or raise gpu_memory_utilization",
    ),
    "KV cache, V0": (
        [
            "ValueError: The model's max seq len (4096) is larger than the maximum number of tokens that can be stored "
            "in KV cache (4080). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
            "initializing the engine."
        ],
        "kv_cache_too_small",
        "a context of 4096 tokens does not fit into the KV cache, which holds 4080: "
        "set max_model_len to 4080 or less, or raise gpu_memory_utilization",
    ),
    "no memory for blocks": (
        engine_failure("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
        "no_memory_for_kv_cache",
        "weights and activations take all the memory that vLLM may use, and none is left for the KV cache: "
        "raise gpu_memory_utilization, decrease max_num_batched_tokens, or use more or larger GPUs",
    ),
    "cannot fit": (
        engine_failure("ValueError: Cannot auto-fit max_model_len: not enough GPU memory available to serve even"),
        "no_memory_for_kv_cache",
        "weights and activations take all the memory that vLLM may use, and not one token fits beside them: "
        "raise gpu_memory_utilization, decrease max_num_batched_tokens, or use more or larger GPUs",
    ),
    "GPU taken": (
        engine_failure(
            "ValueError: Free memory on device cuda:0 (21.18/139.81 GiB) on startup is less than desired GPU memory "
            "utilization (0.92, 128.63 GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
            "processes."
        ),
        "gpu_memory_taken",
        "21.18 of the GPU's 139.81 GiB are free, and gpu_memory_utilization 0.92 wants 128.63 GiB: stop what else uses "
        "the GPU (nvidia-smi names it), or set gpu_memory_utilization to 0.15 or less",
    ),
    "GPU taken, 0.9.1": (
        engine_failure(
            "ValueError: Free memory on device (21.18/139.81 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 125.83 GiB)."
        ),
        "gpu_memory_taken",
        "21.18 of the GPU's 139.81 GiB are free, and gpu_memory_utilization 0.9 wants 125.83 GiB: stop what else uses "
        "the GPU (nvidia-smi names it), or set gpu_memory_utilization to 0.15 or less",
    ),
    "host's memory taken": (
        engine_failure(
            "ValueError: Available memory on node 0 (3.1/23.5 GiB) on startup is less than desired CPU memory "
            "utilization (0.92, 21.62 GiB). On the CPU backend, the `--gpu-memory-utilization` flag controls"
        ),
        "memory_taken",
        "3.1 of the host's 23.5 GiB are free, and vLLM wants 21.62 GiB: decrease gpu_memory_utilization (which means "
        "the host's memory on a CPU) or VLLM_CPU_KVCACHE_SPACE, or stop what else uses the memory",
    ),
    "host's memory taken by a fixed cache": (
        engine_failure(
            "ValueError: Available memory on node 0 (3.1/23.5 GiB) on kv cache allocation is less than requested "
            "memory "
            "for kv (40.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used"
        ),
        "memory_taken",
        "3.1 of the host's 23.5 GiB are free, and vLLM wants 40.0 GiB: decrease gpu_memory_utilization (which means "
        "the host's memory on a CPU) or VLLM_CPU_KVCACHE_SPACE, or stop what else uses the memory",
    ),
    "out of GPU memory": (
        engine_failure("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. GPU 0 has a total"),
        "gpu_out_of_memory",
        "the GPU has no 1.25 GiB left while the model loads: use more GPUs (tensor_parallel_size), smaller weights, "
        "or stop what else uses the GPU",
    ),
    "tensor parallel": (
        config_failure(
            "VllmConfig",
            "Value error, Total number of attention heads (9) must be divisible by tensor parallel size (2).",
        ),
        "tensor_parallel_mismatch",
        "the model's 9 attention heads cannot be spread over 2 GPUs: "
        "set tensor_parallel_size to a number that divides 9",
    ),
    "too few GPUs": (
        config_failure(
            "ParallelConfig",
            "Value error, World size (4) is larger than the number of available GPUs (2) in this node. If this is",
        ),
        "not_enough_gpus",
        "tensor and pipeline parallel size want 4 GPUs, and the container sees 2: "
        "decrease tensor_parallel_size, or give the server more GPUs (gpus)",
    ),
    "no GPU": (
        [API + "RuntimeError: Failed to infer device type, please set the environment variable"],
        "no_gpu",
        "the container sees no GPU: give it one (gpus), and see with nvidia-smi whether driver and container toolkit "
        "work",
    ),
    "old GPU": (
        engine_failure(
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU "
            "has compute capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI"
        ),
        "dtype_unsupported",
        "the GPU Tesla T4 has no bfloat16: set dtype to half",
    ),
    "driver, 803": (
        engine_failure(
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
            "NumCudaDevices() that might have already set an error? Error 803: system has unsupported display driver"
        ),
        "driver_too_old",
        "the NVIDIA driver does not fit the CUDA of the image (Error 803: system has unsupported display driver): "
        "update the driver, use an image for an older CUDA, or set VLLM_ENABLE_CUDA_COMPATIBILITY=1 on datacentre GPUs",
    ),
    "driver, 804": (
        engine_failure("RuntimeError: Error 804: forward compatibility was attempted on non supported HW"),
        "driver_too_old",
        "the NVIDIA driver does not fit the CUDA of the image (Error 804: forward compatibility was attempted on non "
        "supported HW): update the driver, use an image for an older CUDA, or set VLLM_ENABLE_CUDA_COMPATIBILITY=1 "
        "on datacentre GPUs",
    ),
    "driver, PTX": (
        engine_failure(
            "torch.AcceleratorError: CUDA error: the provided PTX was compiled with an unsupported toolchain."
        ),
        "driver_too_old",
        "the NVIDIA driver does not fit the CUDA of the image (provided PTX was compiled with an unsupported "
        "toolchain): "
        "update the driver, use an image for an older CUDA, or set VLLM_ENABLE_CUDA_COMPATIBILITY=1 on datacentre GPUs",
    ),
    "driver, library": (
        engine_failure("pynvml.NVMLError_LibRmVersionMismatch: Driver/library version mismatch"),
        "driver_mismatch",
        "the loaded NVIDIA driver is of another version than its libraries: "
        "reboot the host, or reload the kernel module",
    ),
    "NVML": (
        engine_failure("RuntimeError: Failed to initialize NVML: Unknown Error"),
        "gpu_lost",
        "the container has no access to its GPUs (Failed to initialize NVML): "
        "see with nvidia-smi whether the driver works on the host, then make the container anew",
    ),
    "no bytes of shm": (
        [
            CORE
            + ERROR
            + "RuntimeError: Insufficient space in /dev/shm for shared memory ring buffer: 160 MiB required, 64 "
            "MiB free. "
            "Increase /dev/shm (e.g. --shm-size or --ipc=host).",
            *POINTER,
        ],
        "shm_too_small",
        "the server needs 160 MiB of shared memory, and 64 MiB are free in /dev/shm: raise shm_size",
    ),
    "NCCL's shm": (
        [
            WORKER + "misc/shmutils.cc:72 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Ab1 (size "
            "9637888)",
            WORKER + ERROR + "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
            *POINTER,
        ],
        "shm_too_small",
        "the shared memory of the container is too small: raise shm_size",
    ),
    "weights 0600": (
        engine_failure("PermissionError: [Errno 13] Permission denied: '/model/model.safetensors'"),
        "permission_denied",
        "the user of the container may not read or write /model/model.safetensors: make files 0644 and folders 0755, "
        "or the cache the user's own, or run as another user",
    ),
    "port taken": (
        [API + "OSError: [Errno 98] Address already in use"],
        "port_taken",
        "the port that the server wants to listen on is taken: choose another port, or stop what holds it",
    ),
    "gated": (
        config_failure("ModelConfig", "OSError: You are trying to access a gated repo."),
        "hub_wanted",
        "the server tried to fetch something from the Hub, which it may not: bring every model that engine_args name "
        "as a snapshot, and name it by its path",
    ),
    "offline": (
        engine_failure(
            "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/a/b"
        ),
        "hub_wanted",
        "the server tried to fetch something from the Hub, which it may not: bring every model that engine_args name "
        "as a snapshot, and name it by its path",
    ),
    "model not first": (
        ["ValueError: `model` should be provided as the first positional argument when using `vllm serve`."],
        "model_not_first",
        "this vLLM wants the model as its first argument, without --model: use an image whose entrypoint is "
        "'vllm serve', or name the model first",
    ),
    "custom code": (
        [API + "RuntimeError: Failed to load the model config. consider setting `trust_remote_code=True` in LLM"],
        "custom_code",
        "the model comes with Python code of its own, which vLLM does not run unasked: "
        "read that code, then set trust_remote_code",
    ),
    "new model": (
        config_failure("ModelConfig", "Value error, Model architectures ['NewForCausalLM'] are not supported for now."),
        "architecture_unsupported",
        "this vLLM cannot run models of the architecture ['NewForCausalLM']: use the image of a newer vLLM, "
        "or another model",
    ),
    "no such template": (
        [API + "ValueError: The supplied chat template string (/x.jinja) appears path-like, but doesn't exist!"],
        "chat_template_missing",
        "there is no chat template /x.jinja in the container: mount it there, or correct chat_template",
    ),
    "disk": (
        engine_failure("OSError: [Errno 28] No space left on device: '/cache/vllm/torch_compile_cache'"),
        "disk_full",
        "a file system that the container writes to is full (/cache/vllm/torch_compile_cache): "
        "free some space under the cache, or raise tmp_size",
    ),
    "read-only": (
        engine_failure("OSError: [Errno 30] Read-only file system: '/root/.triton'"),
        "read_only",
        "the server wants to write to /root/.triton, which is read-only: point it to /cache or /tmp with an "
        "environment "
        "variable or an option of vLLM",
    ),
    "engine's own limit": (
        [
            API
            + "TimeoutError: Timed out waiting for engine core processes to start. This is often caused by slow weight "
            "loading for large models. Waited 600s (configured by VLLM_ENGINE_READY_TIMEOUT_S)."
        ],
        "start_limit",
        "the engine was not up after 600 s, and vLLM gave up itself: raise start_timeout, or "
        "VLLM_ENGINE_READY_TIMEOUT_S "
        "where the server is not run by the role",
    ),
    "no entrypoint": (
        ["/bin/sh: 1: exec: vllm: not found"],
        "entrypoint_missing",
        "the image has no program 'vllm': use an image whose entrypoint starts vLLM",
    ),
    "worker": (
        [
            WORKER + ERROR + "WorkerProc failed to start.",
            WORKER + ERROR + "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
            CORE + ERROR + "Exception: WorkerProc initialization failed due to an exception in a background process.",
            *POINTER,
        ],
        "unknown",
        "it ended with exit code 1: RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for "
        "details): read the rest of its log (docker logs)",
    ),
    "without a message": (
        engine_failure("AssertionError"),
        "unknown",
        "it ended with exit code 1: AssertionError: read the rest of its log (docker logs)",
    ),
}


@pytest.mark.parametrize("case", LOGS)
def test_a_start_that_fails(case: str) -> None:
    lines, code, sentence = LOGS[case]
    for before in ([], BEFORE):
        for after in ([], AFTER):
            found = diagnose("\n".join([*before, *lines, *after]) + "\n", ContainerEnd(exit_code=1))
            assert (found.code, str(found)) == (code, sentence)
            assert 1 <= len(found.evidence) <= 5
            assert all(0 < len(line) <= 300 for line in found.evidence)
            assert not any("See root cause above" in line for line in found.evidence)


DEATH = [
    CORE + ERROR + "EngineCore encountered a fatal error.",
    CORE + ERROR + "Traceback (most recent call last):",
    CORE + ERROR + "{}",
    API + ERROR + "AsyncLLM output_handler failed.",
    API + ERROR + "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)",
    API + "INFO:     Shutting down",
]
UP = [*BEFORE, CORE + ERROR + "ValueError: of an earlier request", API + "INFO:     Application startup complete."]
SERVED = 'INFO:     127.0.0.1:4 - "POST /v1/chat/completions HTTP/1.1" 200 OK'
AGAIN = "start the server again; if it comes back, look at the kernel's log (dmesg) and the GPU"


def death(cause: str) -> list[str]:
    return [line.format(cause) for line in DEATH]


ENDS = [
    # Docker could not start it.
    (
        [],
        ContainerEnd(
            "created",
            128,
            error="driver failed programming external connectivity on endpoint vllm (91): Bind for 127.0.0.1:30080 "
            "failed: port is already allocated",
        ),
        "port_taken",
        "the address 127.0.0.1:30080 is taken by another container: "
        "choose another port, or stop the container that holds it (docker ps names it)",
    ),
    (
        [],
        ContainerEnd("created", 128, error="listen tcp4 127.0.0.1:30080: bind: address already in use"),
        "port_taken",
        "the address 127.0.0.1:30080 is taken by another process: "
        "choose another port, or stop what holds it (ss -ltnp names it)",
    ),
    (
        [],
        ContainerEnd("created", 128, error='could not select device driver "" with capabilities: [[gpu]]'),
        "toolkit_missing",
        "Docker cannot give GPUs to containers: install the NVIDIA Container Toolkit on the host and restart Docker",
    ),
    (
        [],
        ContainerEnd(
            "created",
            128,
            error="failed to create task for container: nvidia-container-cli: requirement error: unsatisfied "
            "condition: cuda>=13.0, please update your driver",
        ),
        "driver_too_old",
        "the NVIDIA driver is too old for the image (cuda>=13.0): update the driver, or use an image for an older CUDA",
    ),
    (
        [],
        ContainerEnd("created", 128, error="nvidia-container-cli: device error: 7: unknown device"),
        "no_gpu",
        "Docker cannot give the container its GPUs (device error: 7: unknown device): see with nvidia-smi whether the "
        "driver works on the host, and whether gpus names GPUs that it has",
    ),
    (
        [],
        ContainerEnd("created", 127, error='exec: "vllm": executable file not found in $PATH: unknown'),
        "entrypoint_missing",
        "the image has no program 'vllm': use an image whose entrypoint starts vLLM",
    ),
    (
        [],
        ContainerEnd("created", 128, error="something new"),
        "unknown",
        "Docker cannot start the container (something new): read the rest of its log (docker logs)",
    ),
    # The kernel killed it, whatever the log says.
    (
        [*BEFORE, CORE + INFO + "Loading weights"],
        ContainerEnd("exited", 137, oom_killed=True, memory=1024**3),
        "out_of_memory",
        "the kernel killed it for memory while it started: it reached its limit, which is 1.0 GiB: "
        "raise memory, or make vLLM use less (VLLM_CPU_KVCACHE_SPACE on a CPU)",
    ),
    (
        [*UP, *death("RuntimeError: x")],
        ContainerEnd("exited", 0, oom_killed=True),
        "out_of_memory",
        "the kernel killed it for memory while it served: it reached the end of the host's memory: "
        "stop what else uses the host's memory, or make vLLM use less",
    ),
    # It was up.
    (
        [*UP, SERVED, *death("RuntimeError: something happened")],
        ContainerEnd("exited", 0),
        "engine_died",
        f"the engine died while it served (RuntimeError: something happened): {AGAIN}",
    ),
    (
        [*UP, SERVED, CORE + "ValueError: x", API + ERROR + "Engine core proc EngineCore died unexpectedly"],
        ContainerEnd("exited", 0),
        "engine_died",
        f"the engine died while it served (ValueError: x): {AGAIN}",
    ),
    (
        [*UP, SERVED, API + ERROR + "Engine core proc EngineCore died unexpectedly, shutting down client."],
        ContainerEnd("exited", 0),
        "engine_died",
        "the engine died while it served (Engine core proc EngineCore died unexpectedly, shutting down client.): "
        + AGAIN,
    ),
    (
        [*UP, SERVED, *death("torch.AcceleratorError: CUDA error: an illegal memory access was encountered")],
        ContainerEnd("exited", 0),
        "gpu_fault",
        "the GPU reported a fault (an illegal memory access was encountered): start the server again; if it comes "
        "back, "
        "look for Xid lines in the kernel's log and at the GPU",
    ),
    (
        [*UP, SERVED, "INFO:     Shutting down", "INFO:     Finished server process [1]"],
        ContainerEnd("exited", 0),
        "stopped",
        "it was stopped (exit code 0): start it again, if that was not meant (docker events tells when)",
    ),
    ([*UP, SERVED], ContainerEnd("exited", 143), "stopped", "it was stopped (exit code 143): "),
    ([*UP, SERVED], ContainerEnd("exited", 137), "killed", "it was killed from outside (exit code 137): look into the"),
    # It served for so long that the log of its start is gone.
    (
        [CORE + "ValueError: of a request", *[SERVED] * 60, *death("RuntimeError: y")],
        ContainerEnd("exited", 0),
        "engine_died",
        f"the engine died while it served (RuntimeError: y): {AGAIN}",
    ),
    ([API + INFO + "Engine 000: Avg prompt throughput: 0.0"], ContainerEnd("exited", 0), "stopped", "it was stopped"),
    # A start that no line explains.
    (BEFORE, ContainerEnd("exited", 137), "killed", "it was killed from outside (exit code 137): look into the kernel"),
    (
        BEFORE,
        ContainerEnd("exited", 132),
        "crashed",
        "it crashed (exit code 132, illegal instruction): use an image that",
    ),
    (BEFORE, ContainerEnd("exited", 139), "crashed", "it crashed (exit code 139, segmentation fault): use another"),
    ([], ContainerEnd("exited", 3), "unknown", "it ended with exit code 3 and no word: read the rest of its log"),
    (["some word", ""], ContainerEnd("exited", 3), "unknown", "it ended with exit code 3: some word: read the rest"),
    # A word of Docker about an earlier start says nothing of this end.
    (
        ["ValueError: y"],
        ContainerEnd("exited", 1, error="old"),
        "unknown",
        "it ended with exit code 1: ValueError: y: ",
    ),
]


@pytest.mark.parametrize(("lines", "end", "code", "sentence"), ENDS, ids=range(len(ENDS)))
def test_ends(lines: list[str], end: ContainerEnd, code: str, sentence: str) -> None:
    found = diagnose("\n".join(lines), end)
    assert found.code == code
    assert str(found).startswith(sentence)


def test_the_first_cause_counts_and_not_the_last_line() -> None:
    first = engine_failure("PermissionError: [Errno 13] Permission denied: '/model/a'")
    later = engine_failure("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB.")
    assert diagnose("\n".join([*first, *later]), ContainerEnd()).code == "permission_denied"


def test_as_a_module_returns_it() -> None:
    found = Diagnosis("code", "cause", "remedy", ["x" * 400, *"abcdef"])
    assert found.as_dict() == {
        "code": "code",
        "cause": "cause",
        "remedy": "remedy",
        "evidence": ["x" * 300, "a", "b", "c", "d"],
    }


READY = API + "INFO:     Application startup complete."


def test_what_a_server_says_before_it_ends_is_its_cause() -> None:
    found = diagnose("\n".join([READY, API + "OSError: [Errno 24] Too many open files"]), ContainerEnd(exit_code=1))
    assert (found.code, found.cause) == (
        "unknown",
        "it ended with exit code 1: OSError: [Errno 24] Too many open files",
    )
    oom = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert diagnose("\n".join([READY, oom]), ContainerEnd(exit_code=1)).code == "gpu_out_of_memory"
    # One that was only stopped may have said anything.
    assert diagnose("\n".join([READY, oom]), ContainerEnd(exit_code=0)).code == "stopped"


@pytest.mark.parametrize(("signal", "code"), [(9, "killed"), (11, "crashed"), (4, "crashed"), (1, "unknown")])
def test_an_engine_that_a_signal_ended(signal: int, code: str) -> None:
    line = (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
        "{'EngineCore': -%d}" % signal
    )
    found = diagnose("\n".join([*BEFORE, API + line]), ContainerEnd(exit_code=1))
    assert found.code == code
    assert "See root cause above" not in found.cause


def test_secrets_are_not_repeated() -> None:
    line = "api_server.py: error: unrecognized arguments: --hf-token hf_SECRET --api-key=sk-SECRET --max-num-tokens 5"
    found = diagnose(line, ContainerEnd(exit_code=2))
    assert found.code == "unknown_option"
    assert "SECRET" not in str(found) + "".join(found.evidence)
    assert "--hf-token *** --api-key=*** --max-num-tokens 5" in found.cause


def test_a_token_that_the_hub_does_not_take() -> None:
    line = (
        CORE + "huggingface_hub.errors.HfHubHTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co"
    )
    assert diagnose(line, ContainerEnd(exit_code=1)).code == "hub_wanted"


def test_a_gpu_without_memory_is_given_no_share() -> None:
    line = (
        CORE + "ValueError: Free memory on device cuda:0 (0.5/79.1 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.2 GiB). Decrease GPU memory utilization"
    )
    assert diagnose(line, ContainerEnd(exit_code=1)).remedy == "stop what else uses the GPU (nvidia-smi names it)"


def test_a_processor_without_avx512() -> None:
    """Known only with the first request, on which the engine dies."""
    line = (
        CORE
        + ERROR
        + "RuntimeError: Worker failed with error ''_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16''"
    )
    died = API + "ERROR 11-22 21:53:12 [async_llm.py:906] AsyncLLM output_handler failed."
    found = diagnose("\n".join([READY, line, died]), ContainerEnd(exit_code=0))
    assert (found.code, found.cause[:41]) == ("cpu_without_avx512", "this processor has no AVX-512, which vLLM")
