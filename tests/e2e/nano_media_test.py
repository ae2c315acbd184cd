#!/usr/bin/env python3
"""llava-nano with several images and films: what stands before them, and how many tokens they take."""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path

from family_test import write_png
from harness import BINARY, CliTest

MODEL = Path(os.environ.get("LLAVA_BUILD_DIR", Path(BINARY).parent)) / "models" / "llava-nano"
VIEW = 65  # a class token and 8x8 merged patches


@unittest.skipUnless((MODEL / "config.json").exists(), "the default model's parts are not here (scripts/demo)")
class NanoMediaTest(CliTest):
    def setUp(self) -> None:
        super().setUp()
        self.frames = self.folder / "film"
        self.frames.mkdir()
        for i in range(7):
            write_png(self.frames / f"{i}.png", 60, 40, 30 * i)

    def ask(self, *arguments: object) -> dict:
        text = self.ok("chat", "--model", MODEL, "--max-new-tokens", 2, "--json", *arguments, "What is this?")
        return json.loads(text)["stats"]

    def test_several_images_are_numbered_in_the_prompt(self) -> None:
        one = self.ask("--image", self.frames / "0.png")
        two = self.ask("--image", self.frames / "0.png", "--image", self.frames / "1.png")
        self.assertEqual(one["image_tokens"], VIEW)
        self.assertEqual(two["image_tokens"], 2 * VIEW)
        # the line break behind the image stands in both; "Image", " ", "1", ":", line break twice and one break more
        self.assertEqual(two["prompt_tokens"] - one["prompt_tokens"], VIEW + 11)

    def test_frames_are_numbered_images(self) -> None:
        film = self.ask("--video", self.frames, "--num-frames", 2)
        two = self.ask("--image", self.frames / "0.png", "--image", self.frames / "6.png")
        self.assertEqual(film["image_tokens"], 2 * VIEW)
        self.assertEqual(film["prompt_tokens"], two["prompt_tokens"])
        self.assertEqual(self.ask("--video", self.frames)["image_tokens"], 7 * VIEW)  # a folder is shown whole
        self.assertEqual(self.ask("--video", self.frames, "--num-frames", 1)["prompt_tokens"],
                         self.ask("--image", self.frames / "0.png")["prompt_tokens"])

    def test_its_frames_are_no_grid_to_pool(self) -> None:
        self.refused("chat", "--model", MODEL, "--video", self.frames, "--video-pool", "max", "hi", words=["pool"])


if __name__ == "__main__":
    unittest.main()
