#!/usr/bin/env python3
"""Fifty full fine-tuning steps with transformers 4.57.6 on the tiny llava15 (train_reference.py's data, loss and optimiser).

  make_train_golden.py --reference ../shared/reference --out tests/golden/train_50

Two runs, float32 on one CPU thread, batch 4 of 8 examples in turn, AdamW, warmup then cosine over the 50 steps, clipped to
norm 1: `full` trains decoder, head and projector; `tower` the vision tower as well. run.json: loss, gradient norm and
rate of each step; run.safetensors: some of the tensors after the last.
"""
import argparse, json, os, pathlib, sys

os.environ |= dict(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPImageProcessor

STEPS = 50
KEPT = dict(full=("multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_2.bias", "language_model.layers.0.self_attn.q_proj.weight",
                  "language_model.layers.1.mlp.down_proj.weight", "language_model.norm.weight"),
            tower=("vision_model.encoder.layers.0.self_attn.q_proj.weight", "vision_model.embeddings.class_embedding", "multi_modal_projector.linear_1.weight"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--reference", type=pathlib.Path, required=True)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    a = ap.parse_args()
    sys.path.insert(0, str(a.reference))
    import train_reference as base

    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    train, checkpoint = a.reference / "golden/train", a.reference / "golden/checkpoints/llava15"
    tok, proc = AutoTokenizer.from_pretrained(checkpoint), CLIPImageProcessor.from_pretrained(checkpoint)
    pixels = lambda f: proc(Image.open(train / f).convert("RGB"), return_tensors="pt")["pixel_values"][0]
    report, saved = {}, {}
    for mode, kept in KEPT.items():
        torch.manual_seed(0)
        model = base.load(checkpoint, "full")
        model.model.vision_tower.requires_grad_(mode == "tower")
        n = model.config.image_seq_length
        rows = [(*base.tokenize([t["value"] for t in r["conversations"]], tok, n), pixels(r["image"]) if "image" in r else None)
                for r in json.loads((train / "data.json").read_text())]
        batches = [base.collate(rows[i:i + base.BATCH], tok.pad_token_id) for i in range(0, len(rows), base.BATCH)]
        report[mode] = base.optimise(model, STEPS, base.LR["full"], lambda s: (model(**batches[s % len(batches)], use_cache=False).loss, {}))
        found = {k: p.detach().clone().contiguous() for k, p in model.named_parameters() if k.endswith(kept)}
        assert len(found) == len(kept), (mode, sorted(found))
        saved |= {f"{mode}/{k}": p for k, p in found.items()}
        print(mode, *(f"{r['loss']:.4f}" for r in report[mode]))
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "run.json").write_text(json.dumps(report, indent=1) + "\n")
    save_file(saved, a.out / "run.safetensors")


if __name__ == "__main__":
    main()
