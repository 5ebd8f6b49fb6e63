"""The embedded world and the Stable Diffusion that paints it."""
