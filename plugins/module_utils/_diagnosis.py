# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Why a vLLM server failed: one cause, one way out, and the lines that show it. Pure logic.

The texts are those that vLLM 0.4.2 to 0.33.0, Docker and CUDA print.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_log

# Of pydantic's errors the line below the first one says what is wrong; the others only point at a cause.
_POINTER = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|Traceback|\d validation errors? for "
    r"|Engine core proc \S+ died|Failed core proc|see stack trace \(above\)|During handling of the above",
    re.IGNORECASE,
)
# What a line looks like that could be the cause of a failure that no rule knows.
_ERROR = re.compile(
    r"Value error,|Input should be |\b\w*(?:Error|error|Exception): |^\w+Error$|Insufficient space|No such file"
)
# What pydantic puts behind a message: " [type=value_error, input_value=ArgsKwargs((), {...".
_DUMP = re.compile(r" \[type=.*$")
# Options whose values are secrets, as a wrong command line is repeated in the log.
_SECRET = re.compile(r"(--?[\w-]*(?:token|key|password|secret)[ =]+)(?!-)\S+", re.IGNORECASE)
# How vLLM names the process of an engine that a signal has ended: {'EngineCore_0': -9}.
_SIGNAL = re.compile(r"Failed core proc\(s\): \{[^}]*: -(\d+)")
# With these words a server that was up says that its engine has died.
_DEATH = re.compile(
    r"EngineCore encountered a fatal error|EngineDeadError|AsyncLLM output_handler failed|AsyncEngineDeadError"
    r"|died unexpectedly|Engine loop (?:is|has) (?:dead|died)|Background loop has errored"
)
_EVIDENCE_LINES, _EVIDENCE_WIDTH = 5, 300


class Diagnosis:
    """What failed. code: a word for programs; cause and remedy: halves of one sentence; evidence: list of lines."""

    def __init__(self, code: str, cause: str, remedy: str, evidence: Iterable[str] = ()) -> None:
        self.code, self.cause, self.remedy = code, _without_secrets(cause), remedy
        self.evidence = [_without_secrets(line)[:_EVIDENCE_WIDTH] for line in evidence][:_EVIDENCE_LINES]

    def __str__(self) -> str:
        return "%s: %s" % (self.cause, self.remedy)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a module returns it."""
        return {"code": self.code, "cause": self.cause, "remedy": self.remedy, "evidence": self.evidence}


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1***", text)


class Rule:
    """A text that a failure prints. Its named groups are filled into cause and remedy."""

    def __init__(
        self,
        code: str,
        pattern: str,
        cause: str,
        remedy: str,
        derive: Callable[[dict[str, str]], dict[str, str]] | None = None,
    ) -> None:
        self.code, self.pattern, self.cause, self.remedy = code, re.compile(pattern), cause, remedy
        self.derive = derive

    def match(self, line: str) -> Diagnosis | None:
        """Return the Diagnosis, or None."""
        found = self.pattern.search(line)
        if not found:
            return None
        values = {name: value or "" for name, value in found.groupdict().items()}
        if self.derive:
            values.update(self.derive(values))
        return Diagnosis(self.code, self.cause % values, self.remedy % values)


def _utilization(values: Mapping[str, str]) -> dict[str, str]:
    """Return the way out: with the largest gpu_memory_utilization that the free memory allows, in whole percent."""
    percent = int(100 * float(values["free"]) / float(values["total"]))
    return {"or_less": ", or set gpu_memory_utilization to %.2f or less" % (percent / 100.0) if percent else ""}


def _context(values: Mapping[str, str]) -> dict[str, str]:
    """Return the way out for a context that is too long: with a number where vLLM gives one."""
    fits = values.get("fits")
    if not fits:
        return {"set_to": "decrease max_model_len or raise gpu_memory_utilization"}
    return {"set_to": "set max_model_len to %s or less, or raise gpu_memory_utilization" % fits}


def _native_length(values: Mapping[str, str]) -> dict[str, str]:
    """Return the model's own limit, which vLLM writes as a float where the model's configuration does."""
    return {"limit": values["limit"].split(".", maxsplit=1)[0]}


# In this order: the first rule that fits a line counts.
_LOG_RULES = [
    Rule(
        "unknown_option",
        r"error: unrecognized arguments: (?P<option>.+)",
        "the vLLM of the image does not know the option %(option)s",
        "correct its name in engine_args, take it out, or use the image of a version that has it",
    ),
    Rule(
        "ambiguous_option",
        r"error: ambiguous option: (?P<option>\S+) could match (?P<options>.+)",
        "the option %(option)s is short for several: %(options)s",
        "write one of them into engine_args",
    ),
    Rule(
        "bad_option_value",
        r"error: argument (?P<option>[^:]+): (?P<reason>.+)",
        "the option %(option)s has a value that vLLM does not take (%(reason)s)",
        "correct it in engine_args",
    ),
    Rule(
        "missing_option",
        r"error: the following arguments are required: (?P<option>.+)",
        "vLLM wants the option %(option)s",
        "add it to engine_args",
    ),
    Rule(
        "model_not_first",
        r"`model` should be provided as the first positional argument|No model specified! Please specify model",
        "this vLLM wants the model as its first argument, without --model",
        "use an image whose entrypoint is 'vllm serve', or name the model first",
    ),
    Rule(
        "model_missing",
        r"Invalid repository ID or local directory specified: '(?P<path>[^']*)'",
        "%(path)s is no model: there is no such folder in the container, or it has no config.json",
        "mount the folder of a whole snapshot there",
    ),
    # A path that does not exist is taken for a repository.
    Rule(
        "model_missing",
        r"Repo id must .*: '(?P<path>/[^']*)'",
        "%(path)s is no model: there is no such folder in the container",
        "mount the folder of a whole snapshot there",
    ),
    Rule(
        "weights_missing",
        r"Cannot find any model weights with `(?P<path>[^`]*)`",
        "%(path)s has no weights that vLLM can load",
        "bring the snapshot again with its *.safetensors files",
    ),
    Rule(
        "weights_damaged",
        r"SafetensorError: (?P<reason>.+)",
        "a file of the weights is damaged (%(reason)s)",
        "have hf_snapshot repair the snapshot with state: verified",
    ),
    Rule(
        "permission_denied",
        r"PermissionError: \[Errno 13\] Permission denied: '(?P<path>[^']*)'",
        "the user of the container may not read or write %(path)s",
        "make files 0644 and folders 0755, or the cache the user's own, or run as another user",
    ),
    Rule(
        "quantization_mismatch",
        r"Quantization method specified in the model config \((?P<model>[^)]*)\) does not match the quantization "
        r"method specified in the `quantization` argument \((?P<given>[^)]*)\)",
        "the weights are quantized with %(model)s, but quantization is %(given)s",
        "set quantization to %(model)s, or leave it out",
    ),
    Rule(
        "unknown_quantization",
        r"Unknown quantization method: (?P<given>[^.\s]+)",
        "this vLLM does not know the quantization %(given)s",
        "correct quantization, or use the image of a version that has it",
    ),
    Rule(
        "quantization_unsupported",
        r"(?P<given>torch\.\w+) is not supported for quantization method (?P<method>[\w-]+)\.",
        "the quantization %(method)s does not work with the dtype %(given)s",
        "set dtype to half",
    ),
    Rule(
        "quantization_needs_newer_gpu",
        r"[Qq]uantization method (?P<method>[\w-]+) is not supported for the current GPU\. "
        r"Minimum capability: (?P<needed>\d+)\. Current capability: (?P<given>\d+)",
        "the quantization %(method)s needs a GPU of compute capability %(needed)s, this one has %(given)s",
        "use weights of another quantization, or a newer GPU",
    ),
    Rule(
        "dtype_unsupported",
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. Your (?P<gpu>.+?) GPU",
        "the GPU %(gpu)s has no bfloat16",
        "set dtype to half",
    ),
    Rule(
        "max_model_len_too_long",
        r"User-specified max_model_len \((?P<given>\d+)\) is greater than the derived max_model_len "
        r"\([^=)]*=(?P<limit>[\d.]+)",
        "max_model_len is %(given)s, but the model was made for %(limit)s",
        "set max_model_len to %(limit)s or less",
        _native_length,
    ),
    Rule(
        "kv_cache_too_small",
        r"To serve at least one request with the models?'s max seq len \((?P<given>\d+)\), \((?P<needed>[\d.]+) GiB KV "
        r"cache is needed, which is larger than the available KV cache memory \((?P<free>[\d.]+) GiB\)"
        r"(?:.*estimated maximum model length is (?P<fits>\d+))?",
        "a context of %(given)s tokens needs %(needed)s GiB of KV cache, and %(free)s GiB is there",
        "%(set_to)s",
        _context,
    ),
    Rule(
        "kv_cache_too_small",
        r"The model's max seq len \((?P<given>\d+)\) is larger than the maximum number of tokens that can be stored in "
        r"KV cache \((?P<fits>\d+)\)",
        "a context of %(given)s tokens does not fit into the KV cache, which holds %(fits)s",
        "%(set_to)s",
        _context,
    ),
    Rule(
        "no_memory_for_kv_cache",
        r"No available memory for the cache blocks",
        "weights and activations take all the memory that vLLM may use, and none is left for the KV cache",
        "raise gpu_memory_utilization, decrease max_num_batched_tokens, or use more or larger GPUs",
    ),
    Rule(
        "no_memory_for_kv_cache",
        r"Cannot auto-fit max_model_len",
        "weights and activations take all the memory that vLLM may use, and not one token fits beside them",
        "raise gpu_memory_utilization, decrease max_num_batched_tokens, or use more or larger GPUs",
    ),
    Rule(
        "gpu_memory_taken",
        r"Free memory on device (?P<device>\S+ )?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than "
        r"desired GPU memory utilization \((?P<given>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        "%(free)s of the GPU's %(total)s GiB are free, and gpu_memory_utilization %(given)s wants %(wanted)s GiB",
        "stop what else uses the GPU (nvidia-smi names it)%(or_less)s",
        _utilization,
    ),
    Rule(
        "memory_taken",
        r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) .* is less than (?:desired CPU "
        r"memory utilization \([\d.]+, |requested memory for kv \()(?P<wanted>[\d.]+)",
        "%(free)s of the host's %(total)s GiB are free, and vLLM wants %(wanted)s GiB",
        "decrease gpu_memory_utilization (which means the host's memory on a CPU) or VLLM_CPU_KVCACHE_SPACE, "
        "or stop what else uses the memory",
    ),
    Rule(
        "memory_taken",
        r"The worker already uses (?P<used>[\d.]+).*? more than .*?(?P<wanted>[\d.]+)",
        "the server uses %(used)s GiB before its KV cache, more than the %(wanted)s GiB that it may",
        "raise gpu_memory_utilization, which means the host's memory on a CPU",
    ),
    Rule(
        "gpu_out_of_memory",
        r"CUDA out of memory\. Tried to allocate (?P<wanted>[\d.]+ \w+)",
        "the GPU has no %(wanted)s left while the model loads",
        "use more GPUs (tensor_parallel_size), smaller weights, or stop what else uses the GPU",
    ),
    Rule(
        "gpu_out_of_memory",
        r"OutOfMemoryError|CUDA out of memory|HIP out of memory",
        "the GPU's memory is full",
        "use more GPUs (tensor_parallel_size), smaller weights, or stop what else uses the GPU",
    ),
    Rule(
        "tensor_parallel_mismatch",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
        r"\((?P<given>\d+)\)",
        "the model's %(heads)s attention heads cannot be spread over %(given)s GPUs",
        "set tensor_parallel_size to a number that divides %(heads)s",
    ),
    Rule(
        "tensor_parallel_mismatch",
        r"must be divisible by tensor[ _]parallel|is not divisible by (?:weight|min_thread_n|tp|tensor)",
        "the model cannot be spread evenly over so many GPUs",
        "set tensor_parallel_size to a number that divides its attention heads and quantization groups",
    ),
    Rule(
        "not_enough_gpus",
        r"World size \((?P<given>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
        "tensor and pipeline parallel size want %(given)s GPUs, and the container sees %(there)s",
        "decrease tensor_parallel_size, or give the server more GPUs (gpus)",
    ),
    Rule(
        "no_gpu",
        r"Failed to infer device type|No CUDA GPUs are available|no CUDA-capable device is detected"
        r"|Found no NVIDIA driver on your system",
        "the container sees no GPU",
        "give it one (gpus), and see with nvidia-smi whether driver and container toolkit work",
    ),
    Rule(
        "driver_too_old",
        r"(?P<text>Error 80[34]\b.*|provided PTX was compiled with an unsupported toolchain"
        r"|CUDA driver version is insufficient|driver on your system is too old.*)",
        "the NVIDIA driver does not fit the CUDA of the image (%(text)s)",
        "update the driver, use an image for an older CUDA, or set VLLM_ENABLE_CUDA_COMPATIBILITY=1 on datacentre GPUs",
    ),
    Rule(
        "driver_mismatch",
        r"(?P<text>Driver/library version mismatch)",
        "the loaded NVIDIA driver is of another version than its libraries",
        "reboot the host, or reload the kernel module",
    ),
    Rule(
        "gpu_lost",
        r"(?P<text>Failed to initialize NVML|NVML: Unknown Error|Can't initialize NVML)",
        "the container has no access to its GPUs (%(text)s)",
        "see with nvidia-smi whether the driver works on the host, then make the container anew",
    ),
    Rule(
        "gpu_fault",
        r"(?P<text>an illegal memory access was encountered|uncorrectable ECC error|device-side assert triggered"
        r"|unspecified launch failure|GPU has fallen off the bus)",
        "the GPU reported a fault (%(text)s)",
        "start the server again; if it comes back, look for Xid lines in the kernel's log and at the GPU",
    ),
    Rule(
        "shm_too_small",
        r"Insufficient space in (?P<path>/dev/shm)[^:]*: (?P<needed>\d+) MiB required, (?P<free>\d+) MiB free",
        "the server needs %(needed)s MiB of shared memory, and %(free)s MiB are free in %(path)s",
        "raise shm_size",
    ),
    Rule(
        "shm_too_small",
        r"Insufficient space in /dev/shm|ncclShmOpen|Error while creating shared memory segment"
        r"|[Nn]o space left on device.*/dev/shm|/dev/shm.*[Nn]o space left on device",
        "the shared memory of the container is too small",
        "raise shm_size",
    ),
    Rule(
        "port_taken",
        r"[Aa]ddress already in use",
        "the port that the server wants to listen on is taken",
        "choose another port, or stop what holds it",
    ),
    Rule(
        "cpu_without_avx512",
        r"has no attribute 'cpu_gemm_wna16'",
        "this processor has no AVX-512, which vLLM needs for 4-bit weights on a CPU",
        "use the image that vllm_image builds (source: wheels), weights of 16 bits, or another processor",
    ),
    Rule(
        "hub_wanted",
        r"OfflineModeIsEnabled|gated repo|GatedRepoError|LocalEntryNotFoundError|RepositoryNotFoundError"
        r"|Cannot access gated repo|outgoing traffic has been disabled|HfHubHTTPError|40[13] Client Error",
        "the server tried to fetch something from the Hub, which it may not",
        "bring every model that engine_args name as a snapshot, and name it by its path",
    ),
    Rule(
        "custom_code",
        r"consider setting `trust_remote_code=True`|trust_remote_code=True. to remove this error"
        r"|contains custom code which must be executed",
        "the model comes with Python code of its own, which vLLM does not run unasked",
        "read that code, then set trust_remote_code",
    ),
    Rule(
        "architecture_unsupported",
        r"Model architectures (?P<names>\[.*?\]) (?:are not supported|failed to be inspected)",
        "this vLLM cannot run models of the architecture %(names)s",
        "use the image of a newer vLLM, or another model",
    ),
    Rule(
        "architecture_unsupported",
        r"model type `(?P<names>[^`]+)` but Transformers does not recognize this architecture",
        "this vLLM cannot run models of the type %(names)s",
        "use the image of a newer vLLM, or another model",
    ),
    Rule(
        "chat_template_missing",
        r"The supplied chat template string \((?P<path>[^)]*)\) appears path-like",
        "there is no chat template %(path)s in the container",
        "mount it there, or correct chat_template",
    ),
    Rule(
        "disk_full",
        r"\[Errno 28\] No space left on device(?:: '(?P<path>[^']*)')?",
        "a file system that the container writes to is full (%(path)s)",
        "free some space under the cache, or raise tmp_size",
    ),
    Rule(
        "read_only",
        r"\[Errno 30\] Read-only file system: '(?P<path>[^']*)'",
        "the server wants to write to %(path)s, which is read-only",
        "point it to /cache or /tmp with an environment variable or an option of vLLM",
    ),
    Rule(
        "start_limit",
        r"Timed out waiting for engine core processes to start.* Waited (?P<waited>\d+)",
        "the engine was not up after %(waited)s s, and vLLM gave up itself",
        "raise start_timeout, or VLLM_ENGINE_READY_TIMEOUT_S where the server is not run by the role",
    ),
    Rule(
        "module_missing",
        r"ModuleNotFoundError: No module named '(?P<name>[^']*)'",
        "the image lacks the Python module %(name)s",
        "use an image that has it",
    ),
    Rule(
        "entrypoint_missing",
        r"exec: (?P<name>[^:\s]+): not found",
        "the image has no program '%(name)s'",
        "use an image whose entrypoint starts vLLM",
    ),
]
# What Docker says of a container that it could not start.
_DOCKER_RULES = [
    Rule(
        "port_taken",
        r"Bind for (?P<address>\S+) failed: port is already allocated",
        "the address %(address)s is taken by another container",
        "choose another port, or stop the container that holds it (docker ps names it)",
    ),
    Rule(
        "port_taken",
        r"listen \w+ (?P<address>\S+): bind: address already in use",
        "the address %(address)s is taken by another process",
        "choose another port, or stop what holds it (ss -ltnp names it)",
    ),
    Rule(
        "toolkit_missing",
        r"could not select device driver|nvidia-container-\w+.*not found|unresolvable CDI devices",
        "Docker cannot give GPUs to containers",
        "install the NVIDIA Container Toolkit on the host and restart Docker",
    ),
    Rule(
        "driver_mismatch",
        r"Driver/library version mismatch",
        "the loaded NVIDIA driver is of another version than its libraries",
        "reboot the host, or reload the kernel module",
    ),
    Rule(
        "driver_too_old",
        r"unsatisfied condition: (?P<text>cuda\S*\s*[<>=]+\s*[\d.]+|brand.*)",
        "the NVIDIA driver is too old for the image (%(text)s)",
        "update the driver, or use an image for an older CUDA",
    ),
    Rule(
        "no_gpu",
        r"nvidia-container-cli: (?P<text>.+)|failed to initialize NVML",
        "Docker cannot give the container its GPUs (%(text)s)",
        "see with nvidia-smi whether the driver works on the host, and whether gpus names GPUs that it has",
    ),
    Rule(
        "mount_missing",
        r"bind source path does not exist: (?P<path>\S+)",
        "%(path)s, which is mounted into the container, is not on the host",
        "bring it, or correct the mount",
    ),
    Rule(
        "entrypoint_missing",
        r"exec: \"(?P<name>[^\"]+)\": (?:executable file not found|stat .*no such file)",
        "the image has no program '%(name)s'",
        "use an image whose entrypoint starts vLLM",
    ),
]


class ContainerEnd:
    """How a container is, in Docker's words.

    status: created, running, restarting, exited, dead; error: what Docker said when it could not
    start it, or ''; memory: its limit in bytes, 0 for none.
    """

    def __init__(
        self, status: str = "exited", exit_code: int = 1, oom_killed: bool = False, error: str = "", memory: int = 0
    ) -> None:
        self.status, self.exit_code, self.oom_killed = status, exit_code, oom_killed
        self.error, self.memory = error, memory


def diagnose(log: str, end: ContainerEnd) -> Diagnosis:
    """Return the Diagnosis of a container that has ended, from the log of its last run and its ContainerEnd."""
    lines = _engine_log.lines_of(log)
    was_ready = _engine_log.is_ready(log)
    if end.error and end.status in ("created", "exited", "dead"):
        known = _first_match(_DOCKER_RULES, [end.error])
        if known or end.status == "created":
            return known or _unknown("Docker cannot start the container (%s)" % end.error, [end.error])
    if end.oom_killed:
        return _killed_for_memory(end, was_ready)
    if was_ready:
        return _death_of_a_server(lines, end)
    return _first_match(_LOG_RULES, _suspects(lines)) or _by_exit_code(lines, end)


def _suspects(lines: Iterable[str]) -> list[str]:
    """Return the plain lines that may hold the cause: no news, and not those that only point at it."""
    plain = [_engine_log.plain(line) for line in lines if not _engine_log.is_calm(line)]
    return [line for line in plain if line and not _POINTER.search(line)]


def _causes(lines: Iterable[str]) -> list[str]:
    return [_DUMP.sub("", line)[:500] for line in _suspects(lines) if _ERROR.search(line)]


def _first_match(rules: Iterable[Rule], lines: Iterable[str]) -> Diagnosis | None:
    """Return the Diagnosis of the first line that a rule knows, since later ones are consequences, or None."""
    for line in lines:
        for rule in rules:
            found = rule.match(_DUMP.sub("", line))
            if found:
                return Diagnosis(found.code, found.cause, found.remedy, [_DUMP.sub("", line)])
    return None


def _death_of_a_server(lines: list[str], end: ContainerEnd) -> Diagnosis:
    """Return the Diagnosis of a server that was up."""
    up = max((number for number, line in enumerate(lines) if _engine_log.READY.search(line)), default=-1)
    died = [number for number, line in enumerate(lines) if number > up and _DEATH.search(line)]
    if not died:
        # What a server that was only stopped has printed is no cause.
        tail = [] if end.exit_code in _QUIET_ENDS else lines[up + 1 :]
        return _first_match(_DEATH_RULES, _suspects(tail)) or _by_exit_code(tail, end)
    # The engine's own process prints its traceback before, between or after the server's lines about it.
    around = lines[max(up + 1, died[0] - 50) :]
    known = _first_match(_DEATH_RULES, _suspects(around))
    if known:
        return known
    causes = [line for line in _causes(around) if not _DEATH.search(line)]
    first_words = _engine_log.plain(lines[died[0]])
    return Diagnosis(
        "engine_died",
        "the engine died while it served (%s)" % (causes[0] if causes else first_words),
        "start the server again; if it comes back, look at the kernel's log (dmesg) and the GPU",
        (causes + [first_words])[:_EVIDENCE_LINES],
    )


# Exit codes of a container that was stopped or killed.
_QUIET_ENDS = (0, 130, 137, 143)
# What can also end a server that has been up.
_DEATH_RULES = [rule for rule in _LOG_RULES if rule.code.startswith(("gpu_", "cpu_"))]


def _killed_for_memory(end: ContainerEnd, was_ready: bool) -> Diagnosis:
    limit = ", which is %s GiB" % round(end.memory / 1024.0**3, 2) if end.memory else ""
    return Diagnosis(
        "out_of_memory",
        "the kernel killed it for memory while it %s: it reached %s%s"
        % ("served" if was_ready else "started", "its limit" if end.memory else "the end of the host's memory", limit),
        "raise memory, or make vLLM use less (VLLM_CPU_KVCACHE_SPACE on a CPU)"
        if end.memory
        else "stop what else uses the host's memory, or make vLLM use less",
        ["OOMKilled, exit code %d" % end.exit_code],
    )


def _by_exit_code(lines: list[str], end: ContainerEnd) -> Diagnosis:
    """Return the Diagnosis of an end that no line explains."""
    words = _causes(lines)
    code = end.exit_code
    signal = next((int(found.group(1)) for found in map(_SIGNAL.search, lines) if found), 0)
    if not words and signal == 9:
        return Diagnosis(
            "killed",
            "a process of its engine was killed (signal 9)",
            "look into the kernel's log (dmesg): most often the host's memory was used up",
            [_engine_log.plain(line) for line in lines if _SIGNAL.search(line)],
        )
    if not words and signal in (4, 11):
        code = 128 + signal
    if not words and code in (0, 130, 143):
        return Diagnosis(
            "stopped",
            "it was stopped (exit code %d)" % code,
            "start it again, if that was not meant (docker events tells when)",
        )
    if not words and code == 137:
        return Diagnosis(
            "killed",
            "it was killed from outside (exit code 137)",
            "look into the kernel's log (dmesg) for the killer of processes, or for somebody's docker kill",
        )
    if not words and code in (132, 139):
        return Diagnosis(
            "crashed",
            "it crashed (exit code %d, %s)" % (code, "illegal instruction" if code == 132 else "segmentation fault"),
            "use an image that was built for this processor" if code == 132 else "use another version's image",
        )
    last = [line for line in map(_engine_log.plain, lines) if line and not _POINTER.search(line)][-_EVIDENCE_LINES:]
    line = words[0] if words else (last[-1] if last else "")
    return _unknown(
        "it ended with exit code %d: %s" % (code, line) if line else "it ended with exit code %d and no word" % code,
        words or last,
    )


def _unknown(cause: str, evidence: Iterable[str]) -> Diagnosis:
    return Diagnosis("unknown", cause, "read the rest of its log (docker logs)", evidence)
