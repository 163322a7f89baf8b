#!/usr/bin/env bash
# Compares greedy replies on GPU and CPU, and prints tokens per second of both, with a finished binary.
# Where `proxy-train` lies beside it, finetunes on both as well: in bf16 on the GPU, in f32 on the CPU.
# Needs no network and no toolchain: the binary, a model folder, policies, curl and python3.
#
#   deploy/gpu-check.sh BINARY [MODEL_FOLDER] [RESULT_FILE]
set -euo pipefail
binary=${1:?usage: gpu-check.sh BINARY [MODEL_FOLDER] [RESULT_FILE]}
model=${2:-models/lab/full}
result=${3:-gpu-check.txt}
port=18080
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT

serve() { # $1: value of CUDA_VISIBLE_DEVICES
  CUDA_VISIBLE_DEVICES=$1 RUST_LOG=info "$binary" --listen 127.0.0.1:$port --model "$model" --model-id check \
    >"$work/out" 2>"$work/log" &
  server=$!
  for _ in $(seq 600); do
    curl -sf "http://127.0.0.1:$port/readyz" >/dev/null && return
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
  done
  echo "the server did not become ready" >&2
  exit 1
}

measure() { # $1: name of the run
  python3 - "$port" "$work/$1.json" <<'PY'
import concurrent.futures, json, sys, time, urllib.request

port, out = sys.argv[1:]
questions = ["Hello!", "What is the capital of France?", "Where was Dulce Lundgren born?",
             "Where was Viggo Blaszko born?", "Repeat after me: Lisbon, Porto, Turin"]

def ask(question):
    body = {"model": "check", "temperature": 0, "max_tokens": 64, "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    reply = json.load(urllib.request.urlopen(request))
    return reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]

replies = [ask(it)[0] for it in questions]
start = time.time()
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    tokens = sum(it[1] for it in pool.map(ask, questions * 40))
json.dump({"replies": replies, "tokens_per_second": tokens / (time.time() - start)}, open(out, "w"))
PY
}

for run in gpu cpu; do
  if [ "$run" = gpu ]; then serve 0; else serve ""; fi
  device=$(grep -o 'running on .*' "$work/log" | head -n 1 || true)
  echo "$run: ${device:-CPU build}" >>"$work/result"
  measure "$run"
  kill "$server"
  wait "$server" 2>/dev/null || true
done
train=$(dirname "$binary")/proxy-train
data=models/lab/data
if [ -x "$train" ] && [ -d "$data" ]; then
  for run in gpu cpu; do
    if [ "$run" = gpu ]; then device=0; else device=""; fi
    CUDA_VISIBLE_DEVICES=$device "$train" unlearn --method grad_diff --model "$model" --forget $data/forget10.jsonl \
      --retain $data/retain90.jsonl --epochs 2 --lr 1e-4 --out "$work/unlearnt-$run" >"$work/trained" 2>"$work/log" ||
      { cat "$work/log" >&2; exit 1; }
    dtype=$(grep -o '"dtype": "[^"]*"' "$work/unlearnt-$run/unlearn.json")
    echo "$run, $dtype, $(cat "$work/trained")" >>"$work/result"
  done
fi
{
  date -u
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
  cat "$work/result"
  python3 - "$work/gpu.json" "$work/cpu.json" <<'PY'
import json, sys
gpu, cpu = (json.load(open(it)) for it in sys.argv[1:])
same = sum(a == b for a, b in zip(gpu["replies"], cpu["replies"]))
print(f"greedy replies equal: {same} of {len(cpu['replies'])}")
print(f"tokens per second, 16 at a time: gpu {gpu['tokens_per_second']:.0f}, cpu {cpu['tokens_per_second']:.0f}")
PY
} | tee "$result"
