"""Bringing images with their prompts into a data set: listing originals, looking at each, planning shards, the processes that do it."""
