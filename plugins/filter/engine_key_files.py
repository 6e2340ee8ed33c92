# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: engine_key_files
short_description: Files of a load balancer with the keys of engines
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - A file is named by the key that is in it. So the files in use stay as they are while a new configuration is tried,
    and the configuration tells by itself whether a key is another one.
positional: folder
options:
  _input:
    description: What O(llmops.vllm.load_balancer#role:main:load_balancer_backends) takes.
    type: list
    elements: dict
    required: true
  folder:
    description: Folder of the files.
    type: str
    required: true
"""

EXAMPLES = r"""
# {'chat': '/etc/haproxy/llmops-vllm/engine-chat-0b080a57bad1d32d.map'}
files: "{{ [{'name': 'chat', 'api_key': 'sk-of-engines'}, {'name': 'free'}]
           | llmops.vllm.engine_key_files('/etc/haproxy/llmops-vllm') }}"
"""

RETURN = r"""
_value:
  description: The path of its file for the name of each backend that has a key.
  type: dict
"""

from ansible_collections.llmops.vllm.plugins.module_utils import _release


def engine_key_files(backends, folder):
    """Return {name of a backend: path}."""
    return {
        backend["name"]: "%s/engine-%s-%s.map"
        % (folder, backend["name"], _release.secret_fingerprint(str(backend["api_key"]), backend["name"]))
        for backend in backends
        if backend.get("api_key")
    }


class FilterModule:
    """Filter of the same name."""

    def filters(self):
        """Return the filter by its name."""
        return {"engine_key_files": engine_key_files}
