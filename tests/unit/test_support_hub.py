"""Tests of the double of the Hub, with the client that it is a double for."""

from __future__ import annotations

import hashlib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import Entry, Handler, Hub, byte_range
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.utils import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REPOSITORY = "org/name"
FILES = {
    "config.json": b"{}\n",
    "empty.txt": b"",
    "model.safetensors": bytes(range(256)) * 40,
    "onnx/deep/big file.bin": b"0123456789abcdef" * 100_000,
}


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no test reach anything but this machine, nor use a proxy or a token of this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] == "127.0.0.1", f"a test connects to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, content in FILES.items():
        file = tmp_path / "root" / REPOSITORY / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "root"


@pytest.fixture
def hub(root: Path) -> Iterator[Hub]:
    with Hub(root) as served:
        yield served


def api(hub: Hub, token: str | bool = False) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and ".cache" not in file.parts)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_model_info(hub: Hub) -> None:
    info = api(hub).model_info(REPOSITORY, files_metadata=True)
    assert len(info.sha) == 40
    found = {item.rfilename: item for item in info.siblings}
    assert {name: item.size for name, item in found.items()} == {name: len(data) for name, data in FILES.items()}
    # the blob id that git itself gives to "{}\n"
    assert found["config.json"].blob_id == "0967ef424bce6791893e9a57bb952f80fd536e93"
    assert found["config.json"].lfs is None
    for name in ("model.safetensors", "onnx/deep/big file.bin"):
        assert found[name].lfs.sha256 == hashlib.sha256(FILES[name]).hexdigest()
        assert found[name].lfs.size == len(FILES[name])
    assert hub.requests == [f"GET /api/models/{REPOSITORY}"]


def test_commit_is_that_of_the_content(hub: Hub, root: Path, tmp_path: Path) -> None:
    commit = api(hub).model_info(REPOSITORY).sha
    assert api(hub).model_info(REPOSITORY, revision=commit).sha == commit
    (root / REPOSITORY / "config.json").touch()
    assert api(hub).model_info(REPOSITORY, revision="main").sha == commit
    (root / REPOSITORY / "config.json").write_bytes(b"{ }\n")
    assert api(hub).model_info(REPOSITORY).sha != commit
    with pytest.raises(RevisionNotFoundError):
        api(hub).model_info(REPOSITORY, revision=commit)


def test_tree(hub: Hub) -> None:
    whole = {item.path: item for item in api(hub).list_repo_tree(REPOSITORY, recursive=True)}
    assert set(whole) == {*FILES, "onnx", "onnx/deep"}
    assert whole["model.safetensors"].lfs.sha256 == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    top = {item.path for item in api(hub).list_repo_tree(REPOSITORY)}
    assert top == {"config.json", "empty.txt", "model.safetensors", "onnx"}
    assert [item.path for item in api(hub).list_repo_tree(REPOSITORY, "onnx")] == ["onnx/deep"]
    with pytest.raises(EntryNotFoundError):
        list(api(hub).list_repo_tree(REPOSITORY, "nothing"))


@pytest.mark.parametrize("by", ["branch", "commit"])
def test_snapshot_download(hub: Hub, tmp_path: Path, by: str) -> None:
    revision = "main" if by == "branch" else api(hub).model_info(REPOSITORY).sha
    folder = tmp_path / "local"
    snapshot_download(REPOSITORY, revision=revision, local_dir=folder, endpoint=hub.url, token=False)
    assert content(folder) == FILES
    commit = api(hub).model_info(REPOSITORY).sha
    assert f"GET /{REPOSITORY}/resolve/{commit}/onnx/deep/big%20file.bin" in hub.requests


def test_unknown_repository(hub: Hub) -> None:
    for token, status in ((False, 401), ("some-token", 404)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            api(hub, token).model_info("org/other")
        assert caught.value.response.status_code == status


def test_unknown_revision(hub: Hub) -> None:
    with pytest.raises(RevisionNotFoundError):
        api(hub).model_info(REPOSITORY, revision="feature/x")
    with pytest.raises(RevisionNotFoundError):
        list(api(hub).list_repo_tree(REPOSITORY, revision="0" * 40))


def test_unknown_file(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPOSITORY, "other.bin", local_dir=tmp_path / "local", endpoint=hub.url, token=False)


def test_private(root: Path) -> None:
    with Hub(root, token="secret") as hub:
        assert api(hub, "secret").model_info(REPOSITORY).private
        with pytest.raises(RepositoryNotFoundError):
            api(hub).model_info(REPOSITORY)
        with pytest.raises(HfHubHTTPError) as caught:
            api(hub, "wrong").model_info(REPOSITORY)
        assert caught.value.response.status_code == 401
        assert not isinstance(caught.value, RepositoryNotFoundError)


def test_gated(root: Path, tmp_path: Path) -> None:
    with Hub(root, gated=[REPOSITORY]) as hub:
        assert api(hub).model_info(REPOSITORY).gated == "manual"
        for token in (False, "some-token"):
            with pytest.raises(GatedRepoError):
                hf_hub_download(REPOSITORY, "config.json", local_dir=tmp_path, endpoint=hub.url, token=token)


def raw(hub: Hub, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, dict, bytes]:
    try:
        request = urllib.request.Request(hub.url + path, headers=headers or {}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_head_of_a_file(hub: Hub) -> None:
    data = FILES["model.safetensors"]
    sha256 = hashlib.sha256(data).hexdigest()
    status, headers, body = raw(hub, f"/{REPOSITORY}/resolve/main/model.safetensors", method="HEAD")
    assert (status, body) == (200, b"")
    expected = {
        "X-Repo-Commit": api(hub).model_info(REPOSITORY).sha,
        "ETag": f'"{sha256}"',
        "X-Linked-Etag": f'"{sha256}"',
        "X-Linked-Size": str(len(data)),
        "Content-Length": str(len(data)),
        "Accept-Ranges": "bytes",
    }
    assert {name: headers[name] for name in expected} == expected
    _status, headers, _body = raw(hub, f"/{REPOSITORY}/resolve/main/config.json", method="HEAD")
    assert headers["ETag"] == '"0967ef424bce6791893e9a57bb952f80fd536e93"'
    assert "X-Linked-Etag" not in headers


@pytest.mark.parametrize(
    ("header", "part"),
    [("bytes=10-19", slice(10, 20)), ("bytes=10000-", slice(10000, None)), ("bytes=-5", slice(-5, None))],
)
def test_range(hub: Hub, header: str, part: slice) -> None:
    data = FILES["model.safetensors"]
    status, headers, body = raw(hub, f"/{REPOSITORY}/resolve/main/model.safetensors", {"Range": header})
    assert (status, body) == (206, data[part])
    start, stop, _step = part.indices(len(data))
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(data)}"


def test_range_outside(hub: Hub) -> None:
    status, headers, _body = raw(hub, f"/{REPOSITORY}/resolve/main/config.json", {"Range": "bytes=3-"})
    assert (status, headers["Content-Range"]) == (416, "bytes */3")
    assert byte_range("bytes=0-1,3-4", 9) is None


def test_a_path_cannot_leave_the_repository(hub: Hub, root: Path) -> None:
    (root / "secret").write_bytes(b"")
    for path in (f"/{REPOSITORY}/resolve/main/..%2F..%2Fsecret", f"/{REPOSITORY}/resolve/main/../../secret", "/secret"):
        assert raw(hub, path)[0] == 404


class CutOnce(Hub):
    """A fault: the first answer with the big file ends after half of it."""

    ranges: list[str | None]

    def send_body(self, request: Handler, entry: Entry, start: int, end: int) -> None:
        if entry.path.endswith(".bin"):
            self.ranges.append(request.headers.get("Range"))
            if len(self.ranges) == 1:
                super().send_body(request, entry, start, end // 2)
                request.close_connection = True
                return
        super().send_body(request, entry, start, end)


def test_a_cut_download_resumes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client keeps only whole chunks, of 10 MiB as a rule.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    name = "onnx/deep/big file.bin"
    with CutOnce(root) as hub:
        hub.ranges = []
        hf_hub_download(REPOSITORY, name, local_dir=tmp_path / "local", endpoint=hub.url, token=False)
        assert hub.ranges == [None, f"bytes={len(FILES[name]) // 2}-"]
    assert (tmp_path / "local" / name).read_bytes() == FILES[name]
