"""Which scheme vLLM chooses for each module of a checkpoint, by vLLM's own parser of config.json.

Usage: python vllm_schemes.py VLLM_FOLDER CONFIG_JSON MODULE...   prints {MODULE: class name or null}
Run as a program of its own: vLLM's packages (tools/peers/install_vllm_parser.sh) are only on its path.
The modules are named as vLLM fuses them (qkv_proj, gate_up_proj). The parser runs on the CPU; kernels are not chosen.
For compressed-tensors checkpoints: vLLM 0.33 has no reader of bitsandbytes files any more.
"""

import json
import sys
from unittest import mock

vllm_folder, config_path, *modules = sys.argv[1:]
sys.path += [vllm_folder, f"{vllm_folder}/packages"]

import torch  # noqa: E402
from vllm.model_executor.layers.quantization.compressed_tensors import compressed_tensors as ct  # noqa: E402

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


config = json.load(open(config_path))["quantization_config"]
parser = ct.CompressedTensorsConfig.from_config(config)
parser.packed_modules_mapping = FUSED
# The FP8 scheme asks for a GPU's kernel when it is constructed; which class is chosen does not depend on it.
fp8 = mock.create_autospec(ct.CompressedTensorsW8A8Fp8)
fp8.get_min_capability.return_value = 89
schemes = {}
with mock.patch.object(ct, "CompressedTensorsW8A8Fp8", fp8):
    for module in modules:
        scheme = parser.get_scheme(torch.nn.Linear(1, 1), module)
        chosen = "CompressedTensorsW8A8Fp8" if scheme is fp8.return_value else type(scheme).__name__
        schemes[module] = None if scheme is None else chosen
json.dump(schemes, sys.stdout)
