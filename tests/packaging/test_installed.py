"""The installed tarball, by the names that users write, from a folder that is not the checkout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from controller import PROJECT, Installed

PLAYBOOKS = sorted(path.stem for path in (PROJECT / "playbooks").glob("*.yml"))
ROLES = sorted(path.parents[1].name for path in (PROJECT / "roles").glob("*/meta/main.yml"))
# What Ansible takes for its own: a list under `skipped` makes a task one that was skipped.
RESERVED = {"ansible_facts", "exception", "failed", "invocation", "results", "skipped", "unreachable"}
PLUGINS = {
    kind: sorted(f"llmops.vllm.{path.stem}" for path in (PROJECT / "plugins" / folder).glob("[!_]*.py"))
    for kind, folder in {"module": "modules", "filter": "filter", "lookup": "lookup"}.items()
}


@pytest.fixture(scope="module")
def single(installed: Installed) -> Path:
    """The inventory that the README tells users to write."""
    text = (PROJECT / "README.md").read_text()
    for name, content in re.findall(r"^```yaml\n# (\S+\.yml)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        file = installed.folder / "inventory" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return installed.folder / "inventory"


# The playbooks make these groups while they run, which --list-tasks and --syntax-check do not.
MADE_LATER = re.compile(r"\[WARNING\]: Could not match supplied host pattern, ignoring: vllm_(active|prepared)\n")


def passes(installed: Installed, *command: str | Path) -> str:
    """Run a command, which must succeed without a warning, and return what it printed."""
    run = installed.run(*command)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not MADE_LATER.sub("", run.stderr)
    return run.stdout


def test_the_environment_has_only_what_a_controller_needs(installed: Installed) -> None:
    run = installed.run("python", "-c", "import ansible, sys; print(ansible.__file__); import huggingface_hub")
    assert str(installed.folder) in run.stdout
    assert "No module named 'huggingface_hub'" in run.stderr


def test_the_readmes_inventory_passes(installed: Installed, single: Path) -> None:
    said = passes(installed, "ansible-playbook", "llmops.vllm.preflight", "--tags", "inventory", "-i", single)
    assert re.search(r"gpu1 +: ok=[1-9]\d* +changed=0 +unreachable=0 +failed=0", said), said


def test_a_mistake_in_it_is_found(installed: Installed, single: Path) -> None:
    wrong = json.dumps({"vllm_deployments": [{"name": "a", "model": {"repo_id": "a/b"}, "prot": 1}]})
    run = installed.run("ansible-playbook", "llmops.vllm.preflight", "--tags", "inventory", "-i", single, "-e", wrong)
    assert run.returncode != 0
    assert "did you mean 'port'?" in " ".join(run.stdout.split()).replace("''", "'")


def test_site_lists_its_tasks(installed: Installed, single: Path) -> None:
    listed = passes(installed, "ansible-playbook", "llmops.vllm.site", "--list-tasks", "-i", single)
    for task in ("Read the catalogue", "Look at the host", "Have each deployment answer"):
        assert task in listed


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_every_playbook_is_found_with_its_files(installed: Installed, single: Path, playbook: str) -> None:
    passes(installed, "ansible-playbook", f"llmops.vllm.{playbook}", "--syntax-check", "-i", single)
    text = (installed.collection / "playbooks" / f"{playbook}.yml").read_text()
    for name in re.findall(r"(?:include_tasks: |template', '|vars_files: \[)([\w/.]+)", text):
        assert (installed.collection / "playbooks" / name).is_file(), name


def test_the_readme_names_playbooks_that_are_there() -> None:
    named = set(re.findall(r"`llmops\.vllm\.(\w+)`", (PROJECT / "README.md").read_text()))
    assert named and named <= set(PLAYBOOKS)


@pytest.mark.parametrize("kind", PLUGINS)
def test_every_plugin_is_documented(installed: Installed, kind: str) -> None:
    documents = json.loads(passes(installed, "ansible-doc", "--json", "-t", kind, *PLUGINS[kind]))
    assert sorted(documents) == PLUGINS[kind]
    for name, document in documents.items():
        assert document["doc"]["short_description"], name
        assert document["examples"], name
        assert not RESERVED & set(document["return"]), name


def test_every_role_is_documented(installed: Installed) -> None:
    names = [f"llmops.vllm.{role}" for role in ROLES]
    documents = json.loads(passes(installed, "ansible-doc", "--json", "-t", "role", *names))
    assert sorted(documents) == names
    for name, document in documents.items():
        assert document["entry_points"]["main"]["short_description"], name


def test_ansible_doc_shows_pages(installed: Installed) -> None:
    assert "repo_id" in passes(installed, "ansible-doc", "llmops.vllm.hf_snapshot")
    assert "vllm_server_name" in passes(installed, "ansible-doc", "-t", "role", "llmops.vllm.vllm_server")


def test_the_requirements_are_those_of_galaxy_yml(installed: Installed) -> None:
    asked = yaml.safe_load((PROJECT / "galaxy.yml").read_text())["dependencies"]
    pinned = yaml.safe_load((installed.collection / "requirements.yml").read_text())["collections"]
    assert set(asked) <= {collection["name"] for collection in pinned}
    listed = passes(installed, "ansible-galaxy", "collection", "list", "--format", "json")
    there = json.loads(listed)[str(installed.folder / "collections/ansible_collections")]
    for collection in pinned:
        assert there[collection["name"]]["version"] == collection["version"]


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_of_a_role_has_a_play_that_ansible_takes(installed: Installed, role: str) -> None:
    """Galaxy refuses a collection of which a role has none."""
    text = (installed.collection / "roles" / role / "README.md").read_text()
    play = re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL).group(1)
    (called,) = yaml.safe_load(play)[0]["roles"]
    assert called["role"] == f"llmops.vllm.{role}"
    specs = yaml.safe_load((installed.collection / "roles" / role / "meta/argument_specs.yml").read_text())
    assert called["vars"].keys() <= specs["argument_specs"]["main"]["options"].keys()
    (installed.folder / f"{role}.yml").write_text(play)
    passes(installed, "ansible-playbook", "--syntax-check", "-i", "vllm,load_balancers,", f"{role}.yml")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (installed.collection / "roles" / role / target).exists(), target
