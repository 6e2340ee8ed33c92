# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What would go wrong on a host, from what was seen of it: findings, each one sentence with the way out. Pure.

Better silent than wrong: what was not told, or is not known for sure, is no finding.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _selection
from ansible_collections.llmops.vllm.plugins.module_utils._engine_schema import plain, version_key, version_of_tag
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile, SnapshotError
from ansible_collections.llmops.vllm.plugins.plugin_utils import cuda
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Deployment

# As findings() returns it; and as gpu_info does.
Finding = dict[str, str]
Gpu = dict[str, Any]

ERROR, WARNING = "error", "warning"

# All that is found, with what it means; docs/preflight.md has the same table (a test compares them).
CODES = {
    "os_unsupported": "a system that the roles do not know",
    "no_service_manager": "a GPU host without systemd",
    "memory": "too little memory, or a limit beyond it",
    "shm": "shared memory and /tmp of a container together beyond the host's memory",
    "clock": "a clock that is wrong",
    "docker_missing": "no Docker, and none may be installed",
    "docker_too_old": "Docker before 20.10, or before 26.1 for CDI",
    "docker_storage_driver": "a storage driver that is slow or takes a copy for each layer",
    "docker_rootless": "Docker without root",
    "no_gpu": "no GPU, or no driver for it",
    "gpu_problem": "what gpu_info reports of driver and GPUs",
    "driver_mismatch": "kernel module and library of the driver differ",
    "driver_too_old": "a driver that does not run the image's CUDA",
    "driver_minor": "a driver that runs it by minor version compatibility alone",
    "driver_needs_forward_compatibility": "a driver that runs it by forward compatibility, which is off",
    "cuda_requirement": "the container toolkit would refuse to start the image",
    "compute_capability": "a GPU that is too old for vLLM or for an option",
    "too_few_gpus": "GPUs that are asked for and are not there",
    "mig_mode": "MIG is on and a whole GPU is asked for, or a MIG device is not there",
    "compute_mode": "a GPU that lets in no process, or one alone",
    "fabric_manager": "NVSwitches whose Fabric Manager is missing, stopped or of another version",
    "gpu_memory_taken": "memory of a GPU that somebody else holds",
    "weights_too_big": "weights that do not fit",
    "container_toolkit": "no NVIDIA Container Toolkit, and none may be installed",
    "no_cgroups": "a setting of the toolkit that takes the GPUs from containers",
    "cdi_stale": "CDI devices that lack a GPU",
    "disk_image": "too little room for images",
    "disk_snapshot": "too little room for snapshots",
    "disk_read_only": "a file system that cannot be written to",
    "disk_network": "snapshots on a network file system",
    "port_taken": "a port that somebody else holds",
    "address_unknown": "an address that the host does not have",
    "hub_unreachable": "the Hub does not answer",
    "model_gated": "a gated model, and no access to it",
    "model_not_found": "a repository or a revision that the Hub does not have",
    "model_files": "no files of a model fit what is asked for",
    "token_refused": "a token that is refused, or cannot be read",
    "registry_unreachable": "the registry of an image does not answer",
}

GB, GIB = 10**9, 2**30
ARCHITECTURES = ("x86_64", "aarch64")
# Where the roles can install Docker and the NVIDIA Container Toolkit.
DISTRIBUTIONS = ("debian", "ubuntu", "rhel", "rocky", "almalinux", "centos", "ol", "fedora", "amzn")
LEAST_DOCKER, LEAST_DOCKER_FOR_CDI = (20, 10), (26, 1)
# Below it a host cannot even unpack an image in peace; loading weights for a GPU takes more.
LEAST_MEMORY, LEAST_GPU_MEMORY = 4 * GB, 8 * GB
CLOCK_WARNING, CLOCK_ERROR = 30, 300
# Methods whose weights are packed in the files as they are in memory. Others quantize, or halve, while they load.
_PACKED = ("awq", "auto_awq", "awq_marlin", "gptq", "auto_gptq", "gptq_marlin", "compressed-tensors", "mxfp4", "gguf")
_PACKED_NAME = re.compile(r"awq|gptq|int4|int8|w4a16|w8a8|fp8|nvfp4|mxfp4|gguf|[48]bit", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_CPU_IMAGE = re.compile(r"(.*/)?(vllm-openai-cpu|llmops-vllm-cpu)([:@]|$)")
_WILDCARDS = ("0.0.0.0", "::")


def findings(
    host: str, deployments: Sequence[Deployment], seen: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Finding]:
    """Return the findings of a host: {code, severity, host, deployment, text, remedy}, errors first.

    deployments: those of the catalogue, completed, of all hosts. seen: what vllm_host_info returns. settings: what
    differs from DEFAULTS.
    """
    found = _Host(host, deployments, seen, {**DEFAULTS, **settings}).look()
    return sorted(found, key=lambda finding: finding["severity"] != ERROR)


DEFAULTS = {
    # As vllm_image_source and vllm_image_builder.
    "image_source": "pull",
    "image_builder": "",
    # Bytes of an image for CUDA once it is unpacked: those of vLLM are 25 to 29 GB.
    "image_size": 30 * 10**9,
    # Whether the roles install the NVIDIA Container Toolkit, and Docker.
    "manage_toolkit": True,
    "install_docker": True,
    # As nvidia_container_toolkit_mode.
    "toolkit_mode": "auto",
}


def sentence(finding: Finding) -> str:
    """Return a finding as people read it."""
    return "%s: %s" % (finding["text"], finding["remedy"])


class _Host:
    """One host. Each method looks at one concern."""

    def __init__(
        self, name: str, deployments: Sequence[Deployment], seen: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        self.name, self.seen, self.settings = name, seen, settings
        self.here = [_Wanted(deployment) for deployment in deployments if name in deployment["hosts"]]
        self.with_gpus = [wanted for wanted in self.here if wanted.gpus != "none"]
        is_builder = settings["image_builder"] == name
        self.images = list(dict.fromkeys(d["image"] for d in (deployments if is_builder else ()))) or list(
            dict.fromkeys(wanted.image for wanted in self.here)
        )
        self.cuda_images = {d["image"] for d in deployments if d["gpus"] != "none" and not _CPU_IMAGE.match(d["image"])}
        self.models_dir = seen["models_dir"]
        # Which containers are ours, and which those of another inventory.
        self.home = posixpath.dirname(self.models_dir)
        self.gpu: Gpu = seen.get("gpu") or {}
        self.docker = seen["docker"]
        self.found: list[Finding] = []

    def look(self) -> list[Finding]:
        self._system()
        self._memory()
        self._docker()
        if self.with_gpus and self.gpu:
            self._gpus()
        self._weights_in_memory()
        self._hub()
        self._registries()
        self._disks()
        self._ports()
        return self.found

    def _add(self, code: str, severity: str, text: str, remedy: str, deployment: str = "") -> None:
        finding = {
            "code": code,
            "severity": severity,
            "host": self.name,
            "deployment": deployment,
            "text": text,
            "remedy": remedy,
        }
        if finding not in self.found:
            self.found.append(finding)

    # System, memory, clock

    def _system(self) -> None:
        system = self.seen["system"]
        if system["platform"] != "Linux" or system["architecture"] not in ARCHITECTURES:
            self._add(
                "os_unsupported",
                ERROR,
                "it is %s on %s" % (system["platform"], system["architecture"]),
                "vLLM in Docker runs on Linux, on %s" % " and ".join(ARCHITECTURES),
            )
        elif not set([system["id"]] + list(system["id_like"])) & set(DISTRIBUTIONS):
            name = system["name"] or system["id"] or "an unknown distribution"
            if not self.docker["installed"]:
                self._add(
                    "os_unsupported",
                    ERROR,
                    "it runs %s and has no Docker, which the roles install on Debian, Ubuntu and the RHEL family"
                    % name,
                    "install Docker there first",
                )
            else:
                self._add(
                    "os_unsupported",
                    WARNING,
                    "it runs %s, on which the roles have not been tried" % name,
                    "try it on one host first (--limit)",
                )
        if self.with_gpus and system["service_manager"] != "systemd":
            self._add(
                "no_service_manager",
                WARNING,
                "systemd does not run, so nothing starts Docker and readies the GPUs after a reboot",
                "see to that yourself",
            )
        offset = self.seen.get("clock_offset") or 0
        if abs(offset) > CLOCK_WARNING:
            wrong = abs(offset) > CLOCK_ERROR
            self._add(
                "clock",
                ERROR if wrong else WARNING,
                "its clock is %s %s the controller's%s"
                % (_duration(abs(offset)), "ahead of" if offset > 0 else "behind", ", with which TLS fails" * wrong),
                "set it, and let NTP keep it (timedatectl set-ntp true)",
            )

    def _memory(self) -> None:
        total = self.seen["memory"]["total"]
        least = LEAST_GPU_MEMORY if self.with_gpus else LEAST_MEMORY
        if self.here and 0 < total < least:
            self._add(
                "memory",
                WARNING,
                "it has %s of memory" % _gb(total),
                "take a host with %s or more%s"
                % (_gb(least), ", through which weights get to a GPU" * bool(self.with_gpus)),
            )
        for wanted in self.here if total else ():
            limit = bytes_of(wanted.deployment["memory"])
            if limit > total:
                self._add(
                    "memory",
                    ERROR,
                    "memory is limited to %s and the host has %s" % (_gb(limit), _gb(total)),
                    "lower memory, or take another host",
                    wanted.name,
                )
            shm, tmp = bytes_of(wanted.deployment["shm_size"]), bytes_of(wanted.deployment["tmp_size"])
            if shm + tmp > total:
                # They are filled on use: a host that works must not be refused for a limit that it never comes near.
                self._add(
                    "shm",
                    WARNING,
                    "shm_size and tmp_size may take %s of memory together and the host has %s"
                    % (_gb(shm + tmp), _gb(total)),
                    "lower shm_size",
                    wanted.name,
                )

    def _docker(self) -> None:
        docker = self.docker
        if not docker["installed"]:
            if not self.settings["install_docker"]:
                self._add(
                    "docker_missing",
                    ERROR,
                    "it has no Docker and docker_engine_install is false",
                    "install Docker, or set docker_engine_install to true",
                )
            return
        version = cuda.numbers(docker["version"])
        if version and version[:2] < LEAST_DOCKER:
            self._add(
                "docker_too_old",
                ERROR,
                "its Docker is %s" % docker["version"],
                "bring it to %d.%d or newer" % LEAST_DOCKER,
            )
        elif (
            version and version[:2] < LEAST_DOCKER_FOR_CDI and self.with_gpus and self.settings["toolkit_mode"] == "cdi"
        ):
            self._add(
                "docker_too_old",
                ERROR,
                "its Docker is %s, and nvidia_container_toolkit_mode is cdi" % docker["version"],
                "bring it to %d.%d or newer, or set the mode to auto" % LEAST_DOCKER_FOR_CDI,
            )
        if docker["storage_driver"] in ("vfs", "devicemapper"):
            self._add(
                "docker_storage_driver",
                WARNING,
                "Docker keeps images with %s, which is slow and takes many times their size" % docker["storage_driver"],
                "use overlay2 (storage-driver in /etc/docker/daemon.json; images have to be pulled again)",
            )
        if docker["rootless"]:
            self._add(
                "docker_rootless",
                WARNING,
                "Docker runs without root, which the roles have not been tried with",
                "use a Docker that runs as root",
            )

    # GPUs

    def _gpus(self) -> None:
        if not self._has_gpus():
            return
        gpu = self.gpu
        for problem in () if gpu["driver"]["mismatch"] else gpu["problems"]:
            text, dummy, remedy = problem.rpartition(": ")
            self._add("gpu_problem", WARNING, text or problem, remedy if text else "look at nvidia-smi and dmesg")
        self._fabric()
        self._toolkit()
        for wanted in self.with_gpus:
            devices = self._devices(wanted)
            gpus = _distinct(device["gpu"] for device in devices)
            self._driver(wanted, gpus)
            self._capability(wanted, gpus)
            self._modes(wanted, gpus)
            if devices and not gpu["driver"]["mismatch"]:
                self._taken(wanted, devices)
                self._weights_on(wanted, devices)

    def _has_gpus(self) -> bool:
        """Say what is wrong with a host that shows no GPU, and return whether there is more to look at."""
        gpu, driver = self.gpu, self.gpu["driver"]
        if driver["mismatch"]:
            self._add(
                "driver_mismatch",
                ERROR,
                "the kernel has the NVIDIA driver %s loaded and its library is %s, so no container with GPUs starts"
                % (driver["kernel_version"] or "of unknown version", driver["library_version"] or "another one"),
                "reboot the host",
            )
        if gpu["gpus"]:
            return True
        if driver["mismatch"]:
            return False
        for wanted in self.with_gpus:
            if not gpu["pci_gpus"]:
                self._add(
                    "no_gpu",
                    ERROR,
                    "the host has no NVIDIA GPU and gpus is %s" % wanted.gpus_text,
                    "take it out of hosts, or serve on its CPU with gpus none and an image for CPUs",
                    wanted.name,
                )
            elif not driver["loaded"]:
                needed = self._cuda_of(wanted.image)
                self._add(
                    "no_gpu",
                    ERROR,
                    "%s on the PCI bus and no NVIDIA driver is loaded" % _count(gpu["pci_gpus"], "NVIDIA GPU", "is"),
                    "install the driver%s"
                    % (", %s for CUDA %s of the image" % (cuda.driver_text(needed), needed) if needed else ""),
                    wanted.name,
                )
            else:
                problem = (gpu["problems"] or [""])[0]
                self._add(
                    "no_gpu",
                    ERROR,
                    "the NVIDIA driver %s is loaded and shows no GPU" % driver["version"],
                    problem or "look at nvidia-smi and dmesg",
                    wanted.name,
                )
        return False

    def _devices(self, wanted: _Wanted) -> list[dict[str, Any]]:
        """Return the devices that a deployment gets: {gpu, total, mig}. What is not there is said."""
        gpus, given = self.gpu["gpus"], wanted.gpus
        chosen: list[tuple[Gpu, dict[str, Any] | None] | None]
        if given == "all":
            chosen = [(gpu, None) for gpu in gpus]
        elif isinstance(given, int):
            if given > len(gpus):
                self._add(
                    "too_few_gpus",
                    ERROR,
                    "gpus asks for %d and the host has %d" % (given, len(gpus)),
                    "lower gpus, or take another host",
                    wanted.name,
                )
            chosen = [(gpu, None) for gpu in gpus[:given]]
        else:
            chosen = [self._named(wanted, str(name)) for name in given]
        devices = [
            {"gpu": gpu, "total": (mig or gpu)["memory"]["total"], "mig": mig} for gpu, mig in filter(None, chosen)
        ]
        mixed = [gpu for gpu, mig in filter(None, chosen) if gpu["mig"]["enabled"] and not mig]
        if mixed:
            names = [device["uuid"] for gpu in mixed for device in gpu["mig"]["devices"]]
            self._add(
                "mig_mode",
                ERROR,
                "%s divided by MIG and gpus asks for the whole" % _gpu_names(mixed, " is", " are"),
                "name MIG devices in gpus%s" % (" (%s)" % ", ".join(names) if names else ", once there are some")
                + ", or turn MIG off (nvidia-smi -mig 0)",
                wanted.name,
            )
            devices = [device for device in devices if device["gpu"] not in mixed]
        alone = wanted.args.get("distributed_executor_backend") != "ray"
        if wanted.world > len(devices) and given == "all" and alone and not mixed:
            # With a list or a count the catalogue has said so already.
            self._add(
                "too_few_gpus",
                ERROR,
                "engine_args spread the model over %d GPUs (tensor_parallel_size %d, pipeline_parallel_size %d) "
                "and the host has %d" % (wanted.world, wanted.tensor, wanted.pipeline, len(devices)),
                "lower tensor_parallel_size, or take another host",
                wanted.name,
            )
        return devices

    def _named(self, wanted: _Wanted, name: str) -> tuple[Gpu, dict[str, Any] | None] | None:
        """Return (GPU, MIG device or None) of an index or a UUID, or None where it is not there."""
        for gpu in self.gpu["gpus"]:
            if name in (str(gpu["index"]), gpu["uuid"]):
                return gpu, None
            for number, mig in enumerate(gpu["mig"]["devices"]):
                if name in (mig["uuid"], "%d:%d" % (gpu["index"], number)):
                    return gpu, mig
        if name.startswith("MIG-") or ":" in name:
            there = [mig["uuid"] for gpu in self.gpu["gpus"] for mig in gpu["mig"]["devices"]]
            self._add(
                "mig_mode",
                ERROR,
                "gpus names the MIG device %s and the host has %s" % (name, ", ".join(there) or "none"),
                "name one that it has, or make it (nvidia-smi mig -cgi ... -C)",
                wanted.name,
            )
        else:
            there = [str(gpu["index"]) for gpu in self.gpu["gpus"]]
            self._add(
                "too_few_gpus",
                ERROR,
                "gpus names %s and the host has %s %s"
                % (name, "the GPU" if len(there) == 1 else "the GPUs", _listed(there)),
                "name GPUs that it has, by index or UUID (nvidia-smi -L)",
                wanted.name,
            )
        return None

    def _cuda_of(self, image: str) -> str:
        return cuda.needed(image, self._environment(image))

    def _environment(self, image: str) -> dict[str, str]:
        environment: dict[str, str] = (self.docker["images"].get(image) or {}).get("environment", {})
        return environment

    def _driver(self, wanted: _Wanted, gpus: Sequence[Gpu]) -> None:
        driver, environment = self.gpu["driver"], wanted.environment
        needed = self._cuda_of(wanted.image)
        how = cuda.compatibility(needed, driver)
        unmet = cuda.unmet({**self._environment(wanted.image), **environment}, driver, gpus)
        have = "the NVIDIA driver %s knows CUDA up to %s and the image has %s" % (
            driver["version"],
            cuda.known_by(driver),
            needed,
        )
        if how == "older" and not cuda.is_on(environment.get(cuda.FORWARD_VARIABLE, "")):
            forward = cuda.can_forward(needed, driver, gpus)
            self._add(
                "driver_needs_forward_compatibility" if forward else "driver_too_old",
                ERROR,
                have,
                "install the driver %s%s, or take an image for the CUDA that the driver knows"
                % (
                    cuda.driver_text(needed),
                    ", or set %s to 1 in environment" % cuda.FORWARD_VARIABLE if forward else "",
                ),
                wanted.name,
            )
        elif how == "older" and not cuda.can_forward(needed, driver, gpus):
            self._add(
                "driver_too_old",
                ERROR,
                have + ", which %s does not bridge for this driver and %s" % (cuda.FORWARD_VARIABLE, _names_of(gpus)),
                "install the driver %s, or take an image for the CUDA that the driver knows" % cuda.driver_text(needed),
                wanted.name,
            )
        elif unmet:
            self._add(
                "cuda_requirement",
                ERROR,
                "the NVIDIA driver %s does not meet the image's condition %s for %s, so that the container toolkit "
                "refuses to start it" % (driver["version"], unmet, _names_of(gpus)),
                "install the driver %s, take another image, or set NVIDIA_DISABLE_REQUIRE to 1 in environment if you "
                "know that it runs" % cuda.driver_text(needed),
                wanted.name,
            )
        elif how == "minor":
            self._add(
                "driver_minor",
                WARNING,
                have + ", so that what is compiled at run time may fail",
                "install the driver %s if it does" % cuda.driver_text(needed),
                wanted.name,
            )

    def _capability(self, wanted: _Wanted, gpus: Sequence[Gpu]) -> None:
        version = version_of_tag(wanted.image)
        needs = []
        if version:
            least = "7.5" if version_key(version) >= version_key("0.20.0") else "7.0"
            needs.append(
                (least, "vLLM %s" % version, "take a newer GPU%s" % (", or vLLM before 0.20.0" * (least == "7.5")))
            )
        if str(wanted.args.get("quantization", "")) in ("awq", "auto_awq"):
            needs.append(("7.5", "quantization awq", "take a newer GPU, or a model that is quantized otherwise"))
        if str(wanted.args.get("dtype", "")) == "bfloat16":
            needs.append(("8.0", "dtype bfloat16", "set dtype to half"))
        for gpu in gpus:
            have = gpu["compute_capability"]
            for least, what, remedy in needs:
                if have and cuda.numbers(have) < cuda.numbers(least):
                    self._add(
                        "compute_capability",
                        ERROR,
                        "%s has the compute capability %s and %s needs %s" % (gpu["name"], have, what, least),
                        remedy,
                        wanted.name,
                    )
                    break

    def _modes(self, wanted: _Wanted, gpus: Sequence[Gpu]) -> None:
        prohibited = [gpu for gpu in gpus if gpu["compute_mode"] == "Prohibited"]
        if prohibited:
            self._add(
                "compute_mode",
                ERROR,
                "the compute mode of %s is Prohibited, which lets in no process" % _gpu_names(prohibited),
                "set it to Default (nvidia-smi -c DEFAULT)",
                wanted.name,
            )
        for gpu in gpus:
            if not gpu["compute_mode"].startswith("Exclusive"):
                continue
            others = [other.name for other in self.with_gpus if other is not wanted and self._gets(other, gpu)]
            if others:
                self._add(
                    "compute_mode",
                    ERROR,
                    "the compute mode of GPU %d is %s and %s gets it as well"
                    % (gpu["index"], gpu["compute_mode"], _listed(others)),
                    "set it to Default (nvidia-smi -c DEFAULT), or give them different gpus",
                    wanted.name,
                )

    def _gets(self, wanted: _Wanted, gpu: Gpu) -> bool:
        if wanted.gpus == "all":
            return True
        if isinstance(wanted.gpus, int):
            return int(gpu["index"]) < wanted.gpus
        return bool({str(gpu["index"]), gpu["uuid"]} & set(map(str, wanted.gpus)))

    def _fabric(self) -> None:
        manager, version = self.gpu["nvswitch"]["fabric_manager"], self.gpu["driver"]["version"]
        failed = [gpu for gpu in self.gpu["gpus"] if gpu["fabric"]["state"] not in ("", "Completed", "N/A")]
        if self.gpu["nvswitch"]["present"]:
            lacks = ", without which CUDA does not start"
            if not manager["installed"]:
                self._add(
                    "fabric_manager",
                    ERROR,
                    "the host has NVSwitches and no Fabric Manager" + lacks,
                    "install nvidia-fabricmanager %s, the version of the driver, and start it" % version,
                )
                return
            if manager["version"] and version and manager["version"] != version:
                self._add(
                    "fabric_manager",
                    ERROR,
                    "the Fabric Manager is %s and the NVIDIA driver %s, with which it does not work"
                    % (manager["version"], version),
                    "install the same version of both",
                )
                return
            if manager["active"] is False:
                self._add(
                    "fabric_manager",
                    ERROR,
                    "the Fabric Manager does not run" + lacks,
                    "start it (systemctl enable --now nvidia-fabricmanager)",
                )
                return
        if failed:
            state = failed[0]["fabric"]
            self._add(
                "fabric_manager",
                ERROR,
                "the NVLink fabric of %s is %s%s"
                % (_gpu_names(failed), state["state"], " (%s)" % state["status"] if state["status"] else ""),
                "wait until it is Completed, or look at the log of nvidia-fabricmanager",
            )

    def _toolkit(self) -> None:
        toolkit = self.gpu["toolkit"]
        if not (toolkit["version"] or toolkit["hook"] or toolkit["runtime"]) and not self.settings["manage_toolkit"]:
            self._add(
                "container_toolkit",
                ERROR,
                "it has no NVIDIA Container Toolkit, without which no container gets a GPU",
                "install it, or set vllm_manage_toolkit to true",
            )
        if toolkit["no_cgroups"] and not self.docker["rootless"]:
            self._add(
                "no_cgroups",
                ERROR,
                "no-cgroups is true in /etc/nvidia-container-runtime/config.toml, with which containers may not use "
                "the GPUs that they see",
                "set it to false; it is for Docker without root",
            )
        if self.gpu["cdi"]["missing"]:
            self._add(
                "cdi_stale",
                WARNING,
                "the CDI devices lack %s" % ", ".join(self.gpu["cdi"]["missing"]),
                "write them anew (systemctl restart nvidia-cdi-refresh, or nvidia-ctk cdi generate "
                "--output=/var/run/cdi/nvidia.yaml)",
            )

    def _taken(self, wanted: _Wanted, devices: Sequence[dict[str, Any]]) -> None:
        """Compare what is free on each GPU with what vLLM will ask for."""
        if wanted.args.get("kv_cache_memory_bytes"):
            return
        for device in devices[: wanted.world * wanted.replicas]:
            gpu = device["gpu"]
            total, free = gpu["memory"]["total"], gpu["memory"]["free"]
            if device["mig"] or not total:
                # Processes are not told by MIG device.
                continue
            ours = [process for process in gpu["processes"] if self._is_ours(process)]
            if any(process["memory"] is None for process in ours):
                continue
            need = wanted.utilization * total
            usable = free + sum(process["memory"] for process in ours)
            if usable >= need:
                continue
            others = [process for process in gpu["processes"] if process not in ours]
            at_most = math.floor(100 * usable / total) / 100
            remedy = "stop what holds the rest%s" % (" (%s)" % self._holders(others) if others else "")
            self._add(
                "gpu_memory_taken",
                ERROR,
                "GPU %d has %s of %s GiB free and gpu_memory_utilization %g needs %s"
                % (gpu["index"], _gib(usable), _gib(total), wanted.utilization, _gib(need)),
                remedy + (", or set gpu_memory_utilization to %.2f or less" % at_most if at_most > 0 else ""),
                wanted.name,
            )

    def _is_ours(self, process: Mapping[str, Any]) -> bool:
        """Return whether a process is of a deployment of the catalogue, which is replaced or shares on purpose."""
        container = self._container(process["container"])
        ours = {wanted.name for wanted in self.with_gpus}
        return container is not None and self._deployment_of(container) in ours

    def _container(self, wanted_id: str) -> dict[str, Any] | None:
        return next((one for one in self.docker["containers"] if wanted_id and one["id"] == wanted_id), None)

    def _deployment_of(self, container: Mapping[str, Any]) -> str:
        """Return the deployment that a container serves, '' for a stranger's, also if it is of another inventory."""
        labels: dict[str, str] = container["labels"]
        if labels.get("llmops.vllm.home", self.home) != self.home:
            return ""
        return labels.get("llmops.vllm.deployment", "")

    def _holders(self, processes: Iterable[Mapping[str, Any]]) -> str:
        texts = []
        for process in sorted(processes, key=lambda one: -(one["memory"] or 0)):
            container = self._container(process["container"])
            size = " with %s GiB" % _gib(process["memory"]) if process["memory"] is not None else ""
            where = " in the container %s" % container["name"] if container else ""
            texts.append("%s, pid %d%s%s" % (process["name"] or "a process", process["pid"], where, size))
        return "; ".join(texts[:4]) + ("; and %d more" % (len(texts) - 4) if len(texts) > 4 else "")

    # Models

    def _listing(self, model: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what was seen of a model of the catalogue, or None."""
        return next(
            (
                one
                for one in self.seen["models"]
                if one["repo_id"] == model["repo_id"] and one["revision"] == model["revision"]
            ),
            None,
        )

    def _selected(self, model: Mapping[str, Any]) -> tuple[list[HubFile], str | None]:
        """Return ([HubFile] that a snapshot of a model holds, why there are none)."""
        listing = self._listing(model)
        if not listing or not listing["files"]:
            return [], None
        files = [HubFile(path, size, None, "") for path, size in sorted(listing["files"].items())]
        choice = _selection.Choice(model["allow_patterns"], model["ignore_patterns"], model["weights"])
        try:
            return _selection.select(files, choice, model["repo_id"])[0], None
        except SnapshotError as error:
            return [], str(error)

    def _weights_on(self, wanted: _Wanted, devices: Sequence[Mapping[str, Any]]) -> None:
        files, dummy = self._selected(wanted.deployment["model"])
        size = weights_size(files)
        used = devices[: wanted.world]
        if len(used) < wanted.world or wanted.replicas > 1 or not size or not all(device["total"] for device in used):
            return
        offloaded = float(wanted.number("cpu_offload_gb", 0)) * GIB * len(used)
        room = wanted.utilization * sum(device["total"] for device in used) + offloaded
        self._add_weights(
            wanted,
            size,
            room,
            "%g of %s (gpu_memory_utilization) is %s GiB"
            % (wanted.utilization, _count(len(used), "GPU"), _gib(room - offloaded)),
            "give it more GPUs (gpus, tensor_parallel_size), or take a smaller or a quantized model",
        )

    def _weights_in_memory(self) -> None:
        for wanted in self.here:
            total = self.seen["memory"]["total"]
            if wanted.gpus != "none" or not total:
                continue
            size = weights_size(self._selected(wanted.deployment["model"])[0])
            limit = bytes_of(wanted.deployment["memory"])
            room = min(total, limit or total)
            what = "memory is limited to %s GiB" if room < total else "the host has %s GiB of memory"
            remedy = "take a smaller or a quantized model, or %s" % ("raise memory" if room < total else "another host")
            self._add_weights(wanted, size, room, what % _gib(room), remedy)

    def _add_weights(self, wanted: _Wanted, size: int, room: float, what: str, remedy: str) -> None:
        if size <= room:
            return
        quantization = str(wanted.args.get("quantization") or "")
        if quantization and quantization not in _PACKED:
            # It quantizes while it loads: the files do not tell the size in memory.
            return
        packed = quantization or _PACKED_NAME.search(wanted.deployment["model"]["repo_id"])
        # Weights of 32 bits are halved while they are loaded, and their files do not tell so.
        surely = bool(packed) or size / 2 > room
        self._add(
            "weights_too_big",
            ERROR if surely else WARNING,
            "the weights are %s GiB and %s" % (_gib(size), what),
            remedy if surely else remedy + "; if they are float32, they take half of it",
            wanted.name,
        )

    def _hub(self) -> None:
        silent: dict[str, list[str]] = {}
        for wanted in self.here:
            for model in wanted.models:
                listing = self._listing(model)
                if not listing:
                    continue
                if not listing["there"]:
                    if listing["refusal"]:
                        self._refused(wanted, model, listing)
                    elif listing["error"]:
                        silent.setdefault(listing["error"], []).append(model["repo_id"])
                problem = self._selected(model)[1]
                if problem:
                    text, dummy, remedy = problem.rpartition(": ")
                    self._add("model_files", ERROR, text, remedy, wanted.name)
        for error, names in silent.items():
            self._add(
                "hub_unreachable",
                # What answers like that often does so for a moment, and downloads are tried again.
                WARNING if error.startswith("HTTP status") else ERROR,
                "the Hub at %s cannot be asked for %s (%s)"
                % (self.seen["endpoint"], _listed(list(dict.fromkeys(names))), error),
                "let the host reach it, or name a mirror that it reaches as vllm_hub_endpoint",
            )

    def _refused(self, wanted: _Wanted, model: Mapping[str, Any], listing: Mapping[str, Any]) -> None:
        endpoint, repo = self.seen["endpoint"], model["repo_id"]
        refusal = listing["refusal"]
        where = "%s on %s" % (repo, endpoint)
        if refusal == "gated":
            code, text = "model_gated", "%s is gated" % where
            remedy = "accept its terms at %s/%s and set vllm_hub_token to a token of that account" % (endpoint, repo)
        elif refusal == "not_found":
            code, text = "model_not_found", "%s does not exist, or is private" % where
            remedy = "correct repo_id, or set vllm_hub_token to a token that may read it"
        elif refusal == "revision":
            code, text = "model_not_found", "%s has no revision '%s'" % (where, listing["commit"] or model["revision"])
            remedy = "name a branch, a tag or a full commit of it, or resolve it anew with -e vllm_update=true"
        elif refusal == "forbidden":
            code, text = "token_refused", "%s is forbidden" % where
            remedy = "set vllm_hub_token to a token that may read it"
        else:
            code, text = "token_refused", listing["error"] or "the token was refused for %s" % where
            remedy = "correct vllm_hub_token or vllm_hub_token_file"
        self._add(code, ERROR, text, remedy, wanted.name)

    def _registries(self) -> None:
        for registry in self.seen["registries"]:
            if registry["status"] in (200, 401):
                continue
            answer = registry["error"] or "HTTP status %d" % registry["status"]
            docker = self.docker
            # The daemon may have a way that this look does not know.
            other_way = (
                docker["proxies"] or docker["registry_mirrors"] or registry["registry"] in docker["insecure_registries"]
            )
            severity = WARNING if other_way or registry["status"] else ERROR
            self._add(
                "registry_unreachable",
                severity,
                "%s cannot be pulled from %s (%s)" % (_listed(registry["images"]), registry["registry"], answer),
                "let the host reach it, let another host bring the image (vllm_image_builder), or load it from a file "
                "(vllm_image_source: archive)",
            )

    # Disks

    def _disks(self) -> None:
        places = {entry["path"]: entry for entry in self.seen["filesystems"]}
        images, models = places.get(self.docker["image_dir"]), places.get(self.models_dir)
        image_size = self._image_bytes()
        model_size = self._model_bytes() if self.here else 0
        if images and models and images["device"] == models["device"] and image_size and model_size:
            if images["free"] < image_size + model_size:
                code = "disk_image" if image_size > model_size else "disk_snapshot"
                what = "images need %s and snapshots %s of it" % (_gb(image_size), _gb(model_size))
                self._add_disk(code, models, image_size + model_size, what)
        else:
            if images and images["free"] < image_size:
                self._add_disk("disk_image", images, image_size, "images need %s" % _gb(image_size))
            if models and models["free"] < model_size:
                self._add_disk("disk_snapshot", models, model_size, "snapshots need %s" % _gb(model_size))
        for place, size, what in ((images, image_size, "images"), (models, model_size, "snapshots")):
            if place and place["read_only"] and size:
                self._add(
                    "disk_read_only",
                    ERROR,
                    "%s is mounted read-only and %s go to %s" % (place["mount"], what, place["path"]),
                    "mount it for writing (a disk with errors is remounted like that: see dmesg)",
                )
        if models and models["network"] and self.here:
            self._add(
                "disk_network",
                WARNING,
                "%s is on a network file system (%s), from which weights load slowly"
                % (models["path"], models["type"]),
                "use a local disk, or set safetensors_load_strategy to prefetch in engine_args where vLLM has it",
            )

    def _add_disk(self, code: str, place: Mapping[str, Any], needed: int, what: str) -> None:
        self._add(
            code,
            ERROR,
            "%s has %s free and %s" % (place["mount"], _gb(place["free"]), what),
            "free %s there, or use another disk" % _gb(needed - place["free"]),
        )

    def _image_bytes(self) -> int:
        """Return the bytes of the images that are still to come. Builds look at the disk themselves."""
        source, builder = self.settings["image_source"], self.settings["image_builder"]
        if source == "wheels" or (source == "build" and builder in ("", self.name)):
            return 0
        missing = [image for image in self.images if image in self.cuda_images and image not in self.docker["images"]]
        return len(missing) * int(self.settings["image_size"])

    def _model_bytes(self) -> int:
        """Return the bytes of the snapshots that are still to come."""
        needed: dict[tuple[str, str, str], int] = {}
        staged: dict[str, int] = {}
        for wanted in self.here:
            for model in wanted.models:
                listing = self._listing(model)
                if not listing:
                    continue
                for one in self._selected(model)[0]:
                    if one.path not in listing["present"]:
                        needed[model["repo_id"], listing["commit"], one.path] = one.size
                        staged[model["repo_id"]] = listing["staged"]
        sizes: dict[str, int] = {}
        for (repo_id, dummy, dummy_path), size in needed.items():
            sizes[repo_id] = sizes.get(repo_id, 0) + size
        return sum(max(size - staged[repo_id], 0) for repo_id, size in sizes.items())

    # Network of the host

    def _ports(self) -> None:
        for wanted in self.here:
            listen, port = wanted.deployment["addresses"][self.name], wanted.deployment["port"]
            addresses = self.seen["addresses"]
            if addresses and listen != "0.0.0.0" and not listen.startswith("127.") and listen not in addresses:
                self._add(
                    "address_unknown",
                    ERROR,
                    "listen is %s and the host has %s" % (listen, ", ".join(addresses)),
                    "set listen (or, for 'internal', vllm_internal_address) to one of them",
                    wanted.name,
                )
            holder = self.seen["ports"].get(str(port))
            if not holder or self._is_own(wanted, holder):
                continue
            bound = holder["addresses"]
            if listen != "0.0.0.0" and bound and not set(bound) & {listen, *_WILDCARDS}:
                continue
            if holder["container"]:
                who = "the container %s" % holder["container"]
            elif holder["process"]:
                who = "%s (pid %d)" % (holder["process"], holder["pid"])
            else:
                who = "another process"
            self._add(
                "port_taken",
                ERROR,
                "%s holds the port %d" % (who, port),
                "choose another port, or stop what holds it",
                wanted.name,
            )

    def _is_own(self, wanted: _Wanted, holder: Mapping[str, Any]) -> bool:
        """Return whether a port is held by the deployment's own container, or by one that gives it up before."""
        container = next((one for one in self.docker["containers"] if one["name"] == holder["container"]), None)
        if not container:
            return False
        serves = self._deployment_of(container)
        if serves == wanted.name or (
            not container["labels"] and container["name"] == wanted.deployment["container_name"]
        ):
            return True
        # Deployments are started in this order: an earlier one that moves to another port has left this one.
        before = self.here[: self.here.index(wanted)]
        return any(other.name == serves and other.deployment["port"] != wanted.deployment["port"] for other in before)


class _Wanted:
    """A deployment of the catalogue."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.name, self.image, self.gpus = deployment["name"], deployment["image"], deployment["gpus"]
        self.args = {plain(key): value for key, value in deployment["engine_args"].items()}
        self.environment = {key: str(value) for key, value in deployment["environment"].items()}
        self.models = [deployment["model"]] + list(deployment["snapshots"].values())
        self.tensor = int(self.number("tensor_parallel_size", 1))
        self.pipeline = int(self.number("pipeline_parallel_size", 1))
        nodes = max(int(self.number("nnodes", 1)), 1)
        # GPUs that one copy of the model takes of this host, and how many copies there are.
        self.world = math.ceil(self.tensor * self.pipeline / nodes)
        self.replicas = max(int(self.number("data_parallel_size", 1)), 1)
        version = version_of_tag(self.image)
        default = 0.9 if version and version_key(version) < version_key("0.20.0") else 0.92
        self.utilization = float(self.number("gpu_memory_utilization", default))

    def number(self, name: str, default: float) -> float:
        """Return an option as a number; one that is none is the catalogue's to refuse."""
        value = self.args.get(name, default)
        try:
            return float(value)
        except (TypeError, ValueError):
            return default

    @property
    def gpus_text(self) -> str:
        return _listed(list(map(str, self.gpus))) if isinstance(self.gpus, list) else str(self.gpus)


def weights_size(files: Iterable[HubFile]) -> int:
    """Return the bytes of the weights that vLLM loads of these files, 0 where that cannot be told.

    Some repositories have the same weights twice (consolidated.safetensors), or in several sizes (GGUF).
    """
    top = {one.path: one.size for one in files if "/" not in one.path}
    for wanted in (
        lambda name: name.endswith(".safetensors") and name.startswith("model"),
        lambda name: name.endswith(".safetensors") and not name.startswith("consolidated"),
        lambda name: name.endswith(".safetensors"),
        lambda name: name.endswith(".bin") and name.startswith("pytorch_model"),
    ):
        sizes = [size for name, size in top.items() if wanted(name)]
        if sizes:
            return sum(sizes)
    return 0


def bytes_of(text: object) -> int:
    """Return a size as Docker reads it, such as 16g or 1.5GiB, in bytes; 0 for none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", str(text).strip().lower())
    return int(float(match.group(1)) * _UNITS[match.group(2)]) if match else 0


def _gb(size: float) -> str:
    return "%.1f GB" % (size / GB)


def _gib(size: float) -> str:
    return "%.1f" % (size / GIB)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return "%d s" % seconds
    return "%d minutes" % (seconds // 60) if seconds < 7200 else "%d hours" % (seconds // 3600)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + list(words[-1:]))


def _count(number: int, noun: str, verb: str = "") -> str:
    verbs = {"is": ("is", "are"), "": ("", "")}[verb]
    return ("%d %s%s %s" % (number, noun, "s"[: number != 1], verbs[number != 1])).rstrip()


def _distinct(gpus: Iterable[Gpu]) -> list[Gpu]:
    found = []
    for gpu in gpus:
        if gpu not in found:
            found.append(gpu)
    return found


def _gpu_names(gpus: Sequence[Gpu], one: str = "", more: str = "") -> str:
    indices = [str(gpu["index"]) for gpu in gpus]
    return ("GPU %s" % indices[0] + one) if len(indices) == 1 else ("GPUs %s" % _listed(indices) + more)


def _names_of(gpus: Iterable[Gpu]) -> str:
    return _listed(list(dict.fromkeys(gpu["name"] for gpu in gpus))) or "its GPUs"
