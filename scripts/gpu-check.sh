#!/usr/bin/env bash
# Every check and measurement that needs a GPU; prints tables in Markdown. On an H200 training takes five minutes, serving about
# as long for each of its three kinds: `run training`, `run serving 1.5b`, `run serving folded` and `run serving 7b` do one
# part, `run` does all.
#
#   eval "$(scripts/cuda-home ~/cuda-13.0)"   # where the CUDA toolkit is not installed
#   scripts/gpu-check.sh build                # on any machine: makes target/gpu/{large,unit,serve}
#   scripts/gpu-check.sh run                  # on the machine with the GPU; PYTHON names one with torch and transformers
#
# GPU_FEATURES=flash before both leaves the engine out, whose kernels take hours to compile on two cores, and with it what is
# measured of serving.
#
# What is measured, and by what: tests of the kernels against loops in f64, training/examples/large.rs (values and gradients
# against the CPU, learning, sampling), training/peers/torch_step.py (the same step in PyTorch), `serve train` (the mini
# recipe on the GPU and on the CPU), `serve load-test` on training/peers/random_family.py (serving at real size).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
binaries=${GPU_BINARIES:-target/gpu}
python=${PYTHON:-python3}
features=${GPU_FEATURES:-cuda,flash}

build() {
    cargo build --release --locked -p brevity-training --features flash --example large
    local unit
    unit=$(cargo test --release --locked -p brevity-training --features flash --lib --no-run --message-format json |
        "$python" -c 'import json, sys; print([a for a in map(lambda line: json.loads(line).get("executable"), sys.stdin) if a][-1])')
    local default=()
    [[ ,$features, == *,cuda,* ]] || default=(--no-default-features)
    cargo build --release --locked -p brevity "${default[@]}" --features "$features"
    mkdir -p "$binaries"
    local built=${CARGO_TARGET_DIR:-target}/release
    cp "$built/examples/large" "$built/serve" "$binaries/"
    cp "$unit" "$binaries/unit"
    strip "$binaries"/{large,unit,serve}
}

# Runs a measurement with a limit of its own, so that one that hangs or fails costs only its row.
row() {
    local seconds=$1
    shift
    timeout "$seconds" "$@" 2>>"$log" | tail -1 || true
}

# Lines of JSON as a table. Usage: … | table key …
table() {
    "$python" -c '
import json, sys
keys = sys.argv[1:]
print("| " + " | ".join(key.replace("_", " ") for key in keys) + " |"); print("|---" * len(keys) + "|")
for line in sys.stdin:
    try:
        row = json.loads(line)
    except ValueError:
        print("| " + (line.strip() or "no result, see the messages") + " |" + " |" * (len(keys) - 1)); continue
    show = lambda value: "–" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)
    print("| " + " | ".join(show(row.get(key)) for key in keys) + " |")
' "$@"
}

# The two ceilings that speeds are compared with, as this machine has them.
ceilings() {
    "$python" - <<'PYTHON'
import torch
def seconds(work, times=20):
    for _ in range(3): work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times): work()
    end.record(); torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / times
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
x, y = (torch.empty(2**31, device="cuda", dtype=torch.bfloat16) for _ in range(2))
print(f"Ceilings, measured here: {2 * 8192**3 / seconds(lambda: a @ b) / 1e12:.0f} TFLOP/s (product of 8192² matrices in bf16, "
      f"PyTorch), {2 * x.nbytes / seconds(lambda: y.copy_(x)) / 1e9:,.0f} GB/s (copy of 4 GiB, bytes read and written).")
PYTHON
}

mini() {
    local device=$1 out
    out=$(mktemp -d)
    timeout 240 "$binaries/serve" train --recipe training/recipes/mini.toml --alpha 0.4 --device "$device" \
        --set run.steps=20 --out "$out/family" --runs "$out/runs" >>"$log" 2>&1 || true
    find "$out/runs" -name metrics.jsonl -exec cat {} + | "$python" -c '
import json, sys
steps = [json.loads(line) for line in sys.stdin]
print(json.dumps({"device": sys.argv[1], "steps": len(steps)} | {
    f"tokens {first}-{first + 4}": sum(s["completions/mean_length"] for s in steps[first - 1:first + 4]) / 5
    for first in (1, 6, 11, 16) if len(steps) >= first + 4}))' "$device"
}

# A family of random weights in one of the two shapes, made when it is asked for first.
family() {
    local folder=$families/$1
    [[ -e $folder/family.toml ]] ||
        "$python" training/peers/random_family.py --shape "$1" --like models/mini/base --out "$folder" >>"$log" 2>&1
    echo "$folder"
}

# Two steps of the 1.5B recipe: 256 responses of 512 tokens, sampled, scored under policy and reference, and learned from.
# Random weights solve nothing, so all advantages are 0; the work is the same.
whole_steps() {
    local out
    out=$(mktemp -d)
    "$python" -c '
import json
for i in range(64):
    print(json.dumps({"problem": f"What is {i} + {i + 3}?", "solution": f"It is \\boxed{{{2 * i + 3}}}."}))' >"$out/problems.jsonl"
    timeout 120 "$binaries/serve" train --recipe training/recipes/deepseek-r1-distill-qwen-1.5b.toml --alpha 0.1 \
        --device cuda:0 --dtype bf16 --set tuning.mode=lora --set "base=$(family 1.5b)/base" \
        --set "data.path=$out/problems.jsonl" --set data.limit=64 --set rollout.max_new_tokens=512 \
        --set optimizer.microbatch_tokens=16384 --set optimizer.warmup_updates=0 --set run.steps=2 \
        --out "$out/family" --runs "$out/runs" >>"$log" 2>&1 || true
    find "$out/runs" -name 'timings.jsonl' -exec tail -1 {} + >"$out/timings" 2>>"$log" || true
    find "$out/runs" -name 'metrics.jsonl' -exec tail -1 {} + >"$out/metrics" 2>>"$log" || true
    "$python" -c '
import json, sys
row = json.load(open(sys.argv[1])) | json.load(open(sys.argv[2]))
row["logp_difference_mean"] = row["sampling/sampling_logp_difference/mean"]
row["logp_difference_max"] = row["sampling/sampling_logp_difference/max"]
print(json.dumps(row))' "$out/timings" "$out/metrics" 2>>"$log" || echo 'no result, see the messages'
    rm -rf "$out"
}

training() {
    local on_cpu
    on_cpu=$(mktemp)
    (renice -n 10 $BASHPID >/dev/null; mini cpu >"$on_cpu") &
    echo '## Kernels against loops in f64'
    echo '```'
    timeout 90 "$binaries/unit" kernels::tests recorded_steps --test-threads 1 2>>"$log" | grep '^test' || true
    echo '```'
    echo
    echo '## The model against the CPU (norm of the difference over the norm; the worst of each kind)'
    echo '```'
    for dtype in f32 bf16; do
        echo "$dtype"
        timeout 60 "$binaries/large" check device=cuda:0 dtype=$dtype 2>>"$log" |
            sort -t: -k1,1 -k2,2 | "$python" -c '
import re, sys
worst = {}
for line in sys.stdin:
    what, value = line.rsplit(None, 1)
    kind = re.sub(r" of .*", "", what) if "gradient" in what else what
    worst[kind.strip()] = max(worst.get(kind.strip(), 0.0), float(value))
for kind, value in worst.items(): print(f"  {kind:<40}{value:.1e}")' || echo "failed: $(tail -1 "$log")"
    done
    echo '```'
    echo
    echo '## A training step, bf16, one sequence, activations checkpointed per layer'
    for case in '1.5b lora 8192' '1.5b lora 16384' '1.5b full 8192' '1.5b full 16384' '7b lora 8192' \
        'qwen3-1.7b lora 8192'; do
        read -r shape tuning tokens <<<"$case"
        row 60 "$binaries/large" learn device=cuda:0 dtype=bf16 "shape=$shape" "tuning=$tuning" "tokens=$tokens"
        row 60 "$python" training/peers/torch_step.py --shape "$shape" --tuning "$tuning" --tokens "$tokens"
    done | table measured shape tuning tokens tokens_per_second seconds update_seconds useful_tflops memory_gib error
    echo
    row 60 "$python" training/peers/torch_step.py --tokens 8192 --attention eager |
        table measured attention shape tuning tokens tokens_per_second seconds memory_gib error
    echo
    echo 'Sixteen sequences of 2,048 tokens in one micro-batch:'
    echo
    row 60 "$binaries/large" learn device=cuda:0 dtype=bf16 shape=1.5b tokens=32768 sequences=16 |
        table measured shape tuning tokens tokens_per_second seconds update_seconds useful_tflops memory_gib
    echo
    echo '## Sampling, bf16 with an adapter'
    for case in '1.5b 1 128' '1.5b 64 128' '1.5b 256 128' '1.5b 256 4096' '1.5b 4 16384' '7b 64 128' '7b 256 128' \
        'qwen3-1.7b 256 128'; do
        read -r shape sequences prompt <<<"$case"
        row 60 "$binaries/large" sample device=cuda:0 dtype=bf16 "shape=$shape" "sequences=$sequences" \
            "prompt=$prompt" new=128
    done | table shape sequences prompt tokens_per_second step_seconds gigabytes_per_second prefill_seconds memory_gib
    echo
    echo '## A whole step of the 1.5B recipe, LoRA: 256 responses of 512 tokens'
    whole_steps | table step_time rollout_time score_time update_time rollout_tokens_per_second \
        train_tokens_per_second logp_difference_mean logp_difference_max
    echo
    echo '## The mini recipe, mean tokens a response at the steps'
    local on_gpu
    on_gpu=$(mini cuda:0)
    wait
    { echo "$on_gpu" && cat "$on_cpu"; } | table device steps 'tokens 1-5' 'tokens 6-10' 'tokens 11-15' 'tokens 16-20'
    echo
}

# MiB of the GPU's memory that are in use.
memory_used() {
    nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1
}

# Serves a model or a family at $port as process $server and waits until it answers. Its cache has room for 128 sequences of
# 500 tokens at 7B, so that what the weights take is not lost in it.
start_server() {
    "$binaries/serve" --family "$1" --device cuda:0 --max-running 128 --kv-cache 4GiB --port "$port" >>"$log" 2>&1 &
    server=$!
    for _ in $(seq 150); do
        sleep 1
        curl -sf "http://127.0.0.1:$port/ready" >/dev/null 2>&1 && break
        kill -0 "$server" 2>/dev/null || break
    done
}

stop_server() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
}

# Serves a family at several concurrencies, all tiers mixed, and prints a row for each. Usage: ask_all FAMILY SHAPE TIERS BEFORE,
# the last one the memory in use before.
ask_all() {
    local folder users requests
    folder=$(mktemp -d)
    start_server "$1"
    for load in '1 8' '8 32' '32 128' '128 384'; do
        read -r users requests <<<"$load"
        timeout 90 "$binaries/serve" load-test --url "http://127.0.0.1:$port/v1" --suite mini:easy --problems 400 \
            --efforts none,low,medium,high --concurrency "$users" --requests "$requests" --max-tokens 256 \
            --temperature 1 --out "$folder/load-$users" >>"$log" 2>&1 || true
        "$python" -c '
import json, sys
shape, tiers, users, before, used, path = sys.argv[1:]
summary = json.load(open(path))
first = [effort["metrics"]["time_to_first_token"]["p50"] * 1e3 for effort in summary["efforts"]]
rest = [effort["metrics"]["time_per_output_token"]["p50"] * 1e3 for effort in summary["efforts"]]
print(json.dumps({"shape": shape, "tiers": tiers, "users": int(users),
    "succeeded": sum(effort["succeeded"] for effort in summary["efforts"]),
    "tokens_per_second": summary["total"]["tokens_per_second"], "first_token_p50_ms": sum(first) / len(first),
    "per_token_p50_ms": sum(rest) / len(rest), "memory_gib": (int(used) - int(before)) / 1024}))
' "$2" "$3" "$users" "$4" "$(memory_used)" "$folder/load-$users/summary.json" 2>>"$log" || echo "no result at $users users"
    done
    stop_server
    rm -rf "$folder"
}

# Serves a family of random weights with the adapters beside the base, and before it the base alone for its memory; `folded`
# stands for 1.5B with the adapters folded into checkpoints (those of 7B would take 60 GB of disk).
serve_shape() {
    local shape=$1 server port=8123 before
    before=$(memory_used)
    if [[ $shape == folded ]]; then
        if "$binaries/serve" tiers fold --family "$(family 1.5b)" --out "$families/folded" >>"$log" 2>&1; then
            ask_all "$families/folded" 1.5b checkpoints "$before"
        else
            echo 'folding failed'
        fi
        rm -rf "$families/folded"
        return
    fi
    start_server "$(family "$shape")/base"
    echo "{\"shape\": \"$shape\", \"tiers\": \"base alone\", \"memory_gib\": $((($(memory_used) - before) * 1000 / 1024))e-3}"
    stop_server
    ask_all "$(family "$shape")" "$shape" adapters "$before"
}

serving() {
    echo '## Serving a base and four tiers of random weights, the four mixed, 256 tokens a request; 4 GiB of keys and values a model'
    local shapes=("$@")
    ((${#shapes[@]})) || shapes=(1.5b folded 7b)
    for shape in "${shapes[@]}"; do serve_shape "$shape"; done |
        table shape tiers users succeeded tokens_per_second first_token_p50_ms per_token_p50_ms memory_gib
    echo
}

run() {
    log=$(mktemp)
    families=$(mktemp -d)
    trap 'rm -rf "$families"' EXIT
    # Libraries of a PyTorch built for CUDA 13, where the machine has no toolkit.
    local wheels
    wheels=$("$python" -c 'import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], "lib"))' 2>/dev/null || true)
    export LD_LIBRARY_PATH="${wheels:+$wheels:}${LD_LIBRARY_PATH:-}"
    echo "# GPU results"
    echo
    echo "$(date -u +%Y-%m-%d), commit ${GPU_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}," \
        "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)"
    echo
    ceilings 2>>"$log" || true
    echo
    case ${1:-all} in
    all) training && { [[ ,$features, != *,cuda,* ]] || serving; } ;;
    training | serving) "$@" ;;
    *) echo "no part is named $1: training or serving [1.5b|folded|7b]" >&2 && exit 2 ;;
    esac
    echo '## Messages'
    echo '```'
    tail -20 "$log"
    echo '```'
}

case ${1:-} in
build | run) "$@" ;;
*) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
esac
