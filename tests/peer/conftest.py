"""Where the peer tests find things. Run them with `make test-peers`, or

    BISE=build/cpu/bise ~/.cache/bise-peers/venv/bin/python -m pytest tests/peer
"""

import json
import os
import pathlib
import subprocess
import sys

# oneDNN's bf16 AMX kernels need CPUID leaves that some virtual machines hide (benchmarks/peers/amx_palette.py).
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

REPO = pathlib.Path(__file__).resolve().parent.parent.parent


def existing(path, what):
    if not path.exists():
        pytest.skip(f"{what} is not on this machine ({path})")
    return path


@pytest.fixture(scope="session")
def goldens():
    shared = pathlib.Path(os.environ.get("BISE_SHARED", REPO.parent / "shared"))
    return existing(shared / "golden" / "quantization", "the golden corpus")


@pytest.fixture(scope="session")
def bise():
    return existing(pathlib.Path(os.environ.get("BISE", REPO / "build" / "cpu" / "bise")).resolve(), "the bise program")


@pytest.fixture(scope="session")
def smollm2():
    return existing(pathlib.Path(os.environ.get("BISE_MODEL", REPO / "build" / "models" / "smollm2")), "SmolLM2")


@pytest.fixture(scope="session")
def peers():
    return pathlib.Path(os.environ.get("BISE_PEERS", pathlib.Path.home() / ".cache" / "bise-peers"))


@pytest.fixture(scope="session")
def vllm_schemes(peers):
    """A function (folder, modules) -> {module: the scheme that vLLM's own parser chooses}."""
    vllm = existing(peers / "vllm", "vLLM's parser (tools/peers/install_vllm_parser.sh)")
    program = pathlib.Path(__file__).parent / "vllm_schemes.py"

    def schemes(folder, modules):
        output = subprocess.check_output([sys.executable, program, vllm, folder / "config.json", *modules], text=True)
        return json.loads(output.splitlines()[-1])

    return schemes
