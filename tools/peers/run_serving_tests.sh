#!/usr/bin/env bash
# Runs tests/peer/serving. BISE: the program (default build/cpu/bise); BISE_MODEL: SmolLM2 imported by it.
#
# Usage: tools/peers/run_serving_tests.sh [openai] [pytest arguments]
#   openai: only what the openai client and the standard library test; installs that client when it is missing, and
#   ends with 77, "skipped", when it cannot be installed (no network).
#   Otherwise everything, with what install_serving.sh has installed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
peers=${BISE_PEERS:-$HOME/.cache/bise-peers}
tests=$here/../../tests/peer/serving
if [ "${1:-}" = openai ]; then
    shift
    if ! "$here/install_serving.sh" openai; then
        echo "skipped: the openai client is not installed and could not be"
        exit 77
    fi
    exec "$peers/openai/bin/python" -m pytest -q -p no:cacheprovider "$tests"/test_{openai,server,metrics,bad_requests}.py "$@"
fi
if [ ! -x "$peers/serving/bin/python" ]; then
    echo "$peers/serving is missing: run tools/peers/install_serving.sh" >&2
    exit 1
fi
exec "$peers/serving/bin/python" -m pytest -p no:cacheprovider "$tests" "$@"
