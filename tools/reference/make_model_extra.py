#!/usr/bin/env python3
"""Tiny checkpoints and their results for the cases golden/ has none of, as transformers computes them.

  make_model_extra.py --out tests/golden/models_extra [--seed 0]

One folder a case: the checkpoint's files and reference.safetensors with "<case>/<name>" tensors named as in
../shared/reference/README.md (input_ids, pixel_values, vision_hidden, projected, inputs_embeds, final_hidden, logits,
logits_pos, greedy, greedy_margin). No tokenizers: only ids go in. Needs torch, transformers 4.57, safetensors, gguf.
"""
import argparse, json, os, pathlib, shutil, zlib

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import numpy as np
import torch
import transformers as hf
from safetensors.torch import save_file

WIDTH, FFN, LAYERS, HEADS, KV, VOCAB = 32, 48, 2, 4, 2, 96
V_WIDTH, V_FFN, V_LAYERS, SIDE = 24, 40, 3, 28
IMAGE = 90  # image token of the Hugging Face cases


def randomize(model, seed):
    """O(1) activations and logits; a tensor's numbers depend on its name and the seed only."""
    tied = model.config.get_text_config().tie_word_embeddings if hasattr(model.config, "get_text_config") else False
    for name, p in sorted(model.named_parameters()):
        g = torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(name.encode()))
        r = torch.randn(p.shape, generator=g)
        if p.dim() == 1:
            r = 0.1 * r + (1.0 if name.endswith(("weight", "lambda1")) else 0.0)
        elif "embed_tokens" in name or "token" in name and p.dim() == 3:
            r = r * (0.25 if tied else 1.0)
        elif "lm_head" in name:
            r = r * (2.0 / p.shape[-1] ** 0.5)
        elif "position_embedding" in name:
            r = r * 0.3
        else:
            r = r * (1.2 / p[0].numel() ** 0.5)
        p.data.copy_(r)
    return model.eval()


def stored_as(model, dtype):
    """Rounds the weights to the stored dtype, so that a float32 reader has the same numbers."""
    for p in model.parameters():
        p.data = p.data.to(dtype).float()
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model


def text_args(**kw):
    return {**dict(hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV,
                   vocab_size=VOCAB, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2), **kw}


def clip(**kw):
    return hf.CLIPVisionConfig(**{**dict(hidden_size=V_WIDTH, intermediate_size=V_FFN, num_hidden_layers=V_LAYERS, num_attention_heads=4,
                                         image_size=SIDE, patch_size=14, projection_dim=16), **kw})


def clip_processor(out):
    hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(out)


def llava(text, vision, seed, dtype, **kw):
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, tie_word_embeddings=text.tie_word_embeddings, **kw)
    return stored_as(randomize(hf.LlavaForConditionalGeneration(config), seed), dtype)


def dump(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


# ---- results --------------------------------------------------------------------------------------------------------
def run_llava(model, seed, image_id=IMAGE, rows=1):
    """One prompt with an image in the middle. `image_id`: how the ids of the case call the image token."""
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randn((rows, 3, SIDE, SIDE), generator=g)
    got, hooks = {}, []
    keep = lambda name, pick: lambda m, a, kw, o: got.__setitem__(name, pick(o).detach())
    vip = model.config.model_type == "vipllava"
    core, layer = model.model, model.config.vision_feature_layers if vip else model.config.vision_feature_layer
    hidden = lambda o: o.hidden_states[layer] if isinstance(layer, int) else torch.cat([o.hidden_states[i] for i in layer], -1)
    hooks.append(core.vision_tower.register_forward_hook(keep("vision_hidden", hidden), with_kwargs=True))
    hooks.append(core.multi_modal_projector.register_forward_hook(keep("projected", lambda o: o), with_kwargs=True))
    hooks.append(core.language_model.register_forward_pre_hook(lambda m, a, kw: got.__setitem__("inputs_embeds", kw["inputs_embeds"].detach()), with_kwargs=True))
    with torch.no_grad():
        options = dict(vision_feature_layers=layer) if vip else dict(vision_feature_layer=layer, vision_feature_select_strategy=model.config.vision_feature_select_strategy)
        n = core.get_image_features(pixels, **options)[0].shape[0]
        ids = torch.cat([torch.randint(3, 80, (6,), generator=g), torch.full((n,), IMAGE), torch.randint(3, 80, (14,), generator=g)])[None]
        return results(model, dict(input_ids=ids, pixel_values=pixels), got, hooks, image_id)


def run_text(model, seed, length=40):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return results(model, dict(input_ids=torch.randint(3, VOCAB, (1, length), generator=g)), {}, [], None)


def results(model, inputs, got, hooks, image_id):
    out = model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]), output_hidden_states=True, use_cache=False)
    got = dict(got)
    for h in hooks:
        h.remove()
    gen = model.generate(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]), do_sample=False, max_new_tokens=16, eos_token_id=-1, pad_token_id=0,
                         return_dict_in_generate=True, output_logits=True)
    top = torch.stack(gen.logits, 1).topk(2, -1).values
    pos = torch.arange(0, out.logits.shape[1], 4)
    got.update(inputs, final_hidden=out.hidden_states[-1], logits=out.logits[:, pos], logits_pos=pos, greedy=gen.sequences[:, -16:], greedy_margin=top[..., 0] - top[..., 1])
    if image_id is not None and image_id != IMAGE:
        ids = got["input_ids"].clone()
        got["input_ids"] = ids.masked_fill(ids == IMAGE, image_id)
    return got


def save_results(out, values, key="case"):
    save_file({f"{key}/{k}": v.contiguous().clone() for k, v in values.items()}, out / "reference.safetensors")


# ---- layouts --------------------------------------------------------------------------------------------------------
def original_names(state):
    """A Hugging Face LLaVA state dict (>= 4.52 names) with original names, tower apart."""
    lm, tower = {}, {}
    for k, v in state.items():
        if k.startswith("model.vision_tower."):
            tower[k.removeprefix("model.vision_tower.")] = v
        elif k.startswith("model.multi_modal_projector."):
            k = k.replace("linear_1", "0").replace("linear_2", "2")
            lm[k.replace("model.multi_modal_projector.", "model.mm_projector.")] = v
        else:
            lm[k.replace("model.language_model.", "model.")] = v
    return lm, tower


def original_config(text, **kw):
    base = {k: v for k, v in text.to_diff_dict().items() if k not in ("model_type", "architectures", "transformers_version")}
    base.update({k: getattr(text, k) for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                                               "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings")})
    return {**base, "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava_llama", "mm_vision_tower": "tower", "mm_hidden_size": V_WIDTH,
            "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False, "image_aspect_ratio": "pad", **kw}


def tower_folder(folder, tower, vision, dtype, as_bin=False):
    folder.mkdir(parents=True, exist_ok=True)
    tower = {k: v.to(dtype).contiguous() for k, v in tower.items()}
    if as_bin:
        torch.save(tower, folder / "pytorch_model.bin")
    else:
        save_file(tower, folder / "model.safetensors", {"format": "pt"})
    dump(folder / "config.json", {"architectures": ["CLIPModel"], "model_type": "clip", "vision_config": {**vision.to_dict(), "model_type": "clip_vision_model"}})
    clip_processor(folder)


def case_llava_qwen2_sharded(out, seed):
    """Qwen2 (biases, tied), fp16 in shards, two tower layers side by side, vocabulary larger than config.json says."""
    text = hf.Qwen2Config(**text_args(tie_word_embeddings=True))
    model = llava(text, clip(), seed, torch.float16, vision_feature_layer=[-2, -1], vision_feature_select_strategy="default")
    save_results(out, run_llava(model, seed))
    model.half().save_pretrained(out, max_shard_size="20KB")
    clip_processor(out)
    c = json.loads((out / "config.json").read_text())
    c["text_config"]["vocab_size"] = VOCAB - 8
    dump(out / "config.json", c)


def case_llava_mistral_newkeys(out, seed):
    """Mistral with a window of 8, bf16, names of transformers >= 4.52, class token kept."""
    text = hf.MistralConfig(**text_args(sliding_window=8, head_dim=16))
    model = llava(text, clip(), seed, torch.bfloat16, vision_feature_layer=-2, vision_feature_select_strategy="full")
    save_results(out, run_llava(model, seed))
    model.bfloat16().save_pretrained(out)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "model.safetensors", {"format": "pt"})
    clip_processor(out)


def case_vipllava(out, seed):
    """Three tower layers side by side without class token, a LayerNorm in front of the connector."""
    config = hf.VipLlavaConfig(vision_config=clip(), text_config=hf.LlamaConfig(**text_args()), image_token_index=IMAGE, vision_feature_layers=[-2, -1, 1])
    model = stored_as(randomize(hf.VipLlavaForConditionalGeneration(config), seed), torch.float16)
    save_results(out, run_llava(model, seed))
    model.half().save_pretrained(out)
    clip_processor(out)


def case_original_linear_bin(out, seed):
    """The original layout as LLaVA v1 published it: two fp16 .bin shards, linear connector, tower in a folder as .bin."""
    text = hf.LlamaConfig(**text_args())
    model = llava(text, clip(), seed, torch.float32, vision_feature_layer=-2, vision_feature_select_strategy="default")
    model.model.multi_modal_projector = torch.nn.Linear(V_WIDTH, WIDTH)
    stored_as(randomize(model, seed), torch.float16)
    save_results(out, run_llava(model, seed, -200))
    lm, tower = original_names(model.state_dict())
    tower_folder(out / "tower", tower, clip(), torch.float16, as_bin=True)
    keys, index = sorted(lm), {}
    for i, part in enumerate((keys[: len(keys) // 2], keys[len(keys) // 2 :])):
        name = f"pytorch_model-{i + 1:05d}-of-00002.bin"
        torch.save({k: lm[k].half() for k in part}, out / name)
        index.update({k: name for k in part})
    dump(out / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": index})
    dump(out / "config.json", original_config(text, mm_projector_type="linear", architectures=["LlavaLlamaForCausalLM"]))


def case_original_embedded_tower(out, seed):
    """A tuned tower inside an original checkpoint; the folder mm_vision_tower names holds other weights. mlp3x_gelu."""
    text = hf.LlamaConfig(**text_args())
    model = llava(text, clip(), seed, torch.float32, vision_feature_layer=-2, vision_feature_select_strategy="default")
    L, G = torch.nn.Linear, torch.nn.GELU
    model.model.multi_modal_projector = torch.nn.Sequential(L(V_WIDTH, WIDTH), G(), L(WIDTH, WIDTH), G(), L(WIDTH, WIDTH))
    stored_as(randomize(model, seed), torch.bfloat16)
    save_results(out, run_llava(model, seed, -200))
    lm, tower = original_names(model.state_dict())
    lm.update({"model.vision_tower.vision_tower." + k: v for k, v in tower.items()})
    save_file({k: v.bfloat16().contiguous() for k, v in lm.items()}, out / "model.safetensors", {"format": "pt"})
    tower_folder(out / "tower", {k: torch.zeros_like(v) for k, v in tower.items()}, clip(), torch.bfloat16)
    dump(out / "config.json", original_config(text, mm_projector_type="mlp3x_gelu", unfreeze_mm_vision_tower=True))


def case_lora_on_base(out, seed):
    """What the original LoRA script leaves: adapter, non_lora_trainables.bin, config; base and tower in folders beside."""
    text = hf.LlamaConfig(**text_args())
    model = llava(text, clip(), seed, torch.float32, vision_feature_layer=-2, vision_feature_select_strategy="default")
    base, tower = original_names(model.state_dict())
    (out / "base").mkdir()
    save_file({k: v.contiguous().clone() for k, v in base.items() if "mm_projector" not in k}, out / "base/model.safetensors", {"format": "pt"})
    dump(out / "base/config.json", {**text.to_dict(), "architectures": ["LlamaForCausalLM"]})
    tower_folder(out / "tower", tower, clip(), torch.float32)
    rank, alpha, adapter = 4, 6, {}
    g = torch.Generator().manual_seed(seed + 1)
    for i, layer in enumerate(model.model.language_model.layers):
        for block, names in (("self_attn", "qkvo"), ("mlp", ("gate", "up", "down"))):
            for n in names:
                linear = getattr(getattr(layer, block), f"{n}_proj")
                a, b = torch.randn(rank, linear.in_features, generator=g) * 0.2, torch.randn(linear.out_features, rank, generator=g) * 0.2
                key = f"base_model.model.model.layers.{i}.{block}.{n}_proj.lora_"
                adapter[key + "A.weight"], adapter[key + "B.weight"] = a, b
                linear.weight.data += alpha / rank * (b @ a)
    save_file(adapter, out / "adapter_model.safetensors", {"format": "pt"})
    dump(out / "adapter_config.json", dict(peft_type="LORA", task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=0.05, bias="none", base_model_name_or_path="base",
                                           target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
    torch.save({"base_model.model." + k: v.half() for k, v in base.items() if "mm_projector" in k}, out / "non_lora_trainables.bin")
    for p in model.model.multi_modal_projector.parameters():
        p.data = p.data.half().float()
    dump(out / "config.json", original_config(text))
    save_results(out, run_llava(model, seed, -200))


def case_projector_on_base(out, seed):
    """What a pretraining stage leaves: config.json and mm_projector.bin; the language model is another folder."""
    text = hf.LlamaConfig(**text_args())
    model = llava(text, clip(), seed, torch.float16, vision_feature_layer=-2, vision_feature_select_strategy="default")
    lm, tower = original_names(model.state_dict())
    (out / "base").mkdir()
    save_file({k: v.half().contiguous() for k, v in lm.items() if "mm_projector" not in k}, out / "base/model.safetensors", {"format": "pt"})
    dump(out / "base/config.json", {**text.to_dict(), "architectures": ["LlamaForCausalLM"]})
    tower_folder(out / "tower", tower, clip(), torch.float16)
    torch.save({k: v.half() for k, v in lm.items() if "mm_projector" in k}, out / "mm_projector.bin")
    dump(out / "config.json", original_config(text))
    save_results(out, run_llava(model, seed, -200))


def save_text(out, model, seed, dtype, name):
    save_results(out, run_text(stored_as(randomize(model, seed), dtype), seed))
    model.to(dtype).save_pretrained(out)


def case_qwen2_window(out, seed):
    """Qwen2 whose first layer sees everything and whose others see 8 tokens."""
    c = hf.Qwen2Config(**text_args(num_hidden_layers=3, use_sliding_window=True, sliding_window=8, max_window_layers=1))
    save_text(out, hf.Qwen2ForCausalLM(c), seed, torch.float16, "qwen2")


def case_llama_biases_yarn(out, seed):
    """Llama with all biases, a head width of its own, and yarn with mscale."""
    rope = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.8, mscale_all_dim=0.5, beta_fast=16, beta_slow=2)
    c = hf.LlamaConfig(**text_args(attention_bias=True, mlp_bias=True, head_dim=12, rope_scaling=rope, max_position_embeddings=64))
    save_text(out, hf.LlamaForCausalLM(c), seed, torch.float32, "llama")


def case_gguf_llama(out, seed):
    """The same maths from llama.cpp's names and row order (q and k interleaved for its rotary layout), F16."""
    import gguf

    model = stored_as(randomize(hf.LlamaForCausalLM(hf.LlamaConfig(**text_args())), seed), torch.float16)
    save_results(out, run_text(model, seed))
    w = gguf.GGUFWriter(out / "model.gguf", "llama")
    w.add_context_length(256), w.add_embedding_length(WIDTH), w.add_block_count(LAYERS), w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS), w.add_head_count_kv(KV), w.add_layer_norm_rms_eps(1e-5), w.add_rope_freq_base(10000.0), w.add_rope_dimension_count(WIDTH // HEADS)
    w.add_tokenizer_model("gpt2"), w.add_tokenizer_pre("default")
    w.add_token_list([chr(c) for c in range(33, 127)] + ["ab", "<x>"]), w.add_token_merges(["a b"])
    w.add_token_types([1] * VOCAB), w.add_bos_token_id(1), w.add_eos_token_id(2)
    names = dict(zip(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm",
                      "post_attention_layernorm"), ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm", "ffn_norm")))
    for k, v in model.state_dict().items():
        x = v.numpy().astype(np.float32 if v.dim() == 1 else np.float16)
        if k.startswith("model.layers."):
            i, rest = k.removeprefix("model.layers.").split(".", 1)
            for n, heads in (("q_proj", HEADS), ("k_proj", KV)):
                if n in rest:
                    x = x.reshape(heads, 2, x.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(x.shape)
            name = f"blk.{i}.{names[rest.removesuffix('.weight')]}.weight"
        else:
            name = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}[k]
        w.add_tensor(name, np.ascontiguousarray(x))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


def case_dinov2_vision(out, seed):
    """DINOv2 whose 4 x 4 position grid is resampled to 3 x 3 and to 6 x 6."""
    c = hf.Dinov2Config(hidden_size=V_WIDTH, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=56, patch_size=14)
    model = stored_as(randomize(hf.Dinov2Model(c), seed), torch.float32)
    values = {}
    for side in (42, 56, 84):
        px = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(side))
        with torch.no_grad():
            o = model(px, output_hidden_states=True)
        values.update({f"side{side}/pixel_values": px, f"side{side}/hidden_states": torch.cat(o.hidden_states), f"side{side}/last_hidden_state": o.last_hidden_state})
    save_file({k: v.contiguous() for k, v in values.items()}, out / "reference.safetensors")
    model.save_pretrained(out)
    hf.BitImageProcessor(size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
                         resample=3, do_convert_rgb=True).save_pretrained(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--only", nargs="*", help="these cases")
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, make in sorted((k.removeprefix("case_"), v) for k, v in globals().items() if k.startswith("case_")):
        if a.only and name not in a.only:
            continue
        out = a.out / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        make(out, a.seed)
        print(f"{name:26s} {sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 1e3:7.0f} kB", flush=True)


if __name__ == "__main__":
    main()
