"""A plain HTTP server without KServe's SDK, on the port its container would have: every address, port 8080."""

import json
import os
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/healthz" else 404, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "hog" in asked:
            asked = bytearray(asked["hog"])
            time.sleep(600)  # so that whoever looks at the memory sees it
        if self.path.endswith(":explain"):
            where = f"http://{os.environ['PREDICTOR_HOST']}{self.path.replace(':explain', ':predict')}"
            request = urllib.request.Request(where, json.dumps(asked).encode(), {"content-type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                self.answer(200, {"explanations": json.loads(answer.read())["predictions"]})
        else:
            self.answer(200, {"predictions": asked["instances"], "pid": os.getpid()})

    def answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


print("plain server", *sys.argv[1:], flush=True)
ThreadingHTTPServer(("", 8080), Handler).serve_forever()
