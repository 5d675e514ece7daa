# mypy: ignore-errors
"""LitServe around a scikit-learn file; runs in the peer's venv.

`python litserve_server.py PORT MODEL.joblib BATCHING`
"""

import sys

import joblib
import litserve
import numpy as np


class Peer(litserve.LitAPI):
    """One model file; a batch is the rows of several requests."""

    def setup(self, device):
        self.model = joblib.load(sys.argv[2])

    def decode_request(self, request):
        return np.array(request["rows"])

    def batch(self, inputs):
        self.sizes = [len(rows) for rows in inputs]
        return np.vstack(inputs)

    def predict(self, rows):
        return self.model.predict(rows)

    def unbatch(self, output):
        return np.split(output, np.cumsum(self.sizes)[:-1])

    def encode_response(self, output):
        return {"labels": output.tolist()}


if __name__ == "__main__":
    options = {"max_batch_size": 64, "batch_timeout": 0.005} if sys.argv[3] == "1" else {}
    server = litserve.LitServer(Peer(**options), accelerator="cpu", devices=1, workers_per_device=1, timeout=60)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning", num_api_servers=1
    )
