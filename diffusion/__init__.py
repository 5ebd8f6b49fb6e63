"""The text-to-image side: running a diffusers pipeline, and the embedded one."""
