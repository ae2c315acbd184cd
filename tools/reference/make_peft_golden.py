#!/usr/bin/env python3
"""Adapters that PEFT saved on the tiny llava15 checkpoint, and the logits of the adapted model (float32, CPU).

  make_peft_golden.py --golden ../shared/reference/golden --out tests/golden/peft [--seed 0]

lora: rank_pattern and alpha_pattern, decoder and tower, the projector whole (modules_to_save). rslora: decoder only.
dora: decoder and tower. B (and DoRA's magnitude) are random, so that every tensor matters.
"""
import argparse, os, pathlib

os.environ |= dict(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

DECODER = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
BOTH = r".*(language_model.*\.(q|v|down)_proj|vision_tower.*\.(fc1|out_proj))"
KINDS = dict(
    lora=dict(r=2, lora_alpha=6, target_modules=BOTH, rank_pattern={"layers.1.self_attn.q_proj": 3, "fc1": 1},
              alpha_pattern={"layers.1.self_attn.q_proj": 5, r"mlp\.down_proj": 3}, modules_to_save=["multi_modal_projector"]),
    rslora=dict(r=4, lora_alpha=6, target_modules=DECODER, use_rslora=True),
    dora=dict(r=2, lora_alpha=4, target_modules=BOTH, use_dora=True),
)


def load(checkpoint):
    return LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()


def inputs(config):
    """Ids with one image and pixels of plain arithmetic, which any language can repeat exactly."""
    image = config.image_token_index
    ids = [1] + [image] * config.image_seq_length + [(37 * i) % 1900 + 5 for i in range(12)]
    side = config.vision_config.image_size
    pixels = (torch.arange(3 * side * side) * 7919 % 1000).float() / 500 - 1
    return dict(input_ids=torch.tensor([ids]), pixel_values=pixels.view(1, 3, side, side))


def disturb(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_(0, 0.05, generator=generator)
        elif "lora_magnitude" in name:
            p.data.mul_(1 + 0.1 * torch.randn(p.shape, generator=generator))
        elif "modules_to_save" in name:
            p.data.add_(0.02 * torch.randn(p.shape, generator=generator))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--golden", type=pathlib.Path, required=True)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    torch.set_num_threads(1)
    saved = {}
    for kind, config in KINDS.items():
        torch.manual_seed(a.seed)
        model = get_peft_model(load(a.golden / "checkpoints/llava15"), LoraConfig(lora_dropout=0.0, **config)).eval()
        disturb(model, a.seed + 1)
        batch = inputs(model.config)
        with torch.no_grad():
            saved[f"{kind}/logits"] = model(**batch, use_cache=False).logits[:, -3:].clone()
            with model.disable_adapter():
                base = model(**batch, use_cache=False).logits[:, -3:]
        print(kind, "moves logits by", (saved[f"{kind}/logits"] - base).abs().max().item())
        model.peft_config["default"].base_model_name_or_path = "llava15"
        model.save_pretrained(a.out / kind)
        (a.out / kind / "README.md").unlink(missing_ok=True)
    save_file(saved, a.out / "logits.safetensors")


if __name__ == "__main__":
    main()
