#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_host_info
short_description: Looks at a host before anything is brought to it
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Tells what system a host runs, its memory, file systems, ports, clock, Docker, GPUs, and which addresses and
    repositories on the Hub it reaches, in one look of a few seconds. M(llmops.vllm.vllm_preflight) says what it means.
  - Needs nothing but Python 3.9 on the host.
  - What could not be told is an answer and no error.
attributes:
  action_group:
    support: full
    description: Use C(group/llmops.vllm.hub) in C(module_defaults).
    membership: [llmops.vllm.hub]
    version_added: 0.2.0
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
options:
  paths:
    description: Paths whose file systems are looked at, besides O(models_dir) and those of Docker. They need not exist.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  ports:
    description: TCP ports of which it is told who listens on them.
    type: list
    elements: int
    default: []
    version_added: 0.2.0
  images:
    description: Names of images of which it is told whether they are there, and which driver they need.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  pull:
    description: Ask the registries of those O(images) that are not there whether they answer.
    type: bool
    default: false
    version_added: 0.2.0
  urls:
    description: Addresses that are asked. Redirects are followed.
    type: list
    elements: dict
    default: []
    version_added: 0.2.0
    suboptions:
      name:
        description: A name to tell it by.
        type: str
        required: true
        version_added: 0.2.0
      url:
        description: The address. A user and a password in it are left out.
        type: str
        required: true
        version_added: 0.2.0
  models:
    description:
      - Models, as C(vllm_catalogue) has them. Each has C(repo_id), C(revision) and, where they are known, C(commit) and
        C(folder).
      - Of one whose snapshot is in O(models_dir) its manifest is read; the Hub is asked for the others.
    type: list
    elements: dict
    default: []
    version_added: 0.2.0
  models_dir:
    description: Folder of the snapshots.
    type: path
    default: /home/llm/vllm/model
    version_added: 0.2.0
  endpoint:
    description: The Hub, or a mirror of it.
    type: str
    default: https://huggingface.co
    version_added: 0.2.0
  token:
    description: Token for the Hub. It goes to the host of O(endpoint) alone.
    type: str
    version_added: 0.2.0
  token_file:
    description: A file on the host that holds the token, instead.
    type: path
    version_added: 0.2.0
  gpu:
    description: Look at the GPUs as well, with M(llmops.vllm.gpu_info).
    type: bool
    default: true
    version_added: 0.2.0
  seals_file:
    description: The file of the seals that M(llmops.vllm.vllm_seal) has written.
    type: path
    default: /var/lib/llmops-vllm/seals.json
    version_added: 0.2.0
  timeout:
    description: Seconds that an address, and Docker, may take to answer. All are asked at the same time.
    type: int
    default: 10
    version_added: 0.2.0
seealso:
  - module: llmops.vllm.vllm_preflight
  - module: llmops.vllm.gpu_info
"""

EXAMPLES = r"""
- name: Look at the host
  llmops.vllm.vllm_host_info:
    ports: [30080]
    images: [vllm/vllm-openai:v0.32.0]
    pull: true
    models:
      - repo_id: masao1211/karakuri-lm-70b-chat-v0.1-AWQ
        revision: main
  register: seen
"""

RETURN = r"""
system:
  description: Operating system, kernel and service manager. C(service_manager) is empty where none is known.
  returned: always
  type: dict
  sample:
    platform: Linux
    id: debian
    id_like: []
    version_id: "12"
    name: Debian GNU/Linux 12 (bookworm)
    kernel: 6.1.0-18-amd64
    architecture: x86_64
    service_manager: systemd
    python: 3.11.2
memory:
  description: Bytes of memory.
  returned: always
  type: dict
  sample: {total: 270582939648, available: 262144000000}
shm:
  description: Bytes of the host's own C(/dev/shm); each container has another one.
  returned: always
  type: dict
  sample: {total: 135291469824, free: 135291469824}
time:
  description: The host's clock, in seconds since 1970.
  returned: always
  type: float
  sample: 1767225600.5
clock_offset:
  description: Seconds that the host's clock is ahead of the controller's, 0 where the way there explains them.
  returned: always
  type: float
  sample: 0.0
cpus:
  description: How many CPUs there are.
  returned: always
  type: int
  sample: 64
addresses:
  description: IPv4 addresses of the host.
  returned: always
  type: list
  elements: str
  sample: [127.0.0.1, 192.0.2.11]
models_dir:
  description: As it was given.
  returned: always
  type: str
  sample: /home/llm/vllm/model
endpoint:
  description: As it was given, without a user and a password.
  returned: always
  type: str
  sample: https://huggingface.co
filesystems:
  description:
    - The file system of each path. Two with the same C(device) share what is free. C(network) is true for those that
      are elsewhere.
  returned: always
  type: list
  elements: dict
  sample:
    - path: /var/lib/docker
      exists: true
      mount: /
      device: /dev/sda1
      type: ext4
      total: 527371075584
      free: 412316860416
      read_only: false
      network: false
ports:
  description: Who listens on those of O(ports) that are taken, by the port as text.
  returned: always
  type: dict
  sample:
    "30080": {addresses: [127.0.0.1], pid: 4711, process: docker-proxy, container: vllm}
docker:
  description:
    - Docker, as its API tells it. C(image_dir) is where images are kept. C(images) has those of O(images) that are
      there, C(containers) those that run.
    - C(deployments) has the containers of deployments, those that do not run as well.
  returned: always
  type: dict
  sample:
    installed: true
    answers: true
    error: ""
    version: 29.1.3
    api_version: "1.52"
    storage_driver: overlay2
    root_dir: /var/lib/docker
    image_dir: /var/lib/docker
    live_restore: false
    cgroup_driver: systemd
    runtimes: [io.containerd.runc.v2, nvidia, runc]
    default_runtime: runc
    cdi_spec_dirs: [/etc/cdi, /var/run/cdi]
    registry_mirrors: []
    insecure_registries: []
    proxies: false
    security_options: ["name=seccomp,profile=builtin"]
    rootless: false
    images:
      vllm/vllm-openai:v0.32.0:
        id: sha256:4f1c...
        size: 20312345678
        environment: {CUDA_VERSION: 13.0.3, NVIDIA_REQUIRE_CUDA: "cuda>=13.0"}
    containers:
      - id: 3f1d...
        name: vllm
        labels: {llmops.vllm.deployment: karakuri-70b}
        ports: [{address: 127.0.0.1, port: 30080}]
    deployments:
      - id: 3f1d...
        name: vllm
        image: sha256:4f1c...
        running: true
        started_at: "2026-01-01T00:00:00Z"
        restart_policy: unless-stopped
        labels: {llmops.vllm.deployment: karakuri-70b, llmops.vllm.release: 0a1b2c3d4e5f}
seals:
  description:
    - The seals of the host by their names. C(inputs) has a hash of each thing that went into one, C(changed) names
      what is not as it was when it was sealed, or cannot be told now.
  returned: always
  type: dict
  sample:
    docker_engine:
      inputs: {docker_engine_version: 0d3c...}
      changed: [/etc/docker/daemon.json]
      notes: {}
urls:
  description: What each of O(urls) answered. C(status) is 0 where nothing did, and C(error) says why.
  returned: always
  type: list
  elements: dict
  sample:
    - name: mirror
      url: https://mirror.example.com/
      status: 0
      seconds: 0.02
      error: the name mirror.example.com cannot be resolved
registries:
  description: With O(pull), what the registries of missing images answered, with the names of these.
  returned: always
  type: list
  elements: dict
  sample:
    - registry: registry-1.docker.io
      url: https://registry-1.docker.io/v2/
      status: 401
      seconds: 0.31
      error: ""
      images: ["vllm/vllm-openai:v0.32.0"]
models:
  description:
    - Each of O(models). C(there) tells whether its snapshot is on the host, C(files) all files of the commit with their
      sizes, C(present) those of them whose content the host has, C(staged) the bytes of a download that was broken off.
    - C(refusal) is V(gated), V(not_found), V(revision), V(token) or V(forbidden) where the Hub has refused.
  returned: always
  type: list
  elements: dict
  sample:
    - repo_id: masao1211/karakuri-lm-70b-chat-v0.1-AWQ
      revision: main
      there: false
      status: 200
      error: ""
      refusal: ""
      commit: 1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
      files: {config.json: 812, model.safetensors: 36600000000}
      present: []
      staged: 0
gpu:
  description: What M(llmops.vllm.gpu_info) returns; null where O(gpu) is false.
  returned: always
  type: dict
  sample: {driver: {version: 570.86.15, cuda: "12.8"}, gpus: [], problems: []}
"""

import os
import platform
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.llmops.vllm.plugins.module_utils import _host, _image, _observed, _reach, _seals, _snapshot

# By its own name, which its images leave out.
DOCKERS_REGISTRY = "registry-1.docker.io"
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+)(:\d+)?")


class HostInfo:
    """Looks at this host."""

    root = "/"
    docker_socket = "/var/run/docker.sock"

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.timeout = params["timeout"]
        self.models_dir = params["models_dir"]
        self.host = _host.Host(self.root)

    def run(self) -> dict[str, Any]:
        """Return the result."""
        params = self.params
        daemon = _host.Docker(self.host, self.docker_socket, self.timeout)
        docker = daemon.look(params["images"])
        ports = set(params["ports"])
        paths = dict.fromkeys([docker["root_dir"], docker["image_dir"], self.models_dir] + params["paths"])
        return {
            "changed": False,
            "system": dict(self.host.system(), python=platform.python_version()),
            "memory": self.host.memory(),
            "shm": self.host.shm(),
            "cpus": os.cpu_count() or 0,
            "addresses": self.host.addresses(),
            "models_dir": self.models_dir,
            "endpoint": _reach.without_credentials(params["endpoint"]),
            "filesystems": [self.host.filesystem(path) for path in paths],
            "ports": _host.holders(self.host.listeners(ports), docker["containers"], ports),
            "docker": docker,
            "seals": _seals.look(self.host.path(params["seals_file"]), _observed.Observer(self.root, daemon.get)),
            **self._reached(docker),
            # Last, so that as little as can be comes between it and the controller's clock.
            "time": _host.now(),
        }

    def _reached(self, docker: dict[str, Any]) -> dict[str, Any]:
        """Return what the network answers, all of it asked at the same time."""
        token, token_problem = self._token()
        registries = self._registries(docker) if self.params["pull"] else []
        models = [self._model(model) for model in self.params["models"]]
        wanted = [model for model in models if not model["there"]] if not token_problem else []
        pages = [dict(url=entry["url"], name=entry["name"]) for entry in self.params["urls"]] + registries
        asked = [lambda page=page: _reach.look(page["url"], self.timeout, self._authority(page)) for page in pages]
        asked += [
            lambda model=model: _reach.listing(
                self.params["endpoint"], model["repo_id"], model["commit"] or model["revision"], token, self.timeout
            )
            for model in wanted
        ]
        # A second more than each request has: what still runs then waits for a name to be resolved.
        answers = _reach.together(asked, self.timeout + 1)
        for number, page in enumerate(pages):
            page.update(answers[number] or _reach.late(page["url"], self.timeout))
        for number, model in enumerate(wanted, len(pages)):
            self._add_listing(model, answers[number])
        for model in models:
            if token_problem and not model["there"]:
                model.update(refusal="token", error=token_problem)
            # Enough to tell files apart, and of no use to others.
            model["files"] = {path: size for path, (size, dummy) in model["files"].items()}
        return {"urls": pages[: len(self.params["urls"])], "registries": registries, "models": models}

    def _token(self) -> tuple[str, str]:
        """Return (the token or '', why there is none though there should be)."""
        token, path = self.params["token"] or "", self.params["token_file"]
        if path and not token:
            try:
                with open(self.host.path(path), encoding="utf-8") as stream:
                    token = stream.read().strip()
            except (OSError, ValueError) as error:
                return "", "token_file %s cannot be read (%s)" % (path, getattr(error, "strerror", None) or "no text")
            if not token:
                return "", "token_file %s is empty" % path
        if token and not re.match(r"[!-~]+\Z", token):
            return "", "the token has a space, a line break or a character that is not ASCII"
        return token, ""

    def _registries(self, docker: dict[str, Any]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name in self.params["images"]:
            if docker["answers"] and name in docker["images"]:
                continue
            registry = _image.registry_of(name) or DOCKERS_REGISTRY
            if registry in ("docker.io", "index.docker.io"):
                registry = DOCKERS_REGISTRY
            scheme = "http" if _LOOPBACK.fullmatch(registry) else "https"
            empty = {"registry": registry, "url": "%s://%s/v2/" % (scheme, registry), "images": []}
            found.setdefault(registry, empty)["images"].append(name)
        return list(found.values())

    def _authority(self, page: dict[str, Any]) -> str:
        """Return the file with certificates that Docker trusts for a registry, or ''."""
        path = self.host.path("etc/docker/certs.d/%s/ca.crt" % page["registry"]) if "registry" in page else ""
        return path if os.path.isfile(path) else ""

    def _model(self, model: dict[str, Any]) -> dict[str, Any]:
        """Return what the host's own disk tells of a model."""
        folder = model.get("folder") or ""
        found = {
            "repo_id": model["repo_id"],
            "revision": model.get("revision") or "main",
            "commit": model.get("commit") or "",
            "folder": folder,
            "there": False,
            "status": 0,
            "error": "",
            "refusal": "",
            "files": {},
            "present": [],
            "staged": 0,
        }
        manifest = _snapshot.read_manifest(self.host.path(os.path.join(self.models_dir, folder))) if folder else None
        if manifest:
            listed = manifest["files"] + manifest["left_out"]
            found["there"] = True
            found["files"] = {entry.path: [entry.size, _snapshot.content_id(entry)] for entry in listed}
            found["present"] = sorted(entry.path for entry in manifest["files"])
        return found

    def _add_listing(self, model: dict[str, Any], answer: dict[str, Any] | None) -> None:
        if answer is None:
            model["error"] = "no answer within %d s" % self.timeout
            return
        model.update({key: answer[key] for key in ("status", "error", "refusal", "files")})
        model["commit"] = answer["commit"] or model["commit"]
        # Snapshots of the same repository share what has not changed, and a download goes on where it was broken off.
        dest = self.host.path(os.path.join(self.models_dir, model["repo_id"].replace("/", "--")))
        look = _snapshot.Look(dest)
        manifests = filter(None, map(look.manifest, look.commits))
        here = {_snapshot.content_id(entry) for manifest in manifests for entry in manifest["files"]}
        model["present"] = sorted(path for path, (dummy, content) in model["files"].items() if content in here)
        model["staged"] = _host.folder_size(os.path.join(dest, _snapshot.STAGING))


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            paths=dict(type="list", elements="str", default=[]),
            ports=dict(type="list", elements="int", default=[]),
            images=dict(type="list", elements="str", default=[]),
            pull=dict(type="bool", default=False),
            urls=dict(
                type="list",
                elements="dict",
                default=[],
                options=dict(name=dict(type="str", required=True), url=dict(type="str", required=True)),
            ),
            models=dict(type="list", elements="dict", default=[]),
            models_dir=dict(type="path", default="/home/llm/vllm/model"),
            endpoint=dict(type="str", default="https://huggingface.co"),
            token=dict(type="str", no_log=True),
            token_file=dict(type="path", no_log=False),
            gpu=dict(type="bool", default=True),
            seals_file=dict(type="path", default=_seals.PATH),
            timeout=dict(type="int", default=10),
        ),
        mutually_exclusive=[("token", "token_file")],
        supports_check_mode=True,
    )
    if any(not model.get("repo_id") for model in module.params["models"]):
        module.fail_json(msg="one of models has no repo_id: add it")
    module.exit_json(**HostInfo(module.params).run())


if __name__ == "__main__":
    main()
