"""A network in onnxruntime: the graphs that `export.py` writes, behind the methods of `CaptionModel` that `PromptInverter` calls."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.errors import MissingExtraError
from model import CheckpointError, ModelConfig, NotFiniteError
from model.decoding import TextRules
from model.files import CONFIG_FILE
from model.graphs import ENCODER_GRAPH, GRAPHS, PREFILL_GRAPH, STEP_GRAPH
from model.writing import Writer


def is_exported(directory: Path) -> bool:
    """Whether a directory holds graphs."""
    return all((directory / name).is_file() for name in GRAPHS)


class OnnxModel(Writer, nn.Module):
    """Runs on the CPU, in the precision the graphs were written in."""

    def __init__(self, directory: Path) -> None:
        """
        Raises:
            CheckpointError: a graph or config.json is missing or broken.
            MissingExtraError: onnxruntime is not installed.
        """
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(f"ONNX graphs need the extra 'onnx' ({error}): pip install -e '.[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.config = ModelConfig.load(directory / CONFIG_FILE)
            self._encoder, self._prefill, self._step = (
                onnxruntime.InferenceSession(str(directory / name), options, providers=["CPUExecutionProvider"])
                for name in (ENCODER_GRAPH, PREFILL_GRAPH, STEP_GRAPH)
            )
        except (ValueError, OSError) as error:
            raise CheckpointError(str(error)) from error
        except Exception as error:  # the library's errors share no base
            raise CheckpointError(f"{directory}: {str(error).splitlines()[0]}; export it again") from error
        digest = b"".join(hashlib.sha256((directory / name).read_bytes()).digest() for name in GRAPHS)
        self.graphs = nn.Buffer(torch.frombuffer(bytearray(digest), dtype=torch.uint8))  # by which it is known again

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def encode(self, pixel_values: Tensor) -> Tensor:
        """As `CaptionModel.encode`, of one image for each text."""
        if len(pixel_values) == 0:
            raise ValueError("pixel_values holds no images")
        return torch.from_numpy(self._encoder.run(None, {"pixel_values": pixel_values.contiguous().numpy()})[0])

    def attention_maps(self, pixel_values: Tensor, input_ids: Tensor) -> None:
        """The graphs do not say where they look."""

    @contextmanager
    def _start(self, features: Tensor, rules: TextRules, hypotheses: int) -> Iterator[_Texts]:
        texts = _Texts(self._step, *self._prefill.run(None, {"features": features.numpy()}))
        yield texts
        if not np.isfinite(texts.sums):
            raise NotFiniteError("the network computed NaN or infinity instead of probabilities: its graphs are damaged; export it again")


class _Texts:
    """`decoding.Hypotheses`: each text has the keys and values of its image and of its own tokens."""

    def __init__(self, session: Any, keys: np.ndarray, values: np.ndarray) -> None:
        self._session, self._keys, self._values = session, keys, values
        self.sums = 0.0

    def step(self, tokens: Tensor) -> Tensor:
        given = {"input_ids": tokens.numpy(), "keys": self._keys, "values": self._values}
        log_probs, self._keys, self._values = self._session.run(None, given)
        self.sums += float(log_probs.max(-1).sum())
        return torch.from_numpy(log_probs)

    def select(self, rows: Tensor, images: Tensor | None) -> None:
        self._keys, self._values = self._keys[rows.numpy()], self._values[rows.numpy()]


def quantise(directory: Path) -> None:
    """Turn the weights of a directory's matrix products into whole numbers of eight bits, in place; activations follow as they come.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError(f"ONNX graphs need the extra 'onnx' ({error}): pip install -e '.[onnx]'") from error
    for name in GRAPHS:
        smaller = directory / f"{name}.int8"
        quantize_dynamic(directory / name, smaller, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
        os.replace(smaller, directory / name)
