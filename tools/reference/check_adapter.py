#!/usr/bin/env python3
"""Loads adapters that `llava train` wrote with PEFT, and models that `llava convert` wrote with transformers; compares logits.

  check_adapter.py --llava build/llava --golden ../shared/reference/golden --work DIR

For LoRA, rsLoRA, DoRA and QLoRA: a few steps on the tiny llava15 with llava train, then
  peft     base in transformers + adapter/ by PEFT        against  llava inspect forward on the same adapter
  final    final/ (merged) by transformers                against  PEFT
  hf, llava   final/ converted to both layouts (shards of 100 kB), by transformers and by `llava inspect forward`, against final/
Prints the largest differences; ends with 1 if one is above 1e-5 (merged above 2e-5: other order of sums) or a tensor does not match.
"""
import argparse, json, os, pathlib, subprocess, sys, warnings

os.environ |= dict(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

KINDS = dict(lora={}, rslora=dict(use_rslora=True), dora=dict(use_dora=True, tower_target="fc1|out_proj"),
             patterns=dict(rank_pattern={"q_proj": 3}, alpha_pattern={"down_proj": 5}, init_lora_weights="gaussian"), qlora={})
WORST = 0


def llava(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"llava {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stderr


def train(a, kind, settings, out):
    config = dict(model=str(a.golden / "checkpoints/llava15"), output=str(out), save_steps=0, stages=[dict(
        data=[dict(path=str(a.golden / "train/data.json"))], train=["^mm_projector\\."], lr=2e-2, max_steps=6, batch_size=4, dtype="float32", template="user_assistant",
        lora=dict(r=4, lora_alpha=8, **settings))])
    if kind == "qlora":
        config["quantization"] = dict(load_in_4bit=True, bnb_4bit_use_double_quant=True)
    path = out.with_suffix(".json")
    path.write_text(json.dumps(config))
    llava(a.llava, "train", "--config", path, "--threads", 1)


def ours(a, model, base, work):
    out = work / "forward.safetensors"
    extra = ["--model-base", base] if base else []
    llava(a.llava, "inspect", "forward", "--model", model, *extra, "--image", a.golden / "train/images/0000.png", "--prompt", "USER: <image>\nWhat is it? ASSISTANT:", "--out", out, "--threads", 1)
    return load_file(out)


def theirs(model, forward, image_token):
    """The same pixels and ids; the original layout's image places (-200) become the model's image token."""
    ids = forward["input_ids"].reshape(1, -1).clone()
    ids[ids < 0] = image_token
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=forward["pixel_values"].reshape(1, *forward["pixel_values"].shape[-3:]), use_cache=False).logits[0]


def load(folder):
    model, info = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    bad = {k: v for k, v in info.items() if v and k != "error_msgs"}
    if bad:
        sys.exit(f"{folder}: {bad}")
    return model.eval()


def report(kind, what, a, b, limit=1e-5, rows=None):
    global WORST
    rows = min(a.shape[-1], b.shape[-1], rows or a.shape[-1])
    difference = (a[..., :rows] - b[..., :rows]).abs().max().item()
    WORST = max(WORST, difference / limit)
    print(f"{kind:9} {what:46} {difference:.2e}", "" if difference <= limit else "TOO LARGE", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--llava", required=True)
    ap.add_argument("--golden", type=pathlib.Path, required=True)
    ap.add_argument("--work", type=pathlib.Path, required=True)
    a = ap.parse_args()
    torch.set_num_threads(1)
    a.golden = a.golden.resolve()
    a.work.mkdir(parents=True, exist_ok=True)
    base = a.golden / "checkpoints/llava15"
    for kind, settings in KINDS.items():
        run = a.work / kind
        train(a, kind, settings, run)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tuned = PeftModel.from_pretrained(load(base), run / "adapter").eval()
            wrong = [str(w.message) for w in caught if "missing" in str(w.message) or "unexpected" in str(w.message).lower()]
        if wrong:
            sys.exit(f"{kind}: PEFT: {wrong}")
        forward = ours(a, run / "adapter", base, a.work)
        token = tuned.config.image_token_index
        by_peft = theirs(tuned, forward, token)
        plain = theirs(load(base), forward, token)
        print(f"{kind:9} {'the adapter moves logits by':46} {(by_peft - plain).abs().max().item():.2e}")
        report(kind, "ours with adapter/ against PEFT", forward["logits"].reshape(by_peft.shape), by_peft)
        final = theirs(load(run / "final"), forward, token)
        report(kind, "final/ in transformers against PEFT", final, by_peft, 2e-5)
        for layout in ("hf", "llava"):
            llava(a.llava, "convert", "--in", run / "final", "--out", run / layout, "--to", layout, "--max-shard-bytes", 100000)
            llava(a.llava, "convert", "--in", base, "--adapter", run / "adapter", "--out", run / f"{layout}-merged", "--to", layout, "--dtype", "float32")
            found = ours(a, run / layout, None, a.work)
            report(kind, f"{layout}/ by llava against final/", found["logits"].reshape(-1, found["logits"].shape[-1]), final)
            found = ours(a, run / f"{layout}-merged", None, a.work)
            report(kind, f"--adapter merged to {layout} against final/", found["logits"].reshape(-1, found["logits"].shape[-1]), final)
        report(kind, "hf/ by transformers against final/", theirs(load(run / "hf"), forward, token), final)
        llava(a.llava, "convert", "--in", run / "llava", "--out", run / "back", "--to", "hf")
        back = load(run / "back")
        processor = AutoProcessor.from_pretrained(run / "back")
        assert processor.tokenizer.convert_tokens_to_ids("<image>") == back.config.image_token_index
        report(kind, "llava/ converted to hf by transformers", theirs(back, forward | dict(input_ids=torch.where(forward["input_ids"] == token, back.config.image_token_index, forward["input_ids"])), back.config.image_token_index), final,
               rows=token)  # rows behind the words are cut for the original layout and made anew
    sys.exit(WORST > 1)


if __name__ == "__main__":
    main()
