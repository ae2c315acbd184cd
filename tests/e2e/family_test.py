#!/usr/bin/env python3
"""Films, tiles, judging and LLaVA-Mini through the command line."""

from __future__ import annotations

import json
import shutil
import struct
import unittest
import zlib
from pathlib import Path

from harness import CliTest, golden, run


def write_png(path: Path, width: int, height: int, shade: int) -> None:
    """A gradient, gray level `shade` at its left end."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + b"".join(bytes([(shade + x) % 256, (shade * 3) % 256, x % 256]) for x in range(width))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b""))


class FamilyTest(CliTest):
    """One toy checkpoint of a design each."""

    def setUp(self) -> None:
        super().setUp()
        self.frames = self.folder / "film"
        self.frames.mkdir()
        for i in range(5):
            write_png(self.frames / f"{i:03}.png", 40, 30, 40 * i)

    def ask(self, model: Path, *arguments: object) -> dict:
        text = self.ok("chat", "--model", model, "--max-new-tokens", 6, "--json", *arguments, "What happens?")
        return json.loads(text)

    def test_an_image_model_is_shown_a_film(self) -> None:
        answer = self.ask(golden("checkpoints/llava15"), "--video", self.frames)
        self.assertEqual(answer["stats"]["image_tokens"], 5 * 16)  # 8x8 features a frame, averaged 2x2
        fewer = self.ask(golden("checkpoints/llava15"), "--video", self.frames, "--num-frames", 2)
        self.assertEqual(fewer["stats"]["image_tokens"], 2 * 16)

    def test_frames_may_be_tiles_of_one_page(self) -> None:
        model = golden("checkpoints/llava_next_mistral")  # 4x4 features a view, an image_newline
        for options, tokens in (
            ([], 5 * 4),
            (["--video-newline", "grid"], 5 * 2 * 3),
            (["--video-newline", "frame"], 5 * 5),
            (["--video-newline", "one_token"], 5 * 4 + 1),
            (["--video-pool", "none", "--video-newline", "grid"], 5 * 4 * 5),
            (["--video-pool", "max", "--video-pool-stride", 4], 5),
        ):
            self.assertEqual(self.ask(model, "--video", self.frames, *options)["stats"]["image_tokens"], tokens, options)
        plain = golden("checkpoints/llava15")
        self.refused("chat", "--model", plain, "--video", self.frames, "--video-newline", "grid", "hi", words=["image_newline"])
        self.refused("chat", "--model", plain, "--video", self.frames, "--video-pool", "median", "hi", words=["--video-pool"])

    def test_a_model_without_a_tower_has_no_rules_for_films(self) -> None:
        self.refused("inspect", "forward", "--model", golden("checkpoints/llama"), "--video-pool", "max", "--prompt", "hi",
                     "--out", self.folder / "out.safetensors", words=["no vision tower"])

    def test_mini_takes_a_few_tokens_an_image_and_a_frame(self) -> None:
        options = ["--chat-format", "llava_llama_3"]
        for name, tokens in (("mini", 4), ("mini_one", 1), ("mini_hd", 4)):
            model = golden(f"mini/{name}")
            image = self.ask(model, *options, "--image", self.frames / "000.png")
            self.assertEqual(image["stats"]["image_tokens"], tokens)
            film = self.ask(model, *options, "--video", self.frames)
            self.assertEqual(film["stats"]["image_tokens"], 5 * tokens)

    def test_mini_answers_a_second_question_as_if_asked_with_the_history(self) -> None:
        model = golden("mini/mini")
        options = ["--chat-format", "llava_llama_3", "--max-new-tokens", 4]
        both = self.ok("chat", "--model", model, *options, "--image", self.frames / "001.png", stdin="What?\nAnd then?\n")
        again = self.ok("chat", "--model", model, *options, "--image", self.frames / "001.png", stdin="What?\nAnd then?\n")
        self.assertEqual(both, again)
        self.assertEqual(len(both.strip().split("\n")), 2)

    def test_a_damaged_frame_is_a_reported_part(self) -> None:
        (self.frames / "003.png").write_bytes((self.frames / "003.png").read_bytes()[:60])
        for model, options, tokens in ((golden("checkpoints/llava15"), [], 16), (golden("mini/mini"), ["--chat-format", "llava_llama_3"], 4)):
            answer = self.ask(model, *options, "--video", self.frames)
            self.assertEqual(answer["stats"]["image_tokens"], 4 * tokens)  # the other four

    def test_what_is_no_film_is_refused(self) -> None:
        model = golden("checkpoints/llava15")
        (self.folder / "text.mp4").write_text("no film")
        self.refused("chat", "--model", model, "--video", self.folder / "text.mp4", "hi", words=["text.mp4"])
        self.refused("chat", "--model", model, "--video", self.folder / "none.mp4", "hi", words=["none.mp4"])
        (self.folder / "empty").mkdir()
        self.refused("chat", "--model", model, "--video", self.folder / "empty", "hi", words=["empty"])

    def test_costs_are_known_without_files(self) -> None:
        text = self.ok("inspect", "image", "--recipe", "llava-mini-8b", "--size", "640x480x10800")
        cost = json.loads(text)
        self.assertEqual(cost["tokens"], 10800)
        self.assertLessEqual(cost["cost"]["total_bytes"], 24e9)
        tiled = json.loads(self.ok("inspect", "image", "--recipe", "llava-onevision-7b", "--size", "1920x1080"))
        self.assertEqual(tiled["tokens"], 7269)
        for bad in ("640", "0x3", "3x", "x3", "9x9x0", "9999999x9", "9x9x9x9"):
            self.refused("inspect", "image", "--recipe", "llava-mini-8b", "--size", bad, words=[bad])

    def test_judging_marks_bad_lines_and_goes_on(self) -> None:
        lines = [
            {"id": 1, "image": str(self.frames / "000.png"), "question": "What?", "answer": "A gradient."},
            {"id": 2, "question": "What?"},
            {"id": 3, "image": str(self.frames / "001.png"), "question": "What?", "answers": ["A.", "B."]},
        ]
        out = self.folder / "verdicts.jsonl"
        text = "".join(json.dumps(line) + "\n" for line in lines)
        result = self.run_judge(text, out)
        self.assertEqual(result, 1)
        verdicts = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual([v["id"] for v in verdicts], [1, 2, 3])
        self.assertIn("error", verdicts[1])
        self.assertIn("verdict", verdicts[2])

    def run_judge(self, text: str, out: Path) -> int:
        return run("judge", "--model", golden("checkpoints/llava15"), "--max-new-tokens", 4, "--output", out, stdin=text).returncode

    def test_self_correction_shows_every_step(self) -> None:
        text = self.ok("chat", "--model", golden("checkpoints/llava15"), "--image", self.frames / "000.png", "--max-new-tokens", 4,
                       "--self-correct", 1, "What?")
        self.assertGreaterEqual(text.count("\n"), 3)


class MiniFormsTest(CliTest):
    """Folders of the published form and their limits."""

    def test_a_missing_prefusion_layer_is_named(self) -> None:
        source = golden("mini/mini_one")
        copy = self.folder / "model"
        shutil.copytree(source, copy)
        config = json.loads((copy / "config.json").read_text())
        config["prefusion_layer_num"] = 3
        (copy / "config.json").write_text(json.dumps(config))
        self.refused("chat", "--model", copy, "--chat-format", "llava_llama_3", "hi", words=["prefusion_layers.2"])
        config["prefusion_layer_num"], config["resolution_ratio"] = 2, 99
        (copy / "config.json").write_text(json.dumps(config))
        self.refused("chat", "--model", copy, "--chat-format", "llava_llama_3", "hi", words=["resolution_ratio", "99"])


if __name__ == "__main__":
    unittest.main()
