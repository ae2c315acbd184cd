#!/usr/bin/env python3
"""`llava train` is killed, asked to stop and kept from writing: what was saved must always be there.

LLAVA_KILLS sets the number of kills (6; the 100 of docs/numerics.md were run by hand).
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import time
import unittest
from pathlib import Path

from harness import BINARY, CliTest, golden

KILLS = int(os.environ.get("LLAVA_KILLS", "6"))


class Training:
    """A running `llava train --resume auto` and what it says."""

    def __init__(self, config: Path, *extra: str) -> None:
        self.log = config.parent / "stderr.txt"
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [BINARY, "train", "--config", str(config), "--resume", "auto", "--threads", "1", *extra],
                stderr=stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def text(self) -> str:
        """stderr so far."""
        return self.log.read_text()

    def wait_for(self, words: str, seconds: float = 120) -> None:
        """Until these words are in stderr."""
        end = time.monotonic() + seconds
        while words not in self.text():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f'no "{words}" in: {self.text()}')
            time.sleep(0.01)

    def saved(self) -> int:
        """The last step that was announced as saved; -1: none."""
        return max((int(step) for step in re.findall(r"saved \S*checkpoint-(\d+)\n", self.text())), default=-1)

    def resumed(self) -> int:
        """The step it went on from; 0: from the start."""
        found = re.search(r"resuming after step (\d+)", self.text())
        return int(found.group(1)) if found else 0


class TrainKillTest(CliTest):
    """Kills, stops and failing writes."""

    def config(self, **changes: object) -> Path:
        """A run of the tiny golden model that takes some milliseconds a step."""
        data = golden("train/data.json")
        stage = {
            "data": [{"path": str(data)}],
            "train": ["^mm_projector\\.", "^language_model\\."],
            "template": "user_assistant",
            "tokenisation": "segments",
            "max_steps": 1000000,
            "batch_size": 2,
            "dtype": "float32",
            "lora": None,
        }
        config = {
            "model": str(golden("checkpoints/llava15")),
            "output": str(self.folder / "out"),
            "save_steps": 1,
            "save_total_limit": 2,
            "stages": [stage],
            **changes,
        }
        path = self.folder / "run.json"
        path.write_text(json.dumps(config))
        return path

    def test_a_kill_at_any_moment_leaves_the_last_announced_checkpoint_or_a_later_one(self) -> None:
        config, rng = self.config(), random.Random(5)
        announced = 0
        for kill in range(KILLS + 1):
            run = Training(config)
            self.addCleanup(run.process.kill)
            run.wait_for("stage 0")  # it has loaded what it goes on from
            self.assertGreaterEqual(run.resumed(), announced, run.text())
            self.assertNotIn("skipping", run.text())
            if kill == KILLS:
                break
            if rng.random() < 0.85:  # else in the first moments
                run.wait_for("saved")
            time.sleep(rng.random() * 0.4)
            run.process.kill()
            self.assertEqual(run.process.wait(), -signal.SIGKILL, run.text())
            announced = max(announced, run.resumed(), run.saved())
        self.assertGreater(announced, KILLS)
        run.process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        self.assertEqual(run.process.wait(timeout=10), 75, run.text())
        self.assertLess(time.monotonic() - asked, 10)
        self.assertGreaterEqual(run.saved(), announced)
        lines = [json.loads(line) for line in (self.folder / "out/metrics.jsonl").read_text().splitlines()]
        self.assertEqual([line["step"] for line in lines], list(range(run.saved())), "each step once, in order")
        print(f"{KILLS} kills, {run.saved()} steps", flush=True)

    def test_writes_that_fail_keep_the_old_checkpoint_and_end_the_run_with_a_reason(self) -> None:
        run = Training(self.config(save_steps=3))
        self.addCleanup(run.process.kill)
        run.wait_for("saved")
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (200 << 10, resource.RLIM_INFINITY))
        run.wait_for("cannot save")
        self.assertEqual(run.process.wait(timeout=60), 1, run.text())
        self.assertIn("3 checkpoints in a row could not be written", run.text())
        self.assertIn("the run goes on, older checkpoints are intact", run.text())
        announced = run.saved()
        again = Training(self.config(save_steps=3))
        self.addCleanup(again.process.kill)
        again.wait_for("saved")
        self.assertEqual(again.resumed(), announced)
        self.assertNotIn("skipping", again.text())
        again.process.send_signal(signal.SIGTERM)
        self.assertEqual(again.process.wait(timeout=10), 75)
        self.assertEqual([p.name for p in (self.folder / "out").glob("tmp-*")], [])


if __name__ == "__main__":
    unittest.main()
