#!/usr/bin/env python3
"""Make the golden checkpoints that the decoders, the LoRA layers and the file readers are tested against.

Random checkpoints and an adapter are written in the layout that Hugging Face `transformers` and `peft` write,
together with what those libraries compute from them:

    qwen2-tied/       one safetensors file, the output layer shares the embedding table
      adapter/        LoRA adapter (rank 4, alpha 8, all seven linear layers, B not zero) on that checkpoint
    qwen2-untied/     two safetensors shards with an index, own output layer
    qwen3/            norms over heads, heads wider than hidden size / heads, one layer
    llama/            no biases, rotary frequencies stretched as in Llama 3.1, one layer

Each folder has an `expected.safetensors` (names and shapes: README.md). Its values come from float32 arithmetic on one
thread with `attn_implementation="eager"`, each sequence by itself, without padding.

Every tensor is drawn from its own generator, seeded by a hash of its name and `--seed`, so that the values do not
depend on the order in which a library version creates its parameters. Same versions, same bytes.

    python make_checkpoints.py                 # writes beside this file
    python make_checkpoints.py --out /tmp/g    # elsewhere, for instance to compare with the committed files
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SEQUENCE_LENGTHS = (11, 7)
LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA_RANK = 4
LORA_ALPHA = 8
# Half of the untied checkpoint, so that it falls into two shards.
SHARD_SIZE = "45KB"


def draw(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Standard normal values that depend only on `name`, `shape` and `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.randn(shape, generator=generator, dtype=torch.float32)


DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# With an original context of 16 tokens and these factors, one of four frequencies stays, one is divided by 4, and two lie
# between.
STRETCHED_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 0.25,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 16,
}


def tiny(config: type[PreTrainedConfig], **changes) -> PreTrainedConfig:
    """The shape that all have in common: grouped-query attention with two query heads a key head, head dimension 8."""
    shape = dict(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-6,
        rope_parameters=DEFAULT_ROPE,
        tie_word_embeddings=False,
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=1,
        attn_implementation="eager",
    )
    return config(**(shape | changes))


def models() -> dict[str, PreTrainedModel]:
    """Every checkpoint by the name of its folder."""
    return {
        "qwen2-tied": Qwen2ForCausalLM(tiny(Qwen2Config, tie_word_embeddings=True)),
        "qwen2-untied": Qwen2ForCausalLM(tiny(Qwen2Config)),
        "qwen3": Qwen3ForCausalLM(tiny(Qwen3Config, num_hidden_layers=1, head_dim=12)),
        "llama": LlamaForCausalLM(tiny(LlamaConfig, num_hidden_layers=1, rope_parameters=STRETCHED_ROPE)),
    }


def fill(model: torch.nn.Module, seed: int) -> None:
    """Give every parameter a value that matters: norms around 1, biases far from 0, logits of scale 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = draw(name, parameter.shape, seed)
            if "norm" in name:
                parameter.copy_(1.0 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.5 * noise)
            else:
                # Norms give rows of length about sqrt(hidden), so outputs, and the logits too, get unit variance.
                parameter.copy_(noise / parameter.shape[1] ** 0.5)


def token_sequences(vocab_size: int, seed: int) -> list[torch.Tensor]:
    """Random token ids, one 1-D int64 tensor for each entry of SEQUENCE_LENGTHS."""
    sequences = []
    for index, length in enumerate(SEQUENCE_LENGTHS):
        digest = hashlib.sha256(f"{seed}/input_ids.{index}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        sequences.append(torch.randint(2, vocab_size, (length,), generator=generator))
    return sequences


def expected(model: torch.nn.Module, sequences: list[torch.Tensor], checkpoint_name) -> dict[str, torch.Tensor]:
    """Logits, log-probabilities, loss and the gradient of every parameter that requires one."""
    model.eval()
    model.zero_grad(set_to_none=True)
    tensors: dict[str, torch.Tensor] = {}
    nll_sum = torch.zeros(())
    predictions = 0
    for index, ids in enumerate(sequences):
        logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0].float()
        logprobs = torch.log_softmax(logits[:-1], dim=-1).gather(1, ids[1:].unsqueeze(1)).squeeze(1)
        nll_sum = nll_sum - logprobs.sum()
        predictions += len(ids) - 1
        tensors[f"input_ids.{index}"] = ids
        tensors[f"logits.{index}"] = logits.detach()
        tensors[f"logprobs.{index}"] = logprobs.detach()
    loss = nll_sum / predictions
    loss.backward()
    tensors["loss"] = loss.detach()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, f"no gradient for {name}"
            tensors[f"grad.{checkpoint_name(name)}"] = parameter.grad.detach()
    spread = torch.cat([tensors[f"logits.{i}"].flatten() for i in range(len(sequences))]).std().item()
    assert 0.3 < spread < 3.0, f"logits have standard deviation {spread:.3f}; expected about 1"
    print(f"  loss {loss.item():.6f}, standard deviation of logits {spread:.3f}")
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def names_on_disk(folder: Path) -> set[str]:
    """All tensor names in the safetensors files of `folder`, `expected.safetensors` excepted."""
    names: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        if path.name != "expected.safetensors":
            with safe_open(path, framework="pt") as file:
                names.update(file.keys())
    return names


def make_readable(folder: Path) -> None:
    """Undo the owner-only mode that newer `safetensors` gives its files."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def save_expected(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write `expected.safetensors`, after checking that it has one gradient for each tensor of the checkpoint."""
    gradients = {name.removeprefix("grad.") for name in tensors if name.startswith("grad.")}
    assert gradients == names_on_disk(folder), gradients ^ names_on_disk(folder)
    save_file(tensors, folder / "expected.safetensors")


def make_checkpoint(folder: Path, model: PreTrainedModel, seed: int) -> None:
    """Write one checkpoint with its expectations."""
    print(folder.name)
    model.float()
    fill(model, seed)
    if folder.name == "qwen2-untied":
        model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
        shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
        assert len(shards) == 2, f"expected two shards, got {shards}"
    else:
        model.save_pretrained(folder)
    save_expected(folder, expected(model, token_sequences(model.config.vocab_size, seed), lambda name: name))


def make_adapter(folder: Path, base: PreTrainedModel, seed: int) -> None:
    """Write a LoRA adapter on `base` with its expectations; gradients of lora_A and lora_B only."""
    print(f"{folder.parent.name}/{folder.name}")
    config = LoraConfig(
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        bias="none",
        target_modules=LINEAR_LAYERS,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.copy_(draw(name, parameter.shape, seed) / parameter.shape[1] ** 0.5)
            elif "lora_B" in name:
                parameter.copy_(0.3 * draw(name, parameter.shape, seed))
    model.save_pretrained(folder)
    # The card is a template without content here.
    (folder / "README.md").unlink(missing_ok=True)
    tidy_adapter_config(folder / "adapter_config.json")
    sequences = token_sequences(base.config.vocab_size, seed)
    # On disk the adapter's own name ("default") is left out.
    save_expected(folder, expected(model, sequences, lambda name: name.replace(".default.", ".")))


def tidy_adapter_config(path: Path) -> None:
    """Take out what differs from run to run: the order of a set, and the folder that the base came from."""
    config = json.loads(path.read_text())
    config["target_modules"] = LINEAR_LAYERS
    config["base_model_name_or_path"] = "qwen2-tied"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder that gets the checkpoints")
    parser.add_argument("--seed", type=int, default=20250206, help="seed of all tensors and token ids")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    checkpoints = models()
    for name, model in checkpoints.items():
        shutil.rmtree(arguments.out / name, ignore_errors=True)
        make_checkpoint(arguments.out / name, model, seed=arguments.seed)
    make_adapter(arguments.out / "qwen2-tied" / "adapter", checkpoints["qwen2-tied"], seed=arguments.seed)

    size = 0
    for name in checkpoints:
        make_readable(arguments.out / name)
        size += sum(path.stat().st_size for path in (arguments.out / name).rglob("*") if path.is_file())
    print(f"{size / 1000:.0f} kB")
    assert size < 600_000, "the golden files must stay small"


if __name__ == "__main__":
    main()
