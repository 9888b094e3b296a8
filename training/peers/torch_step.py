#!/usr/bin/env python3
"""Time forward and backward of one sequence in PyTorch, to set beside `large -- learn` of this crate.

    python torch_step.py --shape 1.5b --tuning lora --tokens 8192 --attention sdpa

The model is transformers' Qwen2 or Qwen3 with random bf16 weights of the same shape, gradient checkpointing per layer, a rank-16
LoRA on all seven projections (peft, f32 factors) or full fine-tuning with PyTorch's fused AdamW on the bf16 weights. The
loss is the mean log-probability of the next token over the whole sequence. Prints one line of JSON with the fields of
`large -- learn`. What differs: the peer has no f32 masters, and its output layer keeps logits of the whole sequence; where
that does not fit, it says so.
"""

import argparse
import json
import statistics
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SHAPES = {
    "1.5b": {"model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
             "vocab_size": 151_936, "tie_word_embeddings": False},
    "7b": {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18_944, "num_attention_heads": 28, "num_key_value_heads": 4,
           "vocab_size": 152_064, "tie_word_embeddings": False},
    "qwen3-1.7b": {"model_type": "qwen3", "hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16,
                   "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True},
}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1.5b")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--tuning", choices=["lora", "full"], default="lora")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def build(arguments: argparse.Namespace) -> torch.nn.Module:
    """The model with its trainable part."""
    config = AutoConfig.for_model(
        **SHAPES[arguments.shape], num_hidden_layers=arguments.layers, max_position_embeddings=40_960,
        attn_implementation=arguments.attention, use_cache=False,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(arguments.device):
        model = AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    if arguments.tuning == "full":
        return model
    from peft import LoraConfig, get_peft_model

    model.enable_input_require_grads()
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=PROJECTIONS))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return adapted


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(1)
    model = build(arguments)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-6, fused=arguments.device == "cuda")
    vocabulary = SHAPES[arguments.shape]["vocab_size"]
    ids = torch.tensor([[(index * 7919) % vocabulary for index in range(arguments.tokens)]], device=arguments.device)
    is_cuda = arguments.device == "cuda"
    wait = torch.cuda.synchronize if is_cuda else (lambda: None)
    passes, updates = [], []
    result = {"measured": "torch", "shape": arguments.shape, "layers": arguments.layers, "tuning": arguments.tuning,
              "dtype": "bf16", "tokens": arguments.tokens, "attention": arguments.attention}
    try:
        for _ in range(arguments.repeats + 1):
            wait()
            started = time.perf_counter()
            with torch.autocast(arguments.device, dtype=torch.bfloat16):
                logits = model(input_ids=ids).logits[0]
            # The last token predicts the first, so that as many log-probabilities are taken as by the other program.
            loss = torch.nn.functional.cross_entropy(logits.float(), ids[0].roll(-1))
            loss.backward()
            wait()
            passes.append(time.perf_counter() - started)
            started = time.perf_counter()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            wait()
            updates.append(time.perf_counter() - started)
            del logits, loss
    except torch.OutOfMemoryError:
        print(json.dumps(result | {"error": "out of memory"}))
        return
    seconds, update = statistics.median(passes[1:]), statistics.median(updates[1:])
    result |= {"seconds": seconds, "update_seconds": update, "tokens_per_second": arguments.tokens / (seconds + update)}
    if is_cuda:
        result["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(result))


if __name__ == "__main__":
    main()
