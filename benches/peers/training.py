"""One step of finetuning the bundled model: this trainer beside PyTorch, on the same rows, in one run.

    python3 -m venv DIR && DIR/bin/pip install torch transformers
    DIR/bin/python benches/peers/training.py

A step is forward, backward and AdamW in f32 over sequences of 32 tokens, all of which are labels, so
that neither side computes logits that the other leaves out, and nothing is padded. PyTorch runs
transformers' LlamaForCausalLM with its default attention and `torch.optim.AdamW`; ours is the
benchmark `training_step` of `benches/main.rs`, whose median is read from `cargo bench`. Both use all
cores. The rows are made by a formula (`ids` below, `training_rows` there). Rates mean something
beside each other only: the ratio is what to quote.
"""

import argparse
import re
import statistics
import subprocess
import time
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 32
UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def ids(sequences, vocab):
    """Token ids `[sequences, LENGTH + 1]`, every one but the last fed, every one but the first a label."""
    row = [[(31 * it + 17 * at * at + 5) % vocab for at in range(LENGTH + 1)] for it in range(sequences)]
    return torch.tensor(row)


def theirs(sequences, rounds):
    """Seconds of PyTorch's median step, and the loss before training."""
    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "models/lab/full", dtype=torch.float32)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.01)
    tokens = ids(sequences, model.config.vocab_size)
    fed, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)
    seconds, first = [], None
    for _ in range(rounds):
        since = time.perf_counter()
        logits = model(input_ids=fed, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        seconds.append(time.perf_counter() - since)
        first = loss.item() if first is None else first
    return statistics.median(seconds[rounds // 5 :]), first


def ours(sequences):
    """Seconds of the median step of `training_step` and its first loss, by number of sequences."""
    command = ["cargo", "bench", "--bench", "bench", "--", "training_step"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    medians = {}
    for line in done.stdout.splitlines():
        name, *columns = re.split(r"[│|]", line)
        number = re.search(r"[─-]\s*(\d+)\s", name)
        if number and len(columns) >= 3:
            value, unit = columns[1].split()
            medians[int(number.group(1))] = float(value) * UNITS[unit]
    losses = {int(n): float(loss) for n, loss in re.findall(r"first loss of (\d+): ([\d.]+)", done.stderr)}
    missing = [it for it in sequences if it not in medians or it not in losses]
    if missing:
        raise SystemExit(f"cargo bench says nothing about {missing} sequences:\n{done.stdout}")
    return medians, losses


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=60, help="steps of PyTorch, a fifth of them to warm up")
    rounds = arguments.parse_args().rounds
    sequences = [16, 64]
    mine, losses = ours(sequences)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads\n")
    print("| sequences of 32 tokens | PyTorch, tokens/s | ours, tokens/s | ours / PyTorch | first loss, both |")
    print("|---:|---:|---:|---:|---:|")
    for count in sequences:
        their, loss = theirs(count, rounds)
        if abs(loss - losses[count]) > 1e-3:
            raise SystemExit(f"{count} sequences: the loss is {loss} there and {losses[count]} here")
        tokens = count * LENGTH
        print(f"| {count} | {tokens / their:.0f} | {tokens / mine[count]:.0f} | {their / mine[count]:.2f} | {loss:.4f} |")


if __name__ == "__main__":
    main()
