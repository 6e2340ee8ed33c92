from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.filter.engine_key_files import engine_key_files
from ansible_collections.llmops.vllm.plugins.filter.other_engine_keys import other_engine_keys

FOLDER = "/etc/haproxy/llmops-vllm"


def backends(**keys: str) -> list[dict[str, Any]]:
    return [{"name": name, "api_key": key} for name, key in keys.items()]


def config(**keys: str) -> str:
    """What the role writes, as far as it matters."""
    files = engine_key_files(backends(**keys), FOLDER)
    header = '    http-request set-header Authorization "Bearer %[be_name,map_str({})]"\n'
    sections = [
        f"\nbackend {name}\n    balance leastconn\n"
        + (header.replace("{}", files[name]) if name in files else "    http-request del-header Authorization\n")
        for name in keys
    ]
    return "global\n    maxconn 1\n" + "".join(sections) + "\nfrontend statistics\n    no log\n"


def judged(before: dict[str, str], now: dict[str, str], serving: list[str]) -> list[str]:
    wanted = backends(**now)
    return other_engine_keys(config(**before), engine_key_files(wanted, FOLDER), wanted, serving)


def test_a_file_is_named_by_its_backend_and_key_and_gives_the_key_away_to_nobody() -> None:
    files = engine_key_files([*backends(chat="sk-1", free=""), {"name": "none"}], FOLDER)
    assert list(files) == ["chat"]
    assert files["chat"].startswith(f"{FOLDER}/engine-chat-")
    assert "sk-1" not in files["chat"]
    assert files != engine_key_files(backends(chat="sk-2"), FOLDER)
    assert files == engine_key_files(backends(chat="sk-1"), FOLDER)


def test_the_same_key_has_another_name_for_another_backend() -> None:
    one, two = engine_key_files(backends(a="sk-1", b="sk-1"), FOLDER).values()
    assert one.rsplit("-", 1)[1] != two.rsplit("-", 1)[1]


@pytest.mark.parametrize(
    ("before", "now", "others"),
    [
        pytest.param({"chat": "sk-1"}, {"chat": "sk-1"}, [], id="the same"),
        pytest.param({"chat": "sk-1"}, {"chat": "sk-2"}, ["chat"], id="another"),
        pytest.param({"chat": ""}, {"chat": "sk-2"}, ["chat"], id="one where there was none"),
        pytest.param({"chat": "sk-1"}, {"chat": ""}, ["chat"], id="none where there was one"),
        pytest.param({"chat": ""}, {"chat": ""}, [], id="none and none"),
        pytest.param({}, {"chat": "sk-1"}, [], id="a new backend"),
        pytest.param({"chat": "sk-1", "old": "sk-2"}, {"chat": "sk-1"}, [], id="a backend that goes"),
        pytest.param(
            {"chat": "sk-1", "chat-big": "sk-2"},
            {"chat": "sk-1", "chat-big": "sk-3"},
            ["chat-big"],
            id="a name that begins like another",
        ),
        pytest.param(
            {"chat-big": "sk-2", "chat": ""}, {"chat": "sk-1", "chat-big": "sk-2"}, ["chat"], id="in any order"
        ),
    ],
)
def test_other_keys(before: dict[str, str], now: dict[str, str], others: list[str]) -> None:
    assert judged(before, now, [*before, *now]) == others


def test_backends_that_do_not_serve_are_not_looked_at() -> None:
    assert judged({"chat": "sk-1"}, {"chat": "sk-2"}, []) == []


def test_no_configuration() -> None:
    now = backends(chat="sk-2")
    assert other_engine_keys("", engine_key_files(now, FOLDER), now, ["chat"]) == []
