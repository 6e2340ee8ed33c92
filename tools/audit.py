"""Look for known vulnerabilities in the pins, and for secrets in what git tracks.

Usage: tools/audit.py [--offline]

  advisories    each pin, asked of the advisory services by pip-audit; --offline leaves it out
  secrets       what detect-secrets finds and .secrets.baseline does not know as a false positive, and tokens of the Hub
  inventories   files of ansible-vault that are not encrypted, and keys, tokens or passwords written as plain text

Ends with 0 when all that was looked at is clean, with 1 when something was found, and with 3 when nothing was found but
no advisory service could be asked about some of the pins: that is no pass.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
BASELINE = ".secrets.baseline"
FOUND, NOT_ASKED = 1, 3
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
SECRET_KEY = re.compile(r"(^|_)(key|token|password|passwd|passphrase|secret)$")
VAULT_HEADER = "$ANSIBLE_VAULT;"
ALLOWED = "pragma: allowlist secret"


def tracked(root: Path) -> list[str]:
    """Return the files that git tracks, or would when they are added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (root / name).is_file()]


def advisories(requirements: Path, answers: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the vulnerabilities of the pins, and the pins of which nothing is known."""
    found, unknown = [], []
    for pin in answers["dependencies"]:
        if "skip_reason" in pin:
            unknown.append(pin["name"])
        for vulnerability in pin.get("vulns", []):
            fixed = ", ".join(vulnerability["fix_versions"]) or "no release yet"
            found.append(
                f"{requirements.name}: {pin['name']} {pin['version']}: {vulnerability['id']}, fixed in {fixed}"
            )
    return found, unknown


def ask_for_advisories(requirements: Path) -> tuple[list[str], list[str]]:
    """Ask the services one after the other, until one knows every pin."""
    unknown = ["all of its pins"]
    for service in ("pypi", "osv"):
        command: list[str | Path] = [
            tool("pip-audit"),
            "--disable-pip",
            "--no-deps",
            "--progress-spinner=off",
            "--format=json",
        ]
        command += ["--vulnerability-service", service, "--requirement", requirements]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            found, unknown = advisories(requirements, json.loads(run.stdout))
        except json.JSONDecodeError:
            continue
        if found or not unknown:
            return found, unknown
    return [], unknown


def secrets(root: Path) -> list[str]:
    """Return what detect-secrets finds and the baseline does not know."""
    names = [name for name in tracked(root) if name != BASELINE]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        # It writes the numbers of lines that have moved into the baseline.
        baseline = shutil.copy(root / BASELINE, folder)
        command: list[str | Path] = [tool("detect-secrets-hook"), "--json", "--baseline", baseline, *names]
        run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if run.returncode == 1:
            for name, hits in json.loads(run.stdout)["results"].items():
                found += [f"{name}:{hit['line_number']}: {hit['type']}" for hit in hits]
        elif run.returncode not in (0, 3):
            raise RuntimeError(run.stderr)
    for name in names:
        try:
            lines = (root / name).read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number}: a token of the Hub" for number, line in enumerate(lines, 1) if HUB_TOKEN.search(line)
        ]
    return found


def unaudited(root: Path) -> list[str]:
    """Return what the baseline has taken up without anybody having said that it is no secret."""
    results = json.loads((root / BASELINE).read_text())["results"]
    return [
        f"{name}:{hit['line_number']}: in {BASELINE}, but nobody has said that it is no secret: detect-secrets audit"
        for name, hits in results.items()
        for hit in hits
        if hit.get("is_secret") is not False
    ]


class Inventory(yaml.SafeLoader):
    """YAML as Ansible writes it; what is encrypted or unsafe is kept as it is."""


class Encrypted(str):
    """A value of ansible-vault."""


Inventory.add_constructor("!vault", lambda loader, node: Encrypted(node.value))
Inventory.add_constructor("!unsafe", lambda loader, node: node.value)


def pairs(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Yield each key of a document with its value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key, value
            yield from pairs(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from pairs(value)


def inventories(root: Path) -> list[str]:
    """Return what an inventory should have encrypted."""
    found = []
    for name in tracked(root):
        path = root / name
        if not name.startswith("inventories/") or path.suffix not in ("", ".yml", ".yaml"):
            continue
        text = path.read_text(errors="replace")
        if text.startswith(VAULT_HEADER):
            continue
        if "vault" in path.name:
            found.append(f"{name}: is named like a file of ansible-vault, and is not encrypted")
        lines = text.splitlines()
        try:
            document = yaml.compose(text, Loader=Inventory)
        except yaml.YAMLError:
            # An INI file: KEY=VALUE, several in a line.
            found += [
                f"{name}:{number}: {key} is plain text: keep it with ansible-vault"
                for number, line in enumerate(lines, 1)
                for key, value in re.findall(r"(\w+) *= *(\S+)", line)
                if SECRET_KEY.search(key) and "{{" not in value and not value.startswith("/") and ALLOWED not in line
            ]
            continue
        for key, value in pairs(document):
            if (
                not isinstance(value, yaml.ScalarNode)
                or value.tag in ("!vault", "tag:yaml.org,2002:null")
                or not value.value
            ):
                continue
            line = key.start_mark.line
            if ALLOWED in lines[line]:
                continue
            if str(key.value).startswith("vault_"):
                found.append(f"{name}:{line + 1}: {key.value} is not encrypted")
            elif SECRET_KEY.search(str(key.value)) and "{{" not in value.value and not value.value.startswith("/"):
                found.append(f"{name}:{line + 1}: {key.value} is plain text: keep it with ansible-vault")
    return found


def tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline", action="store_true")
    offline = parser.parse_args(arguments).offline
    found = secrets(PROJECT) + unaudited(PROJECT) + inventories(PROJECT)
    status = 0
    for requirements in [] if offline else sorted(PROJECT.glob("tools/**/requirements.txt")):
        vulnerable, unknown = ask_for_advisories(requirements)
        found += vulnerable
        if unknown:
            shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
            print(
                f"audit: NOT LOOKED UP: no advisory service answered for {shown} of {requirements.relative_to(PROJECT)}"
            )
            status = NOT_ASKED
    for line in found:
        print(f"audit: {line}")
    if found:
        return FOUND
    said = "advisories not asked for" if offline else "advisories incomplete" if status else "no advisories"
    print(f"audit: no secrets, {said}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
