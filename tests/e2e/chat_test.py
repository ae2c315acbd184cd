#!/usr/bin/env python3
"""The command line around all verbs, and chat: answers, sessions, batches."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import unittest

from harness import BINARY, CliTest, golden, load_safetensors, run


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
        self.refused(
            "chat",
            "--dtype",
            "float31",
            "--model",
            golden("checkpoints/llava15"),
            "hi",
            words=["float31", "float32"],
        )
        self.refused(
            "chat", "--device", "tpu", "--model", golden("checkpoints/llava15"), "hi", words=["tpu", "cpu"]
        )
        self.refused("chat", "--context", "grow", "hi", words=["grow", "drop"])

    def test_unknown_model_lists_where_it_looked(self) -> None:
        self.refused("chat", "--model", "no-such-model", "hi", words=["no-such-model", "installed"])


class ChatTest(CliTest):
    """Answers, sessions and batches."""

    def setUp(self) -> None:
        super().setUp()
        self.model = golden("checkpoints/llava15")
        self.image = golden("images/rgb_640x480.png")
        self.options = ["--model", self.model, "--dtype", "float32", "--device", "cpu"]

    def test_greedy_answer_is_the_golden(self) -> None:
        text = self.ok(
            "chat", *self.options, "--image", self.image, "--max-new-tokens", 16, "--json", "What is this?"
        )
        expected = list(
            load_safetensors(golden("models/llava15.safetensors"))["image_rgb_640x480.png/greedy"][1]
        )
        answer = json.loads(text)
        self.assertEqual(answer["ids"], expected[: len(answer["ids"])])
        if answer["reason"] == "length":
            self.assertEqual(len(answer["ids"]), 16)
        self.assertEqual(answer["stats"]["image_tokens"], 64)

    def test_plain_output_and_stats(self) -> None:
        result = run(
            "chat", *self.options, "--image", self.image, "--max-new-tokens", 8, "--stats", "What is this?"
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.endswith("\n"))
        self.assertNotIn("\033", result.stdout)
        self.assertIn("64 of images", result.stderr)

    def test_a_question_may_follow_the_image(self) -> None:
        result = run("chat", *self.options, "--max-new-tokens", 4, "--json", "--image", self.image, "What is this?")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(result.stdout)["stats"]["image_tokens"], 64)

    def test_lines_of_a_pipe_are_a_conversation(self) -> None:
        lines = f"/image {self.image}\nWhat is this?\nAnd now?\n/clear\nHello\n/exit\nnever asked\n"
        text = self.ok("chat", *self.options, "--max-new-tokens", 4, "--json", stdin=lines)
        answers = [json.loads(line) for line in text.rstrip("\n").split("\n")]
        self.assertEqual([a["stats"]["image_tokens"] for a in answers], [64, 64, 0])
        self.assertGreater(answers[1]["stats"]["reused_tokens"], 64)

    def test_a_bad_line_does_not_end_a_session(self) -> None:
        result = run(
            "chat", *self.options, "--max-new-tokens", 4, stdin="/image nothing.png\n/jump\nHello\n"
        )
        self.assertEqual(result.returncode, 1)
        self.assertIn("nothing.png", result.stderr)
        self.assertIn("/jump", result.stderr)
        self.assertTrue(result.stdout.strip("\n") or result.stdout)

    def test_jsonl_answers_in_order_and_reports_bad_lines(self) -> None:
        lines = [
            {"id": 1, "images": [str(self.image)], "question": "What is this?"},
            {"id": "b", "images": [str(self.image)], "question": "What colour?"},
            {"id": 3, "images": ["gone.png"], "question": "Hm?"},
            {"id": 4, "question": "Hello"},
        ]
        stdin = "\n".join(map(json.dumps, lines)) + "\nnot json\n"
        result = run("chat", *self.options, "--max-new-tokens", 4, "--jsonl", "--stats", stdin=stdin)
        self.assertEqual(result.returncode, 1, result.stderr)
        answers = [json.loads(line) for line in result.stdout.rstrip("\n").split("\n")]
        self.assertEqual([a["id"] for a in answers], [1, "b", 3, 4, None])
        self.assertEqual(["answer" in a for a in answers], [True, True, False, True, False])
        self.assertIn("gone.png", answers[2]["error"])
        self.assertEqual(answers[1]["stats"]["image_ms"], 0)
        self.assertGreater(answers[1]["stats"]["reused_tokens"], 64)
        alone = run(
            "chat", *self.options, "--max-new-tokens", 4, "--jsonl", stdin=json.dumps(lines[1]) + "\n"
        )
        self.assertEqual(json.loads(alone.stdout)["answer"], answers[1]["answer"])

    def test_an_unwanted_image_is_refused(self) -> None:
        self.refused(
            "chat", "--model", golden("checkpoints/llama3"), "--image", self.image, "hi", words=["vision"]
        )

    def test_sigterm_ends_a_waiting_session(self) -> None:
        with subprocess.Popen(
            [BINARY, "chat", *map(str, self.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin and process.stdout
            process.stdin.write("Hello\n")
            process.stdin.flush()
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=30), 75)


if __name__ == "__main__":
    unittest.main()
