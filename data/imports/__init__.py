"""Bringing images with their prompts into a data set: listing originals, looking at each, planning shards, the processes that do it."""

from typing import Literal

Also = Literal["grids", "graphs"]  # what is no single picture and can be taken in too
