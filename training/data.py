"""The pairs of a run: where they come from, and batches of them in an order that goes on after an interruption."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from core.device import compute_precision
from data.errors import ShardError
from data.loading.augmentation import RandomCrop
from data.loading.examples import Batch, Collate, Examples, TextFormat
from data.loading.fit import CurriculumBatches, FittingPairs, WeighedBatches, read_scores
from data.loading.joint import JointBatches, JointExamples, prompt_numbers
from data.loading.order import Place, ShuffledBatches
from data.loading.stream import Position, StreamedExamples, StreamLoader, StreamState, held_out, spread
from data.loading.workers import batches_of, begin_worker
from data.sources.chosen import ChosenPairs, PairSource, prompts
from data.sources.chosen import spread as spread_numbers
from data.sources.declared import about_carving
from data.sources.held_out import HeldOutPictures, spread_pairs
from data.sources.opening import open_splits
from data.sources.pictures import picture_numbers
from data.sources.streams import CarvedShards, Shards, open_stream
from data.splits import Split
from data.store.columns import FIT_COLUMNS, chance_column
from data.store.pairs import PairDataset
from model import IGNORED_LABEL
from tokenizer import PromptTokenizer
from training.config import TrainConfig
from training.features import FeatureExamples, compute_features
from training.networks import Network
from training.processes import Gathered
from training.run_directory import FEATURES
from training.validation import ValidationPairs

VALIDATION_PAIRS = 256
PANEL_PAIRS = 16
STREAMED_PROMPTS = 20_000  # read before training for the tokenizer
STREAMED_HELD_OUT = 256
MEASURED_PROMPTS = 100_000  # for how long prompts are


class TrainingData:
    """Training, validation and test pairs, by number or as a stream."""

    def __init__(self, config: TrainConfig) -> None:
        """
        Raises:
            ShardError: no data set, nothing in it, or nothing in one of its splits.
        """
        self.config = config
        self.shards: Shards | None = None
        if config.stream:
            self.shards = self._stream("train")
            self.validation: PairSource = held_out(self._stream("val"), STREAMED_HELD_OUT, "val")
            held_out(self._stream("test"), 1, "test")
            self.about_splits = about_carving(self.shards.missing, config.data) if isinstance(self.shards, CarvedShards) else ""
        else:
            splits = open_splits(config.data, image_name=config.image_column, prompt_name=config.prompt_column, partial=config.partial)
            self.training, self.validation, self.testing = splits["train"], splits["val"], splits["test"]
            self.about_splits = str(splits)
            if not any(pair is not None for _, pair in spread_pairs(self.testing)):  # which would be missed at the end
                raise ShardError(f"of {len(self.testing)} test pairs of {config.data} none can be read; python -m data.preview shows the data")
            if config.chooses_by_fit:
                self.training = self._fitting(self.training)
            self.prompt_numbers = self._prompt_numbers() if config.joint > 1 else []

    def _stream(self, split: Split) -> Shards:
        config = self.config
        return open_stream(config.data, split, image_name=config.image_column, prompt_name=config.prompt_column, partial=config.partial)

    def _prompt_numbers(self) -> list[int]:
        """For images of one prompt that are shown together."""
        numbers = prompt_numbers(self.training)
        if len(set(numbers)) == len(numbers):
            raise ShardError(
                f"each prompt of {self.config.data} has but one image, and joint shows several of one together; leave it out, or make data with "
                "generate_data.py --images-per-prompt 4"
            )
        return numbers

    def _fitting(self, pairs: PairSource) -> FittingPairs:
        whole = pairs.pairs if isinstance(pairs, ChosenPairs) else pairs  # val or test may come out of train
        if not isinstance(whole, PairDataset):
            raise ShardError(
                f"{self.config.data} is not a data set directory of ours, which alone has scores; import it with: python -m data.importers"
            )
        least = self.config.min_fit if self.config.min_fit is not None else -math.inf
        directory, measure = Path(self.config.data) / "train", self.config.fit_measure
        scores, chances = (read_scores(whole, directory, column) for column in (FIT_COLUMNS[measure], chance_column(measure)))
        if isinstance(pairs, ChosenPairs):
            scores, chances = ([values[index] for index in pairs.indices] for values in (scores, chances))
        return FittingPairs(pairs, scores, chances, least)

    def __str__(self) -> str:
        pairs = f"a stream of {len(self.shards)} shards" if self.shards is not None else f"{len(self.training)} training pairs"
        return f"{pairs} ({self.about_splits})" if self.about_splits else pairs

    def fingerprints(self) -> dict[str, str]:
        training = self.shards.fingerprint() if self.shards is not None else self.training.fingerprint()
        return {"training": training, "validation": self.validation.fingerprint()}

    def prompts(self) -> Iterator[str]:
        """Training prompts for the tokenizer: all, or some of a stream."""
        if self.shards is None:
            return prompts(self.training)
        return (raw.text or "" for raw in islice(spread(self.shards, STREAMED_PROMPTS), STREAMED_PROMPTS))

    def some_prompts(self, count: int) -> Iterator[str]:
        """Training prompts from all over the data."""
        if self.shards is not None:
            return islice(self.prompts(), count)
        return prompts(ChosenPairs(self.training, spread_numbers(self.training)[:count]))

    @property
    def known(self) -> PairSource:
        """Training pairs by number; some of a stream."""
        return held_out(self.shards, STREAMED_HELD_OUT, "train") if self.shards is not None else self.training

    def test(self, count: int) -> HeldOutPictures:
        """Test pictures that can be read, from all over the split."""
        if self.shards is not None:
            return HeldOutPictures.of(held_out(self._stream("test"), min(count, STREAMED_HELD_OUT), "test"), count)
        return HeldOutPictures.of(self.testing, count)


class Batches:
    """The training batches of one process, without end. A stream's place is a state of its own; of numbered pairs the step says it."""

    def __init__(self, data: TrainingData, model: Network, tokenizer: PromptTokenizer, run: Path, accelerator: Accelerator) -> None:
        self.config = config = data.config
        self.accelerator = accelerator
        preprocess = model.config.preprocessing
        # of the network: BLIP begins its texts with a token that its tokenizer does not know
        begin_id, end_id, pad_id = model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id
        text = TextFormat(tokenizer.encode, begin_id, end_id, pad_id, model.config.max_text_tokens)
        augment = RandomCrop(preprocess.size, preprocess.interpolation) if config.augment else None
        self.collate = Collate(pad_id, IGNORED_LABEL)
        self.encoder: Any = model.encoder  # ours alone where features are reused
        self.run = run
        self.picture, self.text = preprocess, text
        self.validation = ValidationPairs.read(data.validation, preprocess, text, count=VALIDATION_PAIRS, shown=PANEL_PAIRS)
        self.normalise: Callable[[Tensor], Tensor] = _as_they_are if config.reuse_features else preprocess.normalise
        self.states: dict[str, Any] = {}
        self.options = {"num_workers": config.workers, "pin_memory": accelerator.device.type == "cuda", "worker_init_fn": begin_worker}
        rank, world_size = accelerator.process_index, accelerator.num_processes
        self.stream: StreamLoader | None = None
        if data.shards is not None:
            begin = StreamState((Position(),) * max(1, config.workers))
            examples = StreamedExamples(data.shards, preprocess, text, begin, augment=augment, seed=config.seed, rank=rank, world_size=world_size)
            self.stream = StreamLoader(examples, config.batch_size, self.collate, **self.options)
            self.states["stream"] = Gathered(self.stream, accelerator)
            return
        self.count, self.training, self.prompt_numbers = len(data.training), data.training, data.prompt_numbers
        self.pictures = picture_numbers(data.training)
        self.examples = Examples(data.training, preprocess, text, augment=augment, seed=config.seed, pictures=self.pictures)

    def after(self, steps: int) -> Iterator[Batch]:
        """The batches that come after so many updates. To be called when the weights are those of the run: of a frozen encoder the features of all
        images are computed here, once.

        Raises:
            ImageError, PairError, ShardError: too much cannot be read.
        """
        if self.stream is not None:  # whose state was loaded
            return iter(self.stream)
        examples: Examples | FeatureExamples = self.examples
        if self.config.reuse_features:
            device, workers = self.accelerator.device, self.config.workers
            precision = compute_precision(device, self.config.precision)
            with self.accelerator.main_process_first():
                compute_features(self.run / FEATURES, self.encoder, self.examples, device, precision=precision, workers=workers)
            examples = FeatureExamples(self.run / FEATURES)
        options = {"seed": self.config.seed, "start_step": steps * self.config.accumulate}
        options |= {"rank": self.accelerator.process_index, "world_size": self.accelerator.num_processes}
        shuffled = ShuffledBatches(self.count, self.config.batch_size, pictures=self.pictures, **options)
        if self.config.joint > 1:
            fewest = 2 if self.config.only_frames else 1
            together = JointBatches(shuffled, self.prompt_numbers, range(fewest, self.config.joint + 1), accumulate=self.config.accumulate)
            return batches_of(DataLoader(JointExamples(examples), batch_sampler=together, collate_fn=self.collate, **self.options))
        order: Sampler[list[Place]] = shuffled
        if self.config.curriculum and isinstance(self.training, FittingPairs):
            ramp = self.config.max_steps * self.config.accumulate // 2
            order = CurriculumBatches(self.training.ranking, self.config.batch_size, ramp_steps=ramp, **options)
        elif self.config.weigh and isinstance(self.training, FittingPairs):
            order = WeighedBatches(self.training.chances, self.config.batch_size, **options)
        return batches_of(DataLoader(examples, batch_sampler=order, collate_fn=self.collate, **self.options))


def _as_they_are(features: Tensor) -> Tensor:
    return features
