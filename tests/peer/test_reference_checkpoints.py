"""The loader of these tests on checkpoints that the reference tools wrote: it must give their logits.

This shows that checkpoint.py judges bise's folders by the right arithmetic. The tolerance is float32 rounding.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

import checkpoint

CASES = ["fp8_dynamic", "fp8_static", "w4a16_gptq", "w4a16_gptq_noact", "w4a16_asym_rtn", "w4a16_asym_awq",
         "w4a16_mse_rtn", "w8a16_group_rtn", "w8a8_rtn_smooth", "w8a8_gptq_smooth", "bnb_nf4", "bnb_nf4_double"]


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_golden(goldens, case):
    token_ids = json.loads((goldens / "calib_mistral.json").read_text())["prompt_input_ids"][0]
    expected = load_file(goldens / case / "logits.safetensors")["logits_fp32"][0]
    model, info = checkpoint.load(goldens / case)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    torch.testing.assert_close(checkpoint.logits(model, token_ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", ["w8a8_rtn_smooth", "w8a8_gptq_smooth"])
def test_logits_with_vllm_activation_scales_equal_the_golden(goldens, case):
    token_ids = json.loads((goldens / "calib_mistral.json").read_text())["prompt_input_ids"][0]
    expected = load_file(goldens / case / "logits.safetensors")["logits_fp32_vllm127"][0]
    model, _ = checkpoint.load(goldens / case)
    checkpoint.use_vllm_int8_activations(model)
    torch.testing.assert_close(checkpoint.logits(model, token_ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case, scheme", [
    ("w4a16_gptq", "WNA16"), ("w4a16_asym_rtn", "WNA16"), ("w8a16_group_rtn", "WNA16"), ("w8a8_rtn_smooth", "W8A8Int8"),
    ("fp8_dynamic", "W8A8Fp8")])
def test_vllm_parser_reads_the_golden(goldens, vllm_schemes, case, scheme):
    modules = ["model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.down_proj"]
    expected = {module: "CompressedTensors" + scheme for module in modules} | {"lm_head": None}
    assert vllm_schemes(goldens / case, modules + ["lm_head"]) == expected
