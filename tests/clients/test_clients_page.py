"""`docs/clients.md`: every example is run as it stands there, but for the addresses, and prints what the page says.

`SLUICEGATE_BLESS=1` writes what they print into the page."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway import ROOT, Gateway, environment, missing

PAGE = ROOT / "docs/clients.md"
HERE = Path(__file__).parent
GO, JAVASCRIPT = ROOT / ".venv/go", ROOT / ".venv/js"

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e-?\d+)?")

# A bound on waiting: the first program in Go builds its libraries.
PATIENCE = 600


@dataclass
class Example:
    """A block of code, and the block behind it that says what it prints."""

    language: str
    code: str
    printed: str = ""
    place: tuple[int, int] | None = None


@dataclass
class Section:
    """The examples under one heading, which share a directory."""

    name: str
    examples: list[Example] = field(default_factory=list)


def sections(text: str) -> list[Section]:
    found: list[Section] = []
    headings = {match.start(): match[1] for match in re.finditer(r"^## (.*)$", text, re.M)}
    for match in BLOCK.finditer(text):
        heading = [name for at, name in headings.items() if at < match.start()][-1]
        if not found or found[-1].name != heading:
            found.append(Section(heading))
        if match[1] == "text":
            example = found[-1].examples[-1]
            assert example.place is None, f"two outputs of one example: {match[0]}"
            example.printed, example.place = match[2], match.span(2)
        else:
            found[-1].examples.append(Example(match[1], match[2]))
    return found


SECTIONS = sections(PAGE.read_text())


@dataclass
class Workplace:
    """A directory that an example may take for the repository with its own program in it."""

    directory: Path
    gateway: Gateway

    def run(self, example: Example) -> str:
        code = example.code.replace("127.0.0.1:8080", self.gateway.address).replace("127.0.0.1:8081", self.gateway.grpc_address)
        command = getattr(self, example.language)(code)
        ended = subprocess.run(
            command, cwd=self.directory, env=self.environment(), capture_output=True, text=True, timeout=PATIENCE
        )
        assert ended.returncode == 0, f"{code}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.directory / "bin"), str(GO), str(Path(sys.executable).parent), os.environ["PATH"]])
        return environment() | {"PATH": path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "GOFLAGS": "-mod=mod"}

    def sh(self, code: str) -> list[str]:
        for program, make in {"curl": "apt-get install curl", "grpcurl": "make .venv/go/ready"}.items():
            if re.search(rf"^{program}\b", code, re.M) and not shutil.which(program, path=self.environment()["PATH"]):
                missing(f"{program} is missing: {make}")
        return ["bash", "-euo", "pipefail", "-c", code]

    def python(self, code: str) -> list[str]:
        return [sys.executable, "-c", code]

    def javascript(self, code: str) -> list[str]:
        if not shutil.which("node") or not (JAVASCRIPT / "node_modules").is_dir():
            missing("node and its packages are missing: install nodejs and npm, then make .venv/js/ready")
        modules, program = self.directory / "node_modules", self.directory / "example.mjs"
        if not modules.exists():
            modules.symlink_to(JAVASCRIPT / "node_modules")
        program.write_text(code)
        return ["node", str(program)]

    def go(self, code: str) -> list[str]:
        if not shutil.which("go"):
            missing("go is missing: install it, then make .venv/go/ready")
        (self.directory / "main.go").write_text(code)
        return ["go", "run", "."]


@pytest.fixture
def workplace(tmp_path: Path, gateways: Callable[..., Gateway]) -> Workplace:
    (tmp_path / "crates").symlink_to(ROOT / "crates")
    for name in ("go.mod", "go.sum"):
        shutil.copy(HERE / "go" / name, tmp_path)
    protoc = tmp_path / "bin/protoc"
    protoc.parent.mkdir()
    protoc.write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n')
    protoc.chmod(0o755)
    return Workplace(tmp_path, gateways("onnxruntime", "samples"))


def alike(printed: str, expected: str) -> bool:
    """The same words, and numbers that are the same to four digits: another processor may round the last ones otherwise."""
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, expected)]
    words = [NUMBER.sub("0.0", text).split() for text in (printed, expected)]
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], rel=1e-4)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_every_example_prints_what_the_page_says(workplace, section):
    printed = [workplace.run(example) for example in section.examples]
    if os.environ.get("SLUICEGATE_BLESS") == "1":
        return bless(section.name, printed)
    for example, told in zip(section.examples, printed, strict=True):
        assert alike(told, example.printed), f"{example.code}\nprints\n{told}\nand the page says\n{example.printed}"


def bless(name: str, printed: list[str]) -> None:
    text = PAGE.read_text()
    section = next(section for section in sections(text) if section.name == name)
    for example, told in reversed(list(zip(section.examples, printed, strict=True))):
        if example.place:
            start, end = example.place
            text = text[:start] + told.rstrip("\n") + "\n" + text[end:]
    PAGE.write_text(text)


def test_the_page_has_an_example_in_every_language():
    languages = {example.language for section in SECTIONS for example in section.examples}
    assert languages == {"sh", "python", "javascript", "go"}
