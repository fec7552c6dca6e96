#!/usr/bin/env bash
# Unpacks the headers of CUTLASS (BSD-3) from NVIDIA's wheel into .cache/cutlass, for the CUDA build.
# Does nothing when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.2.0.0
sha256=f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6
target=.cache/cutlass
[ -f "$target/$version" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download -q --no-deps --only-binary=:all: -d "$work" "nvidia-cutlass==$version"
wheel=$(ls "$work"/*.whl)
echo "$sha256  $wheel" | sha256sum -c --quiet
unzip -q "$wheel" 'cutlass_library/source/include/*' 'cutlass_library/source/tools/util/include/*' -d "$work/unpacked"
rm -rf "$target" && mkdir -p "$target"
mv "$work"/unpacked/cutlass_library/source/{include,tools} "$target/"
touch "$target/$version"
