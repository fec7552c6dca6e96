#!/usr/bin/env bash
# Makes the models that benchmarks/peers/run_peers.py measures, in a folder (default build/models):
#   smollm2/                 SmolLM2-135M-Instruct, imported by bise from smollm2.gguf (tools/fetch_models.sh)
#   llama-1b/                the random 1.1B Llama shape
#   gguf/NAME/*.gguf         for llama.cpp: bf16, Q8_0, Q4_0
#   NAME-SCHEME/             for bise: W8A8, W8A16, W4A16, rounded to nearest (the speed is that of any rounding)
#
# Usage: tools/peers/make_models.sh BISE_PROGRAM [FOLDER]    what is there already stays
set -euo pipefail

if [ $# -lt 1 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 1
fi
here=$(cd "$(dirname "$0")" && pwd)
bise=$(realpath "$1")
models=${2:-$here/../../build/models}
peers=${BISE_PEERS:-$HOME/.cache/bise-peers}

if [ ! -d "$models/smollm2" ]; then
    "$bise" import "$models/smollm2.gguf" -o "$models/smollm2"
fi
if [ ! -f "$models/llama-1b/config.json" ]; then
    "$peers/venv/bin/python" "$here/make_random_llama.py" "$models/llama-1b"
fi
for name in smollm2 llama-1b; do
    "$here/make_gguf.sh" "$models/$name" "$models/gguf/$name"
    for scheme in W8A8 W8A16 W4A16; do
        if [ ! -d "$models/$name-$scheme" ]; then
            "$bise" quantize "$models/$name" -o "$models/$name-$scheme" --scheme "$scheme" --algorithm rtn
        fi
    done
done
