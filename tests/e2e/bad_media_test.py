#!/usr/bin/env python3
"""Hostile and damaged pictures and films: a clear error, or a part with a notice on stderr; never a crash."""

from __future__ import annotations

import json
import random
import resource
import shutil
import struct
import unittest
import zlib
from pathlib import Path

from harness import CliTest, golden, run

MEMORY_KB = 1_500_000  # of a run with a toy checkpoint; LibTorch alone takes a good part


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """A gray picture; `rows` fewer than its header says make it a bomb's header."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = (b"\0" + b"\x80" * width) * (height if rows is None else rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    """A 24-bit header with a few bytes of pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + info + bytes(64)


def gif(width: int, height: int) -> bytes:
    """A screen and a picture of this size without colours."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02L\x01\x00;"


class MediaTest(CliTest):
    """Helpers: what a run says about one file."""

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def both_refuse(self, file: Path, *words: str, model: str = "llava15", option: str = "--image") -> None:
        """`inspect image` and `chat` name the file."""
        checkpoint = golden("checkpoints/" + model)
        shown = ["--video", file] if option == "--video" else [file]
        self.refused("inspect", "image", "--model", checkpoint, *shown, words=[file.name, *words])
        self.refused("chat", "--model", checkpoint, option, file, "hi", words=[file.name, *words])

    def inspect(self, model: str, file: Path, *options: object) -> dict:
        text = self.ok("inspect", "image", "--model", golden("checkpoints/" + model), file, *options)
        return json.loads(text)["images"][0]


class BadPictureTest(MediaTest):
    """Sizes that no photo has."""

    def test_no_bytes_and_no_pixels(self) -> None:
        self.both_refuse(self.write("none.png", b""), "empty")
        for name, content in (("w.png", png(0, 9)), ("h.png", png(9, 0)), ("w.bmp", bmp(0, 9)), ("h.bmp", bmp(9, 0)),
                              ("w.gif", gif(0, 9)), ("h.gif", gif(9, 0))):
            self.both_refuse(self.write(name, content))

    def test_threads_of_pixels_are_shown(self) -> None:
        for width, height in ((1, 20000), (20000, 1)):
            file = self.write(f"{width}.png", png(width, height))
            for model in ("llava15", "llava_next_mistral", "llava_next_orig", "llava_onevision"):  # crop, anyres, anyres_max
                with self.subTest(f"{model} {width} x {height}"):
                    entry = self.inspect(model, file, "--out", self.folder / "pixels.safetensors")
                    self.assertEqual((entry["width"], entry["height"]), (width, height))
                    self.assertGreater(entry["tokens"], 0)
            answer = self.ok("chat", "--model", golden("checkpoints/llava_onevision"), "--image", file, "--max-new-tokens", 2, "--json", "hi")
            self.assertGreater(json.loads(answer)["stats"]["image_tokens"], 0)

    def test_threads_of_pixels_are_padded(self) -> None:
        model = self.folder / "padded"
        shutil.copytree(golden("checkpoints/llava15_orig"), model, copy_function=shutil.copyfile)
        config = json.loads((model / "config.json").read_text())
        config["image_aspect_ratio"] = "pad"
        (model / "config.json").write_text(json.dumps(config))
        for width, height in ((1, 20000), (20000, 1)):
            file = self.write(f"{width}.png", png(width, height))
            text = self.ok("inspect", "image", "--model", model, "--vision-tower", golden("checkpoints/clip_vision"), file,
                           "--out", self.folder / "pixels.safetensors")
            self.assertEqual(json.loads(text)["images"][0]["tiles"], 1)

    def test_bombs_are_refused_from_their_headers(self) -> None:
        self.both_refuse(self.write("bomb.png", png(65000, 65000, rows=1)), "65000 x 65000", "--max-pixels")
        self.both_refuse(self.write("bomb.bmp", bmp(65000, 65000)), "65000 x 65000", "--max-pixels")
        self.both_refuse(self.write("bomb.gif", gif(65535, 65535)), "65535 x 65535", "--max-side")
        raised = run("inspect", "image", "--model", golden("checkpoints/llava15"), "--max-pixels", 1 << 33, "--max-side", 65000,
                     self.write("small.png", png(300, 20)))
        self.assertEqual(raised.returncode, 0, raised.stderr)

    def test_limits_are_options(self) -> None:
        file = self.write("wide.png", png(65000, 1))
        self.assertEqual(self.inspect("llava15", file)["width"], 65000)
        wider = self.write("wider.png", png(65535, 1))
        self.both_refuse(wider, "65535 x 1", "--max-side")
        self.assertEqual(self.inspect("llava15", wider, "--max-side", 65535)["width"], 65535)
        model = ("--model", golden("checkpoints/llava15"))
        self.refused("inspect", "image", *model, file, "--max-pixels", 64999, words=["wide.png", "--max-pixels"])
        self.refused("inspect", "image", *model, file, "--max-file-bytes", 20, words=["wide.png", "--max-file-bytes"])
        self.refused("chat", *model, "--image", file, "--max-side", 64999, "hi", words=["wide.png", "--max-side"])
        self.refused("inspect", "image", *model, file, "--max-pixels", 0, words=["--max-pixels"])

    def test_ten_thousand_pictures_are_refused_before_they_are_looked_at(self) -> None:
        file = self.write("one.png", png(8, 8))
        images = [part for _ in range(10000) for part in ("--image", file)]
        model = golden("checkpoints/llava15")
        words = ["10000 images take 640000 tokens", "4096", "--context-length"]
        self.refused("chat", "--model", model, *images, "hi", words=words)
        line = json.dumps({"id": 1, "images": [str(file)] * 10000, "question": "hi"})
        result = run("chat", "--model", model, "--jsonl", stdin=line + "\n")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("4096 tokens", json.loads(result.stdout)["error"])
        self.assertLess(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, MEMORY_KB)


class BadFilmTest(MediaTest):
    """Cut, overwritten, without pictures."""

    def part(self, film: Path, *notice: str, frames: int = 40) -> dict:
        """Both verbs go on with what there is; chat says what is missing."""
        model = golden("checkpoints/llava15")
        options = ["--video", film, "--num-frames", frames]
        entry = json.loads(self.ok("inspect", "image", "--model", model, *options))["video"]
        result = run("chat", "--model", model, "--chat-format", "vicuna_v1", "--max-new-tokens", 2, "--json", *options, "hi")
        self.assertEqual(result.returncode, 0, result.stderr)
        for word in (film.name, *notice):
            self.assertIn(word, result.stderr)
        shown = json.loads(result.stdout)["stats"]["image_tokens"] // 16
        self.assertGreater(shown, 0)
        self.assertLessEqual(shown, len(entry["frames"]))
        return {"entry": entry, "shown": shown}

    def noise(self, name: str, source: str) -> Path:
        """Its middle sixth overwritten."""
        data = bytearray(golden("video/" + source).read_bytes())
        middle, length = len(data) // 2, len(data) // 6
        data[middle : middle + length] = random.Random(3).randbytes(length)
        return self.write(name, bytes(data))

    def cut(self, name: str, source: str) -> Path:
        data = golden("video/" + source).read_bytes()
        return self.write(name, data[: len(data) // 2])

    def test_a_cut_film_is_refused_or_shown_in_part(self) -> None:
        for source in ("constant.mp4", "long.mp4", "reordered.mp4"):  # their index is at the end
            self.both_refuse(self.cut("cut.mp4", source), option="--video")
        matroska = self.part(self.cut("cut.mkv", "variable.mkv"), "cut off or damaged")
        self.assertLess(matroska["entry"]["frames_in_file"], 30)
        self.assertIn("cut.mkv", matroska["entry"]["problem"])
        self.part(golden("video/cut.avi"), "cut off or damaged", "its header says 40")

    def test_noise_in_the_middle_is_reported(self) -> None:
        for source in ("constant.mp4", "long.mp4", "reordered.mp4"):
            part = self.part(self.noise("noise.mp4", source), "cannot be decoded")
            self.assertLess(part["shown"], len(part["entry"]["frames"]))
        self.part(self.noise("noise.mkv", "variable.mkv"), "cut off or damaged")
        self.part(golden("video/damaged.avi"), "its header says 40")

    def test_films_without_pictures(self) -> None:
        self.both_refuse(golden("video/sound.m4a"), "no video stream", option="--video")
        self.both_refuse(golden("video/sound.wav"), option="--video")
        self.both_refuse(self.write("none.mp4", b""), option="--video")
        data = golden("video/variable.mkv").read_bytes()
        clusters = data.index(bytes.fromhex("1F43B675"))
        self.both_refuse(self.write("headers.mkv", data[:clusters]), option="--video")

    def test_film_limits_are_options(self) -> None:
        film, model = golden("video/constant.mp4"), golden("checkpoints/llava15")
        for option, value in (("--max-video-frames", 49), ("--max-video-seconds", 1e-6), ("--max-pixels", 64 * 48 - 1), ("--max-side", 63)):
            for verb in (("inspect", "image"), ("chat",)):
                self.refused(*verb, "--model", model, "--video", film, option, value, words=["constant.mp4", option])
        for option, value in (("--max-video-frames", 50), ("--max-video-seconds", 0), ("--max-pixels", 64 * 48), ("--max-side", 64)):
            self.ok("inspect", "image", "--model", model, "--video", film, option, value)

    def test_folders_of_frames(self) -> None:
        empty, broken, bad = self.folder / "empty", self.folder / "broken", self.folder / "bad"
        for folder in (empty, broken, bad):
            folder.mkdir()
        (empty / "notes.txt").write_text("no picture")
        self.both_refuse(empty, "no image files", option="--video")
        for i in range(4):
            (broken / f"{i}.png").write_bytes(png(30, 20) if i != 0 else b"\x89PNG\r\n\x1a\n")
            (bad / f"{i}.png").write_bytes(png(30, 20)[:40])
        part = self.part(broken, "frames that cannot be read: 0", "0.png", frames=0)
        self.assertEqual((part["shown"], len(part["entry"]["frames"])), (3, 4))
        self.both_refuse(bad, option="--video")

    def test_a_cached_part_is_reported_again(self) -> None:
        film = str(golden("video/damaged.avi"))
        lines = "".join(json.dumps({"id": i, "video": film, "question": "hi"}) + "\n" for i in range(2))
        result = run("chat", "--model", golden("checkpoints/llava15"), "--chat-format", "vicuna_v1", "--max-new-tokens", 2, "--jsonl", stdin=lines)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr.count("its header says 40"), 2, result.stderr)


if __name__ == "__main__":
    unittest.main()
