# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Who may reach the ports that Docker publishes: rules of iptables, and how those that are loaded differ from them.

They are in the table mangle, where a packet still has the address and the port that it was sent to, and where Docker
has nothing. In DOCKER-USER a port is open while Docker takes its jump there out to put it in first again, as it does
whenever a network is made; and containers of the same host come in by docker-proxy, past that chain.

Pure logic: no files, no iptables.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

# To the published port, whether Docker or docker-proxy passes it on.
CHAIN = "LLMOPS-VLLM"
# Straight to the container's own address, by somebody who has a route there.
ROUTED = "LLMOPS-VLLM-ROUTED"
HOOKS = {CHAIN: "PREROUTING", ROUTED: "FORWARD"}
CHAINS = tuple(HOOKS)
# What goes over lo comes from the host itself; what is for another host is none of its ports.
HEAD = (
    "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
    "-i lo -j RETURN",
    "-m addrtype ! --dst-type LOCAL -j RETURN",
)
HEAD_ROUTED = ("-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j RETURN",)
# Docker's default network, and those that it names itself.
BRIDGES = ("docker0", "br-+")
EVERYWHERE = "0.0.0.0"
# It stands in a file that iptables-restore reads, and iptables takes no longer comments.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class FirewallError(Exception):
    """One sentence about a rule or about iptables."""


def read_rules(rules: Iterable[Mapping[str, Any]], local: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Return the rules with their addresses as iptables writes them, or tell what is wrong with one.

    local: the addresses of the host. A rule for another one would match nothing, and leave the port open.
    """
    done: list[dict[str, Any]] = []
    for rule in rules:
        name = rule["name"]
        if not NAME.fullmatch(name):
            raise FirewallError("%r is no name of a rule: use letters, digits, _, . and -, 200 at most" % name)
        for key in ("port", "container_port"):
            port = rule.get(key)
            if port is not None and not 0 < port < 65536:
                raise FirewallError("%s: %s %d is not between 1 and 65535" % (name, key, port))
        address = _address(name, rule["address"], local)
        for other in done:
            if other["port"] == rule["port"] and (
                other["address"] == address or EVERYWHERE in (other["address"], address)
            ):
                raise FirewallError(
                    "%s and %s are both on port %d of %s: one port has one rule, with all that may reach it"
                    % (
                        other["name"],
                        name,
                        rule["port"],
                        address if other["address"] == EVERYWHERE else other["address"],
                    )
                )
        sources = [_source(name, source) for source in rule["allow_from"]]
        done.append(
            {
                "name": name,
                "address": address,
                "port": rule["port"],
                "container_port": rule.get("container_port") or rule["port"],
                "allow_from": list(dict.fromkeys(sources)),
            }
        )
    return done


def local_addresses(fib_trie: str) -> list[str]:
    """Return the IPv4 addresses of a host, of the text of /proc/net/fib_trie, in its order."""
    found: dict[str, None] = {}
    last = ""
    for line in fib_trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            last = words[1]
        elif words[1:] == ["host", "LOCAL"]:
            found[last] = None
    return list(found)


def chains(rules: Sequence[Mapping[str, Any]], version: int) -> dict[str, list[str]]:
    """Return {chain: its rules} for IPv4 (4) or IPv6 (6), empty where nothing is to be loaded."""
    if version == 6:
        # Docker publishes a port of all addresses on those of IPv6 as well; nobody is allowed there.
        open_names = [(rule["port"], rule["name"]) for rule in rules if rule["address"] == EVERYWHERE]
        drops = ["-p tcp -m tcp --dport %d -m comment --comment %s -j DROP" % pair for pair in open_names]
        return {CHAIN: [*HEAD, *drops]} if drops else {}
    if not rules:
        return {}
    published = list(HEAD)
    for rule in rules:
        where = "" if rule["address"] == EVERYWHERE else "-d %s/32 " % rule["address"]
        rest = "%s-p tcp -m tcp --dport %d -m comment --comment %s" % (where, rule["port"], rule["name"])
        for source in rule["allow_from"]:
            published.append("%s%s -j RETURN" % ("" if source == "0.0.0.0/0" else "-s %s " % source, rest))
        published.append("%s -j DROP" % rest)
    # Containers among each other are Docker's own business.
    routed = [*HEAD_ROUTED, *("-i %s -j RETURN" % bridge for bridge in BRIDGES)]
    for port in sorted({rule["container_port"] for rule in rules}):
        routed += ["-o %s -p tcp -m tcp --dport %d -j DROP" % (bridge, port) for bridge in BRIDGES]
    return {CHAIN: published, ROUTED: routed}


def restore(wanted: Mapping[str, Sequence[str]], further: Sequence[str] = ()) -> str:
    """Return the input of iptables-restore that fills chains, empty where there are none."""
    if not wanted and not further:
        return ""
    lines = [":%s - [0:0]" % chain for chain in wanted]
    lines += ["-A %s %s" % (chain, rule) for chain, rules in wanted.items() for rule in rules]
    return "\n".join(["*mangle", *lines, *further, "COMMIT", ""])


def read_listing(text: str) -> dict[str, list[str]]:
    """Return {chain: its rules} of what `iptables -t mangle -S` printed."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        command, _space, rest = line.partition(" ")
        chain, _space, rule = rest.partition(" ")
        if command in ("-P", "-N"):
            found.setdefault(chain, [])
        elif command == "-A":
            found.setdefault(chain, []).append(rule)
    return found


def plan(wanted: Mapping[str, list[str]], loaded: Mapping[str, list[str]]) -> str:
    """Return the input of iptables-restore that makes what is loaded what is wanted, in one step; '' when it is."""
    further = []
    for chain in wanted:
        there = loaded.get(HOOKS[chain], [])
        ours = [rule for rule in there if _target(rule) == chain]
        # First: what stands before it could let a packet pass.
        if there[:1] != ours or ours != ["-j %s" % chain]:
            further += ["-D %s %s" % (HOOKS[chain], rule) for rule in ours]
            further.append("-I %s 1 -j %s" % (HOOKS[chain], chain))
    gone = [chain for chain in CHAINS if chain in loaded and chain not in wanted]
    for hook, rules in loaded.items():
        if hook not in CHAINS:
            further += ["-D %s %s" % (hook, rule) for rule in rules if _target(rule) in gone]
    if not further and not gone and all(_equal(loaded.get(chain), rules) for chain, rules in wanted.items()):
        return ""
    # Declared, a chain is emptied; only then it can go.
    return restore({**wanted, **{chain: [] for chain in gone}}, further + ["-X %s" % chain for chain in gone])


def shown(loaded: Mapping[str, list[str]]) -> str:
    """Return our chains, and those of the kernel that jump there, as text for a diff."""
    chains_shown = [*HOOKS.values(), *CHAINS]
    return "".join("-A %s %s\n" % (chain, rule) for chain in chains_shown for rule in loaded.get(chain, []))


def afterwards(wanted: Mapping[str, list[str]], loaded: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return what is loaded after a plan has been carried out."""
    jumps = {
        hook: (["-j %s" % chain] if chain in wanted else [])
        + [rule for rule in loaded.get(hook, []) if _target(rule) != chain]
        for chain, hook in HOOKS.items()
    }
    return {**jumps, **wanted}


def unit(
    programs: Mapping[int, tuple[str, str]], files: Mapping[int, str], wanted: Mapping[int, Mapping[str, list[str]]]
) -> str:
    """Return the text of the unit that loads the files at boot, before Docker, and again with what may flush them.

    programs, files, wanted: by version of IP; programs is (iptables, iptables-restore).
    """
    lines = []
    for version, filled in wanted.items():
        if filled:
            iptables, iptables_restore = programs[version]
            lines.append("ExecStart=%s --wait 30 --noflush %s" % (iptables_restore, files[version]))
        for chain in filled:
            command = "%s --wait 30 --table mangle" % iptables
            jump = "%s --jump %s" % (HOOKS[chain], chain)
            lines.append(
                "ExecStart=/bin/sh -c '%s --check %s 2>/dev/null || %s --insert %s'" % (command, jump, command, jump)
            )
    return UNIT % "\n".join(lines)


# PartOf: some of these begin with no rules at all when they are restarted.
UNIT = """\
# Made by the role docker_firewall.
[Unit]
Description=Who may reach the ports that Docker publishes for vLLM
DefaultDependencies=no
Wants=network-pre.target
After=local-fs.target systemd-modules-load.service
After=nftables.service netfilter-persistent.service iptables.service firewalld.service
Before=network-pre.target docker.service shutdown.target
Conflicts=shutdown.target
PartOf=docker.service nftables.service netfilter-persistent.service iptables.service firewalld.service

[Service]
Type=oneshot
RemainAfterExit=yes
%s

[Install]
WantedBy=multi-user.target docker.service
"""


def _address(name: str, text: str, local: Collection[str] | None) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise FirewallError(
            "%s: address %r is no IPv4 address: name the one that the port is published on, or 0.0.0.0" % (name, text)
        ) from None
    if address.version == 6:
        raise FirewallError(
            "%s: address %r is of IPv6, where nobody can be allowed: publish the port on an IPv4 address" % (name, text)
        )
    text = str(address)
    if not (local is None or text == EVERYWHERE or address.is_loopback or text in local):
        raise FirewallError(
            "%s: this host has no address %s, and the port would stay open: it has %s; 0.0.0.0 stands for all of them"
            % (name, text, ", ".join(each for each in local if not each.startswith("127.")) or "none")
        )
    return text


def _source(name: str, text: str) -> str:
    try:
        # The words of an interface keep the host's part.
        network = ipaddress.ip_interface(text)
    except ValueError:
        raise FirewallError(
            "%s: allow_from has %r, which is no IPv4 address or network: write 10.0.0.5 or 10.0.0.0/24" % (name, text)
        ) from None
    if network.version == 6:
        raise FirewallError(
            "%s: allow_from has %r, which is of IPv6, where nobody reaches the port: name IPv4 addresses" % (name, text)
        )
    if network.ip != network.network.network_address:
        raise FirewallError(
            "%s: allow_from has %r, an address within a network: write %s for the network, or %s for the address"
            % (name, text, network.network, network.ip)
        )
    return str(network.network)


def _target(rule: str) -> str:
    try:
        words = shlex.split(rule)
    except ValueError:
        # Somebody else's, with a comment of its own kind.
        return ""
    for option in ("-j", "-g"):
        if option in words[:-1]:
            return words[words.index(option) + 1]
    return ""


def _equal(rules: Iterable[str] | None, others: Iterable[str]) -> bool:
    return rules is not None and [_normal(rule) for rule in rules] == [_normal(rule) for rule in others]


def _normal(rule: str) -> list[tuple[Any, ...]]:
    """Return a rule in a form that does not depend on how iptables orders options when it prints them."""
    options = []
    inverted = False
    for word in shlex.split(rule):
        if word == "!":
            inverted = True
        elif word.startswith("-"):
            options.append([inverted, word])
            inverted = False
        elif options:
            options[-1].append(",".join(sorted(word.split(","))))
    return sorted(tuple(option) for option in options if option[1] != "-m")
