#!/usr/bin/env python3
"""Runs the `llava` binary as a user does and compares what it writes with the goldens (../shared/reference/README.md).

Needs the standard library alone. LLAVA_BINARY names the program; LLAVA_GOLDEN the goldens, else those beside the
repository, else the committed subset. Cases whose golden is not here are skipped and say so.
"""

from __future__ import annotations

import array
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LLAVA_BINARY", str(ROOT / "build" / "llava"))
LOGITS, FEATURES, PIXELS = 2e-4, 5e-5, 1e-6  # the tolerances of the reference README


def golden(name: str) -> Path:
    """The golden's path; skips the test where it is not here."""
    roots = [Path(os.environ.get("LLAVA_GOLDEN", ROOT / ".." / "shared" / "reference" / "golden")), ROOT / "tests" / "golden"]
    for root in roots:
        if (root / name).exists():
            return (root / name).resolve()
    raise unittest.SkipTest(f"golden {name} is not here")


def run(*arguments: object, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    return subprocess.run([BINARY, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120,
                          env={**os.environ, **(env or {})}, check=False)


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


class UsageTest(CliTest):
    """The frame around all verbs."""

    def test_version_names_the_commit_quickly(self) -> None:
        begin = time.monotonic()
        text = self.ok("--version")
        self.assertRegex(text, r"^llava \d+\.\d+\.\d+ \(commit \S+, LibTorch \S+\)\n$")
        self.assertLess(time.monotonic() - begin, 5)

    def test_help_of_every_verb(self) -> None:
        self.assertIn("chat", self.ok("--help"))
        self.assertIn("--max-new-tokens", self.ok("chat", "--help"))
        for verb in ("tokens", "template", "image", "prompt", "forward", "weights", "recipe"):
            self.assertIn(verb, self.ok("inspect", "--help"))
            self.assertIn("--help", self.ok("inspect", verb, "--help"))

    def test_wrong_words_suggest_the_nearest(self) -> None:
        self.refused("chta", words=['"chta"', '"chat"'])
        self.refused("inspect", "token", words=['"tokens"'])
        self.refused("chat", "--max-new-token", "3", "hi", words=["--max-new-tokens"])
        self.refused("inspect", "recipe", "llava-1.5-7", words=["llava-1.5-7b"])
        self.refused(words=["verb"])

    def test_wrong_values_name_the_option(self) -> None:
        self.refused("chat", "--temperature", "hot", "hi", words=["--temperature"])
        self.refused("chat", "--temperature", "-1", "hi", words=["temperature"])
        self.refused("chat", "--top-p", "2", "hi", words=["top_p"])
        self.refused("chat", "--dtype", "float31", "--model", golden("checkpoints/llava15"), "hi", words=["float31", "float32"])
        self.refused("chat", "--device", "tpu", "--model", golden("checkpoints/llava15"), "hi", words=["tpu", "cpu"])
        self.refused("chat", "--context", "grow", "hi", words=["grow", "drop"])

    def test_unknown_model_lists_where_it_looked(self) -> None:
        self.refused("chat", "--model", "no-such-model", "hi", words=["no-such-model", "installed"])


class InspectTextTest(CliTest):
    """tokens, template, prompt, recipe."""

    def test_tokens_equal_the_golden(self) -> None:
        for path in sorted(golden("tokenizers").glob("*.json")):
            data = json.loads(path.read_text())
            try:
                model = golden("checkpoints/" + data["checkpoint"])
                if json.loads((model / "config.json").read_text())["model_type"] not in ("llava", "llama", "mistral", "qwen2"):
                    continue
            except unittest.SkipTest:
                continue
            with self.subTest(path.stem):
                strings = data["strings"]
                texts = "".join(json.dumps(s["text"]) + "\n" for s in strings)
                plain = self.ok("inspect", "tokens", "--model", model, stdin=texts)
                self.assertEqual([json.loads(line) for line in plain.rstrip("\n").split("\n")], [s["ids"] for s in strings])
                special = self.ok("inspect", "tokens", "--model", model, "--special", stdin=texts)
                self.assertEqual([json.loads(line) for line in special.rstrip("\n").split("\n")], [s["ids_special"] for s in strings])
                ids = "".join(json.dumps(s["ids"]) + "\n" for s in strings)
                decoded = self.ok("inspect", "tokens", "--model", model, "--decode", stdin=ids)
                self.assertEqual([json.loads(line) for line in decoded.rstrip("\n").split("\n")], [s["decode"] for s in strings])

    def test_tokens_refuse_bad_lines_by_number(self) -> None:
        model = golden("checkpoints/llava15")
        result = run("inspect", "tokens", "--model", model, stdin='"fine"\nnot json\n')
        self.assertEqual(result.returncode, 2)
        self.assertIn("line 2", result.stderr)
        self.refused("inspect", "tokens", "--model", model, "--decode", stdin='["a"]\n', words=["line 1", '"a"'])

    def test_templates_equal_the_golden(self) -> None:
        for name, entry in json.loads(golden("chat_templates.json").read_text()).items():
            try:
                model = golden("checkpoints/" + name)
                if json.loads((model / "config.json").read_text())["model_type"] not in ("llava", "llama", "mistral", "qwen2"):
                    continue
            except unittest.SkipTest:
                continue
            for number, case in enumerate(entry["cases"]):
                with self.subTest(f"{name} {number}"):
                    flags = ["--generate"] if case["add_generation_prompt"] else []
                    text = self.ok("inspect", "template", "--model", model, *flags, stdin=json.dumps(case["messages"]))
                    self.assertEqual(text, case["text"])

    def test_prompt_expands_images(self) -> None:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        text = self.ok("inspect", "prompt", "--model", golden("checkpoints/llava15"), "--image",
                       golden("images/rgb_640x480.png"), stdin=json.dumps(messages))
        expected = load_safetensors(golden("models/llava15.safetensors"))["image_rgb_640x480.png/input_ids"][1]
        result = json.loads(text)
        self.assertEqual(result["input_ids"], list(expected))
        self.assertEqual([span["len"] for span in result["media_spans"]], [64])
        self.assertNotIn("labels", result)

    def test_prompt_labels_of_a_record(self) -> None:
        record = {"id": "1", "image": str(golden("images/rgb_640x480.png")), "conversations": [
            {"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A test."}]}
        result = json.loads(self.ok("inspect", "prompt", "--train", "--model", golden("checkpoints/llava15"),
                                    stdin=json.dumps(record)))
        self.assertEqual(len(result["labels"]), len(result["input_ids"]))
        supervised = [i for i, label in enumerate(result["labels"]) if label != -100]
        self.assertTrue(supervised)
        self.assertEqual([result["labels"][i] for i in supervised], [result["input_ids"][i] for i in supervised])

    def test_prompt_without_its_image_says_so(self) -> None:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hm?"}]}]
        self.refused("inspect", "prompt", "--model", golden("checkpoints/llava15"), stdin=json.dumps(messages), words=["--image"])

    def test_recipes(self) -> None:
        table = self.ok("inspect", "recipe")
        for name in ("llava-nano", "llava-1.5-7b", "llava-1.5-13b", "clip-vit-large-336", "llama-1.1b", "smollm2-135m"):
            self.assertIn(name, table)
        self.assertIn("hidden_size: 4096", self.ok("inspect", "recipe", "llava-1.5-7b"))


class InspectModelTest(CliTest):
    """image, forward, weights."""

    def test_image_equals_the_reference_processor(self) -> None:
        out = self.folder / "image.safetensors"
        text = self.ok("inspect", "image", "--model", golden("checkpoints/llava15"), golden("images/rgb_640x480.png"), "--out", out)
        entry = json.loads(text)["images"][0]
        self.assertEqual((entry["tiles"], entry["grid"], entry["tokens"]), (1, [8, 8], 64))
        tensors = load_safetensors(out)
        self.assertEqual(tensors["image_sizes"], ([1, 2], array.array("q", [480, 640])))
        expected = load_safetensors(golden("models/llava15.safetensors"))["image_rgb_640x480.png/pixel_values"]
        self.assertEqual(tensors["pixel_values"][0], expected[0])
        self.close(tensors["pixel_values"][1], expected[1], PIXELS, "pixel_values")

    def compare_forward(self, name: str, case: str, entry: dict) -> None:
        """Every tensor of one golden case."""
        out = self.folder / "forward.safetensors"
        images = entry["images"] if "images" in entry else [entry["image"]]
        flags = [part for image in images for part in ("--image", golden("images/" + image))]
        self.ok("inspect", "forward", "--model", golden("checkpoints/" + name), *flags, "--prompt", entry["prompt"], "--out", out,
                "--generate", 16)
        tensors = load_safetensors(out)
        expected = {key[len(case) + 1 :]: value for key, value in
                    load_safetensors(golden(f"models/{name}.safetensors")).items() if key.startswith(case + "/")}
        for key in ("input_ids", "greedy"):
            self.assertEqual(tensors[key][1], expected[key][1], key)
        tolerances = {"pixel_values": PIXELS, "vision_hidden": FEATURES, "projected": FEATURES, "inputs_embeds": FEATURES,
                      "image_features": FEATURES, "final_hidden": FEATURES}
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
        for name in ("llava15", "llava_siglip", "llava15_orig"):
            for case, entry in json.loads(golden(f"models/{name}.json").read_text()).items():
                if "prompt" in entry:
                    with self.subTest(f"{name} {case}"):
                        self.compare_forward(name, case, entry)

    def test_forward_takes_ids(self) -> None:
        expected = load_safetensors(golden("models/llama_rope_yarn.safetensors"))
        for case in ("short", "long"):
            ids = self.folder / "ids.json"
            ids.write_text(json.dumps(list(expected[case + "/input_ids"][1])))
            out = self.folder / "ids.safetensors"
            self.ok("inspect", "forward", "--model", golden("checkpoints/llama_rope_yarn"), "--ids", ids, "--out", out)
            self.close(load_safetensors(out)["final_hidden"][1], expected[case + "/final_hidden"][1], FEATURES, case)

    def test_forward_of_a_tower_alone(self) -> None:
        for name in ("clip_vision", "siglip_vision"):
            expected = load_safetensors(golden(f"models/{name}.safetensors"))
            for image in json.loads(golden(f"models/{name}.json").read_text()):
                with self.subTest(f"{name} {image}"):
                    out = self.folder / "tower.safetensors"
                    self.ok("inspect", "forward", "--model", golden("checkpoints/" + name), "--image", golden("images/" + image),
                            "--out", out)
                    tensors = load_safetensors(out)
                    self.assertEqual(tensors["hidden_states"][0], expected[image + "/hidden_states"][0])
                    self.close(tensors["pixel_values"][1], expected[image + "/pixel_values"][1], PIXELS, "pixel_values")
                    self.close(tensors["hidden_states"][1], expected[image + "/hidden_states"][1], FEATURES, "hidden_states")

    def test_weights_are_complete(self) -> None:
        for name in ("llava15", "llava_siglip", "llava15_orig", "llama", "llama3", "mistral"):
            with self.subTest(name):
                report = json.loads(self.ok("inspect", "weights", golden("checkpoints/" + name), "--json"))
                self.assertTrue(report["tensors"])
                self.assertEqual((report["missing"], report["misshaped"]), ([], []))

    def test_weights_against_another_recipe(self) -> None:
        result = run("inspect", "weights", golden("checkpoints/llava15"), "--recipe", "llava-1.5-7b")
        self.assertEqual(result.returncode, 2)
        self.assertIn("missing: ", result.stdout)
        self.assertIn("misshaped: ", result.stdout)


class ChatTest(CliTest):
    """Answers, sessions and batches."""

    def setUp(self) -> None:
        super().setUp()
        self.model = golden("checkpoints/llava15")
        self.image = golden("images/rgb_640x480.png")
        self.options = ["--model", self.model, "--dtype", "float32", "--device", "cpu"]

    def test_greedy_answer_is_the_golden(self) -> None:
        text = self.ok("chat", *self.options, "--image", self.image, "--max-new-tokens", 16, "--json", "What is this?")
        expected = list(load_safetensors(golden("models/llava15.safetensors"))["image_rgb_640x480.png/greedy"][1])
        answer = json.loads(text)
        self.assertEqual(answer["ids"], expected[: len(answer["ids"])])
        if answer["reason"] == "length":
            self.assertEqual(len(answer["ids"]), 16)
        self.assertEqual(answer["stats"]["image_tokens"], 64)

    def test_plain_output_and_stats(self) -> None:
        result = run("chat", *self.options, "--image", self.image, "--max-new-tokens", 8, "--stats", "What is this?")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.endswith("\n"))
        self.assertNotIn("\033", result.stdout)
        self.assertIn("64 of images", result.stderr)

    def test_lines_of_a_pipe_are_a_conversation(self) -> None:
        lines = f"/image {self.image}\nWhat is this?\nAnd now?\n/clear\nHello\n/exit\nnever asked\n"
        text = self.ok("chat", *self.options, "--max-new-tokens", 4, "--json", stdin=lines)
        answers = [json.loads(line) for line in text.rstrip("\n").split("\n")]
        self.assertEqual([a["stats"]["image_tokens"] for a in answers], [64, 64, 0])
        self.assertGreater(answers[1]["stats"]["reused_tokens"], 64)

    def test_a_bad_line_does_not_end_a_session(self) -> None:
        result = run("chat", *self.options, "--max-new-tokens", 4, stdin="/image nothing.png\n/jump\nHello\n")
        self.assertEqual(result.returncode, 1)
        self.assertIn("nothing.png", result.stderr)
        self.assertIn("/jump", result.stderr)
        self.assertTrue(result.stdout.strip("\n") or result.stdout)

    def test_jsonl_answers_in_order_and_reports_bad_lines(self) -> None:
        lines = [{"id": 1, "images": [str(self.image)], "question": "What is this?"},
                 {"id": "b", "images": [str(self.image)], "question": "What colour?"},
                 {"id": 3, "images": ["gone.png"], "question": "Hm?"},
                 {"id": 4, "question": "Hello"}]
        stdin = "\n".join(map(json.dumps, lines)) + "\nnot json\n"
        result = run("chat", *self.options, "--max-new-tokens", 4, "--jsonl", "--stats", stdin=stdin)
        self.assertEqual(result.returncode, 1, result.stderr)
        answers = [json.loads(line) for line in result.stdout.rstrip("\n").split("\n")]
        self.assertEqual([a["id"] for a in answers], [1, "b", 3, 4, None])
        self.assertEqual(["answer" in a for a in answers], [True, True, False, True, False])
        self.assertIn("gone.png", answers[2]["error"])
        self.assertEqual(answers[1]["stats"]["image_ms"], 0)
        self.assertGreater(answers[1]["stats"]["reused_tokens"], 64)
        alone = run("chat", *self.options, "--max-new-tokens", 4, "--jsonl", stdin=json.dumps(lines[1]) + "\n")
        self.assertEqual(json.loads(alone.stdout)["answer"], answers[1]["answer"])

    def test_an_unwanted_image_is_refused(self) -> None:
        self.refused("chat", "--model", golden("checkpoints/llama3"), "--image", self.image, "hi", words=["vision"])

    def test_sigterm_ends_a_waiting_session(self) -> None:
        with subprocess.Popen([BINARY, "chat", *map(str, self.options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            assert process.stdin and process.stdout
            process.stdin.write("Hello\n")
            process.stdin.flush()
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=30), 75)


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
        self.refused("inspect", "forward", "--model", model, "--image", image, "--prompt", "<image>\nHi", "--out", out, words=list(words))
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
        self.refused("inspect", "forward", "--model", golden("checkpoints/llava15"), "--prompt", "<image>\nHi", "--out", out, words=["image"])
        self.refused("inspect", "forward", "--model", golden("checkpoints/llava15"), "--image", golden("images/rgb_640x480.png"),
                     "--prompt", "Hi", "--out", out, words=["image"])
        self.assertFalse(out.exists())

    def test_bad_ids(self) -> None:
        out, ids = self.folder / "out.safetensors", self.folder / "ids.json"
        for content, word in (("[1, 99999]", "99999"), ("[-5]", "-5"), ("[]", "ids.json"), ("{", "ids.json"), ('["a"]', '"a"')):
            ids.write_text(content)
            self.refused("inspect", "forward", "--model", golden("checkpoints/llama"), "--ids", ids, "--out", out, words=[word])
        self.assertFalse(out.exists())

    def test_a_closed_pipe_is_no_crash(self) -> None:
        with subprocess.Popen([BINARY, "inspect", "recipe", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stderr
            process.stdout.close()
            error = process.stderr.read()
            self.assertIn(process.wait(timeout=30), (0, 1), error)


if __name__ == "__main__":
    unittest.main()
