"""What `make docs` has built says all that the specs of plugins and roles say, and has a place for every guide."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from antsibull_docs_parser.html import to_html_plain
from antsibull_docs_parser.parser import Context, parse
from bs4 import BeautifulSoup, Tag

PROJECT = Path(__file__).parents[2]
SITE = PROJECT / ".work/docs/html"
COLLECTION = "llmops.vllm"
KINDS = {"modules": "module", "filter": "filter", "lookup": "lookup"}
PLUGINS = [path for folder in KINDS for path in sorted((PROJECT / "plugins" / folder).glob("*.py"))]
ROLES = sorted((PROJECT / "roles").glob("*/meta/argument_specs.yml"))
# As Ansible's documentation calls them.
TYPES = {"bool": "boolean", "dict": "dictionary", "int": "integer", "raw": "any", "str": "string"}

Option = tuple[str, dict[str, Any]]


@functools.cache
def page(name: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / f"{name}.html").read_text(), "html.parser")


def plugin_page(path: Path) -> BeautifulSoup:
    return page(f"reference/{path.stem}_{KINDS[path.parent.name]}")


def role_page(path: Path) -> BeautifulSoup:
    return page(f"reference/{path.parts[-3]}_role")


def documentation(path: Path, block: str) -> dict[str, Any]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == block:
            return yaml.safe_load(ast.literal_eval(node.value)) or {}
    return {}


def walk(entries: dict[str, Any] | None, below: str, parent: str = "") -> Iterator[Option]:
    for name, entry in (entries or {}).items():
        yield parent + name, entry
        yield from walk(entry.get(below), below, f"{parent}{name}/")


def words(text: str) -> str:
    """Text without what HTML and typography make of it: white space, quotes and dashes."""
    return "".join(re.findall(r"\w", text))


def described(entry: dict[str, Any]) -> list[str]:
    """The paragraphs of a description, as plain text."""
    paragraphs = entry["description"]
    paragraphs = [paragraphs] if isinstance(paragraphs, str) else paragraphs
    html = [to_html_plain([paragraph]) for paragraph in parse([str(text) for text in paragraphs], Context())]
    return [BeautifulSoup(text, "html.parser").get_text() for text in html]


def text_of(row: Tag, kind: str) -> str:
    found = row.select_one(f".ansible-{kind}")
    return squeezed(found.get_text()) if found else ""


def squeezed(text: str) -> str:
    return " ".join(text.split())


def as_json(value: Any) -> str:
    return squeezed(json.dumps(value, ensure_ascii=False, sort_keys=True))


def row_of(shown: BeautifulSoup, anchor: str) -> Tag | None:
    found = shown.find("div", class_="ansibleOptionAnchor", id=anchor)
    return found.find_parent("tr") if found else None


def missing(row: Tag | None, entry: dict[str, Any]) -> Iterator[str]:
    """What a row does not show of what options and return values have in common."""
    if row is None:
        yield "it is not there"
        return
    kind = entry.get("type", "str")
    if text_of(row, "option-type") != TYPES.get(kind, kind):
        yield f"type {kind}"
    if "elements" in entry and text_of(row, "option-elements") != "elements=" + TYPES.get(
        entry["elements"], entry["elements"]
    ):
        yield f"elements {entry['elements']}"
    shown = words(row.select("td")[1].get_text())
    for paragraph in described(entry):
        if not words(paragraph) or words(paragraph) not in shown:
            yield f"description: {paragraph}"


def missing_of_option(row: Tag | None, entry: dict[str, Any]) -> Iterator[str]:
    yield from missing(row, entry)
    if row is None:
        return
    if text_of(row, "option-versionadded") != f"added in {COLLECTION} {entry.get('version_added')}":
        yield f"version_added {entry.get('version_added')}"
    if bool(entry.get("required")) != bool(text_of(row, "option-required")):
        yield "whether it is required"
    listed = {code.get_text() for code in row.select("li code")}
    for choice in entry.get("choices", []):
        if as_json(choice) not in listed:
            yield f"choice {choice}"
    default = entry.get("default")
    if default is not None:
        if entry["type"] == "float":
            default = float(default)
        # In bold among the choices, by itself where there are none.
        found = row.select_one("code.ansible-option-default-bold, code.ansible-option-default")
        shown = found.get_text() if found else ""
        if squeezed(shown) != as_json(default):
            yield f"default {as_json(default)}, not {shown}"


def gaps(shown: BeautifulSoup, prefix: str, options: Iterator[Option]) -> list[str]:
    return [
        f"{name}: {gap}"
        for name, entry in options
        for gap in missing_of_option(row_of(shown, f"parameter-{prefix}{name}"), entry)
    ]


def test_the_specs_are_found() -> None:
    assert len(PLUGINS) > 30
    assert len(ROLES) > 8


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_every_option_of_a_plugin_is_shown(path: Path) -> None:
    document = documentation(path, "DOCUMENTATION")
    shown = plugin_page(path)
    assert words(document["short_description"]) in words(shown.h1.get_text())
    assert f"New in {COLLECTION} {document['version_added']}" in shown.get_text()
    assert not gaps(shown, "", walk(document.get("options"), "suboptions"))


@pytest.mark.parametrize("path", ROLES, ids=lambda path: path.parts[-3])
def test_every_option_of_a_role_is_shown(path: Path) -> None:
    for entry_point, spec in yaml.safe_load(path.read_text())["argument_specs"].items():
        assert not gaps(role_page(path), f"{entry_point}--", walk(spec.get("options"), "options")), entry_point


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_every_return_value_is_shown_with_a_sample(path: Path) -> None:
    """One that has parts is shown by the samples of these."""
    found = []
    values = documentation(path, "RETURN")
    assert values
    for name, entry in walk(values, "contains"):
        row = row_of(plugin_page(path), f"return-{name}")
        found += [f"{name}: {gap}" for gap in missing(row, entry)]
        sample = row and row.select_one("code.ansible-option-sample")
        if "sample" in entry and squeezed(sample.get_text() if sample else "") != as_json(entry["sample"]):
            found.append(f"{name}: sample {as_json(entry['sample'])}, not {sample}")
        elif not sample and "contains" not in entry:
            found.append(f"{name}: it has no sample")
    assert not found


def test_every_guide_has_a_section() -> None:
    index = page("index")
    sections = {
        caption.get_text(): [link["href"] for link in caption.find_next_sibling("ul").select("a")]
        for caption in index.select(".sidebar-tree .caption")
    }
    placed = [href for caption, hrefs in sections.items() if caption != "Reference" for href in hrefs]
    expected = [f"docs/{path.stem}.html" for path in (PROJECT / "docs").glob("*.md")]
    assert expected
    assert sorted(expected) == sorted(href for href in placed if href.startswith("docs/"))
    assert {"Start", "Reference"} < set(sections)


def test_every_page_of_the_reference_is_listed() -> None:
    listed = {
        link["href"] for kind in ("roles", "modules", "filters", "lookups")
        for link in page(f"reference/{kind}").select("article a.internal")
    }  # fmt: skip
    expected = {f"{path.stem}_{KINDS[path.parent.name]}.html" for path in PLUGINS}
    expected |= {f"{path.parts[-3]}_role.html" for path in ROLES}
    assert expected <= {href.partition("#")[0] for href in listed}
