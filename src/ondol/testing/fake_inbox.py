"""Somewhere to send alerts to: an HTTP server and a mail server on loopback that remember what they got.

`with FakeInbox() as inbox:` … `inbox.url`, `inbox.smtp_port`, `inbox.posts`, `inbox.mails`. Answers can be made to
fail: `inbox.status = 500`. Speaks as much SMTP (RFC 5321) as a client without TLS and login needs.
"""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeInbox:
    """Both servers; start and stop as a context manager."""

    def __init__(self) -> None:
        self.status = 204
        """What the HTTP server answers."""

        self.posts: list[dict[str, Any]] = []
        self.mails: list[str] = []
        inbox = self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                inbox.posts.append(json.loads(body))
                self.send_response(inbox.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
                return

        class Mail(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                _speak_smtp(self.rfile.readline, self.wfile.write, inbox.mails)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        self._smtp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
        self._smtp.daemon_threads = True
        self._threads = [threading.Thread(target=one.serve_forever, daemon=True) for one in (self._http, self._smtp)]

    @property
    def url(self) -> str:
        """Where to post to."""
        return f"http://127.0.0.1:{self._http.server_port}/hook"

    @property
    def smtp_port(self) -> int:
        """Where to mail to, on 127.0.0.1."""
        return int(self._smtp.server_address[1])

    def wait(self, count: int, seconds: float = 120.0) -> bool:
        """Wait until this many posts and mails have come; False when they do not."""
        deadline = time.monotonic() + seconds
        while len(self.posts) + len(self.mails) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return len(self.posts) + len(self.mails) >= count

    def __enter__(self) -> FakeInbox:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._http, self._smtp):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()


def _speak_smtp(read: Callable[[], bytes], write: Callable[[bytes], Any], mails: list[str]) -> None:
    write(b"220 inbox\r\n")
    while line := read():
        verb = line.strip().split(b" ", 1)[0].upper()
        if verb == b"DATA":
            write(b"354 go on\r\n")
            text = b""
            while (line := read()) and line.rstrip(b"\r\n") != b".":
                text += line
            mails.append(text.decode())
            write(b"250 taken\r\n")
        elif verb == b"QUIT":
            write(b"221 bye\r\n")
            return
        else:
            write(b"250 inbox\r\n" if verb in (b"EHLO", b"HELO") else b"250 ok\r\n")
