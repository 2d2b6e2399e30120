"""One row as typed JSON on LitServe, batched: `python litserve_tabular.py PORT`."""

import sys

import litserve
import numpy as np

from session import open_session
from settings import BATCH, CORES, MAX_DELAY
from tabular import Row, prediction


class Tumours(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.session = open_session()

    def decode_request(self, request: dict) -> np.ndarray:
        return np.array(Row.model_validate(request).values(), np.float32)

    def predict(self, rows: np.ndarray) -> list[tuple]:
        return list(zip(*self.session.run(None, {"X": rows})))

    def encode_response(self, output: tuple) -> dict:
        label, probabilities = output
        return prediction(int(label), probabilities)


if __name__ == "__main__":
    api = Tumours(max_batch_size=BATCH, batch_timeout=MAX_DELAY)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=False)
    quiet = {"log_level": "warning", "access_log": False, "generate_client_file": False}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=CORES, **quiet)
