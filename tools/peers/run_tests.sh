#!/usr/bin/env bash
# Runs tests/peer, less serving/, with the Python peers. BISE: the program (default build/cpu/bise); BISE_MODEL: SmolLM2 imported by it
# (default build/models/smollm2). About 5 minutes on 2 cores. Arguments go to pytest.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
peers=${BISE_PEERS:-$HOME/.cache/bise-peers}
if [ ! -x "$peers/venv/bin/python" ]; then
    echo "$peers/venv is missing: run tools/peers/install_python.sh" >&2
    exit 1
fi
exec "$peers/venv/bin/python" -m pytest -p no:cacheprovider --ignore "$here/../../tests/peer/serving" \
    "$here/../../tests/peer" "$@"
