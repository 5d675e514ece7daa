# mypy: ignore-errors
"""A BentoML service around a scikit-learn file; runs in the peer's venv."""

import os

import bentoml
import joblib
import numpy as np

OPTIONS = (
    {"batchable": True, "max_batch_size": 512, "max_latency_ms": 10_000} if os.environ["PEER_BATCHING"] == "1" else {}
)


@bentoml.service(workers=1, traffic={"timeout": 60})
class Peer:
    """One model file."""

    def __init__(self):
        self.model = joblib.load(os.environ["PEER_MODEL"])

    @bentoml.api(**OPTIONS)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict(rows)
