#!/usr/bin/env python3
"""Writes unicode_tables.h: the Unicode data of src/text, taken from Python's `unicodedata` when the project is built.

    make_tables.py OUT.h

The tokenizers we must equal do not follow one Unicode version (measured with tokenizers 0.22.2 by classifying every code
point): the split regexes (\\p{L}, \\p{N}, \\p{P}) follow 16.0, NFC/NFD/NFKC/NFKD follow 9.0, "is numeric" and lower case 17.0.
Python 3.11 brings 14.0 and later ones 15.0 to 17.0, so the code points on which these differ are named below as ranges;
the result is then the same whichever Python builds it. tests/unit/text/unicode_test.cpp pins it.
"""
import sys
import unicodedata as ud

# Assigned after 14.0, up to 16.0.
LETTERS_TO_16 = """1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D4A-10D65 10D6F-10D85 10EC2-10EC4 1123F-11240 11380-11389
 1138B 1138E 11390-113B5 113B7 113D1 113D3 11BC0-11BE0 11F02 11F04-11F10 11F12-11F33 1342F 13441-13446 13460-143FA
 16100-1611D 16D40-16D6C 18CFF 1B132 1B155 1DF25-1DF2A 1E030-1E06D 1E4D0-1E4EB 1E5D0-1E5ED 1E5F0 2B739 2EBF0-2EE5D
 31350-323AF"""
NUMBERS_TO_16 = "10D40-10D49 116D0-116E3 11BF0-11BF9 11F50-11F59 16130-16139 16D70-16D79 1CCF0-1CCF9 1D2C0-1D2D3 1E4F0-1E4F9 1E5F1-1E5FA"
PUNCTUATION_TO_16 = "1B4E-1B4F 1B7F 10D6E 113D4-113D5 113D7-113D8 11B00-11B09 11BE1 11F43-11F4F 16D6D-16D6F 1E5FF"
# Assigned in 17.0.
LETTERS_17 = """88F C5C CDC A7CE-A7CF A7D2 A7D4 A7F1 10940-10959 10EC5-10EC7 11DB0-11DDB 16EA0-16EB8 16EBB-16ED3 16FF2-16FF3
 187F8-187FF 18D09-18D1E 18D80-18DF2 1E6C0-1E6DE 1E6E0-1E6E2 1E6E4-1E6E5 1E6E7-1E6ED 1E6F0-1E6F4 1E6FE-1E6FF 2B73A-2B73F
 2CEA2-2CEAD 323B0-33479"""
NUMBERS_17 = "11DE0-11DE9 16FF4-16FF6"
PUNCTUATION_17 = "10ED0"
# Decompositions and combining classes newer than 9.0: unknown to the normaliser of `tokenizers`.
NORMALISATION_AFTER_9 = """32FF A7F1-A7F4 AB69 105C9 105E4 10781-10785 10787-107B0 107B2-107BA 11383 11385 1138E 11391 113C5
 113C7-113C8 11938 16121-16128 16D68-16D6A 1CCD6-1CCF9 1E030-1E06D 1F16C 1FBF0-1FBF9
 7FD 897-89F 8CA-8D3 9FE C3C D3B-D3C EBA 1715 1ABF-1ADD 1AE0-1AEB 1DF6-1DFA A82C 10D24-10D27 10D69-10D6D 10EAB-10EAC
 10EFA-10EFB 10EFD-10EFF 10F46-10F50 10F82-10F85 11070 1133B 113CE-113D0 1145E 11839-1183A 1193D-1193E 11943 119E0 11A34
 11A47 11A99 11D42 11D44-11D45 11D97 11F41-11F42 1612F 16FF0-16FF1 1E08F 1E130-1E136 1E2AE 1E2EC-1E2EF 1E4EC-1E4EF
 1E5EE-1E5EF 1E6E3 1E6E6 1E6EE-1E6EF 1E6F5"""
LOWER_TO_17 = {0x1C89: 0x1C8A, 0xA7CB: 0x264, 0xA7CC: 0xA7CD, 0xA7CE: 0xA7CF, 0xA7D2: 0xA7D3, 0xA7D4: 0xA7D5,
               0xA7DA: 0xA7DB, 0xA7DC: 0x19B, **{c: c + 0x20 for c in range(0x10D50, 0x10D66)},
               **{c: c + 0x1B for c in range(0x16EA0, 0x16EB9)}}

LETTER, NUMBER, NUMERIC, PUNCTUATION, WORD, DECOMPOSES, COMBINES, LOWERS = (1 << i for i in range(8))
BLOCK = 256
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def points(text):
    out = set()
    for item in text.split():
        first, _, last = item.partition("-")
        out.update(range(int(first, 16), int(last or first, 16) + 1))
    return out


def flags():
    """One byte of flags for each code point, from the general categories."""
    out = bytearray(0x110000)
    add = [(LETTER, "L", points(LETTERS_TO_16), points(LETTERS_17)), (NUMBER, "N", points(NUMBERS_TO_16), points(NUMBERS_17)),
           (PUNCTUATION, "P", points(PUNCTUATION_TO_16), points(PUNCTUATION_17))]
    for c in CODE_POINTS:
        category = ud.category(chr(c))
        for flag, major, added, later in add:
            if (category[0] == major and c not in later) or c in added:
                out[c] |= flag
        if out[c] & NUMBER or c in add[1][3]:
            out[c] |= NUMERIC
        if out[c] & LETTER or category[0] == "M" or category in ("Nd", "Nl", "Pc"):
            out[c] |= WORD
    for c in points("200C-200D 24B6-24E9 1F130-1F149 1F150-1F169 1F170-1F189"):  # join controls, Other_Alphabetic symbols
        out[c] |= WORD
    return out


def normalisation(flag):
    """Marks `flag`; returns decompositions {c: (canonical, compatible)}, classes {c: ccc}, compositions {(a, b): c}."""
    unknown = points(NORMALISATION_AFTER_9)
    decompositions, classes, compositions = {}, {}, {}
    for c in CODE_POINTS:
        if c in unknown or 0xAC00 <= c < 0xD7A4:
            continue
        if ud.combining(chr(c)):
            classes[c] = ud.combining(chr(c))
            flag[c] |= COMBINES
        raw = ud.decomposition(chr(c)).split()
        if not raw:
            continue
        decompositions[c] = (ud.normalize("NFD", chr(c)), ud.normalize("NFKD", chr(c)))
        flag[c] |= DECOMPOSES
        if len(raw) == 2 and not raw[0].startswith("<"):
            pair = (int(raw[0], 16), int(raw[1], 16))
            if ud.normalize("NFC", chr(pair[0]) + chr(pair[1])) == chr(c):
                compositions[pair] = c
                flag[pair[1]] |= COMBINES
    for c in range(0x1161, 0x11C3):  # Hangul vowels and finals join what stands before them
        flag[c] |= COMBINES
    return decompositions, classes, compositions


def lower_case(flag):
    out = {}
    for c in CODE_POINTS:
        low = chr(LOWER_TO_17[c]) if c in LOWER_TO_17 else chr(c).lower()
        if low != chr(c):
            out[c] = low
            flag[c] |= LOWERS
    return out


def array(kind, name, values, per_line=24):
    values = [str(v) for v in values]
    lines = [",".join(values[i:i + per_line]) for i in range(0, len(values), per_line)]
    return f"inline constexpr {kind} {name}[] = {{\n" + ",\n".join(lines) + "};\n"


def header():
    flag = flags()
    decompositions, classes, compositions = normalisation(flag)
    lower = lower_case(flag)
    blocks, index = {}, []
    for i in range(0, 0x110000, BLOCK):
        index.append(blocks.setdefault(bytes(flag[i:i + BLOCK]), len(blocks)))
    pool, rows, lower_rows = [], [], []
    for c, (canonical, compatible) in sorted(decompositions.items()):
        begin = len(pool)
        pool += map(ord, canonical)
        second = begin
        if compatible != canonical:
            second = len(pool)
            pool += map(ord, compatible)
        rows.append(f"{{{c},{begin},{second},{len(canonical)},{len(compatible)}}}")
    for c, low in sorted(lower.items()):
        lower_rows.append(f"{{{c},{len(pool)},{len(low)}}}")
        pool += map(ord, low)
    assert len(blocks) <= 256 and len(pool) < 65536
    yield "// Made by tools/unicode/make_tables.py; do not edit.\n#pragma once\n#include <cstdint>\n\n"
    yield "namespace llava::unicode_tables {\n\n"
    names = dict(kLetter=LETTER, kNumber=NUMBER, kNumeric=NUMERIC, kPunctuation=PUNCTUATION, kWord=WORD,
                 kDecomposes=DECOMPOSES, kCombines=COMBINES, kLowers=LOWERS)
    yield "".join(f"inline constexpr std::uint8_t {n} = {v};\n" for n, v in names.items())
    yield "struct Decomposition { std::uint32_t code; std::uint16_t canonical, compatible; std::uint8_t canonical_len, compatible_len; };\n"
    yield "struct Lower { std::uint32_t code; std::uint16_t begin; std::uint8_t len; };\n"
    yield "struct CombiningClass { std::uint32_t code; std::uint8_t value; };\n"
    yield "struct Composition { std::uint32_t first, second, result; };\n\n"
    yield array("std::uint8_t", "kBlockIndex", index)
    yield array("std::uint8_t", "kFlags", b"".join(blocks))
    yield array("std::uint32_t", "kPool", pool)
    yield array("Decomposition", "kDecompositions", rows, 8)
    yield array("Lower", "kLower", lower_rows, 8)
    yield array("CombiningClass", "kCombiningClasses", [f"{{{c},{v}}}" for c, v in sorted(classes.items())], 12)
    yield array("Composition", "kCompositions", [f"{{{a},{b},{c}}}" for (a, b), c in sorted(compositions.items())], 8)
    yield "\n}  // namespace llava::unicode_tables\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_tables.py OUT.h")
    version = tuple(int(x) for x in ud.unidata_version.split("."))
    if not (14, 0) <= version[:2] <= (17, 0):
        print(f"make_tables.py: Unicode {ud.unidata_version} of this Python is not 14 to 17: rare characters may be "
              "classified otherwise than by the reference tokenizers", file=sys.stderr)
    with open(sys.argv[1], "w") as out:
        out.writelines(header())
