#!/usr/bin/env python3
"""Twelve steps of each optimizer by its reference: torch 2.13 (AdamW, Muon, SGD), transformers 4.57.6 (Adafactor), the maps of
bitsandbytes 0.50.2 (8-bit AdamW), and Lion from its paper's update. Writes tests/golden/train/optimizers.safetensors: start, gradients and end of a matrix
and a vector. Usage: make_optimizer_golden.py OUT"""
import sys

import torch
from safetensors.torch import save_file

STEPS, LR, WD = 12, 1e-2, 0.1
torch.manual_seed(11)
start = {"matrix": torch.randn(66, 64), "vector": torch.randn(64)}
grads = {k: (torch.randn(STEPS, *v.shape) * torch.logspace(-2, 0, STEPS).view(-1, *[1] * v.dim())).bfloat16() for k, v in start.items()}


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of "Symbolic Discovery of Optimization Algorithms" (Chen et al. 2023)."""

    def __init__(self, params):
        super().__init__(params, {})
        self.m = {}

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            m = self.m.setdefault(p, torch.zeros_like(p))
            c = 0.9 * m + 0.1 * p.grad
            p -= LR * (torch.sign(c) + WD * p)
            m.copy_(0.99 * m + 0.01 * p.grad)


def adafactor(params):
    from transformers import Adafactor
    return Adafactor(params, lr=LR, weight_decay=WD, scale_parameter=False, relative_step=False)


class AdamW8bit(torch.optim.Optimizer):
    """bitsandbytes' CPU update with its maps, and codes of the truly nearest values: its own CPU kernel looks codes up in a table that is
    off by up to seven codes for small second moments (129 of 4,224 squared normal numbers)."""

    def __init__(self, params):
        super().__init__(params, {})
        import bitsandbytes.functional as F
        self.maps = [F.create_dynamic_map(signed=True), F.create_dynamic_map(signed=False)]
        self.kept, self.t = {}, 0

    def code(self, x, map_):
        rows = torch.nn.functional.pad(x.flatten(), (0, -x.numel() % 256)).view(-1, 256)
        top = rows.abs().amax(1, keepdim=True)
        nearest = torch.bucketize(rows / top.clamp_min(1e-38), (map_[1:] + map_[:-1]) / 2)
        return (map_[nearest] * top).flatten()[: x.numel()].view_as(x)

    @torch.no_grad()
    def step(self):
        self.t += 1
        for p in self.param_groups[0]["params"]:
            m, v = self.kept.get(p, (torch.zeros_like(p), torch.zeros_like(p)))
            m, v = 0.9 * m + 0.1 * p.grad, 0.999 * v + 0.001 * p.grad**2
            p *= 1 - LR * WD
            p -= LR / (1 - 0.9**self.t) * m / (v.sqrt() / (1 - 0.999**self.t) ** 0.5 + 1e-8)
            big = p.numel() >= 4096
            self.kept[p] = (self.code(m, self.maps[0]), self.code(v, self.maps[1])) if big else (m, v)


PEERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=WD),
    "adafactor": adafactor,
    "lion": Lion,
    "muon_original": lambda p: torch.optim.Muon(p, lr=LR, weight_decay=WD, adjust_lr_fn="original"),
    "muon": lambda p: torch.optim.Muon(p, lr=LR, weight_decay=WD, adjust_lr_fn="match_rms_adamw"),
    "sgd": lambda p: torch.optim.SGD(p, lr=LR, weight_decay=WD, momentum=0.9, nesterov=True),
    "adamw_8bit": AdamW8bit,
}
out = {f"start.{k}": v.clone() for k, v in start.items()} | {f"grads.{k}": v for k, v in grads.items()}
for name, make in PEERS.items():
    keys = ["matrix"] if name.startswith("muon") else list(start)
    params = {k: torch.nn.Parameter(start[k].clone()) for k in keys}
    try:
        optimizer = make(list(params.values()))
        for step in range(STEPS):
            for k, p in params.items():
                p.grad = grads[k][step].float()
            optimizer.step()
    except Exception as e:  # say so: a peer that cannot run leaves no numbers
        print(f"{name}: {type(e).__name__}: {e}", file=sys.stderr)
        continue
    out |= {f"{name}.{k}": p.detach().clone() for k, p in params.items()}
save_file(out, sys.argv[1], metadata={"torch": torch.__version__})
print(sorted(out))
