# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: load_balancer_mistakes
short_description: What is wrong in the variables of the load balancer
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Finds all mistakes of backends, keys, paths and numbers at once. No key is in what it says.
options:
  _input:
    description: The backends, as the role load_balancer has them.
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  api_keys:
    description: Clients, each with its C(name) and its C(key).
    type: list
    elements: dict
    required: true
    version_added: 0.2.0
  paths:
    description: Paths that get through.
    type: list
    elements: str
    required: true
    version_added: 0.2.0
  numbers:
    description: The variables that are numbers, by their names.
    type: dict
    required: true
    version_added: 0.2.0
positional: api_keys, paths, numbers
"""

EXAMPLES = r"""
# ["the backend 'x' has no servers: name at least one", "the clients 'a' and 'b' have the same key: give each its own"]
mistakes: >-
  {{ [{'name': 'x', 'models': ['x'], 'servers': []}] | llmops.vllm.load_balancer_mistakes(
       [{'name': 'a', 'key': 'k'}, {'name': 'b', 'key': 'k'}], ['/v1/models'], {}) }}
"""

RETURN = r"""
_value:
  description: A sentence for each mistake, with the way out.
  type: list
  elements: str
  sample:
    - "the backend 'x' has no servers: name at least one"
    - "the clients 'a' and 'b' have the same key: give each its own"
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*\Z")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*\Z")
CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*\Z")
ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:-]*\Z")
FILE = re.compile(r"/[A-Za-z0-9._/+-]+\Z")
PATH = re.compile(r"/[A-Za-z0-9._~/-]*\Z")
KEY = re.compile(r"[\x21-\x7e]+\Z")
OWN_PATH = "/health"
# Names of the frontends, and of the backend for models that nobody has.
RESERVED = ("llm", "statistics", "unknown_model")
# What each takes at least and at most.
RANGES = {
    "load_balancer_port": (1, 65535),
    "load_balancer_stats_port": (1, 65535),
    "load_balancer_body_bytes": (1024, 1 << 28),
    "load_balancer_max_queue": (1, 1 << 20),
    "load_balancer_queue_timeout": (1, 86400),
    "load_balancer_retry_after": (0, 86400),
    "load_balancer_retries": (0, 100),
    "load_balancer_response_timeout": (1, 86400 * 7),
    "load_balancer_max_connections": (1, 1 << 20),
}


def repeated(values: list[T]) -> list[T]:
    """Return the values that are there more than once, each once."""
    return [value for index, value in enumerate(values) if values[:index].count(value) == 1]


def mistakes_of_backend(backend: dict[str, Any]) -> list[str]:
    """Return what is wrong in one backend."""
    name, servers = str(backend["name"]), backend["servers"]
    models = [str(model) for model in backend["models"]]
    found = []
    if not NAME.match(name):
        found.append("the backend '%s' cannot be named so: take letters, digits, '.', '_', ':' and '-'" % name)
    if name in RESERVED:
        found.append("the backend '%s' has a name that the role uses itself: give it another one" % name)
    if not models:
        found.append("the backend '%s' has no models: name what clients ask for" % name)
    for model in models:
        if not MODEL.match(model):
            found.append(
                "the model '%s' of the backend '%s' cannot be named so: take letters, digits and any of ._:/@+-"
                % (model, name)
            )
    if not servers:
        found.append("the backend '%s' has no servers: name at least one" % name)
    for server in servers:
        if not NAME.match(str(server["name"])):
            found.append(
                "the server '%s' of the backend '%s' cannot be named so: take letters, digits, '.', '_', ':' and '-'"
                % (server["name"], name)
            )
        if not ADDRESS.match(str(server["address"])):
            found.append(
                "the server '%s' has the address '%s': it takes an IP address or a host name"
                % (server["name"], server["address"])
            )
        if not 0 < int(server["port"]) < 65536:
            found.append("the server '%s' has the port %s: it takes 1 to 65535" % (server["name"], server["port"]))
        if int(server.get("max_requests") or 0) < 0:
            found.append(
                "the server '%s' has max_requests %s: it takes 0, for no limit, or more"
                % (server["name"], server["max_requests"])
            )
    for server in repeated([server["name"] for server in servers]):
        found.append("the backend '%s' has the server '%s' twice: name it once" % (name, server))
    if backend.get("api_key") and not KEY.match(str(backend["api_key"])):
        found.append("the api_key of the backend '%s' has spaces or is not ASCII: no header can have it" % name)
    if backend.get("tls_ca") and not FILE.match(str(backend["tls_ca"])):
        found.append(
            "the backend '%s' has the tls_ca '%s': it takes the path of a file on the host" % (name, backend["tls_ca"])
        )
    return found


def mistakes_of_clients(given: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong in the keys of clients."""
    found = []
    # YAML has made numbers of some.
    clients = [{"name": str(client["name"]), "key": str(client["key"])} for client in given]
    for client in clients:
        if not CLIENT.match(client["name"]):
            found.append(
                "the client '%s' cannot be named so: take letters, digits, '.', '_', '@' and '-'" % client["name"]
            )
        if not client["key"]:
            found.append("the client '%s' has an empty key: give it one, or take it out" % client["name"])
        elif not KEY.match(client["key"]):
            found.append("the key of the client '%s' has spaces or is not ASCII: give it another one" % client["name"])
    for name in repeated([client["name"] for client in clients]):
        found.append("the client '%s' is there twice: give each key a name of its own" % name)
    for key in repeated([client["key"] for client in clients if client["key"]]):
        first, second = [client["name"] for client in clients if client["key"] == key][:2]
        found.append("the clients '%s' and '%s' have the same key: give each its own" % (first, second))
    return found


def load_balancer_mistakes(
    backends: list[dict[str, Any]], api_keys: list[dict[str, Any]], paths: list[Any], numbers: dict[str, Any]
) -> list[str]:
    """Return a sentence for each mistake."""
    found = []
    if not backends:
        found.append("load_balancer_backends is empty: name the servers that requests go to")
    for backend in backends:
        found.extend(mistakes_of_backend(backend))
    for name in repeated([backend["name"] for backend in backends]):
        found.append("there are two backends '%s': put their servers into one" % name)
    owners = [(model, backend["name"]) for backend in backends for model in dict.fromkeys(backend["models"])]
    for model in repeated([model for model, dummy in owners]):
        names = dict.fromkeys(name for other, name in owners if other == model)
        if len(names) > 1:
            found.append(
                "the model '%s' is in the backends '%s': a request could go to one of them only"
                % (model, "' and '".join(names))
            )
    found.extend(mistakes_of_clients(api_keys))
    if not paths:
        found.append("load_balancer_paths is empty: name the paths that get through")
    for path in paths:
        if path == "/":
            found.append("load_balancer_paths has '/', which lets everything through: name the paths themselves")
        elif not PATH.match(path) or "//" in path or "/." in path:
            found.append(
                "load_balancer_paths has '%s': a path begins with '/', and has neither '//' nor '/.' nor a query" % path
            )
        elif path == OWN_PATH:
            found.append("load_balancer_paths has '%s', which the load balancer answers itself: take it out" % path)
    for name, number in numbers.items():
        least, most = RANGES[name]
        if not least <= int(number) <= most:
            found.append("%s is %s: it takes %d to %d" % (name, number, least, most))
    if numbers and int(numbers["load_balancer_port"]) == int(numbers["load_balancer_stats_port"]):
        found.append("load_balancer_port and load_balancer_stats_port are the same: choose two")
    return found


class FilterModule:
    """Filter of the same name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"load_balancer_mistakes": load_balancer_mistakes}
