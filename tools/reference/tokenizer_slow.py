#!/usr/bin/env python3
"""Makes tests/golden/tokenizers/slow_llama.json: Hugging Face's slow LlamaTokenizer on golden/checkpoints/llava15.

    tokenizer_slow.py GOLDEN OUT.json      # reference/golden

`legacy` and `modern`: the tokenizer_config.json used and rows [text, ids with BOS, decoded, decoded without special tokens]; rows
with text null are random ids.
"""
import json
import pathlib
import random
import shutil
import sys
import tempfile

from transformers import LlamaTokenizer


def rows(folder, texts, config):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    ids = [(t, tokenizer(t).input_ids) for t in texts]
    rng = random.Random(0)
    ids += [(None, [rng.choice((rng.randrange(8), rng.randrange(len(tokenizer)), rng.randrange(2040, len(tokenizer)))) for _ in range(rng.randint(1, 16))])
            for _ in range(60)]
    return dict(config=config, strings=[[t, x, tokenizer.decode(x), tokenizer.decode(x, skip_special_tokens=True)] for t, x in ids])


def main(golden, out):
    source = pathlib.Path(golden) / "checkpoints/llava15"
    texts = [row["text"] for row in json.loads((pathlib.Path(golden) / "tokenizers/llama.json").read_text())["strings"]]
    texts += ["a <tool> b<tool>", "<tool><tool> x", "<s><tool></s>", "<strip>  a  <strip> b"]
    base = json.loads((source / "tokenizer_config.json").read_text())
    flags = dict(lstrip=False, normalized=True, rstrip=False, single_word=False, special=False)
    base["added_tokens_decoder"]["2050"] = dict(content="<tool>", **flags)
    base["added_tokens_decoder"]["2051"] = dict(content="<strip>", **{**flags, "lstrip": True, "rstrip": True})
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        shutil.copy(source / "tokenizer.model", folder)
        data = {name: rows(folder, texts, {**base, "legacy": name == "legacy", "clean_up_tokenization_spaces": name == "modern"})
                for name in ("legacy", "modern")}
    pathlib.Path(out).write_text(json.dumps(data, separators=(",", ":")).replace("],[null", "],\n[null").replace('],["', '],\n["') + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
