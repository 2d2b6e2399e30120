"""One row as typed JSON on FastAPI: a pydantic model in, a pydantic model out, the engine called on the event loop."""

import numpy as np
from fastapi import FastAPI

from session import open_session
from tabular import Prediction, Row, prediction

app = FastAPI()
session = open_session()


# The engine takes some ten microseconds: less than handing the call to a thread.
@app.post("/predict")
async def predict(row: Row) -> Prediction:
    labels, probabilities = session.run(None, {"X": np.array([row.values()], np.float32)})
    return Prediction(**prediction(int(labels[0]), probabilities[0]))
