#!/usr/bin/env python3
"""Mask times of xgrammar and llguidance on the cases of grammar_benchmark, over the vocabulary of a tekken.json.

  pip install xgrammar llguidance        # xgrammar brings torch
  benchmarks/peers/grammar_peers.py TEKKEN_JSON benchmarks/grammar_cases.json

One thread. The first text under a fresh grammar is "cold"; "warm" is the best of five more. A call from Python
costs either library about a microsecond.
"""
import base64
import json
import sys
import time

import llguidance
import torch
import xgrammar


def read_vocabulary(path):
    """The tokens as bytes, by id; special ones come first and are named."""
    with open(path, encoding="utf-8") as file:
        tekken = json.load(file)
    config = tekken["config"]
    special = config["default_num_special_tokens"]
    names = [f"<special_{i}>".encode() for i in range(special)]
    ordinary = [base64.b64decode(entry["token_bytes"]) for entry in tekken["vocab"]]
    return (names + ordinary)[: config["default_vocab_size"]], special


def split(text, ids_by_bytes, longest):
    """Greedy longest matches: any split into tokens serves."""
    rest, ids = text.encode(), []
    while rest:
        length = next(n for n in range(min(longest, len(rest)), 0, -1) if rest[:n] in ids_by_bytes)
        ids.append(ids_by_bytes[rest[:length]])
        rest = rest[length:]
    return ids


class XGrammar:
    def __init__(self, tokens, eos):
        info = xgrammar.TokenizerInfo(tokens, vocab_size=len(tokens), stop_token_ids=[eos])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.bitmask = xgrammar.allocate_token_bitmask(1, len(tokens))

    def compile(self, schema):
        if schema == {"type": "object"}:
            return self.compiler.compile_builtin_json_grammar()
        return self.compiler.compile_json_schema(json.dumps(schema))

    def run(self, grammar, ids):
        matcher, times = xgrammar.GrammarMatcher(grammar), []
        for token in ids:
            start = time.perf_counter()
            matcher.fill_next_token_bitmask(self.bitmask)
            times.append(time.perf_counter() - start)
            assert matcher.accept_token(token)
        return times


class LLGuidance:
    def __init__(self, tokens, eos, special, encode):
        class Vocabulary:
            eos_token_id, bos_token_id = eos, None
            special_token_ids = list(range(special))

            def __call__(self, text):
                return encode(text if isinstance(text, str) else text.decode())

        Vocabulary.tokens = tokens
        self.tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Vocabulary()))
        self.bitmask = torch.zeros((len(tokens) + 31) // 32, dtype=torch.int32)

    def compile(self, schema):
        return llguidance.LLMatcher(self.tokenizer, llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema)))

    def run(self, grammar, ids):
        matcher, times = grammar.deep_copy(), []
        pointer, size = self.bitmask.data_ptr(), 4 * len(self.bitmask)
        for token in ids:
            start = time.perf_counter()
            matcher.unsafe_compute_mask_ptr(pointer, size)
            times.append(time.perf_counter() - start)
            assert matcher.consume_token(token), matcher.get_error()
        return times


def main():
    tokens, special = read_vocabulary(sys.argv[1])
    ids_by_bytes = {token: i for i, token in enumerate(tokens) if i >= special}
    longest = max(map(len, tokens))
    encode = lambda text: split(text, ids_by_bytes, longest)
    with open(sys.argv[2], encoding="utf-8") as file:
        cases = json.load(file)
    for name, peer in (("xgrammar", XGrammar(tokens, 2)), ("llguidance", LLGuidance(tokens, 2, special, encode))):
        for case in cases:
            start = time.perf_counter()
            grammar = peer.compile(case["schema"])
            compile_ms = 1e3 * (time.perf_counter() - start)
            ids = encode(case["text"])
            try:
                runs = [peer.run(grammar, ids) for _ in range(6)]
            except AssertionError as error:
                print(f"{name:11s} {case['name']:12s} refuses the text: {error}")
                continue
            cold, warm = runs[0], min(runs[1:], key=sum)
            mean = lambda times: 1e6 * sum(times) / len(times)
            print(f"{name:11s} {case['name']:12s} compile {compile_ms:8.2f} ms  tokens {len(ids):4d}  "
                  f"cold {mean(cold):7.1f} us (max {1e6 * max(cold):7.1f})  warm {mean(warm):7.1f} us (max {1e6 * max(warm):7.1f})")


if __name__ == "__main__":
    main()
