#!/usr/bin/env python3
"""The peer of step_bench.cpp: one training step of transformers + peft on the same shapes with random weights.

SmolLM2-135M's decoder, a CLIP ViT-B/16-224 tower that runs each step (196 image tokens of each row), a two-layer
projector; --labels all: each token is labelled, text: none at the image. --mode lora: rank 16 on all linear layers of the decoder and the projector
trains; full: decoder and projector. bfloat16 means weights, pairs, gradients and AdamW's state. Step = forward,
backward, clip_grad_norm_, AdamW (torch's fused one, its fastest on a CPU). One JSON line on stdout.

Needs: pip install torch transformers==4.57.6 peft
"""
import argparse, json, resource, time

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

IMAGE_TOKEN = 49151


def build(a):
    text = hf.LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                          num_key_value_heads=3, max_position_embeddings=8192, rope_theta=100000, rms_norm_eps=1e-5, tie_word_embeddings=True)
    vision = hf.CLIPVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224, patch_size=16)
    config = hf.LlavaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE_TOKEN, vision_feature_layer=-1, tie_word_embeddings=True,
                            attn_implementation="sdpa")
    dtype = getattr(torch, a.dtype)
    torch.set_default_dtype(dtype)  # built in its dtype: no float32 copy
    model = hf.LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.tie_weights()
    model.requires_grad_(False)
    if a.mode == "lora":
        model = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules=r".*language_model.*_proj", modules_to_save=[]))
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.data = p.data.to(dtype)
            p.requires_grad_("lora_" in name or "multi_modal_projector" in name)
    else:
        for name, p in model.named_parameters():
            p.requires_grad_("vision_tower" not in name)
    model.train()
    return model


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(rows=4, tokens=300, rank=16, steps=3, threads=2).items():
        ap.add_argument(f"--{name}", type=int, default=value)
    ap.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    ap.add_argument("--labels", default="all", choices=["all", "text"], help="text: none at the image")
    ap.add_argument("--mode", default="lora", choices=["lora", "full"])
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = build(a)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    wall, cpu = [], []
    for step in range(a.steps + 1):
        ids = torch.randint(0, 49150, (a.rows, a.tokens))
        ids[:, :196] = IMAGE_TOKEN
        labels = torch.randint(0, 49150, (a.rows, a.tokens))
        if a.labels == "text":
            labels[:, :196] = -100
        pixels = torch.randn(a.rows, 3, 224, 224).to(getattr(torch, a.dtype))
        w, c = time.perf_counter(), time.process_time()
        loss = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step:  # the first one warms up
            wall.append(time.perf_counter() - w), cpu.append(time.process_time() - c)
    wall.sort(), cpu.sort()
    print(json.dumps(dict(program="hf", mode=a.mode, dtype=a.dtype, rows=a.rows, tokens=a.tokens, rank=a.rank, threads=a.threads,
                          trained=sum(p.numel() for p in trained), seconds_median=round(wall[len(wall) // 2], 4), seconds_best=round(wall[0], 4),
                          cpu_seconds_best=round(cpu[0], 4), samples_per_s=round(a.rows / wall[len(wall) // 2], 4),
                          peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)))


main()
