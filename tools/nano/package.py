#!/usr/bin/env python3
"""Packs a trained llava-nano for shipping: connector and adapter in bfloat16, with config.json and adapter_config.json.

    package.py --final runs/llava-nano/final --out models/llava-nano

Rounds to nearest even. Needs numpy.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy


def to_bfloat16(values):
    """float32 array -> bfloat16 bits as uint16, rounded to nearest even."""
    bits = values.astype(numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def convert(source, target):
    """Rewrites a safetensors file of F32 tensors as BF16."""
    data = source.read_bytes()
    (length,) = struct.unpack_from('<Q', data)
    header = json.loads(data[8:8 + length])
    metadata = header.pop('__metadata__', {})
    out, chunks, offset = {'__metadata__': metadata} if metadata else {}, [], 0
    for name, entry in sorted(header.items()):
        begin, end = entry['data_offsets']
        raw = data[8 + length + begin:8 + length + end]
        if entry['dtype'] == 'F32':
            raw = to_bfloat16(numpy.frombuffer(raw, '<f4')).tobytes()
        elif entry['dtype'] != 'BF16':
            sys.exit(f'{source}: tensor {name} has dtype {entry["dtype"]}, not F32 or BF16')
        out[name] = {'dtype': 'BF16', 'shape': entry['shape'], 'data_offsets': [offset, offset + len(raw)]}
        chunks.append(raw)
        offset += len(raw)
    text = json.dumps(out, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    target.write_bytes(struct.pack('<Q', len(text)) + text + b''.join(chunks))
    return target.stat().st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--final', type=pathlib.Path, required=True)
    parser.add_argument('--out', type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    total = 0
    for name in ('mm_projector.safetensors', 'adapter_model.safetensors'):
        total += convert(arguments.final / name, arguments.out / name)
    adapter = json.loads((arguments.final / 'adapter_config.json').read_text())
    config = json.loads((arguments.final / 'config.json').read_text())
    # a run names its parts where it found them; the shipped model finds them beside itself
    adapter['base_model_name_or_path'] = pathlib.PurePath(adapter['base_model_name_or_path']).name
    for part in ('language_model', 'vision_tower'):
        config[part] = pathlib.PurePath(config[part]).name
    for name, content in (('adapter_config.json', adapter), ('config.json', config)):
        (arguments.out / name).write_text(json.dumps(content, indent=2) + '\n')
    print(f'{arguments.out}: {total / 1e6:.1f} MB of weights')


if __name__ == '__main__':
    main()
