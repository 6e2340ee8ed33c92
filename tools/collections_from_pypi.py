"""Install the collections of a requirements.yml from the PyPI package ``ansible``.

Usage: collections_from_pypi.py REQUIREMENTS_YML COLLECTIONS_DIR

The package carries some 80 collections at fixed versions; only the ones named in
REQUIREMENTS_YML are unpacked, and only if the version is the one that it asks for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

# The release of the PyPI package that carries the versions of requirements.yml.
PACKAGE = "ansible==12.3.0"


def main(requirements: Path, collections_dir: Path) -> None:
    wanted = {c["name"]: c["version"] for c in yaml.safe_load(requirements.read_text())["collections"]}
    with tempfile.TemporaryDirectory() as download:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:",
             "--dest", download, PACKAGE],
            check=True,
        )  # fmt: skip
        wheel = zipfile.ZipFile(next(Path(download).glob("ansible-*.whl")))
        for name, version in wanted.items():
            prefix = f"ansible_collections/{name.replace('.', '/')}/"
            carried = json.loads(wheel.read(prefix + "MANIFEST.json"))["collection_info"]["version"]
            if carried != version:
                sys.exit(f"{PACKAGE} carries {name} {carried}, {requirements} asks for {version}: change one of them")
            wheel.extractall(collections_dir.parent, [n for n in wheel.namelist() if n.startswith(prefix)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
