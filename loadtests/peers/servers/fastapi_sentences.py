"""sentence-transformers on FastAPI: one text a request, one run at a time on as many threads as it is told."""

import os
from threading import Lock

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
app = FastAPI()
model = SentenceTransformer(os.environ["PEERS_MODEL"], device="cpu")
# Runs beside each other, each on all cores, would be in each other's way.
turn = Lock()


class Text(BaseModel):
    text: str


class Vector(BaseModel):
    embedding: list[float]


@app.post("/predict")
def predict(asked: Text) -> Vector:
    with turn:
        vector = model.encode(asked.text, show_progress_bar=False)
    return Vector(embedding=vector.tolist())
