"""Timing side by side: everything compared runs in turn, round after round, in one process, so that noise falls on all alike."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from core.device import multiplies_in


def median_seconds(functions: Mapping[str, Callable[[], object]], *, rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each function over `rounds` alternating rounds, after one that does not count."""
    for function in functions.values():
        function()
    return median_seconds_when_warm(functions, rounds=rounds, device=device)


def median_seconds_when_warm(functions: Mapping[str, Callable[[], object]], *, rounds: int, device: torch.device) -> dict[str, float]:
    """As `median_seconds`, without the round that does not count: for long work that has been run on something small before."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def usual_dtypes() -> tuple[str, ...]:
    """The types that are worth measuring on this machine's device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return ("float32", "bfloat16") if multiplies_in(torch.bfloat16, device) else ("float32",)


def machine(device: torch.device) -> str:
    """What the numbers were measured on, for the head of a table."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        names = [line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")]
        kind = f"{torch.backends.cpu.get_cpu_capability()}, {'multiplies' if multiplies_in(torch.bfloat16, device) else 'no products'} in bfloat16"
        name = f"{names[0] if names else platform.processor() or platform.machine()} ({kind}), {torch.get_num_threads()} threads"
    return f"{name}; torch {torch.__version__}"


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of `rows`, which share their keys."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        lines.append("| " + " | ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()) + " |")
    return "\n".join(lines)


def report(title: str, rows: list[dict[str, Any]], device: torch.device, path: Path | None) -> None:
    """Print a table and write it as JSON where a path is given."""
    print(f"\n{title}\n{machine(device)}\n\n{markdown(rows)}")
    if path is not None:
        content = {"title": title, "machine": machine(device), "rows": rows}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
