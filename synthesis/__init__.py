"""Rendering prompts into shards of pairs: which prompts, what is to be made, making it."""
