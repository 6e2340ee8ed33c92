# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The Hugging Face Hub, through its own client, with errors that tell the way out.

The client's snapshot_download can report success with files missing, and it does not check
content that comes over HTTP (seen with 0.23 to 2.4). So a revision is resolved to a commit
first, and everything that it brings is checked against the commit's listing by the caller.
"""

from __future__ import annotations

import errno
import os
import re
import traceback

from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import COMMIT, HubFile, SnapshotError

DEFAULT_ENDPOINT = "https://huggingface.co"

# Read by the client when it is imported: no telemetry, no bars on a module's output.
CLIENT_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}

DISK_ERRORS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EIO,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def import_client(endpoint):
    """Return (the module huggingface_hub or None, the traceback of a failed import)."""
    os.environ.update(CLIENT_ENVIRONMENT)
    # Left over from a shell, it would turn every request into an error.
    os.environ.pop("HF_HUB_OFFLINE", None)
    if endpoint.rstrip("/") != DEFAULT_ENDPOINT:
        # A mirror serves plain HTTP; with Xet the client would go past it.
        os.environ["HF_HUB_DISABLE_XET"] = "1"
    try:
        import huggingface_hub
    except ImportError:
        return None, traceback.format_exc()
    return huggingface_hub, None


class Hub:
    """One repository on one endpoint. token: None means anonymous, whatever the host has."""

    def __init__(self, client, endpoint, repo_id, token):
        self.client = client
        self.endpoint = endpoint.rstrip("/")
        self.repo_id = repo_id
        if "@" in self.endpoint:
            # It would stand in every error and in the manifest.
            raise SnapshotError("endpoint holds a user or a password: leave them out, and pass a token")
        if token and not re.match(r"[!-~]+\Z", token):
            # The HTTP library would repeat it in its error.
            raise SnapshotError("the token has a space, a line break or a character that is not ASCII: correct it")
        # False, not None: the client would send a token that it finds in the user's home.
        self.token = token or False

    def listing(self, revision):
        """Return (commit, [HubFile]) of a branch, tag or commit. One request."""
        try:
            info = self.client.HfApi(endpoint=self.endpoint, token=self.token).model_info(
                self.repo_id, revision=revision, files_metadata=True, timeout=30
            )
        except Exception as error:
            raise SnapshotError(self._explain(error, revision)) from error
        # Part of a path from here on. A mirror that answers for another commit than the asked one serves no snapshot.
        if not COMMIT.match(info.sha or "") or (COMMIT.match(revision) and info.sha != revision):
            raise SnapshotError(
                "%s says that '%s' of %s is the commit '%s': use a Hub or a mirror that knows it"
                % (self.endpoint, revision, self.repo_id, info.sha)
            )
        files = []
        for sibling in info.siblings or []:
            if sibling.size is None:
                raise SnapshotError(
                    "%s lists no sizes and checksums of the files of %s: use a Hub or a mirror that does"
                    % (self.endpoint, self.repo_id)
                )
            if sibling.rfilename.startswith("/") or ".." in sibling.rfilename.split("/"):
                raise SnapshotError(
                    "%s lists the file '%s' of %s, which lies outside the snapshot: do not use it"
                    % (self.endpoint, sibling.rfilename, self.repo_id)
                )
            lfs = sibling.lfs
            # A dataclass in most versions of the client, a dict in some.
            sha256 = (lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256) if lfs else None
            files.append(HubFile(sibling.rfilename, sibling.size, sha256, sibling.blob_id))
        return info.sha, files

    def matching(self, files, allow_patterns, ignore_patterns):
        """Return those of files that the patterns (fnmatch, as the client's own) let through."""
        return list(
            self.client.utils.filter_repo_objects(
                files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns, key=lambda f: f.path
            )
        )

    def fetch(self, commit, folder, allow_patterns, ignore_patterns, max_workers):
        """Bring the files of a commit into folder. What is there already is not fetched again."""
        try:
            self.client.snapshot_download(
                self.repo_id,
                revision=commit,
                local_dir=folder,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                max_workers=max_workers,
                endpoint=self.endpoint,
                token=self.token,
            )
        except Exception as error:
            # The client's own errors are OSErrors as well, in some of its versions.
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise SnapshotError("cannot write to %s: %s" % (folder, error)) from error
            raise SnapshotError(self._explain(error, commit)) from error

    def _explain(self, error, revision):
        errors = self.client.utils
        where = "%s on %s" % (self.repo_id, self.endpoint)
        status = getattr(getattr(error, "response", None), "status_code", None)
        # A gated repository is also "not found" to the client: the narrower class first.
        if isinstance(error, errors.GatedRepoError):
            return "%s is gated: accept its terms at %s/%s and pass a token of that account" % (
                where,
                self.endpoint,
                self.repo_id,
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return "%s does not exist, or is private and %s: check repo_id, or pass a token that may read it" % (
                where,
                "the token may not read it" if self.token else "no token was passed",
            )
        if isinstance(error, errors.HFValidationError):
            return "'%s' is no name of a repository: %s" % (self.repo_id, _first_line(error))
        if isinstance(error, errors.RevisionNotFoundError):
            return "%s has no revision '%s': name a branch, a tag or a full commit of it" % (where, revision)
        if status == 401:
            return "the token was refused for %s: pass one that is valid and may read it" % where
        if status:
            return "%s answered with HTTP status %s: %s" % (self.endpoint, status, _first_line(error))
        return "%s cannot be reached for %s: %s" % (self.endpoint, self.repo_id, _first_line(error))


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]
