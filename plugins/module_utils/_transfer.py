# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Contents of a commit, over HTTP into the staging folder: checked while they flow, resumed where they stopped.

Why not the client's own download (huggingface_hub 0.34 to 2.4, each was tried): it checks no
content, starts a file again from its first byte in a new process, gives up on a reset
connection or a status 503, and ignores Retry-After.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from io import FileIO
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ansible_collections.llmops.vllm.plugins.module_utils import _hub, _retry, _snapshot
from ansible_collections.llmops.vllm.plugins.module_utils._retry import Passing
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import SnapshotError

if TYPE_CHECKING:
    import requests

    from ansible_collections.llmops.vllm.plugins.module_utils._meter import Meter
    from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile
    from ansible_collections.llmops.vllm.plugins.module_utils._staging import Staging

# The most that is read, hashed and written at once, in bytes: less costs calls, more falls out of the CPU's cache.
CHUNK = 512 * 1024
# After so many bytes of a file they are brought to the disk, to be trusted after a power loss.
SYNC_EVERY = 128 * 1024 * 1024
# An attempt that brought so many bytes is no failed one, though it ended early.
PROGRESS = 1024 * 1024
# The client refuses to fetch more than this in one plain request (constants.MAX_HTTP_DOWNLOAD_SIZE), as the Hub's
# content network does.
HTTP_LIMIT = 50 * 10**9


class Wrong(Exception):
    """A content that is not the one that the Hub lists."""


class Stopped(Exception):
    """Another file has failed for good."""


class Transfer:
    """Fetches contents side by side. meter: a _meter.Meter.

    max_rate: bytes per second in all, None for no limit. timeout: seconds without a byte.
    retries: attempts after the first one that may bring nothing, for each file.
    """

    def __init__(
        self,
        hub: _hub.Hub,
        commit: str,
        staging: Staging,
        meter: Meter,
        max_workers: int = 8,
        max_rate: int | None = None,
        timeout: float = 30,
        retries: int = 5,
    ) -> None:
        self.hub = hub
        self.commit = commit
        self.staging = staging
        self.meter = meter
        self.max_workers = max_workers
        self.timeout = timeout
        self.attempts = retries + 1
        self.stopped = threading.Event()
        self.rate_limit = RateLimit(max_rate, self.stopped) if max_rate else None
        # Small enough for a slow stream to be even and a fast one to be cheap.
        self.chunk = max(16 * 1024, min(CHUNK, max_rate // 8)) if max_rate else CHUNK
        self._local = threading.local()
        self._syncer: ThreadPoolExecutor | None = None

    def fetch(self, files: Iterable[HubFile]) -> None:
        """Bring all contents of files, large ones first; raise the first error that does not pass."""
        todo = {_snapshot.content_id(f): f for f in files}
        largest_first = sorted(todo.values(), key=lambda f: -f.size)
        with ThreadPoolExecutor(1) as self._syncer, ThreadPoolExecutor(self.max_workers) as pool:
            jobs = [pool.submit(self._fetch_file, f) for f in largest_first]
            try:
                for job in as_completed(jobs):
                    job.result()
            finally:
                self.stopped.set()
                for job in jobs:
                    job.cancel()

    def _fetch_file(self, wanted: HubFile) -> None:
        if os.path.exists(self.staging.whole(wanted)) or self.stopped.is_set():
            return
        with self.meter.file(wanted.path) as note:
            try:
                for fresh in (False, True):
                    try:
                        self._fetch_content(wanted, note)
                        self.staging.accept(wanted)
                        return
                    except Wrong as error:
                        self.meter.take_back(self.staging.held_bytes(wanted))
                        self.staging.reject(wanted)
                        if fresh:
                            raise SnapshotError(
                                "%s of %s arrived wrong twice (%s): run again, or ask who runs %s"
                                % (wanted.path, self.hub.repo_id, error, self.hub.endpoint)
                            ) from error
                        note("arrived wrong, fetching it anew")
            except Stopped:
                pass
            except BaseException:
                self.stopped.set()
                raise

    def _fetch_content(self, wanted: HubFile, note: Callable[[str], None]) -> None:
        """Bring one content to the end, whatever cuts it short on the way; raise Wrong when it is not the right one."""
        if wanted.size > HTTP_LIMIT and self.hub.has_xet:
            self._persist(wanted, note, lambda: self._fetch_with_client(wanted))
            return
        with open(self.staging.part(wanted), "ab", buffering=0) as stream:
            content = Content(wanted, stream, self.staging)
            self._persist(wanted, note, lambda: self._attempt(content, note), lambda: content.length)
            content.check()

    def _persist(
        self,
        wanted: HubFile,
        note: Callable[[str], None],
        attempt: Callable[[], None],
        length: Callable[[], int] = lambda: 0,
    ) -> None:
        """Call attempt() until it brings the content to the end. length() tells how much is there."""
        failed = 0
        while not self.stopped.is_set():
            before = length()
            try:
                attempt()
                return
            except Passing as error:
                failed = 1 if length() - before >= PROGRESS else failed + 1
                if failed >= self.attempts:
                    raise SnapshotError(
                        "%s of %s could not be fetched in %d attempt%s: %s: run again later, it goes on from there"
                        % (wanted.path, self.hub.repo_id, self.attempts, "s"[: self.attempts > 1], error)
                    ) from error
                wait = _retry.delay(failed, error.retry_after)
                later = " in %d s" % wait if wait >= 5 else ""
                note("%s, attempt %d of %d%s" % (error, failed + 1, self.attempts, later))
                self.stopped.wait(wait)
        raise Stopped

    def _attempt(self, content: Content, note: Callable[[str], None]) -> None:
        import requests
        import urllib3

        wanted = content.wanted
        start = content.length
        if start == wanted.size:
            return
        url = self.hub.file_url(self.commit, wanted.path)
        headers = {**self.hub.headers(), "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = "bytes=%d-" % start
        try:
            with self._session().get(url, headers=headers, stream=True, timeout=self.timeout) as response:
                url = response.url
                self._look_at(response, wanted, start)
                if response.status_code == 200 and start:
                    self.meter.take_back(start)
                    content.restart()
                self._take(response, content, note)
                if response.headers.get("Content-Length"):
                    # All of it was read, though requests does not know: the next file takes this connection.
                    response.raw.release_conn()
        except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            # After a redirect it is another one that does not answer.
            host = _host(getattr(getattr(error, "request", None), "url", None) or url)
            if isinstance(error, requests.TooManyRedirects):
                raise SnapshotError("%s redirects without end: choose another endpoint" % host) from error
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise SnapshotError(_hub.untrusted(host, error)) from error
            if _is_timeout(error):
                raise Passing("no byte for %g s from %s" % (self.timeout, host)) from error
            raise Passing("%s: %s" % (host, _reason(error))) from error

    def _look_at(self, response: requests.Response, wanted: HubFile, start: int) -> None:
        """Raise unless a response brings the content from byte start on, or from its beginning."""
        status = response.status_code
        if status in _retry.PASSING_STATUS:
            raise Passing("status %d from %s" % (status, _host(response.url)), response.headers.get("Retry-After"))
        if status == 416:
            raise Wrong("%s has no bytes after %d of %d" % (_host(response.url), start, wanted.size))
        if status not in (200, 206):
            if response.history and not _same_host(response.url, self.hub.endpoint):
                if status == 403:
                    # A signed address of the content network can expire; the Hub gives a new one.
                    raise Passing("status %d from %s" % (status, _host(response.url)))
                raise SnapshotError(
                    "%s, to which %s redirects, answered with HTTP status %d for %s: use another endpoint"
                    % (_host(response.url), self.hub.endpoint, status, wanted.path)
                )
            raise SnapshotError(
                self.hub.refusal(status, response.headers.get("X-Error-Code"), self.commit, wanted.path)
            )
        if status == 206 and not response.headers.get("Content-Range", "").startswith("bytes %d-" % start):
            raise Wrong("%s answers with %s" % (_host(response.url), response.headers.get("Content-Range")))
        coming = response.headers.get("Content-Length", "")
        begin = start if status == 206 else 0
        if coming.isdecimal() and begin + int(coming) != wanted.size:
            kind = Wrong if status == 206 else Passing
            # A proxy's page about an error may have the status 200 too: that is no reason to drop what is here.
            raise kind("%s sends %d bytes, the Hub lists %d" % (_host(response.url), begin + int(coming), wanted.size))

    def _take(self, response: requests.Response, content: Content, note: Callable[[str], None]) -> None:
        """Read a response to the end of the content; what has come is written, whatever ends it."""
        # Not in the urllib3 of older systems. Takes what has come; read() would drop it when the rest does not.
        read = getattr(response.raw, "read1", response.raw.read)
        gathered = Gathered()
        try:
            while content.length + gathered.length < content.wanted.size:
                piece = read(self.chunk, decode_content=False)
                if not piece:
                    raise Passing(
                        "%s closed the connection after %d of %d bytes"
                        % (_host(response.url), content.length + gathered.length, content.wanted.size)
                    )
                if self.stopped.is_set():
                    raise Stopped
                if self.rate_limit:
                    self.rate_limit.take(len(piece))
                gathered.add(piece)
                if gathered.is_due():
                    self._write(content, gathered.take())
                    note("")
        finally:
            self._write(content, gathered.take())

    def _write(self, content: Content, piece: bytes) -> None:
        before = content.length
        content.append(piece)
        self.meter.add(len(piece))
        if self._syncer and content.length // SYNC_EVERY > before // SYNC_EVERY:
            self._syncer.submit(_sync_part, self.staging, content.wanted, content.length)

    def _fetch_with_client(self, wanted: HubFile) -> None:
        """Bring a file that is too large for one plain request with the client, which has Xet for that."""
        folder = os.path.join(self.staging.path, "xet", _snapshot.content_id(wanted))
        # The client begins anew, under another name.
        shutil.rmtree(folder, ignore_errors=True)
        with self.meter.folder(folder):
            path = self.hub.download(self.commit, wanted.path, folder)
        os.replace(path, self.staging.part(wanted))
        if self.staging.check == "sha256":
            error = _snapshot.content_error(self.staging.part(wanted), wanted)
            if error:
                raise Wrong(error)

    def _session(self) -> requests.Session:
        """Return this thread's session: connections are used again, and shared by none."""
        import requests

        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # The token comes from the module alone, never from the account's ~/.netrc.
            session.auth = _no_auth
        return session


class Content:
    """A content as it grows: the part's file, its length, and the digest of what is in it."""

    def __init__(self, wanted: HubFile, stream: FileIO, staging: Staging) -> None:
        self.wanted = wanted
        self.stream = stream
        self.length = staging.held_bytes(wanted)
        os.ftruncate(stream.fileno(), self.length)
        self.digest = _snapshot.new_digest(wanted) if staging.check == "sha256" else None
        if self.digest and self.length:
            _snapshot.feed(self.digest, stream.name)

    def append(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self.digest:
            self.digest.update(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[self.stream.write(rest) :]
        self.length += len(piece)
        if self.length > self.wanted.size:
            raise Wrong("it is longer than the %d bytes that the Hub lists" % self.wanted.size)

    def restart(self) -> None:
        """Forget all bytes."""
        os.ftruncate(self.stream.fileno(), 0)
        self.length = 0
        self.digest = _snapshot.new_digest(self.wanted) if self.digest else None

    def check(self) -> None:
        """Raise Wrong unless the content is the one that the Hub lists."""
        if self.digest and self.digest.hexdigest() != _snapshot.content_id(self.wanted):
            raise Wrong(
                "it has the checksum %s, the Hub lists %s"
                % (self.digest.hexdigest(), _snapshot.content_id(self.wanted))
            )


class Gathered:
    """Pieces on their way to the disk: TLS brings them in 16 KiB, too little to hash and write each by itself."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.length = 0
        self._pieces: list[bytes] = []
        self._since = time.monotonic()

    def add(self, piece: bytes) -> None:
        """Add a piece."""
        self._pieces.append(piece)
        self.length += len(piece)

    def is_due(self) -> bool:
        """Return whether it is time to write."""
        return self.length >= CHUNK // 2 or time.monotonic() - self._since > 1

    def take(self) -> bytes:
        """Return all pieces as one, and begin anew."""
        pieces = self._pieces
        self._start()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class RateLimit:
    """Bytes per second, shared by all threads."""

    def __init__(self, rate: float, stopped: threading.Event) -> None:
        self.rate = rate
        self.stopped = stopped
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, count: int) -> None:
        """Wait until count bytes more fit under the rate."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self.rate
            wait = self._free_at - now
        self.stopped.wait(wait)


def _sync_part(staging: Staging, wanted: HubFile, length: int) -> None:
    # The file may be whole by now, and have its final name.
    with contextlib.suppress(OSError):
        staging.sync_part(wanted, length)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _same_host(one: str, other: str) -> bool:
    return urlsplit(one).netloc == urlsplit(other).netloc


def _reason(error: BaseException) -> str:
    """Return the innermost cause of a chain of HTTP errors, in a few words."""
    while True:
        inner = next((a for a in reversed(error.args) if isinstance(a, BaseException)), None)
        inner = inner or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]


def _is_timeout(error: BaseException | None) -> bool:
    while isinstance(error, BaseException):
        if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
            return True
        error = next((a for a in error.args if isinstance(a, BaseException)), None)
    return False
