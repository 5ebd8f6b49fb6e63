"""The pairs of a run: where they come from, and batches of them in an order that goes on after an interruption."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from data.errors import ShardError
from data.loading.augmentation import RandomCrop
from data.loading.examples import Batch, Collate, Examples, TextFormat, readable_pairs
from data.loading.fit import FIT_COLUMNS, CurriculumBatches, FittingPairs, WeighedBatches, chance_column, read_scores
from data.loading.order import Place, ShuffledBatches
from data.loading.stream import Position, StreamedExamples, StreamLoader, StreamState, held_out, training_prompts
from data.sources.chosen import ListedPairs, PairSource, prompts
from data.sources.held_out import HeldOutPairs
from data.sources.opening import open_pairs
from data.sources.streams import Shards, open_stream
from data.splits import Split
from data.store.pairs import Pair, PairDataset
from model import IGNORED_LABEL, CaptionModel
from tokenizer import PromptTokenizer
from training.config import TrainConfig
from training.features import FeatureExamples, compute_features
from training.processes import Gathered

STREAMED_PROMPTS = 20_000  # read before training for the tokenizer
STREAMED_HELD_OUT = 256


class TrainingData:
    """Training, validation and test pairs, by number or as a stream."""

    def __init__(self, config: TrainConfig) -> None:
        """
        Raises:
            ShardError: no data set, or nothing in it.
        """
        self.config = config
        self.shards: Shards | None = None
        if config.stream:
            self.shards = open_stream(config.data, image_name=config.image_column, prompt_name=config.prompt_column)
            self.validation: PairSource = ListedPairs(held_out(self.shards, "val", STREAMED_HELD_OUT))
        else:
            self.training, self.validation = self._open("train"), self._open("val")
            if config.chooses_by_fit:
                self.training = self._fitting(self.training)

    def _open(self, split: Split) -> PairSource:
        config = self.config
        return open_pairs(config.data, split, image_name=config.image_column, prompt_name=config.prompt_column, partial=config.partial)

    def _fitting(self, pairs: PairSource) -> FittingPairs:
        if not isinstance(pairs, PairDataset):
            raise ShardError(
                f"{self.config.data} is not a data set directory of ours, which alone has scores; import it with: python -m data.importers"
            )
        least = self.config.min_fit if self.config.min_fit is not None else -math.inf
        directory, measure = Path(self.config.data) / "train", self.config.fit_measure
        scores, chances = (read_scores(pairs, directory, column) for column in (FIT_COLUMNS[measure], chance_column(measure)))
        return FittingPairs(pairs, scores, chances, least)

    def __str__(self) -> str:
        return f"a stream of {len(self.shards)} shards" if self.shards is not None else f"{len(self.training)} training pairs"

    def fingerprints(self) -> dict[str, str]:
        training = self.shards.fingerprint() if self.shards is not None else self.training.fingerprint()
        return {"training": training, "validation": self.validation.fingerprint()}

    def prompts(self) -> Iterator[str]:
        """Training prompts for the tokenizer: all, or the first of a stream."""
        return training_prompts(self.shards, STREAMED_PROMPTS) if self.shards is not None else prompts(self.training)

    def known(self, count: int) -> Iterator[Pair]:
        """The first training pairs."""
        return iter(held_out(self.shards, "train", STREAMED_HELD_OUT)) if self.shards is not None else readable_pairs(self.training, count)

    def test(self, count: int) -> HeldOutPairs:
        """The first test pairs that can be read."""
        if self.shards is not None:
            return HeldOutPairs.first(ListedPairs(held_out(self.shards, "test", min(count, STREAMED_HELD_OUT))), count)
        return HeldOutPairs.first(self._open("test"), count)


class Batches:
    """The training batches of one process, without end. A stream's place is a state of its own; of numbered pairs the step says it."""

    def __init__(self, data: TrainingData, model: CaptionModel, tokenizer: PromptTokenizer, run: Path, accelerator: Accelerator) -> None:
        self.config = config = data.config
        self.accelerator = accelerator
        preprocess = model.config.preprocessing
        text = TextFormat(tokenizer.encode, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, model.config.max_text_tokens)
        augment = RandomCrop(preprocess.size, preprocess.interpolation) if config.augment else None
        self.collate = Collate(tokenizer.pad_id, IGNORED_LABEL)
        self.validation = Examples(data.validation, preprocess, text)
        self.normalise: Callable[[Tensor], Tensor] = _as_they_are if config.reuse_features else preprocess.normalise
        self.states: dict[str, Any] = {}
        self.options = {"num_workers": config.workers, "pin_memory": accelerator.device.type == "cuda", "worker_init_fn": _ignore_ctrl_c}
        rank, world_size = accelerator.process_index, accelerator.num_processes
        self.stream: StreamLoader | None = None
        if data.shards is not None:
            begin = StreamState((Position(),) * max(1, config.workers))
            examples = StreamedExamples(data.shards, preprocess, text, begin, augment=augment, seed=config.seed, rank=rank, world_size=world_size)
            self.stream = StreamLoader(examples, config.batch_size, self.collate, **self.options)
            self.states["stream"] = Gathered(self.stream, accelerator)
            return
        self.count, self.training = len(data.training), data.training
        self.examples: Examples | FeatureExamples = Examples(data.training, preprocess, text, augment=augment, seed=config.seed)
        if config.reuse_features:
            stem, bfloat16 = run / "features", config.precision == "bf16"
            with accelerator.main_process_first():
                compute_features(stem, model.encoder, self.examples, accelerator.device, bfloat16=bfloat16, workers=config.workers)
            self.examples = FeatureExamples(stem)

    def after(self, steps: int) -> Iterator[Batch]:
        """The batches that come after so many updates."""
        if self.stream is not None:  # whose state was loaded
            return iter(self.stream)
        options = {"seed": self.config.seed, "start_step": steps * self.config.accumulate}
        options |= {"rank": self.accelerator.process_index, "world_size": self.accelerator.num_processes}
        order: Sampler[list[Place]] = ShuffledBatches(self.count, self.config.batch_size, **options)
        if self.config.curriculum and isinstance(self.training, FittingPairs):
            ramp = self.config.max_steps * self.config.accumulate // 2
            order = CurriculumBatches(self.training.ranking, self.config.batch_size, ramp_steps=ramp, **options)
        elif self.config.weigh and isinstance(self.training, FittingPairs):
            order = WeighedBatches(self.training.chances, self.config.batch_size, **options)
        loader: Iterable[Batch] = DataLoader(self.examples, batch_sampler=order, collate_fn=self.collate, **self.options)
        return iter(loader)


def _as_they_are(features: Tensor) -> Tensor:
    return features


def _ignore_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches the workers too; the main process decides when they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
