"""Tests of the check of whole inventories: each is written into files, read by Ansible, and given to the action."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext
from ansible.plugins.lookup.inventory_hostnames import LookupModule as Hostnames
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.llmops.vllm.plugins.action import vllm_catalogue
from ansible_collections.llmops.vllm.plugins.lookup.chat_template import LookupModule as ChatTemplate
from ansible_collections.llmops.vllm.plugins.plugin_utils.inventory_check import hosts_text
from ansible_collections.llmops.vllm.plugins.plugin_utils.lock import write_lock

PROJECT = Path(__file__).resolve().parents[2]
SECRET = VaultSecret(b"a password")
HOSTS = "vllm: {hosts: {gpu1: , gpu2: , gpu3: , gpu4: }}\nload_balancers: {hosts: {lb1: }}\n"
ALL, ONE = "of gpu1 and 4 other hosts", "group_vars/all.yml"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
BOTH = (
    "give them different gpus, or share on purpose with a gpu_memory_utilization in the engine_args of each, "
    "together at most 1"
)

Read = Callable[..., SimpleNamespace]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Has the action read an inventory, and returns its result. playbook: the folder of the playbook."""

    def start(inventory: Path, playbook: Path = PROJECT / "playbooks", **extra: Any) -> dict[str, Any]:
        loader = DataLoader()
        loader.set_basedir(str(playbook))
        loader.set_vault_secrets([("default", SECRET)])
        monkeypatch.setattr(vllm_catalogue, "load_extra_vars", lambda loader: extra)
        manager = InventoryManager(loader, [str(inventory)])
        variables = VariableManager(loader, manager)
        variables._extra_vars = extra
        hostvars = HostVars(manager, variables, loader)
        groups = manager.get_groups_dict()
        first = groups["all"][0]
        raw = hostvars.raw_get(first)
        templar = Templar(loader, variables=raw)
        args = {
            "deployments": templar.template(without_lookups(raw.get("vllm_deployments", ""))),
            "default_image": templar.template(raw.get("vllm_image_name", "vllm/vllm-openai:v0.32.0")),
            "lock_file": str(tmp_path / "lock"),
        }
        task = MagicMock(args=args, check_mode=False, async_val=0)
        lookups = {"ansible.builtin.inventory_hostnames": Hostnames, "llmops.vllm.chat_template": ChatTemplate}
        monkeypatch.setattr(
            vllm_catalogue, "lookup_loader", MagicMock(get=lambda name, **kwargs: lookups[name](**kwargs))
        )
        monkeypatch.setattr(vllm_catalogue.ActionBase, "run", lambda self, tmp, task_vars: {})
        plugin = vllm_catalogue.ActionModule(task, MagicMock(), MagicMock(), loader, templar, MagicMock())
        return plugin.run(task_vars={"groups": groups, "hostvars": hostvars, "inventory_hostname": first})

    return start


def without_lookups(value: Any) -> Any:
    """A catalogue whose keys are made at first use, with one that was made: Ansible's lookups are not loaded here."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return value
    made = "{{ lookup('ansible.builtin.password'"
    return [
        {key: "made" if key == "api_key" and str(inner).startswith(made) else inner for key, inner in entry.items()}
        for entry in value
    ]


def one(**keys: Any) -> dict[str, Any]:
    return {"name": "chat", "model": {"repo_id": "org/name"}, "gpus": "none", **keys}


def pair(first: Any, second: Any, *args: Any) -> dict[str, Any]:
    """Two deployments of all GPU hosts with these gpus, and these engine_args."""
    given = list(args) + [{}, {}]
    return {
        ONE: {
            "vllm_deployments": [
                one(gpus=first, engine_args=given[0]),
                one(name="code", port=1, gpus=second, engine_args=given[1]),
            ]
        }
    }


def with_variables(**variables: Any) -> dict[str, Any]:
    return {ONE: {"vllm_deployments": [one()], **variables}}


def part(fraction: Any) -> dict[str, Any]:
    return {"gpu_memory_utilization": fraction}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for path, content in {"hosts.yml": HOSTS, **files}.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return folder


def refused(read: Read, folder: Path, files: dict[str, Any], **extra: Any) -> list[str]:
    with pytest.raises(AnsibleActionFail) as caught:
        read(write(folder, files), **extra)
    head, *problems = str(caught.value).split("\n- ")
    assert head == f"{len(problems)} problem{'s' * (len(problems) > 1)} in the inventory:"
    return problems


GPU_HOSTS = "gpu1 and 3 other hosts"
BROKEN = [
    # GPUs that two get
    (pair("all", "all"), f"'chat' and 'code' both get all GPUs of {GPU_HOSTS}: {BOTH}"),
    (pair("all", 2), f"'chat' and 'code' both get GPUs 0 and 1 of {GPU_HOSTS}: {BOTH}"),
    (pair([3], "all"), f"'chat' and 'code' both get GPU 3 of {GPU_HOSTS}: {BOTH}"),
    (pair("all", ["GPU-5f2a"]), f"'chat' and 'code' both get GPU GPU-5f2a of {GPU_HOSTS}: {BOTH}"),
    (pair(1, 8), f"'chat' and 'code' both get GPU 0 of {GPU_HOSTS}: {BOTH}"),
    (pair(4, [3, 2, 7]), f"'chat' and 'code' both get GPUs 2 and 3 of {GPU_HOSTS}: {BOTH}"),
    (pair([0, 1, 2], ["2", 0, 1]), f"'chat' and 'code' both get GPUs 0, 1 and 2 of {GPU_HOSTS}: {BOTH}"),
    (pair(["GPU-5f2a", 0], [1, "GPU-5f2a"]), f"'chat' and 'code' both get GPU GPU-5f2a of {GPU_HOSTS}: {BOTH}"),
    (pair([0], [0], part(0.3)), f"'chat' and 'code' both get GPU 0 of {GPU_HOSTS}: {BOTH}"),
    (
        pair([0], [0], {"kv_cache_memory_bytes": 1000000}),
        f"'chat' and 'code' both get GPU 0 of {GPU_HOSTS}: {BOTH}",
    ),
    (
        {
            ONE: {
                "vllm_deployments": [
                    one(hosts="gpu1,gpu2", gpus=[0]),
                    one(name="code", port=1, hosts="gpu2,gpu3", gpus=[0]),
                    one(name="more", port=2, hosts="gpu4", gpus=[0]),
                ]
            }
        },
        f"'chat' and 'code' both get GPU 0 of gpu2: {BOTH}",
    ),
    (
        pair([0], [0], part(0.6), {"gpu-memory-utilization": "0.5"}),
        f"'chat' and 'code' share GPU 0 of {GPU_HOSTS} with a gpu_memory_utilization of 1.1 together: lower it to 1 or "
        "less, or give them different gpus",
    ),
    (
        {
            ONE: {
                "vllm_deployments": [
                    one(gpus=[0, 1], engine_args=part(0.4)),
                    one(name="code", port=1, gpus="all", engine_args=part(0.4)),
                    one(name="more", port=2, gpus=2, engine_args=part(0.4), hosts="gpu1,gpu3"),
                ]
            }
        },
        "'chat', 'code' and 'more' share GPUs 0 and 1 of gpu1 and gpu3 with a gpu_memory_utilization of 1.2 together: "
        "lower it to 1 or less, or give them different gpus",
    ),
    # chat templates
    (
        {ONE: {"vllm_deployments": [one(chat_template="/no/such/file.jinja")]}},
        "deployment 'chat': there is no chat template /no/such/file.jinja on the controller: correct the path",
    ),
    (
        {ONE: {"vllm_deployments": [one(chat_template="mine.jinja")]}},
        "deployment 'chat': there is no chat template mine.jinja on the controller: correct the path",
    ),
    (
        {ONE: {"vllm_deployments": [one(chat_template="{{ inventory_dir }}/mine.jinja")]}, "mine.jinja": "{{ 1 }}"},
        "deployment 'chat': the chat template FOLDER/mine.jinja cannot render a conversation of user and assistant: "
        "what the user says is not in what it renders (messages is what it has to go through)",
    ),
    (
        {ONE: {"vllm_deployments": [one(chat_template="{{ inventory_dir }}/group_vars")]}},
        "deployment 'chat': the chat template FOLDER/group_vars cannot be read: [Errno 21] Is a directory: "
        "'FOLDER/group_vars'",
    ),
    # names that nothing reads
    (
        with_variables(vllm_image_nmae="x"),
        f"variable 'vllm_image_nmae' ({ALL}) is read by nothing: did you mean 'vllm_image_name'?",
    ),
    (
        {**with_variables(), "host_vars/gpu2.yml": {"vllm_becom": True}},
        "variable 'vllm_becom' (of gpu2) is read by nothing: did you mean 'vllm_become'?",
    ),
    (
        {**with_variables(), "host_vars/gpu2.yml": "vllm_prnue: 1", "host_vars/gpu4.yml": "vllm_prnue: 2"},
        "variable 'vllm_prnue' (of gpu2 and gpu4) is read by nothing: did you mean 'vllm_prune'?",
    ),
    (
        {**with_variables(), "group_vars/vllm.yml": {"docker_engine_instal": False}},
        f"variable 'docker_engine_instal' (of {GPU_HOSTS}) is read by nothing: did you mean 'docker_engine_install'?",
    ),
    (
        with_variables(model_snapshot_max_worker=2),
        f"variable 'model_snapshot_max_worker' ({ALL}) is read by nothing: did you mean 'model_snapshot_max_workers'?",
    ),
    (
        with_variables(vllm_internal_adress="192.0.2.1"),
        f"variable 'vllm_internal_adress' ({ALL}) is read by nothing: did you mean 'vllm_internal_address'?",
    ),
    # values of another type
    (with_variables(vllm_become="flase"), f"variable 'vllm_become' ({ALL}) is 'flase', it takes true or false"),
    (with_variables(vllm_prune=2), f"variable 'vllm_prune' ({ALL}) is 2, it takes true or false"),
    (with_variables(vllm_update=[]), f"variable 'vllm_update' ({ALL}) is [], it takes true or false"),
    (
        with_variables(vllm_keep_snapshots="two"),
        f"variable 'vllm_keep_snapshots' ({ALL}) is 'two', it takes a whole number",
    ),
    (
        with_variables(vllm_image_timeout=True),
        f"variable 'vllm_image_timeout' ({ALL}) is True, it takes a whole number",
    ),
    (with_variables(vllm_image_timeout=1.5), f"variable 'vllm_image_timeout' ({ALL}) is 1.5, it takes a whole number"),
    (
        with_variables(vllm_image_cuda_archs="8.0, 9.0"),
        f"variable 'vllm_image_cuda_archs' ({ALL}) is '8.0, 9.0', it takes a list: write each item on a line of its "
        "own, after '- '",
    ),
    (
        with_variables(vllm_image_build_args="a=b"),
        f"variable 'vllm_image_build_args' ({ALL}) is 'a=b', it takes a dictionary: write its keys on lines of their "
        "own",
    ),
    (
        with_variables(vllm_host_user=True),
        f"variable 'vllm_host_user' ({ALL}) is True, it takes text: put it into quotes",
    ),
    (with_variables(vllm_host_home=["/a"]), f"variable 'vllm_host_home' ({ALL}) is ['/a'], it takes a path"),
    (
        with_variables(vllm_image_source="biuld"),
        f"variable 'vllm_image_source' ({ALL}) is 'biuld', it takes one of pull, build, archive, wheels",
    ),
    # what may be a secret
    (with_variables(vllm_hub_token=["hf_x"]), f"variable 'vllm_hub_token' ({ALL}) is of another type, it takes text"),
    (
        with_variables(vllm_host_pip_environment="PIP_INDEX_URL=https://me:hf_x@example.com/simple"),
        f"variable 'vllm_host_pip_environment' ({ALL}) is of another type, it takes a dictionary: write its keys on "
        "lines of their own",
    ),
    (
        {ONE: {"vllm_deployments": [one(environment="HF_TOKEN=hf_x")]}},
        "deployment 'chat': environment is of another type, it takes a dictionary",
    ),
    # flags as text
    (
        {ONE: {"vllm_deployments": [one(engine_args={"enable_prefix_caching": "true"})]}},
        "deployment 'chat': engine_args: enable_prefix_caching is 'true', it takes true or false: write it without "
        "quotes",
    ),
    (
        {ONE: {"vllm_deployments": [one(image="own:latest", engine_args={"no-enable-prefix-caching": "Yes"})]}},
        "deployment 'chat': engine_args: no-enable-prefix-caching is 'Yes', it takes true or false: write it without "
        "quotes",
    ),
    (
        {ONE: {"vllm_deployments": [one(image="own:latest", engine_args={"enforce_eager": "false"})]}},
        "deployment 'chat': engine_args: enforce_eager is 'false', it takes true or false: write it without quotes",
    ),
    # more than one catalogue
    (
        {**with_variables(), "host_vars/gpu3.yml": {"vllm_deployments": []}},
        "'vllm_deployments' of gpu3 is not that of gpu1, and a run reads one of them for all hosts: put it once into "
        "group_vars/all.yml",
    ),
    (
        {**with_variables(), "group_vars/load_balancers.yml": {"vllm_deployments": [one(port=1)]}},
        "'vllm_deployments' of lb1 is not that of gpu1, and a run reads one of them for all hosts: put it once into "
        "group_vars/all.yml",
    ),
    (
        {f"host_vars/gpu{number}.yml": {"vllm_deployments": [one()]} for number in (1, 2)},
        "'vllm_deployments' of gpu1 names gpu3 and gpu4, which have none: put it once into group_vars/all.yml",
    ),
]


@pytest.mark.parametrize(("files", "sentence"), BROKEN, ids=range(len(BROKEN)))
def test_one_mistake_gives_one_sentence(read: Read, tmp_path: Path, files: dict[str, Any], sentence: str) -> None:
    assert refused(read, tmp_path / "inv", files) == [sentence.replace("FOLDER", str(tmp_path / "inv"))]


def test_all_mistakes_come_at_once(read: Read, tmp_path: Path) -> None:
    files = {
        **with_variables(vllm_update="flase", vllm_zebra=1),
        "host_vars/gpu1.yml": {"vllm_deploymnets": [], "vllm_deployments": "chat"},
        "group_vars/vllm.yml": {"vllm_prnue": True},
    }
    assert refused(read, tmp_path, files) == [
        "vllm_deployments is missing or no list: write it into group_vars/all.yml, each deployment an item that begins "
        "with '- name:'",
        "'vllm_deployments' of gpu2 and 3 other hosts is not that of gpu1, and a run reads one of them for all hosts: "
        "put it once into group_vars/all.yml",
        f"variable 'vllm_update' ({ALL}) is 'flase', it takes true or false",
        f"variable 'vllm_prnue' (of {GPU_HOSTS}) is read by nothing: did you mean 'vllm_prune'?",
        "variable 'vllm_deploymnets' (of gpu1) is read by nothing: did you mean 'vllm_deployments'?",
    ]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (
            {"vllm_udpate": "true"},
            "variable 'vllm_udpate' (given with -e) is read by nothing: did you mean 'vllm_update'?",
        ),
        ({"vllm_update": "ture"}, "variable 'vllm_update' (given with -e) is 'ture', it takes true or false"),
        (
            {"vllm_image_wanted": "[a]"},
            "variable 'vllm_image_wanted' (given with -e) is '[a]', it takes a list: give it as JSON, "
            "-e '{\"vllm_image_wanted\": [...]}'",
        ),
    ],
)
def test_what_is_given_for_one_run(read: Read, tmp_path: Path, extra: dict[str, Any], sentence: str) -> None:
    assert refused(read, tmp_path, with_variables(), **extra) == [sentence]


GOOD = [
    pair("all", "none"),
    pair([0, 1], [2, 3]),
    pair(2, [2, 3]),
    pair(2, ["GPU-5f2a", "GPU-77aa"]),
    pair([0, 1], ["GPU-5f2a"]),
    pair([0], [0], part(0.5), part(0.5)),
    pair("all", "all", part(0.7), part(0.3)),
    pair([0], [0], part(0.9), {"kv_cache_memory_bytes": 1000000}),
    pair([0], [0], {"kv_cache_memory_bytes": "8G"}, {"kv-cache-memory-bytes": "8G"}),
    {ONE: {"vllm_deployments": [one(gpus="all", hosts="gpu1"), one(name="code", gpus="all", hosts="gpu2")]}},
    # Ten of them on one GPU, which floats would add up to more than 1.
    {
        ONE: {
            "vllm_deployments": [one(name=f"d{i}", port=i + 1, gpus=[0], engine_args=part(0.1)) for i in range(9)]
            + [one(name="d9", port=10, gpus=[0], engine_args=part("0.1"))]
        }
    },
    {
        ONE: {"vllm_deployments": [one(chat_template="{{ inventory_dir }}/mine.jinja")]},
        "mine.jinja": TEMPLATE,
    },
    with_variables(
        vllm_update="true",
        vllm_prune="No",
        vllm_become=0,
        vllm_keep_snapshots="-1",
        vllm_image_ref=0.32,
        vllm_image_timeout=60.0,
        vllm_hub_token=None,
        vllm_server_gpus=[0],
        vllm_server_cpus=2,
    ),
    # templates are not judged, and what they use is read
    with_variables(
        vllm_become="{{ is_root }}",
        vllm_image_wanted="{{ ours }}",
        vllm_image_names=["x"],
        ours="{{ vllm_image_names }}",
    ),
    # names of others
    with_variables(vault_vllm_image_nmae=1, docker_users=[], my_vllm_image_nmae=1, _vllm_image_nmae=1),
    # published by an earlier play
    with_variables(vllm_image_resolved=[], vllm_server_changed=True),
    # the same list, written twice
    {**with_variables(), "group_vars/vllm.yml": {"vllm_deployments": [one()]}},
    # the load balancer serves nothing
    {"group_vars/vllm.yml": {"vllm_deployments": [one()]}},
    # the options of an image that nobody knows
    {ONE: {"vllm_deployments": [one(image="own:latest", engine_args={"brand_new": "true", "load_format": "auto"})]}},
]


@pytest.mark.parametrize("files", GOOD, ids=range(len(GOOD)))
def test_a_good_inventory_has_no_problem(read: Read, tmp_path: Path, files: dict[str, Any]) -> None:
    result = read(write(tmp_path, files))
    assert "warnings" not in result
    assert result["deployments"]


@pytest.mark.parametrize("path", ["inventories", "molecule"])
def test_the_inventories_of_the_project_are_clean(read: Read, path: str) -> None:
    folders = [hosts.parent for hosts in sorted(PROJECT.glob(f"{path}/**/hosts.yml")) if hosts.is_file()]
    assert len(folders) >= 3
    for folder in folders:
        try:
            assert "warnings" not in read(folder), folder
        except AnsibleActionFail as error:
            # Those of roles have no catalogue, and that is all.
            assert path == "molecule", error
            assert str(error).startswith("1 problem in the inventory:\n- vllm_deployments is missing"), error


def test_the_lock_file_beside_the_inventory_is_no_variable_of_the_users(read: Read, tmp_path: Path) -> None:
    inventory = write(tmp_path, with_variables())
    lock = {"snapshots": {"org/name": {"main": "9" * 40}}, "sources": {}, "images": {}}
    write_lock(str(inventory / "vllm.lock.yml"), lock)
    assert "warnings" not in read(inventory)


def test_a_name_like_none_of_ours_is_a_warning(read: Read, tmp_path: Path) -> None:
    files = {
        **with_variables(vllm_zebra=1, docker_engine_colour="blue"),
        # A word at the end that is another one.
        "host_vars/gpu1.yml": {"vllm_host_name": "x"},
    }
    ends = "is read by nothing: correct its name, or let one of your own not begin with"
    assert read(write(tmp_path, files))["warnings"] == [
        f"variable 'docker_engine_colour' ({ALL}) {ends} 'docker_engine_'",
        f"variable 'vllm_zebra' ({ALL}) {ends} 'vllm_'",
        f"variable 'vllm_host_name' (of gpu1) {ends} 'vllm_'",
    ]


def test_what_is_vaulted_is_never_shown(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VaultSecretsContext, "_current", VaultSecretsContext([("default", SECRET)]))
    vault = VaultLib([("default", SECRET)])

    def inline(text: str) -> str:
        return "!vault |\n" + "".join(f"    {line}\n" for line in vault.encrypt(text, SECRET).decode().splitlines())

    folder = write(tmp_path, {})
    (folder / "group_vars/all").mkdir(parents=True)
    deployment = one(port="{{ vault_a }}", cpus="{{ vault_b }}", served_model_names=["{{ vault_c }}"], memory=[])
    document = yaml.safe_dump({"vllm_deployments": [deployment]})
    (folder / "group_vars/all/a.yml").write_text(
        f"{document}vault_a: {inline('hunter2')}vllm_become: {inline('hunter2')}vllm_image_source: {inline('hunter2')}"
    )
    whole = "vault_b: [hunter2]\nvault_c: 47110815\nvllm_update: hunter2\nvllm_keep_snapshots: [hunter2]\n"
    (folder / "group_vars/all/b.yml").write_bytes(vault.encrypt(whole, SECRET))
    with pytest.raises(AnsibleActionFail) as caught:
        read(folder)
    assert str(caught.value).split("\n- ")[1:] == [
        "deployment 'chat': cpus is of another type, it takes text or a number",
        "deployment 'chat': memory is [], it takes text",
        "deployment 'chat': port is of another type, it takes a number",
        "deployment 'chat': served_model_names has an item, which is no text: quote it",
    ]


def test_a_relative_template_is_found_where_the_role_finds_it(read: Read, tmp_path: Path) -> None:
    folder = write(tmp_path / "inv", {ONE: {"vllm_deployments": [one(chat_template="mine.jinja")]}})
    for place in ("play/mine.jinja", "play/files/mine.jinja"):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TEMPLATE)
        assert read(folder, playbook=tmp_path / "play")["deployments"]
        file.unlink()
    write(folder, {ONE: {"vllm_deployments": [one(chat_template="chat_templates/vicuna.jinja")]}})
    assert read(folder)["deployments"]


def test_later_checks_of_a_run_look_at_the_catalogue_alone() -> None:
    task = yaml.safe_load((PROJECT / "playbooks/tasks/catalogue.yml").read_text())[0]
    assert task["llmops.vllm.vllm_catalogue"]["check_variables"] == "{{ vllm_catalogue is not defined }}"
    hostvars = MagicMock(raw_get=MagicMock(side_effect=AssertionError))
    plugin = vllm_catalogue.ActionModule(*[MagicMock()] * 6)
    plugin._hosts_of = lambda task_vars: lambda pattern: ["gpu1"]
    args = {"deployments": [one()], "default_image": "image:1", "check_variables": False}
    deployments, _backends, warnings = plugin._checked(args, {}, {"hostvars": hostvars, "groups": {"all": ["gpu1"]}})
    assert (deployments[0]["name"], warnings) == ("chat", [])


@pytest.mark.parametrize(
    ("count", "text"), [(1, "h1"), (2, "h1 and h2"), (3, "h1 and 2 other hosts"), (100, "h1 and 99 other hosts")]
)
def test_how_hosts_are_named(count: int, text: str) -> None:
    assert hosts_text([f"h{number}" for number in range(1, count + 1)]) == text
