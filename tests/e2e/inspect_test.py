#!/usr/bin/env python3
"""The inspect verbs against the goldens (../shared/reference/README.md)."""

from __future__ import annotations

import array
import json
import shutil
import unittest
from pathlib import Path

from harness import FEATURES, LOGITS, PIXELS, CliTest, golden, is_supported, load_safetensors, run


class InspectTextTest(CliTest):
    """tokens, template, prompt, recipe."""

    def test_tokens_equal_the_golden(self) -> None:
        for path in sorted(golden("tokenizers").glob("*.json")):
            data = json.loads(path.read_text())
            if "checkpoint" not in data:  # a fixture of the unit tests
                continue
            try:
                model = golden("checkpoints/" + data["checkpoint"])
                if not is_supported(model):
                    continue
            except unittest.SkipTest:
                continue
            with self.subTest(path.stem):
                strings = data["strings"]
                texts = "".join(json.dumps(s["text"]) + "\n" for s in strings)
                plain = self.ok("inspect", "tokens", "--model", model, stdin=texts)
                self.assertEqual(
                    [json.loads(line) for line in plain.rstrip("\n").split("\n")],
                    [s["ids"] for s in strings],
                )
                special = self.ok("inspect", "tokens", "--model", model, "--special", stdin=texts)
                self.assertEqual(
                    [json.loads(line) for line in special.rstrip("\n").split("\n")],
                    [s["ids_special"] for s in strings],
                )
                ids = "".join(json.dumps(s["ids"]) + "\n" for s in strings)
                decoded = self.ok("inspect", "tokens", "--model", model, "--decode", stdin=ids)
                self.assertEqual(
                    [json.loads(line) for line in decoded.rstrip("\n").split("\n")],
                    [s["decode"] for s in strings],
                )

    def test_tokens_refuse_bad_lines_by_number(self) -> None:
        model = golden("checkpoints/llava15")
        result = run("inspect", "tokens", "--model", model, stdin='"fine"\nnot json\n')
        self.assertEqual(result.returncode, 2)
        self.assertIn("line 2", result.stderr)
        self.refused(
            "inspect", "tokens", "--model", model, "--decode", stdin='["a"]\n', words=["line 1", '"a"']
        )

    def test_templates_equal_the_golden(self) -> None:
        for name, entry in json.loads(golden("chat_templates.json").read_text()).items():
            try:
                model = golden("checkpoints/" + name)
                if not is_supported(model):
                    continue
            except unittest.SkipTest:
                continue
            for number, case in enumerate(entry["cases"]):
                with self.subTest(f"{name} {number}"):
                    flags = ["--generate"] if case["add_generation_prompt"] else []
                    text = self.ok(
                        "inspect", "template", "--model", model, *flags, stdin=json.dumps(case["messages"])
                    )
                    self.assertEqual(text, case["text"])

    def test_prompt_expands_images(self) -> None:
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
        ]
        text = self.ok(
            "inspect",
            "prompt",
            "--model",
            golden("checkpoints/llava15"),
            "--image",
            golden("images/rgb_640x480.png"),
            stdin=json.dumps(messages),
        )
        expected = load_safetensors(golden("models/llava15.safetensors"))[
            "image_rgb_640x480.png/input_ids"
        ][1]
        result = json.loads(text)
        self.assertEqual(result["input_ids"], list(expected))
        self.assertEqual([span["len"] for span in result["media_spans"]], [64])
        self.assertNotIn("labels", result)

    def test_prompt_labels_of_a_record(self) -> None:
        record = {
            "id": "1",
            "image": str(golden("images/rgb_640x480.png")),
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is this?"},
                {"from": "gpt", "value": "A test."},
            ],
        }
        result = json.loads(
            self.ok(
                "inspect",
                "prompt",
                "--train",
                "--model",
                golden("checkpoints/llava15"),
                stdin=json.dumps(record),
            )
        )
        self.assertEqual(len(result["labels"]), len(result["input_ids"]))
        supervised = [i for i, label in enumerate(result["labels"]) if label != -100]
        self.assertTrue(supervised)
        self.assertEqual(
            [result["labels"][i] for i in supervised], [result["input_ids"][i] for i in supervised]
        )

    def test_prompt_without_its_image_says_so(self) -> None:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hm?"}]}]
        self.refused(
            "inspect",
            "prompt",
            "--model",
            golden("checkpoints/llava15"),
            stdin=json.dumps(messages),
            words=["--image"],
        )

    def test_recipes(self) -> None:
        table = self.ok("inspect", "recipe")
        for name in (
            "llava-nano",
            "llava-1.5-7b",
            "llava-1.5-13b",
            "clip-vit-large-336",
            "llama-1.1b",
            "smollm2-135m",
        ):
            self.assertIn(name, table)
        self.assertIn("hidden_size: 4096", self.ok("inspect", "recipe", "llava-1.5-7b"))


class InspectModelTest(CliTest):
    """image, forward, weights."""

    def test_image_equals_the_reference_processor(self) -> None:
        out = self.folder / "image.safetensors"
        text = self.ok(
            "inspect",
            "image",
            "--model",
            golden("checkpoints/llava15"),
            golden("images/rgb_640x480.png"),
            "--out",
            out,
        )
        entry = json.loads(text)["images"][0]
        self.assertEqual((entry["tiles"], entry["grid"], entry["tokens"]), (1, [8, 8], 64))
        tensors = load_safetensors(out)
        self.assertEqual(tensors["image_sizes"], ([1, 2], array.array("q", [480, 640])))
        expected = load_safetensors(golden("models/llava15.safetensors"))[
            "image_rgb_640x480.png/pixel_values"
        ]
        self.assertEqual(tensors["pixel_values"][0], expected[0])
        self.close(tensors["pixel_values"][1], expected[1], PIXELS, "pixel_values")

    def compare_forward(self, name: str, case: str, entry: dict) -> None:
        """Every tensor of one golden case."""
        out = self.folder / "forward.safetensors"
        images = entry["images"] if "images" in entry else [entry["image"]]
        flags = [part for image in images for part in ("--image", golden("images/" + image))]
        if case == "video":
            frames = self.folder / "frames"
            shutil.rmtree(frames, ignore_errors=True)
            frames.mkdir()
            for i, image in enumerate(images):
                shutil.copyfile(golden("images/" + image), frames / f"{i:03}{Path(image).suffix}")
            flags = ["--video", frames]
        self.ok(
            "inspect",
            "forward",
            "--model",
            golden("checkpoints/" + name),
            *flags,
            "--prompt",
            entry["prompt"],
            "--out",
            out,
            "--generate",
            16,
        )
        tensors = load_safetensors(out)
        expected = {
            key[len(case) + 1 :]: value
            for key, value in load_safetensors(golden(f"models/{name}.safetensors")).items()
            if key.startswith(case + "/")
        }
        for key in ("input_ids", "greedy"):
            self.assertEqual(tensors[key][1], expected[key][1], key)
        tolerances = {
            "pixel_values": PIXELS,
            "pixel_values_videos": PIXELS,
            "vision_hidden": FEATURES,
            "projected": FEATURES,
            "inputs_embeds": FEATURES,
            "image_features": FEATURES,
            "final_hidden": FEATURES,
        }
        for key, tolerance in tolerances.items():
            if key in expected:
                self.assertEqual(tensors[key][0], expected[key][0], key)
                self.close(tensors[key][1], expected[key][1], tolerance, key)
        width = tensors["logits"][0][2]
        positions = expected["logits_pos"][1]
        rows = array.array("f")
        for position in positions:
            rows.extend(tensors["logits"][1][position * width : (position + 1) * width])
        self.close(rows, expected["logits"][1], LOGITS, "logits")

    def test_forward_equals_hugging_face(self) -> None:
        for name in ("llava15", "llava_siglip", "llava15_orig", "llava_next_mistral", "llava_next_orig", "llava_next_video",
                     "llava_onevision"):
            for case, entry in json.loads(golden(f"models/{name}.json").read_text()).items():
                if entry.get("prompt") is not None:
                    with self.subTest(f"{name} {case}"):
                        self.compare_forward(name, case, entry)

    def test_forward_takes_ids(self) -> None:
        expected = load_safetensors(golden("models/llama_rope_yarn.safetensors"))
        for case in ("short", "long"):
            ids = self.folder / "ids.json"
            ids.write_text(json.dumps(list(expected[case + "/input_ids"][1])))
            out = self.folder / "ids.safetensors"
            self.ok(
                "inspect",
                "forward",
                "--model",
                golden("checkpoints/llama_rope_yarn"),
                "--ids",
                ids,
                "--out",
                out,
            )
            self.close(
                load_safetensors(out)["final_hidden"][1],
                expected[case + "/final_hidden"][1],
                FEATURES,
                case,
            )

    def test_forward_of_a_tower_alone(self) -> None:
        for name in ("clip_vision", "siglip_vision"):
            expected = load_safetensors(golden(f"models/{name}.safetensors"))
            for image in json.loads(golden(f"models/{name}.json").read_text()):
                with self.subTest(f"{name} {image}"):
                    out = self.folder / "tower.safetensors"
                    self.ok(
                        "inspect",
                        "forward",
                        "--model",
                        golden("checkpoints/" + name),
                        "--image",
                        golden("images/" + image),
                        "--out",
                        out,
                    )
                    tensors = load_safetensors(out)
                    self.assertEqual(tensors["hidden_states"][0], expected[image + "/hidden_states"][0])
                    self.close(
                        tensors["pixel_values"][1],
                        expected[image + "/pixel_values"][1],
                        PIXELS,
                        "pixel_values",
                    )
                    self.close(
                        tensors["hidden_states"][1],
                        expected[image + "/hidden_states"][1],
                        FEATURES,
                        "hidden_states",
                    )

    def test_weights_are_complete(self) -> None:
        for name in ("llava15", "llava_siglip", "llava15_orig", "llava_next_mistral", "llava_next_orig", "llava_onevision", "llama", "llama3", "mistral"):
            with self.subTest(name):
                report = json.loads(self.ok("inspect", "weights", golden("checkpoints/" + name), "--json"))
                self.assertTrue(report["tensors"])
                self.assertEqual((report["missing"], report["misshaped"]), ([], []))

    def test_weights_against_another_recipe(self) -> None:
        result = run("inspect", "weights", golden("checkpoints/llava15"), "--recipe", "llava-1.5-7b")
        self.assertEqual(result.returncode, 2)
        self.assertIn("missing: ", result.stdout)
        self.assertIn("misshaped: ", result.stdout)


if __name__ == "__main__":
    unittest.main()
