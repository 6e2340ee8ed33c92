"""What README and docs show is true: examples parse, commands, files, keys and variables exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import test_findings
import yaml

from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import (
    KEYS,
    MODEL_KEYS,
    CatalogueError,
    read_catalogue,
)
from ansible_collections.llmops.vllm.plugins.plugin_utils.contact import why_not
from ansible_collections.llmops.vllm.plugins.plugin_utils.findings import findings, sentence
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Network

PROJECT = Path(__file__).parents[2]
DOCS = sorted((PROJECT / "docs").glob("*.md"))
PAGES = [PROJECT / "README.md", PROJECT / "README.ja.md", PROJECT / "CONTRIBUTING.md", *DOCS]
INVENTORIES = sorted(path.parent for path in PROJECT.glob("inventories/*/hosts.yml"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language):
    return [
        pytest.param(text, id=f"{page.stem}:{number}")
        for page in PAGES
        for number, (found, text) in enumerate(BLOCK.findall(page.read_text()), 1)
        if found == language
    ]


def complete(deployments):
    # What is a template here has a value there.
    deployments = [
        {key: "key" if key == "api_key" and "{{" in value else value for key, value in deployment.items()}
        for deployment in deployments
    ]
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


def anchors(page):
    """Return those of a page's headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_named_file_exists(page):
    text = page.read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]+)?\)", text):
        assert (page.parent / target).exists(), target
        if anchor:
            assert anchor[1:] in anchors(page.parent / target if target else page), target + anchor
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
    listed = re.findall(r"^\| `(\w+)` \|", (PROJECT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(codes | {"hung", "not_idle", "unknown"})


def test_what_the_preflight_says_most_often_is_what_it_says():
    page = (PROJECT / "docs/troubleshooting.md").read_text()
    table = page[page.index("| it says |") :]
    said = [row.split("|")[1].strip(" `") for row in table.splitlines()[2:] if row.startswith("| `")]
    assert len(said) > 5
    tested = [case[-1] for case in test_findings.BROKEN.values()] + moved("llm-vllm-1").splitlines()
    for text in said:
        # What is a number or a name there may be another one here.
        pattern = re.sub(r"\\?\d+", r"\\d+", re.escape(text).replace(r"\.\.\.", ".*"))
        assert any(re.search(pattern, one) for one in tested), text


def test_every_page_is_listed_in_the_readme():
    text = (PROJECT / "README.md").read_text()
    listed = text[text.index("## Where to go next") : text.index("## What it is tested with")]
    assert sorted(re.findall(r"^- \[docs/([\w.]+)\]", listed, re.MULTILINE)) == [page.name for page in DOCS]
    assert "(README.ja.md)" in text
    assert "(README.md)" in (PROJECT / "README.ja.md").read_text()


def test_the_japanese_guide_shows_what_the_english_ones_show():
    pages = [PROJECT / "README.md", PROJECT / "docs/first_deployment.md"]
    english = [block for page in pages for block in BLOCK.findall(page.read_text())]
    # The English README says beside a command what it does.
    commands = {re.sub(r" +# .*", "", line) for found, text in english if found == "sh" for line in text.splitlines()}
    japanese = BLOCK.findall((PROJECT / "README.ja.md").read_text())
    assert [found for found, _text in japanese].count("yaml") == 2
    for found, text in japanese:
        if found == "sh":
            assert set(text.splitlines()) <= commands, text
        else:
            assert (found, text) in english, text


def refusal(**keys):
    """What is said of the runbook's deployment with other keys."""
    (deployment,) = yaml.safe_load((PROJECT / "inventories/single/group_vars/all.yml").read_text())["vllm_deployments"]
    network = Network({}.get, lambda pattern: ["gpu1"], {})
    with pytest.raises(CatalogueError) as caught:
        read_catalogue([{**deployment, **keys}], network, {}, "vllm/vllm-openai:v0.32.0")
    (problem,) = caught.value.problems
    return problem


def test_the_first_mistakes_end_in_the_sentences_that_are_shown():
    page = (PROJECT / "docs/first_deployment.md").read_text()
    japanese = (PROJECT / "README.ja.md").read_text()
    host = test_findings.rtx4090()
    host["models"][0].update(
        repo_id="masao121/karakuri-lm-70b-chat-v0.1-AWQ", refusal="not_found", status=404, commit="", files={}
    )
    misspelt = test_findings.complete({"name": "karakuri-70b", "model": {"repo_id": host["models"][0]["repo_id"]}})
    (unknown,) = findings("gpu1", misspelt, host, {})
    play = (PROJECT / "playbooks/catalogue.yml").read_text()
    empty = yaml.safe_load(play)[0]["tasks"][1]["ansible.builtin.fail"]["msg"]
    sources = re.compile(r"\{\{.*?\}\}")
    way = ("gpu1.example.com", None, "admin")
    for said in (
        why_not("gpu1", "ssh: Could not resolve hostname gpu1.example.com: Name or service not known", *way),
        why_not("gpu1", "Permission denied (publickey,password).", *way),
        why_not("gpu1", "Missing sudo password", *way),
        sources.sub("/home/you/ansible-vllm/inventories/singel", empty),
        refusal(engine_args={"max_modle_len": 4095}),
        refusal(listen="0.0.0.0"),
        f"gpu1, karakuri-70b: {sentence(unknown)}",
    ):
        assert f"  {said}\n" in page, said
    for shown in re.findall(r"`([^`]+)`", japanese[japanese.index("| 誤り |") : japanese.index("稼働中の不調")]):
        if " " in shown and not shown.startswith("-"):
            assert shown in page, shown


def moved(container):
    """What the preflight says of a host where a container of somebody else serves."""
    host = test_findings.serving(test_findings.a100x8(), container)
    host["docker"]["containers"][0]["labels"] = {}
    args = {"engine_args": {"gpu_memory_utilization": 0.9}}
    wanted = test_findings.complete(test_findings.deployment("karakuri-70b", container_name="vllm", **args))
    return "".join(
        f"gpu1, {finding['deployment']}: {sentence(finding)}\n" for finding in findings("gpu1", wanted, host, {})
    )


def test_the_old_container_is_told_as_it_is_shown():
    page = (PROJECT / "docs/from_compose.md").read_text()
    shown = [text for found, text in BLOCK.findall(page) if found == "text" and text.startswith("gpu1, ")]
    assert shown == [moved("llm-vllm-1")]
    # By its name it is taken for the deployment's own: its port counts as free, the GPU's memory does not.
    assert "port" not in moved("vllm")
    assert "GPU 0 has 10.0 of 80.0 GiB free" in moved("vllm")


def test_the_example_of_compose_is_the_catalogue_beside_it():
    page = (PROJECT / "docs/from_compose.md").read_text()
    found = {language: text for language, text in reversed(BLOCK.findall(page)) if language in ("text", "yaml")}
    service = yaml.safe_load(found["text"])["services"]["vllm"]
    written = yaml.safe_load(found["yaml"])
    (deployment,) = complete(written["vllm_deployments"])
    words = service["command"].split()
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options.pop("--model") == deployment["model"]["repo_id"]
    assert options.pop("--served-model-name") == deployment["served_model_names"][0]
    assert options.pop("--api-key") and deployment["has_api_key"]
    assert options == {f"--{key.replace('_', '-')}": str(value) for key, value in deployment["engine_args"].items()}
    assert (service["image"], service["ports"]) == (written["vllm_image_name"], [f"{deployment['port']}:8000"])
    (devices,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert devices["device_ids"] == [str(gpu) for gpu in deployment["gpus"]]


def test_every_row_of_the_container_is_held_by_a_test_that_exists():
    page = (PROJECT / "docs/security.md").read_text()
    table = page[page.index("| what | setting |") : page.index("There is no seccomp")]
    rows = [row for row in table.splitlines()[2:] if row.startswith("| ")]
    assert len(rows) >= 10
    for row in rows:
        found = re.fullmatch(r"`([\w/.]+)::(test_\w+)`", row.split("|")[4].strip())
        assert found, row
        file, function = found.groups()
        assert re.search(rf"^def {function}\(", (PROJECT / file).read_text(), re.MULTILINE), row


def test_the_ways_to_report_a_vulnerability_are_the_repositorys():
    galaxy = yaml.safe_load((PROJECT / "galaxy.yml").read_text())
    page = (PROJECT / "docs/security.md").read_text()
    assert f"({galaxy['repository']}/security/advisories/new)" in page
    assert f"({galaxy['issues']})" in page
    assert f"git clone {galaxy['repository']}\n" in (PROJECT / "docs/first_deployment.md").read_text()
