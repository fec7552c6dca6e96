#!/usr/bin/env python3
"""Writes a Llama checkpoint with random weights, for speed measurements only.

The default shape is that of TinyLlama 1.1B: hidden 2048, feed-forward 5632, 22 layers, 32 heads, 4 KV heads,
vocabulary 32000, untied; weights normal(0, 0.02), norms 1, bf16. The same seed writes the same bytes.
Needs numpy only. One tensor is in memory at a time.
"""

import argparse
import itertools
import json
import os
import pathlib
import string
import struct

import numpy as np

BYTE_TOKENS = [f"<0x{b:02X}>" for b in range(256)]
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]


def tensor_shapes(args):
    """Names and shapes [rows, columns] in the order in which they are stored."""
    head_dim = args.hidden_size // args.num_attention_heads
    kv_size = head_dim * args.num_key_value_heads
    hidden, ffn = args.hidden_size, args.intermediate_size
    shapes = {
        "lm_head.weight": (args.vocab_size, hidden),
        "model.embed_tokens.weight": (args.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(args.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "mlp.down_proj.weight": (hidden, ffn),
            prefix + "mlp.gate_proj.weight": (ffn, hidden),
            prefix + "mlp.up_proj.weight": (ffn, hidden),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "self_attn.k_proj.weight": (kv_size, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, hidden),
            prefix + "self_attn.q_proj.weight": (hidden, hidden),
            prefix + "self_attn.v_proj.weight": (kv_size, hidden),
        }
    return dict(sorted(shapes.items()))


def to_bf16(values):
    """float32 array to bf16 bits, nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_weights(path, args):
    shapes = tensor_shapes(args)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.Generator(np.random.PCG64(args.seed))
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            if len(shape) == 1:
                values = np.ones(shape, np.float32)
            else:
                values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            file.write(to_bf16(values).tobytes())
    os.replace(partial, path)


def token_list(vocab_size):
    """Special and byte tokens, then every word of 1, 2, ... characters over the space mark and a-z.

    Returns (tokens, merges): each word longer than one is the merge of its prefix and its last character.
    """
    tokens = SPECIAL_TOKENS + BYTE_TOKENS
    alphabet = "\u2581" + string.ascii_lowercase
    merges = []
    for length in itertools.count(1):
        for letters in itertools.product(alphabet, repeat=length):
            if len(tokens) >= vocab_size:
                return tokens, merges
            word = "".join(letters)
            tokens.append(word)
            if length > 1:
                merges.append([word[:-1], word[-1]])


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(folder, vocab_size, max_length):
    tokens, merges = token_list(vocab_size)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    write_json(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, **flags} for i, t in enumerate(SPECIAL_TOKENS)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}})
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "clean_up_tokenization_spaces": False, "model_max_length": max_length,
        "tokenizer_class": "PreTrainedTokenizerFast"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path, help="the checkpoint folder to write")
    parser.add_argument("--hidden-size", type=int, default=2048)
    parser.add_argument("--intermediate-size", type=int, default=5632)
    parser.add_argument("--num-hidden-layers", type=int, default=22)
    parser.add_argument("--num-attention-heads", type=int, default=32)
    parser.add_argument("--num-key-value-heads", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=32000)
    parser.add_argument("--max-position-embeddings", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    smallest = len(SPECIAL_TOKENS) + len(BYTE_TOKENS)
    if args.vocab_size < smallest:
        parser.error(f"--vocab-size must be at least {smallest}, got {args.vocab_size}")
    if args.hidden_size % args.num_attention_heads or args.num_attention_heads % args.num_key_value_heads:
        parser.error("heads must divide the hidden size, and KV heads the heads")

    args.output.mkdir(parents=True, exist_ok=True)
    write_weights(args.output / "model.safetensors", args)
    write_tokenizer(args.output, args.vocab_size, args.max_position_embeddings)
    write_json(args.output / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    write_json(args.output / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": args.vocab_size,
        "hidden_size": args.hidden_size, "intermediate_size": args.intermediate_size,
        "num_hidden_layers": args.num_hidden_layers, "num_attention_heads": args.num_attention_heads,
        "num_key_value_heads": args.num_key_value_heads, "head_dim": args.hidden_size // args.num_attention_heads,
        "hidden_act": "silu", "max_position_embeddings": args.max_position_embeddings, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
        "use_cache": True})


if __name__ == "__main__":
    main()
