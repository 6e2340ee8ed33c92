# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

from ansible_collections.llmops.vllm.plugins.plugin_utils.progress import ProgressActionBase


class ActionModule(ProgressActionBase):
    """The module of the same name, with live progress."""
