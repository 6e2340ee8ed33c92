"""hf_snapshot with each generation of the Hub's client: the same module, the real client, a double of the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import Fault, Hub

PROJECT = Path(__file__).parents[2]
# The oldest that is promised, the last one on httpx, and the one that the roles install.
VERSIONS = ["0.34.6", "1.33.0", "2.4.0"]
FILES = {"config.json": b"{}\n", "model.safetensors": bytes(range(256)) * 20_000, "docs/a [b] 100%.txt": b"text\n"}
RUN = """
import sys
import huggingface_hub
assert huggingface_hub.__version__ == {version!r}, huggingface_hub.__file__
from ansible_collections.llmops.vllm.plugins.module_utils import _hub, _retry, _transfer
from ansible_collections.llmops.vllm.plugins.modules import hf_snapshot
_retry.FIRST_DELAY = 0.01
{patch}
hf_snapshot.main()
"""


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """A version of the client, installed beside the others below .work/."""
    folder = client_folder(request.param)
    if not folder.exists():
        packages = [f"huggingface_hub=={request.param}", "requests==2.34.2"]
        beside = folder.with_name(folder.name + ".new")
        command = [
            str(Path(sys.executable).with_name("uv")),
            "pip",
            "install",
            "--quiet",
            "--python",
            sys.executable,
            "--target",
            str(beside),
            *packages,
        ]
        subprocess.run(command, check=True)
        beside.rename(folder)
    return request.param


def client_folder(version: str) -> Path:
    return PROJECT / ".work" / "hub-clients" / version


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for path, content in FILES.items():
        file = tmp_path / "hub" / "org" / "name" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    with Hub(tmp_path / "hub") as hub:
        yield hub


def snapshot(version: str, hub: Hub, dest: Path, patch: str = "", **params: Any) -> dict[str, Any]:
    """The result of the module in a process of its own that has this client."""
    params = {"repo_id": "org/name", "endpoint": hub.url, "dest": str(dest), **params}
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(version=version, patch=patch)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": params}),
        env={**os.environ, "PYTHONPATH": str(client_folder(version)), "HF_HOME": str(dest.parent / "hf")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return {"failed": False, **json.loads(done.stdout)}


def content(folder: str) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    del found[".snapshot.json"]
    return found


def test_the_happy_path(version: str, hub: Hub, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    first = snapshot(version, hub, dest)
    assert first["changed"] and first["verified"], first
    assert content(first["path"]) == FILES
    assert first["bytes_downloaded"] == sum(map(len, FILES.values()))
    # One question, then each file once: no telemetry, no HEAD, nothing asked twice.
    assert len(hub.requests) == 1 + len(FILES), hub.requests
    again = snapshot(version, hub, dest)
    assert not again["changed"], again
    assert [path.name for path in dest.iterdir()] == [first["commit"]]


def test_a_large_repository_is_listed_by_its_tree(version: str, hub: Hub, tmp_path: Path) -> None:
    hub.most_siblings, hub.page = 2, 2
    hub.faults += [Fault(path="/tree/", status=503), Fault(path="/tree/", stall_after=-1)]
    result = snapshot(version, hub, tmp_path / "dest", "_hub.MOST_SIBLINGS = 1", timeout=1)
    assert result["verified"], result
    assert content(result["path"]) == FILES


def test_faults_on_the_way(version: str, hub: Hub, tmp_path: Path) -> None:
    hub.faults += [
        Fault(path="/revision/", status=503),
        Fault(path="model.safetensors", reset_after=2_000_000),
        Fault(path="config.json", status=429, headers={"Retry-After": "0"}),
    ]
    result = snapshot(version, hub, tmp_path / "dest")
    assert result["verified"], result
    assert content(result["path"]) == FILES


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"repo_id": "org/unknown"}, "does not exist, or is private and no token was passed"),
        ({"revision": "v2"}, "has no revision 'v2'"),
        ({"repo_id": "org/../name"}, "is no name of a repository"),
    ],
)
def test_refusals(version: str, hub: Hub, tmp_path: Path, params: dict[str, str], message: str) -> None:
    result = snapshot(version, hub, tmp_path / "dest", **params)
    assert result["failed"]
    assert message in result["msg"]


def test_gated(version: str, hub: Hub, tmp_path: Path) -> None:
    hub.gated = frozenset({"org/name"})
    result = snapshot(version, hub, tmp_path / "dest")
    assert result["failed"]
    assert f"is gated: accept its terms at {hub.url}/org/name and pass a token of that account" in result["msg"]


def test_no_hub(version: str, hub: Hub, tmp_path: Path) -> None:
    result = snapshot(version, hub, tmp_path / "dest", endpoint="http://127.0.0.1:9", retries=1)
    assert result["failed"]
    assert "http://127.0.0.1:9 cannot be reached for org/name" in result["msg"]


def test_files_above_the_limit_of_plain_http_come_by_the_client(version: str, hub: Hub, tmp_path: Path) -> None:
    """The double has no Xet: what is shown is the way through the client, and that its file is checked the same."""
    patch = f"_transfer.HTTP_LIMIT, _hub.DEFAULT_ENDPOINT = 1000, {hub.url!r}"
    hub.faults += [
        Fault(path="model.safetensors", methods={"HEAD"}, status=503, times=2),
        Fault(path="model.safetensors", methods={"GET"}, flip=5),
    ]
    result = snapshot(version, hub, tmp_path / "dest", patch)
    assert result["verified"], result
    assert content(result["path"]) == FILES
    assert any(request.startswith("HEAD") for request in hub.requests)
    assert [path.name for path in (tmp_path / "dest").iterdir()] == [result["commit"]]
