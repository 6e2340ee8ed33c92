# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The Hugging Face Hub, through its own client: what a revision means, addresses, and errors that tell the way out.

The client's own download is used for files that need Xet alone; the others come by _transfer.py.
"""

from __future__ import annotations

import os
import re
import time
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ansible_collections.llmops.vllm.plugins.module_utils import _retry
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import COMMIT, HubFile, SnapshotError

if TYPE_CHECKING:
    import huggingface_hub
    from huggingface_hub.hf_api import RepoFile, RepoSibling

T = TypeVar("T")

DEFAULT_ENDPOINT = "https://huggingface.co"
_CONTENT_ID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
# Of more files than so many, the list in a repository's information may end early; the client does not trust it either.
MOST_SIBLINGS = 1000

# Read by the client when it is imported: no telemetry, no bars on a module's output. Read by requests, also after a
# redirect: the token comes from the module alone, never from the account's ~/.netrc.
CLIENT_ENVIRONMENT = {
    "NETRC": os.devnull,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# Either makes the client refuse to ask anybody.
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# What names a bundle of certificates: to requests, to curl and requests, to OpenSSL and the client since its 1.0.
CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
# Below the client; which one it is changes with its major version.
HTTP_LIBRARIES = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2")


def import_client(endpoint: str) -> tuple[ModuleType | None, str | None]:
    """Return (the module huggingface_hub or None, the traceback of a failed import)."""
    os.environ.update(CLIENT_ENVIRONMENT)
    bundle = next((os.environ[name] for name in CERTIFICATE_VARIABLES if os.environ.get(name)), None)
    if bundle:
        for name in CERTIFICATE_VARIABLES:
            os.environ.setdefault(name, bundle)
    # Left over from a shell, they would turn every request into an error.
    for name in OFFLINE_VARIABLES:
        os.environ.pop(name, None)
    if endpoint.rstrip("/") != DEFAULT_ENDPOINT:
        # A mirror serves plain HTTP; with Xet the client would go past it.
        os.environ["HF_HUB_DISABLE_XET"] = "1"
    try:
        import huggingface_hub
    except ImportError:
        return None, traceback.format_exc()
    return huggingface_hub, None


class Hub:
    """One repository on one endpoint.

    token: None means anonymous, whatever the host has. timeout: seconds. retries: of requests that failed in a
    way that may pass. say: called with a text while one waits for the next attempt.
    """

    def __init__(
        self,
        client: ModuleType,
        endpoint: str,
        repo_id: str,
        repo_type: str = "model",
        token: str | None = None,
        timeout: float = 30,
        retries: int = 5,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.client = client
        self.endpoint = endpoint.rstrip("/")
        self.repo_id = repo_id
        self.repo_type = repo_type
        self.timeout = timeout
        self.attempts = retries + 1
        self.say = say
        if "@" in self.endpoint:
            # It would stand in every error and in the manifest.
            raise SnapshotError("endpoint holds a user or a password: leave them out, and pass a token")
        if token and not re.match(r"[!-~]+\Z", token):
            # The HTTP library would repeat it in its error.
            raise SnapshotError("the token has a space, a line break or a character that is not ASCII: correct it")
        # False, not None: the client would send a token that it finds in the user's home.
        self.token = token or False

    @property
    def has_xet(self) -> bool:
        """Whether the client may fetch from Xet: a mirror serves plain HTTP."""
        return self.endpoint == DEFAULT_ENDPOINT

    def listing(self, revision: str) -> tuple[str, list[HubFile]]:
        """Return (commit, [HubFile]) of a branch, tag or commit. One request, and more for a large repository."""
        api = self.client.HfApi(endpoint=self.endpoint, token=self.token)
        info = self._ask(
            revision,
            lambda: api.repo_info(
                self.repo_id, repo_type=self.repo_type, revision=revision, files_metadata=True, timeout=self.timeout
            ),
        )
        # Part of a path from here on. A mirror that answers for another commit than the asked one serves no snapshot.
        if not COMMIT.match(info.sha or "") or (COMMIT.match(revision) and info.sha != revision):
            raise SnapshotError(
                "%s says that '%s' of %s is the commit '%s': use a Hub or a mirror that knows it"
                % (self.endpoint, revision, self.repo_id, info.sha)
            )
        siblings = info.siblings or []
        if siblings and len(siblings) <= MOST_SIBLINGS:
            return info.sha, [self._file(s.rfilename, s) for s in siblings]
        return info.sha, self._ask(revision, lambda: self._tree(api, info.sha))

    def _tree(self, api: huggingface_hub.HfApi, commit: str) -> list[HubFile]:
        """Return [HubFile] of a commit, page by page."""
        session = self.client.utils.get_session()

        def request(*args: Any, **kwargs: Any) -> Any:
            return type(session).request(session, *args, **{**kwargs, "timeout": self.timeout})

        # The client takes no limit for these pages, and would wait for them without end.
        session.request = request
        tree = api.list_repo_tree(self.repo_id, recursive=True, revision=commit, repo_type=self.repo_type)
        # Folders have no blob.
        return [self._file(entry.path, cast("RepoFile", entry)) for entry in tree if hasattr(entry, "blob_id")]

    def _ask(self, revision: str, request: Callable[[], T]) -> T:
        """Return what request() returns, and make it again when it failed in a way that may pass."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return request()
            except SnapshotError:
                raise
            except Exception as error:
                if attempt >= self.attempts or not self._may_pass(error):
                    raise SnapshotError(self._explain(error, revision)) from error
                self.say(
                    "%s: %s, attempt %d of %d"
                    % (self.repo_id, self._explain(error, revision), attempt + 1, self.attempts)
                )
                headers = getattr(getattr(error, "response", None), "headers", None) or {}
                time.sleep(_retry.delay(attempt, headers.get("Retry-After")))

    def _file(self, path: str, entry: RepoSibling | RepoFile) -> HubFile:
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise SnapshotError(
                "%s lists the file '%s' of %s, which lies outside the snapshot: do not use it"
                % (self.endpoint, path, self.repo_id)
            )
        lfs = entry.lfs
        # A dataclass in most versions of the client, a dict in some.
        sha256 = (lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256) if lfs else None
        # The blob id of a file in LFS is that of its pointer.
        if entry.size is None or not _CONTENT_ID.match((sha256 if lfs else entry.blob_id) or ""):
            raise SnapshotError(
                "%s lists no size and checksum of %s of %s: use a Hub or a mirror that does"
                % (self.endpoint, path, self.repo_id)
            )
        return HubFile(path, entry.size, sha256, entry.blob_id)

    def file_url(self, commit: str, path: str) -> str:
        """Return the address of a file's content."""
        url: str = self.client.hf_hub_url(
            self.repo_id, path, repo_type=self.repo_type, revision=commit, endpoint=self.endpoint
        )
        return url

    def headers(self) -> dict[str, str]:
        """Return what the client sends with each request; the token is among it."""
        headers: dict[str, str] = self.client.utils.build_hf_headers(token=self.token, library_name="llmops.vllm")
        return headers

    def download(self, commit: str, path: str, folder: str) -> str:
        """Bring one file with the client itself, and return where it lies."""
        try:
            there: str = self.client.hf_hub_download(
                self.repo_id,
                path,
                repo_type=self.repo_type,
                revision=commit,
                local_dir=folder,
                endpoint=self.endpoint,
                token=self.token,
            )
            return there
        except Exception as error:
            if isinstance(error, self.client.utils.LocalEntryNotFoundError) and error.__cause__:
                # So the client says that its first question failed, whatever the answer was.
                error = error.__cause__
            # The client's own errors are OSErrors as well, in some of its versions.
            if isinstance(error, OSError) and error.errno and not self._may_pass(error):
                raise
            if self._may_pass(error):
                raise _retry.Passing(self._explain(error, commit)) from error
            if getattr(error, "response", None) is None:
                raise SnapshotError(
                    "%s of %s could not be fetched by the Hub's client, which large files need: %s"
                    % (path, self.repo_id, _first_line(error))
                ) from error
            raise SnapshotError(self._explain(error, commit)) from error

    def refusal(self, status: int | None, code: str | None, revision: str, path: str | None = None) -> str:
        """Return what an answer means. code: its header X-Error-Code, by which the Hub tells refusals apart."""
        where = "%s on %s" % (self.repo_id, self.endpoint)
        if code == "GatedRepo":
            return "%s is gated: accept its terms at %s/%s and pass a token of that account" % (
                where,
                self.endpoint,
                self.repo_id,
            )
        if code == "RepoNotFound":
            return "%s does not exist, or is private and %s: check repo_id, or pass a token that may read it" % (
                where,
                "the token may not read it" if self.token else "no token was passed",
            )
        if code == "RevisionNotFound":
            return "%s has no revision '%s': name a branch, a tag or a full commit of it" % (where, revision)
        if status == 401:
            if self.token:
                return "the token was refused for %s: pass one that is valid and may read it" % where
            return "%s needs a token: pass one that may read it" % where
        if status == 403:
            return "%s is forbidden to %s: pass a token that may read it" % (
                where,
                "this token" if self.token else "anonymous requests",
            )
        if status == 404 and path:
            return "%s lists %s of %s and does not serve it: use another endpoint" % (
                self.endpoint,
                path,
                self.repo_id,
            )
        return "%s answered with HTTP status %s for %s" % (self.endpoint, status, path or self.repo_id)

    def _explain(self, error: BaseException, revision: str) -> str:
        errors = self.client.utils
        status = getattr(getattr(error, "response", None), "status_code", None)
        # A gated repository is also "not found" to the client: the narrower class first.
        for kind, code in (
            (errors.GatedRepoError, "GatedRepo"),
            (errors.RepositoryNotFoundError, "RepoNotFound"),
            (errors.RevisionNotFoundError, "RevisionNotFound"),
        ):
            if isinstance(error, kind):
                return self.refusal(status, code, revision)
        if isinstance(error, errors.HFValidationError):
            return "'%s' is no name of a repository: %s" % (self.repo_id, _first_line(error))
        if status:
            return self.refusal(status, None, revision)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return untrusted(self.endpoint, error)
        return "%s cannot be reached for %s: %s" % (self.endpoint, self.repo_id, _first_line(error))

    def _may_pass(self, error: BaseException) -> bool:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status:
            return status in _retry.PASSING_STATUS
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return False
        libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        return isinstance(error, (ConnectionError, TimeoutError)) or bool(libraries.intersection(HTTP_LIBRARIES))


def untrusted(where: str, error: BaseException) -> str:
    """Return what to do about a certificate that nothing vouches for."""
    return "the certificate of %s is not trusted (%s): name the bundle of its authority in REQUESTS_CA_BUNDLE" % (
        where,
        _first_line(error),
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
