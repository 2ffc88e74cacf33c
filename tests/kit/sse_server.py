"""A small OpenAI-like endpoint in a thread: streams words, and misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ["A ", "dog ", "barks."]


class Endpoint(ThreadingHTTPServer):
    """`faults`: what goes wrong with the first, second, ... chat request; "" or none: nothing. `asked`: their bodies,
    headers and times. `pause`: seconds before each word."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.pause = 0.01
        self.models = True
        self.metrics: str | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models" and self.server.models:
            return self._whole(200, json.dumps({"data": [{"id": "fake"}]}))
        if self.path == "/metrics" and self.server.metrics is not None:
            return self._whole(200, self.server.metrics)
        return self._whole(404, "{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.asked)
            self.server.asked.append({"body": body, "headers": dict(self.headers), "time": time.perf_counter()})
        fault = self.server.faults[number] if number < len(self.server.faults) else ""
        if fault.isdigit():
            return self._whole(int(fault), json.dumps({"error": {"message": "no, " + fault}}))
        if fault == "garbage":
            self.wfile.write(b"SSH-2.0 nonsense\r\n")
            self.close_connection = True
            return None
        return self._stream(fault)

    def _stream(self, fault: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        chunked = fault != "plain"
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        self.end_headers()
        for place, word in enumerate(WORDS):
            time.sleep(self.server.pause)
            if place == 1 and fault == "cut":
                self.close_connection = True
                return
            if place == 1 and fault == "error":
                self._event({"error": {"message": "NaN"}}, chunked)
            self._event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}, chunked)
        if fault != "unfinished":
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, chunked)
        self._event({"choices": [], "usage": {"completion_tokens": 7}}, chunked)
        self._send(b": a comment\n\ndata: [DONE]\n\n", chunked)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = not chunked

    def _event(self, data: dict[str, Any], chunked: bool) -> None:
        text = f"data: {json.dumps(data)}\n\n".encode()
        for part in (text[:9], text[9:]):  # events do not come in one piece each
            self._send(part, chunked)

    def _send(self, data: bytes, chunked: bool) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        self.wfile.flush()

    def _whole(self, status: int, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
