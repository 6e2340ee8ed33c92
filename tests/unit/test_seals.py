"""Seals: what is looked at, what is written on the host, and which roles have something to do."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from ansible_collections.llmops.vllm.plugins.module_utils import _observed, _seals
from ansible_collections.llmops.vllm.plugins.modules import vllm_due as due_documented
from ansible_collections.llmops.vllm.plugins.modules import vllm_seal
from ansible_collections.llmops.vllm.plugins.plugin_utils import seals, variables

PROJECT = Path(__file__).parents[2]

# Which seals hold

SEAL = {"inputs": {"a": "1", "b": "2"}, "changed": [], "notes": {}}


@pytest.mark.parametrize(
    ("inputs", "there", "why"),
    [
        ({"a": "1", "b": "2"}, {"x": SEAL}, ""),
        ({"a": "1", "b": "3"}, {"x": SEAL}, "b is not as it was"),
        ({"a": "1"}, {"x": SEAL}, "b is not as it was"),
        ({"a": "1", "b": "2", "c": "3"}, {"x": SEAL}, "c is not as it was"),
        ({"a": "0", "b": "0"}, {"x": SEAL}, "a, b are not as they were"),
        ({"a": "1", "b": "2"}, {"x": {**SEAL, "changed": ["/etc/x"]}}, "/etc/x is not as it was"),
        (
            {"a": "0", "b": "0"},
            {"x": {**SEAL, "changed": ["/etc/x", "/etc/y"]}},
            "a, b, /etc/x and 1 more are not as they were",
        ),
        ({"a": "1", "b": "2"}, {"y": SEAL}, seals.NOT_SEALED),
        ({"a": "1", "b": "2"}, {}, seals.NOT_SEALED),
        ({"a": "1", "b": "2"}, None, seals.NOT_SEEN),
        ("a cannot be told", {"x": SEAL}, "a cannot be told"),
    ],
)
def test_why(inputs: Any, there: Any, why: str) -> None:
    assert seals.judge({"x": inputs}, there) == {"x": why}


def test_what_comes_after_something_that_runs() -> None:
    same, other = {"a": "1", "b": "2"}, {"a": "1"}
    there = {"x": SEAL, "y": SEAL, "z": SEAL}
    wanted = {"x": same, "y": other, "z": same}
    assert seals.judge(wanted, there) == {"x": "", "y": "b is not as it was", "z": ""}
    assert seals.judge(wanted, there, in_order=True)["z"] == "it comes after y"
    assert seals.judge({"x": same}, there, after={"p": "", "q": "why"}) == {"x": "it comes after q"}
    assert seals.judge({"x": same}, there, after={"p": ""}) == {"x": ""}
    assert seals.judge({"x": same}, there, full=True) == {"x": seals.FULL}


def test_the_line_of_a_host() -> None:
    assert seals.line({"x": "", "y": "", "z": "because"}) == "x, y: nothing to do; z: because"


def test_fingerprints_tell_values_apart() -> None:
    values = [1, "1", True, None, "", [], {}, [1], [[1]], {"a": 1}, {"a": [1]}, 1.5, "é"]
    found = [seals.fingerprints({"x": value})["x"] for value in values]
    assert len(set(found)) == len(values)
    assert seals.fingerprints({"x": {"b": 1, "a": (1, 2)}}) == seals.fingerprints({"x": {"a": [1, 2], "b": 1}})


def test_what_stays_out() -> None:
    found = [name for name in variables.options_of_roles() if not seals.counts(name)]
    assert sorted(found) == ["model_snapshot_token", "vllm_image_controller_dir", "vllm_server_api_key"]


def test_the_fingerprint_of_the_collection(tmp_path: Path) -> None:
    def file(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def fingerprint() -> str:
        seals.collection_fingerprint.cache_clear()
        return seals.collection_fingerprint(str(tmp_path))

    file("roles/a/tasks/main.yml", "- x")
    file("plugins/modules/m.py", "1")
    first = fingerprint()
    file("docs/page.md", "x")
    file("plugins/modules/__pycache__/m.pyc", "x")
    assert fingerprint() == first
    for name, text in {"plugins/modules/m.py": "2", "roles/a/files/f": "", "playbooks/p.yml": "x"}.items():
        before = fingerprint()
        file(name, text)
        assert fingerprint() != before, name
    seals.collection_fingerprint.cache_clear()


# What is looked at

STATUS = """\
Package: docker.io
Status: install ok installed
Version: 20.10.24
Description: x
 Package: not-one

Package: vim
Status: install ok installed
Version: 9
"""


class Docker:
    """Answers by address; None is nothing of that name."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "/info": {
                "ServerVersion": "26.1",
                "LiveRestoreEnabled": True,
                "ContainersRunning": 3,
                "Runtimes": {"runc": {}},
            },
            "/images/one:1/json": {"Id": "sha256:1", "RepoTags": ["one:1"], "RepoDigests": []},
            "/images/json": [{"Id": "sha256:1", "RepoTags": ["one:1"]}],
            "/containers/one/json": {
                "Id": "c1",
                "Image": "sha256:1",
                "State": {"Running": True, "StartedAt": "then"},
                "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}},
                "Config": {"Labels": {"llmops.vllm.release": "r1", "other": "x"}},
            },
            "/containers/json?all=1": [{"Id": "c1", "ImageID": "sha256:1", "State": "running", "Labels": {}}],
        }

    def get(self, address: str) -> Any:
        answer = self.answers.get(address)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Place:
    """A host that is a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.docker = Docker()
        self.file("etc/docker/daemon.json", "{}")
        self.file("opt/venv/bin/tool", "1")
        self.file("opt/venv/lib/deep/module.py", "1")
        self.file("var/lib/dpkg/status", STATUS)
        (root / "opt/link").symlink_to("venv/bin/tool")

    def file(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def observe(self, **what: list[str]) -> dict[str, str]:
        return _observed.Observer(str(self.root), self.docker.get).observe(what)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "host")


def rewrite(name: str, text: str) -> Callable[[Place], Any]:
    return lambda place: place.file(name, text)


def later(name: str) -> Callable[[Place], Any]:
    return lambda place: os.utime(place.root / name, (1, 1))


def docker(address: str, **changes: Any) -> Callable[[Place], Any]:
    return lambda place: place.docker.answers.__setitem__(address, {**place.docker.answers[address], **changes})


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("files", "/etc/docker/daemon.json", rewrite("etc/docker/daemon.json", "[]")),
        ("files", "/etc/docker/daemon.json", lambda place: (place.root / "etc/docker/daemon.json").unlink()),
        ("files", "/etc/docker/daemon.json", lambda place: (place.root / "etc/docker/daemon.json").chmod(0o600)),
        ("files", "/etc/docker/*", rewrite("etc/docker/key", "")),
        ("files", "/etc/none", rewrite("etc/none", "")),
        ("stats", "/etc/docker/*", later("etc/docker/daemon.json")),
        ("stats", "/etc/docker/*", rewrite("etc/docker/daemon.json", "{ }")),
        ("folders", "/opt/venv", lambda place: (place.root / "opt/venv").chmod(0o700)),
        ("folders", "/opt/venv", lambda place: (place.root / "opt/venv").rename(place.root / "gone")),
        ("trees", "/opt/venv", rewrite("opt/venv/lib/deep/module.py", "12")),
        ("trees", "/opt/venv", later("opt/venv/lib/deep/module.py")),
        ("trees", "/opt/venv", rewrite("opt/venv/lib/new", "")),
        ("trees", "/opt/venv", lambda place: (place.root / "opt/venv/lib/deep/module.py").unlink()),
        # The link to it leads nowhere then.
        ("trees", "/opt/link", lambda place: (place.root / "opt/venv/bin/tool").unlink()),
        ("packages", "docker*", rewrite("var/lib/dpkg/status", STATUS.replace("20.10.24", "20.10.25"))),
        ("packages", "docker*", rewrite("var/lib/dpkg/status", STATUS.replace("install ok", "hold ok", 1))),
        ("packages", "docker*", rewrite("var/lib/dpkg/status", STATUS.partition("\n\n")[2])),
        ("docker", "settings", docker("/info", ServerVersion="26.2")),
        ("docker", "settings", docker("/info", LiveRestoreEnabled=False)),
        ("docker", "settings", docker("/info", Runtimes={"runc": {}, "nvidia": {}})),
        ("images", "one:1", docker("/images/one:1/json", Id="sha256:2")),
        ("images", "one:1", docker("/images/one:1/json", RepoDigests=["one@sha256:3"])),
        ("images", "one:1", lambda place: place.docker.answers.pop("/images/one:1/json")),
        ("images", "*", lambda place: place.docker.answers["/images/json"].append({"Id": "sha256:2"})),
        ("containers", "one", docker("/containers/one/json", Id="c2")),
        ("containers", "one", docker("/containers/one/json", Image="sha256:2")),
        ("containers", "one", docker("/containers/one/json", State={"Running": False})),
        ("containers", "one", docker("/containers/one/json", HostConfig={"RestartPolicy": {"Name": "no"}})),
        ("containers", "one", docker("/containers/one/json", Config={"Labels": {"llmops.vllm.release": "r2"}})),
        ("containers", "one", lambda place: place.docker.answers.pop("/containers/one/json")),
        ("containers", "*", lambda place: place.docker.answers["/containers/json?all=1"].pop()),
    ],
)
def test_a_change_shows(place: Place, kind: str, name: str, change: Any) -> None:
    before = place.observe(**{kind: [name]})
    assert len(before) == 1 and all(before.values())
    assert place.observe(**{kind: [name]}) == before
    change(place)
    after = place.observe(**{kind: [name]})
    assert list(after) == list(before)
    assert after != before


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("files", "/etc/docker/daemon.json", later("etc/docker/daemon.json")),
        ("files", "/etc/docker/daemon.json", rewrite("etc/docker/other", "")),
        ("trees", "/opt/venv", rewrite("opt/venv/lib/__pycache__/module.pyc", "")),
        ("folders", "/opt/venv", rewrite("opt/venv/lib/new", "")),
        ("packages", "docker*", rewrite("var/lib/dpkg/status", STATUS.replace("Version: 9", "Version: 10"))),
        ("docker", "settings", docker("/info", ContainersRunning=4)),
        ("docker", "settings", docker("/info", Runtimes={"runc": {}, "io.containerd.runc.v2": {}})),
        ("containers", "one", docker("/containers/one/json", State={"Running": True, "StartedAt": "now"})),
        (
            "containers",
            "one",
            docker("/containers/one/json", Config={"Labels": {"llmops.vllm.release": "r1", "other": "y"}}),
        ),
    ],
)
def test_what_is_no_change(place: Place, kind: str, name: str, change: Any) -> None:
    before = place.observe(**{kind: [name]})
    change(place)
    assert place.observe(**{kind: [name]}) == before


def test_what_cannot_be_told(place: Place) -> None:
    place.docker.answers = {"/images/one:1/json": ConnectionRefusedError("no"), "/containers/one/json": {"Id": "x"}}
    found = place.observe(docker=["settings"], images=["one:1", "*"], containers=["one", "*"])
    assert set(found.values()) == {""}
    (place.root / "var/lib/dpkg/status").unlink()
    assert place.observe(packages=["docker*"]) == {"the package docker*": ""}
    # Without systemd there is nothing to ask.
    assert all(place.observe(units=["docker.service"]).values())


def test_rpm_tells_by_its_database(place: Place) -> None:
    (place.root / "var/lib/dpkg/status").unlink()
    path = place.file("var/lib/rpm/rpmdb.sqlite", "x")
    before = place.observe(packages=["docker*"])
    assert all(before.values())
    os.utime(path, (1, 1))
    assert place.observe(packages=["docker*"]) != before


def test_accounts_and_groups(place: Place) -> None:
    found = place.observe(accounts=["root", "nobody-knows"], groups=["root", "nobody-knows"])
    assert len(set(found.values())) == 3
    assert found["the account nobody-knows"] == found["the group nobody-knows"] == _observed.digest(None)


# What is written on the host


@pytest.fixture
def seal(place: Place, run_module: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(vllm_seal.Seal, "root", str(place.root))
    monkeypatch.setattr(vllm_seal._host.Docker, "get", lambda self, address: place.docker.get(address))

    def run(*names: str, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        given = {"inputs": {"a": "1"}, "observe": {"files": ["/etc/docker/daemon.json"]}, "notes": {"n": 1}}
        entries = [{"name": name, **given} for name in names]
        path = str(place.root / "var/seals/seals.json")
        return run_module(vllm_seal.main, check_mode, **{"path": path, "seals": entries, **params})

    return run


def looked(place: Place) -> dict[str, Any]:
    observer = _observed.Observer(str(place.root), place.docker.get)
    return _seals.look(str(place.root / "var/seals/seals.json"), observer)


def test_seals_are_kept_and_broken(seal: Any, place: Place) -> None:
    path = place.root / "var/seals/seals.json"
    assert seal("x", check_mode=True)["changed"] is True
    assert not path.parent.exists()
    assert seal("x")["sealed"] == ["x"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert seal("x")["changed"] is False
    assert seal("y")["changed"] is True
    holds = {"inputs": {"a": "1"}, "changed": [], "notes": {"n": 1}}
    assert looked(place) == {"x": holds, "y": holds}
    place.file("etc/docker/daemon.json", "other")
    assert looked(place)["x"]["changed"] == ["/etc/docker/daemon.json"]
    assert seal("x", state="absent", check_mode=True)["changed"] is True
    assert looked(place)["x"]
    assert seal("x", state="absent")["changed"] is True
    assert list(looked(place)) == ["y"]
    assert seal("x", "y", state="absent")["changed"] is True
    assert not path.exists()
    assert seal("x", state="absent")["changed"] is False


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2, "seals": {}}', '{"format": 1, "seals": []}', '{"format": 1, "seals": {"x": {}}}'],
)
def test_a_file_that_cannot_be_read_is_none(seal: Any, place: Place, text: str) -> None:
    place.file("var/seals/seals.json", text)
    assert looked(place) == {}
    assert seal("y")["sealed"] == ["y"]
    assert list(looked(place)) == ["y"]


def test_a_seal_that_looks_at_what_this_version_does_not_know_is_none(seal: Any, place: Place) -> None:
    seal("x", "y")
    path = place.root / "var/seals/seals.json"
    document = json.loads(path.read_text())
    document["seals"]["x"]["observe"] = {"stars": ["sirius"]}
    path.write_text(json.dumps(document))
    assert list(looked(place)) == ["y"]


def test_what_cannot_be_told_is_not_sealed(seal: Any, place: Place) -> None:
    seal("x")
    place.docker.answers = {}
    result = seal(seals=[{"name": "x", "observe": {"docker": ["settings"]}}, {"name": "z"}])
    assert result["not_sealed"] == {"x": ["what Docker says of its settings"]}
    assert result["sealed"] == ["z"]
    # The one of before does not hold any more.
    assert list(looked(place)) == ["z"]


def test_a_kind_that_there_is_not(seal: Any) -> None:
    result = seal(seals=[{"name": "x", "observe": {"file": ["/etc/x"]}}])
    assert result["failed"]
    assert result["msg"].startswith("observe of the seal 'x' has file: it takes accounts, containers, docker, files,")


# The actions


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Runs one of the two actions with Ansible's own templating; returns its result, and what modules were run."""
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar

    from ansible_collections.llmops.vllm.plugins.action import vllm_due as due_action
    from ansible_collections.llmops.vllm.plugins.action import vllm_seal as seal_action

    monkeypatch.setattr(due_action.display, "display", lambda text: None)

    def run(which: str, facts: dict[str, Any] | None = None, check_mode: bool = False, **args: Any) -> Any:
        action = {"due": due_action, "seal": seal_action}[which]
        loader = DataLoader()
        task_vars = {"inventory_hostname": "gpu1", **(facts or {})}
        plugin = action.ActionModule(
            MagicMock(args=args, check_mode=check_mode, async_val=0),
            MagicMock(),
            MagicMock(),
            loader,
            Templar(loader, variables=task_vars),
            MagicMock(),
        )
        monkeypatch.setattr(action.sealing.ActionBase, "run", lambda self, tmp, task_vars: {})
        ran: list[dict[str, Any]] = []

        def module(module_name: str | None = None, module_args: Any = None, **other: Any) -> dict[str, Any]:
            ran.append(module_args)
            return {"changed": True, "sealed": [each["name"] for each in module_args["seals"]], "not_sealed": {}}

        monkeypatch.setattr(plugin, "_execute_module", module)
        return plugin.run(task_vars=task_vars), ran

    return run


def sealed(act: Any, role: str, **facts: Any) -> dict[str, Any]:
    """What vllm_host_info would say of a seal of the role."""
    dummy, (args,) = act("seal", facts, seals=[{"name": role, "role": role}])
    (seal,) = args["seals"]
    return {"seals": {role: {"inputs": seal["inputs"], "changed": [], "notes": {}}}}


ROLES = ["docker_engine", "nvidia_container_toolkit", "vllm_host", "vllm_image", "model_snapshot"]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_with_the_same_variables_has_nothing_to_do(act: Any, role: str) -> None:
    seen = sealed(act, role)
    result, ran = act("due", seen=seen, seals=[{"name": role, "role": role}])
    assert (result["due"], result["any"], ran) == ({role: ""}, False, [])


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_counts(act: Any, role: str) -> None:
    seen = sealed(act, role)
    names = [name for name in variables.options_of_role(role) if seals.counts(name)]
    missing = [name for name in names if name not in seen["seals"][role]["inputs"]]
    # Those that have no default are none of a run that does not set them.
    assert all(variables.options_of_role(role)[name].get("required") for name in missing)
    for name in names:
        spec = variables.options_of_role(role)[name]
        other = {"bool": not spec.get("default"), "int": 7, "list": ["x"], "dict": {"x": "y"}}.get(spec["type"], "x")
        if spec.get("elements") == "dict":
            other = [{"x": "y"}]
        result, dummy = act("due", {name: other}, seen=seen, seals=[{"name": role, "role": role}])
        assert name in result["due"][role] or "cannot be told" in result["due"][role], (name, result["due"])


def test_what_is_templated_counts_as_what_it_means(act: Any) -> None:
    from ansible.template import trust_as_template

    facts = {"vllm_host_home": "/srv/vllm"}
    seen = sealed(act, "model_snapshot", **facts)
    same = {"vllm_host_home": trust_as_template("{{ '/srv' ~ '/vllm' }}")}
    other = {"vllm_host_home": trust_as_template("{{ '/srv' ~ '/other' }}")}
    entry = [{"name": "model_snapshot", "role": "model_snapshot"}]
    assert act("due", same, seen=seen, seals=entry)[0]["any"] is False
    why = act("due", other, seen=seen, seals=entry)[0]["due"]["model_snapshot"]
    assert why == "model_snapshot_dir, what is looked at are not as they were"
    undefined = {"model_snapshot_dir": trust_as_template("{{ nobody_knows }}")}
    why = act("due", undefined, seen=seen, seals=entry)[0]["due"]["model_snapshot"]
    assert why.startswith("model_snapshot_dir cannot be told (")


def test_a_server_of_the_catalogue(act: Any) -> None:
    """As a rollout seals one: under a name of its own, with variables of the task."""
    server = {
        "vllm_server_name": "tiny",
        "vllm_server_image": "vllm:1",
        "vllm_server_model_path": "/m/tiny/1",
        "vllm_server_served_model_names": ["tiny"],
        "vllm_server_api_key": "geheim",
        "__vllm_server_seal": {"observe": {"containers": ["tiny"]}},
    }
    entry = {"name": "vllm_server:tiny", "role": "vllm_server", "inputs": {"key": "f1"}, "observe": {"files": ["/k"]}}
    dummy, (args,) = act("seal", server, seals=[{**entry, "notes": {"version": "1"}}])
    (seal,) = args["seals"]
    assert seal["observe"] == {"containers": ["tiny"], "files": ["/k"]}
    assert {"vllm_server_image", "vllm_server_port", "key"} <= set(seal["inputs"])
    seen = {"seals": {"vllm_server:tiny": {"inputs": seal["inputs"], "changed": [], "notes": seal["notes"]}}}
    result, dummy = act("due", server, seen=seen, seals=[entry])
    assert (result["due"], result["notes"]) == ({"vllm_server:tiny": ""}, {"vllm_server:tiny": {"version": "1"}})
    for changes in ({"vllm_server_image": "vllm:2"}, {"vllm_server_port": 1}):
        result, dummy = act("due", {**server, **changes}, seen=seen, seals=[entry])
        assert result["due"] == {"vllm_server:tiny": f"{next(iter(changes))} is not as it was"}
    assert act("due", server, seen=seen, seals=[{**entry, "inputs": {"key": "f2"}}])[0]["any"] is True


def test_a_role_that_is_not_there(act: Any) -> None:
    from ansible.errors import AnsibleActionFail

    with pytest.raises(AnsibleActionFail, match="names the role 'docker', which this collection does not have"):
        act("due", seals=[{"name": "x", "role": "docker"}])


def test_seals_of_what_has_something_to_do_are_broken(act: Any) -> None:
    entry = [{"name": "x", "inputs": {"a": 1}}, {"name": "y", "inputs": {"a": 1}}]
    dummy, (args,) = act("seal", seals=entry)
    there = {each["name"]: {"inputs": each["inputs"], "changed": [], "notes": {"n": 2}} for each in args["seals"]}
    there["y"]["changed"] = ["/etc/y"]
    result, ran = act("due", seen={"seals": there}, seals=entry)
    assert result["due"] == {"x": "", "y": "/etc/y is not as it was"}
    assert (result["any"], result["notes"], result["changed"]) == (True, {"x": {"n": 2}}, False)
    assert ran == [{"seals": [{"name": "y"}], "state": "absent"}]
    # One that is not there need not be broken, and check mode breaks none.
    assert act("due", seen={"seals": {}}, seals=entry)[1] == []
    assert act("due", check_mode=True, seen={"seals": there}, seals=entry)[1] == []
    # Of a host that was not looked at they may be there.
    assert act("due", seals=entry)[1] == [{"seals": [{"name": "x"}, {"name": "y"}], "state": "absent"}]


def test_no_value_leaves_the_controller(act: Any) -> None:
    dummy, ran = act(
        "seal",
        {"docker_engine_registry_mirrors": ["https://user:geheim@mirror"]},
        seals=[{"name": "docker_engine", "role": "docker_engine", "inputs": {"secret": "geheim"}}],
    )
    assert "geheim" not in json.dumps(ran)


def test_what_is_documented_is_taken(act: Any) -> None:
    options = yaml.safe_load(due_documented.DOCUMENTATION)["options"]
    example = yaml.safe_load(due_documented.RETURN)
    result, dummy = act("due", seals=[{"name": "x"}])
    assert set(example) == set(result) - {"changed"}
    assert set(options) == {"seals", "seen", "after", "in_order", "full"}
    kinds = yaml.safe_load(vllm_seal.DOCUMENTATION)["options"]["seals"]["suboptions"]["observe"]["description"]
    for kind in _observed.KINDS:
        assert f"C({kind})" in " ".join(kinds), kind
