#!/usr/bin/env python3
"""For every channel of a reply, takes away the scan that guards it and shows which tests fail then.

    python3 tests/scans_removed.py

Works in a copy of the last commit, in which each scan depends on an environment variable: one build, then the
tests once for every channel. Fails when a channel is left without a test that fails. Needs git and cargo.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WINDOW, CALL, PLAN = "src/window/mod.rs", "src/window/call.rs", "src/service/plan.rs"

# Channel, file, what guards it, and the same without the guard. `off` is true when the scan is taken away.
SCANS = [
    ("content", WINDOW, "self.text(choice, &text, logprobs).into_iter().collect()",
     "if off { return vec![ReplyEvent::Text { choice, text, logprobs }]; }\n"
     "self.text(choice, &text, logprobs).into_iter().collect()"),
    ("content of every choice but the first", WINDOW, "self.text(choice, &text, logprobs).into_iter().collect()\n",
     "if off && choice > 0 { return vec![ReplyEvent::Text { choice, text, logprobs }]; }\n"
     "self.text(choice, &text, logprobs).into_iter().collect()\n"),
    ("a name that the prompt begins", WINDOW, "text: Channel::after(before),",
     "text: Channel::after(if off { \"\" } else { before }),"),
    ("copies in content", WINDOW, "state.copied.push(&self.copies, text, finished)",
     "state.copied.push(if off { &[] } else { &self.copies }, text, finished)"),
    ("tool-call arguments", WINDOW, "piece.arguments = self.pass_on((choice, piece.index), &piece.arguments, false);",
     "if !off { piece.arguments = self.pass_on((choice, piece.index), &piece.arguments, false); }"),
    ("a name over several strings of arguments", CALL, "let spread = self.spread.push(patterns, &whole.text, finished);",
     "let spread = if off { Passed { text: whole.text.clone(), ..Passed::default() } } else\n"
     "{ self.spread.push(patterns, &whole.text, finished) };"),
    ("copies in arguments", CALL, "self.copied.push(copies, &text, finished)",
     "self.copied.push(if off { &[] } else { copies }, &text, finished)"),
    ("name of a called function", WINDOW, "if !self.functions.contains(&piece.name)",
     "if !off && !self.functions.contains(&piece.name)"),
    ("id of a call", WINDOW, "if self.replaced(&piece.id).is_some() {", "if !off && self.replaced(&piece.id).is_some() {"),
    ("log-probabilities of a replaced text", WINDOW, "        if state.altered {\n            state.logprobs.clear();",
     "        if state.altered && !off {\n            state.logprobs.clear();"),
    ("log-probabilities beside a call", WINDOW, "state.altered = true;\n        state.logprobs.clear();",
     "if !off { state.altered = true; state.logprobs.clear(); }"),
    ("rivals of a token", WINDOW, "state.written.read(&self.patterns, text, &mut logprobs);",
     "if !off { state.written.read(&self.patterns, text, &mut logprobs); }"),
    ("log-probabilities of treated requests", WINDOW, "        if self.no_logprobs\n",
     "        if self.no_logprobs && !off\n"),
    ("stop texts", PLAN, "self.keep_harmless_stops(&mut request.stop);",
     "if !off { self.keep_harmless_stops(&mut request.stop); }"),
    ("logit bias", PLAN, "request.sampling.logit_bias.clear();",
     "if !off { request.sampling.logit_bias.clear(); }"),
]
SWITCH = """
/// Whether a scan is taken away.
#[must_use]
pub fn scan_removed(channel: &str) -> bool {
    std::env::var("SCAN_REMOVED").is_ok_and(|it| it == channel)
}
"""
RUNS = [["--lib", "window::"], ["--test", "it", "contract::"], ["--test", "it", "guarded::"], ["--test", "it", "hits::"],
        ["--test", "it", "tools::"]]


def switched(tree):
    """Puts the switches in."""
    for channel, file, guarded, unguarded in SCANS:
        path = tree / file
        text = path.read_text()
        if text.count(guarded) != 1:
            sys.exit(f"{file} has {text.count(guarded)} times what guards {channel}: {guarded}")
        removed = f'crate::scan_removed("{channel}")'
        path.write_text(text.replace(guarded, re.sub(r"\boff\b", removed, unguarded)))
    path = tree / "src/lib.rs"
    path.write_text(path.read_text() + SWITCH)


def failing(tree, channel):
    """The tests that fail without the scan of a channel."""
    env = dict(os.environ, SCAN_REMOVED=channel, CARGO_TARGET_DIR=str(ROOT / "target"))
    found = []
    for run in RUNS:
        done = subprocess.run(["cargo", "test", "--quiet", *run], cwd=tree, env=env, text=True, capture_output=True)
        names = re.findall(r"^    (\S+::\S+)$", done.stdout, re.MULTILINE)
        if done.returncode and not names:
            sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
        found += sorted(set(names))
    return found


def main():
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", tree], cwd=ROOT, check=True)
        try:
            switched(tree)
            if broken := failing(tree, ""):
                sys.exit(f"with every scan in place there fail {', '.join(broken)}")
            print("| without the scan of | tests that fail |\n|---|---|", flush=True)
            unseen = []
            for channel, *_ in SCANS:
                names = failing(tree, channel)
                shown = ", ".join(f"`{it}`" for it in names[-3:]) or "none"
                more = f", {len(names) - 3} more" if len(names) > 3 else ""
                print(f"| {channel} | {shown}{more} |", flush=True)
                unseen += [] if names else [channel]
            if unseen:
                sys.exit(f"no test fails without the scan of {', '.join(unseen)}")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
