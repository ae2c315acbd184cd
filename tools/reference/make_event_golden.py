#!/usr/bin/env python3
"""Writes tests/golden/events/events.bin with tensorboard's own classes, and checks event files of a run.

    make_event_golden.py                 the golden of tests/unit/report/event_file_test.cpp
    make_event_golden.py --check DIR     reads DIR's event files with TensorBoard's reader and compares every
                                         number with DIR/metrics.jsonl

Needs the tensorboard package (2.21 was used).
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "events" / "events.bin"


def scalars(wall_time: float, step: int, values: dict[str, float]) -> Event:
    """An event of simple values."""
    entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(wall_time=wall_time, step=step, summary=Summary(value=entries))


def write_golden() -> None:
    """The same events as the unit test."""
    events = [
        Event(wall_time=1700000000.25, file_version="brain.Event:2"),
        Event(wall_time=1700000000.5, step=300, session_log=SessionLog(status=SessionLog.START)),
        scalars(1700000001.0, 0, {"train/loss": 2.5, "train/lr/^mm_projector": 1e-3}),
        scalars(1700000002.0, 300, {"train/loss": 0.1}),
        scalars(1700000003.0, 123456789012, {f"train/extra/{i}": i * i - 7.5 for i in range(40)}),
    ]
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    with GOLDEN.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()
    print(GOLDEN, GOLDEN.stat().st_size, "bytes")


def check(folder: Path) -> None:
    """Every number of metrics.jsonl is what TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    shown.Reload()
    tags = set(shown.Tags()["scalars"])
    values = {tag: {e.step: e.value for e in shown.Scalars(tag)} for tag in tags}
    compared, seen = 0, set()
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        group = "eval/" if "eval_loss" in record else "train/"
        for key, value in record.items():
            if key == "step" or isinstance(value, (str, bool)) or value is None:
                continue
            single = struct.unpack("f", struct.pack("f", value))[0]
            if not math.isclose(values[group + key][record["step"]], single, rel_tol=0, abs_tol=0):
                sys.exit(f"step {record['step']} {key}: {values[group + key][record['step']]} is not {value}")
            compared += 1
            seen.add(group + key)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    late = {tag: max(v) for tag, v in values.items() if max(v) > last}
    if late or not compared or tags != seen:
        sys.exit(f"nothing compared, steps after the last line: {late}, or curves without a number: {tags - seen}")
    print(f"{compared} numbers of {len(tags)} curves are equal")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
    else:
        write_golden()
