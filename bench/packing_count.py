#!/usr/bin/env python3
"""Computed over real tokens of padded batches of 16 on packing_bench's distribution of lengths, by who groups them. Counts only.

    packing_count.py [--samples 65536] [--seed 0]

random; LLaVA's group_by_length and group_by_modality_length (mega-batches of one step of W processes, sorted and dealt out so that the
processes get like sums: it balances processes, batches stay mixed); near lengths sorted within 50 batches, as transformers'
LengthGroupedSampler does, by words (what is known before tokenising) or by tokens. The last lines scale the spread of the texts'
lengths, which is not published, to show what hangs on it.
"""
import argparse
import pathlib
import re

import numpy as np

BATCH, LONGEST = 16, 2048
MIX = [tuple(map(float, m)) for m in re.findall(r'\{"[^"]+", (\d+), (\d+), (\d+), ([\d.]+)\}',
                                                (pathlib.Path(__file__).parent / "packing_bench.cpp").read_text())]


def draw(count, rng, spread):
    """Tokens, words and whether there is an image."""
    part = rng.choice(len(MIX), count, p=np.array([m[0] for m in MIX]) / sum(m[0] for m in MIX))
    image, median, sigma = (np.array([m[i] for m in MIX])[part] for i in (1, 2, 3))
    text = np.round(median * np.exp(sigma * spread * rng.standard_normal(count)))
    return np.minimum(image + np.maximum(text, 16), LONGEST), np.round(text / (1.2 + 0.6 * rng.random(count))), image > 0


def llava(order, processes, length):
    """One step's samples, longest first, each to the process with the smallest sum that has room."""
    for at in range(0, len(order) - processes * BATCH + 1, processes * BATCH):
        shares, sums = [[] for _ in range(processes)], [0] * processes
        for i in sorted(order[at : at + processes * BATCH], key=lambda i: -length[i]):
            p = min((p for p in range(processes) if len(shares[p]) < BATCH), key=sums.__getitem__)
            shares[p].append(i)
            sums[p] += length[i]
        yield from map(np.array, shares)


def near(order, batches, length):
    """Sorted within so many batches."""
    for at in range(0, len(order) - batches * BATCH + 1, batches * BATCH):
        group = np.array(sorted(order[at : at + batches * BATCH], key=lambda i: -length[i]))
        yield from (group[j : j + BATCH] for j in range(0, len(group), BATCH))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--samples", type=int, default=65536)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    assert len(MIX) == 10
    for spread in (1, 0.5, 1.5):
        rng = np.random.default_rng(a.seed)
        tokens, words, image = draw(a.samples, rng, spread)
        order = rng.permutation(a.samples)
        kinds = {"random": near(order, 1, tokens)}
        for w in (1, 8):
            kinds[f"group_by_length, {w} processes"] = llava(order, w, words + 128 * image)
            kinds[f"group_by_modality_length, {w} processes"] = [*llava(order[image[order]], w, words), *llava(order[~image[order]], w, words)]
        kinds |= {"near lengths by words": near(order, 50, words + 128 * image), "near lengths by tokens": near(order, 50, tokens)}
        print(f"spread x {spread}")
        for name, batches in kinds.items():
            batches = list(batches)
            print(f"  {name:38} {sum(tokens[b].max() * len(b) for b in batches) / sum(tokens[b].sum() for b in batches):.3f}")


if __name__ == "__main__":
    main()
