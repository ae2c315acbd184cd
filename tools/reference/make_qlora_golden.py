#!/usr/bin/env python3
"""What bitsandbytes 0.50.2 makes of matrices on a CPU, and a QLoRA run with transformers + peft + bitsandbytes.

  make_qlora_golden.py --reference ../shared/reference --out tests/golden/qlora [--seed 0]

bytes.safetensors: for each case `<case>/weight` and the state_dict of its packed form, `<case>/plain/…` and, with double
quantisation, `<case>/double/…`; `<case>/…/dense`, but for the largest, is what the codes stand for.
run.json, run.safetensors: 30 AdamW steps on the tiny llava15 (train_reference.py's data): decoder linears in NF4 with double
quantisation, LoRA r 8 on them, the projector trained whole. Losses, gradient norms, the starting A, the final tensors.
"""
import argparse, json, os, pathlib, sys

os.environ |= dict(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")
import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import save_file
from transformers import AutoTokenizer, BitsAndBytesConfig, CLIPImageProcessor, LlavaForConditionalGeneration

STEPS, LR = 30, 5e-4
TARGET = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def matrices(generator):
    """Whole and short last blocks, odd counts, zeros, equal numbers, ties, large and tiny scales, three dtypes."""
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    nf4 = F.get_4bit_type("nf4", device="cpu")
    ties = torch.cat([torch.ones(1), (nf4[:-1] + nf4[1:]) / 2, -torch.ones(1), nf4, torch.zeros(31)])
    yield "square", normal(64, 64)
    yield "short_block", normal(7, 50)
    yield "odd", normal(9, 13)
    yield "one", torch.tensor([[0.25]])
    yield "zeros", torch.zeros(3, 65)
    yield "zero_block", torch.cat([torch.zeros(1, 64), normal(3, 64)])
    yield "ties", ties.view(1, 64)
    yield "constant", torch.full((4, 64), -0.3)
    yield "tiny", normal(4, 64) * 1e-30
    yield "large", normal(4, 64) * 1e30
    yield "many_blocks", normal(60, 300) * torch.exp(normal(60, 1))
    yield "bfloat16", normal(40, 100).bfloat16()
    yield "float16", (normal(33, 70) * 0.02).half()


def byte_cases(seed):
    saved = {}
    for name, weight in matrices(torch.Generator().manual_seed(seed)):
        saved[f"{name}/weight"] = weight.contiguous()
        for kind in ("plain", "double"):
            packed, state = F.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=kind == "double")
            saved[f"{name}/{kind}/weight"] = packed.clone()
            saved |= {f"{name}/{kind}/weight.{k}": v.clone().contiguous() for k, v in state.as_dict(packed=True).items() if not k.endswith("quant_map")}
            if name != "many_blocks":
                saved[f"{name}/{kind}/dense"] = F.dequantize_4bit(packed, state).contiguous()
            if kind == "double" and name == "square":
                saved["dynamic_map"], saved["nf4_map"] = state.state2.code.clone(), state.code.clone()
    return saved


def mend_products():
    """bitsandbytes 0.50.2's AVX-512 loop takes wrong scales where a row is a multiple of 16 but not of the block (our down_proj has
    112 columns): those matrices go through its own generic code."""
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    fast = bnb.matmul_4bit

    def matmul(x, packed, quant_state, out=None, bias=None):
        s = quant_state
        if s.shape[-1] % s.blocksize == 0:
            return fast(x, packed, quant_state=s, out=out, bias=bias)
        absmax = F.dequantize_blockwise(s.absmax, s.state2) + s.offset if s.nested else s.absmax
        return torch.nn.functional.linear(x, _dequantize_4bit_compute(packed.reshape(-1), absmax, s.code, s.blocksize, s.shape, s.dtype), bias)

    bnb.matmul_4bit = matmul


def train(reference, seed):
    mend_products()
    sys.path.insert(0, str(reference))
    import train_reference as base
    from PIL import Image

    train, checkpoint = reference / "golden/train", reference / "golden/checkpoints/llava15"
    data = json.loads((train / "data.json").read_text())
    tok, proc = AutoTokenizer.from_pretrained(checkpoint), CLIPImageProcessor.from_pretrained(checkpoint)
    pixels = lambda f: proc(Image.open(train / f).convert("RGB"), return_tensors="pt")["pixel_values"][0]
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32,
                                   llm_int8_skip_modules=["lm_head", "multi_modal_projector", "vision_tower"])
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager", quantization_config=quantised, device_map="cpu")
    assert sum(type(m).__name__ == "Linear4bit" for m in model.modules()) == 14
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=TARGET, modules_to_save=["multi_modal_projector"]))
    model.train()  # there is no dropout; in eval mode bitsandbytes' CPU products are in bfloat16
    n = model.config.image_seq_length
    rows = [(*base.tokenize([t["value"] for t in r["conversations"]], tok, n), pixels(r["image"]) if "image" in r else None) for r in data]
    batches = [base.collate(rows[i:i + base.BATCH], tok.pad_token_id) for i in range(0, len(rows), base.BATCH)]
    keep = lambda prefix, want: {f"{prefix}/{k}": p.detach().clone().contiguous() for k, p in model.named_parameters() if want(k)}
    saved = keep("init", lambda k: "lora_A" in k)
    log = base.optimise(model, STEPS, LR, lambda s: (model(**batches[s % len(batches)], use_cache=False).loss, {}))
    saved |= keep("final", lambda k: "layers.0" in k and "lora_" in k)
    return log, saved


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--reference", type=pathlib.Path, required=True)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    save_file(byte_cases(a.seed), a.out / "bytes.safetensors")
    log, saved = train(a.reference, a.seed)
    (a.out / "run.json").write_text(json.dumps(log, indent=1) + "\n")
    save_file(saved, a.out / "run.safetensors")
    print(*(f"{r['loss']:.4f}" for r in log))


if __name__ == "__main__":
    main()
