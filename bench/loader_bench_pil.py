#!/usr/bin/env python3
"""Our image loading against Pillow + numpy on the same files, in turns in one run.

  loader_bench_pil.py --photos DIR --bench build/bench/loader_bench [--rounds 3] [--seconds 8] [--policy crop|pad]

Makes 640x480 JPEG files (quality 90, four photos of DIR on each, so that they are as detailed as camera files of that
size), checks that both give the same pixels, and measures both with two workers: threads here, processes for Pillow
(threads, too; the faster counts). Prints one JSON line with images/s and the ratio. Needs: pip install pillow numpy.
"""
import argparse, json, math, multiprocessing, os, pathlib, subprocess, tempfile, threading, time

import numpy
import PIL
from PIL import Image, features

MEAN = numpy.array([0.48145466, 0.4578275, 0.40821073])
STD = numpy.array([0.26862954, 0.26130258, 0.27577711])
SIDE = 336


def make_files(photos, folder, count):
    """`count` mosaics of 2 x 2 photos, each 320 x 240."""
    names = sorted(p for p in pathlib.Path(photos).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[: 4 * count]
    assert len(names) == 4 * count, f"{photos}: {4 * count} photos are needed"
    files = []
    for i in range(count):
        page = Image.new("RGB", (640, 480))
        for j in range(4):
            photo = Image.open(names[4 * i + j]).convert("RGB").resize((320, 240), Image.LANCZOS)
            page.paste(photo, (320 * (j % 2), 240 * (j // 2)))
        files.append(str(folder / f"{i:03d}.jpg"))
        page.save(files[-1], quality=90)
    return files


def geometry(image, policy):
    """CLIP's processor: shortest edge to 336 and the middle of it; pad: LLaVA-1.5's square in the mean colour first."""
    if policy == "pad" and image.width != image.height:
        side = max(image.size)
        page = Image.new("RGB", (side, side), tuple(int(m * 255) for m in MEAN))
        page.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = page
    short, long = min(image.size), max(image.size)
    long = int(SIDE * long / short)
    image = image.resize((SIDE, long) if image.width <= image.height else (long, SIDE), Image.BICUBIC)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return image.crop((left, top, left + SIDE, top + SIDE))


def exact(path, policy):
    """As transformers' slow CLIP processor: scaled in double, then float32."""
    pixels = numpy.asarray(geometry(Image.open(path).convert("RGB"), policy))
    scaled = (pixels.astype(numpy.float64) * (1 / 255)).astype(numpy.float32)
    normal = (scaled - MEAN.astype(numpy.float32)) / STD.astype(numpy.float32)
    return numpy.ascontiguousarray(normal.transpose(2, 0, 1))


FACTOR = (1 / (255 * STD)).astype(numpy.float32)
SHIFT = (-MEAN / STD).astype(numpy.float32)


def fast(path, policy):
    """The quickest way found: two passes in float32, then one copy to channels first."""
    pixels = numpy.asarray(geometry(Image.open(path).convert("RGB"), policy), dtype=numpy.float32)
    return numpy.ascontiguousarray((pixels * FACTOR + SHIFT).transpose(2, 0, 1))


def work(files, policy, end, counts, slot):
    i = slot
    while time.monotonic() < end:
        fast(files[i % len(files)], policy)
        counts[slot] += 1
        i += 2


def rate(kind, files, policy, seconds):
    start = time.monotonic()
    counts = multiprocessing.Array("q", 2, lock=False)
    make = multiprocessing.Process if kind == "processes" else threading.Thread
    workers = [make(target=work, args=(files, policy, start + seconds, counts, slot)) for slot in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.monotonic() - start)


def check_pixels(bench, files, policy, folder):
    dump = folder / "pixels.bin"
    subprocess.run([bench, "--policy", policy, "--seconds", "0", "--dump", str(dump), *files], check=True, stdout=subprocess.DEVNULL)
    ours = numpy.fromfile(dump, numpy.float32).reshape(len(files), 3, SIDE, SIDE)
    for file, pixels in zip(files, ours):
        theirs = exact(file, policy)
        if not numpy.array_equal(pixels, theirs):
            raise SystemExit(f"{file}: pixels differ by up to {numpy.abs(pixels - theirs).max()}")
    return len(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--policy", choices=["crop", "pad"], default="crop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--files", type=int, default=48)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = make_files(args.photos, folder, args.files)
        same = check_pixels(args.bench, files, args.policy, folder)
        ours, theirs = [], []
        for _ in range(args.rounds):
            out = subprocess.run([args.bench, "--policy", args.policy, "--seconds", str(args.seconds), *files], check=True, capture_output=True)
            ours.append(json.loads(out.stdout)["images_per_second"])
            theirs.append(max(rate(kind, files, args.policy, args.seconds / 2) for kind in ("threads", "processes")))
        median = lambda values: sorted(values)[len(values) // 2]
        print(json.dumps({
            "policy": args.policy, "files": len(files), "bytes_per_file": sum(map(os.path.getsize, files)) // len(files),
            "pixels_equal_files": same, "ours_images_per_second": round(median(ours), 1),
            "pil_images_per_second": round(median(theirs), 1), "ratio": round(median(ours) / median(theirs), 2),
            "ours": [round(x, 1) for x in ours], "pil": [round(x, 1) for x in theirs],
            "pillow": PIL.__version__, "libjpeg": features.version("jpg"), "numpy": numpy.__version__}))


if __name__ == "__main__":
    main()
