#!/usr/bin/env python3
"""`llava train --plan` of every file of recipes/, without weights and data."""

from __future__ import annotations

import json
import re
import unittest

from harness import ROOT, CliTest

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


class TrainPlanTest(CliTest):
    """Recipes are planned as they are; paths point nowhere."""

    def plan(self, name: str, *extra: object) -> list[dict]:
        """One object a stage."""
        lines = self.ok("train", "--config", ROOT / "recipes" / f"{name}.yaml", "--set", f"model={self.folder}/none",
                        "--plan", "--json", *extra)
        return [json.loads(line) for line in lines.splitlines()]

    def test_every_recipe_is_planned_without_weights_and_data(self) -> None:
        self.assertGreaterEqual(len(RECIPES), 13)
        for path in RECIPES:
            with self.subTest(path.stem):
                text = path.read_text()
                stages = self.plan(path.stem, "--gpus", 1 if "objective: dpo" in text else 8, "--gpu", "h200")
                self.assertEqual(len(stages), len(re.findall(r"^  - (?:name|\{name)", text, re.M)))
                for stage in stages:
                    self.assertGreater(stage["steps"], 0)
                    self.assertGreater(sum(stage["trained_parameters"].values()), 0)
                    self.assertGreater(stage["tokens"], 0)
                    self.assertGreater(stage["flops"], 0)
                    self.assertGreater(stage["days"], 0)
                    self.assertTrue(stage["fits"], stage)
                    self.assertLessEqual(stage["predicted_peak_bytes"], sum(stage["predicted_bytes"].values()))

    def test_the_7b_recipes_of_pairs_fit_cards_of_24_gib(self) -> None:
        for name in ("llava_v1.5_7b_lora", "llava_v1.5_7b_qlora"):
            (stage,) = self.plan(name, "--gpus", 8, "--gpu", "rtx3090")
            self.assertTrue(stage["fits"], stage)
            self.assertEqual(stage["trained_parameters"]["mm_projector"], 20979712)
            self.assertEqual(stage["trained_parameters"]["lora"], 319815680)
        text = self.ok("train", "--config", ROOT / "recipes/llava_v1.5_7b.yaml", "--plan", "--gpu", "rtx3090")
        for words in ("does not fit", "the data are not here", "LoRA 0 parameters", "QLoRA"):
            self.assertIn(words, text)

    def test_wrong_names_are_told_with_the_nearest(self) -> None:
        config = ROOT / "recipes/llava_v1.5_7b.yaml"
        self.refused("train", "--config", config, "--plan", "--gpu", "a100_80", words=["a100-80"])
        self.refused("train", "--config", config, "--plan", "--gpu", "h100", "--mfu", "1.5", words=["--mfu"])
        self.refused("train", "--config", config, "--plan", "--set", "stages.0.image_aspect_ratio=padd", words=["pad"])
        self.refused("train", "--config", config, "--plan", "--set", "stages.0.expected.tokens=0",
                     words=["stages.0.expected.tokens"])
        self.refused("train", "--config", config, "--plan", "--set", "recipe=llava-1.5-8b",
                     words=["llava-1.5-7b"])


if __name__ == "__main__":
    unittest.main()
