"""Small WebDataset archives for the tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def encoded(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (12, 10), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def numbered(first: int, last: int, **more: bytes) -> dict[str, bytes]:
    """Files of pairs "prompt number i"."""
    files = {}
    for i in range(first, last):
        files |= {f"{i:04d}.png": encoded(), f"{i:04d}.txt": f"prompt number {i}".encode()}
    return files | {name.replace("_", "."): content for name, content in more.items()}
