#!/usr/bin/env bash
# Runs molecule scenarios and says how each ended; the output of each is in .work/scenarios/NAME.log
#
#   tools/scenarios.sh NAME...            one after the other
#   tools/scenarios.sh --jobs N NAME...   up to N at a time: those named behind it, once those before it have ended
#   tools/scenarios.sh --touched          list those whose folder, or role of the same name, changed in the last 20 commits
set -u
cd "$(dirname "$0")/.." || exit 1
# Molecule finds its tools by PATH, and shows output as it is, without a box around it.
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_CONFIG="$PWD/ansible.cfg" MOLECULE_COMMAND_BORDERS=0

if [ "${1-}" = --touched ]; then
    first=$(git rev-list --max-count=20 HEAD | tail -n 1)
    git diff --name-only "$first" HEAD -- molecule roles | cut -d/ -f2 | sort -u | while read -r name; do
        test -e "molecule/$name/molecule.yml" && echo "$name"
    done
    exit 0
fi

mkdir -p .work/scenarios
jobs=1
passed=0
failed=0
declare -A names=() started=() # of what runs, by process
# Each runs in a process group of its own: whoever ends this script ends them whole.
set -m
end_them() {
    local group
    for group in "${!names[@]}"; do
        kill -- "-$group" 2>/dev/null
    done
    wait
}
trap end_them EXIT
trap 'exit 130' INT TERM HUP

run() { # NAME
    local log=.work/scenarios/$1.log
    # Molecule ends with 0 when a playbook that a step names does not exist; the recap tells.
    molecule test -s "$1" >"$log" 2>&1 </dev/null && ! grep -q 'missing=[^0]*[1-9]' "$log"
}

# Waits until fewer than N are running.
wait_for_fewer_than() {
    local ended result name
    while [ ${#names[@]} -ge "$1" ]; do
        wait -n -p ended "${!names[@]}"
        result=$?
        name=${names[$ended]}
        if [ $result -eq 0 ]; then
            passed=$((passed + 1))
            echo "scenario $name: passed in $((SECONDS - started[$ended])) s"
        else
            failed=$((failed + 1))
            tail -n 150 ".work/scenarios/$name.log"
            echo "scenario $name: FAILED after $((SECONDS - started[$ended])) s," \
                "all of its output is in .work/scenarios/$name.log"
        fi
        unset "names[$ended]"
    done
}

while [ $# -gt 0 ]; do
    if [ "$1" = --jobs ]; then
        wait_for_fewer_than 1
        jobs=$2
        [ "$jobs" -ge 1 ] || exit 2
        shift 2
        continue
    fi
    wait_for_fewer_than "$jobs"
    run "$1" &
    names[$!]=$1 started[$!]=$SECONDS
    shift
done
wait_for_fewer_than 1
echo "$passed passed, $failed failed"
test "$failed" -eq 0
