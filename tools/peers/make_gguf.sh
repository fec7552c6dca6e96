#!/usr/bin/env bash
# Writes the GGUF files that llama-bench reads: bf16, then Q8_0 and Q4_0 made from it by llama-quantize.
#
# Usage: tools/peers/make_gguf.sh CHECKPOINT_FOLDER OUTPUT_FOLDER    -> OUTPUT_FOLDER/{bf16,q8_0,q4_0}.gguf
# Files that are already there stay. Needs install_llama_cpp.sh and install_python.sh.
set -euo pipefail

if [ $# -ne 2 ]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 1
fi
checkpoint=$1
output=$2
peers=${BISE_PEERS:-$HOME/.cache/bise-peers}
source=$peers/llama.cpp/src/vendor/llama.cpp
python=$peers/venv/bin/python
# The converter falls back to asking the hub; here everything is on disk.
export HF_HUB_OFFLINE=1

mkdir -p "$output"
if [ ! -f "$output/bf16.gguf" ]; then
    "$python" "$source/convert_hf_to_gguf.py" "$checkpoint" --outtype bf16 --outfile "$output/bf16.partial.gguf"
    mv "$output/bf16.partial.gguf" "$output/bf16.gguf"
fi
for type in q8_0 q4_0; do
    if [ ! -f "$output/$type.gguf" ]; then
        "$peers/llama.cpp/bin/llama-quantize" "$output/bf16.gguf" "$output/$type.partial.gguf" "${type^^}" 2
        mv "$output/$type.partial.gguf" "$output/$type.gguf"
    fi
done
ls -l "$output"
