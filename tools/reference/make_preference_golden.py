#!/usr/bin/env python3
"""Golden runs of preference optimisation: DPO, KTO and GRPO of TRL on the tiny llava15 checkpoint, with images.

  make_preference_golden.py [--out tests/golden/preference]

What is TRL's (1.16): DPOTrainer, KTOTrainer and GRPOTrainer with transformers' Trainer around them; their loss code, reference
passes (adapters off, or a frozen copy), sampling, rewards' sums and advantages run unchanged. What is not: the DPO and KTO
collators (they tokenise as tests/golden/train does: every segment alone), the order of the data (as in the file), and the
lengths of GRPO's completions: a random model never ends, so what TRL sampled is cut at drawn lengths and gets an end token
before TRL sees it. Float32, one thread, no dropout, 20 steps of AdamW each; LoRA's first matrices are those of
tests/golden/train. Pinned: trl 1.16.0, transformers 4.57.6, peft 0.21.2, torch 2.13.
"""
import argparse, json, os, pathlib, random, re, tempfile

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import SequentialSampler
from transformers import AutoProcessor, LlavaForConditionalGeneration
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden"
CHECKPOINT = ROOT / "checkpoints/llava15"
STEPS, BATCH, GROUP, LONGEST = 20, 4, 4, 12
LORA_TARGET = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
KEPT = ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj")  # whose final pairs are saved
DPO = {  # name -> (DPOConfig's arguments, what trains)
    "sigmoid": (dict(loss_type=["sigmoid"], beta=0.1), "lora"),
    "sigmoid_full": (dict(loss_type=["sigmoid"], beta=0.1), "full"),
    "robust": (dict(loss_type=["robust"], beta=0.2, label_smoothing=0.1), "lora"),
    "ipo": (dict(loss_type=["ipo"], beta=0.1), "lora"),
    "hinge": (dict(loss_type=["hinge"], beta=0.5), "lora"),
    "sigmoid_sft": (dict(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5], beta=0.1), "lora"),
}
KTO = {"kto": dict(beta=0.5, desirable_weight=1.0, undesirable_weight=1.3)}
GRPO = {
    "dapo": dict(loss_type="dapo", beta=0.04),
    "grpo": dict(loss_type="grpo", beta=0.04),
    "dr_grpo": dict(loss_type="dr_grpo", beta=0.0, scale_rewards="none"),
}
REWARD_LENGTH, REWARD_REGEX = 6, "[aeiou][a-z]*[st]"
PEAK = dict(dpo=dict(lora=5e-4, full=1e-4), kto=5e-4, grpo=1e-3)


def segments(question, answer, tok, image_tokens):
    """BOS, "USER: q ASSISTANT:" and the answer with its end token, each tokenised alone; <image> repeated."""
    image = tok.convert_tokens_to_ids("<image>")
    q = tok(f"USER: {question} ASSISTANT:", add_special_tokens=False).input_ids
    q = [x for t in q for x in ([t] * image_tokens if t == image else [t])]
    return [tok.bos_token_id] + q, tok(answer, add_special_tokens=False).input_ids + [tok.eos_token_id]


def padded(pairs, pad):
    """Prompts and completions as right-padded ids, attention mask and completion mask."""
    longest = max(len(p) + len(c) for p, c in pairs)
    fill = lambda x, v: x + [v] * (longest - len(x))
    return dict(input_ids=torch.tensor([fill(p + c, pad) for p, c in pairs]),
                attention_mask=torch.tensor([fill([1] * len(p + c), 0) for p, c in pairs]),
                completion_mask=torch.tensor([fill([0] * len(p) + [1] * len(c), 0) for p, c in pairs]))


class Collator:
    def __init__(self, processor, image_tokens, kto):
        self.processor, self.image_tokens, self.kto = processor, image_tokens, kto

    def __call__(self, rows):
        tok = self.processor.tokenizer
        make = lambda answers: [segments(r["prompt"], a, tok, self.image_tokens) for r, a in zip(rows, answers)]
        pixels = self.processor.image_processor([Image.open(r["images"][0]).convert("RGB") for r in rows], return_tensors="pt")["pixel_values"]
        if not self.kto:
            pairs = make([r["chosen"] for r in rows]) + make([r["rejected"] for r in rows])
            return dict(padded(pairs, tok.pad_token_id), pixel_values=torch.cat([pixels, pixels]))
        answers = [r["completion"] for r in rows]
        other = padded(make(answers[-1:] + answers[:-1]), tok.pad_token_id)  # as TRL pairs them: the row before
        return dict(padded(make(answers), tok.pad_token_id), pixel_values=pixels, label=torch.tensor([r["label"] for r in rows]),
                    **{f"KL_{k}": v for k, v in other.items()})


def recording(base):
    """A trainer that takes the data in the file's order and notes each step's loss and metrics unrounded."""
    class Recording(base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.steps = []

        def _get_train_sampler(self, dataset=None):
            return super()._get_train_sampler(dataset) if base is GRPOTrainer else SequentialSampler(self.train_dataset)

        def compute_loss(self, model, inputs, **kwargs):
            loss = super().compute_loss(model, inputs, **kwargs)
            metrics = {k: v[-1] for k, v in self._metrics["train"].items() if v}
            want = ("rewards/", "logps/", "kl", "reward", "clip_ratio/region_mean")
            self.steps.append(dict(loss=loss.item(), **{k: v for k, v in metrics.items() if k.startswith(want)}))
            return loss

        def log(self, logs, start_time=None):
            if "grad_norm" in logs:
                self.steps[-1].update(grad_norm=float(logs["grad_norm"]), lr=logs["learning_rate"])
    return Recording


def load_policy(train):
    model = LlavaForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32, attn_implementation="eager")
    model.requires_grad_(False)
    if train == "full":
        for part in (model.model.multi_modal_projector, model.model.language_model, model.lm_head):
            part.requires_grad_(True)
        return model
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=LORA_TARGET))
    start = {k.removeprefix("lora_init/"): v for k, v in load_file(ROOT / "train/train.safetensors").items() if k.startswith("lora_init/")}
    found = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in start:
                found += 1
                parameter.copy_(start[name])
    assert found == 14, found
    return model


def arguments(kind, peak, batch=BATCH, **extra):
    return kind(output_dir=tempfile.mkdtemp(), max_steps=STEPS, per_device_train_batch_size=batch, gradient_accumulation_steps=1,
                learning_rate=peak, lr_scheduler_type="cosine", warmup_steps=2, weight_decay=0.01, adam_beta1=0.9, adam_beta2=0.999,
                adam_epsilon=1e-8, max_grad_norm=1.0, optim="adamw_torch", bf16=False, use_cpu=True, logging_steps=1, save_strategy="no",
                report_to=[], disable_tqdm=True, gradient_checkpointing=False, dataloader_num_workers=0, seed=0, **extra)


def keep(saved, prefix, model):
    for name, p in model.named_parameters():
        name = name.replace(".default.", ".")
        # peft wraps the model: a reference adapter would be ".ref."; there is none here
        if any(k in name for k in KEPT) and ("lora_" in name) and ".ref." not in name:
            saved[f"{prefix}/{name[name.index('language_model'):]}"] = p.detach().clone().contiguous()
        if prefix.endswith("full") and ("projector.linear_1.weight" in name or "layers.0.self_attn.q_proj.weight" in name):
            saved[f"{prefix}/{name}"] = p.detach().clone().contiguous()


def preference_rows():
    rows = json.loads((ROOT / "train/preference.json").read_text())
    return [dict(images=[str(ROOT / "train" / r["image"])], prompt=r["prompt"], chosen=r["chosen"], rejected=r["rejected"]) for r in rows]


def run_dpo(report, saved, processor, image_tokens):
    for name, (settings, train) in DPO.items():
        model = load_policy(train)
        reference = load_policy("full").requires_grad_(False) if train == "full" else None
        peak = PEAK["dpo"][train]
        trainer = recording(DPOTrainer)(model, reference, arguments(DPOConfig, peak, max_length=None, disable_dropout=True, **settings), Collator(processor, image_tokens, False),
                                        Dataset.from_list(preference_rows()), processing_class=processor)
        trainer.train()
        report["dpo"][name] = dict(config=dict(settings, train=train, learning_rate=peak), steps=trainer.steps)
        keep(saved, f"dpo/{name}", trainer.model)


def kto_rows():
    """Every second pair gives its chosen answer as a good one, the others their rejected one as a bad one."""
    return [dict(images=r["images"], prompt=r["prompt"], completion=r["chosen"] if i % 2 == 0 else r["rejected"], label=i % 2 == 0) for i, r in enumerate(preference_rows())]


def run_kto(report, saved, processor, image_tokens, out):
    rows = [dict(id=f"{i:04d}", image=str(pathlib.Path(r["images"][0]).relative_to(ROOT / "train")), prompt=r["prompt"], completion=r["completion"], label=r["label"]) for i, r in enumerate(kto_rows())]
    (out / "kto.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    for name, settings in KTO.items():
        trainer = recording(KTOTrainer)(load_policy("lora"), None, arguments(KTOConfig, PEAK["kto"], max_length=None, disable_dropout=True, train_sampling_strategy="sequential", **settings),
                                        Collator(processor, image_tokens, True), Dataset.from_list(kto_rows()), processing_class=processor)
        trainer.train()
        report["kto"][name] = dict(config=dict(settings, learning_rate=PEAK["kto"]), steps=trainer.steps)
        keep(saved, f"kto/{name}", trainer.model)


def length_reward(completions, **_):
    """1 for REWARD_LENGTH words, falling linearly to 0."""
    words = [len(c[0]["content"].split()) for c in completions]
    return [1 - min(1, abs(n - REWARD_LENGTH) / REWARD_LENGTH) for n in words]


def format_reward(completions, **_):
    return [1.0 if re.search(REWARD_REGEX, c[0]["content"]) else 0.0 for c in completions]


class Grpo(recording(GRPOTrainer)):
    """Cuts what was sampled at drawn lengths; notes prompts, completions and advantages of every step."""
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rollouts, self.lengths = [], random.Random(5)

    def _generate_single_turn(self, prompt_ids, *args):
        completions, logprobs = super()._generate_single_turn(prompt_ids, *args)
        cut = []
        for ids in completions:
            n = self.lengths.randint(3, LONGEST)
            cut.append(ids if n == LONGEST else ids[:n - 1] + [self._tokenizer.eos_token_id])
        self.rollouts.append(dict(prompt_ids=[list(map(int, p)) for p in prompt_ids], completion_ids=cut))
        return cut, logprobs

    def _generate_and_score_completions(self, inputs):
        out = super()._generate_and_score_completions(inputs)
        self.rollouts[-1]["advantages"] = out["advantages"].tolist()
        self.rollouts[-1]["index"] = [x["index"] for x in inputs]
        return out

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.rollouts[-1].update(text=[c[0]["content"] for c in completions], rewards=rewards.tolist())
        return rewards


def run_grpo(report, saved, processor, out):
    processor.chat_template = "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% for p in m['content'] %}{% if p['type'] == 'image' %}<image>\n{% else %}{{ p['text'] }}{% endif %}{% endfor %} ASSISTANT:{% endif %}{% endfor %}"
    rows = [dict(images=[Image.open(r["images"][0]).convert("RGB")], index=i, prompt=[dict(role="user", content=r["prompt"].removeprefix("<image>\n"))]) for i, r in enumerate(preference_rows())]
    for name, settings in GRPO.items():
        args = arguments(GRPOConfig, PEAK["grpo"], batch=2 * GROUP, num_generations=GROUP, max_completion_length=LONGEST, temperature=1.0, top_k=0, num_iterations=1, shuffle_dataset=False,
                         reward_weights=[1.0, 0.5], epsilon=0.2, remove_unused_columns=False, disable_dropout=True, **settings)
        trainer = Grpo(load_policy("lora"), [length_reward, format_reward], args, Dataset.from_list(rows), processing_class=processor)
        trainer.train()
        for step, rollout in zip(trainer.steps, trainer.rollouts):
            step["rollout"] = dict(rollout, prompt_ids=rollout["prompt_ids"] if step is trainer.steps[0] else None)
        report["grpo"][name] = dict(config=dict(settings, learning_rate=PEAK["grpo"], reward_length=REWARD_LENGTH, reward_regex=REWARD_REGEX, reward_weights=[1.0, 0.5], num_generations=GROUP, max_completion_length=LONGEST),
                                    steps=trainer.steps)
        keep(saved, f"grpo/{name}", trainer.model)


def run_grpo_clipping(report, processor):
    """TRL's own GRPO loss on random numbers: its _compute_loss with the model's pass replaced by given log-probabilities."""
    generator = torch.Generator().manual_seed(7)
    rows = [dict(prompt="a")] * BATCH
    for name, settings in {"grpo": dict(loss_type="grpo", beta=0.1, epsilon=0.2, epsilon_high=0.28), "dapo": dict(loss_type="dapo", beta=0.0, epsilon=0.1, epsilon_high=0.3),
                           "dr_grpo": dict(loss_type="dr_grpo", beta=0.05, epsilon=0.2)}.items():
        args = arguments(GRPOConfig, 1e-3, num_generations=GROUP, max_completion_length=LONGEST, **settings)
        trainer = GRPOTrainer(load_policy("lora"), length_reward, args, Dataset.from_list(rows), processing_class=processor.tokenizer)
        trainer.current_gradient_accumulation_steps = 1
        shape, lengths = (BATCH, LONGEST), [12, 3, 7, 5]
        mask = torch.tensor([[1] * n + [0] * (LONGEST - n) for n in lengths])
        policy = (-2 * torch.rand(shape, generator=generator)).requires_grad_()
        old, ref = policy.detach() + 0.4 * torch.randn(shape, generator=generator), policy.detach() + 0.3 * torch.randn(shape, generator=generator)
        advantages = torch.randn(BATCH, generator=generator)
        trainer._get_per_token_logps_and_entropies = lambda *a, **k: (policy, torch.zeros(shape), None)
        trainer.model.train()
        loss = trainer._compute_loss(trainer.model, dict(prompt_ids=torch.ones(BATCH, 1, dtype=torch.long), prompt_mask=torch.ones(BATCH, 1, dtype=torch.long), completion_ids=torch.ones(shape, dtype=torch.long), completion_mask=mask,
                                                         advantages=advantages, old_per_token_logps=old, ref_per_token_logps=ref, num_items_in_batch=mask.sum()))
        loss.backward()
        report["grpo_clipping"][name] = dict(config=settings, lengths=lengths, policy=policy.tolist(), old=old.tolist(), ref=ref.tolist(), advantages=advantages.tolist(), loss=loss.item(), grad=policy.grad.tolist(),
                                             clipped=trainer._metrics["train"]["clip_ratio/region_mean"][-1], max_completion_length=LONGEST)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=pathlib.Path, default=ROOT / "preference")
    out = ap.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    image_tokens = json.loads((CHECKPOINT / "config.json").read_text())["image_seq_length"]
    report, saved = dict(steps=STEPS, batch=BATCH, dpo={}, kto={}, grpo={}, grpo_clipping={}), {}
    run_dpo(report, saved, processor, image_tokens)
    run_kto(report, saved, processor, image_tokens, out)
    run_grpo(report, saved, processor, out)
    run_grpo_clipping(report, processor)
    save_file(saved, out / "preference.safetensors")
    text = json.dumps(report, ensure_ascii=False)
    text = re.sub(r"-?\d+\.\d{9,}(?:e-?\d+)?", lambda m: f"{float(m.group()):.9g}", text)
    (out / "preference.json").write_text(text.replace('{"loss"', '\n{"loss"') + "\n")
    for kind in ("dpo", "kto", "grpo"):
        for name, run in report[kind].items():
            print(kind, name, *(f"{s['loss']:.6f}" for s in run["steps"][:3]), "…", f"{run['steps'][-1]['loss']:.6f}")


if __name__ == "__main__":
    main()
