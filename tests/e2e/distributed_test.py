#!/usr/bin/env python3
"""Several processes train: gloo on one machine, as torchrun would start them.

Two ranks give the run of one, for every strategy; a run goes on with another number of ranks; ranks whose samples
have no images do not keep the others waiting; a rank that is killed ends the rest with a message.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import unittest
from pathlib import Path

from harness import BINARY, CliTest, golden, load_safetensors

STRATEGIES = ["ddp", "zero1", "zero2", "zero3"]
SAME = 1e-6  # largest difference of a parameter after 20 steps


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class DistributedTest(CliTest):
    """Each case makes configs of the tiny golden model."""

    def config(self, name: str, **changes: object) -> Path:
        """A config file of 20 full steps; `changes` go to the stage, but for these keys."""
        top = {k: changes.pop(k) for k in ("distributed", "save_steps", "seed") if k in changes}
        stage = {
            "data": [{"path": str(golden("train") / "data.json")}],
            "train": ["^mm_projector\\.", "^language_model\\.", "^lm_head\\."],
            "lr": 2e-4,
            "template": "user_assistant",
            "tokenisation": "segments",
            "max_steps": 20,
            "batch_size": 2,
            "grad_accum": 2,
            "optim": {"weight_decay": 0.01, "max_grad_norm": 0.5},
            "dtype": "float32",
            "feature_cache": "off",
            **changes,
        }
        config = {
            "model": str(golden("checkpoints/llava15")),
            "output": str(self.folder / name),
            "save_steps": 0,
            "loader_threads": 2,
            "stages": [stage],
            **top,
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(config))
        return path

    def start(
        self, config: Path, ranks: int, *arguments: str, group_of_one: bool = False, **environment: str
    ) -> list[subprocess.Popen]:
        """One process for each rank; one rank has none of the variables, unless it is to be a group of one."""
        shared = {"OMP_NUM_THREADS": "1", "LLAVA_LOG": "info", **environment}
        port = free_port()
        processes = []
        for rank in range(ranks):
            own = dict(os.environ, **shared)
            if ranks > 1 or group_of_one:
                own.update(
                    RANK=str(rank),
                    WORLD_SIZE=str(ranks),
                    LOCAL_RANK=str(rank),
                    LOCAL_WORLD_SIZE=str(ranks),
                    MASTER_ADDR="127.0.0.1",
                    MASTER_PORT=str(port),
                )
            processes.append(
                subprocess.Popen(
                    [BINARY, "train", "--config", str(config), *arguments],
                    env=own,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return processes

    def finish(self, processes: list[subprocess.Popen], code: int = 0) -> list[str]:
        """stderr of each; all must end with that code."""
        errors = [p.communicate(timeout=240)[1] for p in processes]
        for process, error in zip(processes, errors):
            self.assertEqual(process.returncode, code, "\n".join(errors))
        return errors

    def train(self, config: Path, ranks: int, *arguments: str) -> list[str]:
        return self.finish(self.start(config, ranks, *arguments))

    def weights(self, name: str) -> dict:
        return load_safetensors(self.folder / name / "final" / "model.safetensors")

    def losses(self, name: str) -> list[float]:
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [m["loss"] for m in map(json.loads, lines) if "loss" in m]

    def largest_difference(self, a: str, b: str) -> float:
        """Over all parameters; k_proj biases have a gradient of zero but for rounding, which AdamW blows up."""
        left, right = self.weights(a), self.weights(b)
        self.assertEqual(left.keys(), right.keys())
        return max(
            abs(x - y)
            for name in left
            if not name.endswith("k_proj.bias")
            for x, y in zip(left[name][1], right[name][1])
        )

    def test_two_ranks_are_one_rank_for_every_strategy(self) -> None:
        self.train(self.config("one"), 1)
        for strategy in STRATEGIES:
            with self.subTest(strategy):
                self.train(self.config(strategy, distributed={"strategy": strategy, "bucket_bytes": 65536}), 2)
                difference = self.largest_difference("one", strategy)
                print(f"{strategy}: largest difference {difference:.2e}")
                self.assertLessEqual(difference, SAME)
                for ours, theirs in zip(self.losses("one"), self.losses(strategy)):
                    self.assertAlmostEqual(ours, theirs, delta=1e-5)

    def test_ranks_with_other_kinds_of_samples_do_not_wait_for_each_other(self) -> None:
        """One of the eight records has no image; batch 1 gives ranks text and images in all mixtures, and three
        ranks share two samples, so that one of them has none."""
        changes = {"batch_size": 1, "grad_accum": 2, "max_steps": 8, "train": ["^mm_projector\\.", "^vision_tower\\.", "layers\\.1\\."]}
        self.train(self.config("mixed-one", **changes), 1)
        for strategy in ("ddp", "zero3"):
            with self.subTest(strategy):
                self.train(self.config(f"mixed-{strategy}", distributed={"strategy": strategy}, **changes), 3)
                for ours, theirs in zip(self.losses("mixed-one"), self.losses(f"mixed-{strategy}"), strict=True):
                    self.assertAlmostEqual(ours, theirs, delta=1e-5)

    def stop_after_saving(self, config: Path, ranks: int, step: int) -> None:
        """Trains until checkpoint-<step> is there, then SIGTERM to one of the processes: all save and exit 75."""
        processes = self.start(config, ranks)
        saved = Path(json.loads(config.read_text())["output"]) / f"checkpoint-{step}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not saved.exists() and processes[0].poll() is None:
            time.sleep(0.01)
        processes[-1].send_signal(signal.SIGTERM)
        self.finish(processes, 75)

    def test_a_run_of_two_ranks_goes_on_bit_for_bit_and_on_any_number_of_ranks(self) -> None:
        lora = {"r": 4, "lora_alpha": 8, "target": "v_proj"}
        for strategy in STRATEGIES:
            with self.subTest(strategy):
                settings = {"distributed": {"strategy": strategy}, "save_steps": 5, "max_steps": 150}
                with_dropout = {**settings, "lora": {**lora, "dropout": 0.3}, "packing": True}
                self.train(self.config(f"straight-{strategy}", **with_dropout), 2)
                broken = self.config(f"broken-{strategy}", **with_dropout)
                self.stop_after_saving(broken, 2, 10)
                self.train(broken, 2, "--resume", "auto")
                self.assertEqual(self.largest_difference(f"straight-{strategy}", f"broken-{strategy}"), 0)
                self.assertEqual(self.losses(f"straight-{strategy}"), self.losses(f"broken-{strategy}"))
                self.assertEqual(list((self.folder / f"broken-{strategy}").glob("tmp-*")), [])
        for strategy, before, after in (("zero3", 2, 1), ("zero2", 2, 3), ("zero3", 1, 2), ("ddp", 2, 1)):
            with self.subTest(strategy=strategy, before=before, after=after):
                name = f"{strategy}-{before}-{after}"
                settings = {"distributed": {"strategy": strategy}, "save_steps": 5, "max_steps": 150, "lora": lora}
                self.train(self.config("whole-" + name, **settings), 1)
                config = self.config(name, **settings)
                self.stop_after_saving(config, before, 10)
                self.train(config, after, "--resume", "auto")
                whole, resumed = self.losses("whole-" + name), self.losses(name)
                self.assertEqual(len(whole), len(resumed))
                self.assertLessEqual(max(abs(a - b) for a, b in zip(whole[:40], resumed[:40])), 1e-5)

    def test_a_killed_rank_ends_the_others_with_a_message(self) -> None:
        for victim in (0, 1):
            with self.subTest(victim=victim):
                name = f"killed-{victim}"
                processes = self.start(self.config(name, max_steps=100000), 2)
                metrics = self.folder / name / "metrics.jsonl"
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size > 0):
                    time.sleep(0.05)
                processes[victim].send_signal(signal.SIGKILL)
                start = time.monotonic()
                error = processes[1 - victim].communicate(timeout=60)[1]
                seconds = time.monotonic() - start
                processes[victim].communicate()
                print(f"the other rank ended after {seconds:.1f} s")
                self.assertEqual(processes[1 - victim].returncode, 1, error)
                self.assertIn(f"rank {1 - victim} of 2", error)
                self.assertIn("collective", error)

    def test_an_error_of_one_rank_is_told_to_the_others(self) -> None:
        processes = self.start(self.config("refused", optim={"name": "muon"}, distributed={"strategy": "zero2"}), 2)
        for error in self.finish(processes, 2):
            self.assertIn("needs whole matrices", error)

    def test_a_group_of_one_process_is_a_plain_run_bit_for_bit(self) -> None:
        self.train(self.config("plain", max_steps=5), 1)
        for strategy in STRATEGIES:
            with self.subTest(strategy):
                config = self.config(f"alone-{strategy}", max_steps=5, distributed={"strategy": strategy})
                self.finish(self.start(config, 1, group_of_one=True))
                self.assertEqual(self.largest_difference("plain", f"alone-{strategy}"), 0)
                self.assertEqual(self.losses("plain"), self.losses(f"alone-{strategy}"))

    def test_the_plan_is_printed_once(self) -> None:
        processes = self.start(self.config("plan"), 2, "--plan")
        out = [p.communicate(timeout=120)[0] for p in processes]
        self.assertIn("20 steps", out[0])
        self.assertEqual(out[1], "")


if __name__ == "__main__":
    unittest.main()
