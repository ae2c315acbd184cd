#!/usr/bin/env python3
"""LLaVA-Mini in plain torch arithmetic: tiny checkpoints in the published layout and what the model computes on them.

  mini_reference.py --out tests/golden/mini [--shared ../shared/reference] [--seed 0]

Writes one folder a checkpoint (mini: 2x2 compressed tokens, mini_one: one token, mini_hd: 2x2 tokens and
resolution_ratio 2) with config.json, model.safetensors, tokenizer, preprocessor_config.json, the tower's folder (its
shape only: the weights are inside model.safetensors) and reference.safetensors, and cases.json for all of them.
README.md beside them lists the tensors. Weights are stored as bf16 and used as f32; the text decoder, the CLIP tower
and the compressor's attention are compared with transformers and torch here before anything is written.
Needs torch, transformers 4.57, safetensors, Pillow; no C++ code is involved.
"""
import argparse, json, math, os, pathlib, shutil, sys, zlib

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import numpy as np
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import gelu, interpolate, layer_norm, silu

SENTINEL = -200  # stands for the image or video in input_ids
TOWER = "model.vision_tower.vision_tower.vision_model."
LM = dict(hidden_size=32, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
          rms_norm_eps=1e-5, rope_theta=5e5, max_position_embeddings=2048, hidden_act="silu", attention_bias=False, mlp_bias=False,
          rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256))
CLIP = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=20, patch_size=5,
            projection_dim=8, num_channels=3, layer_norm_eps=1e-5, hidden_act="quick_gelu")
COMPRESSOR_HEADS, PREFUSION_LAYERS, NEW_TOKENS, VOCAB = 8, 2, 8, 264
BOS, EOT = "<|begin_of_text|>", "<|eot_id|>"
FOLDERS = {  # folder: compressor_size, resolution_ratio, {case: (picture or None for the video, prompt)}
    "mini": (2, 1, {"image": ("rgb_640x480.png", f"{BOS}<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it!{EOT}"),
                    "video": (None, f"{BOS}See <image>\nWhy!{EOT}")}),
    "mini_one": (1, 1, {"image": ("rgb_57x133.png", f"{BOS}<image>\nWhat?{EOT}")}),
    "mini_hd": (2, 2, {"hd": ("decoded/progressive_420_101x77.jpg.png", f"{BOS}Hi! <image>\nRead{EOT}")}),
}


# ---- checkpoint -----------------------------------------------------------------------------------------------------
def shapes(side, vocab):
    h, f, kv = LM["hidden_size"], LM["intermediate_size"], LM["num_key_value_heads"] * LM["head_dim"]
    c, cf, p = CLIP["hidden_size"], CLIP["intermediate_size"], CLIP["patch_size"]
    at = "model.compressor."
    out = {"model.embed_tokens.weight": (vocab, h), "model.norm.weight": (h,), "lm_head.weight": (vocab, h), at + "query": (side * side, c),
           at + "attn.in_proj_weight": (3 * c, c), at + "attn.in_proj_bias": (3 * c,), TOWER + "embeddings.class_embedding": (c,),
           TOWER + "embeddings.patch_embedding.weight": (c, 3, p, p),
           TOWER + "embeddings.position_embedding.weight": ((CLIP["image_size"] // p) ** 2 + 1, c)}
    layer = {"self_attn.q_proj": (h, h), "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h), "self_attn.o_proj": (h, h),
             "mlp.gate_proj": (f, h), "mlp.up_proj": (f, h), "mlp.down_proj": (h, f), "input_layernorm": (h,), "post_attention_layernorm": (h,)}
    for name, count in (("layers", LM["num_hidden_layers"]), ("prefusion_layers", PREFUSION_LAYERS)):
        out.update({f"model.{name}.{i}.{k}.weight": v for i in range(count) for k, v in layer.items()})
    block = {"self_attn.q_proj": (c, c), "self_attn.k_proj": (c, c), "self_attn.v_proj": (c, c), "self_attn.out_proj": (c, c),
             "mlp.fc1": (cf, c), "mlp.fc2": (c, cf), "layer_norm1": (c,), "layer_norm2": (c,)}
    biased = {f"{TOWER}encoder.layers.{i}.{k}": v for i in range(CLIP["num_hidden_layers"]) for k, v in block.items()}
    biased.update({TOWER + "pre_layrnorm": (c,), TOWER + "post_layernorm": (c,), at + "ln_q": (c,), at + "ln_kv": (c,), at + "attn.out_proj": (c, c),
                   "model.mm_projector.0": (h, c), "model.mm_projector.2": (h, h)})
    return out | {k + ".weight": v for k, v in biased.items()} | {k + ".bias": v[:1] for k, v in biased.items()}


def draw(name, shape, seed):
    """Numbers that depend on the tensor's name and the seed only, of a size that keeps activations and logits O(1)."""
    r = torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(name.encode())))
    if "class_embedding" in name or "embed_tokens" in name or name.endswith("query"):
        return r
    if len(shape) == 1:
        return 0.1 * r + (1.0 if name.endswith("weight") else 0.0)
    return r * (0.3 if "position_embedding" in name else (2.0 if "lm_head" in name or "in_proj" in name else 1.2) / r[0].numel() ** 0.5)


def sincos_table(side, width):
    """(side^2, width): the first half of a row encodes the column, the second the row; each half is sines, then cosines."""
    quarter = width // 4
    omega = 10000.0 ** (-torch.arange(quarter) / quarter)
    return torch.stack([torch.cat([f(v * omega) for v in (x, y) for f in (torch.sin, torch.cos)]) for y in range(side) for x in range(side)])


def dump(path, obj):
    path.write_text(json.dumps(obj, indent=1, ensure_ascii=False) + "\n")


def write_checkpoint(out, w, side, ratio, tok, processor):
    """All but the tokenizer, which is there already."""
    tower = f"clip-tower-{CLIP['image_size']}"
    config = {"architectures": ["LlavaMiniLlamaForCausalLM"], "model_type": "llava_mini_llama", **LM, "vocab_size": len(tok), "torch_dtype": "bfloat16",
              "bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id, "tie_word_embeddings": False, "pretraining_tp": 1, "use_cache": True,
              "image_aspect_ratio": "square", "mm_hidden_size": CLIP["hidden_size"], "mm_patch_merge_type": "flat", "mm_projector_type": "mlp2x_gelu",
              "mm_use_im_patch_token": False, "mm_use_im_start_end": False, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
              "mm_vision_tower": tower, "use_mm_proj": True, "tune_mm_mlp_adapter": False, "freeze_mm_mlp_adapter": False, "unfreeze_mm_vision_tower": True,
              "tokenizer_padding_side": "right", "tokenizer_model_max_length": LM["max_position_embeddings"],
              "compressor_size": side, "prefusion_layer_num": PREFUSION_LAYERS, "resolution_ratio": ratio}
    dump(out / "config.json", config)
    dump(out / "generation_config.json", {"bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id})
    save_file({k: v.bfloat16() for k, v in w.items()}, out / "model.safetensors", {"format": "pt"})
    (out / tower).mkdir()
    dump(out / tower / "config.json", {"architectures": ["CLIPModel"], "model_type": "clip", "vision_config": {**CLIP, "model_type": "clip_vision_model"}})
    processor.save_pretrained(out / tower)
    processor.save_pretrained(out)


# ---- model ----------------------------------------------------------------------------------------------------------
def heads(x, n):  # (T, n*d) -> (n, T, d)
    return x.reshape(x.shape[0], n, -1).transpose(0, 1)


def attend(q, k, v, seen=None):
    """q (n, T, d), k and v (n, S, d); seen (T, S) says which keys a query sees. Returns (T, n*d)."""
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    if seen is not None:
        scores = scores.masked_fill(~seen, -math.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


def linear(w, name, x):
    y = x @ w[name + ".weight"].T
    return y + w[name + ".bias"] if name + ".bias" in w else y


def norm(w, name, x):
    return layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], 1e-5)


def tower(w, pixels):
    """(3, s, s) -> (1 + patches, C), class token first: the output of the block before the last one."""
    p, n = CLIP["patch_size"], CLIP["num_attention_heads"]
    g = CLIP["image_size"] // p
    patches = pixels.reshape(3, g, p, g, p).permute(1, 3, 0, 2, 4).reshape(g * g, -1)
    x = torch.cat([w[TOWER + "embeddings.class_embedding"][None], patches @ w[TOWER + "embeddings.patch_embedding.weight"].flatten(1).T])
    x = norm(w, TOWER + "pre_layrnorm", x + w[TOWER + "embeddings.position_embedding.weight"])
    for i in range(CLIP["num_hidden_layers"] - 1):
        at = f"{TOWER}encoder.layers.{i}."
        y = norm(w, at + "layer_norm1", x)
        q, k, v = (heads(linear(w, f"{at}self_attn.{c}_proj", y), n) for c in "qkv")
        x = x + linear(w, at + "self_attn.out_proj", attend(q, k, v))
        y = linear(w, at + "mlp.fc1", norm(w, at + "layer_norm2", x))
        x = x + linear(w, at + "mlp.fc2", y * torch.sigmoid(1.702 * y))
    return x


def project(w, x):
    return linear(w, "model.mm_projector.2", gelu(linear(w, "model.mm_projector.0", x)))


def compressor_inputs(w, x):
    """Query, key and value before their projections. x: (N, C) features of a square map in raster order."""
    at = "model.compressor."
    table = w[at + "pos_embed"]
    side, g = math.isqrt(len(table)), math.isqrt(len(x))
    keys = table if g == side else interpolate(table.T.reshape(1, -1, side, side), size=(g, g), mode="bicubic", align_corners=False)[0].flatten(1).T
    x = norm(w, at + "ln_kv", x)
    return norm(w, at + "ln_q", w[at + "query"]) + table, x + keys, x


def compress(w, x):
    """(N, C) -> (compressor_size^2, C)."""
    at = "model.compressor."
    weights, biases = w[at + "attn.in_proj_weight"].chunk(3), w[at + "attn.in_proj_bias"].chunk(3)
    q, k, v = (heads(a @ m.T + b, COMPRESSOR_HEADS) for a, m, b in zip(compressor_inputs(w, x), weights, biases))
    return linear(w, at + "attn.out_proj", attend(q, k, v))


def rotary_frequencies():
    s, d = LM["rope_scaling"], LM["head_dim"]
    low, high, factor, trained = s["low_freq_factor"], s["high_freq_factor"], s["factor"], s["original_max_position_embeddings"]
    f = LM["rope_theta"] ** (-2 * torch.arange(d // 2) / d)
    turns = trained * f / (2 * math.pi)  # within the trained length
    blend = ((turns - low) / (high - low)).clamp(0, 1)
    return f * blend + f / factor * (1 - blend)


def rotate(x, positions):  # (n, T, d)
    angle = positions[:, None].float() * rotary_frequencies()
    cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def rms_norm(w, name, x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + LM["rms_norm_eps"]) * w[name + ".weight"]


def decoder_layer(w, at, x, positions, visible):
    """visible (T,): keys that take part at all; the rest is causal."""
    n, kv = LM["num_attention_heads"], LM["num_key_value_heads"]
    y = rms_norm(w, at + ".input_layernorm", x)
    q, k, v = (heads(linear(w, f"{at}.self_attn.{c}_proj", y), m) for c, m in (("q", n), ("k", kv), ("v", kv)))
    k, v = rotate(k, positions).repeat_interleave(n // kv, 0), v.repeat_interleave(n // kv, 0)
    seen = torch.ones(len(x), len(x)).tril().bool() & visible
    x = x + linear(w, at + ".self_attn.o_proj", attend(rotate(q, positions), k, v, seen))
    y = rms_norm(w, at + ".post_attention_layernorm", x)
    return x + linear(w, at + ".mlp.down_proj", silu(linear(w, at + ".mlp.gate_proj", y)) * linear(w, at + ".mlp.up_proj", y))


def language_model(w, x):
    for i in range(LM["num_hidden_layers"]):
        x = decoder_layer(w, f"model.layers.{i}", x, torch.arange(len(x)), torch.ones(len(x)).bool())
    return linear(w, "lm_head", rms_norm(w, "model.norm", x))


def raster(tiles, ratio):
    """(ratio^2, g*g, D), tiles row by row -> (ratio*g*ratio*g, D): the rows of the whole map, left to right."""
    g, d = math.isqrt(tiles.shape[1]), tiles.shape[2]
    return tiles.reshape(ratio, ratio, g, g, d).permute(0, 2, 1, 3, 4).reshape(-1, d)


def fuse(w, views, ids):
    """One image or frame, (1 or ratio^2 + 1, 3, s, s) with the whole picture last, and the ids of the prompt."""
    r = {"vision_hidden": torch.stack([tower(w, v) for v in views])}
    patches = r["vision_hidden"][:, 1:]
    r["projected"] = project(w, patches)
    ratio = math.isqrt(len(views) - 1)
    vision = r["projected"][-1]
    r["compressed"] = compress(w, raster(patches[:-1], ratio) if ratio else patches[0])
    r["compressed_projected"] = project(w, r["compressed"])
    if ratio:
        vision = torch.cat([raster(r["projected"][:-1], ratio), vision])
    text = w["model.embed_tokens.weight"][ids.clamp(min=0)]
    masked = ids <= 0  # the sentinel, and token 0, which is "!" in the tokenizer of Llama 3
    x = torch.cat([vision, r["compressed_projected"], text])
    visible = torch.cat([torch.ones(len(x) - len(ids)).bool(), ~masked])
    positions = torch.where(visible, visible.long().cumsum(0) - 1, 1)
    r["prefusion_positions"] = positions
    for i in range(PREFUSION_LAYERS):
        x = decoder_layer(w, f"model.prefusion_layers.{i}", x, positions, visible)
    t, n = len(ids), len(r["compressed"])
    r["fused_compressed"] = x[-t - n:-t]
    r["fused_text_frames"] = torch.where(masked[:, None], text, x[-t:])
    return r


def run(w, frames, ids):
    """frames (F, views, 3, s, s). The pre-fusion runs once on the prompt; new tokens enter with their plain embedding."""
    parts = [fuse(w, f, ids) for f in frames]
    r = {k: torch.stack([p[k] for p in parts]) for k in parts[0]}
    r.update({k: r[k].flatten(0, 1) for k in ("vision_hidden", "projected")})
    text = r["fused_text"] = r["fused_text_frames"].mean(0)
    if len(frames) == 1:
        del r["fused_text_frames"]
    at = int((ids == SENTINEL).nonzero())
    embeds = torch.cat([text[:at], r["fused_compressed"].flatten(0, 1), text[at + 1:]])
    logits = language_model(w, embeds)
    r["inputs_embeds"], r["logits"] = embeds[None], logits[None]
    steps = []
    for _ in range(NEW_TOKENS):
        top, best = logits[-1].topk(2)
        steps.append((int(best[0]), float(top[0] - top[1])))
        embeds = torch.cat([embeds, w["model.embed_tokens.weight"][best[:1]]])
        logits = language_model(w, embeds)
    r["greedy"], r["greedy_margin"] = (torch.tensor([column]) for column in zip(*steps))
    return r


# ---- inputs ---------------------------------------------------------------------------------------------------------
def split(picture, ratio):
    """ratio x ratio crops row by row (what does not divide is left out at the right and bottom), then the whole."""
    w, h = picture.width // ratio, picture.height // ratio
    crops = [picture.crop((x * w, y * h, (x + 1) * w, (y + 1) * h)) for y in range(ratio) for x in range(ratio)]
    return [*crops, picture] if ratio > 1 else [picture]


def make_frames(count, height, width, seed):
    """uint8 (count, height, width, 3): smooth colours that move, and noise."""
    g = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    base = np.stack([127 + 90 * np.sin(x / 5 + t), 127 + 90 * np.cos(y / 4 - t), 60 + 40 * t + x + y], -1)
    return (base + g.integers(-20, 21, base.shape)).clip(0, 255).astype(np.uint8)


def squash(frames, side):
    """Nearest neighbour, aspect ratio given up: pixel i comes from floor(i * size / side)."""
    pick = [np.floor(np.arange(side, dtype=np.float32) * np.float32(n / side)).astype(int) for n in frames.shape[1:3]]
    return frames[:, pick[0]][:, :, pick[1]]


def encode_prompt(tok, text):
    """The tokenizer adds a BOS to both pieces; the first piece keeps it beside the one of the template's text."""
    head, tail = text.split("<image>")
    return torch.tensor(tok(head).input_ids + [SENTINEL] + tok(tail).input_ids[1:])


# ---- checks ---------------------------------------------------------------------------------------------------------
def close(a, b, what):
    d = float((a - b).abs().max())
    assert d < 2e-5, f"{what}: {d}"
    print(f"  {what}: max difference {d:.1e}")


def check_parts(w, pixels, ids, vocab):
    """The parts that exist elsewhere, against transformers and torch."""
    lm = hf.LlamaForCausalLM(hf.LlamaConfig(**LM, vocab_size=vocab, tie_word_embeddings=False)).eval()
    lm.load_state_dict({k: v for k, v in w.items() if k in lm.state_dict()})
    close(lm(ids[None]).logits[0], language_model(w, w["model.embed_tokens.weight"][ids]), "decoder, text only")
    clip = hf.CLIPVisionModel(hf.CLIPVisionConfig(**CLIP)).eval()
    clip.load_state_dict({k.removeprefix("model.vision_tower.vision_tower."): v for k, v in w.items() if k.startswith(TOWER)})
    hidden = clip(pixels, output_hidden_states=True).hidden_states[-2]
    close(hidden, torch.stack([tower(w, p) for p in pixels]), "tower")
    at = "model.compressor.attn."
    mha = torch.nn.MultiheadAttention(CLIP["hidden_size"], COMPRESSOR_HEADS).eval()
    mha.load_state_dict({k.removeprefix(at): v for k, v in w.items() if k.startswith(at)})
    close(mha(*compressor_inputs(w, hidden[0, 1:]))[0], compress(w, hidden[0, 1:]), "compressor")


def write_folder(out, name, shared, seed):
    import tiny_tokenizers
    tiny_tokenizers.VOCAB = VOCAB  # 256 bytes and a few merges: a table of 2048 rows would be most of the checkpoint
    side, ratio, cases = FOLDERS[name]
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    tiny_tokenizers.build("llama3", folder)
    tok = hf.AutoTokenizer.from_pretrained(folder)
    s = CLIP["image_size"]
    processor = hf.CLIPImageProcessor(size={"shortest_edge": s}, crop_size={"height": s, "width": s})
    w = {k: draw(k, shape, seed) for k, shape in shapes(side, len(tok)).items()} | {"model.compressor.pos_embed": sincos_table(side, CLIP["hidden_size"])}
    w = {k: v.bfloat16().float() for k, v in w.items()}
    write_checkpoint(folder, w, side, ratio, tok, processor)
    results, about = {}, {}
    for case, (picture, prompt) in cases.items():
        ids = encode_prompt(tok, prompt)
        frames = None if picture else make_frames(3, 16, 24, seed)
        pictures = [Image.fromarray(f) for f in squash(frames, s)] if frames is not None else [Image.open(shared / "golden/images" / picture).convert("RGB")]
        views = processor([v for p in pictures for v in split(p, ratio)], return_tensors="pt")["pixel_values"]
        check_parts(w, views, ids[ids >= 0], len(tok))
        r = run(w, views.reshape(len(pictures), -1, *views.shape[1:]), ids)
        r.update(input_ids=ids[None], pixel_values=views, **({} if picture else {"frames": torch.from_numpy(frames)}))
        results.update({f"{case}/{k}": v.contiguous().clone() for k, v in r.items()})
        about[case] = dict(prompt=prompt, picture=picture, frames=len(pictures), views=len(views) // len(pictures), compressor_size=side,
                           resolution_ratio=ratio, image_at=ids.tolist().index(SENTINEL), smallest_greedy_margin=float(r["greedy_margin"].min()))
    save_file(results, folder / "reference.safetensors", {"format": "pt"})
    return about


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    shared = pathlib.Path(__file__).resolve().parents[3] / "shared/reference"
    ap.add_argument("--shared", type=pathlib.Path, default=shared, help="folder of tiny_tokenizers.py and golden/images")
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(a.shared))
    a.out.mkdir(parents=True, exist_ok=True)
    dump(a.out / "cases.json", {name: write_folder(a.out, name, a.shared, a.seed) for name in FOLDERS})


if __name__ == "__main__":
    main()
