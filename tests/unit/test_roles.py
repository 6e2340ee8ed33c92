"""Tests of every role: its argument spec and its defaults describe the same variables with the same values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
NAMES = sorted(path.parent.parent.name for path in ROLES.glob("*/defaults/main.yml"))
TYPES = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict, "float": (int, float)}


def load(role: str, path: str) -> Any:
    return yaml.safe_load((ROLES / role / path).read_text())


def options(role: str) -> dict[str, dict]:
    """Of all entry points; main is one of them."""
    specs = load(role, "meta/argument_specs.yml")["argument_specs"]
    assert "main" in specs
    return {name: option for spec in specs.values() for name, option in spec["options"].items()}


def every_option(found: dict[str, dict], prefix: str = "") -> Iterator[tuple[str, dict]]:
    for name, option in found.items():
        yield prefix + name, option
        yield from every_option(option.get("options", {}), f"{prefix}{name}.")


def test_every_role_has_both_files() -> None:
    assert NAMES
    assert sorted(path.name for path in ROLES.iterdir() if (path / "tasks").is_dir()) == NAMES


@pytest.mark.parametrize("role", NAMES)
def test_the_spec_and_the_defaults_are_the_same(role: str) -> None:
    defaults = load(role, "defaults/main.yml") or {}
    specs = {name: option.get("default") for name, option in options(role).items() if not option.get("required")}
    assert specs == defaults
    # True is 1 to Python.
    assert {name: type(value) for name, value in specs.items()} == {name: type(v) for name, v in defaults.items()}


@pytest.mark.parametrize("role", NAMES)
def test_every_option_is_described(role: str) -> None:
    for name, option in every_option(options(role)):
        assert option.get("description"), name
        assert str(option.get("version_added", "")).count(".") == 2, name
        assert option.get("type") in {*TYPES, "raw"}, name
        default = option.get("default")
        if default is not None and option["type"] != "raw":
            assert isinstance(default, TYPES[option["type"]]), name
            assert isinstance(default, bool) == (option["type"] == "bool"), name
        if option["type"] == "list":
            assert option.get("elements"), name
        if "choices" in option:
            assert option.get("default") in option["choices"], name


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_begins_with_the_roles_name(role: str) -> None:
    for name in load(role, "defaults/main.yml") or {}:
        assert name.startswith(f"{role}_"), name
    variables = ROLES / role / "vars"
    for path in variables.glob("*.yml") if variables.is_dir() else ():
        for name in yaml.safe_load(path.read_text()) or {}:
            assert name.startswith((f"{role}_", f"__{role}_")), f"{path.name}: {name}"


@pytest.mark.parametrize("role", NAMES)
def test_every_default_has_words_above_it(role: str) -> None:
    """Or stands directly below another one that it is described with."""
    above = ""
    for line in (ROLES / role / "defaults/main.yml").read_text().splitlines():
        if line.startswith(f"{role}_"):
            assert above.startswith(("#", f"{role}_")), line
        above = line


@pytest.mark.parametrize("role", NAMES)
def test_the_spec_has_a_head(role: str) -> None:
    main = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]
    for key in ("short_description", "description", "author", "version_added"):
        assert main.get(key), key
