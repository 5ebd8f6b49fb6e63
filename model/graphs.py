"""A network as three ONNX graphs, for runtimes that know no PyTorch.

encoder.onnx   pixel_values (B, 3, H, W), as the network takes them       -> features (B, P, C)
prefill.onnx   features                                                   -> keys, values (B, L, H, P, D) of the image tokens
step.onnx      input_ids (B, T), keys, values (B, L, H, S, D) before      -> log_probs (B, V) of the next token, keys, values (B, L, H, S + T, D)

The first dimension of all is the batch, B images or texts.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from model.decoder import attend
from model.masks import text_rows
from model.network import CaptionModel

ENCODER_GRAPH, PREFILL_GRAPH, STEP_GRAPH = "encoder.onnx", "prefill.onnx", "step.onnx"
GRAPHS = (ENCODER_GRAPH, PREFILL_GRAPH, STEP_GRAPH)
_OPSET = 18


class _Encoder(nn.Module):
    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.encoder.features(pixel_values)


class _Prefill(nn.Module):
    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        prefix = self.decoder.prefix(self.encoder.project(features))
        return torch.stack(prefix.keys, 1), torch.stack(prefix.values, 1)


class _Step(nn.Module):
    """Texts see the image, all before them, and the new tokens up to each."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.decoder, self.image_tokens = model.decoder, model.num_image_tokens

    def forward(self, input_ids: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decoder, new, before = self.decoder, input_ids.shape[1], keys.shape[3]
        positions = torch.arange(new, device=input_ids.device) + (before - self.image_tokens)
        x = decoder.embedding_norm(decoder.token_embedding(input_ids) + decoder.position_embedding(positions))
        mask = text_rows(before, new, input_ids.device)
        all_keys, all_values = [], []
        for layer, block in enumerate(decoder.layers):
            query, key, value = block.project(x)
            key, value = torch.cat([keys[:, layer], key], 2), torch.cat([values[:, layer], value], 2)
            x = block.finish(x, attend(query, key, value, mask))
            all_keys.append(key)
            all_values.append(value)
        log_probs = decoder.logits(decoder.final_norm(x[:, -1])).float().log_softmax(-1)
        return log_probs, torch.stack(all_keys, 1), torch.stack(all_values, 1)


def export_graphs(model: CaptionModel, directory: Path) -> None:
    """Write the three graphs in float32.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    model = model.float().cpu().eval()
    pixels = torch.zeros(2, 3, *model.config.preprocessing.size)
    with torch.no_grad():
        features = _Encoder(model)(pixels)
        keys, values = _Prefill(model)(features)
    batch, new, before = torch.export.Dim("batch"), torch.export.Dim("new"), torch.export.Dim("before")
    ids = torch.full((2, 3), model.config.bos_token_id)
    cache = {0: batch, 3: before}
    _export(_Encoder(model), (pixels,), directory / ENCODER_GRAPH, ["pixel_values"], ["features"], ({0: batch},))
    _export(_Prefill(model), (features,), directory / PREFILL_GRAPH, ["features"], ["keys", "values"], ({0: batch},))
    outputs = ["log_probs", "new_keys", "new_values"]
    _export(_Step(model), (ids, keys, values), directory / STEP_GRAPH, ["input_ids", "keys", "values"], outputs, ({0: batch, 1: new}, cache, cache))


def _export(module: nn.Module, arguments: tuple[Tensor, ...], path: Path, inputs: list[str], outputs: list[str], shapes: tuple[dict, ...]) -> None:
    program = torch.onnx.export(
        module.eval(), arguments, input_names=inputs, output_names=outputs, dynamic_shapes=shapes, opset_version=_OPSET, dynamo=True, verbose=False
    )
    assert program is not None
    program.save(path, external_data=False)
