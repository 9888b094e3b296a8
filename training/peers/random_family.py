#!/usr/bin/env python3
"""Write a family of real size with random weights, to measure serving where no weights can be had.

    python random_family.py --shape 1.5b --like models/mini/base --out /tmp/family

Base: Qwen2 in the shape of DeepSeek-R1-Distill-Qwen, bf16. Its tokenizer is that of the model given by --like with as many
more tokens as the shape's vocabulary has, so that every id that is drawn has a text. Tiers: the base and rank-16 adapters on
all seven projections, small enough to leave the base's scale alone. A random model ends no answer by itself: measure with
a limit of tokens.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPES = {
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
             "vocab_size": 151_936},
    "7b": {"hidden_size": 3584, "intermediate_size": 18_944, "num_attention_heads": 28, "num_key_value_heads": 4,
           "vocab_size": 152_064},
}
EFFORTS = {"none": "alpha-0.4", "minimal": "alpha-0.4", "low": "alpha-0.2", "medium": "alpha-0.1", "high": "alpha-0.05",
           "xhigh": "base", "max": "base"}
TIERS = ["alpha-0.05", "alpha-0.1", "alpha-0.2", "alpha-0.4"]
RANK = 16


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1.5b")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--vocabulary", type=int, help="entries, instead of the shape's")
    parser.add_argument("--like", type=Path, required=True, help="model folder whose tokenizer and template are taken")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def projections(shape: dict) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the projections of a layer, by their names in Hugging Face's format."""
    hidden, intermediate = shape["hidden_size"], shape["intermediate_size"]
    query, key = shape["num_attention_heads"] * 128, shape["num_key_value_heads"] * 128
    return {
        "self_attn.q_proj": (query, hidden), "self_attn.k_proj": (key, hidden), "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query), "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden), "mlp.down_proj": (hidden, intermediate),
    }


def write_tokenizer(like: Path, out: Path, vocabulary: int) -> None:
    """The other model's tokenizer files, with tokens of their own for the remaining ids."""
    for name in ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"]:
        shutil.copy(like / name, out / name)
    tokenizer = json.loads((like / "tokenizer.json").read_text())
    entries = tokenizer["model"]["vocab"]
    # The first character is a space in the alphabet of byte-level tokenizers.
    entries.update({f"\u0120w{index}": index for index in range(len(entries), vocabulary)})
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(1)
    shape = SHAPES[arguments.shape] | ({"vocab_size": arguments.vocabulary} if arguments.vocabulary else {})

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, device=arguments.device, dtype=torch.bfloat16) / size[-1] ** 0.5

    def constant(value: float, size: int) -> torch.Tensor:
        return torch.full((size,), value, device=arguments.device, dtype=torch.bfloat16)

    base = arguments.out / "base"
    base.mkdir(parents=True)
    write_tokenizer(arguments.like, base, shape["vocab_size"])
    config = json.loads((arguments.like / "config.json").read_text())
    config |= shape | {
        "head_dim": 128, "num_hidden_layers": arguments.layers, "max_window_layers": arguments.layers,
        "max_position_embeddings": 16_384, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }
    (base / "config.json").write_text(json.dumps(config, indent=2))
    hidden = shape["hidden_size"]
    weights = {
        "model.embed_tokens.weight": random(shape["vocab_size"], hidden),
        "lm_head.weight": random(shape["vocab_size"], hidden),
        "model.norm.weight": constant(1, hidden),
    }
    adapters = {tier: {} for tier in TIERS}
    for layer in range(arguments.layers):
        prefix = f"model.layers.{layer}"
        weights[f"{prefix}.input_layernorm.weight"] = constant(1, hidden)
        weights[f"{prefix}.post_attention_layernorm.weight"] = constant(1, hidden)
        for name, (outputs, inputs) in projections(shape).items():
            weights[f"{prefix}.{name}.weight"] = random(outputs, inputs)
            if name.rsplit(".")[-1] in ("q_proj", "k_proj", "v_proj"):
                weights[f"{prefix}.{name}.bias"] = constant(0, outputs)
            for adapter in adapters.values():
                adapter[f"base_model.model.{prefix}.{name}.lora_A.weight"] = random(RANK, inputs).float()
                adapter[f"base_model.model.{prefix}.{name}.lora_B.weight"] = random(outputs, RANK).float() * 0.02
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    names = sorted({name.rsplit(".")[-1] for name in projections(shape)})
    for tier, adapter in adapters.items():
        folder = arguments.out / tier
        folder.mkdir()
        save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base", "r": RANK,
            "lora_alpha": 32.0, "target_modules": names, "lora_dropout": 0.0, "bias": "none",
        }, indent=2))
    lines = ['name = "random"', 'default_effort = "medium"', "", "[base]", 'path = "base"',
             f'sha256 = "{sha256(base / "model.safetensors")}"', "", "[effort]"]
    lines += [f'{effort} = "{tier}"' for effort, tier in EFFORTS.items()]
    lines += ["", "[[tier]]", 'name = "base"', "alpha = 0.0"]
    for tier in TIERS:
        lines += ["", "[[tier]]", f'name = "{tier}"', f'alpha = {tier.removeprefix("alpha-")}', f'adapter = "{tier}"',
                  f'sha256 = "{sha256(arguments.out / tier / "adapter_model.safetensors")}"']
    (arguments.out / "family.toml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
