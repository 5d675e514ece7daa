"""A server for a ServingRuntime: loads what is in the folder it is given, and says with what it was started."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import joblib

OPTIONS = dict(one.removeprefix("--").split("=", 1) for one in sys.argv[1:])
MODEL = joblib.load(Path(OPTIONS["model_dir"]) / "model.joblib")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "options" in asked:
            variables = {name: value for name, value in os.environ.items() if name.startswith("GIVEN_")}
            self.answer({"path": self.path, "options": OPTIONS, "env": variables})
        else:
            self.answer({"predictions": MODEL.predict(asked["instances"]).tolist(), "by": OPTIONS["model_name"]})

    def answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


ThreadingHTTPServer(("", 8080), Handler).serve_forever()
