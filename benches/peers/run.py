"""The same leak probes against this proxy and against its peers, in one table.

    python3 benches/peers/run.py --proxy target/release/unlearn-proxy --out DIR

What is compared: one scripted upstream (`upstream.py`; no model) says the name of a person who
does not exist on every channel of the API, in awkward pieces. Every system is told to forget the
same two spellings of that name, and is asked the same questions (`probes.py`). A cell says on which
channels the name, or a fact about her, came back; what is wrong with the end of the reply
(`finish_reason` once per choice, `usage`, `[DONE]`, or the API's error object); a status that is an
error; and whether the harmless rest of the reply was lost with the name. `ok` is none of these. A
refused request does not leak, and its client has no answer.

Versions and configuration: `peers.py`. The peers are installed from PyPI into `--venvs`, one
environment each, which is the only use of a network. They are configured as their documentation
says for a list of words. Both can be configured otherwise, with custom code too, and may then do
better or worse; they are made for moderation in general, not for this. The probes are ours, and
written by people who knew what our proxy does: its own weak sides may be missing here. A peer that
cannot be installed or started is a row that says so. Nothing here measures speed, or whether a
real model forgets; and names are searched as they are written, not what a text is about.

DIR gets `table.md`, `results.json` with every raw reply, and a folder per system with its
configuration and log.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path

import peers
import probes
import upstream

ROOT = Path(__file__).resolve().parents[2]


def commit():
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def probe_all(peer, url, out, venvs):
    """The results of all probes by name; a text when the system did not run."""
    folder = out / re.sub(r"[^a-z]+", "-", peer.name.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        system = peer.start(url, folder, venvs)
    except (peers.NotRun, OSError) as error:
        return f"not run: {error}"
    try:
        return {it.name: probes.run(it, system) for it in probes.PROBES}
    finally:
        system.stop()


def table(results):
    """Markdown: a row per system, then a row per probe and system with what was found."""
    lines = [
        "| system | version | leaks | only in the error | ends badly | refused | rest lost |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for peer, found in results:
        if isinstance(found, str):
            lines.append(f"| {peer.name} | {peer.version} | {found} | | | | |")
            continue
        of = len(found)
        leaks = [it.leaks for it in found.values() if it.leaks]
        bad = sum(bool(it.faults) for it in found.values())
        refused = sum(it.status >= 400 for it in found.values())
        replies = [it.kept for it in found.values() if it.kept is not None]
        lost = f"{replies.count(False)}/{len(replies)}"
        counts = f"{len(leaks)}/{of} | {leaks.count(['error'])} | {bad}/{of} | {refused}/{of}"
        lines.append(f"| {peer.name} | {peer.version} | {counts} | {lost} |")
    names = [peer.name for peer, _ in results]
    lines += ["", "| probe | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for probe in probes.PROBES:
        cells = [
            "not run" if isinstance(found, str) else found[probe.name].cell
            for _, found in results
        ]
        lines.append(f"| {probe.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def check_control(found):
    """A probe that finds nothing without a guard finds nothing at all."""
    blind = []
    for probe in probes.PROBES:
        it = found[probe.name]
        answered = it.status == 200 or probe.fails
        if not it.leaks or it.faults or not answered:
            blind.append(probe.name)
    if blind:
        raise SystemExit(f"the control fails these probes: {', '.join(blind)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proxy", type=Path, default=ROOT / "target/release/unlearn-proxy")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--venvs", type=Path, default=Path(tempfile.gettempdir()) / "unlearn-peers")
    parser.add_argument("--only", default="", help="run systems whose name contains this")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = arguments.out.resolve()
    server, url = upstream.start()
    systems = [
        peers.UnlearnProxy(arguments.proxy),
        peers.LiteLLM("BLOCK"),
        peers.LiteLLM("MASK"),
        peers.NeMo(checked=False),
        peers.NeMo(checked=True),
    ]
    systems = [it for it in systems if arguments.only.lower() in it.name.lower()]
    results = []
    for peer in [peers.Control(), *systems]:
        print(f"{peer.name} ...", flush=True)
        found = probe_all(peer, url, out, arguments.venvs.resolve())
        if isinstance(peer, peers.Control):
            check_control(found)
        results.append((peer, found))
    server.shutdown()
    text = table(results)
    (out / "table.md").write_text(text)
    record = {
        "commit": commit(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "systems": [
            {
                "name": peer.name,
                "version": peer.version,
                "results": found
                if isinstance(found, str)
                else {probe: vars(result) for probe, result in found.items()},
            }
            for peer, found in results
        ],
    }
    (out / "results.json").write_text(json.dumps(record, indent=1))
    print(text)


if __name__ == "__main__":
    main()
