"""Fetches the ONNX Runtime library into a folder, out of the wheel that onnxruntime.txt pins by its digest.

    python3 tools/fetch_onnxruntime.py .onnxruntime

A library that is there is kept. The Python that runs this may be of any version: the wheel is for another one.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("onnxruntime.txt")
LIBRARY = "libonnxruntime.so.1.31.1"
WHEELS = {"x86_64": "manylinux_2_28_x86_64", "aarch64": "manylinux_2_28_aarch64"}


def main(folder: Path) -> None:
    library = folder / LIBRARY
    if library.is_file():
        return
    if sys.platform != "linux" or platform.machine() not in WHEELS:
        machine = f"{sys.platform} {platform.machine()}"
        stop(f"no ONNX Runtime is pinned for {machine}: set ORT_DYLIB_PATH to one of 1.24 or newer")
    print(f"fetching {library}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        download(Path(downloads))
        [wheel] = Path(downloads).glob("*.whl")
        # Under another name until it is whole, so that a library that is there is complete.
        with zipfile.ZipFile(wheel) as files, tempfile.NamedTemporaryFile(dir=folder, delete=False) as whole:
            with files.open(f"onnxruntime/capi/{LIBRARY}") as content:
                shutil.copyfileobj(content, whole)
    os.chmod(whole.name, 0o644)
    os.replace(whole.name, library)


def download(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode != 0:
        stop("pip is missing: apt-get install python3-pip")
    wheel = ["--python-version=3.12", "--implementation=cp", "--abi=cp312", f"--platform={WHEELS[platform.machine()]}"]
    pinned = ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--requirement={REQUIREMENTS}"]
    command = [*pip, "download", "--quiet", "--disable-pip-version-check", *wheel, *pinned, f"--dest={folder}"]
    fetched = subprocess.run(command)
    if fetched.returncode != 0:
        stop("the ONNX Runtime wheel could not be fetched; the gateway serves on tract alone without it")


def stop(why: str) -> None:
    print(why, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
