"""The four networks of the embedded Stable Diffusion at their small sizes, and the pipeline they make together.

A 64 x 64 image becomes a latent of 6 x 16 x 16; a CLIP text model of two layers is trained together with the UNet.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_CHANNELS = 6
LATENT_SIZE = 16
MAX_PROMPT_TOKENS = 32
TEXT_WIDTH = 128
TEACHER_STEPS = 12
TEACHER_GUIDANCE = 4.0
STUDENT_STEPS = 2
GUIDANCE_WIDTH = 4  # the least that diffusers can spread a number over


def build_autoencoder(*, decoder_blocks: tuple[int, int, int] = (4, 3, 0)) -> AutoencoderTiny:
    """`AutoencoderTiny`, initialised so that it learns from scratch: Kaiming for its ReLUs, residual branches damped.

    Args:
        decoder_blocks: at 16, 32 and 64 pixels. Blocks at full size would cost more than all others together.
    """
    width = 48
    vae = AutoencoderTiny(
        encoder_block_out_channels=(width,) * 3,
        decoder_block_out_channels=(width,) * 3,
        num_encoder_blocks=(0, 2, 4),
        num_decoder_blocks=decoder_blocks,
        latent_channels=LATENT_CHANNELS,
    )
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in vae.named_modules():
        if name.endswith("conv.4") and isinstance(module, nn.Conv2d):
            module.weight.data.mul_(0.2)
    return vae


def student_autoencoder_of(teacher: AutoencoderTiny) -> AutoencoderTiny:
    """A copy that has two of the decoder's four blocks at 16 pixels and one of three at 32, the last ones: half the products. It has to learn to do
    without the others. Of such a copy it is another copy."""
    vae = build_autoencoder(decoder_blocks=(2, 1, 0))
    vae.register_to_config(scaling_factor=teacher.config.scaling_factor)
    vae.encoder.load_state_dict(teacher.encoder.state_dict())
    layers = list(teacher.decoder.layers)
    dropped = [place for place, layer in enumerate(layers) if isinstance(layer, AutoencoderTinyBlock)]
    counts = teacher.config.num_decoder_blocks
    dropped = [*dropped[: counts[0] - 2], *dropped[counts[0] : counts[0] + counts[1] - 1]]
    kept = [layer for place, layer in enumerate(layers) if place not in dropped]
    for layer, theirs in zip(vae.decoder.layers, kept, strict=True):
        layer.load_state_dict(theirs.state_dict())
    return vae


def build_prompt_tokenizer(prompts: Iterable[str]) -> CLIPTokenizer:
    """A `CLIPTokenizer` whose byte-pair merges are learnt from `prompts`."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1600,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(prompts, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=MAX_PROMPT_TOKENS)


def build_text_encoder(vocab_size: int, eos_token_id: int, bos_token_id: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_PROMPT_TOKENS,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=eos_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128, 176),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",  # the pooled prompt joins the time embedding, as in DeepFloyd IF: who is in the picture matters everywhere
        addition_embed_type_num_heads=8,
    )
    nn.init.zeros_(unet.add_embedding.norm2.weight)  # the pooled prompt is silent at first
    return unet


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Stable Diffusion's noise schedule, v-prediction, rescaled to zero terminal SNR (arXiv 2305.08891, section 3)."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def build_student_scheduler() -> DDIMScheduler:
    """The same noise schedule under plain DDIM, whose last step ends where no noise is left."""
    names = inspect.signature(DDIMScheduler.__init__).parameters
    shared = {name: value for name, value in build_scheduler().config.items() if name in names}
    return DDIMScheduler(**shared, clip_sample=False)


def student_of(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy that has room for the guidance scale, as LCM's UNets do, which it does not hear: diffusers then guides it by no second pass, whatever
    scale a caller asks for. Of a student it is another student."""
    settings = {name: value for name, value in unet.config.items() if not name.startswith("_")}  # diffusers' own notes, which would undo the next
    student = UNet2DConditionModel.from_config(settings | {"time_cond_proj_dim": GUIDANCE_WIDTH})
    nn.init.zeros_(student.time_embedding.cond_proj.weight)
    missing, unexpected = student.load_state_dict(unet.state_dict(), strict=False)
    if not set(missing) <= {"time_embedding.cond_proj.weight"} or unexpected:
        raise ValueError(f"the teacher's UNet is of another shape: {', '.join([*missing, *unexpected])}")
    student.time_embedding.cond_proj.requires_grad_(False)
    return student


def build_pipeline(
    vae: AutoencoderTiny,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DPMSolverMultistepScheduler | DDIMScheduler,
) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


class Denoiser(nn.Module):
    """Text encoder and UNet as one module, since they are trained together."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, C, 16, 16) noisy latents, (B,) timesteps, (B, 32) token ids -> (B, C, 16, 16) predicted velocity."""
        hidden = self.text_encoder(input_ids).last_hidden_state
        return self.unet(noisy, timesteps, encoder_hidden_states=hidden).sample


def is_student(pipeline: Path) -> bool:
    """Whether what lies there was distilled to few steps."""
    unet = pipeline / "unet" / "config.json"
    return unet.is_file() and json.loads(unet.read_text(encoding="utf-8")).get("time_cond_proj_dim") is not None
