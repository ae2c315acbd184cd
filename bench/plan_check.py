#!/usr/bin/env python3
"""Compares the memory that `llava train --plan` predicts with what `llava train` takes, for five recipes on a CPU.

  plan_check.py --llava BUILD/llava [--work DIR] [--steps 4] [--threads 2] [--only full_float32,lora_bfloat16] [--keep]

The model has SmolLM2-135M's shapes with a CLIP ViT-B/16-224 tower and random weights; its tokenizer and processor are the
tiny golden's (tests/golden), the photos are noise. Needs numpy. Measured: the highest `peak_memory_bytes` of
metrics.jsonl (resident memory, mapped weight files included). One JSON line a recipe, then a table.
"""
import argparse, json, os, pathlib, random, shutil, struct, subprocess, sys, tempfile, zlib

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden/checkpoints/llava15"
LAYERS, WIDTH, FFN, HEADS, KV, HEAD_DIM, VOCABULARY = 30, 576, 1536, 9, 3, 64, 49152
TOWER_LAYERS, TOWER_WIDTH, TOWER_FFN, PATCH, SIDE = 12, 768, 3072, 16, 224
WORDS = "red cat on a chair the dog in blue house what is it and one two small box man tree".split()


def shapes():
    """Names of llava-hf and their shapes."""
    tower = "vision_tower.vision_model."
    yield tower + "embeddings.class_embedding", (TOWER_WIDTH,)
    yield tower + "embeddings.patch_embedding.weight", (TOWER_WIDTH, 3, PATCH, PATCH)
    yield tower + "embeddings.position_embedding.weight", ((SIDE // PATCH) ** 2 + 1, TOWER_WIDTH)
    norms = ["pre_layrnorm", "post_layernorm"]
    for i in range(TOWER_LAYERS):
        layer = f"encoder.layers.{i}."
        norms += [layer + "layer_norm1", layer + "layer_norm2"]
        sizes = {f"self_attn.{p}_proj": (TOWER_WIDTH, TOWER_WIDTH) for p in ("q", "k", "v", "out")}
        sizes |= {"mlp.fc1": (TOWER_FFN, TOWER_WIDTH), "mlp.fc2": (TOWER_WIDTH, TOWER_FFN)}
        for name, shape in sizes.items():
            yield f"{tower}{layer}{name}.weight", shape
            yield f"{tower}{layer}{name}.bias", shape[:1]
    for norm in norms:
        yield f"{tower}{norm}.weight", (TOWER_WIDTH,)
        yield f"{tower}{norm}.bias", (TOWER_WIDTH,)
    for name, inside in (("linear_1", TOWER_WIDTH), ("linear_2", WIDTH)):
        yield f"multi_modal_projector.{name}.weight", (WIDTH, inside)
        yield f"multi_modal_projector.{name}.bias", (WIDTH,)
    yield "language_model.model.embed_tokens.weight", (VOCABULARY, WIDTH)
    for i in range(LAYERS):
        layer = f"language_model.model.layers.{i}."
        for name, out, inside in (("self_attn.q_proj", HEADS * HEAD_DIM, WIDTH), ("self_attn.k_proj", KV * HEAD_DIM, WIDTH),
                                  ("self_attn.v_proj", KV * HEAD_DIM, WIDTH), ("self_attn.o_proj", WIDTH, HEADS * HEAD_DIM),
                                  ("mlp.gate_proj", FFN, WIDTH), ("mlp.up_proj", FFN, WIDTH), ("mlp.down_proj", WIDTH, FFN)):
            yield f"{layer}{name}.weight", (out, inside)
        yield layer + "input_layernorm.weight", (WIDTH,)
        yield layer + "post_attention_layernorm.weight", (WIDTH,)
    yield "language_model.model.norm.weight", (WIDTH,)


def make_model(folder, dtype):
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                 "generation_config.json", "chat_template.jinja"):
        shutil.copy(GOLDEN / name, folder / name)
    config = json.loads((GOLDEN / "config.json").read_text())
    config.update(image_seq_length=(SIDE // PATCH) ** 2, tie_word_embeddings=True, vision_feature_layer=-1, dtype=dtype)
    config["text_config"].update(head_dim=HEAD_DIM, hidden_size=WIDTH, intermediate_size=FFN, num_attention_heads=HEADS,
                                 num_hidden_layers=LAYERS, num_key_value_heads=KV, vocab_size=VOCABULARY, rope_theta=100000.0,
                                 max_position_embeddings=8192, tie_word_embeddings=True)
    config["vision_config"].update(hidden_size=TOWER_WIDTH, image_size=SIDE, intermediate_size=TOWER_FFN, patch_size=PATCH,
                                   num_attention_heads=12, num_hidden_layers=TOWER_LAYERS, projection_dim=512)
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((GOLDEN / "preprocessor_config.json").read_text())
    processor.update(crop_size={"height": SIDE, "width": SIDE}, size={"shortest_edge": SIDE})
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    processor = json.loads((GOLDEN / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps(processor | {"patch_size": PATCH}))
    write_weights(folder / "model.safetensors", dtype)


def write_weights(path, dtype):
    code, size = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}[dtype]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes():
        begin, end = end, end + size * int(numpy.prod(shape))
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = numpy.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes():
            fan_in = numpy.prod(shape[1:]) if len(shape) > 1 else 100
            values = rng.standard_normal(shape, dtype=numpy.float32) * (0.25 if "embed_tokens" in name else float(fan_in) ** -0.5)
            if len(shape) == 1 and name.endswith("weight"):
                values += 1
            file.write(values.tobytes() if code == "F32" else (values.view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes())


def write_png(path, side, rng):
    rows = b"".join(b"\0" + rng.randbytes(3 * side) for _ in range(side))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def make_data(folder, records, words):
    """Questions of 20 words, answers of about `words`."""
    folder.mkdir()
    rng, rows = random.Random(0), []
    for i in range(records):
        write_png(folder / f"{i}.png", 256, rng)
        answer = " ".join(rng.choice(WORDS) for _ in range(int(words * rng.uniform(0.7, 1.3))))
        question = "<image>\n" + " ".join(rng.choice(WORDS) for _ in range(20))
        rows.append({"id": str(i), "image": f"{i}.png", "conversations": [{"from": "human", "value": question},
                                                                         {"from": "gpt", "value": answer}]})
    (folder / "data.json").write_text(json.dumps(rows))
    return str(folder / "data.json")


ALL = ["^mm_projector\\.", "^language_model\\."]
LORA = {"r": 16, "lora_alpha": 32, "target": "(q|k|v|o|gate|up|down)_proj"}
RECIPES = {
    "full_float32": ("float32", {}, {"train": ALL, "batch_size": 4, "dtype": "float32", "feature_cache": "off"}),
    "lora_bfloat16": ("bfloat16", {}, {"train": ["^mm_projector\\."], "lora": LORA, "batch_size": 4, "dtype": "bfloat16",
                                       "feature_cache": "off"}),
    "qlora": ("bfloat16", {"quantization": {"load_in_4bit": True, "bnb_4bit_use_double_quant": True}},
              {"train": ["^mm_projector\\."], "lora": LORA | {"dropout": 0.05}, "batch_size": 4, "dtype": "bfloat16",
               "feature_cache": "off"}),
    "checkpointing": ("bfloat16", {}, {"train": ALL, "batch_size": 8, "grad_accum": 2, "dtype": "bfloat16",
                                       "gradient_checkpointing": True, "feature_cache": "off",
                                       "optim": {"name": "adamw_8bit"}}),
    "packed_cached": ("float32", {"save_steps": 1}, {"train": ["^mm_projector\\."], "lora": LORA, "batch_size": 8,
                                                     "dtype": "float32", "packing": True, "packing_length": 1400}),
}


def run(llava, arguments, threads):
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="passive")
    result = subprocess.run([llava, "train", "--threads", str(threads), *arguments], env=env, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"llava train {' '.join(arguments)}: {result.stderr}")
    return result.stdout


def check(llava, work, name, steps, threads, data):
    stored, top, stage = RECIPES[name]
    model = work / f"model-{stored}"
    if not model.exists():
        make_model(model, stored)
    output = work / name
    config = {"model": str(model), "output": str(output), "save_steps": 0, "tensorboard": False, **top,
              "stages": [{"data": [{"path": data}], "template": "user_assistant", "tokenisation": "segments",
                          "max_steps": steps, "lr": 1e-4, **stage}]}
    path = work / f"{name}.json"
    path.write_text(json.dumps(config))
    plan = json.loads(run(llava, ["--config", str(path), "--plan", "--json"], threads))
    run(llava, ["--config", str(path)], threads)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    measured = max(line["peak_memory_bytes"] for line in lines)
    row = {"recipe": name, "predicted": plan["predicted_peak_bytes"], "measured": measured,
           "ratio": plan["predicted_peak_bytes"] / measured, "by_kind": plan["predicted_bytes"]}
    shutil.rmtree(output)
    print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llava", required=True)
    parser.add_argument("--work")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(RECIPES))
    parser.add_argument("--keep", action="store_true", help="leave models and data in --work")
    a = parser.parse_args()
    work = pathlib.Path(a.work or tempfile.mkdtemp(prefix="plan-check-"))
    work.mkdir(parents=True, exist_ok=True)
    data = str(work / "data/data.json") if (work / "data").exists() else make_data(work / "data", 64, 80)
    rows = [check(a.llava, work, name, a.steps, a.threads, data) for name in a.only.split(",")]
    if not a.keep:
        shutil.rmtree(work)
    for r in rows:
        print(f"{r['recipe']:15} predicted {r['predicted'] / 2**20:7.0f} MiB, measured {r['measured'] / 2**20:7.0f} MiB, "
              f"ratio {r['ratio']:.3f}")
    sys.exit(any(abs(r["ratio"] - 1) > 0.1 for r in rows))


main()
