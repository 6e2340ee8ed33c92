"""The snapshots are what the Hub has, and only that; the account and the environment are as promised."""

import json
import shlex

import pytest

HOME = "/home/llm/vllm"
HUB = "http://127.0.0.1:8765"
SOURCES = "/srv/hub"
TOKEN = "hf_very_secret_token_of_the_test"
MODEL = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
# Files of each repository that its patterns, and the choice of weights, let through; and those that they do not.
REPOSITORIES = {
    "llmops/tiny": (["README.md", "docs/a [b] 100%.txt", "docs/empty.txt", *MODEL], []),
    "llmops/doubled": (MODEL, ["README.md", "original/params.json", "pytorch_model.bin"]),
    "llmops/duplicated": (
        ["README.md", *MODEL],
        ["original/consolidated.00.pth", "original/params.json", "pytorch_model.bin"],
    ),
    "datasets/llmops/tiny": (["train.bin"], []),
}
MANIFEST_KEYS = [
    "commit",
    "completed_at",
    "endpoint",
    "files",
    "left_out",
    "repo_id",
    "repo_type",
    "verified",
    "verified_at",
]


def lines(host, command, *args):
    return sorted(host.check_output(command, *args).splitlines())


@pytest.fixture(params=sorted(REPOSITORIES))
def name(request):
    return request.param


@pytest.fixture
def snapshot(host, name):
    """The one folder of the repository, and nothing beside it."""
    folder = f"{HOME}/model/{name.replace('/', '--')}"
    content = lines(host, "ls -A %s", folder)
    assert len(content) == 1, content
    return f"{folder}/{content[0]}"


def test_folder_is_the_commit_that_the_hub_names(host, name, snapshot):
    address = f"{HUB}/api/{name}" if name.startswith("datasets/") else f"{HUB}/api/models/{name}"
    branch = host.check_output("curl --silent --fail --header %s %s", f"Authorization: Bearer {TOKEN}", address)
    assert snapshot.rsplit("/", 1)[1] == json.loads(branch)["sha"]


def test_content_is_that_of_the_hub(host, name, snapshot):
    files = " ".join(shlex.quote(file) for file in REPOSITORIES[name][0])
    sums = host.check_output(f"cd {SOURCES}/{name} && sha256sum {files}")
    assert host.check_output(f"cd {snapshot} && sha256sum {files}") == sums


def test_nothing_else_is_there(host, name, snapshot):
    found = lines(host, "find %s -type f -printf '%%P\\n'", snapshot)
    assert found == sorted([".snapshot.json", *REPOSITORIES[name][0]])


def test_everybody_may_read_and_only_root_write(host, snapshot):
    assert host.check_output("find %s -type f -not -perm 0644", snapshot) == ""
    assert host.check_output("find %s -type d -not -perm 0755", snapshot) == ""
    assert host.check_output("find %s -not -user root", snapshot) == ""


def test_manifest_says_what_was_verified(host, name, snapshot):
    manifest = json.loads(host.file(f"{snapshot}/.snapshot.json").content_string)
    assert sorted(manifest) == MANIFEST_KEYS
    assert manifest["repo_id"] == name.removeprefix("datasets/")
    assert manifest["repo_type"] == ("dataset" if name.startswith("datasets/") else "model")
    assert manifest["commit"] == snapshot.rsplit("/", 1)[1]
    assert manifest["endpoint"] == HUB
    assert manifest["verified"] == "sha256"
    assert manifest["verified_at"] == manifest["completed_at"]
    sizes = dict(
        line.split("\t") for line in lines(host, "find %s -type f -printf '%%P\\t%%s\\n'", f"{SOURCES}/{name}")
    )
    taken, left_out = REPOSITORIES[name]
    assert {file["path"]: str(file["size"]) for file in manifest["files"]} == {path: sizes[path] for path in taken}
    assert [file["path"] for file in manifest["left_out"]] == left_out
    checksums = {file["path"]: file["sha256"] for file in manifest["files"]}
    if "model.safetensors" in taken:
        assert checksums["model.safetensors"] == host.file(f"{SOURCES}/{name}/model.safetensors").sha256sum


def test_folder_of_all_snapshots_is_open_to_readers(host):
    folder = host.file(f"{HOME}/model")
    assert (folder.mode, folder.is_directory) == (0o755, True)
    names = [name.replace("/", "--") for name in REPOSITORIES]
    assert lines(host, "ls -A %s", f"{HOME}/model") == sorted(names)


def test_no_cache_of_the_client_is_left(host):
    assert not host.file("/root/.cache/huggingface").exists


def test_token_is_in_no_file_but_its_own(host):
    found = host.run("grep -rlF %s /home /opt /root /etc /tmp", TOKEN)
    own = ["/etc/hub_token"] if host.file("/etc/hub_token").exists else []
    assert (found.stdout.splitlines(), found.stderr) == (own, "")
    assert host.check_output("find /etc/hub_token -not -perm 0400 -o -not -user root" if own else "true") == ""


def test_account_cannot_log_in(host):
    account = host.user("llm")
    assert account.shell == "/usr/sbin/nologin"
    assert account.home == "/home/llm"
    assert account.uid < 1000
    assert host.file(HOME).user == "llm"


def test_environment_has_the_pinned_packages(host):
    frozen = host.check_output("/opt/llmops-vllm/bin/python -m pip freeze").splitlines()
    assert {"docker==7.2.0", "huggingface_hub==2.4.0", "requests==2.34.2"} <= set(frozen)
