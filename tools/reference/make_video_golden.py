#!/usr/bin/env python3
"""Tiny films and what PyAV decodes of them, for tests/unit/vision/video_test.cpp.

  make_video_golden.py --out tests/golden/video

Films: constant rate, variable rate (times in the container jump), rotated by its display matrix, one frame, ten minutes, H.264 with
frames that are stored out of order at 30000/1001 a second, sound only (a container we do not take, one we do), damaged in the
middle, cut off. video.json holds, for each, the number of frames, the average rate, the size upright, and for some
frames the SHA-256 of the RGB pixels (PyAV's rgb24, bilinear chroma). The sampling rule is written out again here, from specification 1.5.1,
with numpy. Needs av, numpy.
"""
import argparse, hashlib, json, math, pathlib
from fractions import Fraction

import av
import numpy as np


def picture(i, width, height):
    """A pattern that moves; every frame differs."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * 4 + i * 7) % 256, (y * 5 + i * 3) % 256, (x * y // 8 + i * 11) % 256], -1).astype(np.uint8)


def write(path, frames, fps, size=(64, 48), codec="mpeg4", times=None, rotate=None, options=None):
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {"qscale": "8", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    if rotate:
        set_rotation(path, rotate)


def set_rotation(path, degrees):
    """Writes the display matrix into the mp4's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of fields
    c, s = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    one = 0x10000
    for k, v in enumerate((c * one, s * one, 0, -s * one, c * one, 0, 0, 0, 0x40000000)):
        data[at + 4 * k:at + 4 * k + 4] = (v & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)


def sound(path, codec="pcm_s16le", kind=("s16", np.int16)):
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), kind[1]), format=kind[0], layout="mono")
        frame.sample_rate = 8000
        for packet in stream.encode(frame):
            out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def damage(path, begin, end, to=None):
    """Noise over a fifth of what is between two marks, in its middle."""
    data = bytearray(path.read_bytes())
    first, last = data.index(begin), data.index(end)
    middle, length = (first + last) // 2, (last - first) // 5
    data[middle:middle + length] = np.random.default_rng(7).bytes(length)
    (to or path).write_bytes(data)


def pick(total, fps, video_fps, upbound, force):
    """Specification 1.5.1."""
    step = round(fps / video_fps)
    idx = list(range(0, total, step))
    times = [i / step for i in idx]
    if upbound > 0 and (len(idx) > upbound or force):
        idx = np.linspace(0, total - 1, upbound, dtype=int).tolist()
        times = [i / fps for i in idx]
    return dict(fps=video_fps, max_frames=upbound, force=force, indices=idx, times=times, duration=total / fps)


def describe(path):
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        rate = float(stream.average_rate)
        frames, turn = [], 0
        for frame in film.decode(stream):
            turn = int(getattr(frame, "rotation", 0))
            frames.append(frame.to_ndarray(format="rgb24"))
    if turn:
        frames = [np.rot90(f, turn // 90).copy() for f in frames]  # rotation: counterclockwise degrees
    keep = sorted({0, 1, len(frames) // 2, len(frames) - 1} & set(range(len(frames))))
    return dict(frames=len(frames), fps=rate, width=frames[0].shape[1], height=frames[0].shape[0],
                sha256={str(i): hashlib.sha256(frames[i].tobytes()).hexdigest() for i in keep})


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    out = ap.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    write(out / "constant.mp4", 50, 10)
    jumps = np.cumsum([0] + [40 if i % 3 else 200 for i in range(29)]).tolist()
    write(out / "variable.mkv", 30, 25, times=jumps)
    write(out / "rotated.mp4", 12, 5, rotate=90)
    write(out / "one.avi", 1, 25)
    write(out / "long.mp4", 1200, 2, size=(32, 24), options={"qscale": "31", "g": "250"})
    write(out / "reordered.mp4", 90, 30000 / 1001, codec="libx264", options={"bf": "2", "g": "30", "qp": "40"})
    sound(out / "sound.wav")
    sound(out / "sound.m4a", "aac", ("fltp", np.float32))
    films = ["constant.mp4", "variable.mkv", "rotated.mp4", "one.avi", "long.mp4", "reordered.mp4"]
    info = {name: describe(out / name) for name in films}
    for name, film in info.items():
        film["picks"] = [pick(film["frames"], film["fps"], *rule) for rule in ((1, 0, False), (1, 32, False), (1, 8, True), (2, 16, False), (0.5, 4, True))
                         if round(film["fps"] / rule[0]) > 0]
    write(out / "damaged.avi", 40, 10)
    damage(out / "damaged.avi", b"movi", b"idx1")
    damage(out / "reordered.mp4", b"mdat", b"moov", out / "damaged.mp4")
    data = (out / "damaged.avi").read_bytes()
    (out / "cut.avi").write_bytes(data[:(data.index(b"movi") + data.index(b"idx1")) // 2])
    whole = (out / "constant.mp4").read_bytes()
    (out / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index was at the end: not readable
    (out / "video.json").write_text(json.dumps(info, indent=1) + "\n")
    for f in sorted(out.iterdir()):
        print(f"{f.name:16s} {f.stat().st_size:8d}")


if __name__ == "__main__":
    main()
