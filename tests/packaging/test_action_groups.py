"""The groups of modules, for module_defaults."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from controller import MODULES, PROJECT, Installed
from hub import Hub

GROUPS = yaml.safe_load((PROJECT / "meta/runtime.yml").read_text())["action_groups"]
# The options that a group is for. Whoever takes all of them is in it, and nobody else.
OPTIONS = {"hub": {"endpoint", "token", "token_file"}, "snapshots": {"dest"}}
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars: {ansible_python_interpreter: PYTHON}
  module_defaults:
    group/llmops.vllm.hub: {endpoint: HUB, token: hf_of_the_group}
    group/llmops.vllm.snapshots: {dest: DEST}
  tasks:
    - llmops.vllm.hf_snapshot: {repo_id: org/name}
    - llmops.vllm.hf_snapshot_info: {}
      register: known
    - ansible.builtin.copy:
        content: "{{ known | to_json }}"
        dest: RESULT
        mode: "0600"
    - llmops.vllm.vllm_host_info: {models: [{repo_id: org/name}]}
"""


def test_each_group_is_for_some_options() -> None:
    assert GROUPS.keys() == OPTIONS.keys()


@pytest.mark.parametrize("group", OPTIONS)
def test_whoever_takes_the_options_is_in_the_group(group: str) -> None:
    takers = [module for module, document in MODULES.items() if OPTIONS[group] <= document.get("options", {}).keys()]
    assert sorted(GROUPS[group]) == takers


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_which_groups_it_is_in(module: str) -> None:
    said = MODULES[module]["attributes"].get("action_group", {}).get("membership", [])
    assert said == [f"llmops.vllm.{group}" for group, modules in GROUPS.items() if module in modules]


def test_defaults_of_a_group_reach_its_modules(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "hub/org/name").mkdir(parents=True)
    (tmp_path / "hub/org/name/config.json").write_text("{}\n")
    with Hub(tmp_path / "hub") as hub:
        values = {"PYTHON": sys.executable, "HUB": hub.url, "DEST": tmp_path / "models", "RESULT": tmp_path / "known"}
        play = PLAY
        for name, value in values.items():
            play = play.replace(name, str(value))
        (tmp_path / "play.yml").write_text(play)
        run = installed.run("ansible-playbook", "-i", "localhost,", tmp_path / "play.yml")
        asked = list(hub.requests)
    assert run.returncode == 0, run.stdout + run.stderr
    (snapshot,) = json.loads((tmp_path / "known").read_text())["snapshots"]
    assert Path(snapshot["path"]).parent == tmp_path / "models"
    assert "hf_of_the_group" not in run.stdout + run.stderr
    # The one that was fetched, and the one that the host was asked about.
    assert len([path for path in asked if "/revision/" in str(path)]) == 2, asked
