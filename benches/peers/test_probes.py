"""What the probes see in replies written by hand.

    python3 -m unittest discover -s benches/peers
"""

import json
import unittest

from probes import CHAT, PROBES, Probe, Response, faults, leaks
from upstream import SPLIT

WHOLE = Probe("whole", CHAT, "whole")
STREAM = Probe("stream", CHAT, "split", stream=True)
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
}


def streamed(*documents, done=True, cut=False):
    """A stream of these chunks."""
    lines = [f"data: {json.dumps(it)}\n\n" for it in documents]
    return Response(200, [], "".join([*lines, "data: [DONE]\n\n" * done]).encode(), cut)


def said(text, index=0):
    return {"choices": [{"index": index, "delta": {"content": text}}]}


class Leaks(unittest.TestCase):
    def test_a_name_over_chunks_is_seen_and_over_choices_is_not(self):
        self.assertEqual(leaks(STREAM, streamed(*map(said, SPLIT))), ["content"])
        self.assertEqual(leaks(STREAM, streamed(said("Quenni", 0), said("var", 1))), [])

    def test_signs_and_case_do_not_hide_it(self):
        self.assertEqual(leaks(STREAM, streamed(said("QUEN\u200bNIVAR"))), ["content"])

    def test_tokens_are_read_as_bytes_and_as_keys(self):
        entries = [{"token": "?", "bytes": list(it)} for it in (b"Quen", b"nivar")]
        chunk = {"choices": [{"index": 0, "logprobs": {"content": entries}}]}
        self.assertEqual(leaks(STREAM, streamed(chunk)), ["logprobs"])
        tops = {"choices": [{"index": 0, "logprobs": {"top_logprobs": [{" Quennivar": -1.0}]}}]}
        self.assertEqual(leaks(STREAM, streamed(tops)), ["logprobs"])

    def test_errors_headers_and_what_is_no_json_are_read(self):
        error = Response(400, [], b'{"error": {"message": "keyword Quennivar"}}', False)
        self.assertEqual(leaks(WHOLE, error), ["error"])
        header = Response(200, [("x-why", "quennivar")], b"{}", False)
        self.assertEqual(leaks(WHOLE, header), ["headers"])
        comment = Response(200, [], b": Quennivar\n\n", False)
        self.assertEqual(leaks(STREAM, comment), ["raw bytes"])

    def test_what_the_client_began_is_put_in_front(self):
        begun = Probe("begun", CHAT, "begun", stream=True, begun="Quen")
        self.assertEqual(leaks(begun, streamed(said("nivar"))), ["content"])
        self.assertEqual(leaks(STREAM, streamed(said("nivar"))), [])


class Faults(unittest.TestCase):
    def test_a_stream_ends_with_reason_usage_and_done(self):
        self.assertEqual(faults(STREAM, streamed(said("x"), END, USAGE)), [])
        self.assertEqual(faults(STREAM, streamed(END, USAGE, done=False)), ["no [DONE]"])
        self.assertEqual(faults(STREAM, streamed(END)), ["no usage"])
        self.assertEqual(faults(STREAM, streamed(END, END, USAGE)), ["two finish_reasons"])
        self.assertEqual(faults(STREAM, streamed(USAGE)), ["finish_reason of 0 of 1"])
        self.assertEqual(faults(STREAM, streamed(END, USAGE, cut=True)), ["connection cut"])

    def test_an_error_has_four_keys(self):
        whole = b'{"error": {"message": "m", "type": "t", "param": null, "code": null}}'
        self.assertEqual(faults(WHOLE, Response(400, [], whole, False)), [])
        part = Response(422, [], b'{"detail": "m"}', False)
        self.assertEqual(faults(WHOLE, part), ["no error object"])

    def test_an_error_in_a_stream_is_an_end_only_where_the_upstream_failed(self):
        error = {"error": {"message": "m", "type": "t", "param": None, "code": None}}
        failed = Probe("failed", CHAT, "error-frame", stream=True, fails=True)
        self.assertEqual(faults(failed, streamed(error, done=False)), [])
        self.assertIn("error in a 200", faults(STREAM, streamed(error, END, USAGE)))


class Table(unittest.TestCase):
    def test_no_probe_asks_for_what_it_looks_for(self):
        for probe in PROBES:
            self.assertNotIn(probe.secret, json.dumps(probe.body("m"), ensure_ascii=False))

    def test_no_two_probes_share_a_name(self):
        self.assertEqual(len({it.name for it in PROBES}), len(PROBES))


if __name__ == "__main__":
    unittest.main()
