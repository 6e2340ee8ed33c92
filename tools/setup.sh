#!/bin/sh
# Makes .venv: the pinned tools, the collections that ours calls, and this
# checkout itself as llmops.vllm. Quick and silent when nothing has changed.
set -eu
cd "$(dirname "$0")/.."
venv=.venv
inputs=$(cat tools/requirements.txt requirements.yml tools/setup.sh | sha256sum | cut -c1-16)
if [ "$(cat $venv/.inputs 2>/dev/null)" = "$inputs" ]; then
    exit 0
fi

# Not the Python of the environment that is about to be made again.
PATH=$(printf '%s' "$PATH" | tr : '\n' | grep -vxF "$PWD/$venv/bin" | paste -sd: -)
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    echo "setup: $python cannot make virtual environments, installing python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv
fi

echo "setup: installing the tools of tools/requirements.txt into $venv"
rm -rf $venv
"$python" -m venv $venv
# What is imported is compiled then; most of it never is.
$venv/bin/pip install -qq --no-compile --disable-pip-version-check -r tools/requirements.txt

collections=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ansible_collections
mkdir -p "$collections/llmops"
PATH=$PWD/$venv/bin:$PATH
export PATH
if ansible-galaxy collection install --timeout 20 -r requirements.yml -p "$collections" >$venv/galaxy.log 2>&1; then
    echo "setup: collections of requirements.yml installed from Galaxy"
else
    echo "setup: Galaxy is out of reach (see $venv/galaxy.log), taking the collections from the PyPI package ansible"
    python tools/collections_from_pypi.py requirements.yml "$collections"
fi
ln -sfn "$PWD" "$collections/llmops/vllm"
echo "$inputs" >$venv/.inputs
