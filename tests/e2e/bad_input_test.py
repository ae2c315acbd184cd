#!/usr/bin/env python3
"""Missing, damaged and unfitting files: exit code 2, the file and the reason, no output file."""

from __future__ import annotations

import json
import shutil
import subprocess
import unittest
from pathlib import Path

from harness import BINARY, CliTest, golden


class BadInputTest(CliTest):
    """Exit code 2, the file's name, and no output file."""

    def copy(self, name: str = "llava15") -> Path:
        """A writable copy of a golden checkpoint."""
        target = self.folder / name
        shutil.copytree(golden("checkpoints/" + name), target, copy_function=shutil.copyfile)
        return target

    def forward(self, model: Path, *words: str, image: Path | None = None) -> None:
        """inspect forward must refuse and leave nothing."""
        out = self.folder / "out.safetensors"
        image = image or golden("images/rgb_640x480.png")
        self.refused(
            "inspect",
            "forward",
            "--model",
            model,
            "--image",
            image,
            "--prompt",
            "<image>\nHi",
            "--out",
            out,
            words=list(words),
        )
        self.assertEqual([p for p in self.folder.iterdir() if "out." in p.name], [])

    def test_truncated_weights(self) -> None:
        model = self.copy()
        data = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(data[: len(data) // 2])
        self.forward(model, "model.safetensors")
        (model / "model.safetensors").write_bytes(b"")
        self.forward(model, "model.safetensors")
        (model / "model.safetensors").unlink()
        self.forward(model, "missing")

    def test_wrong_shapes_are_all_listed(self) -> None:
        model = self.copy()
        config = json.loads((model / "config.json").read_text())
        config["text_config"]["intermediate_size"] = 96
        (model / "config.json").write_text(json.dumps(config))
        self.forward(model, "layers.0.mlp.gate_proj", "layers.1.mlp.down_proj", "112", "96")

    def test_damaged_config_and_tokenizer(self) -> None:
        model = self.copy()
        (model / "tokenizer.json").write_text('{"model": ')
        self.forward(model, "tokenizer.json")
        (model / "config.json").write_text('{"model_type": "llava", "text_config": {"hidden_size": -1}}')
        self.forward(model, "hidden_size")
        (model / "config.json").unlink()
        self.forward(model, "config.json")

    def test_damaged_images(self) -> None:
        data = golden("images/rgb_640x480.png").read_bytes()
        for name, content in (("cut.png", data[:1000]), ("empty.png", b""), ("text.png", b"hello")):
            path = self.folder / name
            path.write_bytes(content)
            self.forward(golden("checkpoints/llava15"), name, image=path)
        self.forward(golden("checkpoints/llava15"), "nothing.png", image=self.folder / "nothing.png")

    def test_images_and_places_must_agree(self) -> None:
        out = self.folder / "out.safetensors"
        self.refused(
            "inspect",
            "forward",
            "--model",
            golden("checkpoints/llava15"),
            "--prompt",
            "<image>\nHi",
            "--out",
            out,
            words=["image"],
        )
        self.refused(
            "inspect",
            "forward",
            "--model",
            golden("checkpoints/llava15"),
            "--image",
            golden("images/rgb_640x480.png"),
            "--prompt",
            "Hi",
            "--out",
            out,
            words=["image"],
        )
        self.assertFalse(out.exists())

    def test_bad_ids(self) -> None:
        out, ids = self.folder / "out.safetensors", self.folder / "ids.json"
        for content, word in (
            ("[1, 99999]", "99999"),
            ("[-5]", "-5"),
            ("[]", "ids.json"),
            ("{", "ids.json"),
            ('["a"]', '"a"'),
        ):
            ids.write_text(content)
            self.refused(
                "inspect",
                "forward",
                "--model",
                golden("checkpoints/llama"),
                "--ids",
                ids,
                "--out",
                out,
                words=[word],
            )
        self.assertFalse(out.exists())

    def test_a_closed_pipe_is_no_crash(self) -> None:
        with subprocess.Popen(
            [BINARY, "inspect", "recipe", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout and process.stderr
            process.stdout.close()
            error = process.stderr.read()
            self.assertIn(process.wait(timeout=30), (0, 1), error)


if __name__ == "__main__":
    unittest.main()
