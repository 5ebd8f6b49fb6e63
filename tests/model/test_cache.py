"""The memory of the text: it grows, rows are reordered in it, and steps of one shape see the same as those that grow."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from examples import lively, tiny_config
from torch import Tensor
from torch.nn import functional as F

from model import CaptionModel, NotFiniteError
from model.cache import KVCache, PrefixCache, StaticCache
from model.decoder import attend_cached


def prefixes(images: int, image_tokens: int = 3, dtype: torch.dtype = torch.float32) -> list[PrefixCache]:
    """Two layers of two heads of size four, in groups of two images."""
    parts = [torch.randn(2, 2, min(2, images - first), 2, image_tokens, 4).to(dtype) for first in range(0, images, 2)]
    return [PrefixCache(list(keys), list(values)) for keys, values in parts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hypotheses_see_their_image_and_their_own_line(dtype: torch.dtype) -> None:
    """Through any reordering, growth and leaving, against attention over plain lists of keys and values, a hypothesis at a time."""
    torch.manual_seed(0)
    draw = random.Random(0)
    parts = prefixes(5, dtype=dtype)
    cache = KVCache(parts, room=4)
    # of each image, hypothesis and layer: keys and values (H, S, D)
    lines = [[[(part.keys[layer][i], part.values[layer][i]) for layer in range(2)]] for part in parts for i in range(len(part.keys[0]))]
    for _ in range(40):
        hypotheses, new = len(lines[0]), draw.choice((1, 1, 1, 3))
        positions, bias = cache.begin(new)
        assert positions == slice(cache.length - new, cache.length)
        for layer in range(2):
            keys, values, query = torch.randn(3, len(lines) * hypotheses, 2, new, 4).to(dtype)
            found = attend_cached(query, *cache.append(layer, keys, values), bias)
            for row, (image, hypothesis) in enumerate(itertools.product(range(len(lines)), range(hypotheses))):
                own = lines[image][hypothesis]
                own[layer] = torch.cat([own[layer][0], keys[row]], 1), torch.cat([own[layer][1], values[row]], 1)
                see = torch.ones(new, own[layer][0].shape[1]).tril(own[layer][0].shape[1] - new).bool()
                expected = F.scaled_dot_product_attention(query[row].float(), *(side.float() for side in own[layer]), attn_mask=see)
                torch.testing.assert_close(
                    found[row].float(), expected, **({"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03})
                )
        staying = sorted(draw.sample(range(len(lines)), len(lines) - (len(lines) > 2 and draw.random() < 0.2)))
        chosen = [[draw.randrange(hypotheses) for _ in range(hypotheses if draw.random() < 0.7 else draw.randint(1, 4))] for _ in staying]
        chosen = [(row * 4)[: len(chosen[0])] for row in chosen]
        rows = torch.tensor([image * hypotheses + one for image, several in zip(staying, chosen, strict=True) for one in several])
        lines = [[list(lines[image][one]) for one in several] for image, several in zip(staying, chosen, strict=True)]
        cache.select(rows, torch.tensor(staying) if len(staying) < cache.keys.shape[1] else None)
    assert len(lines) == 2
    assert 64 < cache.seen.sum(-1).max() <= cache.seen.shape[2]


def test_a_long_text_is_read_in_steps_as_at_once() -> None:
    """Beyond what the cache holds at first."""
    model = lively(CaptionModel(tiny_config(max_text_tokens=80))).eval()
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(3, 20, (2, 75))
    with torch.no_grad():
        cache = KVCache([model.decoder.prefix(model.encoder(pixels))])
        steps = [model.decoder.step(part, cache) for part in ids.split(1, dim=1)]
        torch.testing.assert_close(model.decoder.logits(torch.cat(steps, dim=1)), model(pixels, ids), atol=1e-4, rtol=1e-4)
    assert 75 <= cache.seen.shape[2] < 100


def test_reordering_moves_no_keys() -> None:
    cache = KVCache(prefixes(4), room=40)
    places = cache.keys.data_ptr(), cache.values.data_ptr()
    for _ in range(10):
        cache.begin(1)
        cache.select(torch.randint(4, (4,)).sort().values)
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == places


def wishes(draw: random.Random) -> dict[str, Any]:
    longest = draw.randint(1, 20)
    shortest = draw.choice((0, 0, draw.randint(0, longest - 1)))
    banned = [[draw.randrange(3, 20) for _ in range(draw.choice((1, 2)))] for _ in range(draw.choice((0, 0, 2, 6)))]
    prefix = [draw.randrange(3, 20) for _ in range(draw.choice((0, 0, 1, 3)))]
    return {"prefix": prefix, "bad_words_ids": banned, "min_new_tokens": shortest, "max_new_tokens": longest}


@pytest.fixture(scope="module")
def pair() -> tuple[CaptionModel, CaptionModel, list[Any]]:
    """A network twice, the second one in steps of one shape, and what of it was compiled: "eager" runs the graph as it is, and there must be one."""
    torch.manual_seed(0)
    usual = lively(CaptionModel(tiny_config(max_text_tokens=40))).eval()
    static = CaptionModel(tiny_config(max_text_tokens=40)).eval()
    static.load_state_dict(usual.state_dict())
    graphs: list[Any] = []

    def count(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    static.compile_decoding(backend=count)
    return usual, static, graphs


def close(found: list[list[Any]], expected: list[list[Any]]) -> None:
    assert [[text.tokens for text in texts] for texts in found] == [[text.tokens for text in texts] for texts in expected]
    for texts, others in zip(found, expected, strict=True):
        for text, other in zip(texts, others, strict=True):
            assert text.log_probs == pytest.approx(other.log_probs, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_steps_of_one_shape_write_the_same(pair: tuple[CaptionModel, CaptionModel, list[Any]], seed: int) -> None:
    usual, static, _ = pair
    torch.compiler.reset()
    draw = random.Random(seed)
    pixels = torch.randn(draw.randint(1, 5), 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    asked = wishes(draw) | {"num_beams": draw.randint(1, 4), "length_penalty": draw.choice((0.0, 1.0, 2.0))}
    asked["num_return_sequences"] = draw.randint(1, asked["num_beams"])
    close(static.search(pixels, **asked), usual.search(pixels, **asked))
    asked = wishes(draw) | {"num_return_sequences": draw.randint(1, 4), "top_k": draw.choice((0, 8))}
    drawn = [model.sample(pixels, generator=torch.Generator().manual_seed(5), **asked) for model in (static, usual)]
    close(*drawn)


@pytest.mark.slow
def test_one_graph_serves_all_steps_of_a_shape(pair: tuple[CaptionModel, CaptionModel, list[Any]]) -> None:
    _, static, graphs = pair
    torch.compiler.reset()
    graphs.clear()
    for seed in range(3):
        static.search(torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(seed)), num_beams=3, max_new_tokens=20, min_new_tokens=19)
    assert len(graphs) == 1


def test_a_cache_of_one_shape_begins_again_in_its_place() -> None:
    """A captured graph knows only that place; numbers that were none must not come through the mask."""
    parts, others = prefixes(3), prefixes(3)
    cache, fresh = StaticCache(parts, room=6), StaticCache(others, room=6)
    cache.begin(4)
    cache.append(0, torch.full((3, 2, 4, 4), float("nan")), torch.full((3, 2, 4, 4), float("nan")))
    cache.select(torch.arange(3).repeat_interleave(2))
    places = cache.keys.data_ptr(), cache.values.data_ptr(), cache.seen.data_ptr()
    assert cache.fits(others, 6)
    assert not any(cache.fits(*ask) for ask in ((others, 7), (prefixes(2), 6), (prefixes(3, 4), 6), (prefixes(3, 4), 5)))
    assert not cache.fits([PrefixCache(*([part.double() for part in parts] for parts in (one.keys, one.values))) for one in others], 6)
    cache.begin_again(others)
    for first, second in zip(fresh.begin(2), cache.begin(2), strict=True):
        assert torch.equal(first, second)
    query = torch.randn(3, 2, 2, 4)
    found = [
        attend_cached(query, *one.append(0, query, query), fresh_bias)
        for one, fresh_bias in ((cache, torch.zeros(3, 1, 2, 6)), (fresh, torch.zeros(3, 1, 2, 6)))
    ]
    assert torch.equal(*found)
    cache.select(torch.arange(3).repeat_interleave(2))
    assert (cache.keys.data_ptr(), cache.values.data_ptr(), cache.seen.data_ptr()) == places


def counting(of: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def called(self: Tensor, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        return of(self, *arguments, **more)

    return called


@pytest.mark.slow
def test_the_host_waits_at_one_step_in_eight(pair: tuple[CaptionModel, CaptionModel, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes a bool, a number or a list on the host makes it wait for a device."""
    _, static, _ = pair
    pixels, waits = torch.randn(3, 3, 32, 32), list[int]()
    for name in ("__bool__", "item", "tolist", "__int__", "__float__", "nonzero"):
        monkeypatch.setattr(Tensor, name, counting(getattr(Tensor, name), waits))
    counts = []
    for steps in (8, 20):
        waits.clear()
        static.search(pixels, num_beams=2, min_new_tokens=steps - 1, max_new_tokens=steps)
        counts.append(len(waits))
    assert counts[1] - counts[0] <= 2


@pytest.mark.slow
def test_what_is_no_number_is_an_error_in_steps_of_one_shape_too() -> None:
    model = lively(CaptionModel(tiny_config())).eval()
    model.compile_decoding(backend="eager")
    with torch.no_grad():
        model.decoder.output_bias[4] = float("nan")
    for search in (lambda: model.search(torch.zeros(1, 3, 32, 32)), lambda: model.sample(torch.zeros(1, 3, 32, 32))):
        with pytest.raises(NotFiniteError, match=r"decoder\.output_bias"):
            search()


@pytest.mark.slow
def test_a_compiled_step_writes_the_same() -> None:
    model = lively(CaptionModel(tiny_config())).eval()
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = [model.search(pixels, num_beams=beams, num_return_sequences=beams) for beams in (1, 3)]
    model.compile_decoding(mode="reduce-overhead")
    for found, before in zip([model.search(pixels, num_beams=beams, num_return_sequences=beams) for beams in (1, 3)], expected, strict=True):
        close(found, before)
