"""Tests of what has to stay as it was for a server to have nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.filter.vllm_server_seals import vllm_server_seals

KEY = "sk-Abc123-secret"


def deployment(**other: Any) -> dict[str, Any]:
    return {
        "name": "chat", "hosts": ["gpu1"], "chat_template": "", "tls_certificate": "", "tls_key": "",
        "container_name": "vllm", "image": "image:1", **other,
    }  # fmt: skip


def seals(one: dict[str, Any], host: str = "gpu1", key: str = "") -> list[dict[str, Any]]:
    return vllm_server_seals([one], host, [{"name": "chat", "api_key": key}], "/home/llm/vllm", "/etc/llmops-vllm")


def test_what_is_looked_at() -> None:
    (seal,) = seals(
        deployment(tls_certificate="/etc/ssl/a.crt", tls_key="/etc/ssl/a.key", chat_template="vicuna"), key=KEY
    )
    assert seal["name"] == "vllm_server:chat"
    assert seal["observe"] == {
        "files": [
            "/home/llm/vllm/releases/chat/current",
            "/etc/llmops-vllm/chat/api_key",
            "/home/llm/vllm/chat_templates/chat-*.jinja",
            "/etc/llmops-vllm/chat/tls_certificate",
            "/etc/llmops-vllm/chat/tls_key",
            "/etc/ssl/a.crt",
            "/etc/ssl/a.key",
        ],
        "containers": ["vllm"],
        "images": ["image:1"],
    }  # fmt: skip
    assert KEY not in str(seal)


def test_of_other_hosts_there_is_none() -> None:
    assert seals(deployment(), host="gpu2") == []


@pytest.mark.parametrize(
    "other", [{"engine_args": {"max_model_len": 1}}, {"image": "image:2"}, {"addresses": {"gpu1": "192.0.2.1"}}]
)
def test_another_entry_is_another_seal(other: dict[str, Any]) -> None:
    assert seals(deployment())[0]["inputs"] != seals(deployment(**other))[0]["inputs"]


def test_another_key_is_another_seal() -> None:
    one, other = seals(deployment(), key=KEY)[0]["inputs"], seals(deployment(), key=KEY + "x")[0]["inputs"]
    assert {name for name in one if one[name] != other[name]} == {"its API key"}


def test_a_template_that_is_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("one")
    before = seals(deployment(chat_template=str(path)))[0]["inputs"]
    path.write_text("two")
    after = seals(deployment(chat_template=str(path)))[0]["inputs"]
    assert {name for name in before if before[name] != after[name]} == {"its chat template"}


def test_one_at_a_relative_path_has_no_seal() -> None:
    assert seals(deployment(chat_template="templates/mine.jinja")) == []


def test_one_that_cannot_be_read_is_told_from_one_that_can(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    missing = seals(deployment(chat_template=str(path)))[0]["inputs"]["its chat template"]
    assert "No such file or directory" in missing
    path.write_bytes(b"\xff")
    assert "can't decode byte" in seals(deployment(chat_template=str(path)))[0]["inputs"]["its chat template"]
