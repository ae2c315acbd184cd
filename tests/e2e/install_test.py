#!/usr/bin/env python3
"""cmake --install and find_package(llava): what was built works from its new place, alone."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import BINARY, golden, run

BUILD = Path(os.environ.get("LLAVA_BUILD_DIR", Path(BINARY).parent))


class Installed(unittest.TestCase):
    """One installation for all cases."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.prefix = Path(cls.folder.name) / "prefix"
        subprocess.run(["cmake", "--install", BUILD, "--prefix", cls.prefix], check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    def test_the_program_runs_from_the_prefix_without_an_environment(self) -> None:
        program = self.prefix / "bin" / "llava"
        found = subprocess.run([program, "--version"], env={}, capture_output=True, text=True, check=True)
        self.assertEqual(found.stdout, run("--version").stdout)

    def test_an_installed_default_model_holds_files_not_links(self) -> None:
        model = self.prefix / "share" / "llava" / "models" / "llava-nano"
        if not (BUILD / "models" / "llava-nano" / "config.json").exists():
            self.assertFalse(model.exists())
            return
        names = {p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file()}
        self.assertLessEqual({"config.json", "smollm2-135m-instruct.gguf", "vision_tower/model.safetensors"}, names)
        self.assertEqual([p for p in model.rglob("*") if p.is_symlink()], [])

    def test_another_project_links_the_package_and_loads_a_checkpoint(self) -> None:
        checkpoint = golden("checkpoints/llava15")
        build = Path(self.folder.name) / "consumer"
        package = next(self.prefix.glob("lib*/**/cmake/llava"))
        configured = subprocess.run(
            ["cmake", "-G", "Ninja", "-S", Path(__file__).parent / "consumer", "-B", build, f"-Dllava_DIR={package}"],
            capture_output=True, text=True, check=False)
        self.assertEqual(configured.returncode, 0, configured.stdout + configured.stderr)
        built = subprocess.run(["cmake", "--build", build], capture_output=True, text=True, check=False)
        self.assertEqual(built.returncode, 0, built.stdout)
        loaded = subprocess.run([build / "consumer", checkpoint], capture_output=True, text=True, check=True).stdout
        sizes = {name: int(size) for name, size in map(str.split, loaded.splitlines())}
        stored = json.loads(run("inspect", "weights", checkpoint, "--json").stdout)["tensors"]
        expected = {t["canonical"]: math.prod(t["shape"]) for t in stored}
        self.assertGreater(len(sizes), 20)
        self.assertEqual(sizes, {name: expected[name] for name in sizes})


if __name__ == "__main__":
    unittest.main()
