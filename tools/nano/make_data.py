#!/usr/bin/env python3
"""Build the instruction data of llava-nano.

Reads, where they are present, Flickr8k photos with captions, garment photos and one photo for each ImageNet class
(--shared, laid out as flickr8k/{images,captions.csv}, clothing/{train,validation}/<class>/ and
imagenet-1-per-class/), and the data folder of the PyPI package easy-vqa (--easy-vqa). Each source is optional.

Writes into --out
    train.jsonl              every training record, shuffled
    train_<source>.jsonl     the same by source: flickr, clothing, imagenet, easy
    eval_captions.jsonl      held-out photos: id, images, question, references
    eval_clothing.jsonl      id, images, question, answer
    eval_easy.jsonl          id, images, question, answer
    eval_<task>_gray.jsonl   the same questions about a plain gray picture: the blind baseline

A training record is one photo in LLaVA's format. Its human turns are questions that do not depend on each other
(train with `turns: independent`); a question with several answers (a photo's captions) is repeated before each, and
the trainer computes its tokens once.
The eval files can be piped into `llava chat --jsonl`; score.py reads its answers. Images are named by absolute path.
The same seed and sources give the same files, byte for byte. Held-out photos depend on their names alone.
Python's standard library is enough.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import random
import re
import struct
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

Turn = tuple[str, list[str]]  # a question with its alternative answers

CLASSES = ["dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt"]
GARMENTS = {  # how a sentence names a class
    "dress": "a dress", "hat": "a hat", "longsleeve": "a long-sleeved top", "outwear": "a jacket or coat",
    "pants": "a pair of pants", "shirt": "a shirt", "shoes": "a pair of shoes", "shorts": "a pair of shorts",
    "skirt": "a skirt", "t-shirt": "a t-shirt",
}

DESCRIBE = "Describe this photo in one sentence."
DESCRIBE_VARIANTS = [
    "Describe this photo.", "Describe the image in one sentence.", "What is happening in this photo?",
    "What do you see in this picture?", "Write a short caption for this image.", "Give a one-sentence description.",
    "Caption this photo.", "What does this image show?", "Describe the scene briefly.",
]
WHAT_IS_THIS = ["What is this?", "What is shown in this photo?", "What is in this picture?",
                "What is the main object in this photo?", "Name the main thing in this image."]
WHAT_ANIMAL = ["What animal is in this photo?", "What animal is this?", "Which animal is shown?", "What kind of animal is this?"]
SUBJECT = ["What is the main subject of this photo?", "Who or what is in this photo?", "What is this?"]
ONE_WORD = "Answer in one word."
ONE_WORD_VARIANTS = ["Answer with one word.", "Reply with a single word.", "One word, please."]
CLOTHING_LIST = [
    "What kind of clothing is this? Answer with one of: {}.", "What kind of clothing is this? Answer with one of: {}",
    "Which of these garments is shown: {}?", "What type of garment is in the photo? Options: {}.",
    "Classify the clothing in this picture. Choose one of: {}.",
]
CLOTHING_EVAL = "What kind of clothing is this? Answer with one of: {}."
CLOTHING_OPEN = ["What kind of clothing is this?", "What garment is this?", "What type of clothing is shown?"]

EASY_COLORS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")  # easy-vqa's words
EASY_SHAPES = ("circle", "triangle", "rectangle")

KIND_RECORDS, MAX_COPIES = 60, 12
ANIMALS = [  # first and last WordNet id of ImageNet's classes of one kind (the classes are in taxonomic order)
    (1440764, 1498041, "fish"), (1514668, 1622779, "bird"), (1641577, 1644900, "frog"), (1664065, 1669191, "turtle"),
    (1675722, 1695060, "lizard"), (1728572, 1756291, "snake"), (1773157, 1775062, "spider"), (1795545, 1860187, "bird"),
    (2002556, 2058221, "bird"), (2085620, 2113978, "dog"), (2114367, 2114712, "wolf"), (2119022, 2120505, "fox"),
    (2123045, 2124075, "cat"), (2132136, 2134418, "bear"), (2276258, 2281787, "butterfly"), (2325366, 2328150, "rabbit"),
    (2389026, 2389026, "horse"), (2484975, 2494079, "monkey"), (2504013, 2504458, "elephant"),
]

# What captions talk about: the word used in questions, and the words that count as a mention of it.
THINGS = {
    "dog": "dog dogs puppy puppies greyhound greyhounds poodle terrier retriever labrador",
    "man": "man men guy guys gentleman", "woman": "woman women lady ladies", "boy": "boy boys", "girl": "girl girls",
    "child": "child children kid kids toddler toddlers boy boys girl girls baby",
    "horse": "horse horses", "cat": "cat cats kitten", "bird": "bird birds duck ducks seagull seagulls",
    "ball": "ball balls football basketball soccer baseball volleyball", "bike": "bike bikes bicycle bicycles bmx",
    "motorcycle": "motorcycle motorcycles motorbike motorcyclist dirtbike", "car": "car cars vehicle truck van taxi",
    "boat": "boat boats kayak canoe raft kayaker", "skateboard": "skateboard skateboarder skateboarding skateboards",
    "surfboard": "surfboard surfboards surfer surfing surfs", "snowboard": "snowboard snowboarder snowboarding",
    "hat": "hat hats cap caps helmet helmets", "shirt": "shirt shirts t-shirt top jersey", "dress": "dress dresses",
    "jacket": "jacket jackets coat coats", "swing": "swing swings swinging", "slide": "slide slides sliding",
    "snow": "snow snowy ski skis skier skiing snowboard snowboarder ice", "grass": "grass grassy lawn field meadow",
    "water": "water ocean sea lake river pool pond stream wave waves beach swimming swims splash splashing surf",
    "beach": "beach sand sandy shore", "pool": "pool pools", "tree": "tree trees woods forest",
    "mountain": "mountain mountains cliff rock rocks hill peak", "street": "street road sidewalk city crosswalk",
    "fence": "fence fenced", "bench": "bench benches", "crowd": "crowd audience spectators",
}
UNCOUNTED = {"snow", "grass", "water", "crowd"}
WHICH_PEOPLE = {"man", "woman", "boy", "girl", "child"}
NUMBERS = {"two": "two", "three": "three", "four": "four", "five": "five", "2": "two", "3": "three"}
COLOURS = ["red", "green", "blue", "black", "white", "brown", "yellow", "orange", "pink", "purple", "gray", "tan"]
COLOUR_ALIAS = {"grey": "gray", "golden": "tan", "blond": "blond"}
COLOURED = ("dog horse shirt jacket dress hat helmet car ball coat t-shirt bike swimsuit uniform top vest sweater "
            "shorts pants jersey truck boat kayak ski skirt sled suit tie collar").split()
PLURAL_ONLY = {"shorts", "pants"}
COUNTED = {"dog": "dogs", "man": "men", "woman": "women", "boy": "boys", "girl": "girls", "child": "children",
           "horse": "horses", "person": "people", "kid": "kids"}
ADJECTIVES = set(COLOURS) | set(COLOUR_ALIAS) | set(
    "young old older little small large big happy wet muddy furry fluffy shaggy blonde dark haired long short tall "
    "elderly asian african american smiling shirtless light dark-haired and".split())


def split_words(caption: str) -> list[str]:
    """The lower-case words of a caption."""
    return re.findall(r"[a-z0-9][a-z0-9'-]*", caption.lower())


def clean_caption(caption: str) -> str:
    """A caption as a plain sentence: no space before marks, a capital letter, one full stop."""
    caption = " ".join(caption.replace('"', " ").split())
    caption = re.sub(r"\s+([,.;:!?'])", r"\1", caption).strip(" ,;:.")
    return caption[:1].upper() + caption[1:] + "." if caption else ""


def with_article(name: str) -> str:
    """A name with the indefinite article."""
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name


def sentence(words: str) -> str:
    """Words as a short sentence."""
    return words[:1].upper() + words[1:] + "."


def one_word(rng: random.Random, question: str, answer: str) -> Turn:
    """A question with a one-word answer: as a sentence, or bare where the question asks for one word."""
    roll = rng.random()
    if roll < 0.5:
        return question, [sentence(answer)]
    return f"{question} {ONE_WORD if roll < 0.8 else rng.choice(ONE_WORD_VARIANTS)}", [answer]


def describe_question(rng: random.Random) -> str:
    """The question for a caption: in every second case the plain one."""
    return DESCRIBE if rng.random() < 0.5 else rng.choice(DESCRIBE_VARIANTS)


# --- questions from captions ----------------------------------------------------------------------------------


class CaptionRules:
    """Turns the human captions of a photo into short questions with answers that several captions agree on."""

    def __init__(self, captions_by_photo: dict[str, list[str]]) -> None:
        self.mentions = {thing: set(words.split()) for thing, words in THINGS.items()}
        frequency: Counter[str] = Counter()
        for captions in captions_by_photo.values():
            words = {w for caption in captions for w in split_words(caption)}
            frequency.update(thing for thing, group in self.mentions.items() if words & group)
        self.things = sorted(frequency)
        self.weights = [frequency[thing] for thing in self.things]

    def presence(self, captions: list[list[str]], rng: random.Random) -> list[Turn]:
        """One "yes" and one "no" about what is there; "no" prefers what other photos often show."""
        counts = Counter(t for words in captions for t, group in self.mentions.items() if group & set(words))
        sure = sorted(t for t, n in counts.items() if n >= max(2, (len(captions) + 1) // 2))
        turns = []
        if sure:
            turns.append(self._is_there(rng.choice(sure), "yes", rng))
        person = {"person", "people", "player", "players", "someone", "couple", "group", "rider", "child", "children"}
        unsure = WHICH_PEOPLE if any(person & set(words) for words in captions) else set()
        absent = [(t, w) for t, w in zip(self.things, self.weights) if t not in counts and t not in unsure]
        if absent:
            thing = rng.choices([t for t, _ in absent], [w for _, w in absent])[0]
            turns.append(self._is_there(thing, "no", rng))
        return turns

    @staticmethod
    def _is_there(thing: str, answer: str, rng: random.Random) -> Turn:
        name = thing if thing in UNCOUNTED else with_article(thing)
        form = rng.choice(["Is there {} in this photo?", "Is there {} in the image?", "Can you see {}?",
                           "Does the photo show {}?"])
        return one_word(rng, form.format(name), answer)

    @staticmethod
    def count(captions: list[list[str]], rng: random.Random) -> list[Turn]:
        """How many of the people or animals that at least two captions count alike."""
        votes: dict[str, Counter[str]] = defaultdict(Counter)
        plural = {many: one for one, many in COUNTED.items()}
        for words in captions:
            for i, word in enumerate(words):
                if word not in NUMBERS and word not in ("a", "one"):
                    continue
                rest = [w for w in words[i + 1 : i + 5]]
                while rest and rest[0] in ADJECTIVES:
                    rest.pop(0)
                noun = rest[0] if rest else ""
                if word in NUMBERS and noun in plural:
                    votes[plural[noun]][NUMBERS[word]] += 1
                elif word not in NUMBERS and noun in COUNTED and COUNTED[noun] not in words:
                    votes[noun]["one"] += 1
        all_words = {w for words in captions for w in words}
        good = []
        for noun, tally in votes.items():
            answer, n = tally.most_common(1)[0]
            if len(tally) == 1 and n >= (3 if answer == "one" else 2):
                if answer != "one" or not (all_words & {COUNTED[noun], "another", "other", "two", "group", "people"}):
                    good.append((COUNTED[noun], answer))
        if not good:
            return []
        noun, answer = rng.choice(sorted(good))
        form = rng.choice(["How many {} are there?", "How many {} are in this photo?", "How many {} can you see?"])
        return [one_word(rng, form.format(noun), answer)]

    @staticmethod
    def colour(captions: list[list[str]], rng: random.Random) -> list[Turn]:
        """The colour of a thing that at least two captions name alike and none otherwise."""
        votes: dict[str, Counter[str]] = defaultdict(Counter)
        for words in captions:
            for i, (word, noun) in enumerate(zip(words, words[1:])):
                word = COLOUR_ALIAS.get(word, word)
                mixed = i > 1 and words[i - 1] == "and" and words[i - 2] in COLOURS
                if word in COLOURS and noun in COLOURED and not mixed:
                    votes[noun][word] += 1
        good = sorted((n, t.most_common(1)[0][0]) for n, t in votes.items() if len(t) == 1 and sum(t.values()) >= 2)
        if not good:
            return []
        noun, answer = rng.choice(good)
        spelling = rng.choice(["color", "color", "colour"])
        verb = "are" if noun in PLURAL_ONLY else "is"
        form = rng.choice(["What {} {} the {}?", "Which {} {} the {}?"])
        return [one_word(rng, form.format(spelling, verb, noun), answer)]

    @staticmethod
    def subject(captions: list[list[str]], rng: random.Random) -> list[Turn]:
        """The first noun of the captions, where most of them start with the same."""
        plural = {many for many in COUNTED.values()}
        votes: Counter[str] = Counter()
        for words in captions:
            if not words or words[0] not in ("a", "an", "the", "one", *NUMBERS):
                continue
            rest = words[1:5]
            while rest and rest[0] in ADJECTIVES:
                rest.pop(0)
            noun = rest[0] if rest else ""
            if words[0] in NUMBERS and noun in plural:
                votes[f"{NUMBERS[words[0]]} {noun}"] += 1
            elif words[0] not in NUMBERS and noun in COUNTED:
                votes[with_article(noun)] += 1
        if not votes or votes.most_common(1)[0][1] < 3:
            return []
        return [(rng.choice(SUBJECT), [sentence(votes.most_common(1)[0][0])])]


# --- sources --------------------------------------------------------------------------------------------------


def record(name: str, image: Path, turns: list[Turn]) -> dict:
    """One photo with its questions as a LLaVA record."""
    conversations = []
    for question, answers in turns:
        for answer in answers:
            image_token = "" if conversations else "<image>\n"
            conversations.append({"from": "human", "value": image_token + question})
            conversations.append({"from": "gpt", "value": answer})
    return {"id": name, "image": str(image), "conversations": conversations}


def held_out_key(name: str) -> str:
    """The order in which photos are kept back: fixed by the name alone."""
    return hashlib.sha1(f"0:{name}".encode()).hexdigest()


def read_captions(folder: Path) -> dict[str, list[str]]:
    """The captions of each photo that exists in the folder, in file order."""
    captions: dict[str, list[str]] = defaultdict(list)
    with open(folder / "captions.csv", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not rows.fieldnames or not {"image", "caption"} <= set(rows.fieldnames):
            raise ValueError(f"{folder / 'captions.csv'}: no columns image, caption")
        for row in rows:
            caption = clean_caption(row["caption"] or "")
            if caption:
                captions[row["image"]].append(caption)
    present = {path.name for path in (folder / "images").iterdir()}
    return {name: captions[name] for name in sorted(captions) if name in present}


def flickr(folder: Path, held_out: int, questions: int, rng: random.Random) -> tuple[list[dict], list[dict]]:
    """Training records and held-out captions of Flickr8k."""
    captions = read_captions(folder)
    rules = CaptionRules(captions)
    order = sorted(captions, key=held_out_key)
    evaluation = [{"id": Path(name).stem, "images": [str(folder / "images" / name)], "question": DESCRIBE,
                   "references": captions[name]} for name in order[:held_out]]
    train = []
    for name in sorted(order[held_out:]):
        words = [split_words(caption) for caption in captions[name]]
        # a caption of one to three words or an endless one teaches no sentence
        answers = [c for c in dict.fromkeys(captions[name]) if 4 <= len(split_words(c)) <= 30]
        extra = rules.presence(words, rng) + rules.count(words, rng) + rules.colour(words, rng)
        extra += rules.subject(words, rng)
        rng.shuffle(extra)
        turns = ([(describe_question(rng), answers)] if answers else []) + extra[:questions]
        if turns:
            train.append(record(Path(name).stem, folder / "images" / name, turns))
    return train, evaluation


def options(rng: random.Random) -> str:
    """The garment classes in a random order."""
    return ", ".join(rng.sample(CLASSES, len(CLASSES)))


def clothing(folder: Path, copies: int, use_validation: bool, rng: random.Random) -> tuple[list[dict], list[dict]]:
    """Training records (`copies` a photo, asked differently) and validation questions about garments."""
    def photos(split: str) -> list[tuple[str, Path]]:
        return [(c, path) for c in CLASSES for path in sorted((folder / split / c).glob("*")) if path.is_file()]

    train = []
    for copy in range(copies):
        for name, path in photos("train") + (photos("validation") if use_validation else []):
            turns: list[Turn] = [(rng.choice(CLOTHING_LIST[:2] * 3 + CLOTHING_LIST[2:]).format(options(rng)), [name])]
            if copy % 2 == 0:
                turns.append((rng.choice(CLOTHING_OPEN), [name]))
                turns.append((rng.choice(WHAT_IS_THIS), [sentence(GARMENTS[name])]))
            else:
                asked = name if rng.random() < 0.5 else rng.choice([c for c in CLASSES if c != name])
                turns.append(one_word(rng, f"Is this {GARMENTS[asked]}?", "yes" if asked == name else "no"))
            train.append(record(f"clothing-{path.stem}-{copy}", path, turns))
    evaluation = []
    if (folder / "validation").is_dir() and not use_validation:
        for name, path in photos("validation"):
            question = CLOTHING_EVAL.format(", ".join(CLASSES))
            evaluation.append({"id": path.stem, "images": [str(path)], "question": question, "answer": name})
    return train, evaluation


def animal_kind(wordnet_id: str) -> str | None:
    """The everyday word for the animal of an ImageNet class, `n02123045` -> "cat"; None for anything else."""
    number = int(wordnet_id[1:])
    return next((kind for first, last, kind in ANIMALS if first <= number <= last), None)


def animal_turns(rng: random.Random, name: str, kind: str, rare: bool) -> list[Turn]:
    """Questions whose answer is the everyday word, and a description: breeds alone do not teach the word.

    Of a rare kind the description says no more than the kind: a handful of photos does not teach breeds, and a wrong one is untrue.
    """
    named = name if kind in name.lower().split() else f"{name} {kind}"
    description = f"A photo of {with_article(kind)}." if rare else sentence(with_article(named))
    other = rng.choice([k for _, _, k in ANIMALS if k != kind])
    asked = kind if rng.random() < 0.5 else other
    return [(describe_question(rng), [description]), one_word(rng, rng.choice(WHAT_ANIMAL), kind),
            one_word(rng, f"Is there {with_article(asked)} in this photo?", "yes" if asked == kind else "no")]


def cropped(path: Path, out: Path, copy: int) -> Path:
    """A random part of a photo, half of them mirrored, as a file of its own (Pillow); the same for the same name and number."""
    from PIL import Image

    rng = random.Random(f"{path.stem}-{copy}")
    with Image.open(path) as photo:
        photo = photo.convert("RGB")
    scale = math.sqrt(rng.uniform(0.35, 1))
    width, height = (round(side * scale * rng.uniform(0.85, 1)) for side in photo.size)
    left, top = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
    part = photo.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{path.stem}-{copy}.jpg"
    part.save(target, quality=92)
    return target


def imagenet(folder: Path, rng: random.Random, crops: Path | None = None) -> list[dict]:
    """Training records that name the class of a photo, and the kind of animal where it shows one.

    One photo a class makes 118 dogs and 5 cats. Kinds of animals are evened out to about KIND_RECORDS records each: a photo of a rare
    one is asked about several times, in other words and, with `crops`, in as many parts of it, which are written there; of a common one
    so many photos are asked for the animal, the rest for their name.
    """
    paths = sorted(path for path in folder.iterdir() if re.fullmatch(r"n\d+_.+", path.stem))
    names = [path.stem.split("_", 1)[1].replace("_", " ") for path in paths]
    kinds = [animal_kind(path.stem.split("_", 1)[0]) for path in paths]
    photos = Counter(kinds)
    train = []
    for path, name, kind in zip(paths, names, kinds):
        common = photos[kind] > KIND_RECORDS
        if common and rng.random() > KIND_RECORDS / photos[kind]:
            kind = None
        copies = min(MAX_COPIES, -(-KIND_RECORDS // photos[kind])) if kind else 1
        for copy in range(copies):
            turns: list[Turn] = [(rng.choice(WHAT_IS_THIS), [sentence(with_article(name))])]
            asked = name if rng.random() < 0.5 else rng.choice(names)
            turns.append(one_word(rng, f"Is this {with_article(asked)}?", "yes" if asked == name else "no"))
            turns += animal_turns(rng, name, kind, not common) if kind else []
            shown = cropped(path, crops, copy) if crops and copy else path
            train.append(record(path.stem if copies == 1 else f"{path.stem}-{copy}", shown, turns))
    return train


def balance_presence(rng: random.Random, asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """As many yes/no questions about what a drawing holds as about what it does not.

    Seven of eight of the package's yes/no questions name an absent colour or shape, so their answer follows from the wording alone
    ("is there a ...": no; "is no ... present": yes), and a model of this size learns the wording and no more. About half of them
    name the drawing's own colour or shape instead here, with the other answer.
    """
    own = {}
    for words in (EASY_COLORS, EASY_SHAPES):
        for question, answer in asked:
            named = [word for word in question.rstrip("?").split() if word in words]
            present = (answer == "no") == bool(re.search(r"\b(no|not)\b", question))
            if answer in words:
                own[words] = answer
            elif answer in ("yes", "no") and named and present:
                own[words] = named[0]
    balanced = []
    for question, answer in asked:
        for words, word in own.items():
            named = [w for w in question.rstrip("?").split() if w in words]
            if answer in ("yes", "no") and named and named[0] != word and rng.random() < 0.43:
                question, answer = question.replace(named[0], word), "no" if answer == "yes" else "yes"
        balanced.append((question, answer))
    return list(dict.fromkeys(balanced))


def easy_vqa(folder: Path, photos: int, questions: int, scored: int, rng: random.Random,
             scoring_rng: random.Random) -> tuple[list[dict], list[dict]]:
    """Training records from easy-vqa's train folder and scoring questions from its test folder."""
    def read(split: str) -> dict[int, list[tuple[str, str]]]:
        by_image: dict[int, list[tuple[str, str]]] = defaultdict(list)
        with open(folder / split / "questions.json", encoding="utf-8") as file:
            for question, answer, image in json.load(file):
                by_image[int(image)].append((question, answer))
        return by_image

    train = []
    for image, asked in sorted(read("train").items())[: photos or None]:
        asked = balance_presence(rng, asked)
        # questions about shape and colour are rarer than yes/no ones and teach more: they come first
        asked = sorted(rng.sample(asked, len(asked)), key=lambda qa: qa[1] in ("yes", "no"))
        turns: list[Turn] = []
        for question, answer in rng.sample(asked[:questions], len(asked[:questions])):
            roll = rng.random()
            suffix = ONE_WORD if roll < 0.7 else rng.choice(ONE_WORD_VARIANTS) if roll < 0.9 else ""
            if rng.random() < 0.2:
                question = question[:1].upper() + question[1:]
            turns.append((f"{question} {suffix}".strip(), [answer]))
        train.append(record(f"easy-{image}", folder / "train" / "images" / f"{image}.png", turns))
    evaluation = []
    for image, asked in sorted(read("test").items()):
        for i, (question, answer) in enumerate(asked):
            evaluation.append({"id": f"{image}-{i}", "images": [str(folder / "test" / "images" / f"{image}.png")],
                               "question": f"{question} {ONE_WORD}", "answer": answer})
    if 0 < scored < len(evaluation):
        evaluation = [evaluation[i] for i in sorted(scoring_rng.sample(range(len(evaluation)), scored))]
    return train, evaluation


# --- output ---------------------------------------------------------------------------------------------------


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name beside its place, then renames it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_jsonl(path: Path, records: list[dict]) -> None:
    """Writes records one a line."""
    write_atomically(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode())


def gray_png(size: int = 224, level: int = 128) -> bytes:
    """A plain gray picture as a PNG file."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + bytes([level]) * (3 * size)) * size)
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def main() -> int:
    """Builds the files; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shared", type=Path, metavar="DIR", help="folder of flickr8k, clothing, imagenet-1-per-class")
    parser.add_argument("--easy-vqa", type=Path, metavar="DIR", help="the `data` folder inside the easy_vqa package")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=300, metavar="N", help="Flickr8k photos kept back (300)")
    parser.add_argument("--flickr-questions", type=int, default=2, metavar="N",
                        help="questions derived from a photo's captions, beside its description (2)")
    parser.add_argument("--clothing-copies", type=int, default=2, metavar="N",
                        help="records for each garment photo, asked differently (2)")
    parser.add_argument("--use-clothing-validation", action="store_true",
                        help="train on the validation photos too, and score no garments")
    parser.add_argument("--crops", action="store_true", help="parts of the photos of rare animals, not copies (needs Pillow)")
    parser.add_argument("--easy-photos", type=int, default=0, metavar="N", help="drawings to use (0: all)")
    parser.add_argument("--easy-questions", type=int, default=6, metavar="N", help="questions a drawing (6)")
    parser.add_argument("--easy-test-questions", type=int, default=1000, metavar="N",
                        help="scoring questions from easy-vqa's test folder (1000; 0: all)")
    args = parser.parse_args()

    train: dict[str, list[dict]] = {}
    evaluation: dict[str, list[dict]] = {}
    try:
        if args.shared:
            shared = args.shared.resolve(strict=True)
            if (shared / "flickr8k").is_dir():
                train["flickr"], evaluation["captions"] = flickr(
                    shared / "flickr8k", args.held_out, args.flickr_questions, random.Random(f"{args.seed} flickr"))
            if (shared / "clothing").is_dir():
                train["clothing"], evaluation["clothing"] = clothing(
                    shared / "clothing", args.clothing_copies, args.use_clothing_validation,
                    random.Random(f"{args.seed} clothing"))
            if (shared / "imagenet-1-per-class").is_dir():
                train["imagenet"] = imagenet(shared / "imagenet-1-per-class", random.Random(f"{args.seed} imagenet"),
                                             args.out.resolve() / "crops" if args.crops else None)
        if args.easy_vqa:
            train["easy"], evaluation["easy"] = easy_vqa(
                args.easy_vqa.resolve(strict=True), args.easy_photos, args.easy_questions, args.easy_test_questions,
                random.Random(f"{args.seed} easy"), random.Random(f"{args.seed} easy test"))
        if not any(train.values()):
            raise ValueError("no source found: give --shared and/or --easy-vqa")
    except (OSError, ValueError, KeyError, TypeError, csv.Error, ImportError) as error:
        print(f"make_data: {error}", file=sys.stderr)
        return 2

    try:
        args.out.mkdir(parents=True, exist_ok=True)
        out = args.out.resolve()
        write_atomically(out / "gray.png", gray_png())
        mixed = [r for records in train.values() for r in records]
        random.Random(f"{args.seed} mix").shuffle(mixed)
        write_jsonl(out / "train.jsonl", mixed)
        for source, records in train.items():
            write_jsonl(out / f"train_{source}.jsonl", records)
        for task, records in evaluation.items():
            if records:
                write_jsonl(out / f"eval_{task}.jsonl", records)
                gray = [{**r, "images": [str(out / "gray.png")]} for r in records]
                write_jsonl(out / f"eval_{task}_gray.jsonl", gray)
    except OSError as error:
        print(f"make_data: {args.out}: {error}", file=sys.stderr)
        return 1
    for source, records in train.items():
        turns = sum(t["from"] == "gpt" for r in records for t in r["conversations"])
        print(f"train {source}: {len(records)} records, {turns} answers", file=sys.stderr)
    for task, records in evaluation.items():
        print(f"eval {task}: {len(records)} questions", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
