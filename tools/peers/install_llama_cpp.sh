#!/usr/bin/env bash
# Builds llama.cpp, the C++ peer that bise is measured against, from the PyPI source archive of llama-cpp-python.
#
# Usage: tools/peers/install_llama_cpp.sh [--no-amx] [target...]
#   Targets default to llama-bench llama-quantize llama-perplexity llama-batched-bench;
#   name llama-server to build the server as well. An interrupted build goes on where it stopped.
#   --no-amx: a second build that uses AVX-512 at most, for run_peers.py --isa avx512.
#
# Everything lies under ${BISE_PEERS:-$HOME/.cache/bise-peers}; the tools end up in llama.cpp/bin there, or in
# llama.cpp/bin-no-amx.
# On a CPU with amx_tile the build is by clang 14: g++ 12 miscompiles _tile_loadconfig, and its AMX build crashes.
set -euo pipefail

version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
peers=${BISE_PEERS:-$HOME/.cache/bise-peers}
archive=$peers/download/llama_cpp_python-$version.tar.gz
source=$peers/llama.cpp/src/vendor/llama.cpp
suffix=
if [ "${1:-}" = --no-amx ]; then
    suffix=-no-amx
    shift
fi
build=$peers/llama.cpp/build$suffix
bin=$peers/llama.cpp/bin$suffix
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    targets=(llama-bench llama-quantize llama-perplexity llama-batched-bench)
fi

# The archive's name on disk is fixed by pip; a file with another checksum is removed, not built.
if ! echo "$sha256  $archive" | sha256sum --check --status 2>/dev/null; then
    mkdir -p "$peers/download"
    rm -f "$archive"
    python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python \
        --dest "$peers/download" "llama-cpp-python==$version"
    if ! echo "$sha256  $archive" | sha256sum --check --status; then
        echo "$archive: expected sha256 $sha256, got $(sha256sum "$archive" | cut -d' ' -f1)" >&2
        rm -f "$archive"
        exit 1
    fi
fi

if [ ! -f "$source/CMakeLists.txt" ]; then
    rm -rf "$peers/llama.cpp/src.partial"
    mkdir -p "$peers/llama.cpp/src.partial"
    tar -xzf "$archive" -C "$peers/llama.cpp/src.partial" --strip-components=1
    mv "$peers/llama.cpp/src.partial" "$peers/llama.cpp/src"
fi

options=(
    -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF
    -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
    -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF
)
compiler=$(c++ --version | head -n 1)
if grep -qw amx_tile /proc/cpuinfo; then
    if ! command -v clang++-14 >/dev/null || [ ! -e /usr/lib/llvm-14/lib/libomp.so ]; then
        apt-get install -y clang-14 libomp-14-dev
    fi
    # clang 14 spells these macros __AMXINT8__ and so on; llama.cpp asks for g++'s names.
    amx=
    [ -n "$suffix" ] || amx="-D__AMX_TILE__=1 -D__AMX_INT8__=1 -D__AMX_BF16__=1"
    options+=(
        -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14
        "-DCMAKE_C_FLAGS=$amx" "-DCMAKE_CXX_FLAGS=$amx"
    )
    compiler=$(clang++-14 --version | head -n 1)
fi

if [ ! -f "$build/build.ninja" ]; then
    cmake -S "$source" -B "$build" -G Ninja "${options[@]}"
fi
ninja -C "$build" "${targets[@]}"

mkdir -p "$bin"
for target in "${targets[@]}"; do
    ln -sf "$build/bin/$target" "$bin/$target"
done
# What run_peers.py reports beside its figures.
cat >"$bin/version.json" <<JSON
{"llama_cpp_python": "$version", "compiler": "$compiler", "amx": $([ -z "$suffix" ] && grep -qw amx_tile /proc/cpuinfo && echo true || echo false)}
JSON
echo "built in $bin: ${targets[*]}"
