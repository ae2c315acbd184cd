#!/usr/bin/env python3
"""tools/nano/make_preference.py on made-up captions, and the yes/no scores of score.py."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools/nano"
sys.path.insert(0, str(TOOLS))
import make_data  # noqa: E402
import make_preference  # noqa: E402
import score  # noqa: E402

ANIMALS = ["dog", "cat", "horse", "cow", "bird"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Preference(unittest.TestCase):
    """One run of the generator for all cases."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = Path(cls.folder.name)
        flickr = cls.root / "shared/flickr8k"
        (flickr / "images").mkdir(parents=True)
        rng, rows = random.Random(1), ["image,caption"]
        for i in range(120):
            animal, toy = rng.choice(ANIMALS), rng.choice(["ball", "frisbee", "stick"])
            (flickr / f"images/{i}.jpg").write_bytes(b"")
            for text in (f"A {animal} runs with a {toy} .", f"The brown {animal} is playing with a {toy} .", f"A {animal} in the park ."):
                rows.append(f"{i}.jpg,{text}")
        (flickr / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        for name in ("a", "b"):
            subprocess.run([sys.executable, TOOLS / "make_preference.py", "--shared", cls.root / "shared", "--out", cls.root / name, "--held-out", "40"],
                           check=True, stdout=subprocess.DEVNULL)
        cls.pairs, cls.questions = lines(cls.root / "a/preference.jsonl"), lines(cls.root / "a/eval_pope.jsonl")
        cls.captions = make_data.read_captions(flickr)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    def test_same_seed_gives_same_bytes(self) -> None:
        for name in ("preference.jsonl", "eval_pope.jsonl"):
            self.assertEqual((self.root / "a" / name).read_bytes(), (self.root / "b" / name).read_bytes())

    def test_training_and_questions_share_no_photo(self) -> None:
        held_out = set(sorted(self.captions, key=make_data.held_out_key)[:40])
        self.assertFalse({Path(p["image"]).name for p in self.pairs} & held_out)
        self.assertLessEqual({Path(q["images"][0]).name for q in self.questions}, held_out)

    def test_pairs_differ_in_one_object_that_no_caption_mentions(self) -> None:
        self.assertGreater(len(self.pairs), 100)
        for pair in self.pairs:
            one, other = pair["swap"]
            self.assertIn(pair["chosen"], self.captions[Path(pair["image"]).name])
            self.assertEqual(pair["chosen"].lower().replace(one, other), pair["rejected"].lower())
            self.assertNotIn(other, make_preference.mentioned(self.captions[Path(pair["image"]).name]))

    def test_questions_are_balanced_and_true(self) -> None:
        for category in ("random", "popular", "adversarial"):
            own = [q["answer"] for q in self.questions if q["category"] == category]
            self.assertEqual(own.count("yes"), own.count("no"))
            self.assertGreater(len(own), 10)
        for question in self.questions:
            shown = question["object"] in make_preference.mentioned(self.captions[Path(question["images"][0]).name])
            self.assertEqual(shown, question["answer"] == "yes")

    def test_articles_and_plurals_follow_the_swapped_word(self) -> None:
        self.assertIn(("An elephant runs with a ball.", "dog", "elephant"), make_preference.swaps("A dog runs with a ball.", ["elephant"]))
        self.assertIn(("Two sheep running.", "dog", "sheep"), make_preference.swaps("Two dogs running.", ["sheep"]))
        self.assertEqual(make_preference.swaps("A dog house stands here.", ["cat"]), [], "a dog house is no dog")

    def test_scores_by_the_first_sentence(self) -> None:
        for text, yes in (("Yes.", True), ("No, there is not.", False), ("There is a dog. No cat.", True), ("There isn't one", False), ("A dog", True)):
            self.assertEqual(score.says_yes(text), yes, text)
        pairs = [({"answer": a, "category": "random", "images": ["x"]}, said) for a, said in (("yes", "Yes."), ("yes", "No."), ("no", "Yes."), ("no", "No."), ("no", ""))]
        found = score.yes_no(pairs)
        self.assertEqual((found["accuracy"], found["f1"], found["yes_rate"]), (0.4, 0.5, 0.4))

    def test_the_paired_test_sees_a_difference_and_none(self) -> None:
        asked = [({"answer": "yes" if i % 2 else "no", "category": "random", "images": [str(i // 4)]}, "") for i in range(200)]
        def answers(wrong: int) -> list[tuple[dict, str]]:
            return [(q, ("yes" if q["answer"] == "no" else "no") if i < wrong else q["answer"]) for i, (q, _) in enumerate(asked)]
        better = score.compare_yes_no(answers(60), answers(20), 500)
        self.assertEqual((better["only_first_right"], better["only_second_right"]), (0, 40))
        self.assertLess(better["mcnemar_p"], 1e-6)
        self.assertGreater(better["accuracy_gain_95"][0], 0)
        same = score.compare_yes_no(answers(30), answers(30), 500)
        self.assertEqual((same["mcnemar_p"], same["accuracy_gain"]), (1.0, 0.0))

    def test_compare_says_worse_only_where_the_whole_interval_is(self) -> None:
        data = self.root / "compare"
        def write(path: Path, rows: list[dict]) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        write(data / "eval_clothing.jsonl", [{"id": str(i), "answer": "dress"} for i in range(200)])
        for model, wrong in (("good", 20), ("near", 21), ("bad", 60)):
            write(data / model / "clothing.jsonl", [{"id": str(i), "answer": "Hat." if i < wrong else "A dress."} for i in range(200)])
        def compare(first: str, second: str) -> dict:
            run = subprocess.run([sys.executable, TOOLS / "compare.py", data, data / first, data / second], check=True, capture_output=True)
            return json.loads(run.stdout)["clothing"]["accuracy"]
        self.assertEqual((compare("good", "bad")["gain"], compare("good", "bad")["worse"]), (-0.2, True))
        self.assertEqual((compare("good", "near")["gain"], compare("good", "near")["worse"]), (-0.005, False))
        self.assertFalse(compare("bad", "good")["worse"])
        asked = [{"id": str(i), "answer": "yes" if i % 2 else "no", "category": "random", "images": [str(i // 4)]} for i in range(80)]
        write(data / "eval_pope.jsonl", asked)
        for model, said in (("good", ["No.", "Yes."]), ("bad", ["Yes.", "Yes."])):
            write(data / model / "pope.jsonl", [{"id": q["id"], "answer": said[q["answer"] == "yes"]} for q in asked])
        run = subprocess.run([sys.executable, TOOLS / "compare.py", data, data / "bad", data / "good"], check=True, capture_output=True)
        self.assertEqual(json.loads(run.stdout)["pope"]["accuracy_gain_95"], [0.5, 0.5], "whole photos are drawn")
        missing = subprocess.run([sys.executable, TOOLS / "compare.py", data, data / "good", data / "none"], capture_output=True, text=True)
        self.assertEqual(missing.returncode, 2)
        self.assertIn("answers in both folders", missing.stderr)


if __name__ == "__main__":
    unittest.main()
