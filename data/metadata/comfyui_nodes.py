"""What is known of ComfyUI's nodes and those of its node packs: which hold a text, which hand one on, and by which output.

A node that is in none of these tables is not followed: its name is what the reader says.
"""

from __future__ import annotations

from typing import NamedTuple

# text encoders, with the inputs that hold text
TEXT_ENCODERS: dict[str, tuple[str, ...]] = {
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": ("text_g", "text_l"),
    "CLIPTextEncodeSDXLRefiner": ("text",),
    "CLIPTextEncodeSD3": ("clip_g", "clip_l", "t5xxl"),
    "CLIPTextEncodeFlux": ("t5xxl", "clip_l"),
    "CLIPTextEncodeHunyuanDiT": ("bert", "mt5xl"),
    "CLIPTextEncodePixArtAlpha": ("text",),
    "CLIPTextEncodeLumina2": ("user_prompt",),
    "CLIPTextEncodeHiDream": ("clip_g", "clip_l", "t5xxl", "llama"),
    "CLIPTextEncodeControlnet": ("text",),
    "TextEncodeHunyuanVideo_ImageToVideo": ("prompt",),
    "TextEncodeQwenImageEdit": ("prompt",),
    "TextEncodeQwenImageEditPlus": ("prompt",),
    "CLIPTextEncode (BlenderNeko Advanced + NSP)": ("text",),
    "CLIPTextEncode (NSP)": ("text",),
    "BNK_CLIPTextEncodeAdvanced": ("text",),
    "BNK_CLIPTextEncodeSDXLAdvanced": ("text_g", "text_l"),
    "AdvancedCLIPTextEncode": ("text",),
    "AdvancedCLIPTextEncodeWithBreak": ("text",),
    "CLIPTextEncodeA1111": ("text",),
    "smZ CLIPTextEncode": ("text",),
    "PromptControlSimple": ("prompt",),
    "PCLazyTextEncode": ("text",),
    "PCLazyTextEncodeAdvanced": ("text",),
    "PCTextEncode": ("text",),
    "Text to Conditioning": ("text",),
    "T5TextEncode": ("text",),
    "T5TextEncode #ELLA": ("text",),
    "PixArtT5TextEncode": ("text",),
    "HYDiTTextEncode": ("text", "text_t5"),
    "HYDiTTextEncodeSimple": ("text",),
    "KolorsTextEncode": ("prompt",),
    "MZ_ChatGLM3_V2": ("text",),
    "MZ_ChatGLM3": ("text",),
    "Power Prompt (rgthree)": ("prompt",),
    "Power Prompt - Simple (rgthree)": ("prompt",),
    "SDXL Power Prompt - Positive (rgthree)": ("prompt_g", "prompt_l"),
    "SDXL Power Prompt - Simple / Negative (rgthree)": ("prompt_g", "prompt_l"),
    "PromptManager": ("text",),
    "Prompt (LoraManager)": ("text",),
}
# several conditionings from one node: which inputs hold the text of which output
TWO_SIDED: dict[str, dict[int, tuple[str, ...]]] = {
    "SeargeSDXLPromptEncoder": {0: ("pos_g", "pos_l"), 1: ("neg_g", "neg_l"), 2: ("pos_r",), 3: ("neg_r",)},
    "SeargeSDXLBasePromptEncoder": {0: ("pos_g", "pos_l"), 1: ("neg_g", "neg_l")},
    "SeargeSDXLRefinerPromptEncoder": {0: ("pos_r",), 1: ("neg_r",)},
    "EllaTextEncode": {0: ("text", "text_clip"), 1: ("text_clip",)},
    "Efficient Loader": {1: ("positive",), 2: ("negative",)},
}
# nodes that give a string, with the inputs it is made of, in order
STRINGS: dict[str, tuple[str, ...]] = {
    "PrimitiveNode": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "StringConstant": ("string",),
    "StringConstantMultiline": ("string",),
    "String Literal": ("string",),
    "String Literal (Image Saver)": ("string",),
    "Simple String": ("string",),
    "SimpleText": ("text",),
    "JjkText": ("text",),
    "Text": ("text",),
    "Text box": ("text",),
    "TextBox": ("text",),
    "Textbox": ("text",),
    "Text Box": ("text",),
    "Text Multiline": ("text",),
    "Text Multiline (Code Compatible)": ("text",),
    "Text String": ("text",),
    "Text _O": ("text",),
    "TextInput_": ("text",),
    "Text Prompt (JPS)": ("text",),
    "PromptManagerText": ("text",),
    "CR Text": ("text",),
    "CR Prompt Text": ("prompt",),
    "easy positive": ("positive",),
    "easy negative": ("negative",),
    "easy string": ("value",),
    "String": ("String",),
    "DF_Text": ("Text",),
    "DF_Text_Box": ("Text",),
    "DF_String_Concatenate": ("Prepend", "Append"),
    "ttN text": ("text",),
    "ttN textDebug": ("text",),
    "SeargePromptText": ("prompt",),
    "SeargePromptCombiner": ("prompt1", "prompt2"),
    "Primitive string [Crystools]": ("string",),
    "Primitive string multiline [Crystools]": ("string",),
    "List string [Crystools]": tuple(f"string_{number}" for number in range(1, 9)),
    "DPRandomGenerator": ("text",),
    "DPCombinatorialGenerator": ("text",),
    "Text Concatenate": tuple(f"text_{letter}" for letter in "abcdefghij"),
    "Text Concatenate (JPS)": tuple(f"text{number}" for number in range(1, 6)),
    "Concat Text _O": ("text1", "text2"),
    "StringConcatenate": ("string_a", "string_b"),
    "String Concatenate": ("string_a", "string_b"),
    "JoinStrings": ("string1", "string2"),
    "JoinStringMulti": tuple(f"string_{number}" for number in range(1, 51)),
    "CR Text Concatenate": ("text1", "text2"),
    "Text to String": ("text",),
    "WildcardText": ("text",),
    "LayerUtility: TextBox": ("text",),
}
# what stands between the parts where the node does not say
DELIMITERS: dict[str, str] = {"SeargePromptCombiner": ", ", "JoinStrings": " ", "JoinStringMulti": " "}
DELIMITER_INPUTS = ("delimiter", "separator", "Delimiter")
WORDED_DELIMITERS: dict[str, dict[str, str]] = {"Text Concatenate (JPS)": {"none": "", "space": " ", "comma": ", "}}
# their text is a template; what was drawn from it is not stored
DRAWN_AT_RANDOM = {"DPRandomGenerator", "DPCombinatorialGenerator", "CLIPTextEncode (NSP)", "CLIPTextEncode (BlenderNeko Advanced + NSP)"}
DRAWN_AT_RANDOM |= {"WildcardText"}
# inputs that change the text in a way that is not known, where they hold something
BESIDE: dict[str, tuple[str, ...]] = {
    "PromptManager": ("prepend_text", "append_text"),
    "PromptManagerText": ("prepend_text", "append_text"),
    "Prompt (LoraManager)": ("trigger_words",),
}
# templates, whose text as it was drawn stands in another input
POPULATED: dict[str, tuple[str, str]] = {
    "ImpactWildcardProcessor": ("populated_text", "wildcard_text"),
    "ImpactWildcardEncode": ("populated_text", "wildcard_text"),
    "WildcardEncode //Inspire": ("populated_text", "wildcard_text"),
    "easy wildcards": ("populated_text", "text"),
}
# nodes that show a text and hand it on
SHOWN: dict[str, str] = {
    "ShowText|pysssss": "text",
    "Show Text 🐍": "text",
    "easy showAnything": "anything",
    "PreviewAny": "source",
    "DisplayText": "text",
    "Display Any (rgthree)": "source",
    "DisplayAny": "input",
    "DF_DisplayText": "text",
    "Text to Console": "text",
    "ttN textShow": "text",
    "ShowTextForGPT": "text",
}
# those of them that write what they showed into the workflow of the file; with the others it may be from the time before
KEPT = {"ShowText|pysssss", "easy showAnything"}
# a text in which another is replaced: text, what, with what
REPLACED: dict[str, tuple[str, str, str]] = {
    "Text Find and Replace": ("text", "find", "replace"),
    "StringReplace": ("string", "find", "replace"),
}
# loaders that draw from wildcards in the texts they hold
WILDCARD_LOADERS = {"easy fullLoader", "easy a1111Loader", "easy comfyLoader", "easy fluxLoader"}


class Switch(NamedTuple):
    """One of several inputs goes on: `by` says which. `names` are the inputs, in order from `first`; for True and False, true comes first."""

    by: str
    names: tuple[str, ...]
    first: int = 1


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}{number}" for number in range(1, count + 1))


_EITHER = ("on_true", "on_false")
SWITCHES: dict[str, Switch] = {
    "ImpactSwitch": Switch("select", _numbered("input", 99)),
    "LatentSwitch": Switch("select", _numbered("input", 99)),
    "SEGSSwitch": Switch("select", _numbered("input", 99)),
    "ImpactConditionalBranch": Switch("cond", ("tt_value", "ff_value")),
    "CR Text Input Switch": Switch("Input", _numbered("text", 2)),
    "CR Text Input Switch (4 way)": Switch("Input", _numbered("text", 4)),
    "CR Conditioning Input Switch": Switch("Input", _numbered("conditioning", 2)),
    "CR Image Input Switch": Switch("Input", _numbered("image", 2)),
    "CR Image Input Switch (4 way)": Switch("Input", _numbered("image", 4)),
    "CR Latent Input Switch": Switch("Input", _numbered("latent", 2)),
    "CR Model Input Switch": Switch("Input", _numbered("model", 2)),
    "CR Pipe Switch": Switch("Input", _numbered("pipe", 2)),
    "Conditioning Input Switch": Switch("boolean", ("conditioning_a", "conditioning_b")),
    "Text Input Switch": Switch("boolean", ("text_a", "text_b")),
    "Image Input Switch": Switch("boolean", ("image_a", "image_b")),
    "Latent Input Switch": Switch("boolean", ("latent_a", "latent_b")),
    "Model Input Switch": Switch("boolean", ("model_a", "model_b")),
    "ComfySwitchNode": Switch("switch", _EITHER),
    "LazySwitchKJ": Switch("switch", _EITHER),
    "easy ifElse": Switch("boolean", _EITHER),
    "easy anythingIndexSwitch": Switch("index", tuple(f"value{number}" for number in range(20)), first=0),
    "easy conditioningIndexSwitch": Switch("index", tuple(f"cond{number}" for number in range(20)), first=0),
    "easy textIndexSwitch": Switch("index", tuple(f"text{number}" for number in range(20)), first=0),
    "easy imageIndexSwitch": Switch("index", tuple(f"image{number}" for number in range(20)), first=0),
    "easy textSwitch": Switch("input", _numbered("text", 2)),
    "TextSwitch": Switch("input", _numbered("text", 2)),
}
SWITCHES |= {f"Switch {kind} [Crystools]": Switch("boolean", _EITHER) for kind in ("any", "string", "conditioning", "image", "latent", "mask")}
# the first input that something goes into
FIRST_OF: dict[str, tuple[str, ...]] = {
    "Any Switch (rgthree)": tuple(f"any_{number:02}" for number in range(1, 41)),
}
# nodes that give a number or a truth, and the input that holds it
SCALARS: dict[str, str] = {
    "PrimitiveNode": "value",
    "PrimitiveInt": "value",
    "PrimitiveFloat": "value",
    "PrimitiveBoolean": "value",
    "ImpactInt": "value",
    "ImpactFloat": "value",
    "ImpactBoolean": "value",
    "INTConstant": "value",
    "BOOLConstant": "value",
    "FloatConstant": "value",
    "easy int": "value",
    "easy float": "value",
    "easy boolean": "value",
    "Primitive integer [Crystools]": "int",
    "Primitive float [Crystools]": "float",
    "Primitive boolean [Crystools]": "boolean",
    "Logic Boolean": "boolean",
    "Constant Number": "number",
    "CR Integer": "value",
    "Int Literal": "int",
    "Int Literal (Image Saver)": "int",
    "Seed (rgthree)": "seed",
    "Seed Everywhere": "seed",
    "easy seed": "seed",
    "Seed": "seed",
    "CR Seed": "seed",
}

_PIPE = ("pipe", "model", "positive", "negative", "latent", "vae", "clip", "image", "seed")
_CONTEXT = ("context", "model", "clip", "vae", "positive", "negative", "latent", "images", "seed")
_CONTEXT_BIG = (
    *_CONTEXT, "steps", "step_refiner", "cfg", "ckpt_name", "sampler", "scheduler", "clip_width", "clip_height",
    "text_pos_g", "text_pos_l", "text_neg_g", "text_neg_l", "mask", "control_net",
)  # fmt: skip
_BASIC = ("model", "clip", "vae", "positive", "negative")
_THREE = ("model", "positive", "negative")
_BOTH = ("positive", "negative")
# what the outputs of a node are that hands both sides on, or takes them from a bundle
OUTPUTS: dict[str, tuple[str, ...]] = {
    "ApplyInstantID": _THREE,
    "ApplyInstantIDAdvanced": _THREE,
    "ApplyInstantIDControlNet": _BOTH,
    "BrushNet": (*_THREE, "latent"),
    "PowerPaint": (*_THREE, "latent"),
    "EllaApply": _THREE,
    "KSampler (Efficient)": (*_THREE, "latent", "vae", "image"),
    "KSampler Adv. (Efficient)": (*_THREE, "latent", "vae", "image"),
    "KSampler SDXL (Eff.)": ("sdxl_tuple", "latent", "vae", "image"),
    "Unpack SDXL Tuple": ("base_model", "base_clip", *_BOTH, "refiner_model", "refiner_clip", "refiner_positive", "refiner_negative"),
    "Apply ControlNet Stack": _BOTH,
    "Context (rgthree)": _CONTEXT,
    "Context Switch (rgthree)": _CONTEXT,
    "Context Merge (rgthree)": _CONTEXT,
    "Context Big (rgthree)": _CONTEXT_BIG,
    "Context Switch Big (rgthree)": _CONTEXT_BIG,
    "Context Merge Big (rgthree)": _CONTEXT_BIG,
    "FromBasicPipe": _BASIC,
    "FromBasicPipe_v2": ("basic_pipe", *_BASIC),
    "FromDetailerPipe": _BASIC,
    "FromDetailerPipe_v2": ("detailer_pipe", *_BASIC),
    "FromDetailerPipeSDXL": ("detailer_pipe", *_BASIC),
    "Pipe from any [Crystools]": ("CPipeAny", *(f"any_{number}" for number in range(1, 31))),
    "easy pipeOut": _PIPE,
    "ttN pipeOUT": ("model", *_BOTH, "latent", "vae", "clip", "image", "seed", "pipe"),
    "ttN pipe2BASIC": ("basic_pipe", "pipe"),
    "easy fullLoader": ("pipe", "model", "vae", "clip", *_BOTH, "latent"),
    "easy fullkSampler": ("pipe", "image", "model", *_BOTH, "latent", "vae", "clip", "seed"),
    "ControlNetApplyAdvanced": _BOTH,
    "ControlNetApplySD3": _BOTH,
    "ControlNetInpaintingAliMamaApply": _BOTH,
    "ACN_AdvancedControlNetApply": (*_BOTH, "model_opt"),
    "ACN_AdvancedControlNetApply_v2": _BOTH,
    "CR Apply Multi-ControlNet": _BOTH,
    "InpaintModelConditioning": (*_BOTH, "latent"),
    "INPAINT_VAEEncodeInpaintConditioning": (*_BOTH, "latent_inpaint", "latent_samples"),
    "InstructPixToPixConditioning": (*_BOTH, "latent"),
    "ICLightConditioning": (*_BOTH, "latent"),
    "LayeredDiffusionCondApply": ("model", *_BOTH),
    "LTXVConditioning": _BOTH,
    "LTXVImgToVideo": (*_BOTH, "latent"),
    "WanImageToVideo": (*_BOTH, "latent"),
    "WanFirstLastFrameToVideo": (*_BOTH, "latent"),
    "WanFunControlToVideo": (*_BOTH, "latent"),
    "WanVaceToVideo": (*_BOTH, "latent", "trim_latent"),
    "Wan22FunControlToVideo": (*_BOTH, "latent"),
    "PairConditioningSetProperties": _BOTH,
    "PairConditioningSetPropertiesAndCombine": _BOTH,
}
# under which inputs a node keeps one side
SIDES = {
    "positive": ("positive", "pos", "base_positive", "base_pos", "positive_opt", "cond", "optional_positive", "text_positive"),
    "negative": ("negative", "neg", "base_negative", "base_neg", "negative_opt", "uncond", "optional_negative", "text_negative"),
    "refiner_positive": ("refiner_positive",),
    "refiner_negative": ("refiner_negative",),
}
# nodes that bundle model, both sides and more, with the bundle that they add to, if any; their own inputs come first
BUNDLES: dict[str, tuple[str, ...]] = {
    "ToBasicPipe": (),
    "ToBasicPipe_v2": (),
    "ToDetailerPipe": (),
    "ToDetailerPipeSDXL": (),
    "EditBasicPipe": ("basic_pipe",),
    "EditDetailerPipe": ("detailer_pipe",),
    "FromBasicPipe": ("basic_pipe",),
    "FromBasicPipe_v2": ("basic_pipe",),
    "FromDetailerPipe": ("detailer_pipe",),
    "FromDetailerPipe_v2": ("detailer_pipe",),
    "FromDetailerPipeSDXL": ("detailer_pipe",),
    "BasicPipeToDetailerPipe": ("basic_pipe",),
    "DetailerPipeToBasicPipe": ("detailer_pipe",),
    "ImpactKSamplerBasicPipe": ("basic_pipe",),
    "ImpactKSamplerAdvancedBasicPipe": ("basic_pipe",),
    "KSamplerPipe //Inspire": ("basic_pipe",),
    "KSamplerAdvancedPipe //Inspire": ("basic_pipe",),
    "Context (rgthree)": ("base_ctx",),
    "Context Big (rgthree)": ("base_ctx",),
    "Context Switch (rgthree)": tuple(f"ctx_{number:02}" for number in range(1, 41)),
    "Context Switch Big (rgthree)": tuple(f"ctx_{number:02}" for number in range(1, 41)),
    "Context Merge (rgthree)": ("ctx_05", "ctx_04", "ctx_03", "ctx_02", "ctx_01"),
    "Context Merge Big (rgthree)": ("ctx_05", "ctx_04", "ctx_03", "ctx_02", "ctx_01"),
    "Pack SDXL Tuple": (),
    "Unpack SDXL Tuple": ("sdxl_tuple",),
    "Eff. Loader SDXL": (),
    "KSampler SDXL (Eff.)": ("sdxl_tuple",),
    "Pipe to/edit any [Crystools]": ("CPipeAny",),
    "Pipe from any [Crystools]": ("CPipeAny",),
    "easy pipeIn": ("pipe",),
    "easy pipeOut": ("pipe",),
    "easy fullLoader": (),
    "easy a1111Loader": (),
    "easy comfyLoader": (),
    "easy fluxLoader": (),
    "easy preSampling": ("pipe",),
    "easy preSamplingAdvanced": ("pipe",),
    "easy preSamplingDynamicCFG": ("pipe",),
    "easy preSamplingNoiseIn": ("pipe",),
    "easy kSampler": ("pipe",),
    "easy kSamplerTiled": ("pipe",),
    "easy fullkSampler": ("pipe",),
    "ttN pipeLoader": (),
    "ttN pipeLoader_v2": (),
    "ttN pipeLoaderSDXL_v2": (),
    "ttN tinyLoader": (),
    "ttN pipeKSampler": ("pipe",),
    "ttN pipeKSampler_v2": ("pipe",),
    "ttN pipeKSamplerAdvanced": ("pipe",),
    "ttN pipeKSamplerAdvanced_v2": ("pipe",),
    "ttN pipeOUT": ("pipe",),
    "ttN pipeIN": ("pipe",),
    "ttN pipe2BASIC": ("pipe",),
}
FIRST_BUNDLE = {"Context Switch (rgthree)", "Context Switch Big (rgthree)"}  # only the first of their bundles that there is
# of these the bundle is all that a sampler has
BUNDLE_SAMPLERS = {name for name in BUNDLES if "Sampler" in name and "preSampling" not in name}
# handed on as it came in, or several joined
CONDITIONINGS: tuple[str, ...] = ("conditioning", "conditioning_to", "conditioning_from", "cond1", "cond2", "cond", "embeds", "embeds_add")
CONDITIONINGS += tuple(f"conditioning_{number}" for number in range(1, 21)) + tuple(f"conditioning{number}" for number in range(1, 21))
NO_TEXT = {"ConditioningZeroOut", "ConditioningZeroOutHook"}
LOCAL_TEXTS = {"GLIGENTextBoxApply": "text", "GLIGENTextBoxApplyBatchCoords": "text"}  # for one box of the picture
LATENTS = ("latent_image", "samples", "latent", "optional_latent", "latents", "init_latent", "optional_latent_image", "latent_samples")
# they sample, but on a picture that is there already, or on parts of it
RETOUCHING = ("UltimateSDUpscale", "Detailer", "Upscaler", "Inpaint Crop", "SEGS", "FaceDetailer", "ProviderPipe", "Provider")
