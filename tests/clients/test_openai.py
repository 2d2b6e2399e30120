"""OpenAI's own client, and the calls of `docs/text.md`, on small models of text whose weights are made up."""

import asyncio
import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import encoder
from gateway import ROOT, Gateway, environment, running

PAGE = ROOT / "docs/text.md"
EXAMPLES = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
TEXTS = ["the gates", "water", "The lock fills slowly.", "", "größe 🚪 水"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    registry: Path = tmp_path_factory.mktemp("text")
    for name, labels in {"embedder": [], "ranker": ["relevance"], "classifier": encoder.LABELS}.items():
        encoder.write(registry / name / "1", labels)
    # Models in safetensors have an engine of their own, whatever is asked for.
    with running(tmp_path_factory.mktemp("openai"), "tract", {"own": registry}, None) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def typed(served: Gateway, texts: list[str]) -> tuple[np.ndarray, int]:
    """Vectors and the count of all tokens by the typed route."""
    rows = served.post("/models/embedder/predict", json=[{"text": text} for text in texts]).json()
    return np.array([row["embedding"] for row in rows], np.float32), sum(row["tokens"] for row in rows)


def test_vectors_are_those_of_the_typed_route_in_each_encoding(served, client):
    wanted, tokens = typed(served, TEXTS)
    # Without being asked for one, the client takes base64.
    for asked in ({}, {"encoding_format": "base64"}, {"encoding_format": "float"}, {"dimensions": encoder.SIZE}):
        told = client.embeddings.create(model="embedder", input=TEXTS, **asked)
        assert (told.object, told.model, [each.index for each in told.data]) == ("list", "embedder", list(range(len(TEXTS))))
        assert (told.usage.prompt_tokens, told.usage.total_tokens) == (tokens, tokens)
        np.testing.assert_allclose(np.array([numbers(each.embedding) for each in told.data]), wanted, atol=1e-6)


def numbers(vector: list[float] | str) -> np.ndarray:
    """A vector; the client leaves it as it came where base64 is asked for by name."""
    return np.frombuffer(base64.b64decode(vector), "<f4") if isinstance(vector, str) else np.array(vector, "<f4")


def test_one_text_has_one_vector_and_the_answer_says_which_version_it_was(served, client):
    told = client.embeddings.with_raw_response.create(model="embedder@1", input="the gates", user="someone")
    assert told.headers["x-model-version"] == "1"
    assert len(told.parse().data) == 1


def test_many_requests_may_be_on_their_way(served):
    async def ask() -> list:
        async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(client.embeddings.create(model="embedder", input=TEXTS[0]) for _ in range(32)))

    wanted, _ = typed(served, TEXTS[:1])
    for told in asyncio.run(ask()):
        np.testing.assert_allclose(told.data[0].embedding, wanted[0], atol=1e-6)


def test_errors_are_those_that_the_client_knows(client):
    with pytest.raises(openai.NotFoundError, match="no model is called `text-embedding-3-small`") as raised:
        client.embeddings.create(model="text-embedding-3-small", input="water")
    assert (raised.value.code, raised.value.type) == ("model_not_found", "invalid_request_error")
    assert raised.value.request_id
    for asked, param, words in [
        ({"model": "embedder", "dimensions": 3}, "dimensions", "have 8 numbers"),
        ({"model": "embedder", "input": [5, 6]}, "input", "ids of tokens are not taken"),
        ({"model": "embedder", "input": [[5, 6]]}, "input", "ids of tokens are not taken"),
        ({"model": "embedder", "input": []}, "input", "the list is empty"),
        ({"model": "embedder", "input": ["water"] * 2049}, "input", "more than 2048"),
        ({"model": "ranker"}, "model", "this one takes `query`"),
    ]:
        with pytest.raises(openai.BadRequestError, match=re.escape(words)) as raised:
            client.embeddings.create(**{"input": "water"} | asked)
        assert raised.value.param == param


@pytest.mark.parametrize("language, code", EXAMPLES, ids=lambda value: value.splitlines()[-1][:40])
def test_every_call_of_the_page_is_answered(served, language, code):
    code = code.replace("127.0.0.1:8080", served.address)
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[language]
    env = environment() | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PATH": os.environ["PATH"]}
    ended = subprocess.run([*command, code], env=env, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout and '"error"' not in ended.stdout, f"{code}\n{ended.stdout}\n{ended.stderr}"
