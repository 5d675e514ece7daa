# mypy: ignore-errors
"""KServe's own model server around a scikit-learn file, as its scikit-learn runtime does it; runs in the peer's venv.

`python kserve_server.py PORT NAME MODEL.joblib`; latency and access logs are off: its best settings.
"""

import sys

import joblib
from kserve import Model, ModelServer
from kserve.utils.utils import get_predict_input, get_predict_response


class SklearnModel(Model):
    """One model file."""

    def __init__(self, name, path):
        super().__init__(name)
        self.model = joblib.load(path)
        self.ready = True

    def predict(self, payload, headers=None):
        instances = get_predict_input(payload)
        return get_predict_response(payload, self.model.predict(instances), self.name)


if __name__ == "__main__":
    port, name, path = sys.argv[1:]
    server = ModelServer(
        http_port=int(port), enable_grpc=False, enable_latency_logging=False, access_log_format=None, workers=1
    )
    server.start([SklearnModel(name, path)])
