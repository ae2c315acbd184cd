#!/usr/bin/env python3
"""Golden orders of LLaVA's two samplers (specification training.md 2.9), drawn by torch.

  make_sampler_golden.py tests/golden/samplers/llava_order.json

group_by_length: randperm; mega-batches of world * batch, sorted by length, longest first; each dealt to `world` batches so that
their sums stay close. group_by_modality_length: text samples have negative lengths; both kinds ordered so on their own, their
last mega-batch set aside, the others shuffled together, what was set aside sorted by index at the end. `world` counts
accumulation steps, too. Also writes plain torch.randperm results and str.split word counts.
"""
import json, sys

import torch


def deal(items, lengths, world):
    if len(items) % world:
        return [items[w::world] for w in range(world)]
    room = len(items) // world
    batches, sums = [[] for _ in range(world)], [0.0] * world
    for item in items:
        lightest = min(range(world), key=lambda w: sums[w])  # the first of equals
        batches[lightest].append(item)
        sums[lightest] = float("inf") if len(batches[lightest]) == room else sums[lightest] + lengths[item]
    return batches


def cut(items, size):
    return [items[i:i + size] for i in range(0, len(items), size)]


def by_length(lengths, batch, world):
    order = []
    for mega in cut(torch.randperm(len(lengths)).tolist(), world * batch):
        mega = sorted(mega, key=lambda i: lengths[i], reverse=True)
        order += sum(deal(mega, lengths, world), [])
    return order


def by_modality(lengths, batch, world):
    media = [i for i, n in enumerate(lengths) if n > 0]
    text = [i for i, n in enumerate(lengths) if n < 0]
    if not media or not text:
        return by_length(lengths, batch, world)
    megas, aside = [], []
    for kind in (media, text):
        shuffled = [kind[i] for i in by_length([abs(lengths[i]) for i in kind], batch, world)]
        parts = cut(shuffled, world * batch)
        megas += parts[:-1]
        aside += parts[-1]
    shuffled = [megas[i] for i in torch.randperm(len(megas)).tolist()]
    return sum(shuffled, []) + sorted(aside)


def main():
    torch.manual_seed(7)
    lengths = torch.randint(3, 60, (211,)).tolist()  # many equal ones: the order of equals shows
    signs = (torch.rand(211) < 0.7).tolist()
    mixed = [n if s else -n for n, s in zip(lengths, signs)]
    golden = {"torch": torch.__version__, "mixed": mixed, "text": [-n for n in lengths[:100]], "cases": [], "randperm": []}
    for seed in (0, 1, 1234567890123):
        torch.manual_seed(seed)
        golden["randperm"].append({"seed": seed, "n": 1000, "order": torch.randperm(1000).tolist()})
        for world in (1, 2, 8):
            for rule, function, data in (("length", by_length, lengths), ("modality", by_modality, mixed), ("text", by_modality, golden["text"])):
                torch.manual_seed(seed)
                golden["cases"].append({"seed": seed, "world": world, "batch": 4, "rule": rule, "order": function(data, 4, world)})
    texts = ["", " ", "a", " a  b\n", "a\tb\vc\fd\re", "a\u00a0b", "x\u3000y\u2028z", "1\x1c2\x1f3\x854", "é à\u200bb", "\u1680q\u205fr\u202fs", "日本 語", "\ud83d\ude00 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")]
    golden["words"] = [{"text": t, "words": len(t.split())} for t in texts]
    with open(sys.argv[1], "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
