#!/usr/bin/env python3
"""Two small tokenizers for the label goldens, cut from those of the reference checkpoints:

  make_turn_tokenizers.py --checkpoints DIR --out tests/golden/checkpoints

gemma_turns   sentencepiece pieces as in Gemma (a BOS, no dummy prefix, line breaks as pieces), with the turn tokens of Gemma
              and of ChatML
llama3_lines  byte pieces as in Llama 3, with the piece for two line breaks that the checkpoint's vocabulary lacks
"""
import argparse, json, pathlib

MERGES = 250
TURNS = ["<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def first_merges(full, chars):
    """The first merges whose parts are there: they are sorted by their results."""
    known, kept = set(chars), []
    for left, right in full["model"]["merges"]:
        if left in known and right in known and len(kept) < MERGES:
            known.add(left + right)
            kept.append([left, right])
    return kept


def added(ids):
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return [dict(id=i, content=text, **flags) for text, i in ids.items()]


def bos_first(bos, bos_id):
    own = {"SpecialToken": {"id": bos, "type_id": 0}}
    pair = [own, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return dict(type="TemplateProcessing", single=pair[:2], pair=pair, special_tokens={bos: dict(id=bos, ids=[bos_id], tokens=[bos])})


def write(folder, tokenizer, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(config, clean_up_tokenization_spaces=False, model_max_length=8192, tokenizer_class="PreTrainedTokenizerFast"), indent=1) + "\n")


def gemma_turns(source):
    full = json.loads((source / "tokenizer.json").read_text())
    chars = ["\n", "▁", *map(chr, range(33, 127))]
    merges = [*first_merges(full, chars), ["\n", "\n"]]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *TURNS, *(f"<0x{b:02X}>" for b in range(256)), *chars, *("".join(m) for m in merges)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    full["added_tokens"] = added({t: vocab[t] for t in pieces[: 4 + len(TURNS)]})
    full["normalizer"] = dict(type="Replace", pattern=dict(String=" "), content="▁")
    full["post_processor"] = bos_first("<bos>", vocab["<bos>"])
    full["decoder"]["decoders"] = [d for d in full["decoder"]["decoders"] if d["type"] != "Strip"]
    full["model"] |= dict(vocab=vocab, merges=merges)
    return full, dict(bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>")


def llama3_lines(source):
    full = json.loads((source / "tokenizer.json").read_text())
    chars = [piece for piece, i in full["model"]["vocab"].items() if i < 256]
    merges = [*first_merges(full, chars), ["Ċ", "Ċ"]]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*chars, *("".join(m) for m in merges)]))}
    specials = {text: len(vocab) + i for i, text in enumerate([*LLAMA3, "<image>"])}
    full["added_tokens"] = added(specials)
    full["post_processor"]["processors"][1] = bos_first(LLAMA3[0], specials[LLAMA3[0]])
    full["model"] |= dict(vocab=vocab, merges=merges)
    template = (source / "chat_template.jinja").read_text()
    return full, dict(bos_token=LLAMA3[0], eos_token="<|eot_id|>", pad_token="<|end_of_text|>", chat_template=template)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for a in ("--checkpoints", "--out"):
        ap.add_argument(a, type=pathlib.Path, required=True)
    a = ap.parse_args()
    write(a.out / "gemma_turns", *gemma_turns(a.checkpoints / "llava15"))
    write(a.out / "llama3_lines", *llama3_lines(a.checkpoints / "llama3"))


if __name__ == "__main__":
    main()
