#!/usr/bin/env bash
# Installs just enough of vLLM 0.33.0 to run its compressed-tensors config parser without a GPU: the Python files of the
# wheel and the packages that they import, under ${BISE_PEERS:-$HOME/.cache/bise-peers}/vllm (170 MB; downloads 340 MB).
# Needs install_python.sh. tests/peer uses it where it is installed.
set -euo pipefail

version=0.33.0
here=$(cd "$(dirname "$0")" && pwd)
peers=${BISE_PEERS:-$HOME/.cache/bise-peers}
python=$peers/venv/bin/python
if [ -d "$peers/vllm" ]; then
    echo "up to date: $peers/vllm"
    exit 0
fi
partial=$peers/vllm.partial
rm -rf "$partial"
mkdir -p "$partial/wheel"
"$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$partial/wheel" "vllm==$version"
# Its compiled kernels are left out: the parser does without them.
unzip -q "$partial"/wheel/*.whl '*.py' -d "$partial"
rm -r "$partial/wheel"
"$python" -m pip install --quiet --no-cache-dir --target "$partial/packages" -r "$here/requirements-vllm.txt"
# xgrammar would bring a second torch.
"$python" -m pip install --quiet --no-cache-dir --no-deps --target "$partial/packages" \
    xgrammar==0.2.8 llguidance==1.9.1 apache-tvm-ffi==0.1.15.post2
mv "$partial" "$peers/vllm"
echo "installed in $peers/vllm"
