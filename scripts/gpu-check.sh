#!/usr/bin/env bash
# Every check and measurement that needs a GPU, in one call of less than ten minutes; prints tables in Markdown.
#
#   eval "$(scripts/cuda-home ~/cuda-13.0)"   # where the CUDA toolkit is not installed
#   scripts/gpu-check.sh build                # on any machine: makes target/gpu/{large,serve}
#   scripts/gpu-check.sh run                  # on the machine with the GPU; PYTHON names one with torch and transformers
#
# What is measured, and by what: training/examples/large.rs (values and gradients against the CPU, learning, sampling),
# training/peers/torch_step.py (the same step in PyTorch), `serve train` (the mini recipe on the GPU and on the CPU).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
binaries=${GPU_BINARIES:-target/gpu}
python=${PYTHON:-python3}

build() {
    cargo build --release --locked -p brevity-training --features cuda --example large
    cargo build --release --locked -p brevity --no-default-features --features train-cuda
    mkdir -p "$binaries"
    local built=${CARGO_TARGET_DIR:-target}/release
    cp "$built/examples/large" "$built/serve" "$binaries/"
    strip "$binaries/large" "$binaries/serve"
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
print("| " + " | ".join(keys) + " |"); print("|---" * len(keys) + "|")
for line in sys.stdin:
    try:
        row = json.loads(line)
    except ValueError:
        print("| " + (line.strip() or "no result, see the log") + " |" + " |" * (len(keys) - 1)); continue
    show = lambda value: "–" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)
    print("| " + " | ".join(show(row.get(key)) for key in keys) + " |")
' "$@"
}

mini() {
    local device=$1 out
    out=$(mktemp -d)
    timeout 200 "$binaries/serve" train --recipe training/recipes/mini.toml --alpha 0.4 --device "$device" \
        --set run.steps=20 --out "$out/family" --runs "$out/runs" >>"$log" 2>&1 || true
    find "$out/runs" -name metrics.jsonl -exec cat {} + | "$python" -c '
import json, sys
steps = [json.loads(line) for line in sys.stdin]
print(json.dumps({"device": sys.argv[1], "steps": len(steps)} | {
    f"tokens {first}-{first + 4}": sum(s["completions/mean_length"] for s in steps[first - 1:first + 4]) / 5
    for first in (1, 6, 11, 16) if len(steps) >= first + 4}))' "$device"
}

run() {
    log=$(mktemp)
    # Libraries of a PyTorch built for CUDA 13, where the machine has no toolkit.
    local wheels
    wheels=$("$python" -c 'import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], "lib"))' 2>/dev/null || true)
    export LD_LIBRARY_PATH="${wheels:+$wheels:}${LD_LIBRARY_PATH:-}"
    echo "# GPU results"
    echo
    echo "$(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)," \
        "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)"
    echo
    echo '## Against the CPU (norm of the difference over the norm)'
    echo '```'
    for dtype in f32 bf16; do
        echo "$dtype"
        timeout 60 "$binaries/large" check device=cuda:0 dtype=$dtype 2>>"$log" || echo "failed: $(tail -1 "$log")"
    done
    echo '```'
    echo
    echo '## A training step, bf16, one sequence, activations checkpointed per layer'
    for case in '1.5b lora 8192' '1.5b lora 16384' '1.5b full 8192' '1.5b full 16384' '7b lora 8192'; do
        read -r shape tuning tokens <<<"$case"
        row 60 "$binaries/large" learn device=cuda:0 dtype=bf16 "shape=$shape" "tuning=$tuning" "tokens=$tokens"
        for attention in sdpa eager; do
            row 60 "$python" training/peers/torch_step.py --shape "$shape" --tuning "$tuning" --tokens "$tokens" \
                --attention $attention
        done
    done | table measured attention shape tuning tokens tokens_per_second seconds update_seconds \
        useful_tflops_without_attention memory_gib error
    echo
    echo '## Sampling, bf16 with an adapter'
    for case in '1.5b 1' '1.5b 64' '1.5b 256' '7b 64'; do
        read -r shape sequences <<<"$case"
        row 60 "$binaries/large" sample device=cuda:0 dtype=bf16 "shape=$shape" "sequences=$sequences" new=128
    done | table shape sequences tokens_per_second step_seconds prefill_seconds memory_gib
    echo
    echo '## The mini recipe, mean tokens a response at the steps'
    { mini cuda:0 && mini cpu; } | table device steps 'tokens 1-5' 'tokens 6-10' 'tokens 11-15' 'tokens 16-20'
    echo
    echo '## Messages'
    echo '```'
    tail -20 "$log"
    echo '```'
}

case ${1:-} in
build | run) "$1" ;;
*) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
esac
