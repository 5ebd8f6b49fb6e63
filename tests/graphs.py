"""ComfyUI graphs, and image files with texts in them, for the tests."""

from __future__ import annotations

import gzip
import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(**changes: dict[str, Any]) -> dict[str, Any]:
    """The simplest one, with nodes added or replaced: `n6` is node 6."""
    plain = {
        "3": node(
            "KSampler", seed=5, steps=20, cfg=8.0, sampler_name="euler", scheduler="normal", denoise=1.0,
            model=["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="sd.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "6": node("CLIPTextEncode", text="a castle", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blurry", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="x", images=["8", 0]),
    }  # fmt: skip
    return plain | {name[1:]: content for name, content in changes.items()}


def sampler(**changes: Any) -> dict[str, Any]:
    """The sampler of the simplest graph, with inputs added or replaced."""
    return node("KSampler", **(graph()["3"]["inputs"] | changes))


def png(texts: dict[str, str], image: Image.Image | None = None, *, international: bool = False) -> bytes:
    """A PNG with texts in chunks of Latin-1, or of UTF-8 where they say that they are."""
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        if international:
            info.add_itxt(name, text)
        else:
            info.add_text(name, text)
    file = io.BytesIO()
    (image or Image.new("RGB", (8, 8))).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def png_of_bytes(name: str, raw: bytes, size: tuple[int, int] = (8, 8)) -> bytes:
    """A PNG with a text chunk of any bytes."""
    info = PngImagePlugin.PngInfo()
    info.add(b"tEXt", name.encode("latin-1") + b"\0" + raw)
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def with_comment(kind: str, comment: bytes | str, tag: int = ExifTags.Base.UserComment, size: tuple[int, int] = (8, 8)) -> bytes:
    """A JPEG or WebP with a text in EXIF."""
    exif = Image.Exif()
    if tag == ExifTags.Base.UserComment:
        exif.get_ifd(ExifTags.IFD.Exif)[tag] = comment
    else:
        exif[tag] = comment
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind, exif=exif)
    return file.getvalue()


def hiding(text: str, name: str) -> Image.Image:
    """A picture with a text in its lowest bits; `name` says where, and whether it is compressed."""
    body = gzip.compress(text.encode()) if name.endswith("comp") else text.encode()
    bits = np.unpackbits(np.frombuffer(name.encode() + (8 * len(body)).to_bytes(4, "big") + body, np.uint8))
    channels = 3 if "rgb" in name else 1
    width, height = 200, max(64, -(-len(bits) // (200 * channels)))
    plane = np.full((width, height, channels), 254, np.uint8)  # as it is read: column by column
    plane.reshape(-1)[: len(bits)] |= bits
    pixels = plane.transpose(1, 0, 2)
    if channels == 3:
        return Image.fromarray(np.ascontiguousarray(pixels), "RGB")
    whole = np.zeros((height, width, 4), np.uint8)
    whole[..., 3] = pixels[..., 0]
    return Image.fromarray(whole, "RGBA")
