"""What README and docs show is true: examples parse, commands, files, keys and variables exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import KEYS, MODEL_KEYS, read_catalogue
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Network

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
INVENTORIES = sorted(path.parent for path in PROJECT.glob("inventories/*/hosts.yml"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language):
    return [
        pytest.param(text, id=f"{page.name}:{number}")
        for page in PAGES
        for number, (found, text) in enumerate(BLOCK.findall(page.read_text()), 1)
        if found == language
    ]


def complete(deployments):
    network = Network({"host1": "192.0.2.1"}.get, lambda pattern: ["host1"], {})
    return read_catalogue(deployments, network, {}, "image:tag")[0]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_example_is_valid(text):
    document = yaml.safe_load(text)
    if "vllm_deployments" in document:
        assert complete(document["vllm_deployments"])


def test_the_readme_shows_the_runbooks_inventory_as_it_is():
    examples = [
        yaml.safe_load(text) for found, text in BLOCK.findall((PROJECT / "README.md").read_text()) if found == "yaml"
    ]
    (shown,) = [example for example in examples if "vllm_deployments" in example]
    written = yaml.safe_load((PROJECT / "inventories/single/group_vars/all.yml").read_text())
    (shown_deployment,), (deployment,) = shown.pop("vllm_deployments"), written["vllm_deployments"]
    assert shown.items() <= written.items()
    assert {key: deployment[key] for key in shown_deployment} == shown_deployment


def test_the_runbooks_settings_are_kept():
    (deployment,) = complete(
        yaml.safe_load((PROJECT / "inventories/single/group_vars/all.yml").read_text())["vllm_deployments"]
    )
    assert deployment["model"]["repo_id"] == "masao1211/karakuri-lm-70b-chat-v0.1-AWQ"
    assert (deployment["port"], deployment["listen"], deployment["gpus"]) == (30080, "127.0.0.1", "all")
    assert (deployment["container_name"], deployment["hostname"]) == ("vllm", "vllm")
    assert deployment["served_model_names"] == ["karakuri-70b"]
    assert deployment["engine_args"] == {"quantization": "awq", "max_model_len": 4095, "gpu_memory_utilization": 0.9}


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_every_inventory_has_a_catalogue_without_mistakes(inventory):
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    variables = yaml.safe_load((inventory / "group_vars/all.yml").read_text())
    groups = {group: list(entries["hosts"]) for group, entries in hosts.items()}
    addresses = {
        host: (of_host or {}).get("vllm_internal_address")
        for entries in hosts.values()
        for host, of_host in entries["hosts"].items()
    }
    # What is a template here has a value there.
    written = [
        {key: "key" if key == "api_key" and "{{" in value else value for key, value in deployment.items()}
        for deployment in variables["vllm_deployments"]
    ]
    deployments, _backends = read_catalogue(
        written,
        Network(addresses.get, groups.__getitem__, groups),
        {},
        variables["vllm_image_name"],
    )
    assert all(deployment["hosts"] for deployment in deployments)


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_ansible_reads_every_inventory_without_a_warning(inventory):
    run = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"), "-i", inventory,
            "llmops.vllm.preflight", "--tags", "inventory",
        ],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "WARNING" not in run.stderr


@pytest.mark.parametrize("text", blocks("sh"))
def test_every_command_exists(text):
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for line in text.splitlines():
        subprocess.run(["sh", "-n"], input=line, text=True, check=True)
        for target in re.findall(r"^make ([a-z-]+)", line):
            assert target in targets
        for path in re.findall(r"(?<![\w$/])((?:playbooks|inventories|benchmarks|tools)/[\w./-]+|site\.yml)", line):
            assert (PROJECT / path).exists(), path
        for scenario in re.findall(r"molecule \w+ -s (\w+)", line):
            assert (PROJECT / "molecule" / scenario / "molecule.yml").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_named_file_exists(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(
        r"`((?:plugins|roles|playbooks|tools|tests|molecule|inventories|benchmarks)/[\w./-]*)`", text
    ):
        assert "NAME" in path or (PROJECT / path).exists(), path


def test_the_catalogues_page_lists_every_key():
    text = (PROJECT / "docs/catalogue.md").read_text()
    table = text[text.index("## Keys") : text.index("A deployment with a draft")]
    listed = {
        key
        for row in table.splitlines()
        if row.startswith("| `")
        for key in re.findall(r"`([\w.]+)`", row.split("|")[1])
    }
    assert listed == (set(KEYS) - {"model"}) | {f"model.{key}" for key in MODEL_KEYS}


def test_every_variable_for_one_run_is_read_by_a_playbook():
    playbooks = "".join(path.read_text() for path in (PROJECT / "playbooks").rglob("*.yml"))
    text = "".join(page.read_text() for page in PAGES)
    for variable in set(re.findall(r"(vllm_\w+)=true", text)):
        assert re.search(rf"\b{variable} \| default\(false\)", playbooks), variable


def test_the_summary_of_the_readme_has_the_lines_of_the_template():
    summary = (PROJECT / "playbooks/templates/summary.j2").read_text()
    shown = (PROJECT / "README.md").read_text()
    for label in re.findall(r"^  ([A-Za-z]+)  ", summary, re.MULTILINE):
        assert re.search(rf"^  {label}  ", shown, re.MULTILINE), label


def test_the_default_image_is_the_same_everywhere():
    role = yaml.safe_load((PROJECT / "roles/vllm_image/defaults/main.yml").read_text())["vllm_image_name"]
    assert f"default('{role}')" in (PROJECT / "playbooks/tasks/catalogue.yml").read_text()


def test_every_code_of_a_diagnosis_is_listed():
    sources = [PROJECT / f"plugins/module_utils/{name}.py" for name in ("_diagnosis", "_probe")]
    made = re.compile(r'(?:Rule|Diagnosis|_unmet)\(\s*"(\w+)",')
    codes = {code for source in sources for code in made.findall(source.read_text())} - {"starting"}
    page = (PROJECT / "docs/probes.md").read_text()
    table = page[page.index("| codes |") : page.index("An engine that dies")]
    listed = [code for row in table.strip().splitlines()[2:] for code in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(codes | {"hung", "not_idle", "unknown"})
