#!/usr/bin/env python3
"""Score llava-nano's answers.

Each task is one pair of files: the questions that make_data.py wrote, and the lines {"id", "answer"} that
`llava chat --jsonl` printed for them:

    score.py --captions eval_captions.jsonl answers.jsonl --clothing eval_clothing.jsonl answers.jsonl \
             --easy eval_easy.jsonl answers.jsonl --pairs eval_pairs.jsonl answers.jsonl --clips eval_clips.jsonl answers.jsonl

Captions get CIDEr-D (pycocoevalcap); garments and easy-vqa get the share of right answers, where case and marks do
not count and the first word of an answer that is a possible answer counts. Clips get the share of frames whose sentence
shares most words with that frame's captions (chance: 1 of 5), and CIDEr-D of the frames. A question without an answer is wrong.
Pairs named --captions-gray and so on hold the answers about a plain gray picture, the blind baseline.
Yes/no questions (--pope, make_preference.py's) get accuracy, F1 and the share of "yes", as POPE does; --pope-compare takes
one file of questions and the answers of two models and says by a paired test whether they differ.
Prints one JSON document. Captions need the package pycocoevalcap; the rest needs the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

CLASSES = ["dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt"]
SPELLINGS = {"tshirt": "t-shirt", "tshirts": "t-shirt", "outerwear": "outwear", "jacket": "outwear",
             "coat": "outwear", "longsleeves": "longsleeve", "grey": "gray"}
EASY = ["circle", "rectangle", "triangle", "red", "green", "blue", "black", "gray", "teal", "brown", "yellow",
        "yes", "no"]
WHICH = ["image 1", "image 2", "both", "neither"]
CHOICES = {"clothing": CLASSES, "easy": EASY, "pairs": WHICH}


def read_jsonl(path: Path) -> list[dict]:
    """The records of a JSON lines file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def pair(questions: Path, answers: Path) -> list[tuple[dict, str]]:
    """Each question with its answer; an empty answer where there is none."""
    given = {str(line["id"]): str(line.get("answer") or "") for line in read_jsonl(answers)}
    asked = read_jsonl(questions)
    if asked and not any(str(q["id"]) in given for q in asked):
        raise ValueError(f"{answers}: no id in it belongs to {questions}")
    return [(question, given.get(str(question["id"]), "")) for question in asked]


def pick(answer: str, choices: list[str]) -> str:
    """The first possible answer named in an answer, or an empty string."""
    text = answer.lower()
    text = re.sub(r"\bt[\s-]?shirt", "t-shirt", text)
    text = re.sub(r"\blong[\s-]sleeve(s|d)?\b", "longsleeve", text)
    for word in re.findall(r"[a-z]+(?:-[a-z]+)*", text):
        word = SPELLINGS.get(word, word)
        for form in (word, word + "s", word[:-1] if word.endswith("s") else word):
            if form in choices:
                return form
    return ""


def truth_and_said(question: dict, answer: str, choices: list[str]) -> tuple[str, str]:
    """The right one of the choices and the one that the answer names."""
    if choices is WHICH:
        return (question["answer"].lower().rstrip("."),
                next((c for c in choices if answer.lower().strip().startswith(c)), ""))
    return question["answer"], pick(answer, choices)


def accuracy(pairs: list[tuple[dict, str]], choices: list[str]) -> dict:
    """The share of right answers, over all and by true answer."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    for question, answer in pairs:
        truth, said = truth_and_said(question, answer, choices)
        total[truth] += 1
        right[truth] += said == truth
        confusion[truth][said or "?"] += 1
    return {
        "accuracy": round(sum(right.values()) / max(1, sum(total.values())), 4),
        "questions": sum(total.values()),
        "by_answer": {name: round(right[name] / total[name], 3) for name in sorted(total)},
        "confusion": {name: dict(confusion[name].most_common(4)) for name in sorted(total)},
    }


def tokenise(sentences: dict[str, list[str]]) -> dict[str, list[str]]:
    """Lower-case words without marks: pycocoevalcap's tokenizer where Java is there, else the same rule by hand."""
    if shutil.which("java"):
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
        return PTBTokenizer().tokenize({k: [{"caption": s} for s in v] for k, v in sentences.items()})
    return {k: [" ".join(re.findall(r"[a-z0-9]+(?:[-'.][a-z0-9]+)*", s.lower())) for s in v]
            for k, v in sentences.items()}


def cider(pairs: list[tuple[dict, str]]) -> tuple[float, list[float], dict[str, list[str]]]:
    """CIDEr-D over all, of each caption in turn, and the captions' words."""
    from pycocoevalcap.cider.cider import Cider
    references = tokenise({str(q["id"]): q["references"] for q, _ in pairs})
    given = tokenise({str(q["id"]): [answer or "."] for q, answer in pairs})
    score, each = Cider().compute_score(references, given)
    return float(score), [float(one) for one in each], given


def captions(pairs: list[tuple[dict, str]]) -> dict:
    """CIDEr-D of captions, and how varied they are."""
    score, _, given = cider(pairs)
    lengths = [len(sentence[0].split()) for sentence in given.values()]
    return {
        "cider": round(score, 4),
        "photos": len(pairs),
        "distinct": len({sentence[0] for sentence in given.values()}),
        "mean_words": round(sum(lengths) / max(1, len(lengths)), 2),
        "tokenizer": "ptb" if shutil.which("java") else "simple",
    }


STOP = set("a an the is are in on of with and at to by its his her their it two one some while through for from as".split())


def frame_texts(answer: str) -> dict[int, str]:
    """The sentences of "Frame 1: ... Frame 2: ..."."""
    parts = re.split(r"\bFrame (\d+):", answer)
    return {int(number): text.strip() for number, text in zip(parts[1::2], parts[2::2])}


def own_share(text: str, references: list[list[str]], frame: int) -> float:
    """1 if a sentence shares more words with its own frame's references than with any other's, parts of it for ties."""
    words = set(re.findall(r"[a-z]+", text.lower())) - STOP
    found = [len(words & set(re.findall(r"[a-z]+", " ".join(sentences).lower()))) for sentences in references]
    best = max(found)
    return 1 / found.count(best) if found[frame] == best else 0.0


def frame_shares(question: dict, answer: str) -> list[float]:
    """own_share of each of a clip's frames; 0 for one that the answer leaves out."""
    texts, references = frame_texts(answer), question["references"]
    return [own_share(texts[i + 1], references, i) if texts.get(i + 1) else 0.0 for i in range(len(references))]


def frame_sentences(question: dict, answer: str) -> list[tuple[dict, str]]:
    """Each of a clip's frames as a question of its own."""
    texts = frame_texts(answer)
    return [({"id": f"{question['id']}-{i}", "references": own}, texts.get(i + 1, ""))
            for i, own in enumerate(question["references"])]


def clips(pairs: list[tuple[dict, str]]) -> dict:
    """Whether every frame is described in order, how well, and whether the words are of that frame and no other."""
    whole, shares, sentences = 0, [], []
    for question, answer in pairs:
        whole += list(frame_texts(answer)) == list(range(1, len(question["references"]) + 1))
        shares += frame_shares(question, answer)
        sentences += frame_sentences(question, answer)
    return {"clips": len(pairs), "every_frame_in_order": whole, "own_frame": round(sum(shares) / max(1, len(shares)), 4),
            "cider": captions(sentences)["cider"]}


def says_yes(answer: str) -> bool:
    """POPE's rule: the first sentence says no if it has one of the words no and not; all else is yes."""
    first = re.split(r"[.\n]", answer.strip(), maxsplit=1)[0]
    return not {"no", "not"} & set(re.findall(r"[a-z]+", first.lower().replace("n't", " not")))


def yes_no(pairs: list[tuple[dict, str]]) -> dict:
    """Accuracy, precision, recall and F1 of "yes", and the share of "yes", over all and by category."""
    def summary(asked: list[tuple[dict, str]]) -> dict:
        told = [(q["answer"] == "yes", says_yes(answer)) for q, answer in asked if answer]
        hits = sum(truth and said for truth, said in told)
        said_yes, are_yes = sum(said for _, said in told), sum(q["answer"] == "yes" for q, _ in asked)
        return {"accuracy": round(sum(truth == said for truth, said in told) / max(1, len(asked)), 4),
                "precision": round(hits / max(1, said_yes), 4), "recall": round(hits / max(1, are_yes), 4),
                "f1": round(2 * hits / max(1, said_yes + are_yes), 4),
                "yes_rate": round(said_yes / max(1, len(asked)), 4), "questions": len(asked)}

    categories = sorted({q["category"] for q, _ in pairs})
    return {**summary(pairs), "by_category": {c: summary([p for p in pairs if p[0]["category"] == c]) for c in categories}}


def compare_yes_no(first: list[tuple[dict, str]], second: list[tuple[dict, str]], draws: int = 10000) -> dict:
    """Whether two models' answers to the same questions differ: McNemar's exact test, and bootstrap intervals (95 %) of
    second minus first in accuracy and F1, photos drawn with all of their questions."""
    def outcome(pair_: tuple[dict, str]) -> tuple[bool, bool, bool]:
        truth, said = pair_[0]["answer"] == "yes", says_yes(pair_[1])
        return truth, said, bool(pair_[1]) and truth == said

    rows = [(q["images"][0], outcome((q, a)), outcome((q, b))) for (q, a), (_, b) in zip(first, second)]
    lost = sum(a[2] and not b[2] for _, a, b in rows)
    won = sum(b[2] and not a[2] for _, a, b in rows)
    differ = won + lost
    tail = sum(math.comb(differ, k) for k in range(min(won, lost) + 1)) / 2 ** differ if differ else 1.0
    # Per photo and model: right answers, "yes" rightly, "yes" said, questions with "yes".
    photos: dict[str, list[int]] = defaultdict(lambda: [0] * 8)
    for photo, *models in rows:
        for i, (truth, said, right) in enumerate(models):
            for j, value in enumerate((right, truth and said, said, truth)):
                photos[photo][4 * i + j] += value
    sizes = Counter(photo for photo, _, _ in rows)
    units = [(values, sizes[photo]) for photo, values in photos.items()]

    def gains(chosen: list[tuple[list[int], int]]) -> tuple[float, float]:
        total = [sum(column) for column in zip(*(values for values, _ in chosen))]
        asked = sum(size for _, size in chosen)
        f1 = [2 * total[4 * i + 1] / max(1, total[4 * i + 2] + total[4 * i + 3]) for i in (0, 1)]
        return (total[4] - total[0]) / asked, f1[1] - f1[0]

    rng = random.Random(0)
    drawn = [gains(rng.choices(units, k=len(units))) for _ in range(draws)]
    now = gains(units)
    interval = lambda i: [round(sorted(d[i] for d in drawn)[int(draws * q)], 4) for q in (0.025, 0.975)]
    return {"first": yes_no(first), "second": yes_no(second), "only_first_right": lost, "only_second_right": won,
            "mcnemar_p": round(min(1.0, 2 * tail), 6), "accuracy_gain": round(now[0], 4), "accuracy_gain_95": interval(0),
            "f1_gain": round(now[1], 4), "f1_gain_95": interval(1)}


def main() -> int:
    """Scores what was given; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    tasks = ("captions", "clothing", "easy", "pairs", "clips", "pope")
    for task in tasks:
        for suffix, what in (("", "photos"), ("-gray", "a plain gray picture")):
            parser.add_argument(f"--{task}{suffix}", nargs=2, type=Path, metavar=("QUESTIONS", "ANSWERS"),
                                help=f"{task}: the questions, and the answers about {what}")
    parser.add_argument("--pope-compare", nargs=3, type=Path, metavar=("QUESTIONS", "FIRST", "SECOND"),
                        help="yes/no questions, and the answers of two models")
    args = parser.parse_args()
    result: dict[str, dict] = {}
    try:
        for task in tasks:
            for suffix in ("", "_gray"):
                paths = getattr(args, task + suffix)
                if not paths:
                    continue
                pairs = pair(*paths)
                if task == "pope":
                    result[task + suffix] = yes_no(pairs)
                    continue
                if task in ("captions", "clips"):
                    result[task + suffix] = captions(pairs) if task == "captions" else clips(pairs)
                else:
                    result[task + suffix] = accuracy(pairs, CHOICES[task])
        if args.pope_compare:
            questions, *both = args.pope_compare
            result["pope_compare"] = compare_yes_no(*(pair(questions, answers) for answers in both))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"score: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"score: captions need the package pycocoevalcap ({error})", file=sys.stderr)
        return 2
    if not result:
        parser.error("nothing to score")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
