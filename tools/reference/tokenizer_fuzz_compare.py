#!/usr/bin/env python3
"""Compares our tokenizers with Hugging Face's and sentencepiece's on random Unicode strings.

    tokenizer_fuzz_compare.py --llava build/llava            # or --driver build/tests/unit/text/tokenize_driver
        [--golden ../shared/reference/golden] [--count 10000] [--seed 1]

For each tokenizer of golden/tokenizers: ids without and with special tokens, and the decoded text of those ids and of random
ids. `slow:` rows are Hugging Face's slow LlamaTokenizer on tokenizer.model, `spm:` rows sentencepiece alone (both need the
driver for anything but the original-layout checkpoints). Needs transformers 4.57, tokenizers 0.22, sentencepiece 0.2.
Exits 1 if anything differs and prints the first differences.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

BLOCKS = [(0x20, 0x7E), (0x20, 0x7E), (0x0, 0x1F), (0x7F, 0xA0), (0xA1, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x530, 0x6FF),
          (0x700, 0xDFF), (0xE00, 0x13FF), (0x1400, 0x1CFF), (0x1D00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF),
          (0x2C00, 0x2FFF), (0x3000, 0x33FF), (0x3400, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xE000, 0xFAFF),
          (0xFB00, 0xFFFF), (0x10000, 0x10FFF), (0x11000, 0x16FFF), (0x17000, 0x1CFFF), (0x1D000, 0x1EFFF), (0x1F000, 0x1FBFF),
          (0x20000, 0x33FFF), (0xE0000, 0xE01EF), (0xF0000, 0x10FFFF)]
BITS = ["the ", " image", "Hello", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "'s", "'LL", "'ſ", "don't", "I'VE", "12", "3456", "½",
        "e\u0301", "a\u0323\u0307", "\u1112\u1161\u11ab", "Å", "ﬁ", "中文", "😀", "👩‍👩‍👧‍👦", "🇫🇷", "ع", "क्", "▁", "▁▁", "_", "...", "?!",
        "<s>", "</s>", "<unk>", "<pad>", "<image>", "<video>", "<0x0A>", "[INST]", "[/INST]", "<|im_start|>", "<|im_end|>", "<|eot_id|>",
        "<|begin_of_text|>", "<tool_call>", "<|im_", "</"]


def random_string(rng):
    kind = rng.random()
    parts = []
    for _ in range(rng.randint(1, 24)):
        if rng.random() < (0.3 if kind < 0.6 else 0.8):
            parts.append(rng.choice(BITS))
        else:
            low, high = rng.choice(BLOCKS)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4))))
    return "".join(c for c in "".join(parts) if not 0xD800 <= ord(c) < 0xE000)


class Ours:
    """One run of our program over all lines."""

    def __init__(self, args):
        self.command = [args.driver] if args.driver else [args.llava, "inspect", "tokens"]
        self.is_driver = bool(args.driver)

    def run(self, model, lines, *flags):
        with tempfile.TemporaryFile() as file:
            file.write("".join(json.dumps(x) + "\n" for x in lines).encode())
            file.seek(0)
            done = subprocess.run([*self.command, "--model", str(model), *flags], stdin=file, stdout=subprocess.PIPE, check=True)
        out = [json.loads(line) for line in done.stdout.decode().rstrip("\n").split("\n")]
        assert len(out) == len(lines), (len(out), len(lines))
        return out


def report(name, what, inputs, expected, got):
    bad = [i for i in range(len(inputs)) if expected[i] != got[i]]
    print(f"{name:28} {what:16} {len(inputs):6} strings  {len(bad):5} differ", flush=True)
    for i in bad[:3]:
        print(f"  input    {inputs[i]!r}\n  expected {expected[i]!r}\n  got      {got[i]!r}")
    return len(bad)


def random_ids(rng, size):
    return [rng.randrange(size) for _ in range(rng.randint(1, 20))]


def compare_hf(ours, name, folder, tokenizer, texts, rng, model=None):
    model = model or folder
    ids = [tokenizer(t, add_special_tokens=False).input_ids for t in texts]
    bad = report(name, "ids", texts, ids, ours.run(model, texts))
    special = [tokenizer(t).input_ids for t in texts]
    bad += report(name, "ids --special", texts, special, ours.run(model, texts, "--special"))
    decodable = ids + [random_ids(rng, len(tokenizer)) for _ in texts]
    bad += report(name, "decode", decodable, [tokenizer.decode(x) for x in decodable], ours.run(model, decodable, "--decode"))
    if ours.is_driver:
        plain = [tokenizer.decode(x, skip_special_tokens=True) for x in decodable]
        bad += report(name, "decode, skip", decodable, plain, ours.run(model, decodable, "--decode", "--skip-special"))
    return bad


def compare_spm(ours, name, path, texts, rng):
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(str(path))
    bad = report(name, "ids", texts, [model.encode(t) for t in texts], ours.run(path, texts))
    ids = [random_ids(rng, model.get_piece_size()) for _ in texts]
    return bad + report(name, "decode", ids, [model.decode(x) for x in ids], ours.run(path, ids, "--decode"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llava")
    parser.add_argument("--driver")
    parser.add_argument("--golden", default=str(pathlib.Path(__file__).parents[3] / "shared/reference/golden"))
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not args.llava and not args.driver:
        parser.error("one of --llava and --driver is needed")
    import transformers
    rng = random.Random(args.seed)
    texts = [random_string(rng) for _ in range(args.count)]
    golden, ours, bad = pathlib.Path(args.golden), Ours(args), 0
    for file in sorted((golden / "tokenizers").glob("*.json")):
        head = json.loads(file.read_text().split(', "strings"')[0] + "}")
        folder = golden / "checkpoints" / head["checkpoint"]
        bad += compare_hf(ours, file.stem, folder, transformers.AutoTokenizer.from_pretrained(folder), texts, rng)
        if ours.is_driver and (folder / "tokenizer.model").exists():
            bad += compare_spm(ours, "spm:" + file.stem, folder / "tokenizer.model", texts, rng)
    for name in ("llava15_orig", "llava_next_orig"):
        folder = golden / "checkpoints" / name
        bad += compare_hf(ours, "slow:" + name, folder, transformers.LlamaTokenizer.from_pretrained(folder), texts, rng)
    for name in ("llava15", "mistral", "llava_siglip"):
        source = golden / "checkpoints" / name
        with tempfile.TemporaryDirectory() as scratch:   # without tokenizer.json both sides take tokenizer.model
            folder = pathlib.Path(scratch)
            for file in source.glob("*token*"):
                if file.name != "tokenizer.json":
                    (folder / file.name).write_bytes(file.read_bytes())
            bad += compare_hf(ours, "slow:" + name, folder, transformers.LlamaTokenizer.from_pretrained(folder), texts, rng)
    print("all equal" if bad == 0 else f"{bad} differences")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
