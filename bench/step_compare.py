#!/usr/bin/env python3
"""Runs step_bench and its peer step_bench_hf.py by turns on this machine and prints the ratios.

  step_compare.py --bench BUILD/bench/step_bench [--python PYTHON_WITH_THE_PEER] [--rounds 2] [--cases lora:bfloat16,full:float32]
                  [--labels all|text] [--install]   (makes a virtual environment beside this build and pip installs the peer into it)

Prints each run's JSON line, then one line a case: samples per second of both (best round), their ratio, peak RSS and its ratio.
"""
import argparse, json, os, pathlib, subprocess, sys, venv

HERE = pathlib.Path(__file__).resolve().parent
PEER = ["torch==2.13.0", "transformers==4.57.6", "peft==0.21.2"]


def install(folder):
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEER], check=True)
    return str(python)


def run(command, threads):
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="passive")
    out = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    line = out.strip().splitlines()[-1]
    print(line, flush=True)
    return json.loads(line)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--bench", required=True)
    ap.add_argument("--python", default=sys.executable)
    ap.add_argument("--install", action="store_true")
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--steps", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--cases", default="lora:bfloat16,lora:float32,full:bfloat16,full:float32")
    ap.add_argument("--labels", default="all", choices=["all", "text"])
    a = ap.parse_args()
    python = install(pathlib.Path(a.bench).resolve().parent / "peer-venv") if a.install else a.python
    for case in a.cases.split(","):
        mode, dtype = case.split(":")
        flags = ["--mode", mode, "--dtype", dtype, "--labels", a.labels, "--steps", str(a.steps), "--threads", str(a.threads)]
        ours, theirs = [], []
        for _ in range(a.rounds):  # by turns: a change of the machine's load hits both
            ours.append(run([a.bench, *flags], a.threads))
            theirs.append(run([python, str(HERE / "step_bench_hf.py"), *flags], a.threads))
        speed = [max(r["samples_per_s"] for r in runs) for runs in (ours, theirs)]
        rss = [max(r["peak_rss_mb"] for r in runs) for runs in (ours, theirs)]
        print(f"{case}: {speed[0]:.3f} against {speed[1]:.3f} samples/s = {speed[0] / speed[1]:.2f}x, "
              f"peak RSS {rss[0]} against {rss[1]} MB = {rss[0] / rss[1]:.2f}x", flush=True)


main()
