#!/usr/bin/env python3
"""Make an untrained base model of the mini shape, to try the peer runs before (or without) the bundled family.

Writes a Hugging Face folder (Qwen2, about 1.2 M parameters) with a byte-level tokenizer, a chat template, and
`prompts.jsonl` with sums. The model is random: it answers nothing and stops by chance only (one token in 384), so some
rollouts of a step always run to the limit. Good for trying the programs; says nothing about learning, and its lengths
are not those of a trained base.

    python random_base.py /tmp/random-base
"""

import argparse
import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCAB_SIZE = 384
SPECIAL_TOKENS = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, plus the special tokens; the rest of the vocabulary stays unused."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def random_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2ForCausalLM:
    """The shape of the bundled mini base with initial weights."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def sums(count: int, seed: int) -> list[dict[str, str]]:
    """`count` sums of two-digit numbers as question and answer."""
    generator = random.Random(seed)
    pairs = [(generator.randint(10, 99), generator.randint(10, 99)) for _ in range(count)]
    return [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--prompts", type=int, default=256, help="number of prompts")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    tokenizer = byte_tokenizer()
    model = random_model(tokenizer, arguments.seed)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    lines = [json.dumps(problem) for problem in sums(arguments.prompts, arguments.seed)]
    (arguments.out / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{arguments.out}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(lines)} prompts")


if __name__ == "__main__":
    main()
