# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A release: what a deployment runs, exactly, and its id."""

from __future__ import annotations

import hashlib
import json
from typing import Any

ID_LENGTH = 12


def release_id(container: dict[str, Any]) -> str:
    """Return the id of a rendered container: equal containers have equal ids, on every host."""
    document = json.dumps(container, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(document.encode("utf-8")).hexdigest()[:ID_LENGTH]


def secret_fingerprint(secret: str | None, deployment: str) -> str:
    """Return what changes with a secret and does not give it away, or '' for none.

    It is part of the release, so that a new key makes a new release. Slow on purpose: who can
    read a release id must not be able to try keys against it.
    """
    if not secret:
        return ""
    salt = ("llmops.vllm:" + deployment).encode("utf-8")
    return hashlib.pbkdf2_hmac("sha256", secret.encode("utf-8"), salt, 200000).hex()[:16]


def device_requests(gpus: object) -> list[dict[str, Any]]:
    """Return Docker's device requests for the key gpus of a deployment.

    gpus: "all", "none", a count (int), or a list of indices or UUIDs.
    """
    request = {"driver": "nvidia", "capabilities": [["gpu"]]}
    if gpus == "none":
        return []
    if gpus == "all":
        return [dict(request, count=-1)]
    if isinstance(gpus, int) and not isinstance(gpus, bool) and gpus > 0:
        return [dict(request, count=gpus)]
    if isinstance(gpus, (list, tuple)) and gpus:
        return [dict(request, device_ids=[str(gpu) for gpu in gpus])]
    raise ValueError("gpus is %r: it takes all, none, a count, or a list of indices or UUIDs" % (gpus,))
