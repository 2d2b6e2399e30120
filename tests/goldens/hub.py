"""Makes small models of the families of the hub, with weights drawn by lot, and keeps what transformers and sentence-transformers say.

    pip install -r tests/goldens/requirements.txt
    python tests/goldens/hub.py

Writes hub/<model>/1, as the gateway serves it, and hub/<model>.json: texts and what is made of them. Pictures are not kept: the
number at place i of picture r is sin(0.37 i + r).
"""

import copy
import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

HERE = Path(__file__).resolve().parent / "hub"
SEED = 20261126
SIZE = 16
KEPT = {
    "config.json", "model.safetensors", "tokenizer.json", "modules.json", "sentence_bert_config.json", "preprocessor_config.json",
}

WORDS = "the a gate lock water river boat opens fills slowly in at ada grace rome london is and of".split()
TEXTS = ["the gate opens", "", "Ada Lovelace and Grace in Rome", "water 🐧 fills the lock\nslowly", "in London is the River of Rome"]
LONG = " ".join(WORDS[i * 7 % len(WORDS)] for i in range(140))
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SMALL = {"hidden_size": SIZE, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def tokenizer(special: list[str]) -> transformers.PreTrainedTokenizerFast:
    """Words and letters; `special` are what begins a text, what fills up, what ends it, and what is not known."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = special + WORDS + letters + [f"##{letter}" for letter in letters]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    begin, pad, end, unknown = special
    made = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=f"{begin} $A {end} $B:1 {end}:1", special_tokens=[(t, vocabulary[t]) for t in (begin, end)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token=begin, pad_token=pad, sep_token=end, unk_token=unknown, model_max_length=160,
    )


def drawn(model: nn.Module) -> nn.Module:
    """All weights by lot, none of them as it is at first, and as F16 has them."""
    torch.manual_seed(SEED)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or "inv_freq" in name:
                continue
            tensor.normal_(std=0.25 if tensor.dim() < 2 else (tensor.shape[0] / tensor.numel()) ** 0.5)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
            elif tensor.dim() == 1 and name.endswith("weight"):
                tensor.add_(1.0)
            tensor.copy_(tensor.half().float())
    return model.eval()


def keep(name: str, folder: Path, told: dict) -> None:
    version = HERE / name / "1"
    shutil.rmtree(version, ignore_errors=True)
    for path in sorted(folder.rglob("*")):
        part = path.relative_to(folder)
        if path.is_file() and (str(part) in KEPT or len(part.parts) == 2):
            (version / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, version / part)
    (HERE / f"{name}.json").write_text(json.dumps(told, indent=0) + "\n")


def saved(model: nn.Module, folder: Path) -> None:
    """In F16, which holds the weights as they are, but not what is worked out beside them."""
    copy.deepcopy(model).half().save_pretrained(folder)


def encoder(name: str, model: nn.Module, words, modules) -> None:
    """With modules of sentence-transformers behind it."""
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as whole:
        saved(drawn(model), Path(made))
        words.save_pretrained(made)
        sentences = SentenceTransformer(modules=[Transformer(made, model_kwargs={"dtype": "float32"}), *modules], device="cpu")
        texts = [*TEXTS, LONG]
        rows = sentences.encode(texts, batch_size=2)
        sentences.half().save(whole)
        keep(name, Path(whole), {"texts": texts, "embedding": rows.tolist()})


def classifier(name: str, model: nn.Module, words, finish) -> None:
    with tempfile.TemporaryDirectory() as made, torch.inference_mode():
        saved(drawn(model), Path(made))
        words.save_pretrained(made)
        texts = [*TEXTS, LONG]
        rows = [finish(model(**words(text, return_tensors="pt")).logits[0]).tolist() for text in texts]
        keep(name, Path(made), {"texts": texts, "probabilities": rows})


def tags(name: str, model: nn.Module, words) -> None:
    with tempfile.TemporaryDirectory() as made:
        saved(drawn(model), Path(made))
        words.save_pretrained(made)
        pipeline = transformers.TokenClassificationPipeline(model=model, tokenizer=words, aggregation_strategy="simple")
        told = [
            [{**{key: one[key] for key in ("entity_group", "start", "end")}, "score": float(one["score"])} for one in pipeline(text)]
            for text in TEXTS
        ]
        keep(name, Path(made), {"texts": TEXTS, "entities": told})


def pictures(name: str, model: nn.Module, side: int, preprocessor: dict) -> None:
    numbers = [[torch.sin(torch.arange(3 * side * side, dtype=torch.float64) * 0.37 + r)] for r in range(3)]
    rows = torch.stack([row[0].float().reshape(3, side, side) for row in numbers])
    with tempfile.TemporaryDirectory() as made, torch.inference_mode():
        saved(drawn(model), Path(made))
        (Path(made) / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        keep(name, Path(made), {"rows": len(rows), "probabilities": model(rows).logits.softmax(-1).tolist()})


def softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(-1)


def cut(words, length: int):
    """The same tokenizer, for texts that the model has no positions for."""

    def call(text: str, return_tensors: str):
        return words(text, return_tensors=return_tensors, truncation=True, max_length=length)

    call.save_pretrained = words.save_pretrained
    return call


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    bert = tokenizer(["[CLS]", "[PAD]", "[SEP]", "[UNK]"])
    roberta = tokenizer(["<s>", "<pad>", "</s>", "<unk>"])
    common = {**SMALL, "vocab_size": len(bert), "pad_token_id": 1}
    labels = {"id2label": dict(enumerate(["calm", "flood", "drought"])), "label2id": {"calm": 0, "flood": 1, "drought": 2}}
    tagged = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
    long = {"max_position_embeddings": 170}
    modern = {**common, **long, "local_attention": 8, "num_hidden_layers": 3, "cls_token_id": 0, "sep_token_id": 2,
              "bos_token_id": 0, "eos_token_id": 2}

    encoder("bert", transformers.BertModel(transformers.BertConfig(**common, **long)), bert, [Pooling(SIZE, "weightedmean")])
    dense = drawn(Dense(SIZE, 8, activation_function=nn.Tanh()))
    encoder(
        "mpnet", transformers.MPNetModel(transformers.MPNetConfig(**common, **long)), roberta,
        [Pooling(SIZE, "mean"), dense, Normalize()],
    )
    encoder("modernbert", transformers.ModernBertModel(transformers.ModernBertConfig(**modern)), bert, [Pooling(SIZE, "cls")])
    classifier(
        "mpnet-classifier", transformers.MPNetForSequenceClassification(transformers.MPNetConfig(**common, **long, **labels)),
        roberta, softmax,
    )
    several = transformers.ModernBertConfig(
        **modern, **labels, classifier_pooling="mean", problem_type="multi_label_classification", norm_bias=True, mlp_bias=True,
        attention_bias=True, classifier_bias=True,
    )
    classifier("modernbert-classifier", transformers.ModernBertForSequenceClassification(several), bert, torch.sigmoid)
    short = {"max_position_embeddings": 40}
    roberta_config = transformers.RobertaConfig(**{**common, **short, **labels, "type_vocab_size": 1})
    distilbert_config = transformers.DistilBertConfig(
        vocab_size=len(bert), dim=SIZE, n_layers=2, n_heads=2, hidden_dim=32, pad_token_id=1, **short, **tagged,
    )
    tags("bert-tags", transformers.BertForTokenClassification(transformers.BertConfig(**common, **short, **tagged)), bert)
    tags("distilbert-tags", transformers.DistilBertForTokenClassification(distilbert_config), bert)
    tags("modernbert-tags", transformers.ModernBertForTokenClassification(transformers.ModernBertConfig(**{**modern, **tagged})), bert)
    # Two positions are not for texts.
    model = transformers.RobertaForSequenceClassification(roberta_config)
    classifier("roberta-classifier", model, cut(roberta, short["max_position_embeddings"] - 2), softmax)

    vit = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8, **labels)
    pictures("vit", transformers.ViTForImageClassification(vit), 16, {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    for name, kind in [("resnet", "bottleneck"), ("resnet-basic", "basic")]:
        resnet = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type=kind, **labels)
        pictures(name, transformers.ResNetForImageClassification(resnet), 30, {"size": {"shortest_edge": 30}, "crop_pct": 0.875})
    small = {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "patch_size": 4, "image_size": 224, **labels}
    convnext = transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**small))
    pictures("convnext", convnext, 28, {"size": {"shortest_edge": 28}, "crop_pct": 0.875})
    convnext = transformers.ConvNextV2ForImageClassification(transformers.ConvNextV2Config(**small))
    pictures("convnextv2", convnext, 28, {"size": 28, "crop_size": {"height": 28, "width": 28}})


if __name__ == "__main__":
    main()
