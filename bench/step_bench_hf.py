#!/usr/bin/env python3
"""The step of step_bench.cpp with transformers + peft: same shapes, random weights, bf16, LoRA on all linears."""
import argparse, json, time

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

ap = argparse.ArgumentParser(description=__doc__)
for name, value in dict(rows=8, tokens=150, supervised=60, rank=32, steps=6, threads=2).items():
    ap.add_argument(f"--{name}", type=int, default=value)
a = ap.parse_args()
torch.set_num_threads(a.threads)
config = hf.LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
                        max_position_embeddings=8192, rope_theta=100000, rms_norm_eps=1e-5, tie_word_embeddings=True, attn_implementation="sdpa")
model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules="all-linear"))
for p in model.parameters():
    p.data = p.data.bfloat16()
wall, cpu = [], []
for step in range(a.steps + 1):
    ids = torch.randint(0, 49152, (a.rows, a.tokens))
    labels = ids.clone()
    labels[:, : a.tokens - a.supervised] = -100
    w, c = time.perf_counter(), time.process_time()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, use_cache=False).loss.backward()
    if step:
        wall.append(time.perf_counter() - w), cpu.append(time.process_time() - c)
wall.sort(), cpu.sort()
n = a.rows * a.tokens
print(json.dumps(dict(bench="lora_step_hf", rows=a.rows, tokens_per_row=a.tokens, supervised=a.supervised, rank=a.rank, dtype="bfloat16", threads=a.threads, steps=a.steps,
                      tokens_per_s_median=n / wall[len(wall) // 2], tokens_per_s_best=n / wall[0], tokens_per_cpu_s_best=n / cpu[0])))
