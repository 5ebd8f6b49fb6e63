"""A server that speaks the chat API on this machine, and misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def answer(text: Any, sent: int = 100, answered: int = 10) -> dict[str, Any]:
    """A whole answer of the API."""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": sent, "completion_tokens": answered, "total_tokens": sent + answered},
    }


class ChatServer(ThreadingHTTPServer):
    """`script` are what it does with the requests one after another, the last with all that follow: a status and a body (an object, or bytes sent as
    they are), or a number of seconds to wait before it answers well. `asked` are the requests' bodies, `keys` their authorization."""

    daemon_threads = True

    def __init__(self, script: Sequence[Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = list(script)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.keys.append(self.headers.get("Authorization", ""))
            step = self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        if isinstance(step, float):
            time.sleep(step)
            step = (200, answer("late"))
        status, content = step
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status if self.path == "/v1/chat/completions" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            if status == 429:
                self.send_header("Retry-After", "0.05")
            self.end_headers()
            self.wfile.write(raw)
        except ConnectionError:  # of a client that has waited long enough
            pass

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def chat_server(*script: Any) -> Iterator[ChatServer]:
    server = ChatServer(script)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
