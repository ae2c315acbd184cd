#!/usr/bin/env python3
"""Compare two llava-nano models' answers to the same held-out questions, question by question.

    compare.py DATA FIRST SECOND

DATA holds eval_<task>.jsonl; FIRST and SECOND hold <task>.jsonl, as `scripts/score-nano --answers DIR` leaves them. For each
task that all three have, prints both scores, second minus first, and its 95 % interval from a paired bootstrap: whole
questions (for clips: whole clips) are drawn with the answers of both; yes/no questions get score.py's --pope-compare, which
draws whole photos. Captions and clips need the package pycocoevalcap.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import score


def item_scores(task: str, pairs: list[tuple[dict, str]]) -> dict[str, list[float]]:
    """A score a question under each measure of its task; the means over them are score.py's."""
    if task == "captions":
        return {"cider": score.cider(pairs)[1]}
    if task == "clips":
        shares = [score.frame_shares(q, a) for q, a in pairs]
        each = iter(score.cider([s for q, a in pairs for s in score.frame_sentences(q, a)])[1])
        return {"own_frame": [sum(s) / len(s) for s in shares],
                "cider": [sum(next(each) for _ in s) / len(s) for s in shares]}
    told = [score.truth_and_said(q, a, score.CHOICES[task]) for q, a in pairs]
    return {"accuracy": [float(truth == said) for truth, said in told]}


def paired(first: list[float], second: list[float], draws: int = 10000) -> dict:
    """Means, their difference and its interval."""
    gains = [b - a for a, b in zip(first, second)]
    rng = random.Random(0)
    means = sorted(sum(rng.choices(gains, k=len(gains))) / len(gains) for _ in range(draws))
    low, high = means[int(draws * 0.025)], means[int(draws * 0.975)]
    return {"first": round(sum(first) / len(first), 4), "second": round(sum(second) / len(second), 4),
            "gain": round(sum(gains) / len(gains), 4), "gain_95": [round(low, 4), round(high, 4)],
            "questions": len(gains), "worse": high < 0}


def main() -> int:
    """Prints the comparison; returns the exit status."""
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    data, *models = (Path(argument) for argument in sys.argv[1:])
    result: dict[str, dict] = {}
    try:
        for task in ("captions", "clothing", "easy", "pairs", "clips", "pope"):
            questions, answers = data / f"eval_{task}.jsonl", [model / f"{task}.jsonl" for model in models]
            if not all(path.exists() for path in (questions, *answers)):
                continue
            both = [score.pair(questions, path) for path in answers]
            if task == "pope":
                result[task] = score.compare_yes_no(*both)
                continue
            first, second = (item_scores(task, pairs) for pairs in both)
            result[task] = {name: paired(first[name], second[name]) for name in first}
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"compare: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if not result:
        print(f"compare: no task has questions in {data} and answers in both folders", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
