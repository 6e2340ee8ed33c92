"""The snapshots are what the Hub has, and only that; the account and the environment are as promised."""

import json
import shlex

import pytest

HOME = "/home/llm/vllm"
SOURCES = "/srv/hub/llmops"
# Files of each repository that its patterns let through.
REPOSITORIES = {
    "tiny": [
        "README.md",
        "config.json",
        "docs/a [b] 100%.txt",
        "docs/empty.txt",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ],
    "doubled": [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ],
}


def lines(host, command, *args):
    return sorted(host.check_output(command, *args).splitlines())


def snapshots(host, name):
    """The folder of the repository, and all that lies in it."""
    folder = f"{HOME}/model/llmops--{name}"
    return folder, lines(host, "ls -A %s", folder)


@pytest.fixture(params=sorted(REPOSITORIES))
def name(request):
    return request.param


@pytest.fixture
def snapshot(host, name):
    folder, content = snapshots(host, name)
    assert len(content) == 1, content
    return f"{folder}/{content[0]}"


def test_folder_is_the_commit_that_the_hub_names(host, name, snapshot):
    branch = host.check_output("curl --silent --fail http://127.0.0.1:8765/api/models/llmops/%s", name)
    assert snapshot.rsplit("/", 1)[1] == json.loads(branch)["sha"]


def test_content_is_that_of_the_hub(host, name, snapshot):
    files = " ".join(shlex.quote(file) for file in REPOSITORIES[name])
    sums = host.check_output(f"cd {SOURCES}/{name} && sha256sum {files}")
    assert host.check_output(f"cd {snapshot} && sha256sum {files}") == sums


def test_nothing_else_is_there(host, name, snapshot):
    found = lines(host, "find %s -type f -printf '%%P\\n'", snapshot)
    assert found == sorted([".snapshot.json", *REPOSITORIES[name]])


def test_everybody_may_read_and_only_root_write(host, snapshot):
    assert host.check_output("find %s -type f -not -perm 0644", snapshot) == ""
    assert host.check_output("find %s -type d -not -perm 0755", snapshot) == ""
    assert host.check_output("find %s -not -user root", snapshot) == ""


def test_manifest_says_what_was_verified(host, name, snapshot):
    manifest = json.loads(host.file(f"{snapshot}/.snapshot.json").content_string)
    assert manifest["repo_id"] == f"llmops/{name}"
    assert manifest["commit"] == snapshot.rsplit("/", 1)[1]
    assert manifest["endpoint"] == "http://127.0.0.1:8765"
    assert manifest["verified"] == "sha256"
    assert {file["path"]: file["size"] for file in manifest["files"]} == {
        path: host.file(f"{SOURCES}/{name}/{path}").size for path in REPOSITORIES[name]
    }
    weights = next(file for file in manifest["files"] if file["path"] == "model.safetensors")
    assert weights["sha256"] == host.file(f"{SOURCES}/{name}/model.safetensors").sha256sum


def test_no_cache_of_the_client_is_left(host):
    assert not host.file("/root/.cache/huggingface").exists


def test_account_cannot_log_in(host):
    account = host.user("llm")
    assert account.shell == "/usr/sbin/nologin"
    assert account.home == "/home/llm"
    assert account.uid < 1000
    assert host.file(HOME).user == "llm"


def test_environment_has_the_pinned_packages(host):
    frozen = host.check_output("/opt/llmops-vllm/bin/python -m pip freeze").splitlines()
    assert {"docker==7.2.0", "huggingface_hub==2.4.0", "requests==2.34.2"} <= set(frozen)
