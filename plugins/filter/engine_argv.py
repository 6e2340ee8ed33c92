# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: engine_argv
short_description: Options of vLLM as a command line
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - Renders options that are spelled with underscores as the arguments that a release of vLLM takes, or fails with every
    problem at once. No host and no image are asked, a table of the releases 0.4.2 to 0.33.0 is.
  - V(true) and V(false) switch an option on and off, V(null) leaves it out; a list gives several values, a dictionary
    one JSON document. Options that are gone are replaced where there is only one way to do so.
options:
  _input:
    description: The options.
    type: dict
    required: true
    version_added: 0.1.0
  version:
    description: The release of vLLM.
    type: str
    required: true
    version_added: 0.2.0
positional: version
seealso:
  - module: llmops.vllm.vllm_engine_args
"""

EXAMPLES = r"""
# ['--max-model-len', '4095', '--enforce-eager', '--distributed-executor-backend', 'ray']
argv: "{{ {'max_model_len': 4095, 'enforce_eager': true, 'worker_use_ray': true} | llmops.vllm.engine_argv('0.32.0') }}"
"""

RETURN = r"""
_value:
  description: The arguments.
  type: list
  elements: str
  sample: [--max-model-len, "4095", --enforce-eager, --distributed-executor-backend, ray]
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_args


def engine_argv(engine_args: dict[str, Any], version: str) -> list[str]:
    """Return the arguments, with an error that Ansible shows as one sentence."""
    try:
        return _engine_args.render(engine_args, _engine_args.schema_of_version(version)).argv
    except (_engine_args.EngineArgsError, ValueError) as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"engine_argv": engine_argv}
