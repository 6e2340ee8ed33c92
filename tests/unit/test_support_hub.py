"""Tests of the double of the Hub, with the client that it is a double for."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hub as hub_file
import pytest
from conftest import wait_until
from hub import Entry, Fault, Handler, Hub, byte_range
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
WEIGHTS = FILES["model.safetensors"]
WEIGHTS_URL = f"/{REPOSITORY}/resolve/main/model.safetensors"
INFO_URL = f"/api/models/{REPOSITORY}"


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


def connect(address: str) -> http.client.HTTPConnection:
    """One connection, which follows no redirect and asks nothing twice."""
    return http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)


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


# Faults on demand.


def read_to_the_end(hub: Hub, path: str) -> tuple[int, bytes, Exception | None]:
    """The Content-Length of an answer, the bytes that came, and what ended them, if it was not the end."""
    connection = connect(hub.url)
    connection.request("GET", path)
    length, body = 0, b""
    try:
        response = connection.getresponse()
        length = int(response.headers["Content-Length"])
        while piece := response.read1():
            body += piece
    except OSError as error:
        return length, body, error
    return length, body, None


@pytest.mark.parametrize("path", [INFO_URL, WEIGHTS_URL, f"/{REPOSITORY}/resolve/main/config.json"])
@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("how", ["close_after", "reset_after"])
def test_fault_cut(hub: Hub, path: str, after: int, how: str) -> None:
    whole = raw(hub, path)[2]
    hub.faults.append(Fault(path=path, **{how: after}))
    length, body, error = read_to_the_end(hub, path)
    if how == "close_after":
        assert (length, body, error) == (len(whole), whole[:after], None)
    else:
        # A reset may overtake what the client has not read yet.
        assert whole[:after].startswith(body)
        assert isinstance(error, ConnectionResetError)
    assert raw(hub, path)[2] == whole, "it is not the second answer that is cut"


def test_fault_short(hub: Hub) -> None:
    hub.faults.append(Fault(path="model.safetensors", short=100, times=2))
    status, headers, body = raw(hub, WEIGHTS_URL)
    assert (status, headers["Content-Length"], body) == (200, "100", WEIGHTS[:100])
    status, headers, body = raw(hub, WEIGHTS_URL, {"Range": "bytes=10000-"})
    assert (status, headers["Content-Range"], body) == (206, "bytes 10000-10099/10240", WEIGHTS[10000:10100])


@pytest.mark.parametrize(("header", "part"), [({}, slice(None)), ({"Range": "bytes=4990-5009"}, slice(4990, 5010))])
def test_fault_flip(hub: Hub, header: dict[str, str], part: slice) -> None:
    hub.faults.append(Fault(path="model.safetensors", flip=5000))
    flipped = WEIGHTS[:5000] + bytes([WEIGHTS[5000] ^ 0xFF]) + WEIGHTS[5001:]
    assert raw(hub, WEIGHTS_URL, header)[2] == flipped[part]
    assert raw(hub, WEIGHTS_URL, header)[2] == WEIGHTS[part]


def test_fault_flip_outside_of_the_range(hub: Hub) -> None:
    hub.faults.append(Fault(path="model.safetensors", flip=5000, times=None))
    for start, end in ((0, 4999), (5001, 10239)):
        assert raw(hub, WEIGHTS_URL, {"Range": f"bytes={start}-{end}"})[2] == WEIGHTS[start : end + 1]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", [INFO_URL, WEIGHTS_URL])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"Retry-After": "7"}),
        (429, {"Retry-After": formatdate(0, usegmt=True)}),
        (503, {}),
        (500, {}),
        (401, {}),
        (499, {}),  # one that Python has no name for
    ],
)
def test_fault_status(hub: Hub, method: str, path: str, status: int, headers: dict[str, str]) -> None:
    hub.faults.append(Fault(path=path, methods={method}, status=status, headers=headers))
    answered, given, _body = raw(hub, path, method=method)
    assert (answered, given["Retry-After"]) == (status, headers.get("Retry-After"))
    assert raw(hub, path, method=method)[0] == 200
    assert [answer.status for answer in hub.log] == [status, 200]


def test_fault_status_with_a_code(hub: Hub) -> None:
    hub.faults.append(Fault(path="/revision/", status=404, code="RevisionNotFound"))
    with pytest.raises(RevisionNotFoundError):
        api(hub).model_info(REPOSITORY, revision="main")


def test_fault_stall_in_a_body(hub: Hub) -> None:
    hub.faults.append(Fault(path="model.safetensors", stall_after=1000, seconds=0.2))
    begun = time.monotonic()
    assert read_to_the_end(hub, WEIGHTS_URL) == (len(WEIGHTS), WEIGHTS[:1000], None)
    assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize("fault", [Fault(stall_after=-1, seconds=0.2), Fault(stall_after=-1, seconds=0.2, status=503)])
def test_fault_stall_before_the_head(hub: Hub, fault: Fault) -> None:
    hub.faults.append(fault)
    begun = time.monotonic()
    assert raw(hub, WEIGHTS_URL)[0] == (fault.status or 200)
    assert time.monotonic() - begun >= 0.2


def test_leaving_ends_a_stall(root: Path) -> None:
    with Hub(root) as hub:
        hub.faults.append(Fault(path="model.safetensors", stall_after=1000))
        connection = connect(hub.url)
        connection.request("GET", WEIGHTS_URL)
        response = connection.getresponse()
        assert response.read(1000) == WEIGHTS[:1000]
    # Else the connection's own time limit would end it, with an error.
    assert response.read1() == b""


def test_fault_ignore_range(hub: Hub) -> None:
    hub.faults.append(Fault(path="model.safetensors", ignore_range=True))
    status, headers, body = raw(hub, WEIGHTS_URL, {"Range": "bytes=10-"})
    assert (status, headers["Content-Range"], body) == (200, None, WEIGHTS)
    assert hub.log[-1].start == 10


@pytest.mark.parametrize("of", ["fault", "hub"])
def test_rate(hub: Hub, of: str) -> None:
    if of == "hub":
        hub.rate = len(WEIGHTS) * 4
    else:
        hub.faults.append(Fault(path="model.safetensors", rate=len(WEIGHTS) * 4))
    begun = time.monotonic()
    assert raw(hub, WEIGHTS_URL)[2] == WEIGHTS
    # 0.25 s, without the wait after the last piece.
    assert time.monotonic() - begun >= 0.2


def test_which_requests_a_fault_takes(hub: Hub) -> None:
    hub.faults += [
        Fault(path="model.safetensors", skip=1, times=2, status=503),
        Fault(path="config.json", times=None, status=500),
        Fault(path="model.safetensors", methods={"HEAD"}, status=502),
    ]
    assert [raw(hub, WEIGHTS_URL)[0] for _number in range(4)] == [200, 503, 503, 200]
    assert [raw(hub, f"/{REPOSITORY}/resolve/main/config.json")[0] for _number in range(4)] == [500] * 4
    assert [raw(hub, WEIGHTS_URL, method="HEAD")[0] for _number in range(2)] == [502, 200]
    assert raw(hub, INFO_URL)[0] == 200
    assert [fault.times for fault in hub.faults] == [0, None, 0]


def test_a_request_has_one_fault_at_a_time(hub: Hub) -> None:
    hub.faults += [Fault(status=503), Fault(status=500), Fault(status=502)]
    assert [raw(hub, INFO_URL)[0] for _number in range(4)] == [503, 500, 502, 200]


def test_faults_are_counted_among_threads(hub: Hub) -> None:
    hub.faults.append(Fault(path="model.safetensors", skip=10, times=20, status=503))
    with ThreadPoolExecutor(16) as pool:
        seen = [status for status, _headers, _body in pool.map(lambda _number: raw(hub, WEIGHTS_URL), range(80))]
    assert (seen.count(503), seen.count(200)) == (20, 60)
    wait_until(lambda: hub.bytes_sent == 60 * len(WEIGHTS))
    assert len(hub.requests) == len(hub.log) == 80


# The content network.


@pytest.fixture
def with_cdn(root: Path) -> Iterator[Hub]:
    with Hub(root, token="secret", cdn=True) as served:
        yield served


def redirect(hub: Hub, method: str = "GET") -> http.client.HTTPResponse:
    connection = connect(hub.url)
    connection.request(method, WEIGHTS_URL, headers={"Authorization": "Bearer secret"})
    return connection.getresponse()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_redirect_to_the_cdn(with_cdn: Hub, method: str) -> None:
    response = redirect(with_cdn, method)
    assert response.status == 302
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    expected = {
        "X-Repo-Commit": api(with_cdn, "secret").model_info(REPOSITORY).sha,
        "X-Linked-Etag": f'"{sha256}"',
        "X-Linked-Size": str(len(WEIGHTS)),
    }
    assert {name: response.headers[name] for name in expected} == expected
    assert urlsplit(response.headers["Location"]).hostname == "localhost" != urlsplit(with_cdn.url).hostname


def test_the_cdn(with_cdn: Hub) -> None:
    location = urlsplit(redirect(with_cdn).headers["Location"])
    connection = connect(with_cdn.cdn_url)
    connection.request("GET", location.path, headers={"Range": "bytes=10-19"})
    response = connection.getresponse()
    assert (response.status, response.read()) == (206, WEIGHTS[10:20])
    assert "X-Repo-Commit" not in response.headers
    connection.request("GET", location.path, headers={"Authorization": "Bearer secret"})
    response = connection.getresponse()
    assert (response.status, b"no business" in response.read()) == (400, True)
    connection.request("GET", location.path.replace("model", "other"))
    assert connection.getresponse().status == 404
    of_cdn = [answer for answer in with_cdn.log if answer.host == "cdn"]
    found = [(answer.start, answer.status, answer.sent, answer.authorized) for answer in of_cdn]
    assert found == [(10, 206, 10, False), (None, 400, 0, True), (None, 404, 0, False)]


def test_the_client_by_way_of_the_cdn(with_cdn: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "local"
    snapshot_download(REPOSITORY, local_dir=folder, endpoint=with_cdn.url, token="secret")
    assert content(folder) == FILES
    of_cdn = [answer for answer in with_cdn.log if answer.host == "cdn"]
    assert {Path(answer.path).name for answer in of_cdn} == {"model.safetensors", "big file.bin"}
    assert not any(answer.authorized for answer in of_cdn)


def test_a_fault_of_the_cdn_is_not_for_the_redirect(root: Path) -> None:
    with Hub(root, cdn=True) as hub:
        hub.faults.append(Fault(path="model.safetensors", host="cdn", status=503))
        assert [raw(hub, WEIGHTS_URL)[0] for _number in range(2)] == [503, 200]
        assert [(answer.host, answer.status) for answer in hub.log] == [
            ("hub", 302),
            ("cdn", 503),
            ("hub", 302),
            ("cdn", 200),
        ]


# Revisions, and repositories of other types.


def test_a_branch_moves(hub: Hub, root: Path) -> None:
    old = api(hub).model_info(REPOSITORY).sha
    (root / REPOSITORY).rename(root / f"{REPOSITORY}@v1")
    shutil.copytree(root / f"{REPOSITORY}@v1", root / REPOSITORY)
    changed = root / REPOSITORY / "config.json"
    before = changed.stat()
    # As large and as old as the other: the path is the same too, and the double must not take it for that.
    changed.write_bytes(b"[]\n")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    new = api(hub).model_info(REPOSITORY).sha
    assert new != old
    for revision, commit in (("main", new), (new, new), ("v1", old), (old, old)):
        assert api(hub).model_info(REPOSITORY, revision=revision).sha == commit
        expected = FILES["config.json"] if commit == old else b"[]\n"
        assert raw(hub, f"/{REPOSITORY}/resolve/{revision}/config.json")[2] == expected
    assert list(hub.repositories()) == [REPOSITORY]
    assert raw(hub, f"/api/models/{REPOSITORY}@v1")[0] == 401


def test_a_repository_that_comes_later_is_found(hub: Hub, root: Path) -> None:
    assert raw(hub, "/api/models/org/later")[0] == 401
    (root / "org/.later.new").mkdir()
    (root / "org/.later.new/config.json").write_bytes(b"{}\n")
    assert list(hub.repositories()) == [REPOSITORY]
    (root / "org/.later.new").rename(root / "org/later")
    assert list(hub.repositories()) == ["org/later", REPOSITORY]
    assert [file.rfilename for file in api(hub).model_info("org/later").siblings] == ["config.json"]


@pytest.mark.parametrize("repo_type", ["dataset", "space"])
def test_other_types(hub: Hub, root: Path, tmp_path: Path, repo_type: str) -> None:
    folder = root / f"{repo_type}s" / "org" / "data"
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_bytes(b"1,2\n")
    assert list(hub.repositories()) == sorted([REPOSITORY, f"{repo_type}s/org/data"])
    info = api(hub).repo_info("org/data", repo_type=repo_type)
    assert info.id == "org/data"
    found = hf_hub_download(
        "org/data", "rows.csv", repo_type=repo_type, local_dir=tmp_path / "local", endpoint=hub.url, token=False
    )
    assert Path(found).read_bytes() == b"1,2\n"
    assert raw(hub, "/api/models/org/data")[0] == 401
    assert raw(hub, "/org/data/resolve/main/rows.csv")[0] == 401


# Who may read.


def test_some_are_private(root: Path) -> None:
    shutil.copytree(root / REPOSITORY, root / "org/open")
    with Hub(root, token="secret", private=[REPOSITORY]) as hub:
        assert not api(hub).model_info("org/open").private
        assert raw(hub, "/org/open/resolve/main/config.json")[0] == 200
        assert api(hub, "secret").model_info(REPOSITORY).private
        with pytest.raises(RepositoryNotFoundError):
            api(hub).model_info(REPOSITORY)


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"Authorization": "Bearer some-token"}, 403)])
def test_status_of_gated_files(root: Path, headers: dict[str, str], status: int) -> None:
    with Hub(root, gated=[REPOSITORY]) as hub:
        answered, given, _body = raw(hub, WEIGHTS_URL, headers)
        assert (answered, given["X-Error-Code"]) == (status, "GatedRepo")


# The log, and how the bytes are sent.


def test_log(hub: Hub) -> None:
    raw(hub, INFO_URL, {"Authorization": "Bearer some-token"})
    raw(hub, WEIGHTS_URL, {"Range": "bytes=240-"})
    raw(hub, WEIGHTS_URL, method="HEAD")
    hub.faults.append(Fault(path="model.safetensors", close_after=7))
    read_to_the_end(hub, WEIGHTS_URL)
    lines = [(a.method, a.path, a.start, a.status, a.sent, a.authorized, a.host) for a in hub.log]
    assert lines == [
        ("GET", INFO_URL, None, 200, 0, True, "hub"),
        ("GET", WEIGHTS_URL, 240, 206, 10_000, False, "hub"),
        ("HEAD", WEIGHTS_URL, None, 200, 0, False, "hub"),
        ("GET", WEIGHTS_URL, None, 200, 7, False, "hub"),
    ]
    assert hub.bytes_sent == 10_007


@pytest.mark.parametrize("rate", [0, 1e9])
def test_who_has_the_bytes_finds_them_counted(hub: Hub, rate: float) -> None:
    hub.rate = rate
    connection = connect(hub.url)
    for count in range(1, 101):
        connection.request("GET", WEIGHTS_URL)
        connection.getresponse().read()
        assert hub.bytes_sent == count * len(WEIGHTS)


def test_a_client_that_leaves_gets_no_more_counted_than_went_out(hub: Hub, root: Path) -> None:
    size = 64 << 20
    with (root / REPOSITORY / "sparse.bin").open("wb") as file:
        file.truncate(size)
    connection = connect(hub.url)
    connection.request("GET", f"/{REPOSITORY}/resolve/main/sparse.bin", headers={"Range": "bytes=1000-"})
    assert connection.getresponse().read(100_000) == bytes(100_000)
    connection.close()
    deadline = time.monotonic() + 2
    # Whole pieces are counted while it goes on, and what went out when it has ended.
    while hub.log[-1].sent % hub_file.CHUNK == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 100_000 <= hub.log[-1].sent < size - 1000


def test_a_file_that_becomes_shorter(root: Path) -> None:
    class Shrinks(Hub):
        def send_body(self, request: Handler, entry: Entry, start: int, end: int) -> None:
            entry.file.write_bytes(WEIGHTS[:1000])
            super().send_body(request, entry, start, end)

    with Shrinks(root) as hub:
        assert read_to_the_end(hub, WEIGHTS_URL) == (len(WEIGHTS), WEIGHTS[:1000], None)


def test_command_line(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    options: dict[str, Any] = {"--root": root, "--port": 0, "--rate": 10_000_000, "--request-log": log}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, hub_file.__file__, *words, "--cdn", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith(f"hub: {REPOSITORY} main is ")
            url = process.stdout.readline().split()[-1]
            with urllib.request.urlopen(url + WEIGHTS_URL, timeout=10) as response:
                assert response.read() == WEIGHTS
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
    first, second = map(json.loads, log.read_text().splitlines())
    assert (first["path"], first["host"], first["status"]) == (WEIGHTS_URL, "hub", 302)
    assert (second["host"], second["status"], second["sent"]) == ("cdn", 200, len(WEIGHTS))
