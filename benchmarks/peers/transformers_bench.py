"""Measures one checkpoint with transformers on torch's CPU kernels, bf16 weights; prints one JSON object.

Run by run_peers.py with the Python of the peers' virtual environment.
Prefill asks for the last position's logits only; decode is a plain greedy loop with the KV cache after the prompt.
"""

import argparse
import json
import pathlib
import time

import torch
from transformers import AutoModelForCausalLM

import amx_palette


def run_once(model, prompt, output_tokens):
    """Returns (prefill tokens/s, decode tokens/s) of one request. prompt: [1, tokens] ids."""
    start = time.perf_counter()
    out = model(prompt, use_cache=True, logits_to_keep=1)
    next_id = out.logits[:, -1].argmax(-1, keepdim=True)
    prefilled = time.perf_counter()
    for _ in range(output_tokens):
        out = model(next_id, past_key_values=out.past_key_values, use_cache=True)
        next_id = out.logits[:, -1].argmax(-1, keepdim=True)
    end = time.perf_counter()
    return prompt.shape[1] / (prefilled - start), output_tokens / (end - prefilled)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, required=True)
    parser.add_argument("--output-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()

    amx_palette.apply(pathlib.Path(torch.__file__).resolve().parent / "lib" / "libtorch_cpu.so")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    prompt = torch.randint(0, model.config.vocab_size, (1, args.prompt_tokens))
    with torch.inference_mode():
        run_once(model, prompt, 4)  # warm up: oneDNN builds its kernels on first use
        prefill, decode = run_once(model, prompt, args.output_tokens)
    print(json.dumps({"prefill_tok_s": prefill, "decode_tok_s": decode}))


if __name__ == "__main__":
    main()
