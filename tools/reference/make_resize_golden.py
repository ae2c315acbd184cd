"""Resize and preprocessing goldens: Pillow's filters on odd sizes, and the slow image processors of transformers.

  make_resize_golden.py [--out tests/golden/vision]

Writes resize.safetensors (source/<name> and <filter>/<name>/<width>x<height>, uint8 HWC) and policies.safetensors (<case>, float32 CHW,
of the image source/<...> named in policies.json beside the processor's own to_dict()). Made with Pillow 13.0.0, transformers 4.57.6.
"""
import argparse, json, pathlib

import numpy as np
import transformers as hf
from PIL import Image
from safetensors.numpy import save_file

FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
SOURCES = {"wide": (61, 23), "tall": (17, 50), "row": (37, 1), "column": (1, 29), "dot": (1, 1), "long": (400, 2)}
TARGETS = {"wide": [(13, 17), (61, 40), (20, 23), (100, 7), (1, 1)], "tall": [(40, 21), (5, 90)], "row": [(11, 9), (80, 1)], "column": [(7, 5)],
           "dot": [(6, 4)], "long": [(3, 9)]}
IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


def hw(h, w):
    return dict(height=h, width=w)


def policies():
    clip, llava = hf.CLIPImageProcessor, hf.models.llava.image_processing_llava.LlavaImageProcessor
    return {
        "clip": ("wide", clip(size=dict(shortest_edge=18), crop_size=hw(18, 18))),
        "clip_tall": ("tall", clip(size=dict(shortest_edge=19), crop_size=hw(18, 16))),
        "clip_crop_beyond": ("wide", clip(size=dict(shortest_edge=12), crop_size=hw(19, 20))),
        "clip_crop_beyond_odd": ("tall", clip(size=dict(shortest_edge=11), crop_size=hw(20, 22))),
        "clip_no_resize": ("wide", clip(do_resize=False, crop_size=hw(25, 15))),
        "clip_no_crop": ("wide", clip(size=hw(14, 15), do_center_crop=False)),
        "clip_no_rescale": ("tall", clip(size=dict(shortest_edge=10), crop_size=hw(10, 10), do_rescale=False)),
        "clip_no_normalize": ("tall", clip(size=dict(shortest_edge=10), crop_size=hw(10, 10), do_normalize=False)),
        "clip_raw": ("tall", clip(size=dict(shortest_edge=10), crop_size=hw(10, 10), do_normalize=False, do_rescale=False)),
        "clip_lanczos": ("wide", clip(size=dict(shortest_edge=14), crop_size=hw(14, 14), resample=1, image_mean=0.4, image_std=0.3)),
        "clip_factor": ("wide", clip(size=dict(shortest_edge=10), crop_size=hw(10, 10), rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3)),
        "llava_pad": ("wide", llava(do_pad=True, size=dict(shortest_edge=16), crop_size=hw(16, 16))),
        "llava_pad_tall": ("tall", llava(do_pad=True, size=dict(shortest_edge=17), crop_size=hw(17, 17), **IMAGENET)),
        "llava_pad_long": ("long", llava(do_pad=True, size=dict(shortest_edge=16), crop_size=hw(16, 16))),
        "llava_no_pad": ("wide", llava(size=dict(shortest_edge=16), crop_size=hw(16, 16))),
        "siglip": ("wide", hf.SiglipImageProcessor(size=hw(16, 20))),
        "siglip_column": ("column", hf.SiglipImageProcessor(size=hw(16, 16))),
        "dinov2": ("wide", hf.BitImageProcessor(size=dict(shortest_edge=20), crop_size=hw(16, 16), **IMAGENET)),
        "dinov2_squash": ("tall", hf.BitImageProcessor(size=hw(18, 18), do_center_crop=False, **IMAGENET)),
        "vit": ("tall", hf.ViTImageProcessor(size=hw(17, 18))),
    }


def defaults():
    classes = [hf.CLIPImageProcessor, hf.SiglipImageProcessor, hf.BitImageProcessor, hf.ViTImageProcessor,
               hf.models.llava.image_processing_llava.LlavaImageProcessor]
    return {c.__name__: c().to_dict() for c in classes}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2] / "tests/golden/vision")
    out = ap.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = {}
    for name, (w, h) in SOURCES.items():
        a = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
        a[: h // 3] = np.where(a[: h // 3] > 127, 255, 0)  # overshoot is clipped
        images[name] = Image.fromarray(a)
    t = {f"source/{n}": np.asarray(i) for n, i in images.items()}
    for f, code in FILTERS.items():
        for n, sizes in TARGETS.items():
            for s in sizes:
                t[f"{f}/{n}/{s[0]}x{s[1]}"] = np.asarray(images[n].resize(s, code))
    save_file({k: np.ascontiguousarray(v) for k, v in t.items()}, out / "resize.safetensors")
    results, cases = {}, {}
    for case, (n, proc) in policies().items():
        results[case] = np.ascontiguousarray(proc(images[n], input_data_format="channels_last", return_tensors="np")["pixel_values"][0], dtype=np.float32)
        cases[case] = dict(image=n, config=proc.to_dict())
    save_file(results, out / "policies.safetensors")
    (out / "policies.json").write_text(json.dumps(dict(cases=cases, defaults=defaults()), indent=1) + "\n")


main()
