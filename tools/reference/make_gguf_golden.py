"""Makes tests/golden/gguf/: one small GGUF file with random blocks of every type and what PyPI gguf's numpy code makes of it.

    python tools/reference/make_gguf_golden.py --out tests/golden/gguf
    python tools/reference/make_gguf_golden.py --check MODEL.gguf --ours OURS.safetensors

The blocks are random bytes: every bit pattern of the quants and packed scales is as likely as any other. The half-precision
scales are drawn from ordinary, denormal, largest and infinite values of both signs (not NaN, whose payload no one relies on).
Needs: gguf, numpy, safetensors.
"""

import argparse
import pathlib

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from safetensors.numpy import load_file, save_file

# Byte offsets of the half-precision scales inside a block.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}
EXTREME = np.array([0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x3C00, 0x2E66], dtype=np.uint16)


def random_blocks(rng, kind, rows, row_blocks):
    _, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * row_blocks, size), dtype=np.uint8)
    ordinary = (rng.standard_normal((len(blocks), 4)) * 0.02).astype(np.float16).view(np.uint16)
    for slot, offset in enumerate(SCALES[kind]):
        scales = ordinary[:, slot].copy()
        extreme = rng.random(len(blocks)) < 0.3
        scales[extreme] = rng.choice(EXTREME, extreme.sum())
        blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, row_blocks * size)


def make(out):
    rng = np.random.default_rng(0)
    out.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(out / "types.gguf", "llama")
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60000)
    writer.add_int16("test.i16", -30000)
    writer.add_uint32("test.u32", 4000000000)
    writer.add_int32("test.i32", -2000000000)
    writer.add_float32("test.f32", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "grüße ▁the Ġthe")
    writer.add_uint64("test.u64", 2**63 + 1)
    writer.add_int64("test.i64", -2**62)
    writer.add_float64("test.f64", 0.1)
    writer.add_array("test.strings", ["a", "", "▁b"])
    writer.add_array("test.numbers", [1, -2, 3])
    writer.add_array("test.floats", [0.5, 1e-5])
    writer.add_array("test.bools", [True, False])
    expected = {}
    for kind in SCALES:
        row_blocks = 3 if GGML_QUANT_SIZES[kind][0] == 32 else 2
        blocks = random_blocks(rng, kind, 5 if row_blocks == 3 else 4, row_blocks)
        writer.add_tensor(f"{kind.name}.weight", blocks, raw_dtype=kind)
        with np.errstate(all="ignore"):
            expected[f"{kind.name}.weight"] = gguf.quants.dequantize(blocks, kind)
    halves = rng.integers(0, 1 << 16, (4, 64), dtype=np.uint16)
    halves[(halves & 0x7C00) == 0x7C00] &= 0xFC00  # infinities, but no NaN
    writer.add_tensor("F16.weight", halves.view(np.float16))
    expected["F16.weight"] = halves.view(np.float16).astype(np.float32)
    brain = rng.integers(0, 1 << 16, (4, 64), dtype=np.uint16)
    brain[(brain & 0x7F80) == 0x7F80] &= 0xFF80
    writer.add_tensor("BF16.weight", brain.view(np.uint8), raw_dtype=Type.BF16)
    expected["BF16.weight"] = gguf.quants.dequantize(brain.view(np.uint8), Type.BF16)
    for name, array in {
        "F32.weight": rng.standard_normal((2, 3, 5)).astype(np.float32), "F32.bias": rng.standard_normal(7).astype(np.float32),
        "F64.weight": rng.standard_normal((2, 3)), "I8.weight": rng.integers(-128, 128, (2, 3)).astype(np.int8),
        "I16.weight": rng.integers(-9999, 9999, (2, 3)).astype(np.int16), "I32.weight": rng.integers(-9999, 9999, 4).astype(np.int32),
        "I64.weight": rng.integers(-9999, 9999, 4),
    }.items():
        writer.add_tensor(name, array)
        expected[name] = array.astype(np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, out / "types_expected.safetensors")


def check(model, ours):
    """Compares a float32 safetensors dump of `model`, made by us, with gguf's own dequantisation, bit for bit."""
    dumped = load_file(ours)
    tensors = gguf.GGUFReader(model).tensors
    assert sorted(dumped) == sorted(t.name for t in tensors)
    for tensor in tensors:
        reference = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        reference = reference.reshape([int(n) for n in tensor.shape[::-1]])
        assert dumped[tensor.name].shape == reference.shape, tensor.name
        assert np.array_equal(dumped[tensor.name].view(np.uint32), reference.astype(np.float32).view(np.uint32)), tensor.name
    print(f"{len(tensors)} tensors, {sum(t.n_elements for t in tensors)} values: all bits equal")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--check", type=pathlib.Path)
    parser.add_argument("--ours", type=pathlib.Path)
    options = parser.parse_args()
    if options.out:
        make(options.out)
    if options.check:
        check(options.check, options.ours)


if __name__ == "__main__":
    main()
