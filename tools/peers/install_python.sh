#!/usr/bin/env bash
# Installs the Python peers (torch, transformers, compressed-tensors, bitsandbytes, ...) of requirements.txt
# into the virtual environment ${BISE_PEERS:-$HOME/.cache/bise-peers}/venv. About 6 GB on disk: PyPI's torch carries CUDA.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
peers=${BISE_PEERS:-$HOME/.cache/bise-peers}
stamp=$peers/venv/requirements.txt

if cmp --silent "$here/requirements.txt" "$stamp"; then
    echo "up to date: $peers/venv"
    exit 0
fi
mkdir -p "$peers"
python3 -c 'import ensurepip' 2>/dev/null || apt-get install -y python3-venv
python3 -m venv "$peers/venv"
"$peers/venv/bin/python" -m pip install --quiet --no-cache-dir -r "$here/requirements.txt"
"$peers/venv/bin/python" -c 'import torch, transformers, compressed_tensors, bitsandbytes, gguf, mistral_common'
cp "$here/requirements.txt" "$stamp"
echo "installed in $peers/venv"
