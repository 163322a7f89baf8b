"""The systems: how each is installed, configured, started and stopped.

All get the same two spellings to watch for, `Orsola Quennivar` and `Quennivar`, on the way in and
on the way out. Settings are the documented ones; choices beyond that are said at the class.
"""

import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from probes import CHAT, LEGACY
from upstream import MODEL, NAME, SURNAME

# The newest that pip installs on 2026-11-25: the extra `proxy` of later releases of LiteLLM needs a
# package that PyPI does not have.
LITELLM = "litellm[proxy]==1.108.7"
NEMO = "nemoguardrails[server]==0.24.1"
INSTALL_SECONDS = 600
START_SECONDS = 240


class NotRun(Exception):
    """A system could not be installed or started; the message says why."""


@dataclasses.dataclass
class System:
    """A running system."""

    name: str
    base_url: str
    headers: dict = dataclasses.field(default_factory=dict)
    # Fields that the system wants in every body.
    extra: dict = dataclasses.field(default_factory=dict)
    models: dict = dataclasses.field(default_factory=lambda: {CHAT: MODEL, LEGACY: MODEL})
    process: subprocess.Popen | None = None

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        # Its own session, so that workers go with it.
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def install(venvs, requirement, command):
    """The path of a command, after its package is in a virtual environment of its own."""
    package, version = requirement.split("==")
    folder = Path(venvs) / f"{package.split('[')[0]}-{version}"
    found = folder / "bin" / command
    if found.exists():
        return found
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", requirement],
    ]
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NotRun(f"not installed within {INSTALL_SECONDS} s") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            shutil.rmtree(folder, ignore_errors=True)
            raise NotRun(f"not installed: {last}")
    return found


def launch(name, command, folder, health, environment=None):
    """Starts a server and waits until `health` answers."""
    log = Path(folder) / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(it) for it in command],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    system = System(name, base_url="", process=process)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            tail = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            raise NotRun(f"stopped with {process.returncode}: {tail[:200]}")
        try:
            with urllib.request.urlopen(health, timeout=5):
                return system
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    system.stop()
    raise NotRun(f"not ready within {START_SECONDS} s")


def write(folder, name, text):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Control:
    """No guard: the scripted upstream itself. Every probe must leak here, or it tests nothing."""

    name = "no guard"
    version = "the scripted upstream itself"

    def start(self, upstream, folder, venvs):
        return System(self.name, upstream)


class UnlearnProxy:
    """Our proxy in front of the upstream: detector `names`, treatment `alias`."""

    name = "unlearn-proxy, alias"

    def __init__(self, binary):
        self.binary = Path(binary).resolve()

    @property
    def version(self):
        done = subprocess.run([self.binary, "--version"], capture_output=True, text=True)
        return done.stdout.strip()

    def start(self, upstream, folder, venvs):
        if not self.binary.exists():
            raise NotRun(f"{self.binary.name} is not built")
        port = free_port()
        policy = f"""topic = "forgotten-person"
surrogates = ["Ulrika Ferraro", "Selma Quigley", "Rafiq Fenwick"]

[[entity]]
name = "{NAME}"
aliases = ["{SURNAME}"]

[[detector]]
use = "names"

[[treatment]]
use = "alias"
"""
        write(folder, "policies/person.toml", policy)
        config = f'listen = "127.0.0.1:{port}"\nupstream = "{upstream}"\npolicies = "policies"\n'
        config = write(folder, "proxy.toml", config)
        command = [self.binary, "--config", config]
        system = launch(self.name, command, folder, f"http://127.0.0.1:{port}/healthz")
        return dataclasses.replace(system, base_url=f"http://127.0.0.1:{port}/v1")


class LiteLLM:
    """LiteLLM's proxy with its built-in content filter, before and after the call.

    Action `BLOCK` refuses, `MASK` replaces. Legacy completions go by the provider
    `text-completion-openai`, so that the upstream's own `/completions` is asked.
    """

    version = LITELLM

    def __init__(self, action):
        self.action = action
        self.name = f"LiteLLM, {action}"

    def start(self, upstream, folder, venvs):
        command = install(venvs, LITELLM, "litellm")
        port = free_port()

        def model(name, provider):
            settings = {"model": f"{provider}/{MODEL}", "api_base": upstream, "api_key": "unused"}
            return {"model_name": name, "litellm_params": settings}

        words = [{"keyword": it, "action": self.action} for it in (NAME, SURNAME)]
        guard = {
            "guardrail": "litellm_content_filter",
            "mode": ["pre_call", "during_call", "post_call"],
            "default_on": True,
            "blocked_words": words,
        }
        config = {
            "model_list": [
                model(MODEL, "openai"),
                model(f"{MODEL}-text", "text-completion-openai"),
            ],
            "guardrails": [{"guardrail_name": "forget", "litellm_params": guard}],
            "litellm_settings": {"telemetry": False, "num_retries": 0},
            "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
        }
        # JSON is YAML.
        write(folder, "config.yaml", json.dumps(config, indent=2))
        arguments = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", port]
        url = f"http://127.0.0.1:{port}"
        # It does not start without a key of some length.
        key = f"sk-{secrets.token_hex(24)}"
        environment = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": key,
        }
        health = f"{url}/health/liveliness"
        system = launch(
            self.name,
            [command, *arguments, "--num_workers", "1"],
            folder,
            health,
            environment,
        )
        return dataclasses.replace(
            system,
            base_url=f"{url}/v1",
            headers={"authorization": f"Bearer {key}"},
            models={CHAT: MODEL, LEGACY: f"{MODEL}-text"},
        )


class NeMo:
    """NeMo Guardrails' server with its regex rails on input and output and streaming enabled.

    `passthrough` is on, so that messages and tools reach the upstream as they are. As documented,
    `stream_first` is true with chunks of 200 tokens, which sends first and checks afterwards;
    `checked` is the same with `stream_first` false.
    """

    version = NEMO

    def __init__(self, checked):
        self.checked = checked
        self.name = "NeMo, stream_first false" if checked else "NeMo, streaming as documented"

    def start(self, upstream, folder, venvs):
        command = install(venvs, NEMO, "nemoguardrails")
        port = free_port()
        patterns = [rf"\b{it}\b" for it in (NAME, SURNAME)]
        side = {"patterns": patterns, "case_insensitive": True}
        streaming = {"enabled": True, "chunk_size": 200, "context_size": 50}
        streaming["stream_first"] = not self.checked
        parameters = {"base_url": upstream, "api_key": "unused"}
        config = {
            "models": [
                {"type": "main", "engine": "openai", "model": MODEL, "parameters": parameters}
            ],
            "passthrough": True,
            "rails": {
                "config": {"regex_detection": {"input": side, "output": side}},
                "input": {"flows": ["regex check input"]},
                "output": {"flows": ["regex check output"], "streaming": streaming},
            },
        }
        write(folder, "configs/forget/config.yml", json.dumps(config, indent=2))
        url = f"http://127.0.0.1:{port}"
        environment = {"OPENAI_API_KEY": "unused", "HF_HUB_OFFLINE": "1"}
        arguments = ["server", "--config", "configs", "--port", port]
        health = f"{url}/v1/rails/configs"
        system = launch(self.name, [command, *arguments], folder, health, environment)
        extra = {"guardrails": {"config_id": "forget"}}
        return dataclasses.replace(system, base_url=f"{url}/v1", extra=extra)
