# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_server_seals
short_description: What has to stay as it was, for a deployment of a host to have nothing to do
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Tells M(llmops.vllm.vllm_seal) and M(llmops.vllm.vllm_due) what a server was made from, and what there is of it on
    the host.
  - A deployment whose chat template is a file at a relative path has no seal, since where that is found depends on who
    looks.
positional: host, catalogue, home, secrets_dir
options:
  _input:
    description: The deployments that M(llmops.vllm.vllm_catalogue) returned.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  host:
    description: Name of the host.
    type: str
    required: true
    version_added: 0.2.0
  catalogue:
    description: C(vllm_deployments), as they were written. Of keys no more than fingerprints go into a seal.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  home:
    description: The host's folder for models and releases.
    type: str
    required: true
    version_added: 0.2.0
  secrets_dir:
    description: The host's folder for keys.
    type: str
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# []
seals: "{{ [] | llmops.vllm.vllm_server_seals('gpu1', [], '/home/llm/vllm', '/etc/llmops-vllm') }}"
"""

RETURN = r"""
_value:
  description: The seals.
  type: list
  elements: dict
  sample:
    - name: vllm_server:chat
      inputs:
        its catalogue entry: {name: chat, hosts: [gpu1], image: "vllm/vllm-openai:v0.32.0"}
        its API key: ""
        its chat template: ""
        the collection: 77d3e8aa...
        the folders: [/home/llm/vllm, /etc/llmops-vllm]
      observe:
        files: [/home/llm/vllm/releases/chat/current]
        containers: [vllm]
        images: ["vllm/vllm-openai:v0.32.0"]
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _release
from ansible_collections.llmops.vllm.plugins.plugin_utils import chat_template, seals
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Deployment


def vllm_server_seals(
    deployments: list[Deployment], host: str, catalogue: list[dict[str, Any]], home: str, secrets_dir: str
) -> list[dict[str, Any]]:
    """Return the seals of the deployments of a host."""
    keys = {written["name"]: written.get("api_key") or "" for written in catalogue}
    return [
        _seal(deployment, keys[deployment["name"]], home, secrets_dir)
        for deployment in deployments
        if host in deployment["hosts"] and _is_known(deployment["chat_template"])
    ]


def _is_known(template: str) -> bool:
    return not template or not chat_template.is_path(template) or template.startswith("/")


def _seal(deployment: Deployment, key: str, home: str, secrets_dir: str) -> dict[str, Any]:
    name = deployment["name"]
    folder = "%s/%s" % (secrets_dir, name)
    inputs = {
        "its catalogue entry": deployment,
        "its API key": _release.secret_fingerprint(key, name),
        "its chat template": _template(deployment["chat_template"]),
        "the collection": seals.collection_fingerprint(),
        "the folders": [home, secrets_dir],
    }
    files = ["%s/releases/%s/current" % (home, name)]
    if key:
        files.append(folder + "/api_key")
    if deployment["chat_template"]:
        files.append("%s/chat_templates/%s-*.jinja" % (home, name))
    if deployment["tls_certificate"]:
        files += [
            folder + "/tls_certificate",
            folder + "/tls_key",
            deployment["tls_certificate"],
            deployment["tls_key"],
        ]
    observe = {"files": files, "containers": [deployment["container_name"]], "images": [deployment["image"]]}
    return {"name": "vllm_server:" + name, "inputs": inputs, "observe": observe}


def _template(template: str) -> str:
    """Return the text of a chat template."""
    if not template or chat_template.is_text(template):
        return template
    path = template if chat_template.is_path(template) else chat_template.shipped_path(template)
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeError) as error:
        # The role has better words for it.
        return str(error)


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"vllm_server_seals": vllm_server_seals}
