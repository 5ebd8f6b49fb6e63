"""Captioners to stand beside ours, by name."""

from evaluation.baselines.named import NAMES, Known, Settings, build_baseline, check_names

__all__ = ["NAMES", "Known", "Settings", "build_baseline", "check_names"]
