"""BLIP and GIT from nothing, in any size, with our tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from model import Preprocessing
from peers.files import transformers
from peers.network import PeerConfig, PeerNetwork
from tokenizer import PromptTokenizer
from tokenizer.bpe import BOS, EOS, PAD


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a vision transformer and of the text decoder."""

    patch_size: int
    encoder_width: int
    encoder_layers: int
    encoder_heads: int
    encoder_ffn_width: int
    width: int
    layers: int
    heads: int
    ffn_width: int
    dropout: float


def build_peer(
    kind: str, shape: Shape, preprocessing: Preprocessing, tokenizer: PromptTokenizer, *, max_text_tokens: int, label_smoothing: float
) -> PeerNetwork:
    """A network with random weights, its processor prepared for pictures as `preprocessing` says.

    Raises:
        MissingExtraError: transformers is not installed.
        ValueError: sizes that do not fit together.
    """
    library = transformers()
    side = preprocessing.size[0]
    if preprocessing.size != (side, side) or side % shape.patch_size:
        raise ValueError(f"BLIP and GIT take square pictures that patches of {shape.patch_size} pixels fill, not {preprocessing.size}")
    for width, heads in ((shape.encoder_width, shape.encoder_heads), (shape.width, shape.heads)):
        if width % heads:
            raise ValueError(f"a width of {width} is not divided by {heads} heads")
    vision = {
        "hidden_size": shape.encoder_width,
        "num_hidden_layers": shape.encoder_layers,
        "num_attention_heads": shape.encoder_heads,
        "intermediate_size": shape.encoder_ffn_width,
        "image_size": side,
        "patch_size": shape.patch_size,
        "initializer_range": 0.02,  # BLIP's own says 1e-10, since its weights are always loaded
    }
    text = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn_width,
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": shape.dropout,
        "max_position_embeddings": max_text_tokens,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        "tie_word_embeddings": True,
    }
    if kind == "blip":
        text |= {"sep_token_id": tokenizer.eos_id, "encoder_hidden_size": shape.encoder_width, "label_smoothing": label_smoothing}
        network = library.BlipForConditionalGeneration(library.BlipConfig(text_config=text, vision_config=vision))
    else:
        network = library.GitForCausalLM(library.GitConfig(vision_config=vision, **text))
    processor = _processor(library, kind, preprocessing, tokenizer)
    config = PeerConfig.of(network, processor, max_text_tokens=max_text_tokens, label_smoothing=label_smoothing)
    return PeerNetwork(config, network, processor)


def _processor(library: Any, kind: str, preprocessing: Preprocessing, tokenizer: PromptTokenizer) -> Any:
    height, width = preprocessing.size
    centred = preprocessing.crop == "center"
    images = library.CLIPImageProcessor(
        size={"shortest_edge": height} if centred else {"height": height, "width": width},
        do_center_crop=centred,
        crop_size={"height": height, "width": width},
        resample=int(preprocessing.resample),
        image_mean=list(preprocessing.mean),
        image_std=list(preprocessing.std),
    )
    words = library.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.to_json()),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    return (library.BlipProcessor if kind == "blip" else library.GitProcessor)(images, words)
