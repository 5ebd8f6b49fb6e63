"""The memory of the text: it grows, rows are reordered in it, and steps of one shape see the same as those that grow."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from examples import lively, tiny_config
from torch import Tensor

from model import CaptionModel, NotFiniteError
from model.cache import _FIRST_CAPACITY, KVCache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_along_through_any_reordering_and_growth(dtype: torch.dtype) -> None:
    """Against plain lists of tensors."""
    draw, generator = random.Random(0), torch.Generator().manual_seed(0)
    cache = KVCache(2, 3, 2, 4, dtype=dtype, device=torch.device("cpu"))
    texts = [[torch.zeros(2, 2, 0, 2, 4, dtype=dtype)] for _ in range(3)]  # (kind, layer, T, H, D) of each row
    for _ in range(60):
        new = draw.choice((1, 1, 1, 3))
        fresh = torch.randn(2, 2, len(texts), 2, new, 4, generator=generator).to(dtype)  # kind, layer, N, H, T, D
        for row, text in enumerate(texts):
            text.append(fresh[:, :, row].transpose(2, 3))
        for layer in range(2):
            found = cache.append(layer, fresh[0, layer], fresh[1, layer])
            for kind in range(2):
                expected = torch.stack([torch.cat([part[kind, layer] for part in text]).transpose(0, 1) for text in texts])
                assert torch.equal(found[kind], expected)
        cache.advance(new)
        rows = torch.tensor([draw.randrange(len(texts)) for _ in range(draw.randint(1, 6))])  # more, fewer, and the same twice
        texts = [list(texts[row]) for row in rows.tolist()]
        cache.select(rows)
        assert cache.rows == len(rows)
    assert cache.length > 2 * _FIRST_CAPACITY
    assert cache.capacity < 4 * cache.length


def test_a_long_text_is_read_in_steps_as_at_once() -> None:
    """Beyond what the cache holds at first."""
    model = lively(CaptionModel(tiny_config(max_text_tokens=80))).eval()
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(3, 20, (2, 75))
    with torch.no_grad():
        prefix = model.decoder.prefix(model.encoder(pixels))
        layers, (batch, heads, _, head_dim) = len(prefix.keys), prefix.keys[0].shape
        cache = KVCache(layers, batch, heads, head_dim, dtype=torch.float32, device=torch.device("cpu"))
        steps = [model.decoder(part, prefix, cache) for part in ids.split(1, dim=1)]
        torch.testing.assert_close(model.decoder.logits(torch.cat(steps, dim=1)), model(pixels, ids), atol=1e-4, rtol=1e-4)
    assert cache.capacity < 160


def test_selecting_asks_for_no_memory_again() -> None:
    cache = KVCache(2, 8, 2, 4, dtype=torch.float32, device=torch.device("cpu"))
    places = set()
    for step in range(10):
        for layer in range(2):
            cache.append(layer, torch.ones(8, 2, 1, 4), torch.ones(8, 2, 1, 4))
        cache.advance(1)
        cache.select(torch.arange(8).roll(step))
        places.add(cache.buffer.data_ptr())
    assert len(places) == 2


def wishes(draw: random.Random) -> dict[str, Any]:
    longest = draw.randint(1, 20)
    shortest = draw.choice((0, 0, draw.randint(0, longest - 1)))
    banned = [[draw.randrange(3, 20) for _ in range(draw.choice((1, 2)))] for _ in range(draw.choice((0, 0, 2, 6)))]
    prefix = [draw.randrange(3, 20) for _ in range(draw.choice((0, 0, 1, 3)))]
    return {"prefix": prefix, "banned": banned, "min_new_tokens": shortest, "max_new_tokens": longest}


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


@pytest.mark.parametrize("seed", range(4))
def test_steps_of_one_shape_write_the_same(pair: tuple[CaptionModel, CaptionModel, list[Any]], seed: int) -> None:
    usual, static, _ = pair
    torch.compiler.reset()
    draw = random.Random(seed)
    pixels = torch.randn(draw.randint(1, 5), 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    asked = wishes(draw) | {"num_beams": draw.randint(1, 4), "length_penalty": draw.choice((0.0, 1.0, 2.0))}
    asked["num_return"] = draw.randint(1, asked["num_beams"])
    close(static.search(pixels, **asked), usual.search(pixels, **asked))
    asked = wishes(draw) | {"num_samples": draw.randint(1, 4), "top_k": draw.choice((0, 8))}
    drawn = [model.sample(pixels, generator=torch.Generator().manual_seed(5), **asked) for model in (static, usual)]
    close(*drawn)


def test_one_graph_serves_all_steps_of_a_shape(pair: tuple[CaptionModel, CaptionModel, list[Any]]) -> None:
    _, static, graphs = pair
    torch.compiler.reset()
    graphs.clear()
    for seed in range(3):
        static.search(torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(seed)), num_beams=3, max_new_tokens=20, min_new_tokens=19)
    assert len(graphs) == 1


def counting(of: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def called(self: Tensor, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        return of(self, *arguments, **more)

    return called


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
    expected = [model.search(pixels, num_beams=beams, num_return=beams) for beams in (1, 3)]
    model.compile_decoding(mode="reduce-overhead")
    for found, before in zip([model.search(pixels, num_beams=beams, num_return=beams) for beams in (1, 3)], expected, strict=True):
        close(found, before)
