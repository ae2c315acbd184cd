#!/usr/bin/env python3
"""tools/nano/make_several.py on made-up captions: what it says of several photos is true of each."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
THINGS = ["dog", "man", "woman", "horse", "cat"]


class SeveralTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        root = Path(cls.folder.name)
        rng = random.Random(5)
        cls.shows = {}
        train, held = [], []
        for i in range(80):
            thing = rng.choice(THINGS)
            image = f"/photos/{i}.jpg"
            cls.shows[image] = thing
            captions = [f"A {colour} {thing} number {i} stands there." for colour in ("red", "big", "small")]
            if i < 60:
                turns = []
                for caption in captions:
                    turns += [{"from": "human", "value": ("" if turns else "<image>\n") + "Describe this photo in one sentence."},
                              {"from": "gpt", "value": caption}]
                turns += [{"from": "human", "value": "Is there a tree?"}, {"from": "gpt", "value": "no"}]
                train.append({"id": str(i), "image": image, "conversations": turns})
            else:
                held.append({"id": str(i), "images": [image], "question": "?", "references": captions})
        cls.out = []
        for name in ("a", "b"):
            out = root / name
            out.mkdir()
            for file, rows in (("train_flickr.jsonl", train), ("eval_captions.jsonl", held)):
                (out / file).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
            subprocess.run([sys.executable, REPO / "tools/nano/make_several.py", "--data", out, "--pairs", "200", "--clips", "50"],
                           check=True, capture_output=True)
            cls.out.append(out)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    def rows(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.out[0] / name).read_text(encoding="utf-8").splitlines()]

    def truth(self, thing: str, images: list[str]) -> str:
        there = [self.shows[image] == thing for image in images]
        return "Both." if all(there) else "Neither." if not any(there) else "Image 1." if there[0] else "Image 2."

    def test_the_answer_to_which_image_is_true(self) -> None:
        asked = 0
        for row in self.rows("train_several.jsonl"):
            turns = row["conversations"]
            for question, answer in zip(turns[::2], turns[1::2]):
                found = re.search(r"Which image shows (?:an? )?(\w+)\?$", question["value"])
                if found and found[1] in THINGS:
                    asked += 1
                    self.assertEqual(answer["value"], self.truth(found[1], row["image"]), row)
        self.assertGreater(asked, 150)
        for row in self.rows("eval_pairs.jsonl"):
            found = re.search(r"shows (?:an? )?(\w+)\?$", row["question"])
            if found and found[1] in THINGS:
                self.assertEqual(row["answer"], self.truth(found[1], row["images"]))

    def test_every_frame_is_described_by_its_own_caption(self) -> None:
        clips = [row for row in self.rows("train_several.jsonl") if row["id"].startswith("clip")]
        self.assertEqual(len(clips), 50)
        for row in clips:
            turns = row["conversations"]
            self.assertTrue(turns[0]["value"].startswith("Frame 1:\n<image>\nFrame 2:\n<image>\n"))
            self.assertEqual(turns[0]["value"].count("<image>"), len(row["image"]))
            for image, line in zip(row["image"], turns[1]["value"].split("\n")):
                self.assertIn(f"number {Path(image).stem} ", line)

    def test_held_out_photos_are_not_trained_on(self) -> None:
        trained = {image for row in self.rows("train_several.jsonl") for image in row["image"]}
        asked = {image for row in self.rows("eval_pairs.jsonl") for image in row["images"]}
        self.assertFalse(trained & asked)
        self.assertTrue(asked)

    def test_the_same_seed_gives_the_same_files(self) -> None:
        for name in ("train_several.jsonl", "eval_pairs.jsonl"):
            self.assertEqual(*((out / name).read_bytes() for out in self.out))


if __name__ == "__main__":
    unittest.main()
