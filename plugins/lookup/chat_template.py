# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: chat_template
short_description: Text of a chat template, checked
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Returns the text of a chat template after it has rendered a conversation of system, user and assistant, or of user
    and assistant where the template has no system role. One that cannot is an error, before any server is stopped.
options:
  _terms:
    description:
      - Name of a shipped template (V(vicuna)), path of a file on the controller, or the text itself. What has a brace
        in it is text, what has a slash or a dot in it is a path.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
- name: Look at the template of Vicuna
  ansible.builtin.debug:
    msg: "{{ lookup('llmops.vllm.chat_template', 'vicuna') }}"
"""

RETURN = r"""
_raw:
  description: The text of each template.
  type: list
  elements: str
  sample: ["{% for message in messages %}{{ message.content }}{% endfor %}"]
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.llmops.vllm.plugins.plugin_utils import chat_template


class LookupModule(LookupBase):
    """Finds chat templates and checks them."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        try:
            return [self._text(str(term), variables) for term in terms]
        except chat_template.TemplateError as error:
            raise AnsibleLookupError(str(error)) from None

    def _text(self, term: str, variables: dict[str, Any] | None) -> str:
        if chat_template.is_text(term):
            chat_template.check(term, "the text of chat_template")
            return term
        if chat_template.is_path(term):
            path = self.find_file_in_search_path(variables, "files", term, ignore_missing=True)
            if not path:
                raise chat_template.TemplateError(
                    "there is no chat template %s on the controller: correct the path" % term
                )
        else:
            path = chat_template.shipped_path(term)
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        chat_template.check(text, "the chat template %s" % term)
        return text
