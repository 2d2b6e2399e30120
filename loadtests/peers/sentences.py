"""sentence-transformers without a server, run by encoders.py in an environment that has it: MODEL and a file of sentences.

It first says the vectors of all of them, in a line of JSON. For each line `BATCH SECONDS` that it reads it then says how many
sentences a second `encode` does, called with so many at a time.
"""

import json
import sys
import time
from itertools import cycle
from pathlib import Path

from sentence_transformers import SentenceTransformer


def main(model: str, file: str) -> None:
    encoder = SentenceTransformer(model, device="cpu")
    sentences = json.loads(Path(file).read_text())
    say(encoder.encode(sentences, show_progress_bar=False).tolist())
    endless = cycle(sentences)
    for line in sys.stdin:
        batch, seconds = line.split()
        say(measure(encoder, endless, int(batch), float(seconds)))


def measure(encoder: SentenceTransformer, endless: cycle, batch: int, seconds: float) -> float:
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        encoder.encode([next(endless) for _ in range(batch)], batch_size=batch, show_progress_bar=False)
        done += batch
    return done / (time.perf_counter() - began)


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
