"""Tests of docker_firewall: which rules come of what is asked for, how they differ from what is loaded, refusals.

Listings are those of iptables 1.8.9 (nf_tables). iptables and systemctl are scripts that note how they were called.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _docker_firewall
from ansible_collections.llmops.vllm.plugins.modules import docker_firewall

LOCAL = ["10.1.0.11", "127.0.0.1"]
WEB = {"name": "web", "address": "10.1.0.11", "port": 8000, "container_port": None, "allow_from": ["10.1.0.5"]}
ALL = {**WEB, "name": "all", "address": "0.0.0.0", "port": 8001, "container_port": 80, "allow_from": []}
POLICIES = "".join(f"-P {name} ACCEPT\n" for name in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"))
FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.1.0.0/24 2 0 1
        |-- 10.1.0.0
           /24 link UNICAST
        |-- 10.1.0.11
           /32 host LOCAL
        |-- 10.1.0.255
           /32 link BROADCAST
Local:
     +-- 127.0.0.0/31 1 0 0
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
"""
LISTING = (
    POLICIES
    + """\
-N LLMOPS-VLLM
-N LLMOPS-VLLM-ROUTED
-A PREROUTING -j LLMOPS-VLLM
-A FORWARD -j LLMOPS-VLLM-ROUTED
-A LLMOPS-VLLM -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A LLMOPS-VLLM -i lo -j RETURN
-A LLMOPS-VLLM -m addrtype ! --dst-type LOCAL -j RETURN
-A LLMOPS-VLLM -s 10.1.0.5/32 -d 10.1.0.11/32 -p tcp -m tcp --dport 8000 -m comment --comment web -j RETURN
-A LLMOPS-VLLM -d 10.1.0.11/32 -p tcp -m tcp --dport 8000 -m comment --comment web -j DROP
-A LLMOPS-VLLM-ROUTED -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j RETURN
-A LLMOPS-VLLM-ROUTED -i docker0 -j RETURN
-A LLMOPS-VLLM-ROUTED -i br-+ -j RETURN
-A LLMOPS-VLLM-ROUTED -o docker0 -p tcp -m tcp --dport 8000 -j DROP
-A LLMOPS-VLLM-ROUTED -o br-+ -p tcp -m tcp --dport 8000 -j DROP
"""
)


def wanted(*rules: dict, version: int = 4) -> dict[str, list[str]]:
    return _docker_firewall.chains(_docker_firewall.read_rules(rules, LOCAL), version)


def plan(text: str, *rules: dict) -> list[str]:
    return _docker_firewall.plan(wanted(*rules), _docker_firewall.read_listing(text)).splitlines()


def test_addresses_of_the_host() -> None:
    assert _docker_firewall.local_addresses(FIB_TRIE) == ["10.1.0.11", "127.0.0.0", "127.0.0.1"]


def test_rules_are_as_iptables_lists_them() -> None:
    found = _docker_firewall.read_listing(LISTING)
    assert wanted(WEB) == {chain: found[chain] for chain in _docker_firewall.CHAINS}
    assert plan(LISTING, WEB) == []


@pytest.mark.parametrize(
    ("source", "begin"),
    [
        ("10.1.0.5", "-s 10.1.0.5/32 -d"),
        ("10.1.0.5/32", "-s 10.1.0.5/32 -d"),
        ("10.2.0.0/24", "-s 10.2.0.0/24 -d"),
        ("10.2.0.0/255.255.255.0", "-s 10.2.0.0/24 -d"),
        # iptables lists no source where it is everybody.
        ("0.0.0.0/0", "-d"),
    ],
)
def test_a_source_lets_in_before_all_others_are_dropped(source: str, begin: str) -> None:
    allowed, dropped = wanted({**WEB, "allow_from": [source, source]})["LLMOPS-VLLM"][3:]
    assert allowed.startswith(begin) and allowed.endswith("--dport 8000 -m comment --comment web -j RETURN")
    assert dropped == "-d 10.1.0.11/32 -p tcp -m tcp --dport 8000 -m comment --comment web -j DROP"


def test_nobody_and_all_addresses() -> None:
    chains = wanted(ALL)
    assert chains["LLMOPS-VLLM"][3:] == ["-p tcp -m tcp --dport 8001 -m comment --comment all -j DROP"]
    assert [rule for rule in chains["LLMOPS-VLLM-ROUTED"] if "DROP" in rule] == [
        "-o docker0 -p tcp -m tcp --dport 80 -j DROP",
        "-o br-+ -p tcp -m tcp --dport 80 -j DROP",
    ]


def test_over_ipv6_nobody_reaches_what_is_published_everywhere() -> None:
    assert wanted(WEB, version=6) == {}
    assert wanted({**ALL, "allow_from": ["10.1.0.5"]}, WEB, version=6) == {
        "LLMOPS-VLLM": [*_docker_firewall.HEAD, "-p tcp -m tcp --dport 8001 -m comment --comment all -j DROP"]
    }


def test_no_rules_are_nothing() -> None:
    assert plan(POLICIES) == []
    assert _docker_firewall.restore(wanted()) == ""


def test_on_a_fresh_host_all_comes_in_one_step() -> None:
    assert plan(POLICIES, WEB) == [
        "*mangle",
        ":LLMOPS-VLLM - [0:0]",
        ":LLMOPS-VLLM-ROUTED - [0:0]",
        *(line for line in LISTING.splitlines() if line.startswith("-A LLMOPS")),
        "-I PREROUTING 1 -j LLMOPS-VLLM",
        "-I FORWARD 1 -j LLMOPS-VLLM-ROUTED",
        "COMMIT",
    ]


@pytest.mark.parametrize(
    ("old", "new", "further"),
    [
        # Flushed, changed, in another order.
        ("-A LLMOPS-VLLM -i lo -j RETURN\n", "", []),
        ("--comment web -j DROP", "--comment web -j RETURN", []),
        ("10.1.0.5/32", "10.1.0.6/32", []),
        (
            "-i docker0 -j RETURN\n-A LLMOPS-VLLM-ROUTED -i br-+",
            "-i br-+ -j RETURN\n-A LLMOPS-VLLM-ROUTED -i docker0",
            [],
        ),
        ("-j DROP\n", "-j DROP\n-A LLMOPS-VLLM -j ACCEPT\n", []),
        # The jump is gone, there twice, behind another one, with a condition.
        ("-A PREROUTING -j LLMOPS-VLLM\n", "", ["-I PREROUTING 1 -j LLMOPS-VLLM"]),
        (
            "-A PREROUTING -j LLMOPS-VLLM\n",
            "-A PREROUTING -j LLMOPS-VLLM\n" * 2,
            ["-D PREROUTING -j LLMOPS-VLLM"] * 2 + ["-I PREROUTING 1 -j LLMOPS-VLLM"],
        ),
        (
            "-A FORWARD -j LLMOPS",
            '-A FORWARD -m comment --comment "it\'s \\"his\\"" -j ACCEPT\n-A FORWARD -j LLMOPS',
            ["-D FORWARD -j LLMOPS-VLLM-ROUTED", "-I FORWARD 1 -j LLMOPS-VLLM-ROUTED"],
        ),
        (
            "-A PREROUTING -j LLMOPS-VLLM\n",
            "-A PREROUTING -i eth1 -j LLMOPS-VLLM\n",
            ["-D PREROUTING -i eth1 -j LLMOPS-VLLM", "-I PREROUTING 1 -j LLMOPS-VLLM"],
        ),
    ],
)
def test_drift_is_put_right(old: str, new: str, further: list[str]) -> None:
    assert LISTING.count(old) >= 1
    lines = plan(LISTING.replace(old, new, 1), WEB)
    assert lines[:3] == ["*mangle", ":LLMOPS-VLLM - [0:0]", ":LLMOPS-VLLM-ROUTED - [0:0]"]
    assert [line for line in lines if line[:2] in ("-I", "-D", "-X")] == further


def test_the_order_in_which_iptables_writes_options_is_none_of_drift() -> None:
    other = LISTING.replace("--ctstate RELATED,ESTABLISHED ", "--ctstate ESTABLISHED,RELATED ").replace(
        "-p tcp -m tcp --dport 8000 -m comment --comment web", "-m comment --comment web -p tcp --dport 8000"
    )
    assert other != LISTING
    assert plan(other, WEB) == []


def test_what_goes_is_emptied_first_and_jumped_to_from_nowhere() -> None:
    listing = LISTING + "-A POSTROUTING -g LLMOPS-VLLM\n-A POSTROUTING -j OTHERS\n"
    assert plan(listing) == [
        "*mangle",
        ":LLMOPS-VLLM - [0:0]",
        ":LLMOPS-VLLM-ROUTED - [0:0]",
        "-D PREROUTING -j LLMOPS-VLLM",
        "-D FORWARD -j LLMOPS-VLLM-ROUTED",
        "-D POSTROUTING -g LLMOPS-VLLM",
        "-X LLMOPS-VLLM",
        "-X LLMOPS-VLLM-ROUTED",
        "COMMIT",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a b"}, "'a b' is no name of a rule"),
        ({"name": "a\n-F"}, "is no name of a rule"),
        ({"name": "-j"}, "'-j' is no name of a rule"),
        ({"port": 0}, "web: port 0 is not between 1 and 65535"),
        ({"container_port": 70000}, "web: container_port 70000 is not between 1 and 65535"),
        ({"address": "gpu1"}, "web: address 'gpu1' is no IPv4 address"),
        ({"address": "10.1.0.11/24"}, "web: address '10.1.0.11/24' is no IPv4 address"),
        ({"address": "::"}, "web: address '::' is of IPv6"),
        (
            {"address": "10.1.0.12"},
            "web: this host has no address 10.1.0.12, and the port would stay open: it has 10.1.0.11;",
        ),
        ({"allow_from": ["lb1"]}, "web: allow_from has 'lb1', which is no IPv4 address or network"),
        ({"allow_from": ["10.0.0.0/33"]}, "web: allow_from has '10.0.0.0/33', which is no"),
        ({"allow_from": ["2001:db8::/64"]}, "web: allow_from has '2001:db8::/64', which is of IPv6"),
        ({"allow_from": ["10.0.0.5/24"]}, "write 10.0.0.0/24 for the network, or 10.0.0.5 for the address"),
    ],
)
def test_what_is_wrong_is_named(change: dict, said: str) -> None:
    with pytest.raises(_docker_firewall.FirewallError) as caught:
        wanted({**WEB, **change})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("address", "other", "clash"),
    [
        ("10.1.0.11", "10.1.0.11", "10.1.0.11"),
        ("0.0.0.0", "10.1.0.11", "10.1.0.11"),
        ("10.1.0.11", "0.0.0.0", "10.1.0.11"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0"),
        ("10.1.0.11", "127.0.0.1", None),
    ],
)
def test_one_port_has_one_rule(address: str, other: str, clash: str | None) -> None:
    rules = [{**WEB, "address": address}, {**WEB, "name": "b", "address": other}]
    if clash is None:
        assert len(wanted(*rules)["LLMOPS-VLLM"]) == 7
        return
    with pytest.raises(_docker_firewall.FirewallError) as caught:
        wanted(*rules)
    assert f"web and b are both on port 8000 of {clash}:" in str(caught.value)


class Host:
    """A host whose iptables and systemctl are scripts: what they were called with, and what they answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("iptables", "ip6tables", "systemctl"):
            self.script(name, f'cat "{folder}/{name}.answer"')
            self.answer(name, POLICIES if name != "systemctl" else "ActiveState=inactive\nUnitFileState=\n")
        for name in ("iptables-restore", "ip6tables-restore"):
            self.script(name, f'cat >"{folder}/{name}.input"')

    def script(self, name: str, does: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.folder}/calls"\n{does}\n')
        path.chmod(0o755)

    def answer(self, name: str, text: str) -> None:
        (self.folder / f"{name}.answer").write_text(text)

    def calls(self) -> list[str]:
        """What was called that changes anything, since it was last asked."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line for line in lines if "--list-rules" not in line and " show " not in line]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    etc = tmp_path / "etc"
    (tmp_path / "systemd").mkdir()
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").touch()
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(docker_firewall, "FILES", {4: str(etc / "firewall.rules"), 6: str(etc / "firewall6.rules")})
    monkeypatch.setattr(docker_firewall, "UNIT", str(tmp_path / "systemd" / "llmops-vllm-firewall.service"))
    monkeypatch.setattr(docker_firewall, "SYSTEMD", str(tmp_path / "run"))
    monkeypatch.setattr(docker_firewall, "FIB_TRIE", str(tmp_path / "fib_trie"))
    monkeypatch.setattr(docker_firewall, "IPV6", str(tmp_path / "if_inet6"))
    monkeypatch.setattr(docker_firewall, "SEARCH_PATH", str(made.bin))
    monkeypatch.setenv("PATH", str(made.bin), prepend=":")
    return made


@pytest.fixture
def run(run_module: Any, host: Host) -> Callable[..., dict[str, Any]]:
    def call(*rules: dict, **params: Any) -> dict[str, Any]:
        given = [{key: value for key, value in rule.items() if value is not None} for rule in rules]
        return run_module(docker_firewall.main, rules=given, **params)

    return call


def settled(host: Host) -> None:
    """As it is after a run with WEB."""
    host.answer("iptables", LISTING)
    host.answer("systemctl", "ActiveState=active\nUnitFileState=enabled\n")
    host.calls()


def test_check_run_and_again(run: Any, host: Host) -> None:
    foretold = run(WEB, check_mode=True)
    assert host.calls() == ["iptables-restore --wait 30 --noflush --test"]
    assert not os.path.exists(docker_firewall.FILES[4])

    done = run(WEB)
    assert (
        done["actions"]
        == foretold["actions"]
        == [
            "rules of IPv4 loaded",
            f"{docker_firewall.FILES[4]} written",
            f"{docker_firewall.UNIT} written",
            "llmops-vllm-firewall.service enabled",
            "llmops-vllm-firewall.service started",
        ]
    )
    assert (done["changed"], done["drifted"], done["persistent"]) == (True, False, True)
    assert host.calls() == [
        "iptables-restore --wait 30 --noflush --test",
        "iptables-restore --wait 30 --noflush",
        "systemctl daemon-reload",
        "systemctl enable llmops-vllm-firewall.service",
        "systemctl start llmops-vllm-firewall.service",
    ]
    file = Path(docker_firewall.FILES[4])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert done["diff"][0]["after"] == file.read_text()
    unit = Path(docker_firewall.UNIT).read_text()
    assert f"ExecStart={host.bin}/iptables-restore --wait 30 --noflush {file}\n" in unit
    assert "ip6tables" not in unit

    settled(host)
    again = run(WEB)
    assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
    assert host.calls() == []


def test_rules_that_somebody_took_out_come_back(run: Any, host: Host) -> None:
    run(WEB)
    settled(host)
    host.answer("iptables", POLICIES)
    done = run(WEB)
    assert (done["drifted"], done["actions"]) == (True, ["rules of IPv4 loaded"])
    assert done["diff"][0]["before"] == ""
    assert "-A PREROUTING -j LLMOPS-VLLM\n" in done["diff"][0]["after"]


def test_a_file_that_others_can_read_is_put_right(run: Any, host: Host) -> None:
    run(WEB)
    settled(host)
    os.chmod(docker_firewall.FILES[4], 0o644)
    assert run(WEB)["actions"] == [f"{docker_firewall.FILES[4]} written"]
    assert stat.S_IMODE(os.stat(docker_firewall.FILES[4]).st_mode) == 0o600


@pytest.mark.parametrize("params", [{"state": "absent"}, {}])
def test_absent_and_an_empty_list_leave_nothing(run: Any, host: Host, params: dict) -> None:
    run(WEB, ALL)
    settled(host)
    assert run(check_mode=True, **params)["changed"]
    assert host.calls() == ["iptables-restore --wait 30 --noflush --test"]
    done = run(**params)
    assert done["actions"] == [
        "rules of IPv4 taken out",
        f"{docker_firewall.FILES[4]} removed",
        f"{docker_firewall.FILES[6]} removed",
        f"{docker_firewall.UNIT} removed",
    ]
    assert "systemctl disable --now llmops-vllm-firewall.service" in host.calls()
    assert not os.path.exists(os.path.dirname(docker_firewall.FILES[4]))
    host.answer("iptables", POLICIES)
    assert not run(**params)["changed"]
    assert host.calls() == []


def test_the_folder_stays_where_others_keep_something(run: Any, host: Host) -> None:
    run(WEB)
    key = Path(docker_firewall.FILES[4]).parent / "api_key"
    key.touch()
    run(state="absent")
    assert os.listdir(key.parent) == ["api_key"]


def test_what_iptables_refuses_changes_nothing(run: Any, host: Host) -> None:
    host.script("ip6tables-restore", "echo 'line 3 failed' >&2; exit 1")
    done = run(WEB, ALL)
    assert done["failed"]
    assert done["msg"].endswith("ip6tables-restore says: line 3 failed")
    assert host.calls() == [
        "iptables-restore --wait 30 --noflush --test",
        "ip6tables-restore --wait 30 --noflush --test",
    ]
    assert not os.path.exists(docker_firewall.FILES[4])


def test_a_table_that_cannot_be_read_is_no_empty_one(run: Any, host: Host) -> None:
    host.script("iptables", "echo 'table `mangle` is incompatible' >&2; exit 1")
    done = run(WEB)
    assert "the loaded rules cannot be read, since" in done["msg"] and "is incompatible" in done["msg"]


def test_without_iptables(run: Any, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_firewall, "SEARCH_PATH", "/nonexistent")
    monkeypatch.setattr(
        docker_firewall, "PROGRAMS", {4: ("noiptables", "noiptables-restore"), 6: ("no6", "no6-restore")}
    )
    # Docker, which brings it, may only come with the run itself.
    assert run(WEB, check_mode=True)["actions"][0] == "rules of IPv4 loaded"
    done = run(WEB)
    assert done["msg"] == "/usr/sbin/noiptables is not on this host: install the package iptables"
    assert not run(state="absent")["changed"]


def test_without_systemd_it_says_that_a_reboot_forgets(run: Any, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(docker_firewall, "SYSTEMD", "/nonexistent")
    monkeypatch.setattr(docker_firewall.AnsibleModule, "warn", lambda module, text: said.append(text))
    done = run(WEB)
    assert not done["persistent"]
    assert said == ["no systemd runs on this host: a reboot forgets who may reach the ports, until the next run"]
    assert not os.path.exists(docker_firewall.UNIT)
    assert [call for call in host.calls() if call.startswith("systemctl")] == []


def test_without_ipv6_nothing_is_loaded_for_it(run: Any, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_firewall, "IPV6", "/nonexistent")
    assert not run(ALL)["failed"]
    assert not os.path.exists(docker_firewall.FILES[6])
    assert [call for call in host.calls() if call.startswith("ip6tables")] == []


def test_wrong_rules_change_nothing(run: Any, host: Host) -> None:
    done = run({**WEB, "address": "10.9.9.9"})
    assert "this host has no address 10.9.9.9" in done["msg"]
    assert host.calls() == []
