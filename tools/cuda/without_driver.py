"""That a gateway with candle's kernels for CUDA starts where there is no driver, serves there on the processor, and says what is missing.

    python3 tools/cuda/without_driver.py target/cuda/release/sluicegate
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/goldens/hub/bert"

# What a program may need to be there on any machine.
SYSTEM = re.compile(r"(libc|libm|libgcc_s|libstdc\+\+|libdl|librt|libpthread|ld-linux-.*)\.so\.\d+")


def check(what, holds, said=""):
    print(f"{'held' if holds else 'MISSED'}: {what}", said if not holds else "", flush=True)
    return bool(holds)


def config(folder, device):
    path = Path(folder, "sluicegate.yaml")
    registries = f"registries: {{ local: {{ type: directory, path: {MODEL.parent} }} }}"
    path.write_text(f'{registries}\nmodels: [ {{ name: bert, device: "{device}" }} ]\n')
    return ["--config", str(path)]


def served(gateway, folder):
    """Starts it with `device: auto`, and gives what it says of the model and answers."""
    addresses = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:0"]
    process = subprocess.Popen([gateway, "serve", *config(folder, "auto"), *addresses], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        http = None
        for line in process.stderr:
            event = json.loads(line) if line.startswith("{") else {"message": line}
            labels = event.get("labels", {})
            if event["message"] == "listening" and labels.get("listener") == "http":
                http = f"http://{labels['address']}"
            if "every model has had its turn" in event["message"]:
                break
        else:
            sys.exit("the gateway ended")
        told = json.load(open(MODEL.with_suffix(".json")))
        about = json.load(urllib.request.urlopen(f"{http}/models/bert"))
        body = json.dumps({"text": told["texts"][0]}).encode()
        request = urllib.request.Request(f"{http}/models/bert/predict", body, {"content-type": "application/json"})
        return about, json.load(urllib.request.urlopen(request)), told
    finally:
        process.terminate()
        process.communicate()


def main():
    gateway = sys.argv[1]
    needed = re.findall(r"NEEDED.*\[(.*)\]", subprocess.run(["readelf", "-d", gateway], capture_output=True, text=True, check=True).stdout)
    strange = [name for name in needed if not SYSTEM.fullmatch(name)]
    held = [check("it is linked with the system's libraries alone", not strange, strange)]
    if os.path.exists("/dev/nvidia0"):
        sys.exit("there is a GPU here, and this is to be seen where there is none: make test-gpu")
    with tempfile.TemporaryDirectory() as folder:
        asked = subprocess.run([gateway, "check", *config(folder, "cuda:0")], capture_output=True, text=True, cwd=ROOT)
        reason = next((line for line in (asked.stdout + asked.stderr).splitlines() if "cuda:0" in line), "nothing")
        print(f"  cuda:0: {reason.strip()}")
        words = "cuda:0 was asked for and cannot be used: cannot open libcuda.so" in reason
        held.append(check("cuda:0 is refused by `check`, naming the driver's library", asked.returncode == 1 and words, asked))
        about, answer, told = served(gateway, folder)
        print(f"  auto: {about['engine']} on {about['device']}: {about['engine_fallback']}")
        fell = about["device"] == "cpu" and "runs on the processor: cuda:0" in (about["engine_fallback"] or "")
        held.append(check("auto serves on the processor and says why", fell, about))
        got, expected = answer["embedding"], told["embedding"][0]
        off = max(abs(one - other) for one, other in zip(got, expected, strict=True))
        held.append(check("the answer is that of sentence-transformers", off < 1e-5, off))
    sys.exit(0 if all(held) else 1)


main()
