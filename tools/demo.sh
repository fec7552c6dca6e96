#!/usr/bin/env bash
# A real model, quantized four ways and compared: one table, one page. Usage: tools/demo.sh BISE FOLDER
# Needs build/models/smollm2.gguf (tools/fetch_models.sh). Finished checkpoints in FOLDER are kept.
set -euo pipefail
bise=$1
out=$2
cd "$(dirname "$0")/.."
mkdir -p "$out"
start=$SECONDS

tools/import_smollm2.sh "$bise"
model=build/models/smollm2

step() { printf '\n== %s\n' "$1" >&2; }

# quantize NAME FLAGS...: one checkpoint, its table of errors kept beside it
quantize() {
  local name=$1
  shift
  if [ ! -d "$out/$name" ]; then
    step "SmolLM2-135M-Instruct to $name"
    "$bise" quantize "$model" -o "$out/$name" "$@" > "$out/$name.errors.txt"
  fi
}

# Calibration data: sequences sampled from the model itself.
quantize W4A16 --scheme W4A16 --calibration self
quantize W8A8 --scheme W8A8 --calibration self
quantize FP8_DYNAMIC --scheme FP8_DYNAMIC
quantize NF4 --scheme NF4

step "comparing: size, memory, speed, perplexity and divergence (a text every Debian has: the GPL 3)"
"$bise" compare "$model" "$out/W4A16" "$out/W8A8" "$out/FP8_DYNAMIC" "$out/NF4" \
  --text /usr/share/common-licenses/GPL-3 --prompt "What is the capital of France?" -o "$out/report"

printf '\ndone in %d s; the page: %s/report/report.html\n' "$((SECONDS - start))" "$out" >&2
