"""Pairs of images and prompts: where they come from, how they are stored, how they become batches."""
