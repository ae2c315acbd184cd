#!/usr/bin/env python3
"""`llava train` with the objectives dpo and grpo on the tiny checkpoint: our own decoder draws, runs repeat and resume."""

from __future__ import annotations

import hashlib
import json
import unittest
from pathlib import Path

from harness import CliTest, golden


class Preference(CliTest):
    """Configs are JSON, which is YAML."""

    def config(self, name: str, stage: dict) -> Path:
        train = golden("train/preference.json").parent
        plain = {"name": "prefer", "data": [{"path": str(train / "preference.json")}], "train": [], "lr": 1e-3, "lora": {"r": 4, "lora_alpha": 8},
                 "template": "user_assistant", "tokenisation": "segments", "max_steps": 4, "batch_size": 2, "dtype": "float32"}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({"model": str(golden("checkpoints/llava15")), "output": str(self.folder / name), "save_steps": 2, "stages": [{**plain, **stage}]}))
        return path

    def metrics(self, name: str) -> list[dict]:
        def measured(key: str) -> bool:  # times and what follows from them
            return "second" in key or "data_wait" in key or key in ("peak_memory_bytes", "mfu", "hfu")
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if not measured(k)} for line in lines]

    def final(self, name: str) -> str:
        return hashlib.sha256((self.folder / name / "final/model.safetensors").read_bytes()).hexdigest()

    def test_dpo_begins_at_log_two_and_says_what_it_learnt(self) -> None:
        self.ok("train", "--config", self.config("dpo", {"objective": "dpo", "preference": {"precompute_ref_log_probs": True}}), "--threads", 1)
        steps = self.metrics("dpo")
        self.assertAlmostEqual(steps[0]["loss"], 0.693147, delta=1e-6)
        for key in ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"):
            self.assertIn(key, steps[-1])
        self.assertIn("4 steps", self.ok("train", "--config", self.config("dpo-plan", {"objective": "dpo"}), "--plan"))

    def test_grpo_draws_with_our_decoder_and_repeats(self) -> None:
        stage = {"objective": "grpo", "grpo": {"num_generations": 3, "max_completion_length": 6, "beta": 0.05, "reward_funcs": ["length", "overlap"], "reward_length": 4},
                 "data": [{"path": str(golden("train/data.json")), "limit": 7}]}
        for name in ("first", "second"):
            self.ok("train", "--config", self.config(name, stage), "--threads", 1)
        self.assertEqual(self.metrics("first"), self.metrics("second"))
        self.assertEqual(self.final("first"), self.final("second"))
        steps = self.metrics("first")
        self.assertEqual(len(steps), 4)
        self.assertEqual(steps[0]["kl"], 0)
        for step in steps:
            self.assertTrue(1 <= step["completions/mean_length"] <= 6)
            self.assertTrue(0 <= step["rewards/length/mean"] <= 1)
        self.assertGreater(len({step["reward"] for step in steps}), 1)

    def test_grpo_goes_on_where_it_was(self) -> None:
        stage = {"objective": "grpo", "grpo": {"num_generations": 2, "max_completion_length": 4, "reward_funcs": ["length"]}}
        self.ok("train", "--config", self.config("whole", stage), "--threads", 1)
        config = self.config("parts", stage)
        self.ok("train", "--config", config, "--threads", 1)
        for name in ("checkpoint-4", "final"):
            for path in sorted((self.folder / "parts" / name).rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            (self.folder / "parts" / name).rmdir()
        self.ok("train", "--config", config, "--threads", 1, "--resume", "auto")
        self.assertEqual(self.metrics("whole"), self.metrics("parts"))
        self.assertEqual(self.final("whole"), self.final("parts"))

    def test_refuses_settings_of_another_objective(self) -> None:
        self.refused("train", "--config", self.config("bad", {"preference": {"beta": 0.1}}), words=["stages.0.preference", "dpo"])


if __name__ == "__main__":
    unittest.main()
