"""A transformer as KServe's documentation writes them: halves what comes in, adds to what comes out."""

import argparse
from typing import Any

from kserve import Model, ModelServer, model_server


class Halve(Model):  # type: ignore[misc]
    def preprocess(self, payload: Any, headers: Any = None) -> Any:
        return {"instances": [[value / 2 for value in row] for row in payload["instances"]]}

    def postprocess(self, result: Any, headers: Any = None) -> Any:
        return {"predictions": [[label, "transformed"] for label in result["predictions"]]}


parser = argparse.ArgumentParser(parents=[model_server.parser])
arguments, _ = parser.parse_known_args()

if __name__ == "__main__":
    model = Halve(arguments.model_name)
    model.ready = True
    ModelServer().start([model])
