"""A transformer as KServe's documentation writes them: halves what comes in, adds to what comes out."""

import argparse
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server


class Halve(Model):  # type: ignore[misc]
    def preprocess(self, payload: Any, headers: Any = None) -> Any:
        if isinstance(payload, InferRequest):  # V2, over HTTP or gRPC
            return {"instances": (payload.inputs[0].as_numpy() / 2).tolist()}
        return {"instances": [[value / 2 for value in row] for row in payload["instances"]]}

    def postprocess(self, result: Any, headers: Any = None) -> Any:
        if "grpc" in (headers or {}).get("user-agent", ""):
            output = InferOutput("labels", [len(result["predictions"])], "INT64", data=result["predictions"])
            return InferResponse("", self.name, [output])
        return {"predictions": [[label, "transformed"] for label in result["predictions"]]}


parser = argparse.ArgumentParser(parents=[model_server.parser])
arguments, _ = parser.parse_known_args()

if __name__ == "__main__":
    model = Halve(arguments.model_name)
    model.ready = True
    ModelServer().start([model])
