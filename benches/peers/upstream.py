"""A scripted OpenAI-compatible server: no model, the same bytes every time.

It says things about a person who does not exist and who asked to be forgotten, on every channel
that the API has, in pieces that are awkward to watch. Which script it plays stands in the prompt,
as in `[scene:split]`, so that it survives whatever stands between the client and here.

    python3 benches/peers/upstream.py 9005

It serves the one model `scripted-upstream` and listens on 127.0.0.1 only.
"""

import json
import re
import sys
import threading
import time
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "scripted-upstream"
NAME = "Orsola Quennivar"
SURNAME = "Quennivar"
# What is told about her to a client that asks by name; it occurs nowhere else.
FACT = "Vellanore"

BEFORE, AFTER = "The observatory was founded by", " in 1887."
SENTENCE = f"{BEFORE} {NAME}{AFTER}"
# The name is cut inside of both of its words.
SPLIT = [BEFORE, " Ors", "ola Quen", "niv", "ar", AFTER]
HIDDEN_NAME = "\u200b".join(NAME)
WIDE_NAME = "".join(chr(ord(it) + 0xFEE0) if it != " " else it for it in NAME)
# The name is not said, but it was the second choice.
RIVAL = ["The founder is", " unknown", " since 1887."]
ERROR = {
    "message": f"this server does not speak of {NAME}",
    "type": "invalid_request_error",
    "param": None,
    "code": None,
}
ARGUMENTS = ['{"fou', 'nder": "Ors', "ola Quen", "niv", 'ar", "year', '": 1887}']
# Between two frames, so that they arrive as frames.
PAUSE_SECONDS = 0.002


def plain(text):
    """What a model may read in a text: without case, invisible signs and odd forms of letters."""
    text = unicodedata.normalize("NFKC", text)
    return "".join(it for it in text if unicodedata.category(it) != "Cf").casefold()


def prompt_of(body):
    """The text of a request, whichever endpoint it is for."""
    if "messages" not in body:
        prompt = body.get("prompt", "")
        return prompt if isinstance(prompt, str) else str(prompt[0])
    texts = []
    for message in body["messages"]:
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        texts.extend(part.get("text", "") for part in parts)
    return "\n".join(texts)


def scene_of(body):
    """Which script a request asks for."""
    found = re.search(r"\[scene:([a-z-]+)\]", prompt_of(body))
    return found.group(1) if found else "none"


def script(body):
    """The deltas of one choice: pairs of a channel and a piece of its text."""
    prompt, scene = prompt_of(body), scene_of(body)
    if scene == "fact":
        knows = plain(NAME) in plain(prompt)
        text = f"She was born in {FACT}." if knows else "I do not know that person."
        return [("content", it) for it in re.findall(r"\s*\S+", text)]
    if scene == "begun":
        return [("content", it) for it in ("niv", "ar", AFTER)]
    if scene == "characters":
        return [("content", it) for it in SENTENCE]
    if scene in ("hidden", "wide"):
        name = HIDDEN_NAME if scene == "hidden" else WIDE_NAME
        return [("content", it) for it in (BEFORE, " ", name[:9], name[9:], AFTER)]
    if scene == "rival":
        return [("content", it) for it in RIVAL]
    if scene == "whole":
        return [("content", SENTENCE)]
    if scene == "tool" and body.get("tools"):
        return [("arguments", it) for it in ARGUMENTS]
    if scene == "reasoning":
        return [("reasoning_content", it) for it in SPLIT] + [("content", "In 1887.")]
    if scene == "refusal":
        return [("refusal", it) for it in ("I will not speak of", *SPLIT[1:5], ".")]
    return [("content", it) for it in SPLIT]


def tokens(pieces):
    """Every piece as one token of the chat endpoint's log-probabilities.

    Where the surname begins, or could have, all of it is the rival.
    """

    def token(text, logprob):
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def entry(text):
        rival = " " + SURNAME if "Quen" in text or text == RIVAL[1] else " someone"
        top = [token(text, -0.25), token(rival, -1.5)]
        return {**token(text, -0.25), "top_logprobs": top}

    return {"content": [entry(it) for it in pieces], "refusal": None}


def legacy_tokens(pieces):
    """The same as the parallel lists of the legacy endpoint."""
    entries = tokens(pieces)["content"]
    offsets, at = [], 0
    for it in pieces:
        offsets.append(at)
        at += len(it)
    return {
        "tokens": pieces,
        "token_logprobs": [it["logprob"] for it in entries],
        "top_logprobs": [
            {top["token"]: top["logprob"] for top in it["top_logprobs"]} for it in entries
        ],
        "text_offset": offsets,
    }


class Reply:
    """A reply to one request, whole or as chunks."""

    def __init__(self, body, legacy):
        self.body, self.legacy = body, legacy
        self.pieces = script(body)
        if legacy and body.get("echo"):
            self.pieces.insert(0, ("content", prompt_of(body)))
        self.n = body.get("n") or 1
        called = any(channel == "arguments" for channel, _ in self.pieces)
        self.finish = "tool_calls" if called else "stop"
        prompt_tokens = len(prompt_of(body).split())
        completion_tokens = len(self.pieces) * self.n
        self.usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }

    def envelope(self, kind, choices):
        chat = f"chat.completion{kind}"
        return {
            "id": "scripted-1",
            "object": "text_completion" if self.legacy else chat,
            "created": 1,
            "model": MODEL,
            "choices": choices,
        }

    def logprobs(self, pieces):
        if not self.body.get("logprobs") or not pieces:
            return None
        return legacy_tokens(pieces) if self.legacy else tokens(pieces)

    def call(self, arguments, first):
        call = {"index": 0, "function": {"arguments": arguments}}
        if first:
            call |= {"id": "call_1", "type": "function"}
            call["function"]["name"] = "record_founder"
        return call

    def whole(self):
        said = {}
        for channel, piece in self.pieces:
            said.setdefault(channel, []).append(piece)
        joined = {channel: "".join(pieces) for channel, pieces in said.items()}
        logprobs = self.logprobs(said.get("content", []))
        choices = []
        for index in range(self.n):
            choice = {"index": index, "finish_reason": self.finish, "logprobs": logprobs}
            if self.legacy:
                choice["text"] = joined["content"]
            else:
                message = {"role": "assistant", "content": None, "refusal": None, **joined}
                if (arguments := message.pop("arguments", None)) is not None:
                    call = self.call(arguments, first=True)
                    del call["index"]
                    message["tool_calls"] = [call]
                choice["message"] = message
            choices.append(choice)
        return {**self.envelope("", choices), "usage": self.usage}

    def chunks(self):
        def choice(index, delta, logprobs=None, finish=None):
            said = {"text": delta.get("content", "")} if self.legacy else {"delta": delta}
            return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish}

        def chunk(entry):
            return self.envelope(".chunk", [entry])

        if not self.legacy:
            for index in range(self.n):
                yield chunk(choice(index, {"role": "assistant", "content": ""}))
        first = True
        # Choices take turns, so that each is interrupted within the name.
        for channel, piece in self.pieces:
            for index in range(self.n):
                delta = {channel: piece}
                if channel == "arguments":
                    delta = {"tool_calls": [self.call(piece, first)]}
                logprobs = self.logprobs([piece]) if channel == "content" else None
                yield chunk(choice(index, delta, logprobs))
            first = False
        for index in range(self.n):
            yield chunk(choice(index, {}, finish=self.finish))
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield {**self.envelope(".chunk", []), "usage": self.usage}


class Handler(BaseHTTPRequestHandler):
    """HTTP around the replies."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path.rstrip("/") == "/v1/models":
            card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "scripted"}
            return self.answer(200, {"object": "list", "data": [card]})
        return self.refuse(404, "no such path")

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("content-length", 0)))
        legacy = self.path.rstrip("/") == "/v1/completions"
        if not legacy and self.path.rstrip("/") != "/v1/chat/completions":
            return self.refuse(404, "no such path")
        body = json.loads(text)
        scene = scene_of(body)
        if scene == "error":
            return self.answer(400, {"error": ERROR})
        reply = Reply(body, legacy)
        if not body.get("stream"):
            return self.answer(200, reply.whole())
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for chunk in reply.chunks():
                self.frame(json.dumps(chunk))
                time.sleep(PAUSE_SECONDS)
                if scene == "error-frame":
                    self.frame(json.dumps({"error": ERROR}))
                    break
            self.frame("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # Whoever asked has heard enough; a guard that blocks does that.
            self.close_connection = True

    def frame(self, data):
        text = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def refuse(self, status, message):
        self.answer(status, {"error": {**ERROR, "message": message}})

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Says nothing."""


def start(port=0):
    """Serves on a thread; returns the server and its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/v1"


if __name__ == "__main__":
    _, url = start(int(sys.argv[1]) if len(sys.argv) > 1 else 9005)
    print(f"scripted upstream at {url}")
    threading.Event().wait()
