#!/usr/bin/env bash
# Installs the clients of requirements-serving.txt (openai, lm_eval, guidellm, aiperf) into the virtual environment
# ${BISE_PEERS:-$HOME/.cache/bise-peers}/serving, which uses torch and transformers of install_python.sh's (about 1 GB).
#
# Usage: tools/peers/install_serving.sh [openai]
#   With the argument only the openai client and pytest, into .../openai: what `make test` needs (30 MB).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
peers=${BISE_PEERS:-$HOME/.cache/bise-peers}
python3 -c 'import ensurepip' 2>/dev/null || apt-get install -y python3-venv

# install NAME REQUIREMENTS_FILE: into $peers/NAME, unless that very list is there already
install() {
    local venv=$peers/$1 stamp=$peers/$1/requirements.txt
    if cmp --silent "$2" "$stamp"; then
        echo "up to date: $venv"
        return
    fi
    "$venv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check -r "$2"
    cp "$2" "$stamp"
    echo "installed in $venv"
}

mkdir -p "$peers"
if [ "${1:-}" = openai ]; then
    [ -x "$peers/openai/bin/python" ] || python3 -m venv "$peers/openai"
    grep -E '^(openai|pytest)==' "$here/requirements-serving.txt" >"$peers/openai-requirements.txt"
    install openai "$peers/openai-requirements.txt"
    exit 0
fi

"$here/install_python.sh"
[ -x "$peers/serving/bin/python" ] || python3 -m venv "$peers/serving"
site=$("$peers/serving/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
"$peers/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' >"$site/bise-peers.pth"
install serving "$here/requirements-serving.txt"
"$peers/serving/bin/python" -c 'import openai, lm_eval, guidellm, aiperf, torch, transformers'
