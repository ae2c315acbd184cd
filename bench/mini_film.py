#!/usr/bin/env python3
"""Peak memory of LLaVA-Mini on a film of three hours against one of a minute (needs PyAV, numpy).

    python3 bench/mini_film.py --llava build/llava

Two synthetic films of one frame a second go through the toy checkpoint tests/golden/mini/mini_one (positions raised so that 10,800
tokens fit). Keys, values and kept tokens, which must grow with the film, are subtracted from the difference of the peaks.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def write_film(path: Path, seconds: int) -> None:
    """A film of one 64 x 48 frame a second whose colours drift."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        rows, columns = np.mgrid[0:48, 0:64]
        for i in range(seconds):
            pixels = np.stack([(rows * 5 + i) % 256, (columns * 4 + 2 * i) % 256, np.full((48, 64), i % 256)], -1).astype(np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        film.mux(stream.encode())


def toy_checkpoint(folder: Path) -> None:
    shutil.copytree(ROOT / "tests/golden/mini/mini_one", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 131072
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def peak_bytes(command: list[str]) -> tuple[int, float]:
    """Peak resident memory and seconds of a command, which must succeed."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"mini_film: {' '.join(command)} failed")
    return usage.ru_maxrss * 1024, time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llava", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "mini"
        toy_checkpoint(model)
        peaks = {}
        for name, seconds in (("1 min", 60), ("3 h", 10800)):
            film = Path(scratch) / f"{seconds}.mp4"
            write_film(film, seconds)
            command = [str(args.llava), "chat", "--model", str(model), "--chat-format", "llava_llama_3", "--video", str(film),
                       "--max-new-tokens", "4", "What happens?"]
            peaks[name], taken = peak_bytes(command)
            print(f"{name}: {seconds} frames, peak {peaks[name] / 1e6:.1f} MB, {taken:.1f} s")
        grown = (10800 - 60) * (2 * 2 * 2 * 8 + 32) * 4  # keys and values of two layers with two heads of 8, and 32 wide tokens
        print(f"growth without keys, values and kept tokens: {(peaks['3 h'] - peaks['1 min'] - grown) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
