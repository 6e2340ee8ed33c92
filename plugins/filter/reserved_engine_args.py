# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: reserved_engine_args
short_description: Options of vLLM that a deployment has keys of its own for
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - Lists the options that may not be given as engine arguments, since the host, the port, the model, its names,
    the API key and the chat template have keys of their own.
options:
  _input:
    description: The options.
    type: dict
    required: true
    version_added: 0.1.0
"""

EXAMPLES = r"""
# ['port']
reserved: "{{ {'port': 8000, 'max_model_len': 4095} | llmops.vllm.reserved_engine_args }}"
"""

RETURN = r"""
_value:
  description: The options, as they were spelled.
  type: list
  elements: str
  sample: [port]
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_args


def reserved_engine_args(engine_args: dict[str, Any]) -> list[str]:
    """Return the names alone; which key replaces each is the catalogue's to say."""
    return [name for name, dummy in _engine_args.reserved_in(engine_args)]


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"reserved_engine_args": reserved_engine_args}
