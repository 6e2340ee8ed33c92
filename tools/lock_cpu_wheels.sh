#!/bin/sh
# Resolves roles/vllm_image/files/cpu/requirements.in for Python 3.11 on x86-64 and writes
# requirements.txt: one wheel a line, with its sha256. Run it to move to another vLLM.
# torch==X+cpu comes from where UV_FIND_LINKS or UV_INDEX points, in doubt
# UV_INDEX=https://download.pytorch.org/whl/cpu
set -eu
cd "$(dirname "$0")/.."
files=roles/vllm_image/files/cpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/uv pip compile --quiet --no-header --no-annotate --only-binary :all: --python-version 3.11 \
    --python-platform x86_64-manylinux_2_36 --override $files/overrides.txt $files/requirements.in -o "$work/pins.txt"
.venv/bin/pip download -qq --no-deps --only-binary :all: --dest "$work/wheels" -r "$work/pins.txt"
.venv/bin/python - "$work" >$files/requirements.txt <<'PYTHON'
import hashlib, pathlib, sys
from packaging.utils import parse_wheel_filename

work = pathlib.Path(sys.argv[1])
print("# Written by tools/lock_cpu_wheels.sh: Python 3.11, x86-64, glibc 2.36 or newer.")
for wheel in sorted((work / "wheels").glob("*.whl"), key=lambda path: path.name.lower()):
    name, version, *_ = parse_wheel_filename(wheel.name)
    print(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
PYTHON
