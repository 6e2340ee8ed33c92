"""Tests of chat templates: found, and checked before they are used."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader

from ansible_collections.llmops.vllm.plugins.lookup.chat_template import LookupModule
from ansible_collections.llmops.vllm.plugins.plugin_utils import chat_template

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def found(term: str) -> str:
    return LookupModule(loader=DataLoader()).run([term], variables={})[0]


@pytest.mark.parametrize("path", sorted(Path(chat_template.SHIPPED).glob("*.jinja")), ids=lambda path: path.stem)
def test_every_shipped_template_renders(path: Path) -> None:
    assert found(path.stem) == path.read_text()


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(CHATML)
    assert found(str(tmp_path / "mine.jinja")) == CHATML


@pytest.mark.parametrize(
    "text",
    [
        CHATML,
        # No system role.
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m.content }}{% endfor %}",
        # One that also sees pictures.
        "{% for m in messages %}{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}"
        "{% endfor %}{% endfor %}",
        # What transformers knows and plain Jinja does not.
        "{% for m in messages %}{% generation %}{{ m | tojson(indent=2) }}{% endgeneration %}"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ strftime_now('%Y') }}",
    ],
)
def test_a_text(text: str) -> None:
    assert found(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "{% for m in messages %}{{ m.content }}",
            "the text of chat_template is no chat template: line 1: Unexpected end",
        ),
        ("{{ messages | no_such_filter }}", "is no chat template: line 1: No filter named 'no_such_filter'"),
        ("{{ message }}", "what the user says is not in what it renders"),
        ("{{ raise_exception('not today') }}", "cannot render a conversation of user and assistant: not today"),
        ("{{ messages[0]['content'] + 1 }}", "cannot render a conversation of user and assistant: "),
        ("{{ messages.__class__.__mro__ }}", "cannot render a conversation of user and assistant: "),
    ],
)
def test_a_text_that_is_wrong(text: str, why: str) -> None:
    with pytest.raises(AnsibleLookupError) as caught:
        found(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("term", "why"),
    [
        ("vicunia", "no chat template 'vicunia' is shipped: did you mean 'vicuna'?"),
        ("zzz", "no chat template 'zzz' is shipped: take vicuna, or name a file by its path"),
        ("/no/such.jinja", "there is no chat template /no/such.jinja on the controller: correct the path"),
    ],
)
def test_a_template_that_is_not_there(term: str, why: str) -> None:
    with pytest.raises(AnsibleLookupError) as caught:
        found(term)
    assert str(caught.value).startswith(why)
