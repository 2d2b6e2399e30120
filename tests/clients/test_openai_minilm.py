"""OpenAI's own client gets from `/v1/embeddings` what sentence-transformers makes of the same texts with the same weights."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from openai import OpenAI

from gateway import ROOT, missing, running

GOLDENS = ROOT / "tests/goldens"
MODELS = ROOT / ".models"
ROWS = 25


@pytest.fixture(scope="module", params=["minilm", "minilm-onnx"])
def served(request, tmp_path_factory) -> Iterator[tuple[OpenAI, str]]:
    model = request.param
    if not (MODELS / model).is_dir():
        missing(f".models/{model} is not there: run `make minilm`")
    models = [{"name": model, "registry": "own"}]
    with running(tmp_path_factory.mktemp(model), "onnxruntime", {"own": MODELS}, models) as gateway:
        yield OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=300), model


def goldens() -> tuple[list[str], np.ndarray]:
    texts = [json.loads(line) for line in (GOLDENS / "minilm.jsonl").read_text().splitlines()]
    return texts, np.fromfile(GOLDENS / "minilm.f32", "<f4").reshape(len(texts), -1)


# Without being asked for one, the client takes base64, and reads it.
@pytest.mark.parametrize("asked", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_embeddings_are_those_of_sentence_transformers(served, asked):
    client, model = served
    texts, wanted = goldens()
    # Numbers as text say the same; a part of the texts shows that.
    for start in range(0, ROWS if asked else len(texts), ROWS):
        told = client.embeddings.create(model=model, input=texts[start : start + ROWS], **asked)
        assert told.usage.prompt_tokens >= 2 * ROWS
        got = np.array([each.embedding for each in told.data], np.float32)
        np.testing.assert_allclose(got, wanted[start : start + ROWS], rtol=0, atol=5e-5)
