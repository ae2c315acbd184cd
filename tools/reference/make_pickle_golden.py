"""Makes tests/golden/pickle/: small torch.save files of many kinds, and as expected.safetensors what torch.load makes of them
("<file>/<tensor>"); and tests/golden/safetensors/python.safetensors, written by the Python package.

    python tools/reference/make_pickle_golden.py --out tests/golden

Needs: torch, safetensors, numpy.
"""

import argparse
import collections
import pathlib

import torch
from safetensors.torch import save_file


def flat(module):
    return {name: tensor.detach().contiguous().clone() for name, tensor in module.items()}


def make_pickles(out):
    torch.manual_seed(0)
    expected = {}

    def save(name, obj, tensors, **options):
        torch.save(obj, out / name, **options)
        expected.update({f"{name}/{key}": value for key, value in flat(tensors).items()})

    dtypes = {
        "f64": torch.randn(2, 3, dtype=torch.float64), "f32": torch.randn(2, 3), "f16": torch.randn(2, 3).half(),
        "bf16": torch.randn(2, 3).bfloat16(), "i64": torch.tensor([-(2**62), 5]), "i32": torch.tensor([1, -2], dtype=torch.int32),
        "i16": torch.tensor([1, -2], dtype=torch.int16), "i8": torch.tensor([1, -2], dtype=torch.int8),
        "u8": torch.tensor([1, 250], dtype=torch.uint8), "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4),
    }
    save("dtypes.bin", dtypes, dtypes)
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    views = {"whole": base, "transposed": base.t(), "slice": base[1:3, 2:5], "column": base[:, 1], "permuted": base.reshape(2, 3, 4).permute(2, 0, 1)}
    save("views.bin", views, views)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).half()
    save("state_dict.bin", layer.state_dict(), layer.state_dict())  # an OrderedDict with _metadata
    parameters = collections.OrderedDict((name, torch.nn.Parameter(tensor)) for name, tensor in layer.state_dict().items())
    save("parameters.bin", parameters, parameters)
    nested = {"epoch": 3, "lr": 1e-3, "note": "hello", "done": True, "none": None, "state_dict": {"a.weight": base}, "shape": base.shape,
              "history": [1.0, 2.0], "dtype": torch.float16}
    save("nested.bin", nested, nested["state_dict"])
    parts = {"projector": {"w": base}, "step": 7, "newline": base[0]}
    save("parts.bin", parts, {"projector.w": base, "newline": base[0]})
    everything = {**dtypes, **views}
    save("legacy.bin", everything, everything, _use_new_zipfile_serialization=False)
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.bin", {"w": base, "v": base.half()}, {"w": base, "v": base.half()}, pickle_protocol=protocol)
    save_file(expected, out / "expected.safetensors")

    # Files that must be refused.
    torch.save({"w": base, "config": argparse.Namespace(lr=1)}, out / "refused_global.bin")
    torch.save({"w": base.expand(3, 4, 6)}, out / "refused_expanded.bin")
    torch.save([1, 2, 3], out / "refused_list.bin")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), out / "refused_torchscript.pt")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    for folder in ("pickle", "safetensors"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    make_pickles(out / "pickle")
    tensors = {"b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "a.half": torch.ones(3).half(),
               "a.brain": torch.ones(3).bfloat16(), "ids": torch.tensor([1, 2, 3]), "mask": torch.tensor([True, False, True]),
               "nothing": torch.zeros(0, 5), "scalar": torch.tensor(2.5), "naïve \"name\"\n": torch.ones(1, dtype=torch.uint8)}
    save_file(tensors, out / "safetensors" / "python.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
