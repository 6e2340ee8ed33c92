"""`make audit` finds what is planted, and does not call it a pass when nobody could be asked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from controller import PROJECT, tool


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return tool("audit")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the baseline of this one and no files."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    baseline = json.loads((PROJECT / ".secrets.baseline").read_text())
    (tmp_path / ".secrets.baseline").write_text(json.dumps({**baseline, "results": {}}))
    return tmp_path


# In two halves, or they would be found here.
PLANTED = {
    "a key of AWS": ("key = 'AKIA" + "3XQ7ZL5WJ2MNVB4T'\n", "AWS Access Key"),
    "a private key": ("-----BEGIN OPENSSH " + "PRIVATE KEY-----\n", "Private Key"),
    "a key by its name": ("api_" + "key: 9f0cQx7pLw\n", "Secret Keyword"),
    "a password in a URL": ("url: https://me:" + "Zk3q9@example.com\n", "Basic Auth Credentials"),
    "a token of the Hub": ("token: hf_" + "Qw7" * 12 + "\n", "a token of the Hub"),
}


@pytest.mark.parametrize("text, name", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_secret_is_found(audit: ModuleType, checkout: Path, text: str, name: str) -> None:
    (checkout / "notes.yml").write_text(f"---\n{text}")
    assert f"notes.yml:2: {name}" in audit.secrets(checkout)


def test_a_false_positive_of_the_baseline_passes_and_another_one_does_not(audit: ModuleType, checkout: Path) -> None:
    (checkout / "notes.yml").write_text("api_" + "key: of-a-test\n")
    command = [audit.tool("detect-secrets"), "scan", "--baseline", ".secrets.baseline"]
    subprocess.run(["git", "add", "--all"], cwd=checkout, check=True)
    subprocess.run(command, cwd=checkout, check=True)
    before = (checkout / ".secrets.baseline").read_text()
    (checkout / "notes.yml").write_text("\n\napi_" + "key: of-a-test\n")
    assert audit.secrets(checkout) == []
    (checkout / "notes.yml").write_text("api_" + "key: of-nobody-knows\n")
    assert audit.secrets(checkout) == ["notes.yml:1: Secret Keyword"]
    assert (checkout / ".secrets.baseline").read_text() == before
    assert audit.unaudited(checkout) == [
        "notes.yml:1: in .secrets.baseline, but nobody has said that it is no secret: detect-secrets audit"
    ]


INVENTORIES = {
    "plain key": ("api_key: abc\n", ["inventories/a/all.yml:1: api_key is plain text: keep it with ansible-vault"]),
    "plain number": ("db_password: 1234\n", ["inventories/a/all.yml:1: db_password is plain text"]),
    "deep in a list": ("keys:\n  - name: a\n    key: abc\n", ["inventories/a/all.yml:3: key is plain text"]),
    "unencrypted variable": ("vault_key: abc\n", ["inventories/a/all.yml:1: vault_key is not encrypted"]),
    "template": ('api_key: "{{ vault_key }}"\nkey: "{{ lookup(\'ansible.builtin.password\', file) }}"\n', []),
    "encrypted": ("vault_key: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n", []),
    "a path": ("load_balancer_tls_key: /etc/ssl/private/llm.key\nvllm_hub_token_file: ~/token\n", []),
    "empty": ("api_key:\napi_token: ''\n", []),
    "allowed where it is written": ("api_key: abc  # pragma: allowlist secret\n", []),
    "no secret": ("max_num_seqs: 64\nkeyboard: us\n", []),
}


@pytest.mark.parametrize("text, sentences", INVENTORIES.values(), ids=INVENTORIES.keys())
def test_inventories_have_no_plain_secrets(audit: ModuleType, checkout: Path, text: str, sentences: list[str]) -> None:
    (checkout / "inventories/a").mkdir(parents=True)
    (checkout / "inventories/a/all.yml").write_text(text)
    found = audit.inventories(checkout)
    assert len(found) == len(sentences), found
    for line, sentence in zip(found, sentences, strict=True):
        assert line.startswith(sentence)


def test_a_file_of_ansible_vault_is_encrypted(audit: ModuleType, checkout: Path) -> None:
    folder = checkout / "inventories/a/group_vars/all"
    folder.mkdir(parents=True)
    (folder / "vault.yml").write_text("key_of_engines: '{{ other }}'\n")
    assert audit.inventories(checkout) == [
        "inventories/a/group_vars/all/vault.yml: is named like a file of ansible-vault, and is not encrypted"
    ]
    (folder / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    assert audit.inventories(checkout) == []


def test_a_vulnerability_and_a_pin_of_which_nothing_is_known(audit: ModuleType) -> None:
    answers = {
        "dependencies": [
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]},
            {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited"},
        ]
    }
    assert audit.advisories(Path("requirements.txt"), answers) == (
        ["requirements.txt: bad 2: CVE-1, fixed in 3"],
        ["unknown"],
    )


@pytest.mark.parametrize(
    "answer, status, words",
    [
        (([], []), 0, "no advisories"),
        ((["requirements.txt: bad 2: CVE-1, fixed in 3"], []), 1, "audit: requirements.txt: bad 2: CVE-1"),
        (([], ["yaml"]), 3, "NOT LOOKED UP: no advisory service answered for yaml"),
        ((["requirements.txt: bad 2: CVE-1, fixed in 3"], ["yaml"]), 1, "NOT LOOKED UP"),
    ],
)
def test_how_it_ends(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: object,
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr(audit, "secrets", lambda root: [])
    monkeypatch.setattr(audit, "ask_for_advisories", lambda requirements: answer)
    assert audit.main([]) == status
    assert words in capsys.readouterr().out


def test_nothing_is_in_this_checkout(audit: ModuleType) -> None:
    assert audit.unaudited(PROJECT) + audit.inventories(PROJECT) == []
