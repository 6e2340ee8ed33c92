#!/bin/sh
# Fetches the wheels of the CPU image into a folder, each checked against its sha256.
# Usage: tools/cpu_wheels.sh [FOLDER]     (default: .work/wheels)
set -eu
cd "$(dirname "$0")/.."
requirements=roles/vllm_image/files/cpu/requirements.txt
folder=${1:-.work/wheels}
if cmp -s $requirements "$folder/requirements.txt"; then
    echo "wheels: $folder is up to date"
    exit 0
fi

# Says every few seconds how far it is, since pip itself is asked to be quiet.
fetch() {
    (while sleep 5; do echo "wheels: $(du -sh "$folder" | cut -f1) so far"; done) &
    ticker=$!
    status=0
    .venv/bin/pip download -qq --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        --dest "$folder" -r $requirements "$@" || status=$?
    kill $ticker
    return $status
}

echo "wheels: fetching $(grep -c == $requirements) wheels (about 600 MB) into $folder"
rm -rf "$folder"
mkdir -p "$folder"
# PyPI itself has no CPU build of torch: it comes from pip's own configuration, or from PyTorch's index.
if ! fetch 2>"$folder/.pip.log"; then
    echo "wheels: not all of them are where pip looks, trying PyTorch's index as well"
    fetch --extra-index-url https://download.pytorch.org/whl/cpu
fi
rm -f "$folder/.pip.log"
cp $requirements "$folder/requirements.txt"
echo "wheels: they are there, $(du -sh "$folder" | cut -f1)"
