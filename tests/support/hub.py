"""A double of the Hugging Face Hub, for the demo and the tests: the read side of its protocol, on loopback.

    python tests/support/hub.py --root DIR [--host 127.0.0.1] [--port 8765] [--token TOKEN] [--gated ORG/NAME] ...

serves every folder `DIR/<org>/<name>/` as the model repository `<org>/<name>`, and `DIR/datasets/<org>/<name>/` and
`DIR/spaces/<org>/<name>/` as those; a client uses it with `HF_ENDPOINT=http://127.0.0.1:8765`. In a test:

    with Hub(root) as hub:
        hub.faults.append(Fault(path="model.safetensors", reset_after=1000))
        HfApi(endpoint=hub.url).model_info("org/name")
        assert hub.requests == ["GET /api/models/org/name"]

What is answered is what huggingface_hub 0.23 to 2.4 was seen to ask for: `/api/models/R`, `.../revision/REV`,
`.../tree/REV` and `/R/resolve/REV/PATH`. The branch is `main`; its commit id is computed from the names and contents of
the files, so the same files have the same commit everywhere. A folder `<name>@<revision>` beside `<name>` is another
branch or tag of the repository: rename `<name>` to `<name>@old` and put a new one there, and `main` has moved, while
the old commit is still served. No `xetHash` is sent: with it clients would leave this server for another one.

With `cdn`, files in LFS come from a second host (`localhost` instead of `127.0.0.1`) by a redirect, as from the Hub.
`Fault` breaks answers on demand; `hub.log` has each answer as it was sent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

CHUNK = 1 << 20
LFS_SIZE = 1 << 20  # the Hub keeps files of this size and more, and all *.safetensors, in LFS
BRANCH = "main"
KINDS = ("datasets", "spaces")  # of repositories, beside models
API_KINDS = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}  # as addresses name them, and folders
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Refusal(Exception):
    """An answer other than success; `code` goes into X-Error-Code, by which the client picks its exception."""

    def __init__(self, status: HTTPStatus, message: str, code: str = "", headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}


@dataclass(frozen=True)
class Entry:
    """One file of a repository. `oid` is its git blob id; of a file in LFS (`sha256` set) that of the pointer."""

    path: str
    file: Path
    size: int
    oid: str
    sha256: str | None = None
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclass
class Fault:
    """What goes wrong with the next `times` requests (None: with all) that match, after `skip` that go well.

    It matches by `path`, a part of the URL's path, by `methods`, and by `host` (hub, cdn, or any). With a `cdn`, name
    the host: the redirect matches too, and has no body that could break. Then, one of:

    status          this, with `headers` and X-Error-Code `code`, instead of the answer
    close_after     the connection is closed after so many bytes of the body
    reset_after     it is reset
    stall_after     nothing more comes for `seconds`; -1: not even the head
    flip            the byte at this offset of the file is another
    short           the head promises so many bytes, and no more come
    ignore_range    the whole file comes though a range was asked for
    rate            so many bytes of the file per second
    """

    path: str = ""
    methods: Collection[str] = ("GET",)
    host: str = ""
    times: int | None = 1
    skip: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    close_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    seconds: float = 300.0
    flip: int | None = None
    short: int | None = None
    ignore_range: bool = False
    rate: float = 0.0

    @property
    def cut(self) -> int | None:
        """After how many bytes of a body it breaks off, None for a body that comes to its end."""
        cuts = [n for n in (self.close_after, self.reset_after, self.stall_after) if n is not None and n >= 0]
        return min(cuts, default=None)

    def acts_on(self, method: str, path: str, host: str) -> bool:
        """Whether this request is one that goes wrong; counts it."""
        if method not in self.methods or self.path not in path or self.host not in ("", host) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Answer:
    """One line of the log: what was asked, and what was sent."""

    method: str
    path: str
    host: str
    start: int | None  # the first byte that a Range asked for
    authorized: bool  # whether a token came with it
    status: int = 0
    sent: int = 0  # bytes of a file


@dataclass(frozen=True)
class Snapshot:
    """The files of a repository at its one commit, by path."""

    commit: str
    entries: dict[str, Entry]


def git_blob_id(content: bytes) -> str:
    """The id under which git stores this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return size >= LFS_SIZE or path.endswith(".safetensors")


def read_entry(file: Path, path: str, size: int) -> Entry:
    """Hashes one file as the Hub does."""
    if not is_lfs(path, size):
        return Entry(path, file, size, git_blob_id(file.read_bytes()))
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return Entry(path, file, size, git_blob_id(pointer), sha256, len(pointer))


def commit_id(entries: Collection[Entry]) -> str:
    """A commit id that depends on nothing but the paths and contents."""
    listing = "".join(f"{entry.path}\0{entry.oid}\n" for entry in sorted(entries, key=lambda entry: entry.path))
    return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and end (exclusive) that a Range header asks for, None for the whole file (RFC 9110, 14.2)."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        message = "The requested range is not in the file"
        raise Refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, message, headers={"Content-Range": f"bytes */{size}"})
    return start, end


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests; everything that is worth changing is in Hub."""

    protocol_version = "HTTP/1.1"
    timeout = 300
    disable_nagle_algorithm = True  # a small body would wait 40 ms for the client to acknowledge the head
    server: Server

    fault: Fault | None = None
    answer: Answer

    def do_GET(self) -> None:
        hub = self.server.hub
        url = urlsplit(self.path)
        path = unquote(url.path)
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        authorized = "Authorization" in self.headers
        self.answer = Answer(self.command, path, self.server.name, start and int(start[1]), authorized)
        with hub.counting:
            hub.requests.append(f"{self.command} {url.path}")
            hub.log.append(self.answer)
            self.fault = next((f for f in hub.faults if f.acts_on(self.command, path, self.server.name)), None)
        try:
            if self.fault and self.fault.stall_after == -1:
                hub.closed.wait(self.fault.seconds)
            if self.fault and self.fault.status:
                headers = {**({"X-Error-Code": self.fault.code} if self.fault.code else {}), **self.fault.headers}
                self.send_json({"error": "a fault on demand"}, self.fault.status, headers)
            elif not hub.before(self):
                # Split before unquoting: a branch may have a slash in its name, quoted as %2F.
                hub.route(self, [unquote(part) for part in url.path.strip("/").split("/")], parse_qs(url.query))
        except Refusal as refusal:
            self.send_json({"error": str(refusal)}, refusal.status, refusal.headers)
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_GET

    def send_json(self, value: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        fields = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body))}
        self.send_head(status, {**fields, **(headers or {})})
        if self.command != "HEAD":
            fault = self.fault or Fault()
            self.wfile.write(body[: fault.cut])
            self.break_off(fault)

    def break_off(self, fault: Fault) -> None:
        """Ends the connection as the fault wants it, once as much of the body has been sent; without a cut, nothing."""
        if fault.cut is None:
            return
        if fault.stall_after is not None:
            self.server.hub.closed.wait(fault.seconds)
        if fault.reset_after is not None:
            # With a linger of 0 seconds, closing sends a reset instead of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())
        raise ConnectionAbortedError("a fault on demand")

    def send_head(self, status: int, headers: dict[str, str]) -> None:
        self.answer.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.hub.verbose:
            super().log_message(format, *args)


class Server(ThreadingHTTPServer):
    """The listening socket, one thread for each connection."""

    daemon_threads = True
    request_queue_size = 128  # every host opens eight connections at once

    def __init__(self, hub: Hub, address: tuple[str, int], name: str):
        self.hub = hub
        self.name = name
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer would look the host's name up in the DNS

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Hub:
    """Serves the repositories of a folder until it is left; `requests` lists what was asked, as 'METHOD PATH'.

    `token`: every repository is private, and a request needs this token. Without one, any token is accepted.
    `private`: if given, only these repositories need it.
    `gated`: repositories whose files nobody has been granted access to, though their information is public.
    `cdn`: files in LFS are redirected to another host. `rate`: bytes per second of each file.
    `most_siblings`: a repository's information lists no more files, without saying so. `page`: entries in an answer of
    the tree, which names the next one.
    """

    def __init__(
        self,
        root: Path | str,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        gated: Collection[str] = (),
        private: Collection[str] | None = None,
        cdn: bool = False,
        rate: float = 0.0,
        verbose: bool = False,
    ):
        self.root = Path(root)
        self.token = token
        self.gated = frozenset(gated)
        self.private = private
        self.rate = rate
        self.most_siblings: int | None = None
        self.page = 1000
        self.verbose = verbose
        self.requests: list[str] = []
        self.log: list[Answer] = []
        self.faults: list[Fault] = []
        self.counting = threading.Lock()
        self.closed = threading.Event()
        self._entries: dict[tuple[Path, int, int, int], Entry] = {}
        self._lock = threading.Lock()
        self._server = Server(self, (host, port), "hub")
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._cdn = Server(self, ("127.0.0.1", 0), "cdn") if cdn else None
        self.cdn_url = f"http://localhost:{self._cdn.server_address[1]}" if self._cdn else ""

    @property
    def bytes_sent(self) -> int:
        """Bytes of files that went out so far."""
        return sum(answer.sent for answer in list(self.log))

    def __enter__(self) -> Self:
        for server in filter(None, (self._server, self._cdn)):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closed.set()
        for server in filter(None, (self._server, self._cdn)):
            server.shutdown()
            server.server_close()

    def serve_forever(self) -> None:
        """Serves in this thread, for the command line."""
        if self._cdn:
            threading.Thread(target=self._cdn.serve_forever, daemon=True).start()
        with self._server:
            self._server.serve_forever()

    # What a fault that is not foreseen overrides.

    def before(self, request: Handler) -> bool:
        """Called with each request before it is looked at. True: it has been answered (or its connection cut)."""
        return False

    def send_body(self, request: Handler, entry: Entry, start: int, end: int) -> None:
        """Sends the bytes [start, end) of a file; the head with its Content-Length has been sent.

        Each piece is counted before it goes: a client that has all of it shall find all of it in the log.
        """
        fault = request.fault or Fault()
        rate = fault.rate or self.rate
        if fault.cut is None and fault.flip is None and not rate:
            with entry.file.open("rb") as stream:
                stream.seek(start)
                try:
                    for first in range(start, end, CHUNK):
                        last = min(first + CHUNK, end)
                        request.answer.sent = last - start
                        request.connection.sendfile(stream, first, last - first)
                        if stream.tell() != last:
                            raise ConnectionAbortedError(f"{entry.file} has become shorter")
                finally:
                    request.answer.sent = stream.tell() - start
            return
        begun = time.monotonic()
        for chunk in self.chunks(entry, start, end if fault.cut is None else min(end, start + fault.cut), rate):
            offset = -1 if fault.flip is None else fault.flip - start - request.answer.sent
            if 0 <= offset < len(chunk):
                chunk = chunk[:offset] + bytes([chunk[offset] ^ 0xFF]) + chunk[offset + 1 :]
            request.answer.sent += len(chunk)
            request.wfile.write(chunk)
            if rate and self.closed.wait(max(begun + request.answer.sent / rate - time.monotonic(), 0)):
                raise ConnectionAbortedError("the double is closing")
        request.break_off(fault)

    # What is in the folder.

    def repositories(self) -> Iterator[str]:
        patterns = ["*/*/", *(f"{kind}/*/*/" for kind in KINDS)]
        for folder in sorted(folder for pattern in patterns for folder in self.root.glob(pattern)):
            parts = folder.relative_to(self.root).parts
            if parts[0] in KINDS and len(parts) == 2 or "@" in parts[-1]:
                continue
            if all(NAME.fullmatch(part) for part in parts):
                yield "/".join(parts)

    def revisions(self, repository: str) -> dict[str, Snapshot]:
        """The commits of a repository, by branch and tag."""
        folder = self.root / repository
        others = {path.name.partition("@")[2]: path for path in folder.parent.glob(f"{folder.name}@*/")}
        return {name: self.snapshot(path.relative_to(self.root).as_posix()) for name, path in others.items()} | {
            BRANCH: self.snapshot(repository)
        }

    def snapshot(self, repository: str) -> Snapshot:
        """The repository as its folder is now; only files that are new or changed are read."""
        folder = self.root / repository
        entries = {}
        with self._lock:  # eight connections that ask for the same new file shall hash it once
            for file in sorted(folder.rglob("*")):
                path = file.relative_to(folder).as_posix()
                if file.is_file() and not path.startswith((".git/", ".cache/")):
                    stat = file.stat()
                    # The inode too: in the place of a folder that was renamed, a copy may have its sizes and times.
                    key = (file, stat.st_ino, stat.st_size, stat.st_mtime_ns)
                    if key not in self._entries:
                        self._entries[key] = read_entry(file, path, stat.st_size)
                    entries[path] = self._entries[key]
        return Snapshot(commit_id(entries.values()), entries)

    @staticmethod
    def chunks(entry: Entry, start: int, end: int, rate: float = 0) -> Iterator[bytes]:
        size = max(int(rate / 50), 1) if rate else CHUNK
        with entry.file.open("rb") as stream:
            stream.seek(start)
            while start < end:
                chunk = stream.read(min(size, end - start))
                if not chunk:
                    raise ConnectionAbortedError(f"{entry.file} has become shorter")
                start += len(chunk)
                yield chunk

    # The protocol.

    def route(self, request: Handler, parts: list[str], query: dict[str, list[str]]) -> None:
        """Answers one request by the parts of its path."""
        if request.server.name == "cdn":
            return self.send_from_cdn(request, parts)
        match parts:
            case ["api", kind, org, name] if kind in API_KINDS:
                self.send_info(request, API_KINDS[kind] + f"{org}/{name}", BRANCH, query)
            case ["api", kind, org, name, "revision", revision] if kind in API_KINDS:
                self.send_info(request, API_KINDS[kind] + f"{org}/{name}", revision, query)
            case ["api", kind, org, name, "tree", revision, *path] if kind in API_KINDS:
                self.send_tree(request, API_KINDS[kind] + f"{org}/{name}", revision, "/".join(path), query)
            case [kind, org, name, "resolve", revision, *path] if kind in KINDS and path:
                self.send_file(request, f"{kind}/{org}/{name}", revision, "/".join(path))
            case [org, name, "resolve", revision, *path] if path:
                self.send_file(request, f"{org}/{name}", revision, "/".join(path))
            case _:
                raise Refusal(HTTPStatus.NOT_FOUND, "Sorry, this double of the Hub has no such page")

    def find(self, request: Handler, repository: str, revision: str) -> Snapshot:
        """The snapshot asked for, if it exists and this client may see it.

        As on the Hub a repository that is unknown and one that is private look the same: 401 without a token, and
        404 with one. A wrong token is a 401 of its own, which the client tells by its message.
        """
        given = request.headers.get("Authorization")
        if given and self.token is not None and given != f"Bearer {self.token}":
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
        known = all(NAME.fullmatch(part) for part in repository.split("/")) and (self.root / repository).is_dir()
        if not known or (self.is_private(repository) and not given):
            status = HTTPStatus.NOT_FOUND if given else HTTPStatus.UNAUTHORIZED
            raise Refusal(status, "Repository not found", "RepoNotFound")
        revisions = self.revisions(repository)
        commits = {snapshot.commit: snapshot for snapshot in revisions.values()}
        if revision not in revisions and revision not in commits:
            raise Refusal(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound")
        return revisions.get(revision) or commits[revision]

    def is_private(self, repository: str) -> bool:
        return self.token is not None and (self.private is None or repository in self.private)

    def send_info(self, request: Handler, repository: str, revision: str, query: dict[str, list[str]]) -> None:
        snapshot = self.find(request, repository, revision)
        blobs = query.get("blobs", ["false"])[0].lower() in ("true", "1")
        siblings = []
        for entry in snapshot.entries.values():
            sibling: dict[str, Any] = {"rfilename": entry.path}
            if blobs:
                sibling |= {"blobId": entry.oid, "size": entry.size}
                if entry.sha256:
                    lfs = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
                    sibling["lfs"] = lfs
            siblings.append(sibling)
        name = "/".join(repository.split("/")[-2:])
        request.send_json(
            {
                "id": name,
                **({"modelId": name} if name == repository else {}),
                "sha": snapshot.commit,
                "private": self.is_private(repository),
                "gated": "manual" if repository in self.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": siblings[: self.most_siblings],
            }
        )

    def send_tree(
        self, request: Handler, repository: str, revision: str, path: str, query: dict[str, list[str]]
    ) -> None:
        snapshot = self.find(request, repository, revision)
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{path}/" if path else ""
        listing: dict[str, dict[str, Any]] = {}
        for entry in snapshot.entries.values():
            if not entry.path.startswith(prefix):
                continue
            *folders, _name = entry.path.removeprefix(prefix).split("/")
            for depth in range(1, len(folders) + 1 if recursive else min(len(folders), 1) + 1):
                folder = prefix + "/".join(folders[:depth])
                inside = [other for other in snapshot.entries.values() if other.path.startswith(f"{folder}/")]
                listing[folder] = {"type": "directory", "oid": commit_id(inside), "size": 0, "path": folder}
            if recursive or not folders:
                item = {"type": "file", "oid": entry.oid, "size": entry.size, "path": entry.path}
                if entry.sha256:
                    item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
                listing[entry.path] = item
        if path and not listing:
            raise Refusal(HTTPStatus.NOT_FOUND, f"{path} does not exist on {revision}", "EntryNotFound")
        keys = sorted(listing)
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.page < len(keys):
            address, again = urlsplit(request.path).path, {**query, "cursor": [str(start + self.page)]}
            headers["Link"] = f'<{self.url}{address}?{urlencode(again, doseq=True)}>; rel="next"'
        request.send_json([listing[key] for key in keys[start : start + self.page]], headers=headers)

    def send_file(self, request: Handler, repository: str, revision: str, path: str) -> None:
        snapshot = self.find(request, repository, revision)
        commit = {"X-Repo-Commit": snapshot.commit}
        if repository in self.gated:
            status = HTTPStatus.FORBIDDEN if request.headers.get("Authorization") else HTTPStatus.UNAUTHORIZED
            raise Refusal(status, f"Access to model {repository} is restricted", "GatedRepo", commit)
        entry = snapshot.entries.get(path)
        if entry is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "Entry not found", "EntryNotFound", commit)
        linked = {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)} if entry.sha256 else {}
        if self._cdn and entry.sha256:
            location = f"{self.cdn_url}/{repository}/{snapshot.commit}/{quote(path)}"
            headers = {**commit, **linked, "Location": location, "Content-Length": "0"}
            request.send_head(HTTPStatus.FOUND, headers)
            return
        self.send_content(request, entry, {**commit, **linked})

    def send_from_cdn(self, request: Handler, parts: list[str]) -> None:
        """Answers as the content network does: it knows no token, and refuses the one of the Hub."""
        if request.headers.get("Authorization"):
            raise Refusal(HTTPStatus.BAD_REQUEST, "A token has no business here")
        for depth in range(2, len(parts)):
            repository, commit, path = "/".join(parts[:depth]), parts[depth], "/".join(parts[depth + 1 :])
            if (self.root / repository).is_dir() and re.fullmatch("[0-9a-f]{40}", commit):
                for snapshot in self.revisions(repository).values():
                    if snapshot.commit == commit and path in snapshot.entries:
                        return self.send_content(request, snapshot.entries[path], {})
        raise Refusal(HTTPStatus.NOT_FOUND, "No such content")

    def send_content(self, request: Handler, entry: Entry, headers: dict[str, str]) -> None:
        """Sends a file, or the range of it that was asked for."""
        fault = request.fault or Fault()
        whole = request.command != "GET" or fault.ignore_range
        wanted = None if whole else byte_range(request.headers.get("Range"), entry.size)
        start, end = wanted or (0, entry.size)
        if fault.short is not None:
            end = min(start + fault.short, end)
        headers = {
            **headers,
            "ETag": f'"{entry.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
        }
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size}"
        request.send_head(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK, headers)
        if request.command == "GET":
            self.send_body(request, entry, start, end)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A double of the Hugging Face Hub, for the demo and the tests.")
    parser.add_argument("--root", type=Path, required=True, help="folder with <org>/<name>/ folders to serve")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="port to listen on, 0 for a free one (%(default)s)")
    parser.add_argument("--token", help="make every repository private: requests need this token")
    parser.add_argument("--gated", action="append", default=[], metavar="ORG/NAME", help="refuse this one's files")
    parser.add_argument("--private", action="append", metavar="ORG/NAME", help="only this one needs the token")
    parser.add_argument("--cdn", action="store_true", help="redirect large files to another host name")
    parser.add_argument("--rate", type=float, default=0, metavar="BYTES", help="bytes per second of each file")
    parser.add_argument("--request-log", type=Path, help="file for the log, one JSON object per line, when it ends")
    parser.add_argument("--quiet", action="store_true", help="do not log the requests")
    args = parser.parse_args(argv)
    if not args.root.is_dir():
        parser.error(f"no such folder: {args.root}")
    try:
        hub = Hub(
            args.root,
            args.host,
            args.port,
            args.token,
            args.gated,
            args.private,
            cdn=args.cdn,
            rate=args.rate,
            verbose=not args.quiet,
        )
    except OSError as error:
        parser.exit(1, f"hub: cannot listen on {args.host}:{args.port}: {error.strerror}\n")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Hashing now keeps the first answer within the client's time limit of 10 s.
        for repository in hub.repositories():
            print(f"hub: {repository} {BRANCH} is {hub.snapshot(repository).commit}", flush=True)
        print(f"hub: serving {args.root} at {hub.url}", flush=True)
        hub.serve_forever()
    except KeyboardInterrupt:
        pass
    if args.request_log:
        args.request_log.write_text("".join(json.dumps(asdict(answer)) + "\n" for answer in hub.log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
