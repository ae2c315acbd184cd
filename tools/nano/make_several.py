#!/usr/bin/env python3
"""Build llava-nano's data about several photos at once, from the single-photo files that make_data.py wrote.

    make_several.py --data runs/nano-data

Reads train_flickr.jsonl, train_imagenet.jsonl (optional) and eval_captions.jsonl; writes beside them
    train_several.jsonl      pairs of photos ("Image 1:", "Image 2:") and clips of 3 to 5 frames ("Frame 1:" ...)
    eval_pairs.jsonl         held-out pairs: id, images, question, answer ("Image 1.", "Image 2.", "Both.", "Neither.")
    eval_clips.jsonl         held-out clips: id, video (a folder of five photos), question, references (for each frame its photo's captions)
The labels are those of models/llava-nano/config.json (mm_image_label, mm_frame_label). The questions of a record do
not depend on each other (train with `turns: independent`). The same seed and files give the same output.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from make_data import DESCRIBE, DESCRIBE_VARIANTS, THINGS, UNCOUNTED, split_words, with_article, write_jsonl

COMPARE = ["Compare the two images.", "Compare these two photos.", "What is the difference between the two images?",
           "How do the two photos differ?", "What do the two images show?"]
FRAMES = ["Describe this clip frame by frame.", "Describe the video frame by frame.", "What does each frame show?",
          "What happens in this clip?", "Describe every frame."]
KINDS = {  # what a photo shows above all, in the order of a comparison
    "a dog": "dog", "a woman": "woman", "a man": "man", "children": "child", "a cat": "cat", "a bird": "bird",
    "a horse": "horse",
}
CHOICES = ("Image 1.", "Image 2.", "Both.", "Neither.")

Photo = dict  # image: path, captions: list of sentences


def photos_of(path: Path) -> list[Photo]:
    """The photos of a training file with the answers to its requests for a description."""
    photos = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        turns = record["conversations"]
        captions = [answer["value"] for question, answer in zip(turns[::2], turns[1::2])
                    if question["value"].removeprefix("<image>\n") in (DESCRIBE, *DESCRIBE_VARIANTS)]
        if captions:
            photos.append({"image": record["image"], "captions": captions})
    return photos


def short_caption(photo: Photo) -> str:
    """The shortest caption that is a sentence: what a frame's description is trained on."""
    good = [caption for caption in photo["captions"] if len(caption.split()) >= 5]
    return min(good or photo["captions"], key=lambda caption: (len(caption), caption))


def shown(photo: Photo) -> dict[str, int]:
    """How many of a photo's captions mention each thing."""
    words = [set(split_words(caption)) for caption in photo["captions"]]
    return {thing: sum(bool(w & set(group.split())) for w in words) for thing, group in THINGS.items()}


def main_kind(counts: dict[str, int], captions: int) -> str | None:
    """What most captions name first among the kinds of a comparison."""
    for phrase, thing in KINDS.items():
        if counts[thing] * 2 > captions:
            return phrase
    return None


def comparison(photos: list[Photo], rng: random.Random) -> str:
    """Both photos described, and what they have in common or not where the captions are sure of it."""
    first, second = (rng.choice(photo["captions"]) for photo in photos)
    text = f"Image 1: {first} Image 2: {second}"
    kinds = [main_kind(shown(photo), len(photo["captions"])) for photo in photos]
    if all(kinds):
        text += f" Both show {kinds[0]}." if kinds[0] == kinds[1] else \
            f" The first shows {kinds[0]}, the second {kinds[1]}."
    return text


def which_shows(photos: list[Photo], rng: random.Random, wanted: str | None = None) -> tuple[str, str] | None:
    """Which of two photos shows a thing: a question and its answer, of kind `wanted` if that can be asked."""
    counts = [shown(photo) for photo in photos]
    sizes = [len(photo["captions"]) for photo in photos]
    by_answer: dict[str, list[str]] = {}
    for thing in THINGS:
        there = [2 * c[thing] > n for c, n in zip(counts, sizes)]
        absent = [c[thing] == 0 for c in counts]
        if all(a or b for a, b in zip(there, absent)):
            answer = CHOICES[2] if all(there) else CHOICES[3] if all(absent) else CHOICES[0] if there[0] else CHOICES[1]
            by_answer.setdefault(answer, []).append(thing)
    if wanted is not None and wanted not in by_answer:
        return None
    answer = wanted or rng.choice(sorted(by_answer))
    if answer == CHOICES[3]:  # things that photos often show; the others are too easy
        by_answer[answer] = [t for t in by_answer[answer] if t in ("dog", "man", "woman", "child", "water", "snow", "grass")]
    if not by_answer[answer]:
        return None
    thing = rng.choice(sorted(by_answer[answer]))
    return f"Which image shows {thing if thing in UNCOUNTED else with_article(thing)}?", answer


def labelled(label: str, count: int, question: str) -> str:
    """The first human turn as the program writes it: every photo behind its label, then the question."""
    return "".join(f"{label} {i}:\n<image>\n" for i in range(1, count + 1)) + question


def record(name: str, photos: list[Photo], label: str, turns: list[tuple[str, str]]) -> dict:
    """Several photos with questions about them as a LLaVA record."""
    conversations = []
    for question, answer in turns:
        value = question if conversations else labelled(label, len(photos), question)
        conversations += [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": [photo["image"] for photo in photos], "conversations": conversations}


def pair(index: int, pool: list[Photo], rng: random.Random) -> dict:
    """Two photos: compared, described one by one, and told apart by what they show."""
    photos = rng.sample(pool, 2)
    turns = [(f"Describe image {one + 1}.", short_caption(photos[one])) for one in (0, 1)]
    for wanted in (*CHOICES[:2], *CHOICES[:2], rng.choice(CHOICES[2:])):
        asked = which_shows(photos, rng, wanted)
        if asked and asked not in turns:
            turns.append(asked)
    turns = [(rng.choice(COMPARE), comparison(photos, rng)), *rng.sample(turns, len(turns))]
    return record(f"pair-{index}", photos, "Image", turns)


def clip(index: int, pool: list[Photo], rng: random.Random) -> dict:
    """Three to five frames: described in order, and one by one."""
    count = rng.randint(3, 5)
    photos = rng.sample(pool, count)
    for i in range(1, count):  # a scene may last several frames
        if rng.random() < 0.15:
            photos[i] = photos[i - 1]
    every = "\n".join(f"Frame {i}: {short_caption(photo)}" for i, photo in enumerate(photos, 1))
    turns = [(f"What does frame {one + 1} show?", short_caption(photos[one])) for one in rng.sample(range(count), 3)]
    return record(f"clip-{index}", photos, "Frame", [(rng.choice(FRAMES), every), *turns])


def frame_folder(folder: Path, photos: list[Photo]) -> str:
    """A folder whose files in the order of their names are the photos."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, photo in enumerate(photos, 1):
        link = folder / f"{i}{Path(photo['image']).suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(photo["image"])
    return str(folder)


def held_out(path: Path, pairs: int, clips: int, rng: random.Random) -> tuple[list[dict], list[dict]]:
    """Questions about photos that were not trained on."""
    pool = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pool.append({"image": row["images"][0], "captions": row["references"]})
    asked = []
    while len(asked) < pairs:
        photos = rng.sample(pool, 2)
        question = which_shows(photos, rng, CHOICES[len(asked) % 2] if len(asked) % 4 < 2 else None)
        if question:
            asked.append({"id": f"pair-{len(asked)}", "images": [p["image"] for p in photos],
                          "question": question[0], "answer": question[1]})
    films = []
    for i in range(clips):
        photos = rng.sample(pool, 5)
        films.append({"id": f"clip-{i}", "video": frame_folder(path.parent.resolve() / "clips" / str(i), photos),
                      "question": FRAMES[0],
                      "references": [p["captions"] for p in photos]})
    return asked, films


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--pairs", type=int, default=1400)
    parser.add_argument("--clips", type=int, default=850)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(f"{args.seed} several")
    try:
        pool = photos_of(args.data / "train_flickr.jsonl")
        imagenet = args.data / "train_imagenet.jsonl"
        if imagenet.is_file():
            pool += photos_of(imagenet)
        records = [pair(i, pool, rng) for i in range(args.pairs)] + [clip(i, pool, rng) for i in range(args.clips)]
        pairs, clips = held_out(args.data / "eval_captions.jsonl", 200, 40, random.Random(f"{args.seed} several eval"))
        write_jsonl(args.data / "train_several.jsonl", records)
        write_jsonl(args.data / "eval_pairs.jsonl", pairs)
        write_jsonl(args.data / "eval_clips.jsonl", clips)
    except (OSError, ValueError, KeyError) as error:
        print(f"make_several: {error}", file=sys.stderr)
        return 2
    print(f"train several: {len(records)} records; eval: {len(pairs)} pairs, {len(clips)} clips", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
