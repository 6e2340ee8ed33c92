"""What seals are on a host, and that they give nothing away."""

from __future__ import annotations

import json

SEALS = "/var/lib/llmops-vllm/seals.json"


def test_seals_are_roots_alone(host):
    file = host.file(SEALS)
    assert (file.user, file.mode) == ("root", 0o600)


def test_there_is_one_for_each_role(host):
    document = json.loads(host.file(SEALS).content_string)
    roles = {"docker_engine", "nvidia_container_toolkit", "vllm_host", "vllm_image", "model_snapshot"}
    assert roles <= set(document["seals"])


def test_no_secret_is_in_them(host):
    text = host.file(SEALS).content_string
    assert "hf_very_secret" not in text
    assert "sk-very-secret" not in text
