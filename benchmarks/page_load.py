"""The page under load: many clients at once, some of whose files are broken.

    python benchmarks/page_load.py
    python benchmarks/page_load.py --clients 40 --requests 1000 --rounds 5

Starts app.py and sends it pictures that all differ, ZIP archives of three and broken files, each client its own, one after the other. An answer is
right where it is what Python's `PromptInverter` writes for the same file; a broken file is to be refused in words; whatever else happens is a lost
request. Memory is the server's resident size, before the first round when it has answered each kind of request once, and after each.
"""

from __future__ import annotations

import io
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
import tyro
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from rounds import report

from inference import DEFAULT_CHECKPOINT, PromptInverter

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.png"))
REFUSED = re.compile(r"^\S+: not a readable image \(.+\)$")
RIGHT, IN_WORDS = "right", "refused in words"


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """How much is asked, and how."""

    checkpoint: str = str(DEFAULT_CHECKPOINT)
    clients: int = 20
    requests: int = 200
    """In a round, of all clients together."""
    broken: float = 0.2
    """The share of files that cannot be read."""
    archives: float = 0.1
    """The share of requests that send a ZIP of three pictures."""
    rounds: int = 3
    seed: int = 0
    json: Path | None = None


@dataclass(frozen=True)
class Request:
    """A file, and what its sender does with it: says how it ended."""

    path: Path
    send: Callable[[Client], str]


def picture(rng: random.Random) -> bytes:
    """A part of an example, so that no two are the same."""
    with Image.open(rng.choice(EXAMPLES)) as image:
        left, top = rng.randrange(8), rng.randrange(8)
        part = image.convert("RGB").crop((left, top, image.width - rng.randrange(8), image.height - rng.randrange(8)))
    file = io.BytesIO()
    part.resize((512, 512), Image.Resampling.BICUBIC).save(file, rng.choice(["PNG", "JPEG", "WEBP"]))
    return file.getvalue()


def damaged(rng: random.Random) -> bytes:
    return rng.choice([b"", b"no picture at all", picture(rng)[: rng.randrange(4, 40)], b"%!PS-Adobe-3.0 EPSF-3.0\n", rng.randbytes(2000)])


def prepared(config: LoadConfig, inverter: PromptInverter, directory: Path) -> list[Request]:
    rng, found = random.Random(config.seed), list[Request]()
    for number in range(config.requests):
        drawn = rng.random()
        if drawn < config.broken:
            found.append(_broken(directory / f"{number}.png", damaged(rng)))
        elif drawn < config.broken + config.archives:
            found.append(_archive(directory / f"{number}.zip", [picture(rng) for _ in range(3)], inverter))
        else:
            found.append(_picture(directory / f"{number}.png", picture(rng), inverter))
    return found


def _broken(path: Path, content: bytes) -> Request:
    path.write_bytes(content)

    def send(client: Client) -> str:
        try:
            client.predict(handle_file(str(path)), api_name="/predict")
        except AppError as error:
            return IN_WORDS if REFUSED.match(str(error)) else f"refused: {error}"
        return "a broken file was read"

    return Request(path, send)


def _picture(path: Path, content: bytes, inverter: PromptInverter) -> Request:
    path.write_bytes(content)
    expected = inverter.predict(path).prompt

    def send(client: Client) -> str:
        found = client.predict(handle_file(str(path)), api_name="/predict")
        return RIGHT if found["prompt"] == expected else "another prompt"

    return Request(path, send)


def _archive(path: Path, contents: list[bytes], inverter: PromptInverter) -> Request:
    with zipfile.ZipFile(path, "w") as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number}.png", content)
    expected = [prediction.prompt for prediction in inverter.predict(contents)]

    def send(client: Client) -> str:
        _, table, packed = client.predict([handle_file(str(path))], api_name="/caption_files")
        with zipfile.ZipFile(packed) as archive:
            texts = [archive.read(f"{number}.txt").decode().strip() for number in range(3)]
        return RIGHT if texts == expected == [row[1] for row in table["data"]] else "other prompts"

    return Request(path, send)


@contextmanager
def served(config: LoadConfig) -> Iterator[tuple[str, psutil.Process]]:
    """Where app.py serves, and its process."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, str(ROOT / "app.py"), "--checkpoint", config.checkpoint, "--paint", "", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                httpx.get(address)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        else:
            sys.exit("page_load.py: app.py ended")
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def asked(client: Client, request: Request) -> tuple[float, str]:
    """Seconds, upload and all, and how it ended."""
    begun = time.perf_counter()
    try:
        ended = request.send(client)
    except Exception as error:  # of whatever library, it is a lost request
        ended = f"{type(error).__name__}: {str(error)[:200]}"
    return time.perf_counter() - begun, ended


def main(config: LoadConfig) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary, served(config) as (address, process):
        directory = Path(temporary)
        requests = prepared(config, PromptInverter.from_pretrained(config.checkpoint), directory)

        def connect(_: int) -> Client:
            return Client(address, verbose=False, analytics_enabled=False, download_files=str(directory / "answers"))

        with ThreadPoolExecutor(config.clients) as pool:
            clients = list(pool.map(connect, range(config.clients)))
            for kind in (".png", ".zip"):  # what loads with the first of its kind is no growth
                for request in [one for one in requests if one.path.suffix == kind][:1]:
                    request.send(clients[0])

            def work(number: int) -> list[tuple[float, str]]:
                return [asked(clients[number], request) for request in requests[number :: config.clients]]

            for number in range(config.rounds):
                before, begun = process.memory_info().rss, time.perf_counter()
                found = [one for each in pool.map(work, range(config.clients)) for one in each]
                took = time.perf_counter() - begun
                ends = Counter(ended for _, ended in found)
                seconds = sorted(each for each, _ in found)
                lost = {ended: count for ended, count in ends.items() if ended not in (RIGHT, IN_WORDS)}
                for ended, count in lost.items():
                    print(f"lost {count}: {ended}", file=sys.stderr)
                row = {"round": number + 1, "requests": len(found), RIGHT: ends[RIGHT], IN_WORDS: ends[IN_WORDS], "lost": sum(lost.values())}
                row |= {"p50 s": statistics.median(seconds), "p95 s": seconds[int(0.95 * (len(seconds) - 1))], "requests/s": len(found) / took}
                rows.append(row | {"MiB before": before >> 20, "MiB after": process.memory_info().rss >> 20})
    report(f"The page, {config.clients} clients at once", rows, torch.device("cpu"), config.json)


if __name__ == "__main__":
    main(tyro.cli(LoadConfig, description=__doc__))
