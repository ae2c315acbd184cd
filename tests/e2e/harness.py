#!/usr/bin/env python3
"""What the end-to-end cases share: running the binary, finding goldens, reading safetensors.

LLAVA_BINARY names the program; LLAVA_GOLDEN the goldens, else those beside the repository, else the
committed subset. The standard library is enough. Cases whose golden is not here are skipped and say so.
"""

from __future__ import annotations

import array
import json
import math
import os
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LLAVA_BINARY", str(ROOT / "build" / "llava"))
LOGITS, FEATURES, PIXELS = 2e-4, 5e-5, 1e-6  # the tolerances of the reference README


def golden(name: str) -> Path:
    """The golden's path; skips the test where it is not here."""
    beside = ROOT / ".." / "shared" / "reference" / "golden"
    for root in (Path(os.environ.get("LLAVA_GOLDEN", beside)), ROOT / "tests" / "golden"):
        if (root / name).exists():
            return (root / name).resolve()
    raise unittest.SkipTest(f"golden {name} is not here")


def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def load_safetensors(path: Path) -> dict[str, tuple[list[int], array.array]]:
    """Name -> (shape, values) of the F32 and I64 tensors of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        codes = {"F32": "f", "I64": "q", "U8": "B"}
        if name == "__metadata__" or entry["dtype"] not in codes:
            continue
        begin, end = entry["data_offsets"]
        values = array.array(codes[entry["dtype"]])
        values.frombytes(data[8 + length + begin : 8 + length + end])
        tensors[name] = (entry["shape"], values)
    return tensors


class CliTest(unittest.TestCase):
    """Helpers of all cases."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="llava-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, True)

    def ok(self, *arguments: object, stdin: str = "") -> str:
        """stdout of a run that must succeed."""
        result = run(*arguments, stdin=stdin)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def refused(self, *arguments: object, words: list[str], stdin: str = "", code: int = 2) -> str:
        """A run that must fail with this exit code and name these words on stderr; nothing on stdout."""
        result = run(*arguments, stdin=stdin)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertIn("llava: error: ", result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertEqual(result.stdout, "")
        return result.stderr

    def close(self, actual: array.array, expected: array.array, tolerance: float, what: str) -> None:
        """Largest absolute difference within the tolerance."""
        self.assertEqual(len(actual), len(expected), what)
        worst = max((abs(a - b) for a, b in zip(actual, expected)), default=0.0)
        self.assertFalse(math.isnan(sum(actual)), what)
        self.assertLessEqual(worst, tolerance, what)


def is_supported(model: Path) -> bool:
    """Whether the checkpoint is of a kind that is read so far."""
    kind = json.loads((model / "config.json").read_text())["model_type"]
    return kind not in ("qwen2_5_vl", "internvl")  # rivals, not of the line
