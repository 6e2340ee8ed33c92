# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: other_engine_keys
short_description: Backends whose engines a load balancer would ask with another key
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Compares the files with keys of engines that a configuration of HAProxy names with those that it is to name.
positional: files, backends, serving
options:
  _input:
    description: The text of the configuration that is there.
    type: str
    required: true
    version_added: 0.2.0
  files:
    description: What P(llmops.vllm.engine_key_files#filter) returned.
    type: dict
    required: true
    version_added: 0.2.0
  backends:
    description: The backends as they are to be. One that goes takes its key with it.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  serving:
    description: Names of backends whose engines serve.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
# ['chat']
others: "{{ 'backend chat\n    http-request del-header Authorization\n'
            | llmops.vllm.other_engine_keys({'chat': '/etc/haproxy/llmops-vllm/engine-chat-0b080a57bad1d32d.map'},
                                            [{'name': 'chat'}], ['chat']) }}"
"""

RETURN = r"""
_value:
  description: Those of the backends that the configuration has with another key, or with a key on one side alone.
  type: list
  elements: str
  sample: [chat]
"""

import re
from collections.abc import Callable
from typing import Any


def other_engine_keys(
    config: str, files: dict[str, str], backends: list[dict[str, Any]], serving: list[str]
) -> list[str]:
    """Return the names of backends whose key would be another one."""
    found = {}
    for section in re.split(r"^(?=\S)", config, flags=re.MULTILINE):
        if section.startswith("backend "):
            name = section.split()[1]
            file = re.search(r"\S*/engine-%s-[0-9a-f]{16}\.map" % re.escape(name), section)
            found[name] = re.sub(r".*\(", "", file.group()) if file else ""
    names = [backend["name"] for backend in backends]
    return [name for name in names if name in serving and name in found and found[name] != files.get(name, "")]


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"other_engine_keys": other_engine_keys}
