#!/usr/bin/env python3
"""Training ids and labels by LLaVA-NeXT's own code (needs a clone of github.com/LLaVA-VL/LLaVA-NeXT):

  make_next_labels.py --llava-next CLONE --checkpoints DIR... --out tests/golden/next_labels.json

For the templates that original_labels.json lacks: what preprocess_multimodal() and preprocess() make of the samples (-200 image,
-100 ignored), or the error they raise. A checkpoint is looked for in each DIR in turn. What train.py imports besides, models,
trainer and deepspeed, is replaced by empty modules.
"""
import argparse, contextlib, copy, importlib, io, json, os, pathlib, sys, types

os.environ |= dict(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")
from transformers import AutoConfig, AutoTokenizer, StoppingCriteria, Trainer  # noqa: F401 (before deepspeed is replaced)

SAMPLES = dict(
    one=[["human", "<image>\nWhat is in the image?"], ["gpt", "A red cat on a chair."]],
    image_last=[["human", "What colour is it?\n<image>"], ["gpt", "Red."]],
    turns=[["human", "<image>\nWhat is this?"], ["gpt", "A clock."], ["human", "What time is it?"], ["gpt", "It's 12:45.\nAlmost one."], ["human", "Thanks!"], ["gpt", "You're welcome."]],
    text_only=[["human", "Hello, who are you?"], ["gpt", "I am an assistant."], ["human", "  Spaces   and\n\nlines "], ["gpt", "你好 😀"]],
    gpt_first=[["gpt", "I begin."], ["human", "<image>\nQ?"], ["gpt", "A."]],
    two_images=[["human", "<image>\n<image>\nCompare."], ["gpt", "The same."]],
    many_turns=[[who, f"{text} {i}{end}"] for i in range(6) for who, text, end in (("human", "Count on from", "?"), ("gpt", "Then comes", "!"))],
    inline_images=[["human", "First <image>, then <image>: which?"], ["gpt", "The second."]],
    later_image=[["human", "Hello"], ["gpt", "Hi!"], ["human", "And this?\n<image>"], ["gpt", "A door."]],
    image_in_answer=[["human", "Show me a cat."], ["gpt", "<image>\nHere."]],
    unicode=[["human", "naïve Ελλάδα שלום"], ["gpt", "日本語、e\u0301 👩\u200d👧\u00a0%"]],
    code=[["human", "def f(x):\n\treturn x\n\n\nWhy?"], ["gpt", "Because:\n\n1. a\n2.  b"], ["human", "'s"], ["gpt", "[INST] ## USER: x ASSISTANT: y"]],
    spaces=[["human", " a "], ["gpt", "  b  "], ["human", "c"], ["gpt", "d \n"]],
    leading_lines=[["human", "\nQ"], ["gpt", "\nA"], ["human", "\n\nQ"], ["gpt", "\n\nA"]],
    image_and_space=[["human", "<image>  What is it? "], ["gpt", "Snow."]],
    empty_answer=[["human", "Q"], ["gpt", ""], ["human", "Q2"], ["gpt", "A2"]],
    unanswered=[["human", "Q"], ["gpt", "A"], ["human", "Q2"]],
    end_tokens=[["human", "Is it </s> or <|im_end|> or <|eot_id|> or <end_of_turn>\n?"], ["gpt", "It depends."]],
    system_first=[["system", "Be brief."], ["human", "Q"], ["gpt", "A"]],
    system_later=[["human", "Q"], ["gpt", "A"], ["system", "Be brief."], ["human", "Q2"], ["gpt", "A2"]],
    two_questions=[["human", "Q"], ["human", "Q2"], ["gpt", "A"]])

# template, checkpoint
PAIRS = [("mistral_instruct", "llava15"), ("mistral_instruct", "llava_next_mistral"), ("mistral_instruct", "mistral"), ("mpt", "gemma_turns"), ("mpt", "llava_onevision"), ("chatml_direct", "gemma_turns"), ("mistral_orca", "gemma_turns"), ("mistral_zephyr", "llava15_orig"),
         ("qwen_1_5", "llava_onevision"), ("qwen_2_5", "llava_onevision"), ("gemma_instruct", "gemma_turns"), ("llava_llama_3", "llama3"), ("llava_llama_3", "llama3_lines")]


def empty_module(name):
    module = types.ModuleType(name)
    module.__all__ = []
    module.__getattr__ = lambda _: object
    sys.modules[name] = module


def load_train(clone):
    """llava.train.train of the clone, without the packages' own __init__.py."""
    for name in ("llava", "llava.train"):
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = [str(clone / name.replace(".", "/"))]
    for name in ("deepspeed", "llava.model", "llava.train.llava_trainer", "llava.utils"):
        empty_module(name)
    return importlib.import_module("llava.train.train")


def load_tokenizer(folders, checkpoint, template):
    folder = next(f / checkpoint for f in folders if (f / checkpoint).exists())
    # preprocess_qwen takes exactly two additional special tokens, as Qwen 1.5 and 2 have them and Qwen 2.5 has not
    special = dict(additional_special_tokens=["<|im_start|>", "<|im_end|>"]) if template == "qwen_1_5" else {}
    tok = AutoTokenizer.from_pretrained(folder, model_max_length=8192, padding_side="right", **special)
    if tok.unk_token is not None:  # as train() does
        tok.pad_token = tok.unk_token
    return tok


def preprocess(train, template, tok, turns):
    train.local_rank = 0
    train.conversation_lib.default_conversation = train.conversation_lib.conv_templates[template]
    source = [[{"from": who, "value": text} for who, text in turns]]
    image = any("<image>" in text for _, text in turns)
    args = types.SimpleNamespace(is_multimodal=True, mm_use_im_start_end=False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # "tokenization mismatch": the labels say so too
            out = train.preprocess(train.preprocess_multimodal(source, args) if image else source, tok, has_image=image)
    except Exception as e:
        return dict(error=f"{type(e).__name__}: {e}")
    return dict(input_ids=out["input_ids"][0].tolist(), labels=out["labels"][0].tolist())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--llava-next", type=pathlib.Path, required=True)
    ap.add_argument("--checkpoints", type=pathlib.Path, nargs="+", required=True)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    a = ap.parse_args()
    train = load_train(a.llava_next)
    rows = []
    for template, checkpoint in PAIRS:
        tok = load_tokenizer(a.checkpoints, checkpoint, template)
        for sample, turns in SAMPLES.items():
            row = preprocess(train, template, copy.deepcopy(tok), turns)
            rows.append(json.dumps(dict(template=template, checkpoint=checkpoint, sample=sample, **row), separators=(",", ":")))
            kind = row.get("error") or sum(x != -100 for x in row["labels"]) or "all masked"
            print(template, checkpoint, sample, kind)
    samples = {name: [{"from": who, "value": text} for who, text in turns] for name, turns in SAMPLES.items()}
    a.out.write_text('{"samples":' + json.dumps(samples) + ',\n"rows":[\n' + ",\n".join(rows) + "\n]}\n")


if __name__ == "__main__":
    main()
