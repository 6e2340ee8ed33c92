# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: engine_argv
short_description: Options of vLLM as a command line
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - Renders options that are spelled with underscores as the arguments of C(vllm serve).
  - V(true) gives C(--name), V(false) C(--no-name), V(null) leaves the option out; a list gives several values,
    a dictionary one JSON document.
options:
  _input:
    description: The options.
    type: dict
    required: true
"""

EXAMPLES = r"""
# ['--quantization', 'awq', '--max-model-len', '4095', '--enforce-eager']
argv: "{{ {'quantization': 'awq', 'max_model_len': 4095, 'enforce_eager': true} | llmops.vllm.engine_argv }}"
"""

RETURN = r"""
_value:
  description: The arguments.
  type: list
  elements: str
"""

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_args


class FilterModule:
    """Filter of the same name."""

    def filters(self):
        """Return the filter by its name."""
        return {"engine_argv": _engine_args.to_argv}
