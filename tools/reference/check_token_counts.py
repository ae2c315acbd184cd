#!/usr/bin/env python3
"""Token counts of `llava inspect image --size` against the rules of specification 1.4 and 1.6, written out here on their own, for random
sizes and six policies.

  check_token_counts.py --llava build/llava [--count 10000] [--seed 0] [--transformers]

Policies: no tiles (1.5), LLaVA-NeXT's pinpoints, OneVision's, and three mixtures of pinpoint lists and caps through checkpoints that
this script writes (config.json and preprocessor_config.json only). --transformers checks the rules written here against its processors
(transformers 4.57.6), for all policies with tiles.
"""
import argparse, json, math, pathlib, random, subprocess, sys, tempfile, types


def best(size, pins):
    """(w, h) of the original code; sizes and pins are (w, h)."""
    ow, oh = size
    found, kept, waste = None, 0, math.inf
    for w, h in pins:
        scale = min(w / ow, h / oh)
        use = min(int(ow * scale) * int(oh * scale), ow * oh)
        if use > kept or (use == kept and w * h - use < waste):
            found, kept, waste = (w, h), use, w * h - use
    return found


def tokens(size, pins, side, grid, cap):
    if not pins:
        return grid * grid
    w, h = best(size, pins)
    columns, rows = w // side * grid, h // side * grid
    ow, oh = size
    if ow / oh > columns / rows:
        new = int(round(oh * (columns / ow), 7))
        rows -= (rows - new) // 2 * 2
    else:
        new = int(round(ow * (rows / oh), 7))
        columns -= (columns - new) // 2 * 2
    if cap:
        times = math.sqrt(rows * columns / (cap * grid * grid))
        if times > 1.1:
            rows, columns = int(rows // times), int(columns // times)
    return grid * grid + rows * (columns + 1)


NEXT = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
ONEVISION = [(i * 384, j * 384) for i in range(1, 7) for j in range(1, 7)]
POLICIES = {  # name: recipe, pinpoints (w, h), view side, grid side, cap; recipe None: a config of its own
    "1.5": ("llava-1.5-7b", None, 336, 24, 0),
    "next": ("llava-next-vicuna-7b", NEXT, 336, 24, 0),
    "onevision": ("llava-onevision-7b", ONEVISION, 384, 27, 9),
    "next 3x3": (None, [(i * 336, j * 336) for i in range(1, 4) for j in range(1, 4)], 336, 24, 0),
    "next 3x3, height first": (None, [(i * 336, j * 336) for j in range(1, 4) for i in range(1, 4)], 336, 24, 0),
    "next 6x6, max 4": (None, [(i * 336, j * 336) for i in range(1, 7) for j in range(1, 7)], 336, 24, 4),
}


def checkpoint(folder, pins, cap):
    """An original-layout folder without weights is refused, so llava-hf's: llava_next, or llava_onevision for a cap."""
    text = dict(model_type="llama", hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=32064)
    vision = dict(model_type="clip_vision_model", hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=336, patch_size=14)
    heights = [[h, w] for w, h in pins]
    config = dict(model_type="llava_onevision" if cap else "llava_next", text_config=text, vision_config=vision, image_grid_pinpoints=heights,
                  vision_feature_layer=-2, vision_feature_select_strategy="default")
    if cap:
        config["vision_aspect_ratio"] = f"anyres_max_{cap}"
    processor = dict(image_processor_type="LlavaNextImageProcessor", image_grid_pinpoints=heights, size={"shortest_edge": 336},
                     crop_size={"height": 336, "width": 336})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def of_transformers(size, pins, side, grid, cap):
    """The same count by LlavaNextProcessor or LlavaOnevisionProcessor."""
    from transformers import LlavaNextProcessor, LlavaOnevisionProcessor
    kind = LlavaOnevisionProcessor if cap else LlavaNextProcessor
    processor = kind.__new__(kind)
    processor.image_processor = types.SimpleNamespace(image_grid_pinpoints=[[h, w] for w, h in pins])
    processor.patch_size, processor.num_additional_image_tokens, processor.vision_feature_select_strategy = side // grid, 1, "default"
    processor.num_image_tokens, processor.vision_aspect_ratio = grid * grid, f"anyres_max_{cap}"
    if cap:
        processor.vision_feature_select_strategy = "full"
    w, h = size
    return processor._get_number_of_features(h, w, side, side) - (0 if cap else 1)  # "default" drops the class token in __call__


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--llava", required=True)
    ap.add_argument("--transformers", action="store_true")
    ap.add_argument("--count", type=int, default=10000)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    rng = random.Random(a.seed)
    sizes = [(rng.randint(1, 400), rng.randint(1, 400)) if i % 4 == 0 else (rng.randint(1, 5000), rng.randint(1, 5000)) for i in range(a.count)]
    worst = 0
    for name, (recipe, pins, side, grid, cap) in POLICIES.items():
        with tempfile.TemporaryDirectory() as folder:
            model = f"random:{recipe}"
            if recipe is None:
                model = folder
                checkpoint(pathlib.Path(folder), pins, cap)
            out = subprocess.run([a.llava, "inspect", "image", "--model", model, "--size", "-"], input="\n".join(f"{w}x{h}" for w, h in sizes),
                                 capture_output=True, text=True)
        if out.returncode:
            sys.exit(f"{name}: {out.stderr}")
        found = [json.loads(line)["tokens"] for line in out.stdout.splitlines()]
        if a.transformers and pins:
            other = [(s, e, t) for s in sizes if (e := tokens(s, pins, side, grid, cap)) != (t := of_transformers(s, pins, side, grid, cap))]
            print(f"{name:24s} rules here against transformers: {len(other)} different {other[:3] if other else ''}")
        wrong = [(s, f, e) for s, f in zip(sizes, found) if f != (e := tokens(s, pins, side, grid, cap))]
        worst = max(worst, len(wrong))
        print(f"{name:24s} {len(found)} sizes, {len(wrong)} different {wrong[:3] if wrong else ''}")
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
