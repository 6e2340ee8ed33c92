#!/bin/sh
# The Hub of the demo: makes the demo's model and serves it over the Hub's protocol on loopback.
# Usage: tools/demo_hub.sh start [FORM ...] | stop
# The model comes with AWQ weights; with the FORM gptq or fp16 it is made and served in that one too. A Hub that runs
# already serves what is added.
set -eu
cd "$(dirname "$0")/.."
port=18765
root=$PWD/.work/hub
pid_file=$PWD/.work/hub.pid

name_of() {
    case $1 in
    awq) echo SmolLM2-135M-Instruct-AWQ ;;
    gptq) echo SmolLM2-135M-Instruct-GPTQ ;;
    fp16) echo SmolLM2-135M-Instruct ;;
    *)
        echo "hub: the model has no form $1, only awq, gptq and fp16" >&2
        return 1
        ;;
    esac
}

action=${1:-start}
[ $# -eq 0 ] || shift
case $action in
start)
    urls=
    for form in awq "$@"; do
        name=$(name_of "$form")
        urls="$urls http://127.0.0.1:$port/api/models/llmops/$name"
    done
    mkdir -p "$root"
    for form in awq "$@"; do
        .venv/bin/python tests/support/demo_model.py --form "$form" --output ".work/hub/llmops/$(name_of "$form")"
    done
    start-stop-daemon --start --quiet --oknodo --background --make-pidfile --pidfile "$pid_file" --output "$PWD/.work/hub.log" \
        --chdir "$PWD" --exec "$PWD/.venv/bin/python" -- tests/support/hub.py --root "$root" --port $port
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        # shellcheck disable=SC2086  # several addresses
        if .venv/bin/python -c "import sys, urllib.request as r; [r.urlopen(url) for url in sys.argv[1:]]" $urls 2>/dev/null; then
            echo "hub: serving $root on http://127.0.0.1:$port"
            exit 0
        fi
        sleep 1
    done
    echo "hub: http://127.0.0.1:$port does not serve the demo's model: see .work/hub.log, and whether the port is taken" >&2
    exit 1
    ;;
stop)
    start-stop-daemon --stop --oknodo --retry 10 --remove-pidfile --pidfile "$pid_file" --quiet
    ;;
esac
