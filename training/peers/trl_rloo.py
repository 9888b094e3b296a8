#!/usr/bin/env python3
"""Time the same RL step in a peer: length-penalised RLOO with Hugging Face TRL, on CPU.

    python trl_rloo.py models/mini/base --prompts prompts.jsonl --threads 2 --steps 5

Prints one JSON line for each RL step on stdout (everything else goes to stderr):

    step_time          seconds of the whole RL step: generation + scoring + update
    generation_time    sampling of all rollouts (tokenizing and decoding included)
    scoring_time       old and reference log-probabilities, rewards, advantages
    update_time        forward, backward and optimizer of all updates
    rollout_tokens     completion tokens that were sampled, end of turn included, padding excluded
    tokens_per_second  rollout_tokens / step_time
    accuracy, reward, finished, mean_completion_tokens: over the rollouts of the step

What is equal to `serve train --bench`, given the same values as arguments
  * base checkpoint, tokenizer and chat template; float32; no dropout, no gradient checkpointing
  * prompts a step, samples a prompt, sampling at temperature 1 without truncation of the distribution, token limit
  * LoRA rank and alpha on all seven linear layers; the adapter switched off is the reference policy
  * reward: 1[answer in the last \\boxed{} is right] * (1 - alpha * sigmoid(z)), z over the correct rollouts of a prompt
    (population standard deviation); 0 for wrong or unfinished rollouts
  * leave-one-out baseline, advantages not normalised, clip 0.2, KL against the reference in the reward
  * updates a step, each on its own share of the rollouts (the first one on-policy; TRL shuffles the rollouts before
    it shares them out), AdamW (0.9, 0.95), constant learning rate, gradient norm clipped to 1
  * number of threads

What is not equal
  * TRL's RLOO takes the probability ratio of whole sequences and puts the summed KL in the reward before the baseline;
    ours is per token, with the KL after the baseline (as the code of the paper has it). Same work, other gradients.
  * TRL pads all rollouts of a step to the longest one, samples until the longest one has ended, and recomputes the
    log-probabilities of the sampling policy with a forward pass of their own.
  * random numbers, so rollouts and their lengths: compare tokens_per_second next to step_time
  * the grader here knows plain numbers only
  * torch's own kernels (MKL, oneDNN), no torch.compile, and `model.generate` for sampling: what TRL offers on a CPU
    without vLLM. One setting is better than TRL's default: `--cache static`, because the default cache
    (`--cache dynamic`) copies itself for every token, which cost 1.7 to 2.2 times the generation time in a trial of
    128 rollouts of up to 400 tokens. The size of the micro-batch made no difference (4 to 32 tried).
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="Hugging Face folder of the base model, with its tokenizer")
    parser.add_argument("--prompts", type=Path, required=True, help="JSONL with `question` and `answer`")
    parser.add_argument("--system", help="system prompt (default: none)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5, help="RL steps")
    parser.add_argument("--batch", type=int, default=32, help="prompts a step")
    parser.add_argument("--samples", type=int, default=8, help="rollouts a prompt")
    parser.add_argument("--updates", type=int, default=2, help="optimizer updates a step")
    parser.add_argument("--micro-batch", type=int, default=32, help="rollouts a forward/backward pass")
    parser.add_argument("--max-new-tokens", type=int, default=640)
    parser.add_argument("--cache", choices=["static", "dynamic"], default="static", help="key/value cache")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--alpha", type=float, default=0.2, help="weight of the length penalty")
    parser.add_argument("--kl", type=float, default=1e-3, help="weight of the KL; 0 saves the reference pass")
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--lora-alpha", type=float, default=32)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rollouts = arguments.batch * arguments.samples
    if rollouts % (arguments.updates * arguments.micro_batch) != 0:
        parser.error(f"--batch * --samples = {rollouts} must be a multiple of --updates * --micro-batch")
    return arguments


# Thread pools read the environment when their library loads, so arguments come before the imports.
ARGUMENTS = parse_arguments()
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = str(ARGUMENTS.threads)
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback  # noqa: E402
from trl import RLOOConfig, RLOOTrainer  # noqa: E402


def boxed(text: str) -> str | None:
    """Content of the last `\\boxed{...}` with balanced braces, or None."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for index in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index]
    return None


def number(text: str) -> float | None:
    """`text` as a number, thousands separators removed, or None."""
    try:
        return float(text.replace(",", "").strip())
    except ValueError:
        return None


def is_correct(completion: str, answer: str) -> bool:
    """Whether the boxed answer equals `answer` as a number, or else as text."""
    given = boxed(completion)
    if given is None:
        return False
    left, right = number(given), number(answer)
    if left is None or right is None:
        return given.strip() == answer.strip()
    return math.isclose(left, right, rel_tol=1e-9)


def length_penalised(correct: list[bool], lengths: list[int], alpha: float) -> list[float]:
    """Rewards of the rollouts of one prompt: correct * (1 - alpha * sigmoid(z)), z over the correct ones."""
    kept = [length for length, right in zip(lengths, correct, strict=True) if right]
    if not kept:
        return [0.0] * len(correct)
    mean = sum(kept) / len(kept)
    std = math.sqrt(sum((length - mean) ** 2 for length in kept) / len(kept))
    rewards = []
    for length, right in zip(lengths, correct, strict=True):
        z = (length - mean) / (std + 1e-7)
        rewards.append(1.0 - alpha / (1.0 + math.exp(-z)) if right else 0.0)
    return rewards


class LengthPenalisedReward:
    """The reward in the form that TRL calls: all rollouts of a step at once, those of a prompt side by side."""

    __name__ = "length_penalised"

    def __init__(self, alpha: float, samples: int):
        self.alpha, self.samples = alpha, samples
        self.eos_token_ids: list[int] = []
        self.statistics: dict[str, float] = {}

    def __call__(self, prompts, completions, completion_ids, answer, **_) -> list[float]:
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        finished = [ids[-1] in self.eos_token_ids for ids in completion_ids]
        correct = [done and is_correct(t, a) for t, a, done in zip(texts, answer, finished, strict=True)]
        lengths = [len(ids) for ids in completion_ids]
        rewards: list[float] = []
        for start in range(0, len(prompts), self.samples):
            group = slice(start, start + self.samples)
            assert all(prompt == prompts[start] for prompt in prompts[group]), "rollouts of a prompt are not together"
            rewards += length_penalised(correct[group], lengths[group], self.alpha)
        count = len(prompts)
        self.statistics = {
            "rollout_tokens": sum(lengths),
            "mean_completion_tokens": sum(lengths) / count,
            "accuracy": sum(correct) / count,
            "reward": sum(rewards) / count,
            "finished": sum(finished) / count,
        }
        return rewards


class TimedTrainer(RLOOTrainer):
    """RLOOTrainer that adds up the seconds of its two rollout stages in `generation_time` and `rollout_time`."""

    generation_time = 0.0
    rollout_time = 0.0

    def _generate(self, *args, **kwargs):
        start = time.perf_counter()
        result = super()._generate(*args, **kwargs)
        self.generation_time += time.perf_counter() - start
        return result

    def _generate_and_score_completions(self, *args, **kwargs):
        start = time.perf_counter()
        result = super()._generate_and_score_completions(*args, **kwargs)
        self.rollout_time += time.perf_counter() - start
        return result


class StepReport(TrainerCallback):
    """Prints a line when the last update of an RL step is done."""

    def __init__(self, trainer: TimedTrainer, reward: LengthPenalisedReward, updates: int):
        self.trainer, self.reward, self.updates = trainer, reward, updates
        self.start = 0.0

    def on_step_begin(self, args, state, control, **_):
        if state.global_step % self.updates == 0:
            self.trainer.generation_time = self.trainer.rollout_time = 0.0
            self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        if state.global_step % self.updates != 0:
            return
        seconds = time.perf_counter() - self.start
        generation, rollout = self.trainer.generation_time, self.trainer.rollout_time
        line = {
            "framework": "trl",
            "step": state.global_step // self.updates,
            "threads": torch.get_num_threads(),
            "step_time": seconds,
            "generation_time": generation,
            "scoring_time": rollout - generation,
            "update_time": seconds - rollout,
            "tokens_per_second": self.reward.statistics["rollout_tokens"] / seconds,
            **self.reward.statistics,
        }
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}), flush=True)


def read_prompts(path: Path, system: str | None, chat: bool) -> Dataset:
    """Prompts as chat messages if the tokenizer has a chat template, else as plain text."""
    rows = []
    for line in path.read_text().splitlines():
        if not line.strip():
            continue
        problem = json.loads(line)
        prompt = [{"role": "user", "content": problem["question"]}]
        if system:
            prompt.insert(0, {"role": "system", "content": system})
        # GSM8K's answers are a solution that ends in `#### number`.
        answer = str(problem["answer"]).split("####")[-1].strip()
        rows.append({"prompt": prompt if chat else problem["question"], "answer": answer})
    return Dataset.from_list(rows)


def main() -> None:
    torch.set_num_threads(ARGUMENTS.threads)
    # Not AutoTokenizer: it makes a tokenizer of the class that the configuration names and leaves out how tokenizer.json
    # splits text, so that the model reads other tokens than it was trained on.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ARGUMENTS.checkpoint, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(ARGUMENTS.checkpoint, dtype=torch.float32)
    prompts = read_prompts(ARGUMENTS.prompts, ARGUMENTS.system, chat=tokenizer.chat_template is not None)
    if len(prompts) < ARGUMENTS.batch:
        sys.exit(f"{ARGUMENTS.prompts} has {len(prompts)} prompts, a step needs {ARGUMENTS.batch}; lower --batch")

    rollouts = ARGUMENTS.batch * ARGUMENTS.samples
    micro_batches = rollouts // ARGUMENTS.micro_batch
    reward = LengthPenalisedReward(ARGUMENTS.alpha, ARGUMENTS.samples)
    with tempfile.TemporaryDirectory() as output:
        config = RLOOConfig(
            output_dir=output,
            max_steps=ARGUMENTS.steps * ARGUMENTS.updates,
            per_device_train_batch_size=ARGUMENTS.micro_batch,
            gradient_accumulation_steps=micro_batches // ARGUMENTS.updates,
            steps_per_generation=micro_batches,
            num_generations=ARGUMENTS.samples,
            num_iterations=1,
            max_completion_length=ARGUMENTS.max_new_tokens,
            temperature=ARGUMENTS.temperature,
            cache_implementation=ARGUMENTS.cache,
            beta=ARGUMENTS.kl,
            epsilon=ARGUMENTS.clip,
            normalize_advantages=False,
            learning_rate=ARGUMENTS.lr,
            lr_scheduler_type="constant",
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=ARGUMENTS.seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        )
        lora = LoraConfig(
            r=ARGUMENTS.lora_rank,
            lora_alpha=ARGUMENTS.lora_alpha,
            lora_dropout=0.0,
            target_modules=LINEAR_LAYERS,
            task_type="CAUSAL_LM",
        )
        trainer = TimedTrainer(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=prompts,
            processing_class=tokenizer,
            peft_config=lora,
        )
        reward.eos_token_ids = trainer.eos_token_ids
        # Its summary would go to stdout, between the lines of JSON.
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(StepReport(trainer, reward, ARGUMENTS.updates))
        trainer.train()


if __name__ == "__main__":
    main()
