#!/usr/bin/env python3
"""Loads what `llava convert` writes with transformers 4.57.6 and compares logits, token ids and pixels.

  check_convert.py --llava build/llava --golden ../shared/reference/golden --work DIR

Each golden checkpoint is converted to the layouts it can have, in shards of 100 kB, and then
  hf      loaded by AutoModelForImageTextToText (no tensor missing, left over or of another shape) and AutoProcessor;
  llava   loaded as the original code does: its class is a Llama, Mistral or Qwen 2 of transformers with a connector inside
          and a CLIP or SigLIP tower in a folder of its own, which transformers loads; that class is written out below;
and run in float32 on an image and a prompt. "from" is the largest difference of logits from the source's, run by `llava inspect
forward`; "ours" from the same command on the converted folder. Conversions that are refused are listed with their reason.
`adapter` rows merge a PEFT adapter (rank 4, random) while converting. Ends with 1 if a difference is above 1e-5.
"""
import argparse, json, os, pathlib, subprocess, sys

os.environ |= dict(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

PROMPT = "USER: <image>\nWhat is it? ASSISTANT:"
LIMIT, PIXELS = 1e-5, 1e-6
ROOT = pathlib.Path(__file__).resolve().parents[2]


class Original:
    """The class of the original code: a causal decoder of transformers with `model.mm_projector`, and a tower beside it."""

    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text())
        base = {"llava": transformers.LlamaForCausalLM, "llava_mistral": transformers.MistralForCausalLM, "llava_qwen": transformers.Qwen2ForCausalLM}[config["model_type"]]
        tower = pathlib.Path(config["mm_vision_tower"])
        kind = json.loads((tower / "config.json").read_text())["model_type"]
        tower_class = transformers.CLIPVisionModel if kind.startswith("clip") else transformers.SiglipVisionModel
        self.config, self.layer, self.skip = config, config["mm_vision_select_layer"] if kind.startswith("clip") else -2, config["mm_vision_select_feature"] == "patch" and kind.startswith("clip")  # its SigLIP deletes the last block
        depth = 1 if config["mm_projector_type"] == "linear" else int(config["mm_projector_type"][3])

        class Model(base):
            def __init__(self, decoder):
                super().__init__(decoder)
                sizes = [config["mm_hidden_size"]] + [decoder.hidden_size] * depth
                layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
                self.model.mm_projector = torch.nn.Sequential(*[m for i, layer in enumerate(layers) for m in ([torch.nn.GELU()] if i else []) + [layer]]) if depth > 1 else layers[0]

        decoder = base.config_class(**{k: v for k, v in config.items() if k not in ("model_type", "architectures")})
        self.model = loaded(Model, folder, config=decoder)
        self.tower = loaded(tower_class, tower)

    def logits(self, ids, pixels, places):
        with torch.no_grad():
            hidden = self.tower(pixels, output_hidden_states=True).hidden_states[self.layer]
            features = self.model.model.mm_projector(hidden[:, 1:] if self.skip else hidden)
            words = self.model.model.embed_tokens(ids.clamp(min=0))
            parts, start = [], 0
            for i, (at, count) in enumerate(places):
                parts += [words[start:at], features[i]]
                start = at + count
            return self.model(inputs_embeds=torch.cat([*parts, words[start:]])[None], use_cache=False).logits[0]


def loaded(kind, folder, **extra):
    model, info = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, **extra)
    bad = {k: sorted(v)[:5] for k, v in info.items() if v}
    if bad:
        raise RuntimeError(f"{folder}: {bad}")
    return model.eval()


def places_of(ids, image):
    """Where runs of the image's id begin and how long they are."""
    places = []
    for i, token in enumerate(ids.tolist()):
        if token == image and (i == 0 or ids[i - 1] != image):
            places.append([i, 0])
        if token == image:
            places[-1][1] += 1
    return places


class Check:
    def __init__(self, a):
        self.a, self.failed = a, False

    def llava(self, *arguments):
        done = subprocess.run([self.a.llava, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-2 if "hint:" in done.stderr else -1])
        return done.stderr

    def forward(self, model, *extra, ids=None):
        """By prompt, or by `ids` with each image once as None."""
        out = self.a.work / "forward.safetensors"
        has_text = any((model / n).exists() for n in ("tokenizer.json", "tokenizer.model", "vocab.json"))
        text = ["--prompt", PROMPT]
        if ids or not has_text:  # the extra models have no tokenizer
            path = self.a.work / "ids.json"
            path.write_text(json.dumps([self.image_token(model) if i is None else i for i in ids or [1, 40, 41, None, 42, 43, 44]]))
            text = ["--ids", path]
        self.llava("inspect", "forward", "--model", model, *extra, "--image", self.a.image, *text, "--out", out, "--threads", 1)
        found = load_file(out)
        return {k: v[0] if k in ("input_ids", "logits") else v for k, v in found.items()}, has_text

    def by_transformers(self, folder, ours, has_text):
        """Logits, and what differs in ids and pixels."""
        note = "its processor"
        config = json.loads((folder / "config.json").read_text())
        if config["architectures"][0].endswith("ForCausalLM"):
            model, ids = Original(folder), ours["input_ids"]
            image = ids[ids < 0][0].item()
            return model.logits(ids, ours["pixel_values"].reshape(-1, *ours["pixel_values"].shape[-3:]), places_of(ids, image)), "as the original code"
        model = loaded(transformers.AutoModelForImageTextToText, folder)
        if has_text:
            inputs, note = self.processed(folder)
            if not torch.equal(inputs["input_ids"][0], ours["input_ids"]):
                raise RuntimeError(f"{folder}: the processor's ids differ: {inputs['input_ids'][0].tolist()} {ours['input_ids'].tolist()}")
            off = (inputs["pixel_values"].reshape(-1) - ours["pixel_values"].reshape(-1)).abs().max().item()
            if off > PIXELS:
                raise RuntimeError(f"{folder}: pixels differ by {off}")
        else:
            note = "our ids and pixels"
            inputs = dict(input_ids=ours["input_ids"][None], pixel_values=ours["pixel_values"])
        with torch.no_grad():
            return model(**inputs, use_cache=False).logits[0], note

    def processed(self, folder):
        """What the folder's own processor makes of the prompt; those with a video part want torchvision, so theirs is put together here."""
        image = Image.open(self.a.image).convert("RGB")
        try:
            return dict(transformers.AutoProcessor.from_pretrained(folder)(text=PROMPT, images=image, return_tensors="pt")), "its processor"
        except ImportError:
            settings = json.loads((folder / "processor_config.json").read_text())
            kind = getattr(transformers, settings.pop("processor_class"))
            kind.check_argument_for_proper_class = lambda self, name, value: value
            class Absent:
                model_input_names = []
            parts = dict(image_processor=transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False), tokenizer=transformers.AutoTokenizer.from_pretrained(folder))
            return dict(kind(**parts, video_processor=Absent(), **settings)(text=PROMPT, images=image, return_tensors="pt")), "its processor (without the video part)"

    def row(self, name, source, to, *, more=(), extra=(), base=None):
        out = self.a.work / f"{name}-{to or 'same'}"
        try:
            self.llava("convert", "--in", source, *(["--model-base", base] if base else []), "--out", out, *(["--to", to] if to else []), "--max-shard-bytes", 100000, *more)
            start, _ = self.forward(source, *(["--model-base", base] if base else []), *extra)
            ours, has_text = self.forward(out)
            found, note = self.by_transformers(out, ours, has_text)
        except (RuntimeError, ValueError) as e:
            refused = "cannot express" in str(e) or "its own layout is" in str(e)
            self.failed |= not refused
            print(f"| {name} | {to or 'same'} | | | | {'refused' if refused else 'FAILED'}: {str(e).removeprefix('llava: error: ')} |", flush=True)
            return out
        words = self.collapsed(out, ours["input_ids"])
        if words != self.collapsed(base or source, start["input_ids"]):  # the original splits the text at images before it makes tokens
            start, _ = self.forward(source, *(["--model-base", base] if base else []), *extra, ids=words)
        difference = lambda a, b: (a[:, :min(a.shape[1], b.shape[1])] - b[:, :min(a.shape[1], b.shape[1])]).abs().max().item()
        rows = min(found.shape[1], start["logits"].shape[1])
        if to:  # rows behind the vocabulary are cut and made anew
            rows = min(rows, self.vocabulary(base or source), self.vocabulary(out))
        values = [difference(found[:, :rows], start["logits"]), difference(found, ours["logits"])]
        self.failed |= max(values) > LIMIT
        shards = len(list(out.glob("model*.safetensors")))
        print(f"| {name} | {to or 'same'} | {shards} | {values[0]:.1e} | {values[1]:.1e} | {note}{'' if max(values) <= LIMIT else ' TOO LARGE'} |", flush=True)
        return out

    @staticmethod
    def image_token(folder):
        config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
        return config.get("image_token_index", config.get("image_token_id", -200))

    def collapsed(self, folder, ids):
        """Each image once, as None."""
        image, ids = self.image_token(folder), ids.tolist()
        return [None if t == image else t for i, t in enumerate(ids) if t != image or ids[i - 1] != image]

    @staticmethod
    def vocabulary(folder):
        """Rows that a tokenizer's tokens have: the original layout's, or those before llava-hf's image token."""
        config = json.loads((folder / "config.json").read_text())
        if "text_config" not in config:
            return config["vocab_size"]
        image = config.get("image_token_index", config.get("image_token_id"))
        return image if config["text_config"].get("model_type") != "qwen2" else config["text_config"].get("vocab_size", image)


def adapter(checkpoint, folder):
    """A random PEFT adapter for the decoder's q and down projections."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = get_peft_model(loaded(transformers.AutoModelForImageTextToText, checkpoint), LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*\.(q_proj|down_proj)"))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(folder)
    return folder


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--llava", required=True)
    ap.add_argument("--golden", type=pathlib.Path, required=True)
    ap.add_argument("--work", type=pathlib.Path, required=True, help="a new folder")
    a = ap.parse_args()
    a.golden, a.work = a.golden.resolve(), a.work.resolve()
    a.work.mkdir(parents=True)
    a.image = a.golden / "train/images/0001.png"
    torch.set_num_threads(1)
    check = Check(a)
    models, extra = a.golden / "checkpoints", ROOT / "tests/golden/models_extra"
    print("| model | --to | shards | from | ours | loaded with |\n|---|---|---|---|---|---|")
    for name in ("llava15", "llava_siglip", "llava_mistral_newkeys"):
        source = (models if (models / name).exists() else extra) / name
        check.row(name, source, None)
        original = check.row(name, source, "llava")
        if original.exists():
            check.row(f"{name}-llava", original, "hf")
    for name in ("llava15_orig", "original_linear_bin", "original_embedded_tower", "llava_next_orig"):
        source = (models if (models / name).exists() else extra) / name
        check.row(name, source, "hf")
    for name in ("llava_next_mistral", "llava_next_video", "llava_onevision", "vipllava"):
        source = (models if (models / name).exists() else extra) / name
        check.row(name, source, None)
        check.row(name, source, "llava")
    for name in ("llava15", "llava_next_mistral", "llava_onevision"):
        tuned = adapter(models / name, a.work / f"{name}-adapter")
        for to in (None, "llava") if name == "llava15" else (None,):
            check.row(f"{name} + adapter", tuned, to, base=models / name, more=("--dtype", "float32"))
    print("llava-nano: transformers has no class for four patches a token with a class token and a norm before the connector")
    sys.exit(check.failed)


if __name__ == "__main__":
    main()
