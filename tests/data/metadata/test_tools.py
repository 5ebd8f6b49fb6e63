import io
import json
from typing import Any

import pytest
from graphs import graph, node, png, png_of_bytes, with_comment
from PIL import ExifTags, Image

from data.metadata.tools import ImageMetadata, MetadataError, diffusiondb_metadata, read_image_metadata, read_sidecar

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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png({"prompt": json.dumps({"1": {"class_type": "Mystery", "inputs": {}}})}), "ComfyUI: no sampler"),
        (png({"invokeai_metadata": '{"seed": 1}'}), "InvokeAI: .*positive_prompt"),
        (png({"invokeai_metadata": "{"}), "InvokeAI"),
        (png({"Dream": "no quotes"}), "InvokeAI"),
        (png({"Software": "NovelAI"}), "NovelAI"),
        (png({"parameters": '{"engine": "new", "text": "a cat"}'}), "JSON of a tool that is not known"),
        (png({"parameters": '{"prompt": "a cat", "engine": "new"}'}), "JSON of a tool that is not known"),  # not one setting that is known
        (png({"parameters": '{"prompt": "a ca'}), "JSON"),  # cut off
        (png({"parameters": '[{"prompt": "a cat"}]'}), "JSON of a tool that is not known"),
        (png({"generation_data": '{"seed": 3}'}), "TensorArt"),
        (png({"parameters-json": '{"Seed": 3}'}), "Stability Matrix"),
        (png({"prompt": '{"1": {"class_type"'}), "ComfyUI"),
        (png({"prompt": '{"a":' * 100_000}), "ComfyUI: .*RecursionError"),
        (png({"parameters": "unknown\nNegative prompt: unknown\nSteps: 20, Sampler: euler, CFG Scale: 8.0, Seed: 0, Size: 64x48"}), "not told"),
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


def prompts(content: bytes, name: str = "") -> tuple[str, str]:
    with Image.open(io.BytesIO(content)) as image:
        found = read_image_metadata(image, name=name)
    assert found is not None
    return found.prompt, found.negative_prompt


def jpeg(comment: bytes = b"", xmp: bytes = b"") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", comment=comment, xmp=xmp)
    return file.getvalue()


AS_XMP = f"<x><description><Alt><li>{A1111.replace('<', '&lt;')}</li></Alt></description></x>"


@pytest.mark.parametrize(
    "content",
    [
        png({"Comment": A1111}),
        png({"Description": A1111}),
        png({"comment": A1111, "Software": "GIMP"}),
        jpeg(A1111.encode()),
        jpeg(xmp=AS_XMP.encode()),
        png({"XML:com.adobe.xmp": AS_XMP}, international=True),
        with_comment("JPEG", A1111, ExifTags.Base.ImageDescription),
        with_comment("WEBP", A1111.encode("utf-16-le"), ExifTags.Base.XPComment),
        with_comment("JPEG", b"UNICODE\0" + (A1111 + "\nTemplate: a {castle|house}").encode("utf-16-be")),
    ],
)
def test_the_text_of_automatic1111_anywhere(content: bytes) -> None:
    assert prompts(content) == ("a castle, <lora:x:0.8>, (stone:1.2)", "blurry")


@pytest.mark.parametrize(
    "text", ["a holiday in France", "Cake\nSteps: 1. mix, 2. bake", "type: photo, mood: good, light: soft", "Seed: 3, Model: Canon, Size: 3x4"]
)
def test_an_ordinary_comment_is_no_prompt(text: str) -> None:
    for content in (png({"Comment": text, "Description": text}), jpeg(text.encode()), with_comment("JPEG", text, ExifTags.Base.ImageDescription)):
        assert read(content) is None


HF = {"prompt": "a fox", "negative_prompt": "blurry", "resolution": "1024 x 768", "guidance_scale": 5.5, "num_inference_steps": 24, "seed": 5}
RUINED = {"Prompt": "a fox", "Negative": "blurry", "steps": 30, "cfg": 8, "seed": 5, "base_model_name": "x", "software": "RuinedFooocus"}


@pytest.mark.parametrize(
    ("texts", "tool"),
    [
        ({"parameters": json.dumps(HF)}, "JSON"),
        ({"parameters": json.dumps(HF | {"use_upscaler": None, "Model": "m", "sampler": "Euler a"}, indent=2)}, "JSON"),
        ({"parameters": json.dumps({"positivePrompt": "a fox", "negativePrompt": "blurry", "cfgScale": 4, "seed": 5})}, "JSON"),
        ({"parameters": json.dumps({"Prompt": "a fox", "Negative Prompt": "blurry", "Steps": 4, "Seed": "5"})}, "JSON"),
        ({"parameters": json.dumps(RUINED)}, "RuinedFooocus"),
        ({"parameters": json.dumps(json.dumps(RUINED))}, "RuinedFooocus"),  # written as JSON twice over
        ({"prompt": json.dumps(json.dumps(graph(n6=node("CLIPTextEncode", text="a fox"))))}, "ComfyUI"),
        ({"parameters": json.dumps(RUINED | {"loras": [], "width": 64, "height": 64})}, "RuinedFooocus"),
        ({"generation_data": json.dumps({"prompt": "a fox", "negativePrompt": "blurry", "seed": "5"}) + "\0"}, "TensorArt"),
        (
            {"generation_data": json.dumps({"prompt": "a fox", "negativePrompt": "blurry", "seed": 5, "baseModel": {"modelFileName": "m"}})},
            "TensorArt",
        ),
        ({"generation_data": json.dumps({"prompt": "a fox", "negativePrompt": "blurry", "seed": 5}), "prompt": json.dumps(graph())}, "TensorArt"),
        ({"parameters-json": json.dumps({"PositivePrompt": "a fox", "NegativePrompt": "blurry", "Seed": 5, "ModelName": "m"})}, "Stability Matrix"),
        (
            {"invokeai_metadata": json.dumps({"positive_prompt": "a fox", "negative_prompt": "blurry", "seed": 5, "positive_style_prompt": ""})},
            "InvokeAI",
        ),
        ({"Dream": '"a fox [blurry]" -s50 -W512 -H512 -C7.5 -Ak_lms -F -S5'}, "InvokeAI"),
        ({"Dream": '"a fox [blurry]" -s 50 -F -G 0.8 -S 5 -U 2.0 0.75'}, "InvokeAI"),
        ({"Dream": '"a fox [blurry]" -S5 -s many --hires'}, "InvokeAI"),
        ({"prompt": json.dumps(graph(n6=node("CLIPTextEncode", text="a fox"))), "parameters": "unknown\nSteps: 20, Sampler: x, Seed: 1"}, "ComfyUI"),
        ({"prompt": json.dumps(graph(n6=node("CLIPTextEncode", text="a fox"))), "parameters": "\nSteps: 20, Sampler: x, Seed: 1"}, "ComfyUI"),
        ({"prompt": "{damaged", "workflow": json.dumps(graph(n6=node("CLIPTextEncode", text="a fox")))}, "ComfyUI"),
    ],
)
def test_more_tools(texts: dict[str, str], tool: str) -> None:
    if "damaged" in texts.get("prompt", ""):
        texts = {"prompt": texts["prompt"], "UserComment": texts["workflow"]}
    found = read(png(texts))
    assert found is not None
    assert (found.tool, found.prompt, found.negative_prompt, found.parameters["seed"]) == (tool, "a fox", "blurry", 5)


@pytest.mark.parametrize(
    ("prompt", "style", "joined"),
    [
        ("a fox", "comic, drawn", "a fox, comic, drawn"),
        ("a fox", "a fox comic, drawn", "a fox, comic, drawn"),  # some versions join them themselves
        ("a fox", "a fox", "a fox"),
        ("a fox", "", "a fox"),
        ("a fox", None, "a fox"),
        ("", "comic", "comic"),
    ],
)
def test_the_style_prompt_of_invokeai(prompt: str, style: str | None, joined: str) -> None:
    for side in ("positive", "negative"):
        content = INVOKE | {f"{side}_prompt": prompt, f"{side}_style_prompt": style}
        assert prompts(png({"invokeai_metadata": json.dumps(content)}))[0 if side == "positive" else 1] == joined


EXTRA = {"prompt": "a fox", "negativePrompt": "blurry", "steps": 20, "seed": 5, "cfgScale": 4}


@pytest.mark.parametrize(
    "content",
    [
        graph() | {"extra": {"airs": []}, "extraMetadata": json.dumps(EXTRA)},
        graph() | {"extraMetadata": EXTRA},
        {"prompt": graph(n6=node("CLIPTextEncode", text="a fox")), "workflow": {"nodes": []}},
        {"prompt": json.dumps(graph(n6=node("CLIPTextEncode", text="a fox"))), "workflow": "{}"},
        graph(n6=node("CLIPTextEncode", text="a fox")) | {"extraMetadata": "{}"},
    ],
)
def test_graphs_in_comments(content: dict[str, Any]) -> None:
    text = json.dumps(content)
    for raw in (b"UNICODE\0" + text.encode("utf-16-le"), b"UNICODE\0" + text.encode("utf-16-be"), b"ASCII\0\0\0" + text.encode(), text.encode()):
        assert prompts(with_comment("JPEG", raw)) == ("a fox", "blurry")
    assert prompts(jpeg(text.encode())) == ("a fox", "blurry")


def test_a_graph_of_some_millions_of_characters() -> None:
    large = graph(n50=node("Note", text="x" * 3_000_000))
    assert prompts(png({"prompt": json.dumps(large)})) == ("a castle", "blurry")


def test_numbers_that_are_none_and_line_breaks_inside_texts() -> None:
    text = json.dumps(graph(n6=node("CLIPTextEncode", text="a fox, nan: 1\nin snow"))).replace("\\n", "\n")
    for bad in ("nan", "-Infinity", "1e999", "9" * 5000, "007", "None", "."):
        found = read(png({"prompt": text.replace('"seed": 5', f'"seed": {bad}')}))
        assert found is not None
        assert found.prompt == "a fox, nan: 1\nin snow"
        assert "seed" not in found.parameters
    for number in ("many", "", "1e999", "nan"):
        found = read(png(EASY | {"seed": number}))
        assert found is not None
        assert (found.prompt, "seed" in found.parameters, found.parameters["steps"]) == ("a castle", False, 25)


def test_a_tool_that_cannot_be_read_does_not_hide_another() -> None:
    assert prompts(png({"parameters": '{"engine": "new"}', "prompt": json.dumps(graph())})) == ("a castle", "blurry")
    assert prompts(png({"Dream": "no quotes", "parameters": A1111}))[1] == "blurry"
    with pytest.raises(MetadataError, match="InvokeAI"):  # the first says why
        read(png({"Dream": "no quotes", "generation_data": "{}", "prompt": '{"1": {"class_type": "X"}}'}))


def test_utf_8_in_latin_1() -> None:
    text = "un phare rouge à la côte\nSteps: 20, Sampler: Euler a, Seed: 5, Version: stable-diffusion.cpp"
    for raw in (text.encode(), text.encode("latin-1")):
        assert prompts(png_of_bytes("parameters", raw))[0] == "un phare rouge à la côte"


def test_sidecars() -> None:
    found = read_sidecar(f"\ufeff{A1111}\r\n")
    assert found is not None
    assert (found.tool, found.prompt, found.negative_prompt) == ("AUTOMATIC1111", "a castle, <lora:x:0.8>, (stone:1.2)", "blurry")
    assert found.parameters["seed"] == 5
    for text in ("a castle", "type: photo, mood: good, light: soft", "two\nlines", "Seed: 3, Model: Canon, Size: 3x4", '{"prompt": "x"}'):
        plain = read_sidecar(f" {text}\n")
        assert plain == ImageMetadata(tool="sidecar", prompt=text)
    assert read_sidecar(" \n\0") is None


def test_the_name_of_the_file_tells_several_pictures() -> None:
    changes = {
        "n20": node("CLIPTextEncode", text="a fox"), "n22": node("KSampler", **graph()["3"]["inputs"] | {"positive": ["20", 0]}),
        "n23": node("VAEDecode", samples=["22", 0]), "n24": node("SaveImage", images=["23", 0], filename_prefix="second"),
    }  # fmt: skip
    content = png({"prompt": json.dumps(graph(**changes))})
    assert prompts(content, "folder/second_00001_.png")[0] == "a fox"
    assert prompts(content, "C:\\out\\x_00001_.png")[0] == "a castle"
    with pytest.raises(MetadataError, match="several pictures"):
        prompts(content)
