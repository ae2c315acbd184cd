#!/usr/bin/env python3
"""Makes tests/golden/tokenizers/parts.json: what each part of a tokenizer.json does to tricky texts, by `tokenizers` 0.22.

    tokenizer_parts.py OUT.json

`normalizers`: {"json", "rows": [[text, normalised]]}; `pre_tokenizers`: rows [text, pieces]; `decoders`: rows [tokens, text];
`whole`: {"json": a tokenizer.json, "rows": [[text, ids]]} for added tokens and BPE options; `unicode`: a checksum over all code
points of each property, and the normal forms of every character that has one.
"""
import json
import pathlib
import random
import sys
import zlib

import tokenizers
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

TEXTS = ["", " ", "a", " a b", "a  b ", "\ta\n\nb ", "Hello, World!", "I'm 12 of 3456, it's ½ or ١٢", "don't'LL x'S", "é e\u0301 \u1112\u1161\u11ab ﬁ ①²",
         "İSTANBUL ǅ Σ ẞ", "▁a▁▁b ▁c", "  two  spaces  ", "a\u00a0b\u3000c\u2028d", "😀👩‍👧 x", "--a--b-", "q\u0307\u0323 \u0344", "x\x85y\x0bz", "中文 字 12中3"]
SPLITS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def normalizer_cases():
    cases = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")]
    cases += [{"type": "Strip", "strip_left": left, "strip_right": right} for left in (True, False) for right in (True, False)]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    cases += [{"type": "Prepend", "prepend": "▁"}, replace, {"type": "Replace", "pattern": {"String": "--"}, "content": ""}]
    return cases + [{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace, {"type": "NFKC"}]}]


def pre_tokenizer_cases():
    split = lambda pattern, behavior, invert: dict(type="Split", pattern=pattern, behavior=behavior, invert=invert)
    cases = [split({"String": p}, b, i) for p in (" ", "-") for b in SPLITS for i in (False, True)]
    cases += [split({"Regex": r}, b, i) for r in (GPT2, LLAMA3, r"\p{N}", r"\p{N}{1,3}") for b, i in (("Isolated", False), ("Removed", True), ("MergedWithNext", False))]
    cases += [{"type": "ByteLevel", "add_prefix_space": p, "trim_offsets": True, "use_regex": r} for p in (True, False) for r in (True, False)]
    cases += [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": x} for s in ("always", "first", "never") for x in (True, False)]
    cases += [{"type": "Digits", "individual_digits": x} for x in (True, False)] + [{"type": "WhitespaceSplit"}]
    cases.append({"type": "Sequence", "pretokenizers": [split({"String": "-"}, "Removed", False), cases[-5], {"type": "Digits", "individual_digits": True}]})
    return cases


def decoder_cases():
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = lambda start, stop: {"type": "Strip", "content": " ", "start": start, "stop": stop}
    sequence = lambda *parts: {"type": "Sequence", "decoders": list(parts)}
    llama = sequence(replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip(1, 0))
    cases = [{"type": t} for t in ("ByteFallback", "Fuse")] + [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}]
    cases += [replace, strip(1, 0), strip(2, 1), sequence({"type": "Fuse"}, strip(0, 2)), llama, None]
    cases += [sequence({"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "ab"}, "content": "X"}), sequence(llama, strip(1, 1))]
    return cases + [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": True} for s in ("always", "first", "never")]


TOKENS = [["▁Hello", "▁world", "!"], ["▁", "▁a", "a", "b"], ["<0xE4>", "<0xB8>", "<0xAD>", "▁x"], ["x", "<0xE4>", "<0xB8>", "y", "<0xFF>", "<0x41>"], ["Ġa", "Ã", "©", "Ċ"],
          ["Ã", "x"], ["中", "Ġb"], ["<0x0a>", "<0x0A>", "<0xZZ>"], ["  a  ", " b ", "c  "], [" ", " ", "d", "  "], ["a", "b", "ab", "a", "a", "b"], []]


def build(model, decoder=None, **parts):
    return Tokenizer.from_str(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                                          "post_processor": None, "decoder": decoder, **parts, "model": model}))


def decode_rows(decoder):
    """A vocabulary of all tokens; the row's ids are decoded."""
    vocabulary = {t: i for i, t in enumerate(sorted({t for row in TOKENS for t in row}))}
    tokenizer = build({"type": "BPE", "vocab": vocabulary, "merges": []}, decoder)
    rows = []
    for row in TOKENS:
        try:
            rows.append([row, tokenizer.decode([vocabulary[t] for t in row])])
        except BaseException as e:   # Strip panics in the library where a token is shorter than what it strips
            if "Panic" not in type(e).__name__:
                raise
    return rows


def bpe(**options):
    vocab = {t: i for i, t in enumerate(["<unk>", "a", "b", "c", "ab", "abc", "bc", " ", "<0xC3>", "<0xA9>", "x", "▁", "abab", "T", "word"])}
    merges = ["b c", "a b", "ab c", "ab ab"] if options["fuse_unk"] else [["b", "c"], ["a", "b"], ["ab", "c"], ["ab", "ab"]]
    return {"type": "BPE", "vocab": vocab, "merges": merges, **options}


def whole_cases():
    token = lambda content, **flags: {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False, **flags}
    cases = [dict(model=bpe(unk_token=u, fuse_unk=f, byte_fallback=b, ignore_merges=i)) for u in ("<unk>", None) for f in (True, False) for b in (True, False) for i in (True, False)]
    added = [token("T", lstrip=True, rstrip=True), token("word", single_word=True), token("[S]", special=True), token("<a", special=True), token("<ab>", rstrip=True),
             token("ÀB", normalized=True), token("b c", normalized=True)]
    added = [dict(t, id=i) for t, i in zip(added, [13, 14, 15, 16, 17, 18, 19])]
    for normalizer in (None, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "▁"}):
        model = bpe(unk_token="<unk>", fuse_unk=False, byte_fallback=False, ignore_merges=False)
        cases.append(dict(model=model, added_tokens=added, normalizer=normalizer))
    return cases


WHOLE_TEXTS = ["", "abc", "ababab", "abcabc ab", "aéb", "éé", "aÿb", "ü", "a T  b", "T T", "  T  ", "word a", "aword", "a word.", "words", "_word", "[S]a[S]", "<a<ab>  c", "<ab",
               "ÀB àb ÀBc", "a b c", "ab [S] c", "abcabcabcabcabcabcabcabcabcabcabcabcbcbcababab", "中 a"]


def unicode_sums():
    """CRC-32 over one byte for each code point 0..0x10FFFF (surrogates 0): 1 where the property holds."""
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

    def crc(holds):
        flags = bytearray(0x110000)
        for c in holds:
            flags[c] = 1
        return zlib.crc32(bytes(flags))

    def matched(splitter):
        out = []
        for i in range(0, len(points), 512):
            block = points[i:i + 512]
            kept = {p for _, (a, b) in splitter.pre_tokenize_str("".join(map(chr, block))) for p in block[a:b]}
            out += [p for p in block if p not in kept]
        return out

    sums = {name: crc(matched(pre_tokenizers.Split(Regex(r), "removed"))) for name, r in (("letter", r"\p{L}"), ("number", r"\p{N}"), ("punctuation", r"\p{P}"), ("space", r"\s"))}
    sums["numeric"] = crc(c for c in points if len(pre_tokenizers.Digits(True).pre_tokenize_str("a" + chr(c))) == 2)
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        normalizer = getattr(normalizers, name)()
        text = "".join(x for c in points if (x := normalizer.normalize_str(chr(c))) != chr(c))
        sums[name] = zlib.crc32(text.encode())
    rng = random.Random(0)
    marks = [c for c in points if normalizers.NFD().normalize_str(chr(c) + "\u0334") != chr(c) + "\u0334"]
    starters = [ord(c) for c in "aeioungAEOq가각\u1100\u1161\u11a8α\u0915"]
    rows = ["".join(chr(rng.choice(rng.choice((marks, starters, points)))) for _ in range(rng.randint(2, 12))) for _ in range(300)]
    return dict(sums=sums, rows=[[t, *[getattr(normalizers, n)().normalize_str(t) for n in ("NFC", "NFD", "NFKC", "NFKD")]] for t in rows])


def main(out):
    load = lambda kind, case: getattr(build({"type": "BPE", "vocab": {}, "merges": []}, **{kind: case}), kind)
    data = dict(
        tokenizers=tokenizers.__version__,
        normalizers=[dict(json=c, rows=[[t, load("normalizer", c).normalize_str(t)] for t in TEXTS]) for c in normalizer_cases()],
        pre_tokenizers=[dict(json=c, rows=[[t, [p for p, _ in load("pre_tokenizer", c).pre_tokenize_str(t)]] for t in TEXTS]) for c in pre_tokenizer_cases()],
        decoders=[dict(json=c, rows=decode_rows(c)) for c in decoder_cases()],
        whole=[dict(json=source, rows=[[x, build(**source).encode(x).ids] for x in WHOLE_TEXTS]) for source in whole_cases()],
        unicode=unicode_sums())
    pathlib.Path(out).write_text(json.dumps(data, separators=(",", ":")).replace('{"json"', '\n{"json"') + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
