#!/usr/bin/env bash
# Installs what building and testing bise needs on Debian 12: Debian packages, nothing else.
# Does nothing when all of them are there. Run as root, or as a user who may use sudo.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config git python3 python3-pip unzip
  libfmt-dev nlohmann-json3-dev libyaml-cpp-dev libcli11-dev libpcre2-dev
  libboost1.81-dev libssl-dev libopenblas-dev liblapacke-dev libxxhash-dev
  libgtest-dev libbenchmark-dev
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "install these Debian packages as root: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "installing ${#missing[@]} Debian packages: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
