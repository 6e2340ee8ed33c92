#!/bin/sh
# Builds the collection's tarball.
# Usage: tools/build.sh [FOLDER]     (default: .work)
# From a copy of the tracked files: an inventory of your own that lies in the checkout stays out, whatever its name.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-.work}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached | xargs -0 cp --no-dereference --parents -t "$copy"
.venv/bin/ansible-galaxy collection build --force --output-path "$folder" "$copy" >/dev/null
version=$(sed -n 's/^version: //p' galaxy.yml)
echo "$folder/llmops-vllm-$version.tar.gz"
