# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Who reaches whom: addresses of the hosts, who may ask an engine, and what the load balancers spread requests over.

Pure logic; what the inventory says comes in through Network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# A deployment of the catalogue, completed: see catalogue.read_catalogue().
Deployment = dict[str, Any]

# Groups of the inventory with a meaning.
LOAD_BALANCERS = "load_balancers"
MONITORING = "monitoring"
# As a deployment's listen: the address that each host has on the internal network.
INTERNAL = "internal"
ADDRESS_VARIABLE = "vllm_internal_address"
# What HAProxy takes in the name of a server.
_SERVER_NAME = re.compile(r"[A-Za-z0-9._:-]+\Z")


class Network:
    """What the inventory says of addresses. address_of: function from a host to its vllm_internal_address, or ''.

    hosts_of: function from an inventory pattern to a list of hosts. groups: {group: [hosts]}.
    """

    def __init__(
        self,
        address_of: Callable[[str], str | None],
        hosts_of: Callable[[str], list[str]],
        groups: Mapping[str, Iterable[str]],
    ) -> None:
        self.address_of, self.hosts_of = address_of, hosts_of
        self.load_balancers = list(groups.get(LOAD_BALANCERS, ()))
        self.monitors = list(groups.get(MONITORING, ()))


def ipv4(text: str) -> ipaddress.IPv4Address | None:
    """Return an IPv4Address, or None."""
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None


def _network(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text, strict=False))
    except ValueError:
        return ""


def addresses(entry: Deployment, network: Network) -> tuple[dict[str, str], list[str]]:
    """Return ({host: address that the deployment listens on}, problems)."""
    if entry["listen"] != INTERNAL:
        return dict.fromkeys(entry["hosts"], str(entry["listen"])), []
    return _internal(entry["hosts"], network, "listens on the internal address")


def reached_at(entry: Deployment, network: Network) -> tuple[dict[str, str], list[str]]:
    """Return ({host: address at which others reach the deployment}, problems)."""
    if entry["listen"] != "0.0.0.0":
        return dict(entry["addresses"]), []
    return _internal(entry["hosts"], network, "is behind the load balancers and listens on all addresses")


def _internal(hosts: Iterable[str], network: Network, why: str) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    problems: list[str] = []
    for host in hosts:
        given = str(network.address_of(host) or "")
        if ipv4(given):
            found[host] = given
        elif given:
            problems.append("%s, and %s of %s is '%s': it takes an IPv4 address" % (why, ADDRESS_VARIABLE, host, given))
        else:
            problems.append("%s, and %s has no %s: set it in the inventory" % (why, host, ADDRESS_VARIABLE))
    return found, problems


def allowed(entry: Deployment, network: Network) -> tuple[list[str] | None, list[str]]:
    """Return (the IPv4 networks that may reach the deployment's port, or None for all, and problems)."""
    given = entry["allow_from"]
    if given is None:
        loopback = any(_is_loopback(address) for address in entry["addresses"].values())
        if entry["listen"] != INTERNAL or loopback or not (network.load_balancers or network.monitors):
            return None, []
        hosts = list(dict.fromkeys(network.load_balancers + network.monitors))
        found, problems = _internal(hosts, network, "is reached by the load balancers and the monitoring alone")
        return sorted(_network(address) for address in found.values()), problems
    if any(_is_loopback(address) for address in entry["addresses"].values()):
        return None, ["allow_from has no meaning for a loopback address: remove it, or listen on another one"]
    networks: list[str] = []
    problems = []
    for item in given:
        if _network(item):
            networks.append(_network(item))
            continue
        hosts = network.hosts_of(item)
        if not hosts:
            problems.append("allow_from has '%s', which is no IPv4 address or network and matches no host" % item)
            continue
        found, wrong = _internal(hosts, network, "allow_from has '%s'" % item)
        networks += [_network(address) for address in found.values()]
        problems += wrong
    return sorted(set(networks)), problems


def _is_loopback(address: str) -> bool:
    found = ipv4(address)
    return found is not None and found.is_loopback


def is_balanced(entry: Deployment, network: Network) -> bool:
    """Return whether the load balancers send requests to a deployment: those that can reach it do."""
    balancers = network.load_balancers
    if not balancers:
        return False
    loopback = any(_is_loopback(address) for address in entry["addresses"].values())
    return not loopback or balancers == entry["hosts"]


def server_name(host: str, deployment: str) -> str:
    """Return the name of a deployment on a host, as the load balancers know it."""
    return "%s:%s" % (host, deployment)


def backends(deployments: Iterable[Deployment], keys: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return (what the load balancers spread requests over, problems). keys: {deployment: its API key, or ''}.

    A backend is a list of served names with all servers that serve every one of them: {name, models, servers, tls,
    deployment: the first one, whose key opens all}; a server is {name, host, deployment, address, port, max_requests}.
    """
    balanced = [entry for entry in deployments if entry["balanced"]]
    served: dict[str, list[str]] = {}
    for entry in balanced:
        for name in entry["served_model_names"]:
            served.setdefault(name, []).append(entry["name"])
    together: dict[tuple[str, ...], list[str]] = {}
    for name, by in served.items():
        together.setdefault(tuple(dict.fromkeys(by)), []).append(name)
    entries = {entry["name"]: entry for entry in balanced}
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for names, models in together.items():
        members = [entries[name] for name in names]
        differ = {
            "tls_certificate and tls_key": {bool(one["tls_certificate"]) for one in members},
            "task": {one["task"] for one in members},
            "api_key": {keys[one["name"]] for one in members},
        }
        problems += [
            "%s serve '%s' behind the load balancers with different %s: make them alike"
            % (" and ".join("'%s'" % one["name"] for one in members), models[0], key)
            for key, values in differ.items()
            if len(values) > 1
        ]
        found.append(
            {
                "name": re.sub(r"[^A-Za-z0-9._:-]", "_", models[0]),
                "models": models,
                "deployment": members[0]["name"],
                "tls": bool(members[0]["tls_certificate"]),
                "servers": [
                    {
                        "name": server_name(host, one["name"]),
                        "host": host,
                        "deployment": one["name"],
                        "address": one["reached_at"][host],
                        "port": one["port"],
                        "max_requests": max_requests(one),
                    }
                    for one in members
                    for host in one["hosts"]
                ],
            }
        )
    problems += [
        "the load balancer cannot call a server '%s': HAProxy takes letters, digits, '.', '_', ':' and '-' in a name"
        % server["name"]
        for backend in found
        for server in backend["servers"]
        if not _SERVER_NAME.match(server["name"])
    ]
    return found, list(dict.fromkeys(problems))


def max_requests(entry: Deployment) -> int:
    """Return how many requests the engine runs at once; more wait in the load balancer, for whoever is free first."""
    given = entry["engine_args"].get("max_num_seqs")
    return given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else 256
