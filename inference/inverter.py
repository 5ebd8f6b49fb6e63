"""`PromptInverter`: network, tokenizer and preprocessing in one object."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeAlias, cast, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.device import weights_precision
from inference import DEFAULT_CHECKPOINT
from inference.banned import BannedWords
from inference.card import CARD_FILE, model_card, read_card
from inference.hub import upload
from inference.onnx import OnnxModel, is_exported
from inference.options import Decoding
from inference.pictures import OnePicture, Picture, as_picture, check_several, is_picture
from inference.prediction import Prediction, build_prediction
from model import CaptionModel, CheckpointError, Hypothesis, find_checkpoint, load_model, save_model
from model.confidence import Confidence
from model.familiarity import Familiarity
from model.fingerprint import add_weights
from tokenizer import TOKENIZER_FILE, PromptTokenizer, TokenizerError

Network: TypeAlias = "CaptionModel | OnnxModel"


class PromptInverter:
    """Writes the prompts of pictures."""

    def __init__(self, model: Network, tokenizer: PromptTokenizer, familiarity: Familiarity | None = None, card: str = "") -> None:
        """
        Args:
            familiarity: knows the pictures that the network was trained on.
            card: what is said of it; by default what can be seen of it.

        Raises:
            CheckpointError: the tokenizer is another network's.
        """
        if tokenizer.vocab_size != model.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the network {model.config.vocab_size}; they belong to different models"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.familiarity = familiarity
        self.card = card
        self.preprocess = model.config.preprocessing

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path = DEFAULT_CHECKPOINT,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        **hub: Any,
    ) -> PromptInverter:
        """Load a checkpoint directory, or a Hub id while there is a network. One of Hugging Face's GIT will do as well.

        Args:
            dtype: a torch floating-point type or its name; "auto" is float32 on a CPU, on a GPU bfloat16, or float16 where it has none
                (`core.device.weights_precision`).
            hub: of a Hub id: revision, token, cache_dir, local_files_only, as `model.find_checkpoint` has them.

        Raises:
            CheckpointError: not a checkpoint, or a broken one; names the file and the remedy.
            ValueError: no such device or type.
        """
        place = torch_device(device)
        kind = weights_precision(place, dtype).dtype
        directory = find_checkpoint(checkpoint, **hub)
        if is_exported(directory):
            if device not in ("auto", "cpu") or dtype not in ("auto", "float32", torch.float32):
                raise ValueError(f"{directory} holds ONNX graphs, which run on the CPU in their own precision; leave device and dtype out")
            place, kind = torch.device("cpu"), torch.float32
        model: Network = OnnxModel(directory) if is_exported(directory) else load_model(directory)
        try:
            tokenizer = PromptTokenizer.load(directory / TOKENIZER_FILE)
        except TokenizerError as error:
            raise CheckpointError(str(error)) from error
        familiarity = Familiarity.load(directory)
        # convolutions are quicker with their channels last
        return cls(model.to(memory_format=torch.channels_last), tokenizer, familiarity, read_card(directory)).to(place, kind)

    def to(self, *where: Any, **how: Any) -> PromptInverter:
        """Move it to another device or type, as `torch.nn.Module.to` takes them."""
        self.model.to(*where, **how)
        return self

    @overload
    def predict(self, images: OnePicture, *, batch_size: int = 32, **decoding: Any) -> Prediction: ...

    @overload
    def predict(self, images: Iterable[Picture], *, batch_size: int = 32, **decoding: Any) -> list[Prediction]: ...

    def predict(self, images: Picture | Iterable[Picture], *, batch_size: int = 32, **decoding: Any) -> Prediction | list[Prediction]:
        """The prompt of a picture, or those of several.

        Args:
            images: a PIL image, a path, an encoded file, or a uint8 array or tensor (`inference.pictures`); or any number of them, one after another:
                each is read when its batch comes and reduced at once.
            batch_size: images that go through the network together.
            decoding: of `inference.Decoding`: num_beams=4, num_return_sequences=1, do_sample=False, prefix="" and so on.

        Returns:
            A `Prediction` for one picture, a list of them for several.

        Raises:
            ImageError: something that cannot be read as a picture.
            NotFiniteError: the network computed no numbers; names the likely cause.
            TypeError: something that is no picture; says what to pass. Or an option that there is not.
            ValueError: a number out of range, or a prefix that holds a bad word; names it.
        """
        how = Decoding(**decoding)
        if is_picture(images):
            return self._predict(self._batches([images], 1), how)[0]
        return self._predict(self._batches(cast("Iterable[Picture]", images), batch_size), how)

    __call__ = predict

    def predict_joint(self, groups: Iterable[Sequence[Picture]], *, batch_size: int = 32, **decoding: Any) -> list[Prediction]:
        """One prompt for the pictures of each group, which were made from one prompt: the network sees them all at once, as GIT sees the frames of a
        video (`train.py --joint`). A group of one picture is read as `predict` reads it.

        Args:
            groups: of each up to `most_together` pictures, as `predict` takes them.
            batch_size: groups that go through the network together.
            decoding: as `predict`.

        Raises:
            As `predict`; TypeError: a picture in the place of a group; ValueError: a group without a picture, or with more than `most_together`.
        """
        return self._predict(self._joint_batches(groups, batch_size), Decoding(**decoding))

    @property
    def most_together(self) -> int:
        """Pictures of one prompt that the network can see at once; of ONNX graphs one."""
        return max(1, self.model.config.encoder.frames) if isinstance(self.model, CaptionModel) else 1

    def _predict(self, batches: Iterable[Tensor], how: Decoding) -> list[Prediction]:
        rules = self._rules(how.prefix, how.bad_words) | how.lengths
        predictions: list[Prediction] = []
        for pixels in batches:
            features = self.model.encode(self.network_input(pixels))
            if how.do_sample:
                generator = None if how.seed is None else [_generator(how.seed, picture) for picture in pixels]
                found = self.model.sample_on(features, generator=generator, **how.drawing, **rules)
            else:
                found = self.model.search_on(features, **how.searching, **rules)
            familiar = self.familiarity(features) if self.familiarity is not None else [None] * len(found)
            predictions += [self._prediction(rules["prefix"], texts, known) for texts, known in zip(found, familiar, strict=True)]
        return predictions

    @torch.inference_mode()
    def assess(self, images: Iterable[Picture], prompts: Iterable[str], *, batch_size: int = 32) -> list[Prediction]:
        """As if it had written these prompts, one for each picture: how likely it holds each of their tokens, the end counted. What is longer than it
        can read is cut."""
        check_several(images, batch_size)
        model, predictions, texts = self.pytorch_model(), list[Prediction](), iter(prompts)
        for pixels in self._batches(images, batch_size):
            tokens = [[*self.tokenizer.encode(next(texts))[: model.config.max_text_tokens - 1], model.config.eos_token_id] for _ in pixels]
            longest = max(map(len, tokens))
            padded = torch.full((len(tokens), longest + 1), model.config.pad_token_id)
            padded[:, 0] = model.config.bos_token_id
            for row, own in enumerate(tokens):
                padded[row, 1 : 1 + len(own)] = torch.tensor(own)
            features = model.encode(self.network_input(pixels))
            hidden = model.decoder(padded[:, :-1].to(model.device), model.decoder.prefix(model.encoder.project(features)))
            each = model.decoder.logits(hidden).float().log_softmax(-1).gather(2, padded[:, 1:, None].to(model.device)).squeeze(2)
            model.check_finite(each.sum())
            familiar = self.familiarity(features) if self.familiarity is not None else [None] * len(tokens)
            for own, row, known in zip(tokens, each.tolist(), familiar, strict=True):
                predictions.append(self._prediction([], [Hypothesis(tuple(own), tuple(row[: len(own)]))], known))
        return predictions

    @property
    def device(self) -> torch.device:
        return self.model.device

    def reduced(self, image: Image.Image) -> Image.Image:
        """All that the network sees of a picture: what need be kept until its batch comes."""
        return self.preprocess.reduced(image)

    def _batches(self, images: Iterable[Picture], batch_size: int) -> Iterator[Tensor]:
        """(B, 3, H, W) uint8. Of each picture only what the network sees is kept while the next one is read."""
        check_several(images, batch_size)
        each = iter(images)
        while batch := [self.preprocess.pixels(as_picture(image)) for image in islice(each, batch_size)]:
            yield torch.stack(batch)

    def _joint_batches(self, groups: Iterable[Sequence[Picture]], batch_size: int) -> Iterator[Tensor]:
        """(B, F, 3, H, W) uint8 of neighbours with as many pictures, (B, 3, H, W) where that is one."""
        check_several(groups, batch_size)

        def size(group: Sequence[Picture]) -> int:
            if is_picture(group) or not isinstance(group, Sequence | np.ndarray | Tensor):
                raise TypeError("groups is a list of lists of pictures, [[one, other], [third]], not of pictures")
            return len(group)

        for together, alike in groupby(groups, size):
            if not 1 <= together <= self.most_together:
                raise ValueError(f"this model reads 1 to {self.most_together} pictures of one prompt together, not {together}")
            while batch := [torch.stack([self.preprocess.pixels(as_picture(image)) for image in group]) for group in islice(alike, batch_size)]:
                pixels = torch.stack(batch)
                yield pixels if together > 1 else pixels[:, 0]

    def network_input(self, pixels: Tensor) -> Tensor:
        """(..., 3, H, W) uint8 as the network takes them."""
        return self.preprocess.normalise(pixels.to(self.model.device)).to(self.model.dtype)

    def _rules(self, prefix: str, bad_words: Sequence[str]) -> dict[str, Any]:
        banned = BannedWords(self.tokenizer, bad_words)
        if word := banned.held_by(prefix):
            raise ValueError(f"prefix {prefix!r} holds the banned word {word!r}")
        # a space at the end belongs to the next token
        return {"prefix": self.tokenizer.encode(prefix.rstrip()), "forbidden": banned if banned.words else None}

    def _prediction(self, prefix: list[int], texts: Sequence[Hypothesis], familiarity: float | None) -> Prediction:
        pieces = self.tokenizer.added([*prefix, *texts[0].tokens])[len(prefix) :]
        prompts = [self.tokenizer.decode([*prefix, *text.tokens]) for text in texts]
        return build_prediction(prompts, [text.log_probs for text in texts], pieces, self.confidence, familiarity)

    @property
    def confidence(self) -> Confidence:
        """How sure it may be of what it writes."""
        return self.model.config.confidence

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return self.preprocess.size

    def encode(self, images: Iterable[Picture]) -> Tensor:
        """What the image encoder makes of pictures: (N, P, width of its features), what `familiarity` takes."""
        return self.model.encode(self.network_input(torch.stack([self.preprocess.pixels(as_picture(image)) for image in images])))

    def pytorch_model(self) -> CaptionModel:
        """
        Raises:
            ValueError: it runs elsewhere.
        """
        if not isinstance(self.model, CaptionModel):
            raise ValueError("this needs the checkpoint that the ONNX graphs were exported from")
        return self.model

    @torch.inference_mode()
    def features(self, images: Iterable[Picture]) -> np.ndarray:
        """Pictures as the decoder is given them, the mean over their image tokens: (N, width) float32."""
        return self.pytorch_model().encoder.project(self.encode(images)).float().mean(1).cpu().numpy()

    def fingerprint(self) -> str:
        """By which the network, its tokenizer and its preprocessing are known again."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self.model.config), sort_keys=True, default=str).encode())
        digest.update(self.tokenizer.fingerprint().encode())
        add_weights(digest, self.model)
        return digest.hexdigest()[:16]

    def save_pretrained(self, path: str | Path) -> None:
        """Write a checkpoint directory: config.json, model.safetensors, tokenizer.json, familiarity.safetensors where there is one and, as README.md,
        the model card."""
        directory = Path(path)
        save_model(self.pytorch_model(), directory)
        if self.familiarity is not None:
            self.familiarity.save(directory)
        self.tokenizer.save(directory / TOKENIZER_FILE)
        card = self.card or model_card(self.model.config, sum(parameter.numel() for parameter in self.model.parameters()))
        (directory / CARD_FILE).write_text(card, encoding="utf-8")

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | bool | None = None, commit_message: str | None = None) -> str:
        """Upload what `save_pretrained` writes, so that `from_pretrained(repo_id)` has it anywhere.

        Args:
            repo_id: "name/model"; made where it is not there.
            private: of one that is made: by default as the account's settings say.
            token: by default the one that `hf auth login` has kept.

        Returns:
            The address of the commit.

        Raises:
            HubError: the Hub did not take it; says why.
        """
        with tempfile.TemporaryDirectory() as temporary:
            self.save_pretrained(temporary)
            return upload(Path(temporary), repo_id, private=private, token=token, commit_message=commit_message or "A Reprompt model")


def torch_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()  # which "meta" cannot say either
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto', or one that this machine has, such as 'cpu', not {device!r}: {error}") from error
    return place


def _generator(seed: int, picture: Tensor) -> torch.Generator:
    """What decides a picture's samples: the seed and its pixels."""
    digest = hashlib.sha256(f"{seed} ".encode() + picture.contiguous().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
