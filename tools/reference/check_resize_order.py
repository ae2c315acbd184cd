"""Finds out in which order Pillow resizes the two axes, and checks the rule in src/vision/resample.cpp (vertical_first).

  check_resize_order.py [--cases 2500]

Images of 0 and 255 only make the order visible: bytes are clipped between the passes. Prints, per filter, the cases where the order
could be told and those that break the rule. Pillow 13.0.0: none of them; 11.3 and 12.0 go along x first always.
"""
import argparse

import numpy as np
import PIL
from PIL import Image

ap = argparse.ArgumentParser()
ap.add_argument("--cases", type=int, default=2500)
cases = ap.parse_args().cases
rng = np.random.default_rng(0)
print("Pillow", PIL.__version__)
for f in (Image.LANCZOS, Image.BILINEAR, Image.BICUBIC, Image.HAMMING):
    told = broken = 0
    for _ in range(cases):
        w, h, ow, oh = (int(v) for v in rng.integers(4, 200, 4))
        im = Image.fromarray((rng.integers(0, 2, (h, w, 3)) * 255).astype(np.uint8))
        whole = np.asarray(im.resize((ow, oh), f))
        x_first = np.array_equal(whole, np.asarray(im.resize((ow, h), f).resize((ow, oh), f)))
        y_first = np.array_equal(whole, np.asarray(im.resize((w, oh), f).resize((ow, oh), f)))
        if x_first == y_first:
            assert x_first, "neither order"
            continue
        told += 1
        broken += y_first != (oh < h and h - oh > 2 * (w - ow))
    print(f"filter {int(f)}: {told} told, {broken} break the rule")
