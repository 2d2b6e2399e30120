"""One row as typed JSON on BentoML, with adaptive batching and a worker a core."""

import bentoml
import numpy as np

from session import open_session
from settings import CORES
from tabular import Prediction, Row, prediction

QUIET = {"access": {"enabled": False}}


@bentoml.service(workers=CORES, logging=QUIET)
class Tumours:
    def __init__(self) -> None:
        self.session = open_session()

    @bentoml.api(batchable=True, max_batch_size=100, max_latency_ms=60_000)
    def predict(self, rows: list[Row]) -> list[Prediction]:
        answers = self.session.run(None, {"X": np.array([row.values() for row in rows], np.float32)})
        return [Prediction(**prediction(int(label), probabilities)) for label, probabilities in zip(*answers)]
