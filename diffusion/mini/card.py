"""The model cards of the embedded diffusion model and of its teacher."""

_HEAD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
"""
_WORLD = """paints a miniature world at 64 x 64 pixels: sixty everyday
subjects on thirteen backgrounds in eleven styles, with colours, counts, weather and light."""
_LIMITS = """It knows only the words of `diffusion/mini/world.py`; anything else gives a picture that means nothing. The sprites it learnt from
are glyphs of the Noto Color Emoji font (SIL Open Font License 1.1).
"""

TEACHER_CARD = f"""{_HEAD}
# The teacher of mini-diffusion

A complete Stable Diffusion of 11 million parameters that {_WORLD} It was
trained from nothing by `python -m diffusion.mini.train` on rendered scenes, and paints in twelve guided steps.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("runs/mini-teacher")
pipeline("a watercolor painting of a fox in a forest", num_inference_steps=12, guidance_scale=4.0).images[0]
```

{_LIMITS}"""

MODEL_CARD = f"""{_HEAD}
# mini-diffusion

A complete Stable Diffusion of 11 million parameters that {_WORLD} It exists so that Reprompt can
be tried, tested and taught on any machine.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("assets/mini-diffusion")
pipeline("a watercolor painting of a fox in a forest", num_inference_steps=2).images[0]
```

Two steps are what it was made for; with more, the pipeline's own 50 too, it generates the same image in more time, with one
a worse one. Guidance is in its weights: it runs no second pass, and `guidance_scale` and `negative_prompt` change
nothing. `python -m diffusion.mini.distil` distilled it twice: from a teacher that samples in twelve guided steps, 24 passes of
the UNet, to four steps, and from those to two and a smaller decoder. To have both teachers back, the first of which
`diffusion.mini.train` made on rendered scenes, in a whole clone of the repository (`git fetch --unshallow` makes one of a shallow one):

```
mkdir -p runs && mkdir runs/mini-teacher runs/mini-four
git archive c928f1d assets/mini-diffusion | tar -x --strip-components 2 -C runs/mini-teacher
git archive 31bcf5a assets/mini-diffusion | tar -x --strip-components 2 -C runs/mini-four
```

{_LIMITS}"""
