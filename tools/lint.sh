#!/bin/sh
# Static checks; prints what is wrong and ends with an error, or says that all is clean.
set -eu
cd "$(dirname "$0")/.."
# ansible-lint takes nearly all of the time, on one core: two of them, each with its own files.
.venv/bin/ansible-lint -q --exclude roles/ --exclude playbooks/ --exclude plugins/ -- molecule &
scenarios=$!
trap 'kill $scenarios 2>/dev/null || true' EXIT
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --quiet --check .
# What runs on a host, with its Python.
.venv/bin/vermin --quiet --target=3.9- --violations --no-tips plugins/modules plugins/module_utils
# Under the name by which a plugin is imported, so that each has but one.
mkdir -p .venv/types/ansible_collections/llmops
ln -sfn "$PWD" .venv/types/ansible_collections/llmops/vllm
.venv/bin/mypy --no-error-summary
.venv/bin/mypy --no-error-summary --python-version 3.11 tests/support tools
.venv/bin/yamllint --strict .
found=$(.venv/bin/zizmor --offline --pedantic --quiet .github/workflows) || { echo "$found"; exit 1; }
.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
status=0
.venv/bin/ansible-lint -q --exclude molecule/ || status=1
.venv/bin/antsibull-changelog lint
# It starts ansible-doc by name.
PATH=$PWD/.venv/bin:$PATH .venv/bin/antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
.venv/bin/python tools/audit.py --offline
wait $scenarios || status=1
# Anything that a commit should not carry: places of the machine that it was written on.
if git grep -nE '(pypi|pythonhosted|npmjs|debian)\.(org|com|net)' -- ':!tools/lint.sh'; then
    echo "lint: the lines above name a place that is not the project's" >&2
    exit 1
fi
[ $status = 0 ] || exit 1
echo "lint: clean"
