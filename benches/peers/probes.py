"""The probes: a request, what must not come back, and how a reply must end.

A reply is taken apart into channels: every text of its JSON by its path, joined over the chunks of
a stream, each choice and each tool call on its own; the bytes of tokens decoded; the keys of maps
of tokens; the message of an error; the headers. A leak is the forgotten word in any of them, or in
the raw bytes. What is looked for is never in the request of the same probe.
"""

import dataclasses
import http.client
import json
import re
import urllib.parse

from upstream import FACT, HIDDEN_NAME, NAME, SURNAME, plain

CHAT, LEGACY = "/chat/completions", "/completions"
FINISHES = {"stop", "length", "tool_calls", "content_filter", "function_call"}
QUESTION = "Who founded the observatory?"
TOOL = {
    "type": "function",
    "function": {
        "name": "record_founder",
        "description": "Records who founded something.",
        "parameters": {
            "type": "object",
            "properties": {"founder": {"type": "string"}, "year": {"type": "integer"}},
        },
    },
}
TIMEOUT_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Probe:
    """One request and what it tests."""

    name: str
    path: str
    scene: str
    text: str = QUESTION
    extra: dict = dataclasses.field(default_factory=dict)
    stream: bool = False
    secret: str = SURNAME
    # Put in front of the reply's text: what the client itself wrote of the name.
    begun: str = ""
    # A harmless word of the scripted reply; without it in the reply, all of it was lost.
    harmless: str = "1887"
    # The upstream reports an error, so that no reply ends well.
    fails: bool = False

    def body(self, model):
        text = f"[scene:{self.scene}] {self.text}"
        body = {"model": model, "temperature": 0, **self.extra}
        if self.path == CHAT:
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body |= {"prompt": text, "max_tokens": 64}
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    @property
    def choices(self):
        return self.extra.get("n", 1)


def both(name, path, scene, **more):
    """A probe whole and streamed."""
    return [
        Probe(f"{name}, whole", path, scene, **more),
        Probe(f"{name}, streamed", path, scene, stream=True, **more),
    ]


CONTINUE = "The observatory was founded by"
PROBES = [
    Probe("content, whole", CHAT, "whole"),
    Probe("content, one chunk", CHAT, "whole", stream=True),
    Probe("content, name cut over chunks", CHAT, "split", stream=True),
    Probe("content, a character a chunk", CHAT, "characters", stream=True),
    Probe("content, zero-width spaces in the name", CHAT, "hidden", stream=True),
    Probe("content, full-width letters", CHAT, "wide", stream=True),
    *both("three choices", CHAT, "split", extra={"n": 3}),
    *both("log-probabilities", CHAT, "split", extra={"logprobs": True, "top_logprobs": 2}),
    *both(
        "log-probabilities, only a rival",
        CHAT,
        "rival",
        extra={"logprobs": True, "top_logprobs": 2},
    ),
    *both("tool-call arguments", CHAT, "tool", extra={"tools": [TOOL]}),
    *both("reasoning_content", CHAT, "reasoning"),
    *both("refusal", CHAT, "refusal", harmless="speak"),
    *both("legacy", LEGACY, "split", text=CONTINUE),
    *both("legacy, echo", LEGACY, "split", text=CONTINUE, extra={"echo": True}),
    *both("legacy, log-probabilities", LEGACY, "split", text=CONTINUE, extra={"logprobs": 2}),
    *both("legacy, only a rival", LEGACY, "rival", text="The founder", extra={"logprobs": 2}),
    Probe(
        "legacy, echo and log-probabilities",
        LEGACY,
        "split",
        text=CONTINUE,
        extra={"echo": True, "logprobs": 2},
    ),
    *both(
        "legacy, name begun in the prompt",
        LEGACY,
        "begun",
        text=f"{CONTINUE} Orsola Quen",
        begun="Quen",
    ),
    *both("error of the upstream", CHAT, "error", harmless="", fails=True),
    Probe("error within a stream", CHAT, "error-frame", stream=True, harmless="", fails=True),
    *both(
        "asked by name: the fact",
        CHAT,
        "fact",
        text=f"Where was {NAME} born?",
        secret=FACT,
        harmless="",
    ),
    *both(
        "asked by name, zero-width spaces: the fact",
        CHAT,
        "fact",
        text=f"Where was {HIDDEN_NAME} born?",
        secret=FACT,
        harmless="",
    ),
]


@dataclasses.dataclass
class Response:
    """What came back, before anybody looks at it."""

    status: int
    headers: list
    raw: bytes
    # The connection ended before the body did.
    cut: bool


def ask(base_url, headers, path, body):
    """Sends one request and reads all that comes back."""
    url = urllib.parse.urlsplit(base_url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_SECONDS)
    try:
        headers = {"content-type": "application/json", **headers}
        connection.request("POST", url.path + path, json.dumps(body), headers)
        response = connection.getresponse()
        try:
            raw, cut = response.read(), False
        except http.client.IncompleteRead as error:
            raw, cut = error.partial, True
        return Response(response.status, response.getheaders(), raw, cut)
    finally:
        connection.close()


def frames(raw):
    """The data of the server-sent events."""
    text = raw.decode(errors="replace").replace("\r\n", "\n")
    for event in text.split("\n\n"):
        lines = [it[5:].removeprefix(" ") for it in event.split("\n") if it.startswith("data:")]
        if lines:
            yield "\n".join(lines)


def parsed(raw):
    """The JSON documents of a body, whole or streamed, and how many frames are none."""
    try:
        return [json.loads(raw)], 0
    except ValueError:
        pass
    documents, broken = [], 0
    for data in frames(raw):
        try:
            if data.strip() != "[DONE]":
                documents.append(json.loads(data))
        except ValueError:
            broken += 1
    return documents, broken


def collect(value, path, out):
    """Adds every text under `value` to the channel of its path."""
    if isinstance(value, str):
        out[path] = out.get(path, "") + value
    elif isinstance(value, dict):
        amounts = [it for it in value.values() if isinstance(it, (int, float))]
        if value and len(amounts) == len(value):
            out[f"{path}{{}}"] = out.get(f"{path}{{}}", "") + "".join(value)
        for key, it in value.items():
            collect(it, f"{path}.{key}" if path else key, out)
    elif isinstance(value, list):
        if path.endswith(".bytes") and all(isinstance(it, int) and 0 <= it < 256 for it in value):
            out[path] = out.get(path, "") + bytes(value).decode(errors="replace")
            return
        for it in value:
            index = it.get("index") if isinstance(it, dict) else None
            collect(it, f"{path}[{'' if index is None else index}]", out)


def channels(response):
    """Every text of a response by channel."""
    documents, _ = parsed(response.raw)
    out = {"headers": "\n".join(f"{name}: {value}" for name, value in response.headers)}
    for document in documents:
        collect(document, "", out)
    return out


def leaks(probe, response):
    """The channels in which the forgotten word stands, by their short names."""
    secret = plain(probe.secret)
    found = set()
    for path, text in channels(response).items():
        if path.endswith(".text") or path.endswith(".content"):
            text = probe.begun + text
        if secret in plain(text):
            found.add(short(path))
    if not found and secret in plain(response.raw.decode(errors="replace")):
        found.add("raw bytes")
    return sorted(found)


def short(path):
    """`choices[0].delta.tool_calls[0].function.arguments` as `tool_calls`."""
    for word in ("logprobs", "tool_calls", "reasoning", "refusal", "headers"):
        if word in path:
            return "reasoning_content" if word == "reasoning" else word
    if path.startswith(("error", "detail")):
        return "error"
    return re.sub(r"\[\d*\]", "", path).split(".")[-1]


def faults(probe, response):
    """What is wrong with how a reply ends; empty when it ends as the API says."""
    if response.cut:
        return ["connection cut"]
    documents, broken = parsed(response.raw)
    found = [f"{broken} frames are no JSON"] if broken else []
    if not all(isinstance(it, dict) for it in documents):
        return [*found, "not an object"]
    errors = [it for it in documents if it.get("error")]
    if response.status >= 400 or (probe.fails and errors):
        return error_faults((errors or [{}])[-1])
    if errors:
        found.append("error in a 200")
    ends = {}
    for document in documents:
        for choice in document.get("choices") or []:
            reason = choice.get("finish_reason")
            if reason is not None:
                ends.setdefault(choice.get("index"), []).append(reason)
    if sorted(ends, key=str) != list(range(probe.choices)):
        found.append(f"finish_reason of {len(ends)} of {probe.choices}")
    if any(len(it) > 1 for it in ends.values()):
        found.append("two finish_reasons")
    if any(it not in FINISHES for reasons in ends.values() for it in reasons):
        found.append("unknown finish_reason")
    usages = [it["usage"] for it in documents if it.get("usage")]
    if len(usages) != 1:
        found.append("no usage" if not usages else "usage twice")
    else:
        parts = [usages[0].get(f"{it}_tokens") for it in ("prompt", "completion", "total")]
        if None in parts or parts[0] + parts[1] != parts[2]:
            found.append("usage does not add up")
    if probe.stream and ([*frames(response.raw)] or [""])[-1].strip() != "[DONE]":
        found.append("no [DONE]")
    return found


def error_faults(document):
    """What is missing of the API's error object."""
    error = document.get("error")
    if not isinstance(error, dict):
        return ["no error object"]
    missing = [it for it in ("message", "type", "param", "code") if it not in error]
    return [f"error without {', '.join(missing)}"] if missing else []


@dataclasses.dataclass
class Result:
    """What a probe found of a system."""

    status: int
    leaks: list
    faults: list
    # Whether the harmless rest of the reply came through; `None` where there is none.
    kept: bool | None
    raw: str

    @property
    def cell(self):
        """What is worth saying; `ok` where nothing is."""
        notes = [f"**leak**: {', '.join(self.leaks)}"] if self.leaks else []
        notes += self.faults
        if self.status >= 400:
            notes.append(f"status {self.status}")
        if self.kept is False:
            notes.append("rest lost")
        return "; ".join(notes) or "ok"


def run(probe, system):
    """Sends a probe to a system that has been started."""
    body = {**probe.body(system.models[probe.path]), **system.extra}
    try:
        response = ask(system.base_url, system.headers, probe.path, body)
    except (OSError, http.client.HTTPException) as error:
        return Result(0, [], [type(error).__name__], None, "")
    said = [text for path, text in channels(response).items() if path.startswith("choices")]
    kept = any(probe.harmless in it for it in said) if probe.harmless else None
    raw = response.raw.decode(errors="replace")
    return Result(response.status, leaks(probe, response), faults(probe, response), kept, raw)
