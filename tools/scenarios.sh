#!/bin/sh
# Runs molecule scenarios one after the other and says how each ended.
#
#   tools/scenarios.sh NAME...       run these; the output of each is in .work/scenarios/NAME.log
#   tools/scenarios.sh --touched     list those whose folder, or role of the same name, changed in the last 20 commits
set -u
cd "$(dirname "$0")/.." || exit 1
# Molecule finds its tools by PATH, and shows output as it is, without a box around it.
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_CONFIG="$PWD/ansible.cfg" MOLECULE_COMMAND_BORDERS=0

if [ "$1" = --touched ]; then
    first=$(git rev-list --max-count=20 HEAD | tail -n 1)
    git diff --name-only "$first" HEAD -- molecule roles | cut -d/ -f2 | sort -u | while read -r name; do
        test -e "molecule/$name/molecule.yml" && echo "$name"
    done
    exit 0
fi

mkdir -p .work/scenarios
passed=0
failed=0
for name in "$@"; do
    log=.work/scenarios/$name.log
    started=$(date +%s)
    # Molecule ends with 0 when a playbook that a step names does not exist; the recap tells.
    if molecule test -s "$name" >"$log" 2>&1 </dev/null && ! grep -q 'missing=[^0]*[1-9]' "$log"; then
        passed=$((passed + 1))
        echo "scenario $name: passed in $(($(date +%s) - started)) s"
    else
        failed=$((failed + 1))
        tail -n 150 "$log"
        echo "scenario $name: FAILED after $(($(date +%s) - started)) s, all of its output is in $log"
    fi
done
echo "$passed passed, $failed failed"
test "$failed" -eq 0
