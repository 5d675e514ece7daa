"""A custom predictor on KServe's SDK: adds up each row; can explain, sleep and die when asked to."""

import argparse
import os
import signal
import time
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.errors import InvalidInput


class Sum(Model):  # type: ignore[misc]
    def load(self) -> None:
        self.offset = float(os.environ.get("OFFSET", "0"))
        self.ready = True

    def predict(self, payload: Any, headers: Any = None) -> Any:
        if isinstance(payload, InferRequest):  # V2, over HTTP or gRPC
            rows = payload.inputs[0].as_numpy().tolist()
            if rows == [[-9]]:
                os.kill(os.getpid(), signal.SIGKILL)
            if len(rows[0]) > 2:
                raise InvalidInput("two columns at most")
            sums = [self.offset + sum(row) for row in rows]
            return InferResponse(payload.id, self.name, [InferOutput("sums", [len(rows)], "FP64", data=sums)])
        rows = payload["instances"]
        if rows == ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if rows == ["sleep"]:
            time.sleep(1)
            rows = []
        return {"predictions": [self.offset + sum(row) for row in rows]}

    def explain(self, payload: Any, headers: Any = None) -> Any:
        return {"explanations": payload["instances"]}


parser = argparse.ArgumentParser(parents=[model_server.parser])
arguments, _ = parser.parse_known_args()

if __name__ == "__main__":
    model = Sum(arguments.model_name)
    model.load()
    ModelServer().start([model])
