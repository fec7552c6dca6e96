"""Loads a quantized checkpoint folder with transformers and gives its logits in float32 arithmetic.

Weights are what compressed-tensors or bitsandbytes make of the folder; activations are quantized as the scheme says
(by compressed-tensors' own simulation), and all else is float32, so that two readers of the same folder agree closely.
"""

import json
import pathlib

import bitsandbytes.functional
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors import safe_open
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, DynamicCache


def read_tensors(folder):
    tensors = {}
    for shard in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    return tensors


def quantization_config(folder):
    return json.loads((pathlib.Path(folder) / "config.json").read_text()).get("quantization_config")


def is_packed_asymmetric(config):
    return config["quant_method"] == "compressed-tensors" and any(
        not group["weights"].get("symmetric", True) for group in config["config_groups"].values())


def load(folder):
    """Returns (model, loading_info); loading_info has missing_keys, unexpected_keys and mismatched_keys.

    Asymmetric checkpoints are loaded dequantized: compressed-tensors 0.19 gives the packed zero points the unpacked
    shape when transformers 5.23 prepares the modules, so that the reference's own files (golden w4a16_asym_rtn) fail too.
    """
    config = quantization_config(folder)
    options = {}
    if config and is_packed_asymmetric(config):
        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **options)
    if options:
        replace_by_exact_weights(model, folder, config)
    elif config and config["quant_method"] == "bitsandbytes":
        replace_bitsandbytes_modules(model)
    return model.eval(), info


def replace_by_exact_weights(model, folder, config):
    """transformers dequantizes to bf16; here the same compressor decompresses with float32 scales."""
    tensors = read_tensors(folder)
    (scheme,) = QuantizationConfig.model_validate(config).config_groups.values()
    compressor = BaseCompressor.get_value_from_registry(config["format"])
    for name, module in model.named_modules():
        prefix = name + "."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if "weight_packed" in own and isinstance(module, torch.nn.Linear):
            own["weight_scale"] = own["weight_scale"].float()
            module.weight.data = compressor.decompress(own, scheme)["weight"]


def replace_bitsandbytes_modules(model):
    """bitsandbytes' CPU product rounds to bf16; here its dequantized weights multiply in float32."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ != "Linear4bit":
            continue
        state = module.weight.quant_state
        state.dtype = torch.float32
        linear = torch.nn.Linear(module.in_features, module.out_features, bias=False)
        linear.weight.data = bitsandbytes.functional.dequantize_4bit(module.weight.data, state)
        model.set_submodule(name, linear)
    torch.nn.Module.float(model)  # embedding and norms are still bf16; the method of transformers refuses


class Int8TokenLinear(torch.nn.Module):
    """A linear layer whose input rows are rounded to int8 with vLLM's scale, absmax / 127."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, rows):
        scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-10) / 127
        return torch.nn.functional.linear((rows / scale).round().clamp(-128, 127) * scale, self.weight)


def use_vllm_int8_activations(model):
    """compressed-tensors simulates dynamic int8 inputs with scale absmax / 127.5; vLLM and bise take absmax / 127."""
    logits(model, [0])  # the first forward decompresses the weights
    for name, module in list(model.named_modules()):
        inputs = getattr(getattr(module, "quantization_scheme", None), "input_activations", None)
        if inputs is not None and inputs.type == "int":
            model.set_submodule(name, Int8TokenLinear(module.weight.data))


class Bf16Cache(DynamicCache):
    """A KV cache whose entries are rounded to bf16, as bise and vLLM store them, and read as float32."""

    def update(self, key_states, value_states, *args, **kwargs):
        return super().update(key_states.bfloat16().float(), value_states.bfloat16().float(), *args, **kwargs)


@torch.no_grad()
def logits(model, token_ids, cache=None):
    """[tokens, vocab] of one sequence of ids."""
    return model(torch.tensor([token_ids]), past_key_values=cache, use_cache=cache is not None).logits[0].float()
