import gzip
import io
import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from data.image_metadata import ImageMetadata, MetadataError, diffusiondb_metadata, read_image_metadata
from data.shards import ShardWriter, index_shard, read_member

A1111 = "a castle, <lora:x:0.8>, (stone:1.2)\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"
GRAPH = {
    "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "steps": 9, "seed": 5}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a castle"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64}},
}
FOOOCUS = {
    "prompt": "a castle",
    "negative_prompt": "blurry",
    "base_model": "juggernaut",
    "steps": 30,
    "seed": "5",
    "guidance_scale": 4,
    "full_prompt": [],
}
SWARM = {"sui_image_params": {"prompt": "a castle", "negativeprompt": "blurry", "model": "sdxl", "seed": 5, "steps": 20, "cfgscale": 7.0}}
INVOKE = {"positive_prompt": "a castle", "negative_prompt": "blurry", "seed": 5, "steps": 20, "cfg_scale": 7.0, "model": {"model_name": "sd"}}
SD_METADATA = {
    "model_weights": "sd-1.5",
    "image": {"prompt": [{"prompt": "a castle [blurry]", "weight": 1}], "seed": 5, "steps": 20, "sampler": "k_lms"},
}
NOVEL = {"steps": 28, "sampler": "k_euler", "seed": 5, "scale": 11.0, "uc": "blurry"}
EASY = {"prompt": "a castle", "negative_prompt": "blurry", "seed": "5", "num_inference_steps": "25", "guidance_scale": "7.5",
        "use_stable_diffusion_model": "sd-v1-5", "sampler_name": "euler_a"}  # fmt: skip
DRAW = {"c": "a castle", "uc": "blurry", "seed": 5, "steps": 20, "scale": 7, "size": "512x768", "model": "sd.ckpt", "sampler": "DPM++"}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/"><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">'
    f"{json.dumps(DRAW)}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def png(texts: Mapping[str, str], image: Image.Image | None = None) -> bytes:
    notes = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        notes.add_itxt(name, text) if name.startswith("XML") or not text.isascii() else notes.add_text(name, text)
    file = io.BytesIO()
    (image or Image.new("RGB", (8, 8))).save(file, "PNG", pnginfo=notes)
    return file.getvalue()


def with_comment(kind: str, comment: bytes | str, tag: int = ExifTags.Base.UserComment) -> bytes:
    exif = Image.Exif()
    if tag == ExifTags.Base.UserComment:
        exif.get_ifd(ExifTags.IFD.Exif)[tag] = comment
    else:
        exif[tag] = comment
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=exif)
    return file.getvalue()


def read(content: bytes) -> ImageMetadata | None:
    with Image.open(io.BytesIO(content)) as image:
        return read_image_metadata(image)


UNICODE = b"UNICODE\0" + A1111.encode("utf-16-be")
NOVEL_CHUNKS = {"Title": "AI generated image", "Software": "NovelAI", "Source": "Stable Diffusion 1D44365E", "Comment": json.dumps(NOVEL)}
DREAM = '"a castle [blurry]" -s20 -S5 -W512 -H768 -C7.5 -A k_lms'


@pytest.mark.parametrize(
    ("content", "tool"),
    [
        (png({"parameters": A1111}), "AUTOMATIC1111"),
        (with_comment("JPEG", UNICODE), "AUTOMATIC1111"),
        (with_comment("WEBP", UNICODE), "AUTOMATIC1111"),
        (with_comment("JPEG", b"UNICODE\0" + A1111.encode("utf-16-le")), "AUTOMATIC1111"),
        (with_comment("JPEG", b"ASCII\0\0\0" + A1111.encode()), "AUTOMATIC1111"),
        (png({"prompt": json.dumps(GRAPH), "workflow": "{}"}), "ComfyUI"),
        (with_comment("WEBP", f"prompt:{json.dumps(GRAPH)}", ExifTags.Base.Model), "ComfyUI"),
        (png({"invokeai_metadata": json.dumps(INVOKE)}), "InvokeAI"),
        (png({"sd-metadata": json.dumps(SD_METADATA)}), "InvokeAI"),
        (png({"Dream": DREAM}), "InvokeAI"),
        (png(NOVEL_CHUNKS | {"Description": "a castle"}), "NovelAI"),
        (png(NOVEL_CHUNKS | {"Comment": json.dumps(NOVEL | {"prompt": "a castle"})}), "NovelAI"),
        (png({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}), "Fooocus"),
        (with_comment("JPEG", b"UNICODE\0" + json.dumps(FOOOCUS).encode("utf-16-be")), "Fooocus"),
        (png({"parameters": json.dumps(SWARM)}), "SwarmUI"),
        (with_comment("JPEG", b"UNICODE\0" + json.dumps(SWARM).encode("utf-16-le")), "SwarmUI"),
        (png(EASY), "Easy Diffusion"),
        (png({"Prompt": "a castle", "Negative Prompt": "blurry", "Seed": "5", "Stable Diffusion model": "sd"}), "Easy Diffusion"),
        (with_comment("JPEG", b"ASCII\0\0\0" + json.dumps(EASY).encode()), "Easy Diffusion"),
        (png({"XML:com.adobe.xmp": XMP}), "Draw Things"),
    ],
)
def test_every_tool(content: bytes, tool: str) -> None:
    found = read(content)
    assert found is not None
    assert found.tool == tool
    assert found.prompt in ("a castle", "a castle, <lora:x:0.8>, (stone:1.2)")
    assert found.negative_prompt == "blurry"
    assert str(found.parameters["seed"]) == "5"


def test_what_the_tools_say_besides() -> None:
    found = read(png({"parameters": json.dumps(SWARM)}))
    assert found is not None
    assert found.parameters == {"model": "sdxl", "seed": 5, "steps": 20, "guidance_scale": 7.0}
    drawn = read(png({"XML:com.adobe.xmp": XMP}))
    assert drawn is not None
    assert drawn.parameters["width"] == 512
    characters = [{"char_caption": "red hair"}, {"char_caption": "a hat"}]
    comment = NOVEL | {"v4_prompt": {"caption": {"base_caption": "two girls", "char_captions": characters}}}
    novel = read(png(NOVEL_CHUNKS | {"Description": "two girls", "Comment": json.dumps(comment)}))
    assert novel is not None
    assert novel.prompt == "two girls, red hair, a hat"
    assert novel.parameters["model"] == "Stable Diffusion 1D44365E"


def test_a_text_hidden_in_the_alpha_channel() -> None:
    for name, text in (("stealth_pngcomp", json.dumps(NOVEL_CHUNKS | {"Description": "a castle"})), ("stealth_pnginfo", A1111)):
        body = gzip.compress(text.encode()) if name.endswith("comp") else text.encode()
        bits = np.unpackbits(np.frombuffer(name.encode() + (8 * len(body)).to_bytes(4, "big") + body, np.uint8))
        alpha = np.full((100, 120), 254, np.uint8).T.reshape(-1)
        alpha[: len(bits)] |= bits
        pixels = np.zeros((100, 120, 4), np.uint8)
        pixels[..., 3] = alpha.reshape(120, 100).T
        found = read(png({}, Image.fromarray(pixels, "RGBA")))
        assert found is not None
        assert found.prompt.startswith("a castle")
        if name.endswith("comp"):  # a damaged one is named
            pixels[:, 4:, 3] = 0
            with pytest.raises(MetadataError, match="alpha channel"):
                read(png({}, Image.fromarray(pixels, "RGBA")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png({"prompt": json.dumps({"1": {"class_type": "Mystery", "inputs": {}}})}), "ComfyUI: no sampler"),
        (png({"invokeai_metadata": '{"seed": 1}'}), "InvokeAI: .*positive_prompt"),
        (png({"invokeai_metadata": "{"}), "InvokeAI"),
        (png({"Dream": "no quotes"}), "InvokeAI"),
        (png({"Software": "NovelAI"}), "NovelAI"),
        (png({"parameters": '{"engine": "new", "text": "a cat"}'}), "JSON of a tool that is not known"),
        (png({"parameters": json.dumps({"sui_image_params": {"seed": 3}})}), "SwarmUI"),
    ],
)
def test_what_is_not_understood_is_named(content: bytes, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        read(content)


def test_files_that_say_nothing() -> None:
    assert read(png({})) is None
    assert read(png({"Comment": "made with GIMP", "Software": "GIMP"})) is None
    assert read(with_comment("JPEG", "Canon", ExifTags.Base.Make)) is None
    assert read(with_comment("JPEG", b"ASCII\0\0\0a holiday")) is None
    assert read(png({"parameters": "{cat|dog} on a hill"})) == ImageMetadata(tool="AUTOMATIC1111", prompt="{cat|dog} on a hill")


def test_diffusiondb() -> None:
    found = diffusiondb_metadata({"p": "a castle", "se": 5, "c": 7.0, "st": 50, "sa": "k_lms"})
    assert found.parameters == {"seed": 5, "guidance_scale": 7.0, "steps": 50, "sampler": "k_lms"}
    with pytest.raises(MetadataError):
        diffusiondb_metadata({"se": 5})


def test_the_pairs_we_make_carry_the_text_that_other_tools_read(tmp_path: Any) -> None:
    metadata = {"prompt": "a cat,\n(fluffy:1.2)", "negative_prompt": "blurry", "seed": 7, "steps": 12, "guidance_scale": 4.0, "sampler": "DDIM"}
    with ShardWriter(tmp_path, 0) as writer:
        writer.add("0", Image.new("RGB", (8, 8)), metadata | {"width": 8, "height": 8, "model": "mini: a, b"})
    (location,) = index_shard(tmp_path / "00000.tar")
    found = read(read_member(location.tar, location.image))
    assert found is not None
    assert (found.prompt, found.negative_prompt) == (metadata["prompt"], "blurry")
    assert found.parameters == {"steps": 12, "sampler": "DDIM", "guidance_scale": 4.0, "seed": 7, "model": "mini: a, b", "width": 8, "height": 8}


KEYS = ["parameters", "prompt", "workflow", "Comment", "Software", "Dream", "sd-metadata", "invokeai_metadata", "Title", "XML:com.adobe.xmp"]
SEEDS = [A1111, XMP, DREAM, *(json.dumps(one) for one in (GRAPH, FOOOCUS, SWARM, INVOKE, SD_METADATA, NOVEL, EASY, DRAW, {"NovelAI": 1}))]


def _mutated(draw: random.Random) -> dict[str, str]:
    """Texts of the tools, under their names or others', cut, repeated, with signs and values exchanged."""
    texts = {}
    for _ in range(draw.randint(1, 3)):
        text = draw.choice(SEEDS)
        for _ in range(draw.randint(0, 4)):
            place, end = sorted(draw.choices(range(len(text) + 1), k=2))
            new = draw.choice(
                ["", "null", "[]", "{}", "[1,", '"', "1e999", "-1", "\0", "é🜁", "[[" * 50, text[place:end] * 2, chr(draw.randint(1, 0x2FFF))]
            )
            text = text[:place] + new + text[end if draw.random() < 0.5 else place :]
        texts[draw.choice(KEYS)] = text
    return texts


def _survives(texts: Mapping[str, str]) -> None:
    image = Image.new("RGB", (4, 4))
    image.info.update(texts)
    try:
        found = read_image_metadata(image)
        assert found is None or (isinstance(found.prompt, str) and isinstance(found.negative_prompt, str))
    except MetadataError as error:
        assert str(error)


def test_mutated_texts_raise_nothing_else() -> None:
    draw = random.Random(1)
    for _ in range(2000):
        _survives(_mutated(draw))


@pytest.mark.slow
def test_a_hundred_thousand_mutated_texts_raise_nothing_else() -> None:
    draw = random.Random(2)
    for _ in range(100_000):
        _survives(_mutated(draw))


NAMES = st.sampled_from(["nodes", "links", "prompt", "image", "1", "inputs", "class_type", "positive", "c", "p"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=9)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)).map(json.dumps)


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=200) | JSON))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_json_raises_nothing_else(texts: dict[str, str]) -> None:
    _survives(texts)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_comment_raises_nothing_else(comment: bytes) -> None:
    for prefix in (b"", b"UNICODE\0", b"ASCII\0\0\0"):
        try:
            read(with_comment("JPEG", prefix + comment))
        except MetadataError as error:
            assert str(error)
