"""Ways through the nodes of ComfyUI's packs, from a sampler to the text of each side."""

from typing import Any

import pytest
from graphs import graph, node, sampler

from data.metadata.comfyui import read_graph
from data.metadata.comfyui_drawn import GraphError

RIGHT = ("a castle", "blurry")
BOTH = {"positive": ["6", 0], "negative": ["7", 0]}
LINKED = node("CLIPTextEncode", text=["20", 0], clip=["4", 1])
BASIC = node("ToBasicPipe", model=["4", 0], clip=["4", 1], vae=["4", 2], **BOTH)
PRESAMPLING = node("easy preSampling", pipe=["21", 0], steps=9, cfg=7, sampler_name="euler", seed=5)
EFFICIENT = node("Efficient Loader", ckpt_name="x", positive="a castle", negative="blurry", empty_latent_width=512)
EFFICIENT_SDXL = node("Eff. Loader SDXL", base_ckpt_name="x", positive="a castle", negative="blurry")


def texts(content: Any, workflow: Any = None) -> tuple[str, str]:
    found = read_graph(content, workflow)
    return found.prompt, found.negative_prompt


def through(positive: list[Any], negative: list[Any], **nodes: dict[str, Any]) -> dict[str, Any]:
    return graph(n3=sampler(positive=positive, negative=negative), **nodes)


@pytest.mark.parametrize(
    "content",
    [
        through(["c", 1], ["c", 2], nc=node("ApplyInstantID", model=["4", 0], weight=0.8, **BOTH)),
        through(["c", 1], ["c", 2], nc=node("ApplyInstantIDAdvanced", model=["4", 0], ip_weight=0.8, **BOTH)),
        through(["c", 0], ["c", 1], nc=node("ApplyInstantIDControlNet", strength=0.8, **BOTH)),
        through(["c", 1], ["c", 2], nc=node("BrushNet", model=["4", 0], scale=1, **BOTH)),
        through(["c", 1], ["c", 2], nc=node("PowerPaint", model=["4", 0], function="text guided", **BOTH)),
        through(["c", 1], ["c", 2], nc=node("EllaApply", model=["4", 0], **BOTH)),
        through(
            ["c", 1], ["c", 2], nc=node("EllaApply", positive=["t", 0], negative=["u", 0]),
            nt=node("T5TextEncode #ELLA", text="a castle"), nu=node("T5TextEncode #ELLA", text="blurry"),
        ),
        through(
            ["e", 0], ["f", 0], ne=node("EllaEncode", embeds=["t", 0]), nf=node("EllaEncode", embeds=["u", 0]),
            nt=node("T5TextEncode #ELLA", text="a castle"), nu=node("T5TextEncode #ELLA", text="blurry"),
        ),
        through(
            ["e", 0], ["f", 1], ne=node("EllaTextEncode", text="a castle", text_clip=""), nf=node("EllaTextEncode", text="x", text_clip="blurry"),
        ),
        through(["c", 4], ["c", 5], nc=node("Context (rgthree)", model=["4", 0], **BOTH)),
        through(["c", 4], ["c", 5], nc=node("Context Big (rgthree)", steps=20, **BOTH)),
        through(["d", 4], ["d", 5], nd=node("Context (rgthree)", base_ctx=["c", 0]), nc=node("Context (rgthree)", **BOTH)),
        through(  # its own inputs come before those of the context it is made from
            ["d", 4], ["d", 5], nd=node("Context (rgthree)", base_ctx=["c", 0], positive=["6", 0]),
            nc=node("Context (rgthree)", positive=["7", 0], negative=["7", 0]),
        ),
        through(
            ["d", 4], ["d", 5], nd=node("Context Switch (rgthree)", ctx_02=["c", 0], ctx_03=["e", 0]),
            nc=node("Context (rgthree)", **BOTH), ne=node("Context (rgthree)", positive=["7", 0], negative=["7", 0]),
        ),
        through(
            ["d", 4], ["d", 5], nd=node("Context Merge (rgthree)", ctx_01=["e", 0], ctx_02=["c", 0]),
            nc=node("Context (rgthree)", positive=["6", 0]), ne=node("Context (rgthree)", positive=["7", 0], negative=["7", 0]),
        ),
        through(["c", 1], ["c", 2], nc=EFFICIENT),
        through(
            ["c", 1], ["c", 2], nc=node("Efficient Loader", positive=["t", 0], negative="blurry"), nt=node("Text Multiline", text="a castle"),
        ),
        graph(n3=node("KSampler SDXL (Eff.)", sdxl_tuple=["c", 0], latent_image=["c", 1], steps=9, noise_seed=5), nc=EFFICIENT_SDXL),
        graph(
            n3=node("KSampler SDXL (Eff.)", sdxl_tuple=["c", 0], latent_image=["5", 0], steps=9, noise_seed=5),
            nc=node("Pack SDXL Tuple", base_positive=["6", 0], base_negative=["7", 0], refiner_positive=["7", 0], refiner_negative=["7", 0]),
        ),
        through(["c", 2], ["c", 3], nc=node("Unpack SDXL Tuple", sdxl_tuple=["d", 0]), nd=EFFICIENT_SDXL),
        through(["c", 0], ["c", 1], nc=node("Apply ControlNet Stack", **BOTH)),
        through(["c", 3], ["c", 4], nc=node("FromBasicPipe", basic_pipe=["d", 0]), nd=BASIC),
        through(["c", 4], ["c", 5], nc=node("FromBasicPipe_v2", basic_pipe=["d", 0]), nd=BASIC),
        through(
            ["c", 4], ["c", 5], nc=node("FromBasicPipe_v2", basic_pipe=["e", 0]), ne=node("EditBasicPipe", basic_pipe=["d", 0], positive=["6", 0]),
            nd=node("ToBasicPipe", positive=["7", 0], negative=["7", 0]),
        ),
        through(
            ["c", 4], ["c", 5], nc=node("FromDetailerPipe_v2", detailer_pipe=["e", 0]), ne=node("BasicPipeToDetailerPipe", basic_pipe=["d", 0]),
            nd=BASIC,
        ),
        graph(n3=node("ImpactKSamplerBasicPipe", basic_pipe=["d", 0], latent_image=["5", 0], steps=9, seed=5), nd=BASIC),
        graph(n3=node("KSamplerPipe //Inspire", basic_pipe=["d", 0], latent_image=["5", 0], steps=9, seed=5), nd=BASIC),
        graph(n3=node("KSampler //Inspire", latent_image=["5", 0], steps=9, seed=5, noise_mode="GPU(=A1111)", **BOTH)),
        graph(
            n3=node("easy kSampler", pipe=["20", 0], image_output="Preview"), n20=PRESAMPLING,
            n21=node("easy fullLoader", positive="a castle", negative="blurry"),
        ),
        graph(
            n3=node("easy fullkSampler", pipe=["21", 0], steps=9, image_output="Save"),
            n21=node("easy pipeIn", pipe=["22", 0], pos=["6", 0]), n22=node("easy a1111Loader", positive="x", negative="blurry"),
        ),
        through(["c", 0], ["c", 1], nc=node("ACN_AdvancedControlNetApply", **BOTH)),
        through(["c", 0], ["c", 1], nc=node("InpaintModelConditioning", **BOTH)),
        through(["c", 1], ["c", 2], nc=node("LayeredDiffusionCondApply", model=["4", 0], cond=["6", 0], uncond=["7", 0])),
        through(["c", 0], ["c", 1], nc=node("CR Apply Multi-ControlNet", base_positive=["6", 0], base_negative=["7", 0])),
        through(["c", 0], ["c", 1], nc=node("SeargeSDXLBasePromptEncoder", pos_g="a castle", pos_l="", neg_g="blurry", neg_l="blurry")),
        graph(
            n3=node("SeargeSDXLSampler", base_positive=["c", 0], base_negative=["c", 1], refiner_positive=["c", 2], latent_image=["5", 0], steps=9),
            nc=node("SeargeSDXLPromptEncoder", pos_g="a castle", pos_l="a castle", pos_r="a castle", neg_g="blurry", neg_l="", neg_r="x"),
        ),
        through(["c", 0], ["7", 0], nc=node("Power Prompt (rgthree)", prompt="a castle", insert_lora="CHOOSE")),
        through(["c", 0], ["d", 0], nc=node("ImpactSwitch", select=2, input1=["7", 0], input2=["6", 0]), nd=node("Reroute", x=["7", 0])),
        through(["c", 2], ["7", 0], nc=node("ImpactWildcardEncode", wildcard_text="a {x|y}", populated_text="a castle", mode="populate")),
        through(
            ["c", 1], ["c", 2], nc=node("Pipe from any [Crystools]", CPipeAny=["d", 0]),
            nd=node("Pipe to/edit any [Crystools]", CPipeAny=["e", 0], any_1=["6", 0]),
            ne=node("Pipe to/edit any [Crystools]", any_1=["7", 0], any_2=["7", 0]),
        ),
        through(["c", 0], ["7", 0], nc=node("ConditioningSetMask", conditioning=["6", 0], mask=["1", 0], strength=1)),
        through(["c", 0], ["7", 0], nc=node("ConditioningMultiCombine", conditioning_1=["6", 0], conditioning_2=["6", 0], inputcount=2)),
        through(["c", 0], ["7", 0], nc=node("PromptManager", text="a castle", clip=["4", 1])),
    ],
)  # fmt: skip
def test_which_output_carries_which_side(content: dict[str, Any]) -> None:
    assert texts(content) == RIGHT


UNKNOWN = through(["c", 2], ["c", 1], nc=node("ApplySomethingNew", model=["4", 0], **BOTH))


def test_the_workflow_of_the_same_file_names_the_outputs_of_a_node_that_is_not_known() -> None:
    outputs = [{"name": name} for name in ("MODEL", "negative", "positive")]
    workflow = {"nodes": [{"id": "c", "type": "ApplySomethingNew", "outputs": outputs}]}
    assert texts(UNKNOWN, workflow) == RIGHT
    with pytest.raises(GraphError, match="cannot be told by which outputs"):
        texts(UNKNOWN)
    for names in (["MODEL", "CONDITIONING", "CONDITIONING"], [], ["MODEL"]):
        with pytest.raises(GraphError, match="cannot be told by which outputs"):
            texts(UNKNOWN, {"nodes": [{"id": "c", "outputs": [{"name": name} for name in names]}]})


def test_a_node_inside_a_subgraph_is_named_by_its_definition() -> None:
    changes = {"c:8": UNKNOWN["c"], "3": sampler(positive=["c:8", 2], negative=["c:8", 1])}
    inner = {"id": 8, "type": "ApplySomethingNew", "outputs": [{"name": name} for name in ("MODEL", "negative", "positive")]}
    workflow = {"nodes": [{"id": "c", "type": "some-id"}], "definitions": {"subgraphs": [{"id": "some-id", "nodes": [inner]}]}}
    assert texts(graph() | changes, workflow) == RIGHT


def test_an_encoder_that_is_not_known_may_add_to_its_text() -> None:
    content = through(["c", 0], ["7", 0], nc=node("StyledEncoder", positive=["t", 0], style="anime"), nt=node("Text Multiline", text="a castle"))
    with pytest.raises(GraphError, match="'StyledEncoder', which is not known"):
        texts(content, {"nodes": [{"id": "c", "outputs": [{"name": "positive"}]}]})
    content = through(["c", 0], ["7", 0], nc=node("AddWords", conditioning=["6", 0], text="in snow"))
    with pytest.raises(GraphError, match="'AddWords' adds a text"):
        texts(content)


def shown(values: Any, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    nodes = {"n6": LINKED, "n20": node("ShowText|pysssss", text=["21", 0]), "n21": node("OllamaGenerate", prompt="write")}
    content = graph(**nodes | changes)
    return content, {"nodes": [{"id": 20, "type": "ShowText|pysssss", "widgets_values": values}]}


@pytest.mark.parametrize("values", [["a castle"], [["a castle"]], "a castle"])
def test_what_a_language_model_wrote_is_read_where_a_node_showed_it(values: Any) -> None:
    assert texts(*shown(values)) == RIGHT
    content, workflow = shown(values, n6=node("CLIPTextEncode", text=["21", 0]))  # shown beside
    assert texts(content, workflow) == RIGHT
    content, workflow = shown(values, n6=node("CLIPTextEncode", text=["22", 0]), n22=node("Text Concatenate", text_a=["20", 0], delimiter=", "))
    assert texts(content, workflow) == RIGHT


@pytest.mark.parametrize("values", [[], [""], None, [3], ["one", "two"]])
def test_what_was_not_shown_stays_named(values: Any) -> None:
    with pytest.raises(GraphError, match="'OllamaGenerate', which is not known"):
        texts(*shown(values))
    content, workflow = shown(["x"], n20=node("PreviewAny", source=["21", 0]))  # which does not write into the workflow what it shows
    with pytest.raises(GraphError, match="'OllamaGenerate'"):
        texts(content, workflow)
    content, _ = shown(values)
    content["20"]["inputs"]["text_0"] = "what it showed the time before"
    with pytest.raises(GraphError, match="'OllamaGenerate'"):
        texts(content)


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ({"n20": node("Text Concatenate", text_a="a", text_b="b", delimiter="\\n", clean_whitespace="true")}, "a\nb"),
        ({"n20": node("Text Concatenate", text_a="a", text_b="b", delimiter="\n")}, "a\nb"),
        ({"n20": node("Text Concatenate", text_a="a", text_b="b", linebreak_addition="true")}, "a\nb"),
        ({"n20": node("Text Concatenate", text_a="a", text_b="b", linebreak_addition="false")}, "ab"),
        ({"n20": node("Text Concatenate", text_a=" a ", text_b="", text_c="c", delimiter=", ", clean_whitespace="true")}, "a, c"),
        ({"n20": node("Text Concatenate", text_b="b", text_a="a", delimiter=["21", 0]), "n21": node("Text String", text=" + ")}, "a + b"),
        ({"n20": node("Text String", text="a")}, "a"),
        ({"n20": node("Text Multiline", text="# note\na\n#b\nc")}, "a\nc"),
        ({"n20": node("StringConcatenate", string_a="a", string_b="b", delimiter="; ")}, "a; b"),
        ({"n20": node("JoinStringMulti", string_1="a", string_2="b", string_3="c", delimiter=" ", inputcount=3)}, "a b c"),
        ({"n20": node("CR Text Concatenate", text1="a", text2="b", separator=", ")}, "a, b"),
        ({"n20": node("Text Concatenate (JPS)", text1="a", text2="b", delimiter="comma")}, "a, b"),
        ({"n20": node("SeargePromptCombiner", prompt1=["21", 0], prompt2="b", separator=", "), "n21": node("SeargePromptText", prompt="a")}, "a, b"),
        ({"n20": node("Primitive string multiline [Crystools]", string="a\nb")}, "a\nb"),
        ({"n20": node("List string [Crystools]", string_1="a", string_2="b", delimiter=", ")}, "a, b"),
        ({"n20": node("Switch string [Crystools]", on_true="a", on_false="b", boolean=True)}, "a"),
        (
            {"n20": node("Switch any [Crystools]", on_true="a", on_false=["21", 0], boolean=["22", 0]), "n21": node("Text Multiline", text="b"),
             "n22": node("Primitive boolean [Crystools]", boolean=False)},
            "b",
        ),
        ({"n20": node("ImpactSwitch", select=["22", 0], input1="a", input2="b"), "n22": node("ImpactInt", value=2)}, "b"),
        ({"n20": node("CR Text Input Switch", Input=1, text1="a", text2="b")}, "a"),
        ({"n20": node("Text Input Switch", boolean="false", text_a="a", text_b="b")}, "b"),
        ({"n20": node("Any Switch (rgthree)", any_02=["21", 0], any_03="c"), "n21": node("Text Multiline", text="b")}, "b"),
        ({"n20": node("ComfySwitchNode", switch=True, on_true="a", on_false="b")}, "a"),
        ({"n20": node("easy anythingIndexSwitch", index=0, value0="a", value1="b")}, "a"),
        ({"n20": node("ImpactWildcardProcessor", wildcard_text="a {x|y}", populated_text="a x", mode="populate")}, "a x"),
        ({"n20": node("ImpactWildcardProcessor", wildcard_text="no choice", populated_text="", mode="populate")}, "no choice"),
        ({"n20": node("ImpactWildcardEncode", wildcard_text="__x__", populated_text="a x", mode="fixed")}, "a x"),
        ({"n20": node("DPRandomGenerator", text="nothing to draw")}, "nothing to draw"),
        ({"n20": node("Text Find and Replace", text="a cat", find="cat", replace="dog")}, "a dog"),
        ({"n20": node("StringFunction|pysssss", action="append", tidy_tags="yes", text_a="a", text_b="b ,", text_c="")}, "a, b,"),
        ({"n20": node("StringFunction|pysssss", action="replace", tidy_tags="no", text_a="a cat", text_b="cat", text_c="dog")}, "a dog"),
        ({"n20": node("ShowText|pysssss", text=["21", 0]), "n21": node("PrimitiveStringMultiline", value="a")}, "a"),
        ({"n20": node("PreviewAny", source=["21", 0]), "n21": node("String Literal", string="a")}, "a"),
        ({"n6": node("CLIPTextEncode", text=["20", 3]), "n20": node("Power Prompt (rgthree)", prompt="a")}, "a"),
        (
            {"n6": node("CLIPTextEncode", text=["20", 17]), "n20": node("Context Big (rgthree)", text_pos_g=["21", 0]),
             "n21": node("Text Multiline", text="a")},
            "a",
        ),
        (
            {"n6": node("CLIPTextEncode", text=["20", 2]), "n20": node("Pipe from any [Crystools]", CPipeAny=["21", 0]),
             "n21": node("Pipe to/edit any [Crystools]", any_2=["22", 0]), "n22": node("Text Multiline", text="a")},
            "a",
        ),
        ({"n20": node("PromptManagerText", text="a", prepend_text="", append_text="")}, "a"),
        ({"n6": node("T5TextEncode", text="a")}, "a"),
        (
            {"n6": node("GLIGENTextBoxApply", text="a FOX", conditioning_to=["20", 0]), "n20": node("CLIPTextEncode", text="snow; a fox")},
            "snow; a fox",
        ),
        ({"n6": node("GLIGENTextBoxApply", text="a fox", conditioning_to=["20", 0]), "n20": node("CLIPTextEncode", text="snow")}, "snow, a fox"),
        (
            {"n6": node("GLIGENTextBoxApply", text="sun", conditioning_to=["20", 0]), "n21": node("CLIPTextEncode", text="snow"),
             "n20": node("GLIGENTextBoxApply", text="a fox", conditioning_to=["21", 0])},
            "snow, a fox, sun",
        ),
    ],
)  # fmt: skip
def test_strings_switches_and_boxes(nodes: dict[str, Any], text: str) -> None:
    assert texts(graph(**{"n6": LINKED} | nodes))[0] == text


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"n20": node("ImpactWildcardProcessor", wildcard_text="a {x|y}", populated_text="")}, "drawn at random"),
        ({"n20": node("ImpactWildcardProcessor", wildcard_text="__animal__")}, "drawn at random"),
        ({"n20": node("DPRandomGenerator", text="__animal__ in snow")}, "drawn at random"),
        ({"n20": node("ImpactSwitch", select=["22", 0], input1="a", input2="b"), "n22": node("RandomInt", min=1)}, "which of its inputs"),
        ({"n20": node("ImpactSwitch", select=3, input1="a")}, "nothing goes into"),
        ({"n20": node("ImpactSwitch", select=0, input1="a")}, "which of its inputs"),
        ({"n20": node("Any Switch (rgthree)")}, "nothing goes into"),
        ({"n20": node("Text Find and Replace", text="a cat", find="c.t", replace="dog")}, "by a pattern"),
        ({"n20": node("PromptManagerText", text="a", prepend_text="b")}, "adds to its text"),
        ({"n20": node("SDXLPromptStyler", text_positive="a", style="anime")}, "not known"),
        ({"n20": node("Reroute", x=["21", 0]), "n21": node("Reroute", x=["20", 0])}, "circle"),
        ({"n6": node("ImpactSwitch", select=1, input1=["20", 0]), "n20": node("ImpactSwitch", select=1, input1=["6", 0])}, "circle"),
        ({"n6": node("Context (rgthree)", base_ctx=["20", 0]), "n20": node("Mystery", positive=["7", 0])}, "not known"),
        ({"n3": node("easy kSampler", pipe=["20", 0]), "n20": node("easy fullLoader", positive="a __x__", negative="")}, "drawn at random"),
        ({"n3": sampler(positive=["20", 1]), "n20": node("Efficient Loader", ckpt_name="x")}, "has no text"),
    ],
)
def test_what_cannot_be_told_is_named(nodes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        texts(graph(**{"n6": LINKED} | nodes))


def guided(kind: str, **inputs: Any) -> dict[str, Any]:
    return graph(
        n3=node("SamplerCustomAdvanced", guider=["g", 0], noise=["n", 0], latent_image=["5", 0], sigmas=["s", 0]),
        ng=node(kind, model=["4", 0], **inputs), nn=node("RandomNoise", noise_seed=3), ns=node("BasicScheduler", steps=9),
        n8=node("VAEDecode", samples=["3", 0]), ne=node("CLIPTextEncode", text=""), nz=node("ConditioningZeroOut", conditioning=["6", 0]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "negative"),
    [
        (guided("DualCFGGuider", cond1=["6", 0], cond2=["7", 0], negative=["7", 0]), "blurry"),
        (guided("DualCFGGuider", cond1=["6", 0], cond2=["7", 0], negative=["e", 0]), "blurry"),
        (guided("DualCFGGuider", cond1=["6", 0], cond2=["z", 0], negative=["7", 0]), "blurry"),
        (guided("DualCFGGuider", cond1=["6", 0], cond2=["6", 0], negative=["7", 0]), "blurry"),
        (guided("CFGGuider", positive=["6", 0], negative=["7", 0], cfg=4), "blurry"),
        (guided("PerpNegGuider", positive=["6", 0], negative=["7", 0], empty_conditioning=["e", 0]), "blurry"),
        (guided("BasicGuider", conditioning=["6", 0]), ""),
    ],
)
def test_guiders(content: dict[str, Any], negative: str) -> None:
    assert texts(content) == ("a castle", negative)


def test_guiders_that_cannot_be_told() -> None:
    with pytest.raises(GraphError, match="three texts"):
        texts(guided("DualCFGGuider", cond1=["6", 0], cond2=["x", 0], negative=["7", 0]) | {"x": node("CLIPTextEncode", text="a photo")})
    with pytest.raises(GraphError, match="a guider 'SomeGuider', which is not known"):
        texts(guided("SomeGuider", words="x"))


@pytest.mark.parametrize("own", [["z", 0], ["6", 0], ["e", 0]])
def test_the_stages_of_stable_cascade(own: list[Any]) -> None:
    content = graph(
        n8=node("VAEDecode", samples=["b", 0]), nb=sampler(positive=["s", 0], negative=["z", 0], latent_image=["5", 1], seed=8),
        ns=node("StableCascade_StageB_Conditioning", conditioning=own, stage_c=["3", 0]),
        nz=node("ConditioningZeroOut", conditioning=["6", 0]), ne=node("CLIPTextEncode", text=""),
    )  # fmt: skip
    found = read_graph(content)
    assert (found.prompt, found.negative_prompt, found.parameters["seed"]) == ("a castle", "blurry", 5)
    other = content | {"s": node("StableCascade_StageB_Conditioning", conditioning=["7", 0], stage_c=["3", 0])}
    with pytest.raises(GraphError, match="different prompts"):
        read_graph(other)


def test_a_second_pass_without_a_text_says_nothing() -> None:
    second = sampler(positive=["e", 0], negative=["e", 0], latent_image=["3", 0], denoise=0.3)
    assert texts(graph(n8=node("VAEDecode", samples=["b", 0]), nb=second, ne=node("CLIPTextEncode", text=""))) == RIGHT
    efficient = node("KSampler (Efficient)", steps=9, positive=["6", 0], negative=["7", 0], latent_image=["5", 0])
    second = node("KSampler (Efficient)", steps=9, positive=["a", 1], negative=["a", 2], latent_image=["a", 3])
    assert texts({"a": efficient, "b": second, "9": node("SaveImage", images=["b", 5])} | {k: graph()[k] for k in "567"}) == RIGHT


def test_entries_that_are_no_nodes_and_numbers_that_are_none() -> None:
    strange: dict[str, Any] = {
        "extra": {"airs": ["x"]},
        "extraMetadata": "{}",
        "version": 3,
        "list": [],
        "10": {"class_type": "Broken", "inputs": None},
    }
    content = graph(n3=sampler(seed="many", steps=None, cfg=float("nan"), sampler_name=7), n11={"inputs": {}}) | strange
    found = read_graph(content)
    assert (found.prompt, found.negative_prompt) == RIGHT
    assert found.parameters == {"model": "sd.safetensors"}
    linked = read_graph(graph(n3=sampler(seed=["s", 0]), ns=node("Seed (rgthree)", seed=77)))
    assert linked.parameters["seed"] == 77
