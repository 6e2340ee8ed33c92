"""The action vllm_preflight, run by Ansible on the controller: what it returns, shows, writes and refuses."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import test_findings as hosts
import yaml
from ansible.errors import AnsibleActionFail

from ansible_collections.llmops.vllm.plugins.action import vllm_preflight
from ansible_collections.llmops.vllm.plugins.modules import vllm_preflight as documented

PROJECT = Path(__file__).parents[2]
NGINX = "nginx (pid 812) holds the port 30080: choose another port, or stop what holds it"
NO_SYSTEMD = "systemd does not run, so nothing starts Docker and readies the GPUs after a reboot: see to that yourself"


def seen(**changes: Any) -> dict[str, Any]:
    """What Ansible has registered of a host in order."""
    host = hosts.rtx4090()
    host.update(changed=False, failed=False, invocation={"module_args": {"token": "geheim"}}, _ansible_no_log=False)
    host["system"].update(changes)
    return host


def with_nginx(host: dict[str, Any]) -> dict[str, Any]:
    host["ports"] = {"30080": hosts.AN_APP}
    return host


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(vllm_preflight.display, "display", lines.append)
    return lines


@pytest.fixture
def run(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def start(found: dict[str, Any], check_mode: bool = False, **args: Any) -> dict[str, Any]:
        given = {"deployments": hosts.of_hosts(list(found), hosts.deployment()), "hosts": found, **args}
        task = MagicMock(args=given, check_mode=check_mode)
        plugin = vllm_preflight.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
        monkeypatch.setattr(vllm_preflight.ActionBase, "run", lambda self, tmp, task_vars: {})
        return plugin.run(task_vars={})

    return start


def test_hosts_in_order(run: Any, shown: list[str]) -> None:
    assert run({"gpu1": seen(), "gpu2": seen()}) == {
        "changed": False,
        "findings": [],
        "errors": 0,
        "warnings_count": 0,
        "msg": "nothing stands in the way on 2 hosts",
    }
    assert shown == []


def test_all_problems_of_all_hosts_at_once(run: Any, shown: list[str]) -> None:
    broken = with_nginx(seen(service_manager=""))
    hosts.taken(broken, 20)
    result = run({"gpu1": broken, "gpu2": seen(), "gpu3": with_nginx(seen())})
    assert result["failed"] is True
    assert (result["errors"], result["warnings_count"]) == (3, 1)
    assert result["msg"].splitlines() == [
        "3 problems on 2 hosts:",
        (
            "- gpu1, llama: GPU 0 has 4.0 of 24.0 GiB free and gpu_memory_utilization 0.92 needs 22.1: stop "
            "what holds the rest (python3, pid 4711 with 20.0 GiB), or set gpu_memory_utilization to 0.16 or "
            "less"
        ),
        f"- gpu1, llama: {NGINX}",
        f"- gpu3, llama: {NGINX}",
    ]
    assert shown == [f"  [gpu1] warning: {NO_SYSTEMD}"]
    assert [(one["host"], one["code"]) for one in result["findings"]] == [
        ("gpu1", "gpu_memory_taken"),
        ("gpu1", "port_taken"),
        ("gpu1", "no_service_manager"),
        ("gpu3", "port_taken"),
    ]


def test_warnings_stop_nothing(run: Any, shown: list[str]) -> None:
    result = run({"gpu1": seen(service_manager="")})
    assert "failed" not in result
    assert result["msg"] == f"1 warning on 1 host:\n- gpu1: {NO_SYSTEMD}"
    assert shown == [f"  [gpu1] warning: {NO_SYSTEMD}"]


def test_what_is_ignored(run: Any, shown: list[str]) -> None:
    result = run({"gpu1": with_nginx(seen(service_manager=""))}, ignore=["port_taken", "no_service_manager"])
    assert (result["findings"], "failed" in result, shown) == ([], False, [])


@pytest.mark.parametrize(
    ("code", "hint"),
    [("port_taking", "did you mean 'port_taken'?"), ("sunshine", "it takes address_unknown, cdi_stale, ")],
)
def test_a_code_that_is_none(run: Any, code: str, hint: str) -> None:
    with pytest.raises(
        AnsibleActionFail, match=f"^ignore has '{code}', which is no code of a finding: {re.escape(hint)}"
    ):
        run({"gpu1": seen()}, ignore=[code])


def test_a_host_that_was_not_looked_at_is_ansibles_to_report(run: Any) -> None:
    failed = {"failed": True, "msg": "no python"}
    assert run({"gpu1": seen(), "gpu2": failed})["msg"] == "nothing stands in the way on 1 host"


def test_settings(run: Any) -> None:
    host = seen()
    host["filesystems"] = [hosts.disk("/var/lib/docker", 40), hosts.disk("/home/llm/vllm/model", 100, "/dev/sdb1")]
    assert run({"gpu1": host})["findings"] == []
    (found,) = run({"gpu1": host}, image_size=50)["findings"]
    assert found["text"] == "/ has 40.0 GB free and images need 50.0 GB"
    assert run({"gpu1": host}, image_size="50", image_source="wheels")["findings"] == []
    assert run({"gpu1": host}, image_size=50, image_source="build", image_builder="gpu1")["findings"] == []
    (found,) = run({"gpu1": host}, install_docker=False)["findings"]
    assert found["code"] == "docker_missing"
    (found,) = run({"gpu1": host}, manage_toolkit=False)["findings"]
    assert found["code"] == "container_toolkit"


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_report(run: Any, tmp_path: Path, check_mode: bool) -> None:
    path = tmp_path / "report.json"
    path.write_text("an older one\n")
    result = run({"gpu1": with_nginx(seen()), "gpu2": seen()}, check_mode, report_file=str(path))
    assert result["failed"] is True
    report = json.loads(path.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", report["time"])
    assert report["findings"] == result["findings"]
    assert list(report["hosts"]) == ["gpu1", "gpu2"]
    # What was seen, and nothing of Ansible's own.
    assert set(report["hosts"]["gpu1"]) == set(hosts.rtx4090())
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["report.json"]
    assert "geheim" not in path.read_text() + json.dumps(result)


def test_a_report_that_cannot_be_written(run: Any, tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"the report cannot be written .*: name another report_file"):
        run({"gpu1": seen()}, report_file=str(tmp_path / "none" / "report.json"))
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(AnsibleActionFail, match="the report cannot be written"):
        run({"gpu1": seen()}, report_file=str(folder))
    assert os.listdir(tmp_path) == ["folder"]


def test_the_documentation_has_the_options_and_the_results(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec: dict[str, Any] = {}
    validate = vllm_preflight.ActionModule.validate_argument_spec

    def validated(self: Any, argument_spec: dict[str, Any]) -> Any:
        spec.update(argument_spec)
        return validate(self, argument_spec=argument_spec)

    monkeypatch.setattr(vllm_preflight.ActionModule, "validate_argument_spec", validated)
    assert set(yaml.safe_load(documented.RETURN)) == set(run({"gpu1": seen()})) - {"changed"}
    keys = ("type", "required", "default", "elements")
    options = yaml.safe_load(documented.DOCUMENTATION)["options"]
    assert {name: {key: option[key] for key in keys if key in option} for name, option in options.items()} == spec


def test_the_variables_of_the_playbook_are_documented() -> None:
    playbook = (PROJECT / "playbooks/preflight.yml").read_text()
    page = (PROJECT / "docs/preflight.md").read_text()
    read = set(re.findall(r"\bvllm_preflight_\w+", playbook))
    assert read == set(re.findall(r"^\| `(vllm_preflight_\w+)`", page, re.MULTILINE)) != set()


def test_the_shown_problems_are_those_that_are_found() -> None:
    page = (PROJECT / "docs/preflight.md").read_text()
    lines = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1].splitlines()
    sentences = {row[6] for row in hosts.BROKEN.values()}
    assert lines[0] == "3 problems on 2 hosts:"
    assert {line.partition(": ")[2] for line in lines[1:]} <= sentences
