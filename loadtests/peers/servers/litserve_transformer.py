"""128 tokens as JSON on LitServe, batched, an inference process a core: `python litserve_transformer.py PORT`."""

import sys

import litserve
import numpy as np

from session import open_session
from settings import BATCH, CORES, MAX_DELAY


class Encoder(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.session = open_session()

    def decode_request(self, request: dict) -> np.ndarray:
        return np.array(request["input_ids"], np.int64)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        # Without batching, a row comes alone.
        return self.session.run(None, {"input_ids": np.atleast_2d(rows)})[0]

    def encode_response(self, output: np.ndarray) -> dict:
        return {"embedding": output.ravel().tolist()}


if __name__ == "__main__":
    api = Encoder(max_batch_size=BATCH, batch_timeout=MAX_DELAY)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=CORES, fast_queue=True, timeout=False)
    quiet = {"log_level": "warning", "access_log": False, "generate_client_file": False}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, **quiet)
