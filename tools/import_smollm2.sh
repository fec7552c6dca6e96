#!/usr/bin/env bash
# Imports the fetched GGUF into build/models/smollm2, once. Usage: tools/import_smollm2.sh BISE
set -euo pipefail
bise=$1
cd "$(dirname "$0")/.."
[ -f build/models/smollm2/config.json ] || "$bise" import build/models/smollm2.gguf -o build/models/smollm2
