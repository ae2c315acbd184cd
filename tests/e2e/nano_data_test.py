#!/usr/bin/env python3
"""tools/nano/make_data.py on a small copy of easy-vqa's and ImageNet's layout: what a model can learn from the records."""

from __future__ import annotations

import collections
import json
import random
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
COLOURS = ["red", "green", "blue", "black", "gray", "teal", "brown", "yellow"]
PLAIN = ["is there a {} shape?", "does the image contain a {} shape?", "is a {} shape present?", "is there a {} shape in the image?"]
NEGATED = ["is no {} shape present?", "does the image not contain a {} shape?", "is there not a {} shape?", "is there not a {} shape in the image?"]


class NanoData(unittest.TestCase):
    """One run of the generator for all cases."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        root = Path(cls.folder.name)
        for split, drawings in (("train", 400), ("test", 40)):
            (root / "easy" / split / "images").mkdir(parents=True)
            asked = []
            for i in range(drawings):
                own = COLOURS[i % 8]
                asked.append(["what color is the shape?", own, i])
                for other in random.Random(i).sample(COLOURS, 6):  # as in the package: mostly about colours that are not there
                    wording = random.Random(f"{i} {other}").choice(PLAIN + NEGATED)
                    asked.append([wording.format(other), "yes" if (other == own) == (wording in PLAIN) else "no", i])
            (root / "easy" / split / "questions.json").write_text(json.dumps(asked), encoding="utf-8")
        cls.truth = {f"easy-{i}": COLOURS[i % 8] for i in range(400)}
        photos = root / "shared" / "imagenet-1-per-class"
        photos.mkdir(parents=True)
        for name in ("n02123045_tabby", "n02123394_Persian_cat", "n03063599_coffee_mug"):
            (photos / f"{name}.jpg").write_bytes(b"")
        cls.first, cls.second = (cls.generate(root, root / name) for name in ("a", "b"))

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    @staticmethod
    def generate(root: Path, out: Path) -> Path:
        subprocess.run([sys.executable, REPO / "tools/nano/make_data.py", "--shared", root / "shared", "--easy-vqa", root / "easy",
                        "--easy-questions", "12", "--out", out], check=True, capture_output=True)
        return out

    def turns(self, source: str) -> list[tuple[str, str, str]]:
        lines = (self.first / f"train_{source}.jsonl").read_text(encoding="utf-8").splitlines()
        return [(r["id"], q["value"].removeprefix("<image>\n"), a["value"]) for r in map(json.loads, lines)
                for q, a in zip(r["conversations"][::2], r["conversations"][1::2])]

    def test_the_wording_of_a_yes_no_question_does_not_give_its_answer_away(self) -> None:
        answers = collections.defaultdict(collections.Counter)
        for _, question, answer in self.turns("easy"):
            if answer in ("yes", "no"):
                answers[bool(re.search(r"\b(no|not)\b", question))][answer] += 1
        for negated in (False, True):
            self.assertGreater(sum(answers[negated].values()), 200)
            self.assertAlmostEqual(answers[negated]["yes"] / sum(answers[negated].values()), 0.5, delta=0.08)

    def test_every_answer_is_true_of_its_drawing(self) -> None:
        for name, question, answer in self.turns("easy"):
            named = next((c for c in COLOURS if f" {c} " in question), None)
            if named is None:
                self.assertEqual(answer, self.truth[name])
            else:
                present = named == self.truth[name]
                self.assertEqual(answer == "yes", present != bool(re.search(r"\b(no|not)\b", question)), question)

    def test_an_animal_is_described_by_its_kind_and_named_by_its_breed(self) -> None:
        turns = self.turns("imagenet")
        cats = [(question, answer) for name, question, answer in turns if name.startswith("n02123394_Persian_cat")]
        self.assertIn("A photo of a cat.", [answer for _, answer in cats])
        self.assertIn("A Persian cat.", [answer for _, answer in cats])
        self.assertEqual({answer.lower().rstrip(".") for question, answer in cats if "animal" in question.lower()}, {"cat"})
        self.assertFalse([t for t in turns if t[0] == "n03063599_coffee_mug" and "animal" in t[1]])

    def test_rare_kinds_of_animals_are_asked_about_more_often(self) -> None:
        records = [json.loads(line)["id"] for line in (self.first / "train_imagenet.jsonl").read_text(encoding="utf-8").splitlines()]
        self.assertEqual(sum(r.startswith("n02123045") for r in records), 12)
        self.assertEqual(sum(r.startswith("n03063599") for r in records), 1)
        self.assertEqual(len(set(records)), len(records))

    def test_the_same_seed_gives_the_same_files(self) -> None:
        for path in self.first.iterdir():
            self.assertEqual(path.read_bytes().replace(b"/a/", b"/b/"), (self.second / path.name).read_bytes(), path.name)


if __name__ == "__main__":
    unittest.main()
