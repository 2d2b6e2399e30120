"""Small BERTs with made-up weights in the layout of the Hugging Face hub: a head of JSON, then the numbers, written by hand."""

import json
import struct
from pathlib import Path

import numpy as np

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "water", "gate", "##s", "open", "the", "lock", "fills", "slowly"]
LABELS = ["calm", "flood", "drought"]
SIZE, WIDE, LAYERS, POSITIONS = 8, 16, 2, 64


def shapes(prefix: str, labels: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a model and their sizes."""
    dense: dict[str, tuple[int, int]] = {f"{prefix}pooler.dense": (SIZE, SIZE)}
    norms = [f"{prefix}embeddings.LayerNorm"]
    for layer in (f"{prefix}encoder.layer.{place}." for place in range(LAYERS)):
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            dense[layer + part] = (SIZE, SIZE)
        dense[layer + "intermediate.dense"], dense[layer + "output.dense"] = (WIDE, SIZE), (SIZE, WIDE)
        norms += [layer + "attention.output.LayerNorm", layer + "output.LayerNorm"]
    if labels:
        dense["classifier"] = (labels, SIZE)
    found: dict[str, tuple[int, ...]] = {}
    for name, count in {"word": len(WORDS), "position": POSITIONS, "token_type": 2}.items():
        found[f"{prefix}embeddings.{name}_embeddings.weight"] = (count, SIZE)
    for name, (to, origin) in dense.items():
        found |= {f"{name}.weight": (to, origin), f"{name}.bias": (to,)}
    for name in norms:
        found |= {f"{name}.weight": (SIZE,), f"{name}.bias": (SIZE,)}
    return found


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    head, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.astype("<f4").tobytes()
        head[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def tokenizer() -> dict:
    special = lambda name, kind=0: {"SpecialToken": {"id": name, "type_id": kind}}
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    single = [special("[CLS]"), text("A", 0), special("[SEP]")]
    ids = {name: {"id": name, "ids": [WORDS.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    pair = [*single, text("B", 1), special("[SEP]", 1)]
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "decoder": None,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }  # fmt: skip


def write(directory: Path, labels: list[str]) -> None:
    """A version that embeds where it has no labels, ranks where it has one, and classifies where it has more."""
    config = {
        "model_type": "bert", "architectures": ["BertForSequenceClassification" if labels else "BertModel"],
        "vocab_size": len(WORDS), "hidden_size": SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "intermediate_size": WIDE, "hidden_act": "gelu", "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }  # fmt: skip
    if labels:
        config["id2label"] = {str(place): label for place, label in enumerate(labels)}
    draw = np.random.default_rng(7)
    tensors = {name: draw.normal(size=shape) for name, shape in shapes("bert." if labels else "", len(labels)).items()}
    directory.mkdir(parents=True)
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(safetensors(tensors))
