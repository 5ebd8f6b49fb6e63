import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from diffusion.mini.networks import (
    build_autoencoder,
    build_pipeline,
    build_prompt_tokenizer,
    build_scheduler,
    build_text_encoder,
    build_unet,
)
from diffusion.mini.train import export_pipeline, replace_pipeline


def pipeline() -> StableDiffusionPipeline:
    tokenizer = build_prompt_tokenizer(["a cat on a beach, rain"] * 5)
    text_encoder = build_text_encoder(len(tokenizer), tokenizer.eos_token_id, tokenizer.bos_token_id)
    return build_pipeline(build_autoencoder(), build_unet(), text_encoder, tokenizer, build_scheduler())


def test_an_exported_pipeline_is_half_the_size_and_runs_in_full_precision(tmp_path: Path) -> None:
    original = pipeline()
    export_pipeline(original, tmp_path / "out")
    assert next(original.unet.parameters()).dtype == torch.float32  # training goes on with the original
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert {part.dtype for part in (loaded.unet, loaded.vae, loaded.text_encoder)} == {torch.float32}
    torch.testing.assert_close(loaded.unet.conv_in.weight, original.unet.conv_in.weight, atol=1e-3, rtol=1e-3)
    ids = loaded.tokenizer("a cat", return_tensors="pt").input_ids
    torch.testing.assert_close(loaded.text_encoder(ids)[0], original.text_encoder(ids)[0], atol=2e-2, rtol=2e-2)
    parameters = sum(p.numel() for part in (original.unet, original.vae, original.text_encoder) for p in part.parameters())
    size = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert size < 2.1 * parameters + 200_000
    assert size <= 24_000_000


def test_weights_that_are_not_finite_replace_nothing(tmp_path: Path) -> None:
    broken = pipeline()
    export_pipeline(broken, tmp_path / "out")
    with torch.no_grad():
        broken.unet.conv_in.weight[0, 0, 0, 0] = 1e6  # infinite in half precision
    with pytest.raises(ValueError, match="unet has weights that are not finite"):
        export_pipeline(broken, tmp_path / "out")
    shutil.rmtree(tmp_path / "out.tmp", ignore_errors=True)
    StableDiffusionPipeline.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("there", [True, False])
def test_a_pipeline_takes_the_place_of_another_as_a_whole(tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    finished, out = tmp_path / "finished", tmp_path / "out"
    finished.mkdir()
    (finished / "model_index.json").write_text("new")
    if there:
        out.mkdir()
        (out / "left_over.safetensors").write_text("old")
        with monkeypatch.context() as patch:  # killed where nothing stands under the name
            renamed: list[Path] = []
            real = os.replace
            patch.setattr(os, "replace", lambda source, target: renamed.append(source) or (len(renamed) > 1 and 1 / 0) or real(source, target))
            with pytest.raises(ZeroDivisionError):
                replace_pipeline(out, finished)
        assert (tmp_path / "out.before" / "left_over.safetensors").read_text() == "old"
    replace_pipeline(out, finished)
    assert [file.name for file in out.iterdir()] == ["model_index.json"]
    assert {path.name for path in tmp_path.iterdir()} == {"finished", "out"}
