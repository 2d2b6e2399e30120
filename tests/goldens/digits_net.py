"""Trains a small convolutional net on scikit-learn's digits with PyTorch, and keeps PyTorch's own answers to 50 of them.

    pip install -r tests/goldens/requirements.txt
    python tests/goldens/digits_net.py

Writes digits-net/1, as the gateway serves it, and digits-net.jsonl: an image and its probabilities a line.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
VERSION = HERE / "digits-net/1"
SEED = 20261126
EPOCHS = 60
ROWS = 50

# Each layer as PyTorch has it, and as config.json declares it; names are those of the state dict.
LAYERS = [
    (nn.Conv2d(1, 12, 3, padding=1), {"type": "conv2d", "padding": 1}),
    (nn.BatchNorm2d(12), {"type": "batch_norm"}),
    (nn.ReLU(), {"type": "relu"}),
    (nn.MaxPool2d(2), {"type": "max_pool2d", "kernel": 2}),
    (nn.Conv2d(12, 24, 3, padding=1, groups=2), {"type": "conv2d", "padding": 1, "groups": 2}),
    (nn.GroupNorm(4, 24), {"type": "group_norm", "groups": 4}),
    (nn.GELU(), {"type": "gelu"}),
    (nn.AvgPool2d(2), {"type": "avg_pool2d", "kernel": 2}),
    (nn.Flatten(), {"type": "flatten"}),
    (nn.Linear(96, 48), {"type": "linear"}),
    (nn.LayerNorm(48), {"type": "layer_norm"}),
    (nn.SiLU(), {"type": "silu"}),
    (nn.Linear(48, 10), {"type": "linear"}),
    (nn.Softmax(dim=1), {"type": "softmax"}),
]

CARD = """\
description: reads one handwritten digit (a convolutional net, trained with PyTorch)
signature:
  inputs:
  - {{name: image, min: 0, max: 16, description: 'one channel, 8 rows of 8 pixels: 0 white, 16 black'}}
lineage:
  framework: PyTorch {version}
  run: tests/goldens/digits_net.py
  metrics: {{accuracy: {accuracy:.4f}}}
"""


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(data.target)
    rows = train_test_split(range(len(labels)), test_size=0.25, stratify=data.target, random_state=SEED)
    train, held_out = map(torch.tensor, rows)
    net = nn.Sequential(*(layer for layer, _ in LAYERS))
    for layer in net:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()  # made before the seed was set
    fit(net, images[train], labels[train])
    with torch.inference_mode():
        accuracy = (net(images[held_out]).argmax(1) == labels[held_out]).float().mean().item()
        asked = images[held_out[:ROWS]]
        told = net(asked)
    VERSION.mkdir(parents=True, exist_ok=True)
    (VERSION / "model.safetensors").write_bytes(save(net.state_dict()))
    (VERSION / "config.json").write_text(config())
    (VERSION / "model.yaml").write_text(CARD.format(version=torch.__version__, accuracy=accuracy))
    lines = [json.dumps({"image": image, "probabilities": row}) for image, row in zip(asked.tolist(), told.tolist(), strict=True)]
    (HERE / "digits-net.jsonl").write_text("\n".join(lines) + "\n")
    print(f"accuracy {accuracy:.4f}")


def fit(net: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> None:
    scores = net[:-1]  # without the softmax, which the loss has in it
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(scores(images[batch]), labels[batch]).backward()
            optimiser.step()
    net.eval()


def config() -> str:
    """JSON, with a layer a line."""
    has_weights = [any(True for _ in layer.parameters()) for layer, _ in LAYERS]
    declared = [{**told, "name": str(i)} if has_weights[i] else told for i, (_, told) in enumerate(LAYERS)]
    whole = {
        "model_type": "feed_forward",
        "input": {"name": "image", "shape": [1, 8, 8]},
        "output": {"name": "probabilities", "labels": [str(digit) for digit in range(10)]},
        "layers": [],
    }
    lines = [f'  "{key}": {json.dumps(value)}' for key, value in whole.items() if value]
    layers = ",\n".join(f"    {json.dumps(layer)}" for layer in declared)
    return "{\n" + ",\n".join([*lines, f'  "layers": [\n{layers}\n  ]']) + "\n}\n"


if __name__ == "__main__":
    main()
