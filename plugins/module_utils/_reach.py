# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Whether a host reaches an address, and what a repository on the Hub holds. Standard library alone: it is asked
before anything is installed on the host.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from http.client import HTTPMessage
from typing import IO, Any, TypeVar

T = TypeVar("T")

# What a page may hold, and the listing of a repository of a thousand files.
MOST_OF_A_PAGE = 64 * 1024
MOST_OF_A_LISTING = 16 * 1024 * 1024
# Of more files than so many, the list in a repository's information may end early.
MOST_SIBLINGS = 1000
# What names a bundle of certificates: to requests, to curl and requests, to OpenSSL.
CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Answer:
    """What came back. status: 0 where nothing did, and error says why in a short phrase."""

    def __init__(self, status: int = 0, body: bytes = b"", headers: Message | None = None, error: str = "") -> None:
        self.status, self.body, self.headers, self.error = status, body, headers or Message(), error

    @property
    def code(self) -> str:
        """By which the Hub tells refusals apart."""
        return self.headers.get("X-Error-Code") or ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; what is secret goes to no other host. follow: how many to follow."""

    def __init__(self, follow: int) -> None:
        self.max_redirections = follow  # type: ignore[misc]  # the library reads it from the instance

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not self.max_redirections or req.get_method() not in ("GET", "HEAD"):
            return None
        new = urllib.request.Request(newurl, headers=dict(req.headers), method=req.get_method())
        if _place(newurl) != _place(req.full_url):
            new.remove_header("Authorization")
        return new

    # Known to the library since Python 3.11.
    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def ask(
    url: str,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    most: int = MOST_OF_A_PAGE,
    method: str = "GET",
    follow: int = 5,
    authorities: str = "",
) -> Answer:
    """Return the Answer to a request. authorities: a file with certificates to trust, besides those of the system."""
    try:
        plain = without_credentials(url)
        request = urllib.request.Request(plain, headers=dict(headers or {}), method=method)
        request.add_header("User-Agent", "llmops.vllm")
        handlers = [_Redirects(follow), urllib.request.HTTPSHandler(context=_context(authorities))]
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            return Answer(response.status, response.read(most), response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, b"", error.headers)
    except Exception as error:
        # Among them what a server that is no web server makes of the library: whatever it is, it is no answer.
        return Answer(error=phrase(error, url, timeout))


def together(functions: Sequence[Callable[[], T]], timeout: float) -> list[T | None]:
    """Return what each function returns, all run at the same time; None for one that takes longer.

    A name that no server answers for is waited for longer than any timeout of a request says, so such a thread is left
    behind; it ends with the process.
    """
    results: list[T | None] = [None] * len(functions)

    def run(number: int) -> None:
        results[number] = functions[number]()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    # As it is now: what comes later shall not change what was returned.
    return list(results)


def look(url: str, timeout: float, authorities: str = "") -> dict[str, Any]:
    """Return {url, status, seconds, error} of an address."""
    begun = time.monotonic()
    answer = ask(url, timeout, authorities=authorities)
    return {
        "url": without_credentials(url),
        "status": answer.status,
        "seconds": round(time.monotonic() - begun, 3),
        "error": answer.error,
    }


def late(url: str, timeout: float) -> dict[str, Any]:
    """Return what look() returns for an address that took too long."""
    error = "no answer within %d s" % timeout
    return {"url": without_credentials(url), "status": 0, "seconds": float(timeout), "error": error}


def listing(endpoint: str, repo_id: str, revision: str, token: str | None, timeout: float) -> dict[str, Any]:
    """Return what the Hub says of a repository: {status, error, refusal, commit, files}.

    refusal: gated, not_found, revision, token, forbidden, or '' where nothing was refused. files: {path: [size, what
    tells its content from any other]}.
    """
    endpoint = endpoint.rstrip("/")
    headers = {"Authorization": "Bearer " + token} if token else {}
    address = "%s/api/models/%s/revision/%s?blobs=true" % (endpoint, repo_id, urllib.parse.quote(revision, safe=""))
    answer = ask(address, timeout, headers, MOST_OF_A_LISTING)
    result: dict[str, Any] = {"status": answer.status, "error": answer.error, "refusal": "", "commit": "", "files": {}}
    if answer.error:
        return result
    if answer.status != 200:
        result["refusal"] = _refusal(answer, token)
        result["error"] = "" if result["refusal"] else "HTTP status %d" % answer.status
        return result
    try:
        info = json.loads(answer.body.decode("utf-8"))
        siblings = info.get("siblings") or []
        result["commit"] = str(info["sha"])
        # Beyond it the list may lack files, and a size that is too small is worse than none.
        if len(siblings) <= MOST_SIBLINGS:
            result["files"] = {entry["rfilename"]: [int(entry["size"] or 0), _content_id(entry)] for entry in siblings}
    except (ValueError, KeyError, TypeError, AttributeError):
        result["error"] = "an answer that is not the Hub's"
        return result
    if info.get("gated") and result["files"]:
        # Everybody may see what is in a gated repository, and not everybody may have it.
        name = min(result["files"], key=lambda path: result["files"][path][0])
        address = "%s/%s/resolve/%s/%s" % (endpoint, repo_id, result["commit"], urllib.parse.quote(name))
        tried = ask(address, timeout, headers, method="HEAD", follow=0)
        if tried.status in (401, 403):
            result["refusal"] = "gated"
    return result


def _content_id(entry: Mapping[str, Any]) -> str:
    lfs = entry.get("lfs") or {}
    return lfs.get("sha256") or lfs.get("oid") or entry.get("blobId") or ""


def _refusal(answer: Answer, token: str | None) -> str:
    """Return in a word why the Hub refused, or '' for an answer that is no refusal."""
    known = {"GatedRepo": "gated", "RepoNotFound": "not_found", "RevisionNotFound": "revision"}
    if answer.code in known:
        return known[answer.code]
    if answer.status == 401:
        return "token" if token else "not_found"
    return {403: "forbidden", 404: "not_found"}.get(answer.status, "")


def phrase(error: Exception, url: str, timeout: float) -> str:
    """Return in a few words why there was no answer."""
    reason = getattr(error, "reason", error)
    if not isinstance(reason, BaseException):
        reason = error
    proxy = _proxy_of(url)
    by = " (by the proxy %s)" % proxy if proxy else ""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "certificate not trusted: %s" % reason.verify_message + by
    if isinstance(reason, ssl.SSLError):
        return "TLS failed: %s" % str(reason.reason or reason).lower().replace("_", " ") + by
    if isinstance(reason, socket.gaierror):
        return "the name %s cannot be resolved" % (proxy.rpartition(":")[0] or proxy or _host_of(url))
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused" + by
    if isinstance(reason, (socket.timeout, TimeoutError)):
        return "no answer within %d s" % timeout + by
    if isinstance(reason, (http.client.HTTPException, ConnectionError)):
        return "the connection ended without an answer" + by
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower() + by
    return (str(reason).splitlines() or [type(reason).__name__])[0] + by


def without_credentials(url: str) -> str:
    """Return an address without a user and a password."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)[^/?#]*@", r"\1", url, flags=re.IGNORECASE)


def _place(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _host_of(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or url


def _proxy_of(url: str) -> str:
    """Return host and port of the proxy that the environment names for an address, or ''."""
    try:
        host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
        if urllib.request.proxy_bypass(host):
            return ""
        proxy = urllib.request.getproxies().get(urllib.parse.urlsplit(url).scheme, "")
    except (OSError, ValueError):
        return ""
    return urllib.parse.urlsplit(proxy if "//" in proxy else "//" + proxy).netloc.rpartition("@")[2]


def _context(authorities: str) -> ssl.SSLContext:
    named = [os.environ[name] for name in CERTIFICATE_VARIABLES if os.path.isfile(os.environ.get(name, ""))]
    context = ssl.create_default_context(cafile=named[0] if named else None)
    if authorities:
        context.load_verify_locations(authorities)
    return context
