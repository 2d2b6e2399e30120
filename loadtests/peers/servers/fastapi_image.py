"""One image as raw bytes on FastAPI: as many engine runs at a time as there are cores, outside of the event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from fastapi import FastAPI, Request, Response

from session import open_session
from settings import CORES

app = FastAPI()
session = open_session()
cores = ThreadPoolExecutor(CORES)


def run(body: bytes) -> bytes:
    image = np.frombuffer(body, np.float32).reshape(1, 3, 224, 224)
    return session.run(None, {"image": image})[0].tobytes()


@app.post("/predict")
async def predict(request: Request) -> Response:
    answer = await asyncio.get_running_loop().run_in_executor(cores, run, await request.body())
    return Response(answer, media_type="application/octet-stream")
