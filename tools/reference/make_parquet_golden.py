#!/usr/bin/env python3
"""Small parquet files as Hugging Face writes data sets with images, and what their rows hold.

  make_parquet_golden.py tests/golden/parquet
"""
import io, json, sys

import pyarrow
import pyarrow.parquet
from PIL import Image

IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def png(colour):
    out = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(out, "PNG")
    return out.getvalue()


def main():
    folder = sys.argv[1]
    turn = pyarrow.list_(pyarrow.struct([("from", pyarrow.string()), ("value", pyarrow.string())]))
    rows = [{"id": f"row{i}", "image": None if i == 2 else {"bytes": png((i * 20, 0, 9)), "path": f"{i}.png"},
             "conversations": [{"from": "human", "value": ("" if i == 2 else "<image>\n") + f"What is {i}?"},
                               {"from": "gpt", "value": f"Number {i}\u00a0here."}], "data_source": "made"} for i in range(7)]
    schema = pyarrow.schema([("id", pyarrow.string()), ("image", IMAGE), ("conversations", turn), ("data_source", pyarrow.string())])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), f"{folder}/conversations.parquet", row_group_size=3)
    texts = pyarrow.list_(pyarrow.struct([("user", pyarrow.string()), ("assistant", pyarrow.string()), ("source", pyarrow.string())]))
    many = [{"images": [{"bytes": png((9, i, j)), "path": None} for j in range(i)],
             "texts": [{"user": "Compare.", "assistant": f"{i} images.", "source": "made"}]} for i in range(4)]
    schema = pyarrow.schema([("images", pyarrow.list_(IMAGE)), ("texts", texts)])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(many, schema), f"{folder}/texts.parquet")
    words = [sum(len(t["value"].split()) for t in row["conversations"]) for row in rows]
    with open(f"{folder}/expected.json", "w") as file:
        json.dump({"words": words, "png_bytes": [len(png((i * 20, 0, 9))) for i in range(7)]}, file)
        file.write("\n")


if __name__ == "__main__":
    main()
