"""Search against exhaustive enumeration, on a table of probabilities in place of a network."""

import itertools
import math

import pytest
import torch
from examples import lively, tiny_config
from torch import Tensor

from model import CaptionModel
from model.decoding import Hypothesis, beam_search, greedy_search

BOS, EOS, CPU = 0, 1, torch.device("cpu")


class Table:
    """Hypotheses whose next-token log-probabilities depend on image, place and last token, drawn once."""

    def __init__(self, images: int, vocabulary: int, length: int, seed: int) -> None:
        logits = torch.randn(images, length, vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed)) * 1.5
        logits[..., BOS] = -30.0
        self.table = logits.log_softmax(-1)
        self.images = torch.arange(images)
        self.place = 0

    def step(self, tokens: Tensor) -> Tensor:
        image = self.images.repeat_interleave(len(tokens) // len(self.images))
        self.place += 1
        return self.table[image, self.place - 1, tokens]

    def select(self, rows: Tensor, images: Tensor | None) -> None:
        if images is not None:
            self.images = self.images[images]


def every_text(table: Table, image: int, length: int) -> list[tuple[float, tuple[int, ...]]]:
    """(sum of log-probabilities, tokens) of every text that ends with EOS or reaches `length`."""
    vocabulary = table.table.shape[-1]
    texts = []
    for size in range(1, length + 1):
        for tokens in itertools.product(range(vocabulary), repeat=size):
            ended = tokens[-1] == EOS
            if EOS in tokens[:-1] or (not ended and size < length):
                continue
            chain = zip((BOS, *tokens), tokens, strict=False)
            texts.append((sum(float(table.table[image, i, a, b]) for i, (a, b) in enumerate(chain)), tokens))
    return texts


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_what_exhaustive_search_finds(seed: int, penalty: float) -> None:
    images, vocabulary, length = 3, 4, 4
    table = Table(images, vocabulary, length, seed)
    wide = vocabulary**length
    found = beam_search(table, images, num_beams=wide, num_return=5, bos=BOS, eos=EOS, max_new_tokens=length, length_penalty=penalty, device=CPU)
    for image in range(images):
        ranked = sorted(every_text(table, image, length), key=lambda text: -text[0] / len(text[1]) ** penalty)
        assert [text.tokens for text in found[image]] == [tokens for _, tokens in ranked[:5]]
        for text, (total, tokens) in zip(found[image], ranked, strict=False):
            assert text.score == pytest.approx(total / len(tokens), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_the_likeliest_token_each_time(seed: int) -> None:
    table = Table(4, 6, 5, seed)
    by_hand = []
    for image in range(4):
        tokens, total, last = [], 0.0, BOS
        for place in range(5):
            row = table.table[image, place, last]
            last = int(row.argmax())
            tokens.append(last)
            total += float(row[last])
            if last == EOS:
                break
        by_hand.append(Hypothesis(tuple(tokens), pytest.approx(total / len(tokens), abs=1e-5)))
    assert greedy_search(table, 4, bos=BOS, eos=EOS, max_new_tokens=5, device=CPU) == by_hand


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    arguments = {"bos": BOS, "eos": EOS, "max_new_tokens": 5, "device": CPU}
    beam = beam_search(Table(4, 6, 5, seed), 4, num_beams=1, num_return=1, length_penalty=1.0, **arguments)
    greedy = greedy_search(Table(4, 6, 5, seed), 4, **arguments)
    assert [texts[0].tokens for texts in beam] == [text.tokens for text in greedy]


def test_a_batch_gives_what_single_images_give() -> None:
    model = lively(CaptionModel(tiny_config())).eval()
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for beams in (1, 3):
        together = model.search(pixels, num_beams=beams, num_return=beams, max_new_tokens=9)
        for i in range(5):
            alone = model.search(pixels[i : i + 1], num_beams=beams, num_return=beams, max_new_tokens=9)[0]
            assert [text.tokens for text in together[i]] == [text.tokens for text in alone]


def test_beam_scores_are_the_networks_own(tiny_model: CaptionModel) -> None:
    """The score of a text is what the network, given the whole text at once, says of it."""
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    for image, texts in enumerate(tiny_model.search(pixels, num_beams=4, num_return=4, max_new_tokens=6)):
        assert len({text.tokens for text in texts}) == 4
        for text in texts:
            ids = torch.tensor([[tiny_model.config.bos_token_id, *text.tokens[:-1]]])
            log_probs = tiny_model(pixels[image : image + 1], ids).log_softmax(-1)[0]
            mean = log_probs.gather(-1, torch.tensor(text.tokens)[:, None]).mean()
            assert text.score == pytest.approx(float(mean.detach()), abs=1e-4)


def test_generate_pads_after_the_end(tiny_model: CaptionModel) -> None:
    pixels = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    tokens, scores = tiny_model.generate(pixels, num_beams=2, max_new_tokens=12)
    assert tokens.shape[0] == scores.shape[0] == 6
    assert all(math.isfinite(score) for score in scores.tolist())
    for row in tokens.tolist():
        if tiny_model.config.eos_token_id in row:
            after = row[row.index(tiny_model.config.eos_token_id) + 1 :]
            assert set(after) <= {tiny_model.config.pad_token_id}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 0}, "num_beams must be 1"),
        ({"num_beams": 24}, "vocabulary size"),
        ({"num_beams": 2, "num_return": 3}, "num_return must be 1 to num_beams"),
        ({"max_new_tokens": 17}, "max_new_tokens must be 1 to 16"),
    ],
)
def test_impossible_numbers_are_named(tiny_model: CaptionModel, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model.search(torch.zeros(1, 3, 32, 32), **arguments)


def test_no_images_is_an_error(tiny_model: CaptionModel) -> None:
    with pytest.raises(ValueError, match="holds no images"):
        tiny_model.search(torch.zeros(0, 3, 32, 32))
