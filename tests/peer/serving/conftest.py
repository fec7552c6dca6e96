"""Clients against `bise serve`. Run them with `make test-peers`, or

    BISE=build/cpu/bise ~/.cache/bise-peers/serving/bin/python -m pytest tests/peer/serving
"""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import server as serving


@pytest.fixture(scope="session", autouse=True)
def program_and_model():
    for path, what in ((serving.BISE, "the bise program"), (serving.SMOLLM2, "SmolLM2")):
        if not path.exists():
            pytest.skip(f"{what} is not on this machine ({path})")


@pytest.fixture(scope="session")
def smollm2():
    """One server that most tests share."""
    with serving.Server("--enable-auto-tool-choice", "--tool-call-parser", "mistral", "--max-num-seqs", "16",
                        "--enable-prompt-tokens-details") as server:
        yield server
