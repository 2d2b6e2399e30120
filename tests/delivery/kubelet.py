"""What the kubelet does with a mounted ConfigMap, step by step: pkg/volume/util/atomic_writer.go of Kubernetes."""

import os
import shutil
import time
from pathlib import Path


class Volume:
    """A ConfigMap, mounted as a directory."""

    def __init__(self, folder: Path, data: dict[str, str]) -> None:
        self.folder = folder
        self.written = 0
        folder.mkdir(parents=True)
        self.update(data)

    def update(self, data: dict[str, str]) -> None:
        """A new directory with a time as its name, then one rename of `..data`, then the former directory is removed."""
        link = self.folder / "..data"
        former = self.folder / os.readlink(link) if link.is_symlink() else None
        self.written += 1
        stamp = self.folder / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{self.written:09d}"
        stamp.mkdir(mode=0o755)
        for name, text in data.items():
            (stamp / name).write_text(text)
            (stamp / name).chmod(0o644)
        new = self.folder / "..data_tmp"
        new.symlink_to(stamp.name)
        new.rename(link)
        for name in data:
            visible = self.folder / name
            if not visible.is_symlink():
                visible.symlink_to(Path("..data") / name)
        if former is not None:
            shutil.rmtree(former)

    def half_written(self, data: dict[str, str]) -> None:
        """A kubelet that was killed before its rename leaves a directory that nobody must read, and a dangling link."""
        stamp = self.folder / "..half"
        stamp.mkdir(exist_ok=True)
        for name, text in data.items():
            (stamp / name).write_text(text[: len(text) // 2])
