"""A double of the Hugging Face Hub, for the demo and the tests: the read side of its protocol, on loopback.

    python tests/support/hub.py --root DIR [--host 127.0.0.1] [--port 8765] [--token TOKEN] [--gated ORG/NAME]

serves every folder `DIR/<org>/<name>/` as the model repository `<org>/<name>`; a client uses it with
`HF_ENDPOINT=http://127.0.0.1:8765`. In a test:

    with Hub(root) as hub:
        HfApi(endpoint=hub.url).model_info("org/name")
        assert hub.requests == ["GET /api/models/org/name"]

What is answered is what huggingface_hub 0.23 to 2.4 was seen to ask for: `/api/models/R`, `.../revision/REV`,
`.../tree/REV` and `/R/resolve/REV/PATH`. There is one branch, `main`; its commit id is computed from the names and
contents of the files, so the same files have the same commit everywhere. No `xetHash` is sent: with it clients would
leave this server for another one.

Faults on demand (cut connections, flipped bytes, 429, 503) are not here yet. They are to be added in subclasses of
`Hub` that override `before` (the whole answer) or `send_body` (the bytes of a file).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import socketserver
import sys
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 1 << 20
LFS_SIZE = 1 << 20  # the Hub keeps files of this size and more, and all *.safetensors, in LFS
BRANCH = "main"
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
    server: Server

    def do_GET(self) -> None:
        hub = self.server.hub
        url = urlsplit(self.path)
        hub.requests.append(f"{self.command} {url.path}")
        try:
            if not hub.before(self):
                # Split before unquoting: a branch may have a slash in its name, quoted as %2F.
                hub.route(self, [unquote(part) for part in url.path.strip("/").split("/")], parse_qs(url.query))
        except Refusal as refusal:
            self.send_json({"error": str(refusal)}, refusal.status, refusal.headers)
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_GET

    def send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        fields = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body))}
        self.send_head(status, {**fields, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.hub.log:
            super().log_message(format, *args)


class Server(ThreadingHTTPServer):
    """The listening socket, one thread for each connection."""

    daemon_threads = True
    request_queue_size = 128  # every host opens eight connections at once

    def __init__(self, hub: Hub, address: tuple[str, int]):
        self.hub = hub
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer would look the host's name up in the DNS

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Hub:
    """Serves the repositories of a folder until it is left; `requests` lists what was asked, as 'METHOD PATH'.

    `token`: every repository is private, and a request needs this token. Without one, any token is accepted.
    `gated`: repositories whose files nobody has been granted access to, though their information is public.
    """

    def __init__(
        self,
        root: Path | str,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        gated: Collection[str] = (),
        log: bool = False,
    ):
        self.root = Path(root)
        self.token = token
        self.gated = frozenset(gated)
        self.log = log
        self.requests: list[str] = []
        self._entries: dict[tuple[Path, int, int], Entry] = {}
        self._lock = threading.Lock()
        self._server = Server(self, (host, port))
        self.url = f"http://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve_forever(self) -> None:
        """Serves in this thread, for the command line."""
        with self._server:
            self._server.serve_forever()

    # What a fault overrides.

    def before(self, request: Handler) -> bool:
        """Called with each request before it is looked at. True: it has been answered (or its connection cut)."""
        return False

    def send_body(self, request: Handler, entry: Entry, start: int, end: int) -> None:
        """Sends the bytes [start, end) of a file; the head with its Content-Length has been sent."""
        for chunk in self.chunks(entry, start, end):
            request.wfile.write(chunk)

    # What is in the folder.

    def repositories(self) -> Iterator[str]:
        for folder in sorted(self.root.glob("*/*/")):
            if NAME.fullmatch(folder.parent.name) and NAME.fullmatch(folder.name):
                yield f"{folder.parent.name}/{folder.name}"

    def snapshot(self, repository: str) -> Snapshot:
        """The repository as its folder is now; only files that are new or changed are read."""
        folder = self.root / repository
        entries = {}
        with self._lock:  # eight connections that ask for the same new file shall hash it once
            for file in sorted(folder.rglob("*")):
                path = file.relative_to(folder).as_posix()
                if file.is_file() and not path.startswith((".git/", ".cache/")):
                    stat = file.stat()
                    key = (file, stat.st_size, stat.st_mtime_ns)
                    if key not in self._entries:
                        self._entries[key] = read_entry(file, path, stat.st_size)
                    entries[path] = self._entries[key]
        return Snapshot(commit_id(entries.values()), entries)

    @staticmethod
    def chunks(entry: Entry, start: int, end: int) -> Iterator[bytes]:
        with entry.file.open("rb") as stream:
            stream.seek(start)
            while start < end:
                chunk = stream.read(min(CHUNK, end - start))
                if not chunk:
                    raise ConnectionAbortedError(f"{entry.file} has become shorter")
                start += len(chunk)
                yield chunk

    # The protocol.

    def route(self, request: Handler, parts: list[str], query: dict[str, list[str]]) -> None:
        """Answers one request by the parts of its path."""
        match parts:
            case ["api", "models", org, name]:
                self.send_info(request, f"{org}/{name}", BRANCH, query)
            case ["api", "models", org, name, "revision", revision]:
                self.send_info(request, f"{org}/{name}", revision, query)
            case ["api", "models", org, name, "tree", revision, *path]:
                self.send_tree(request, f"{org}/{name}", revision, "/".join(path), query)
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
        if not known or (self.token is not None and not given):
            status = HTTPStatus.NOT_FOUND if given else HTTPStatus.UNAUTHORIZED
            raise Refusal(status, "Repository not found", "RepoNotFound")
        snapshot = self.snapshot(repository)
        if revision not in (BRANCH, snapshot.commit):
            raise Refusal(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound")
        return snapshot

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
        request.send_json(
            {
                "id": repository,
                "modelId": repository,
                "sha": snapshot.commit,
                "private": self.token is not None,
                "gated": "manual" if repository in self.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": siblings,
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
        request.send_json([listing[key] for key in sorted(listing)])

    def send_file(self, request: Handler, repository: str, revision: str, path: str) -> None:
        snapshot = self.find(request, repository, revision)
        commit = {"X-Repo-Commit": snapshot.commit}
        if repository in self.gated:
            status = HTTPStatus.FORBIDDEN if request.headers.get("Authorization") else HTTPStatus.UNAUTHORIZED
            raise Refusal(status, f"Access to model {repository} is restricted", "GatedRepo", commit)
        entry = snapshot.entries.get(path)
        if entry is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "Entry not found", "EntryNotFound", commit)
        wanted = byte_range(request.headers.get("Range"), entry.size) if request.command == "GET" else None
        start, end = wanted or (0, entry.size)
        headers = {
            **commit,
            "ETag": f'"{entry.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
        }
        if entry.sha256:
            headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
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
    parser.add_argument("--quiet", action="store_true", help="do not log the requests")
    args = parser.parse_args(argv)
    if not args.root.is_dir():
        parser.error(f"no such folder: {args.root}")
    try:
        hub = Hub(args.root, args.host, args.port, args.token, args.gated, log=not args.quiet)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
