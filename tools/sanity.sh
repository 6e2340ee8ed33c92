#!/bin/sh
# ansible-test sanity on a copy of the tracked files: it wants a path that ends in
# ansible_collections/llmops/vllm, and no link on the way there.
set -eu
cd "$(dirname "$0")/.."
# Outside the checkout, whose .gitignore would hide the copy.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
collection=$root/ansible_collections/llmops/vllm
mkdir -p "$collection"
git ls-files -z --cached --others --exclude-standard --deduplicate | xargs -0 cp --no-dereference --parents -t "$collection"

# ansible-test fetches a pip bootstrap from the network for each of its environments. It finds this one in its
# cache instead, which uses the pip that Python itself carries.
cache=$HOME/.ansible/test/cache
mkdir -p "$cache"
bootstrap=$(.venv/bin/python -c '
import pathlib, re
import ansible_test._internal.python_requirements as requirements
version = re.search("pip=.([0-9.]+)", pathlib.Path(requirements.__file__).read_text()).group(1)
print("get_pip_%s.py" % version.replace(".", "_"))')
test -e "$cache/$bootstrap" || cat >"$cache/$bootstrap" <<'PYTHON'
import ensurepip
import sys

sys.exit(ensurepip._main(["--default-pip", "--upgrade"]))
PYTHON
cd "$collection"
"$OLDPWD/.venv/bin/ansible-test" sanity --color no --venv --python 3.11 "$@"
