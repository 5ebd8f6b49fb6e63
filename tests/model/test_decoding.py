"""Search against exhaustive enumeration, on a table of probabilities in place of a network."""

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from examples import lively, tiny_config
from next_tokens import BOS, CPU, EOS, Table, rules
from torch import Tensor

from model import CaptionModel
from model.cache import KVCache
from model.decoding import Hypothesis, NotFiniteError, beam_search, greedy_search, sample, without_smoothing


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
    found = beam_search(table, images, rules(length), CPU, num_beams=wide, num_return_sequences=5, length_penalty=penalty)
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
        tokens, scores, last = [], [], BOS
        for place in range(5):
            row = table.table[image, place, last]
            last = int(row.argmax())
            tokens.append(last)
            scores.append(pytest.approx(float(row[last]), abs=1e-5))
            if last == EOS:
                break
        by_hand.append(Hypothesis(tuple(tokens), tuple(scores)))
    assert greedy_search(table, 4, rules(5), CPU) == by_hand


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    beam = beam_search(Table(4, 6, 5, seed), 4, rules(5), CPU, num_beams=1, num_return_sequences=1, length_penalty=1.0)
    greedy = greedy_search(Table(4, 6, 5, seed), 4, rules(5), CPU)
    assert [texts[0].tokens for texts in beam] == [text.tokens for text in greedy]


def test_a_batch_gives_what_single_images_give() -> None:
    model = lively(CaptionModel(tiny_config())).eval()
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for beams in (1, 3):
        together = model.search(pixels, num_beams=beams, num_return_sequences=beams, max_new_tokens=9)
        for i in range(5):
            alone = model.search(pixels[i : i + 1], num_beams=beams, num_return_sequences=beams, max_new_tokens=9)[0]
            assert [text.tokens for text in together[i]] == [text.tokens for text in alone]


@pytest.mark.parametrize("leave", [True, False])
@pytest.mark.parametrize("penalty", [1.0, 3.0])
def test_an_image_that_is_done_takes_no_more_texts(penalty: float, leave: bool) -> None:
    """Where it stays for the sake of others, which go on, a longer one might rank above those it has."""
    images, asked = 40, {"num_beams": 2, "num_return_sequences": 2, "length_penalty": penalty}
    together = beam_search(Table(images, 5, 14, 3), images, rules(14), CPU, **asked, leave=leave)
    for image in range(images):
        table = Table(images, 5, 14, 3)
        table.images = torch.tensor([image])
        alone = beam_search(table, 1, rules(14), CPU, **asked)[0]
        assert [text.tokens for text in together[image]] == [text.tokens for text in alone]


def test_beam_scores_are_the_networks_own(tiny_model: CaptionModel) -> None:
    """The score of a text is what the network, given the whole text at once, says of it."""
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    for image, texts in enumerate(tiny_model.search(pixels, num_beams=4, num_return_sequences=4, max_new_tokens=6)):
        assert len({text.tokens for text in texts}) == 4
        for text in texts:
            ids = torch.tensor([[tiny_model.config.bos_token_id, *text.tokens[:-1]]])
            log_probs = tiny_model(pixels[image : image + 1], ids).log_softmax(-1)[0]
            own = log_probs.gather(-1, torch.tensor(text.tokens)[:, None]).squeeze(1)
            assert text.log_probs == pytest.approx(own.tolist(), abs=1e-4)
            assert text.score == pytest.approx(float(own.mean().detach()), abs=1e-4)


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
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences must be 1 to num_beams"),
        ({"max_new_tokens": 17}, "max_new_tokens must be 1 to 16"),
        ({"max_new_tokens": 12, "prefix": [3] * 5}, "max_new_tokens must be 1 to 11"),
        ({"prefix": [3] * 16}, "the prefix has 16 tokens"),
        ({"prefix": [23]}, "prefix must hold token ids from 0 to 22"),
        ({"bad_words_ids": [[]]}, "bad_words_ids must hold token ids"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, r"min_new_tokens must be 0 to max_new_tokens \(4\)"),
        ({"bad_words_ids": [[token] for token in range(23)]}, "leave no token"),
    ],
)
def test_impossible_numbers_are_named(tiny_model: CaptionModel, arguments: dict[str, Any], message: str) -> None:
    for others in ({}, {"num_beams": 1}):
        with pytest.raises(ValueError, match=message):
            tiny_model.search(torch.zeros(1, 3, 32, 32), **(others | arguments))


def test_no_images_is_an_error(tiny_model: CaptionModel) -> None:
    with pytest.raises(ValueError, match="holds no images"):
        tiny_model.search(torch.zeros(0, 3, 32, 32))


# every option against a table of probabilities and an enumeration of all texts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "changes",
    [
        {"min_new_tokens": 3},
        {"bad_words_ids": ((2,),)},
        {"bad_words_ids": ((3, 3), (2, 3, EOS))},
        {"start": (BOS, 2, 3)},
        {"start": (BOS, 2), "bad_words_ids": ((2, 3), (2, 2)), "min_new_tokens": 2},
    ],
    ids=str,
)
def test_a_wide_beam_under_rules_finds_the_best_text_that_keeps_them(seed: int, changes: dict[str, Any]) -> None:
    vocabulary, length = 4, 4
    given = rules(length, **changes)
    table = Table(2, vocabulary, length + len(given.start), seed)
    past = len(given.start) - 1
    found = beam_search(table, 2, given, CPU, num_beams=vocabulary**length, num_return_sequences=3, length_penalty=0.7)
    for image in range(2):
        ranked = []
        for size in range(1, length + 1):
            for tokens in itertools.product(range(vocabulary), repeat=size):
                ended = tokens[-1] == EOS
                whole = (*given.start, *tokens)
                said = any(
                    whole[i : i + len(bad)] == bad and i + len(bad) > len(given.start) for bad in given.bad_words_ids for i in range(len(whole))
                )
                if EOS in tokens[:-1] or (not ended and size < length) or said or (ended and size <= given.min_new_tokens):
                    continue
                pairs = itertools.pairwise((given.start[-1], *tokens))
                scores = [float(table.table[image, past + i, a, b]) for i, (a, b) in enumerate(pairs)]
                ranked.append((sum(scores) / size**0.7, tokens, scores))
        ranked.sort(reverse=True)
        assert [text.tokens for text in found[image]] == [tokens for _, tokens, _ in ranked[:3]]
        for text, (_, _, scores) in zip(found[image], ranked, strict=False):
            assert text.log_probs == pytest.approx(scores, abs=1e-4)


def test_rules_hold_in_greedy_search_too() -> None:
    free = greedy_search(Table(6, 5, 6, 1), 6, rules(6), CPU)
    ended = [text for text in free if len(text.tokens) < 4]
    assert ended
    for text in greedy_search(Table(6, 5, 6, 1), 6, rules(6, min_new_tokens=4), CPU):
        assert EOS not in text.tokens[:4]
    first = free[0].tokens[0]
    assert all(first not in text.tokens for text in greedy_search(Table(6, 5, 6, 1), 6, rules(6, bad_words_ids=((first,),)), CPU))


def test_label_smoothing_is_taken_off() -> None:
    """A network that learned the smoothed labels perfectly, (1 - e) q + e / V, is drawn from by q."""
    q = torch.tensor([[0.5, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    learned = (0.9 * q + 0.1 / 8).log()
    torch.testing.assert_close(without_smoothing(learned, 0.1).softmax(-1), q)
    assert without_smoothing(learned, 0.0) is learned
    banned = learned.clone()
    banned[1, 3] = float("-inf")  # only what was spread is left: then it is drawn from
    torch.testing.assert_close(without_smoothing(banned, 0.1)[1], banned[1])
    noisy = (0.9 * q + 0.1 / 8 * torch.tensor([1.0, 1.0, 1.0, 2.5, 0.2, 1.5, 0.8, 1.0])).log()
    assert without_smoothing(noisy, 0.1)[0, 3:].eq(float("-inf")).all()


def test_the_smoothing_of_the_config_is_taken_off(tiny_model: CaptionModel) -> None:
    """Every token is as likely as any other but for one, which must be all that is drawn."""
    with torch.no_grad():
        for parameter in tiny_model.decoder.parameters():
            parameter.zero_()
        tiny_model.decoder.output_bias[7] = 5.0  # 148 of 170
    pixels = torch.zeros(1, 3, 32, 32)
    assert tiny_model.config.label_smoothing == 0.1
    drawn = {token for text in tiny_model.sample(pixels, num_return_sequences=200, max_new_tokens=4)[0] for token in text.tokens}
    assert drawn == {7}
    plain = dataclasses.replace(tiny_model.config, label_smoothing=0.0)
    tiny_model.config = plain
    assert len({token for text in tiny_model.sample(pixels, num_return_sequences=200, max_new_tokens=4)[0] for token in text.tokens}) > 15


@pytest.mark.parametrize("damage", ["weight", "overflow", "pixels"])
def test_what_is_no_number_is_an_error_with_its_cause(tiny_model: CaptionModel, damage: str) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    message = "the pixels hold some"
    if damage == "weight":
        with torch.no_grad():
            tiny_model.decoder.blocks[1].ffn[0].weight[3, 4] = float("nan")
        message = r"blocks\.1\.ffn\.0\.weight holds some"
    elif damage == "overflow":
        with torch.no_grad():
            tiny_model.decoder.final_norm.weight.fill_(60000.0)
        tiny_model.half()
        pixels, message = pixels.half(), "float16 ends at 65504; take bfloat16"
    else:
        pixels[1, 0, 5, 5] = float("nan")
    for decode in (tiny_model.generate, lambda some: tiny_model.search(some, num_beams=1), tiny_model.sample):
        with pytest.raises(NotFiniteError, match=message):
            decode(pixels)
    with pytest.raises(NotFiniteError, match=message):
        ids = torch.full((2, 3), 4)
        tiny_model.log_likelihood_on(tiny_model.decoder.prefix(tiny_model.encoder(pixels)), ids, ids)


def test_a_number_that_was_none_early_is_an_error_at_the_end(tiny_model: CaptionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that it was of may have left by then."""
    usual, calls = tiny_model._next_token, list[int]()

    def broken_at_first(tokens: Tensor, cache: KVCache) -> Tensor:
        calls.append(1)
        return usual(tokens, cache) + (float("nan") if len(calls) == 1 else 0.0)

    monkeypatch.setattr(tiny_model, "_next_token", broken_at_first)
    with pytest.raises(NotFiniteError):
        tiny_model.search(torch.randn(2, 3, 32, 32), num_beams=1, max_new_tokens=4, min_new_tokens=4)
    assert len(calls) == 4


def test_what_comes_after_an_end_may_be_impossible() -> None:
    """Ended texts stay where every step has the same shape."""
    banned = tuple((EOS, token) for token in range(5))
    options: dict[str, Any] = {"num_return_sequences": 6, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "smoothing": 0.0, "leave": False}
    chances = torch.rand(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sample(Table(1, 5, 4, 0), 1, rules(4, bad_words_ids=banned), CPU, chances=chances, **options)
    assert any(EOS in text.tokens and len(text.tokens) < 4 for text in found[0])


def test_what_is_forbidden_is_asked_of_texts_that_go_on_alone() -> None:
    """Those that have ended wait for others in their batch; an end token in the forced start ends nothing."""
    asked = list[tuple[int, ...]]()

    def forbidden(text: tuple[int, ...]) -> list[int]:
        asked.append(text)
        return [2]

    some = rules(5, start=(BOS, EOS, 3), forbidden=forbidden)
    allowed = some.allow(torch.zeros(2, 5), torch.tensor([[4, EOS, 2], [4, 2, 3]]))
    assert asked == [(EOS, 3, 4, 2, 3)]
    assert (allowed == float("-inf")).nonzero().tolist() == [[1, 2]]
