#!/bin/sh
# The Hub of the demo: makes the demo's model and serves it over the Hub's protocol on loopback.
# Usage: tools/demo_hub.sh start | stop
set -eu
cd "$(dirname "$0")/.."
port=18765
root=$PWD/.work/hub
pid_file=$PWD/.work/hub.pid

case ${1:-start} in
start)
    mkdir -p "$root"
    .venv/bin/python tests/support/demo_model.py --output .work/hub/llmops/SmolLM2-135M-Instruct-AWQ
    start-stop-daemon --start --quiet --oknodo --background --make-pidfile --pidfile "$pid_file" --output "$PWD/.work/hub.log" \
        --chdir "$PWD" --exec "$PWD/.venv/bin/python" -- tests/support/hub.py --root "$root" --port $port
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if .venv/bin/python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/api/models/llmops/SmolLM2-135M-Instruct-AWQ')" 2>/dev/null; then
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
