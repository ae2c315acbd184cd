#!/usr/bin/env python3
"""llava judge with a model behind an OpenAI-compatible endpoint: a small server here plays the endpoint."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from family_test import write_png
from harness import BINARY, CliTest


def reply(text: object) -> dict:
    """What an endpoint answers."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


class Handler(BaseHTTPRequestHandler):
    """Notes the request, then does what the endpoint's list says next."""

    def do_POST(self) -> None:  # the name is the base class's
        endpoint: Endpoint = self.server.endpoint
        body = self.rfile.read(int(self.headers["Content-Length"]))
        endpoint.requests.append({"path": self.path, "headers": dict(self.headers), "body": json.loads(body)})
        answer = endpoint.answers.pop(0) if len(endpoint.answers) > 1 else endpoint.answers[0]
        if answer == "hang":
            endpoint.released.wait(20)
            return
        status, text = answer
        data = text.encode() if isinstance(text, str) else json.dumps(text).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status // 100 == 3:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Endpoint:
    """A server on the loopback; the last of its answers is repeated. "hang" never answers."""

    def __init__(self, *answers: object, tls: ssl.SSLContext | None = None) -> None:
        self.answers, self.requests, self.released = list(answers), [], threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a client that leaves is expected here
        self.server.endpoint = self
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends the server and what hangs in it."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


class JudgeEndpointTest(CliTest):
    """One endpoint a test."""

    def setUp(self) -> None:
        super().setUp()
        self.image = self.folder / "picture.jpg"  # a PNG: the type is that of the bytes
        write_png(self.image, 40, 30, 40)
        self.pair = {"id": "p", "image": str(self.image), "question": "What?", "answers": ["One.", "Two."]}
        self.single = {"id": 7, "images": [str(self.image)] * 2, "question": "Why {0}?", "answer": "Bécause."}
        self.text_only = {"id": 8, "question": "Why?", "answer": "So."}

    def endpoint(self, *answers: object, tls: ssl.SSLContext | None = None) -> Endpoint:
        endpoint = Endpoint(*answers, tls=tls)
        self.addCleanup(endpoint.close)
        return endpoint

    def judge(self, url: str, *arguments: object, lines: list[dict], env: dict | None = None, code: int = 0) -> list[dict]:
        """The output lines of a run that must end with `code`."""
        command = [BINARY, "judge", "--endpoint", url, *map(str, arguments)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=100, check=False, env=dict(os.environ, **env or {}))
        if "without an HTTP client" in result.stderr:
            raise unittest.SkipTest("built without an HTTP client")
        self.assertEqual(result.returncode, code, result.stderr)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def test_requests_carry_images_and_prompt_and_verdicts_are_read(self) -> None:
        endpoint = self.endpoint((200, reply("The second response is better, since …")), (200, reply("Score: 85\nIt names the cause.")))
        verdicts = self.judge(endpoint.url + "/", "--endpoint-model", "critic-7b", "--max-new-tokens", 99, lines=[self.pair, self.single])
        self.assertEqual(verdicts[0], {"id": "p", "verdict": "second", "score": None, "reason": "The second response is better, since …"})
        self.assertEqual((verdicts[1]["id"], verdicts[1]["verdict"], verdicts[1]["score"]), (7, None, 85))
        first, second = endpoint.requests
        self.assertEqual(first["path"], "/v1/chat/completions")
        self.assertEqual(first["headers"]["Content-Type"], "application/json")
        self.assertNotIn("Authorization", first["headers"])
        body = first["body"]
        self.assertEqual((body["model"], body["max_tokens"], body["temperature"]), ("critic-7b", 99, 0))
        self.assertEqual([message["role"] for message in body["messages"]], ["user"])
        image, text = body["messages"][0]["content"]
        head, data = image["image_url"]["url"].split(",")
        self.assertEqual((image["type"], head), ("image_url", "data:image/png;base64"))
        self.assertEqual(base64.b64decode(data, validate=True), self.image.read_bytes())
        self.assertEqual(text["type"], "text")
        self.assertIn("Question: [What?]\nThe first response: [One.]\nThe second response: [Two.]\n", text["text"])
        parts = second["body"]["messages"][0]["content"]
        self.assertEqual([part["type"] for part in parts], ["image_url", "image_url", "text"])
        self.assertIn("Question: [Why {0}?]\nThe LMM response: [Bécause.]\n", parts[2]["text"])

    def test_a_server_error_is_tried_again(self) -> None:
        endpoint = self.endpoint((500, "oops"), (429, {"error": {"message": "slow down"}}), (200, reply("Score: 60")))
        verdicts = self.judge(endpoint.url, lines=[self.text_only])
        self.assertEqual(verdicts[0]["score"], 60)
        self.assertEqual(len(endpoint.requests), 3)
        self.assertEqual(endpoint.requests[0]["body"], endpoint.requests[2]["body"])

    def test_hostile_replies_are_errors_of_their_lines(self) -> None:
        bad = [(200, "<html>no</html>"), (200, []), (200, {}), (200, {"choices": []}), (200, {"choices": "x"}), (200, reply(None)),
               (200, reply(["a"])), (200, "[" * 100000), (200, {"error": {"message": "no such model"}}),
               (404, {"error": {"message": "model critic does not exist"}}), (302, ""), (200, "x" * (20 << 20))]
        endpoint = self.endpoint(*bad, (200, reply("70/100")))
        verdicts = self.judge(endpoint.url, lines=[dict(self.text_only, id=i) for i in range(len(bad) + 1)], code=1)
        self.assertEqual([v["id"] for v in verdicts], list(range(len(bad) + 1)))
        for i, verdict in enumerate(verdicts[:-1]):
            self.assertEqual(verdict["line"], i + 1)
            self.assertLess(len(verdict["error"]), 1000)
        self.assertIn("no such model", verdicts[8]["error"])
        self.assertIn("404", verdicts[9]["error"])
        self.assertIn("model critic does not exist", verdicts[9]["error"])
        self.assertIn("redirect", verdicts[10]["error"])
        self.assertEqual(verdicts[-1]["score"], 70)
        self.assertEqual(len(endpoint.requests), len(bad) + 1)  # none of these is worth another try

    def test_a_hanging_endpoint_is_left_in_time(self) -> None:
        endpoint = self.endpoint("hang", (200, reply("Score: 1")))
        start = time.monotonic()
        verdicts = self.judge(endpoint.url, "--endpoint-timeout", 0.5, lines=[self.text_only, self.text_only], code=1)
        self.assertLess(time.monotonic() - start, 15)
        self.assertIn("0.5 s", verdicts[0]["error"])
        self.assertEqual(verdicts[1]["score"], 1)

    def test_nobody_listens(self) -> None:
        endpoint = Endpoint((200, ""))
        endpoint.close()
        verdicts = self.judge(endpoint.url, "--endpoint-retries", 1, lines=[self.text_only], code=1)
        self.assertIn(endpoint.url.split("/")[2], verdicts[0]["error"])

    def test_bad_lines_and_files_are_not_sent(self) -> None:
        endpoint = self.endpoint((200, reply("Score: 5")))
        (self.folder / "a.png").write_text("no image")
        lines = [dict(self.single, images=[str(self.folder / "a.png")]), dict(self.single, images=["/none.png"]), {"id": 3}, self.text_only]
        verdicts = self.judge(endpoint.url, lines=lines, code=1)
        self.assertIn("a.png", verdicts[0]["error"])
        self.assertIn("none.png", verdicts[1]["error"])
        self.assertIn("error", verdicts[2])
        self.assertEqual(verdicts[3]["score"], 5)
        self.assertEqual(len(endpoint.requests), 1)

    def test_ctrl_c_keeps_what_is_done(self) -> None:
        endpoint = self.endpoint((200, reply("Score: 5")), "hang")
        out, lines = self.folder / "out.jsonl", self.folder / "in.jsonl"
        lines.write_text((json.dumps(self.text_only) + "\n") * 3)
        process = subprocess.Popen([BINARY, "judge", "--endpoint", endpoint.url, "--input", lines, "--output", out], stderr=subprocess.PIPE, text=True)
        for _ in range(400):
            if len(endpoint.requests) == 2 or process.poll() is not None:
                break
            time.sleep(0.05)
        if process.poll() is not None and "without an HTTP client" in process.communicate()[1]:
            raise unittest.SkipTest("built without an HTTP client")
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(process.returncode, 75)
        self.assertEqual([json.loads(line)["score"] for line in out.read_text().splitlines()], [5])

    def test_the_key_comes_from_the_environment_and_goes_nowhere_else(self) -> None:
        endpoint = self.endpoint((401, {"error": {"message": "bad key"}}), (200, reply("Score: 5")))
        env = {"JUDGE_TEST_KEY": "sk-123"}
        verdicts = self.judge(endpoint.url, "--api-key-env", "JUDGE_TEST_KEY", lines=[self.text_only] * 2, env=env, code=1)
        self.assertIn("401", verdicts[0]["error"])
        self.assertNotIn("sk-123", json.dumps(verdicts))
        self.assertEqual(endpoint.requests[1]["headers"]["Authorization"], "Bearer sk-123")

    def test_wrong_usage_is_named(self) -> None:
        judge = ["judge", "--endpoint", "http://127.0.0.1:1/v1"]
        self.refused(*judge, "--model", "llava-nano", words=["--endpoint", "--model"])
        self.refused(*judge, "--device", "cpu", words=["--device"])
        self.refused("judge", "--endpoint-model", "x", words=["--endpoint"])
        self.refused(*judge, "--api-key-env", "NO_SUCH_VARIABLE_HERE", words=["NO_SUCH_VARIABLE_HERE"])
        self.refused("judge", "--endpoint", "127.0.0.1:8000", words=["127.0.0.1:8000", "http://"])
        self.refused(*judge, "--output", self.folder / "no" / "out", words=["out"])
        self.assertIn("--endpoint", self.ok("judge", "--help"))

    @unittest.skipUnless(shutil.which("openssl"), "the openssl program makes the certificate")
    def test_https_checks_the_certificate(self) -> None:
        key, certificate = self.folder / "key.pem", self.folder / "cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext",
                        "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        endpoint = self.endpoint((200, reply("Score: 5")), tls=context)
        probe = subprocess.run([BINARY, "judge", "--endpoint", endpoint.url], input="", capture_output=True, text=True, timeout=60, check=False)
        if "without" in probe.stderr:
            raise unittest.SkipTest("built without OpenSSL")
        verdicts = self.judge(endpoint.url, lines=[self.text_only], env={"SSL_CERT_FILE": str(certificate)})
        self.assertEqual(verdicts[0]["score"], 5)
        verdicts = self.judge(endpoint.url, lines=[self.text_only], code=1)
        self.assertIn("certificate", verdicts[0]["error"])
        other = endpoint.url.replace("127.0.0.1", "localhost")
        verdicts = self.judge(other, "--endpoint-retries", 0, lines=[self.text_only], env={"SSL_CERT_FILE": str(certificate)}, code=1)
        self.assertIn("error", verdicts[0])
        self.assertEqual(len(endpoint.requests), 1)


if __name__ == "__main__":
    unittest.main()
