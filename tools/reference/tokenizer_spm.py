#!/usr/bin/env python3
"""Makes tests/golden/tokenizers/spm_rules.json: a small sentencepiece BPE model with what Llama's has not, and its ids.

    tokenizer_spm.py CORPUS.txt STRINGS.json OUT.json      # reference/corpus.txt, a golden/tokenizers file

Character map, extra spaces removed, user-defined pieces, no byte fallback (so unknown characters). `proto` is the model in base64;
`strings` rows are [text, ids, decoded]. `--nfkc` (as fourth argument) takes the nmt_nfkc map instead: 330 kB, for a check by
hand.
"""
import base64
import io
import json
import pathlib
import random
import sys
import tempfile

import sentencepiece

RULES = [("A", "a"), ("B", "b"), ("ﬁ", "fi"), ("é", "e"), ("e\u0301", "e"), ("\u00a0", " "), ("\u3000", " "), ("\t", " "), ("\u200b", ""),
         ("½", "1/2"), ("Ａ", "a"), ("ab\u0301c", "X")]


def main(corpus, strings, out, nfkc=False):
    writer = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        for source, target in RULES:
            rules.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
        rules.flush()
        how = dict(normalization_rule_name="nmt_nfkc") if nfkc else dict(normalization_rule_tsv=rules.name)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(pathlib.Path(corpus).read_text().split("\n")), model_writer=writer, model_type="bpe", vocab_size=700, character_coverage=0.99,
            byte_fallback=False, user_defined_symbols=["<image>", "foo bar", "ab"], control_symbols=["[INST]"], num_threads=1,
            minloglevel=2, **how)
    model = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    texts = [row["text"] for row in json.loads(pathlib.Path(strings).read_text())["strings"]]
    texts += ["foo bar baz", " foo bar", "xab abc", "ABBA ab", "ab\u0301c ab\u0301", "a\u200b b", "\u200b", "  \u3000 x \t ", "[INST] a", "中文x字"]
    rng = random.Random(0)
    rows = [[t, model.encode(t), model.decode(model.encode(t))] for t in texts]
    for _ in range(50):
        ids = [rng.randrange(model.get_piece_size()) for _ in range(rng.randint(1, 12))]
        rows.append([None, ids, model.decode(ids)])
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    proto = base64.b64encode(writer.getvalue()).decode()
    pathlib.Path(out).write_text(f'{{"sentencepiece": "{sentencepiece.__version__}", "proto": "{proto}", "strings": [\n{body}\n]}}\n')


if __name__ == "__main__":
    main(*sys.argv[1:4], nfkc="--nfkc" in sys.argv)
