"""Whether a tag may be released: galaxy.yml, the changelog and the docs say the same version.

Usage: tools/check_release.py TAG
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[1]


def problems(root: Path, tag: str) -> list[str]:
    """Return what keeps the tag from being released, each in a sentence."""
    version = yaml.safe_load((root / "galaxy.yml").read_text())["version"]
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag} and galaxy.yml has {version}: tag v{version}, or change galaxy.yml")
    releases = yaml.safe_load((root / "changelogs/changelog.yaml").read_text())["releases"]
    if version not in releases:
        found.append(f"changelogs/changelog.yaml has no {version}: run antsibull-changelog release")
    if left := sorted(path.name for path in (root / "changelogs/fragments").glob("[!.]*")):
        found.append(f"{', '.join(left)} in changelogs/fragments is in no release: run antsibull-changelog release")
    for page in sorted(root.glob("docs/*.md")):
        for named in set(re.findall(r"llmops-vllm-(\d+\.\d+\.\d+)\.tar\.gz", page.read_text())) - {version}:
            found.append(f"docs/{page.name} names the tarball of {named}: write {version}")
    return found


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    found = problems(PROJECT, sys.argv[1])
    for problem in found:
        print(f"release: {problem}")
    if not found:
        print(f"release: {sys.argv[1]} may be released")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
