#!/usr/bin/env python3
"""Build the preference data of llava-nano from the five captions of Flickr8k's photos (--shared, see make_data.py).

Writes into --out
    preference.jsonl     pairs: id, image, prompt, chosen, rejected; a true caption against the same caption with one
                         object swapped for another of its kind that no caption of the photo mentions
    preference_yes_no.jsonl  pairs: a yes/no question about a training photo, the right answer against the wrong one
                         (--yes-no N; made as the held-out questions are)
    eval_pope.jsonl      yes/no questions on held-out photos: id, images, question, answer, category
    eval_pope_gray.jsonl the same questions about a plain gray picture

Training pairs never come from the photos that make_data.py holds out (--held-out, the same rule by name); questions come
from those alone. Half of the questions of each category are "yes": an object that two or more captions mention. The "no"
ask for an object that no caption mentions, as POPE does: random (any), popular (one of the most mentioned ones) or
adversarial (the one that most often stands beside what the photo shows). Objects are such that a caption would name, so
silence of five captions means absence in most cases, not in all. The same seed gives the same files, byte for byte.
Python's standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
from collections import Counter
from pathlib import Path

import make_data

# Objects of a kind: singular, plural, and other words that count as a mention. A swap stays within its kind.
KINDS: dict[str, list[tuple[str, str, str]]] = {
    "animal": [("dog", "dogs", "puppy puppies greyhound greyhounds poodle terrier retriever labrador collie hound hounds"),
               ("cat", "cats", "kitten kittens"), ("horse", "horses", "pony ponies horseback"),
               ("cow", "cows", "bull bulls cattle"), ("sheep", "sheep", "lamb lambs goat goats"),
               ("bird", "birds", "duck ducks seagull seagulls pigeon pigeons swan goose geese flamingo"),
               ("monkey", "monkeys", "ape"), ("rabbit", "rabbits", "bunny"), ("elephant", "elephants", "")],
    "person": [("man", "men", "guy guys gentleman male males"), ("woman", "women", "lady ladies female females"),
               ("boy", "boys", ""), ("girl", "girls", "")],
    "vehicle": [("bike", "bikes", "bicycle bicycles bmx cyclist cyclists biker bikers bicyclist biking"),
                ("motorcycle", "motorcycles", "motorbike motorbikes motorcyclist dirtbike moped scooter"),
                ("car", "cars", "vehicle vehicles taxi jeep suv"), ("truck", "trucks", "pickup"), ("bus", "buses", ""),
                ("train", "trains", "subway"), ("boat", "boats", "kayak canoe raft kayaker ship sailboat canoes kayaks"),
                ("plane", "planes", "airplane helicopter jet")],
    "board": [("skateboard", "skateboards", "skateboarder skateboarders skateboarding skater skaters skateboards"),
              ("surfboard", "surfboards", "surfer surfers surfing surf surfs wakeboard wakeboarder bodyboard"),
              ("snowboard", "snowboards", "snowboarder snowboarders snowboarding"),
              ("sled", "sleds", "sledding toboggan")],
    "toy": [("ball", "balls", "football basketball soccer baseball volleyball tennis softball balls rugby"),
            ("frisbee", "frisbees", "disc disk"), ("stick", "sticks", "branch branches twig"),
            ("kite", "kites", ""), ("balloon", "balloons", ""), ("rope", "ropes", "leash string"),
            ("doll", "dolls", "teddy")],
    "garment": [("hat", "hats", "cap caps helmet helmets beanie bandanna"), ("jacket", "jackets", "coat coats parka"),
                ("dress", "dresses", "gown skirt"), ("scarf", "scarves", "bandana"), ("backpack", "backpacks", "bag bags")],
    "instrument": [("guitar", "guitars", "guitarist bass"), ("drum", "drums", "drummer drumming"),
                   ("violin", "violins", "cello"), ("trumpet", "trumpets", "horn saxophone tuba")],
    "place": [("beach", "beaches", "sand sandy shore ocean coast"), ("street", "streets", "road sidewalk city crosswalk"),
              ("field", "fields", "grass grassy meadow lawn"), ("forest", "forests", "woods trees"),
              ("pool", "pools", "swimming"), ("mountain", "mountains", "cliff hill peak rocks rock")],
    "food": [("cake", "cakes", "birthday"), ("sandwich", "sandwiches", "burger"), ("apple", "apples", "fruit"),
             ("pizza", "pizzas", "")],
    "thing": [("umbrella", "umbrellas", "parasol"), ("camera", "cameras", "photographer photo photograph picture"),
              ("bench", "benches", ""), ("ladder", "ladders", ""), ("tent", "tents", "camping"),
              ("fountain", "fountains", ""), ("stroller", "strollers", "carriage")],
}
NOT_SWAPPED = {"place"}  # "on the beach" becomes "on the forest": words alone would tell
NOT_ASKED = {"garment", "street", "field", "mountain"}  # kinds and objects whose silence in captions says little
SURE = {"person": 3}  # captions that must name an object for a "yes"; else 2
PER_PHOTO = 3  # pairs of questions
# A swap is plain where the word ends its noun phrase: what follows is not another noun.
FOLLOWERS = set("is are was in on with and at by to of while through over under near next behind beside into onto that who "
                "as for from during around down up off along across against has have wearing holding or".split())
DETERMINERS = set("a an the two three four some several his her their its one another many".split())
COMMON = 12  # how many objects are "popular"


def objects() -> dict[str, tuple[str, set[str]]]:
    """Each object with its kind and all words that mention it."""
    return {one: (kind, {one, many, *words.split()}) for kind, group in KINDS.items() for one, many, words in group}


def mentioned(captions: list[str]) -> set[str]:
    """The objects that some caption mentions; "people" and "child" leave open which of the persons."""
    words = {part for caption in captions for word in make_data.split_words(caption) for part in (word, *word.split("-"))}
    found = {name for name, (_, own) in objects().items() if own & words}
    if words & set("person people child children kid kids toddler baby player players someone couple group rider crowd".split()):
        found |= {"man", "woman", "boy", "girl"}
    for grown, young in (("man", "boy"), ("woman", "girl")):  # nobody agrees on the age
        if {grown, young} & found:
            found |= {grown, young}
    return found


def named(caption: str) -> set[str]:
    """The objects that a caption calls by their own names."""
    words = set(make_data.split_words(caption))
    return {one for group in KINDS.values() for one, many, _ in group if {one, many} & words}


def swaps(caption: str, absent: list[str]) -> list[tuple[str, str, str]]:
    """Every caption that differs in one object, with the object and what stands for it."""
    known = objects()
    forms = {form: (one, i) for group in KINDS.values() for one, many, _ in group for i, form in ((1, many), (0, one))}
    plurals = {one: many for group in KINDS.values() for one, many, _ in group}
    tokens = re.findall(r"[A-Za-z0-9'-]+|[^A-Za-z0-9'\s-]", caption)
    lower = [t.lower() for t in tokens]
    found = []
    for i, word in enumerate(lower):
        if word not in forms:
            continue
        one, plural = forms[word]
        if known[one][0] in NOT_SWAPPED:
            continue
        follows = lower[i + 1] if i + 1 < len(lower) else "."
        ends = not follows[0].isalnum() or follows in FOLLOWERS or follows.endswith(("ing", "ed")) or (follows.endswith("s") and not plural and follows not in forms)
        before = lower[max(0, i - 4):i]
        if not ends or not DETERMINERS & set(before) or lower.count(word) > 1 or (i and lower[i - 1].endswith("'s")):
            continue
        if sum(w in known[one][1] for w in lower) > 1:  # the caption speaks of it again in other words
            continue
        for other in absent:
            if known[other][0] != known[one][0] or other == one:
                continue
            new = list(tokens)
            new[i] = plurals[other] if plural else other
            if i and lower[i - 1] in ("a", "an"):
                article = make_data.with_article(new[i]).split()[0]
                new[i - 1] = article.capitalize() if tokens[i - 1][0].isupper() else article
            found.append((join(new), one, other))
    return found


def join(tokens: list[str]) -> str:
    """Tokens as a sentence: no space before marks."""
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(tokens))
    return text[:1].upper() + text[1:]


class Plausible:
    """How well objects go with the other words of a caption: naive Bayes over all captions."""

    def __init__(self, captions: dict[str, list[str]]) -> None:
        self.own = {name: words for name, (_, words) in objects().items()}
        self.seen: Counter[str] = Counter()
        self.beside: dict[str, Counter[str]] = {name: Counter() for name in self.own}
        for caption in (c for group in captions.values() for c in group):
            words = set(make_data.split_words(caption))
            for name, own in self.own.items():
                if own & words:
                    self.seen[name] += 1
                    self.beside[name].update(words - own)

    def weights(self, caption: str, replaced: str, others: list[str]) -> list[float]:
        """For drawing one of `others`: likely ones often, unlikely ones seldom."""
        words = set(make_data.split_words(caption)) - self.own[replaced]
        scores = [math.log(1 + self.seen[o]) + sum(math.log((self.beside[o][w] + 0.2) / (self.seen[o] + 20)) for w in words) for o in others]
        return [math.exp((s - max(scores)) / 2) for s in scores]


def make_pairs(captions: dict[str, list[str]], names: list[str], folder: Path, per_photo: int, rng: random.Random) -> list[dict]:
    """Preference records. What stands in goes well with the rest of the caption, as what a model makes up does."""
    plausible = Plausible(captions)
    records = []
    for name in sorted(names):
        own = captions[name]
        absent = sorted(set(objects()) - mentioned(own))
        candidates = []
        for caption in dict.fromkeys(own):
            if not 4 <= len(make_data.split_words(caption)) <= 30:
                continue
            by_object: dict[str, list[tuple[str, str, str]]] = {}
            for swap in swaps(caption, absent):
                by_object.setdefault(swap[1], []).append(swap)
            for one, group in by_object.items():
                rejected, _, other = rng.choices(group, plausible.weights(caption, one, [s[2] for s in group]))[0]
                candidates.append((join(re.findall(r"[A-Za-z0-9'-]+|[^A-Za-z0-9'\s-]", caption)), rejected, one, other))
        rng.shuffle(candidates)
        seen: set[str] = set()
        for chosen, rejected, one, other in candidates:
            if chosen in seen or len(seen) == per_photo:
                continue
            seen.add(chosen)
            records.append({"id": f"{Path(name).stem}-{len(seen)}", "image": str(folder / "images" / name),
                            "prompt": "<image>\n" + make_data.describe_question(rng), "chosen": chosen,
                            "rejected": rejected, "swap": [one, other]})
    rng.shuffle(records)
    return records


def make_questions(captions: dict[str, list[str]], names: list[str], folder: Path, rng: random.Random) -> list[dict]:
    """As many "yes" as "no" in each category; each category has its own photos in turn."""
    asked = {name: kind for name, (kind, _) in objects().items() if not {kind, name} & NOT_ASKED}
    shown = {name: mentioned(own) & set(asked) for name, own in captions.items()}
    frequency = Counter(thing for things in shown.values() for thing in things)
    beside: dict[str, Counter[str]] = {thing: Counter() for thing in asked}
    for things in shown.values():
        for thing in things:
            beside[thing].update(things - {thing})
    popular = [thing for thing, _ in frequency.most_common(COMMON)]
    questions: list[dict] = []

    def ask(name: str, thing: str, answer: str, category: str) -> None:
        questions.append({"id": f"{category}-{len(questions)}", "images": [str(folder / "images" / name)],
                          "question": f"Is there {make_data.with_article(thing)} in the image?", "answer": answer,
                          "category": category, "object": thing})

    turn = 0
    for name in names:
        votes = Counter(thing for caption in captions[name] for thing in named(caption) & set(asked))
        sure = sorted((thing for thing, n in votes.items() if n >= SURE.get(asked[thing], 2)), key=lambda t: (-votes[t], t))
        used: set[str] = set()
        for thing in sure[:PER_PHOTO]:
            absent = sorted(set(asked) - shown[name] - used)
            category = ("random", "popular", "adversarial")[turn % 3]
            if category == "popular":
                absent = [t for t in popular if t in absent] or absent
            if category == "adversarial":
                near = sorted(absent, key=lambda t: (-sum(beside[s][t] for s in shown[name]), -frequency[t], t))
                absent = near[:1]
            other = rng.choice(absent)
            used.add(other)
            ask(name, thing, "yes", category)
            ask(name, other, "no", category)
            turn += 1
    return questions


def answer_pairs(questions: list[dict]) -> list[dict]:
    """Preference records of yes/no questions."""
    both = ("Yes.", "No.")
    return [{"id": f"question-{q['id']}", "image": q["images"][0], "prompt": "<image>\n" + q["question"],
             "chosen": both[q["answer"] == "no"], "rejected": both[q["answer"] == "yes"]} for q in questions]


def main() -> int:
    """Writes the files; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with flickr8k/{images,captions.csv}")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--held-out", type=int, default=300, metavar="N", help="photos kept back, as for make_data.py (300)")
    parser.add_argument("--pairs-per-photo", type=int, default=2, metavar="N", help="pairs of a photo (2)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="pairs in all (0: no limit)")
    parser.add_argument("--yes-no", type=int, default=1000, metavar="N", help="pairs of answers to yes/no questions (1000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        folder = (args.shared / "flickr8k").resolve(strict=True)
        captions = make_data.read_captions(folder)
        order = sorted(captions, key=make_data.held_out_key)
        if len(order) <= args.held_out:
            raise ValueError(f"{folder}: {len(order)} photos, none is left for training")
        pairs = make_pairs(captions, order[args.held_out:], folder, args.pairs_per_photo, random.Random(f"{args.seed} pairs"))
        if args.limit:
            pairs = pairs[:args.limit]
        questions = make_questions(captions, order[:args.held_out], folder, random.Random(f"{args.seed} pope"))
        rng = random.Random(f"{args.seed} yes-no")
        photos = rng.sample(order[args.held_out:], len(order) - args.held_out)
        answers = answer_pairs(make_questions(captions, photos, folder, rng)[:args.yes_no])
        args.out.mkdir(parents=True, exist_ok=True)
        gray = args.out.resolve() / "gray.png"
        make_data.write_atomically(gray, make_data.gray_png())
        for name, records in (("preference", pairs), ("preference_yes_no", answers), ("eval_pope", questions),
                              ("eval_pope_gray", [dict(q, images=[str(gray)]) for q in questions])):
            make_data.write_jsonl(args.out / f"{name}.jsonl", records)
            print(f"{name}.jsonl: {len(records)} records")
    except (OSError, ValueError) as error:
        print(f"make_preference: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
