# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which hosts take their turn in a rollout, in which batches, and what each of them has to do.

Pure logic. A batch is as large as was asked for, unless a model would have fewer hosts left than it needs: then hosts
wait for a later batch.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.plugin_utils.inventory_check import hosts_text
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Deployment

# {host: {deployment: what there is to do}}; (host, deployment); {load balancer: servers, as haproxy_servers has them}.
Work = Mapping[str, Mapping[str, str]]
Member = tuple[str, str]
Seen = Mapping[str, Iterable[Mapping[str, Any]]]

# What a deployment of a host may have to do, as the role vllm_server tells it, and for people.
WORDS = {
    "unknown": "start (once its image is there)",
    "start": "start",
    "replace": "replace",
    "gate": "pass the gate",
    "admit": "take back in",
    "rollback": "go back",
}
NOTHING = "nothing"
# Those that stop a server which may serve.
_STOPPING = ("replace", "gate", "rollback", "unknown")


class PlanError(Exception):
    """The rollout must not begin; its message is the one sentence."""


class Plan:
    """batches: lists of hosts in order. work: {host: {deployment: what there is to do}}, for hosts of batches alone.

    idle: hosts that have nothing to do. held: servers that an operator keeps in maintenance. models: for each
    group of servers its name, total, serving and floor.
    """

    def __init__(
        self, batches: list[list[str]], work: Work, idle: list[str], held: list[str], models: list[Group]
    ) -> None:
        self.batches, self.work, self.idle, self.held, self.models = batches, work, idle, held, models

    def as_dict(self) -> dict[str, Any]:
        return {
            "batches": self.batches,
            "order": [host for batch in self.batches for host in batch],
            "work": self.work,
            "idle": self.idle,
            "held": self.held,
            "models": [group.as_dict() for group in self.models],
        }

    def text(self) -> str:
        """Return the plan for people."""
        if not self.batches:
            return "Nothing to roll out: what runs on %s is what it is to be." % _hosts(self.idle)
        lines = []
        for number, batch in enumerate(self.batches, 1):
            what: dict[tuple[str, str], list[str]] = {}
            for host in batch:
                for deployment, do in self.work[host].items():
                    what.setdefault((deployment, do), []).append(host)
            lines.append(
                "batch %d: %s"
                % (
                    number,
                    "; ".join("%s %s on %s" % (WORDS[do], name, hosts_text(on)) for (name, do), on in what.items()),
                )
            )
        for group in self.models:
            if group.total > 1:
                lines.append(
                    "%s: %d of %d hosts serve, at least %d go on"
                    % (group.name, group.serving, group.total, min(group.floor, group.serving))
                )
        lines += ["%s is in maintenance at the load balancer, and is left out of it" % name for name in self.held]
        if self.idle:
            lines.append("nothing to do on %s" % _hosts(self.idle))
        return "\n".join(lines)


def _hosts(hosts: Sequence[str]) -> str:
    return hosts_text(hosts) if len(hosts) < 4 else "%d hosts" % len(hosts)


class Group:
    """Servers that can stand in for each other: all of a backend, or of a deployment without load balancers."""

    def __init__(self, name: str, members: list[Member], floor: int) -> None:
        # (host, deployment) of each.
        self.name, self.members, self.floor = name, members, floor
        self.total = len(members)
        self.serving = 0

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "total": self.total, "serving": self.serving, "floor": self.floor}


def amount(given: object, total: int, at_least: int = 0) -> int:
    """Return how many of total a number or a part such as '25%' means, rounded down."""
    text = str(given).strip()
    if re.match(r"\d+\Z", text):
        return max(int(text), at_least)
    if re.match(r"\d+%\Z", text):
        return max(int(text[:-1]) * total // 100, at_least)
    raise PlanError("'%s' is neither a number of hosts nor a part of them such as '25%%': correct it" % given)


def make_plan(
    deployments: Sequence[Deployment],
    backends: Iterable[Mapping[str, Any]],
    pending: Work,
    seen: Seen,
    batches: object,
    lost: Sequence[str] = (),
    max_lost: int = 0,
) -> Plan:
    """Return the Plan, or raise PlanError.

    deployments, backends: of the catalogue. pending: {host: {deployment: what the role vllm_server found}}, for all
    hosts that take part. seen: {load balancer: what haproxy_servers returned as servers}. batches: sizes, the last
    one holds for all that follow. lost: hosts that take part and cannot. max_lost: how many may be lost.
    """
    if len(lost) > max_lost:
        raise PlanError(
            "%d host%s lost before the rollout begins (%s) and vllm_max_lost is %d: bring %s back, take %s out of the "
            "inventory, or raise vllm_max_lost"
            % (
                len(lost),
                " is" if len(lost) == 1 else "s are",
                ", ".join(lost),
                max_lost,
                "it" if len(lost) == 1 else "them",
                "it" if len(lost) == 1 else "them",
            )
        )
    if not isinstance(batches, list) or not batches:
        raise PlanError("vllm_rollout_batches is %r, it takes a list such as [1, '25%%', '100%%']" % (batches,))
    balancer = _Balancers(seen)
    work, idle, held = _work(deployments, pending, balancer)
    groups = _groups(deployments, backends)
    serving = {member: _serves(member, pending, lost, balancer) for group in groups for member in group.members}
    for group in groups:
        group.serving = sum(serving[member] for member in group.members)
    # Those that serve nothing first: they cost nothing, and serve afterwards.
    order = sorted(work, key=lambda host: any(serving.get((host, name)) for name in work[host]))
    sizes = [amount(size, len(order), at_least=1) for size in batches]
    planned = _batches(order, work, groups, dict(serving), sizes, lost)
    return Plan(planned, work, idle, held, groups)


def stop_reasons(
    deployments: Sequence[Deployment],
    backends: Iterable[Mapping[str, Any]],
    work: Work,
    batch: Iterable[str],
    seen: Seen,
    lost: Sequence[str] = (),
    max_lost: int = 0,
) -> list[str]:
    """Return why a batch must not begin, as sentences; what has happened since the plan counts.

    work: of the plan. batch: its hosts. seen and lost: as make_plan takes them, of now.
    """
    reasons = []
    if len(lost) > max_lost:
        reasons.append(
            "%d host%s lost (%s) and vllm_max_lost is %d: bring back what is lost"
            % (len(lost), " is" if len(lost) == 1 else "s are", ", ".join(lost), max_lost)
        )
    balancer = _Balancers(seen)
    for group in _groups(deployments, backends):
        serving = set()
        for host, name in group.members:
            told = balancer.serves(_name(host, name))
            if told or (told is None and host not in lost):
                serving.add((host, name))
        stopping = {
            (host, name) for host in batch for name, what in work.get(host, {}).items() if what in _STOPPING
        } & serving
        if stopping and len(serving) - len(stopping) < group.floor:
            reasons.append(
                "%d of the %d hosts of %s serve and min_available is %d, so %s cannot be taken out: see what is down"
                % (
                    len(serving),
                    group.total,
                    group.name,
                    group.floor,
                    hosts_text(sorted(host for host, dummy in stopping)),
                )
            )
    return reasons


class _Balancers:
    """What the load balancers say of a server."""

    def __init__(self, seen: Seen) -> None:
        self.servers: dict[str, list[Mapping[str, Any]]] = {}
        for servers in seen.values():
            for server in servers:
                self.servers.setdefault(server["name"], []).append(server)

    def _admin(self, name: str, state: str) -> bool:
        return any(server["admin"] == state for server in self.servers.get(name, ()))

    def drained(self, name: str) -> bool:
        return self._admin(name, "drain")

    def held(self, name: str) -> bool:
        return self._admin(name, "maint")

    def serves(self, name: str) -> bool | None:
        """Return whether all send requests to it; None where none knows it."""
        servers = self.servers.get(name)
        if not servers:
            return None
        return all(server["admin"] == "ready" and not server["status"].startswith("DOWN") for server in servers)


def _name(host: str, deployment: str) -> str:
    return "%s:%s" % (host, deployment)


def _work(
    deployments: Iterable[Deployment], pending: Work, balancer: _Balancers
) -> tuple[dict[str, dict[str, str]], list[str], list[str]]:
    work: dict[str, dict[str, str]] = {}
    idle: list[str] = []
    held: list[str] = []
    for host, found in pending.items():
        mine = {}
        for deployment in deployments:
            name = deployment["name"]
            if host not in deployment["hosts"] or name not in found:
                continue
            what = NOTHING if found[name] == "stuck" else found[name]
            if what != NOTHING and what not in WORDS:
                raise PlanError(
                    "pending of '%s' on '%s' is '%s': it takes %s"
                    % (name, host, what, ", ".join([*WORDS, NOTHING, "stuck"]))
                )
            if deployment["balanced"] and balancer.held(_name(host, name)):
                held.append(_name(host, name))
            elif what == NOTHING and deployment["balanced"] and balancer.drained(_name(host, name)):
                what = "admit"
            if what != NOTHING:
                mine[name] = what
        if mine:
            work[host] = mine
        else:
            idle.append(host)
    return work, idle, held


def _groups(deployments: Sequence[Deployment], backends: Iterable[Mapping[str, Any]]) -> list[Group]:
    floors = {deployment["name"]: deployment["min_available"] for deployment in deployments}
    groups = []
    for backend in backends:
        members = [(server["host"], server["deployment"]) for server in backend["servers"]]
        floor = max(amount(floors[name], len(members)) for dummy, name in members)
        groups.append(Group(backend["name"], members, floor))
    for deployment in deployments:
        if not deployment["balanced"]:
            members = [(host, deployment["name"]) for host in deployment["hosts"]]
            groups.append(Group(deployment["name"], members, amount(deployment["min_available"], len(members))))
    return groups


def _serves(member: Member, pending: Work, lost: Container[str], balancer: _Balancers) -> bool:
    host, name = member
    found = pending.get(host, {}).get(name)
    told = balancer.serves(_name(host, name))
    if found in ("start", "unknown"):
        return False
    if told is not None:
        return told
    return host not in lost and found != "gate"


def _batches(
    order: Iterable[str],
    work: Work,
    groups: Sequence[Group],
    serving: dict[Member, bool],
    sizes: Sequence[int],
    lost: Iterable[str],
) -> list[list[str]]:
    batches: list[list[str]] = []
    waiting = list(order)
    groups_of: dict[Member, list[Group]] = {}
    for group in groups:
        for member in group.members:
            groups_of.setdefault(member, []).append(group)
    while waiting:
        size = sizes[min(len(batches), len(sizes) - 1)]
        left = {id(group): sum(serving[member] for member in group.members) for group in groups}
        batch: list[str] = []
        blocked: tuple[str, Group, int] | None = None
        for host in waiting:
            if len(batch) == size:
                break
            costs: dict[int, tuple[Group, int]] = {}
            for name, what in work[host].items():
                if what in _STOPPING and serving.get((host, name)):
                    for group in groups_of[host, name]:
                        costs[id(group)] = group, costs.get(id(group), (group, 0))[1] + 1
            short = [(group, cost) for group, cost in costs.values() if left[id(group)] - cost < group.floor]
            if short:
                blocked = blocked or (host, *short[0])
                continue
            for group, cost in costs.values():
                left[id(group)] -= cost
            batch.append(host)
        if not batch:
            raise PlanError(_why_blocked(*blocked, serving, lost) if blocked else "a batch has no room for a host")
        batches.append(batch)
        waiting = [host for host in waiting if host not in set(batch)]
        for host in batch:
            for name in work[host]:
                if (host, name) in serving:
                    serving[host, name] = True
    return batches


def _why_blocked(host: str, group: Group, cost: int, serving: Mapping[Member, bool], lost: Iterable[str]) -> str:
    serves = sum(serving[member] for member in group.members)
    if serves == group.total:
        return (
            "%s has %d host%s and min_available keeps %d of them serving, so %s can never be replaced: set "
            "min_available to %d or less"
            % (group.name, group.total, "s"[: group.total != 1], group.floor, host, group.total - cost)
        )
    out = [member[0] for member in group.members if not serving[member]]
    return (
        "%d of the %d hosts of %s serve and min_available is %d, so %s cannot be replaced while %s %s out%s: bring %s "
        "back, or lower min_available"
        % (
            serves,
            group.total,
            group.name,
            group.floor,
            host,
            hosts_text(out),
            "is" if len(out) == 1 else "are",
            " (lost)" if set(out) & set(lost) else "",
            "it" if len(out) == 1 else "them",
        )
    )
