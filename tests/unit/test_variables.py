"""Tests of the tables of variables: they say what playbooks and roles really read and publish."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.llmops.vllm.plugins.plugin_utils.variables import (
    PUBLISHED,
    VARIABLES,
    known_variables,
    options_of_roles,
    prefixes,
    role_names,
)

PROJECT = Path(__file__).resolve().parents[2]
# Groups that catalogue.yml makes.
GROUPS = {"vllm_active", "vllm_prepared"}
# Read by roles, and no option of one.
READ_BY_ROLES = {"vllm_internal_address"}


class Loader(yaml.SafeLoader):
    """Reads tasks; what has a tag of Ansible is of no interest."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def text_of(*patterns: str) -> str:
    files = sorted(path for pattern in patterns for path in PROJECT.glob(pattern) if path.is_file())
    assert files
    lines = "\n".join(path.read_text() for path in files).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def names_in(text: str) -> set[str]:
    # Roles and modules are called by their full names.
    return {name for name in re.findall(r"(?<!llmops\.vllm\.)\b[a-z]\w+", text) if name.startswith(prefixes())}


def test_the_table_has_what_playbooks_read() -> None:
    read = names_in(text_of("playbooks/*.yml", "playbooks/tasks/*", "playbooks/templates/*"))
    # Seals have the names of roles.
    read -= GROUPS | PUBLISHED | set(options_of_roles()) | set(role_names())
    assert read | READ_BY_ROLES == set(VARIABLES), "plugins/plugin_utils/variables.py has another set in VARIABLES"
    assert names_in(text_of("roles/*/tasks/*", "roles/*/vars/*", "roles/*/templates/*")) >= READ_BY_ROLES


def published(document: Any) -> Iterator[str]:
    """What tasks register, and set as facts."""
    if isinstance(document, dict):
        if isinstance(document.get("register"), str):
            yield document["register"]
        yield from document.get("ansible.builtin.set_fact") or {}
    for inner in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from published(inner)


def test_the_table_has_what_is_published() -> None:
    found: set[str] = set()
    for pattern in ("roles/*/tasks/*.yml", "playbooks/*.yml", "playbooks/tasks/*.yml"):
        for path in PROJECT.glob(pattern):
            found.update(published(yaml.load(path.read_text(), Loader)))
    for path in PROJECT.glob("roles/*/vars/*.yml"):
        found.update(yaml.load(path.read_text(), Loader) or {})
    found = {name for name in found if name.startswith(prefixes())} - set(known_variables())
    assert found == set(PUBLISHED), "plugins/plugin_utils/variables.py has another set in PUBLISHED"


def test_a_variable_is_described_once_and_in_the_docs() -> None:
    assert not set(VARIABLES) & (set(options_of_roles()) | PUBLISHED)
    page = (PROJECT / "docs/catalogue.md").read_text()
    for name, (kind, meaning) in VARIABLES.items():
        assert kind in ("bool", "int", "float", "str", "path", "list", "raw"), name
        assert meaning
        assert re.search(rf"`{name}\b", page), f"docs/catalogue.md lacks {name}"


def test_the_options_of_every_role_are_known() -> None:
    known = known_variables()
    for role in role_names():
        for name in yaml.safe_load((PROJECT / f"roles/{role}/defaults/main.yml").read_text()) or {}:
            assert known[name]["type"], name
    # An entry point beside main.
    assert known["model_snapshot_repair"]["type"] == "bool"


def test_a_role_that_is_added_is_read(tmp_path: Path) -> None:
    specs = {
        "one/meta/argument_specs.yml": (
            "argument_specs: {main: {options: {one_a: {type: int}}}, other: {options: {one_b: {}}}}"
        ),
        "two/meta/argument_specs.yaml": "argument_specs: {main: {options: {two_a: {type: bool}}}}",
        "empty/meta/argument_specs.yml": "",
        "bare/meta/argument_specs.yml": "argument_specs: {main: {short_description: x}, other: }",
        "vllm_new/tasks/main.yml": "[]",
    }
    for path, text in specs.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "README.md").touch()
    assert options_of_roles(str(tmp_path)) == {"one_a": {"type": "int"}, "one_b": {}, "two_a": {"type": "bool"}}
    assert prefixes(str(tmp_path)) == ("vllm_", "bare_", "empty_", "one_", "two_")
    assert known_variables(str(tmp_path))["vllm_prune"] == {"type": "bool"}


@pytest.mark.parametrize("prefix", ["vllm_", "docker_engine_", "model_snapshot_"])
def test_the_names_of_ours_begin_with(prefix: str) -> None:
    assert prefix in prefixes()
