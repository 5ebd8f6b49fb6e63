"""The model card of the embedded diffusion model."""

MODEL_CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# mini-diffusion

A complete Stable Diffusion of 11 million parameters that paints a miniature world at 64 x 64 pixels: sixty everyday
subjects on thirteen backgrounds in eleven styles, with colours, counts, weather and light. It exists so that Reprompt can
be tried, tested and taught on any machine. It was trained from nothing by `python -m diffusion.mini.train` on rendered scenes.

```python
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained("assets/mini-diffusion")
pipeline("a watercolor painting of a fox in a forest", num_inference_steps=12, guidance_scale=4.0).images[0]
```

It knows only the words of `diffusion/mini/world.py`; anything else gives a picture that means nothing. The sprites it learnt from
are glyphs of the Noto Color Emoji font (SIL Open Font License 1.1).
"""
