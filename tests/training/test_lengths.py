import pytest

from training.lengths import PromptLengths


def lengths(*counts: int) -> PromptLengths:
    """Of prompts with so many words, each a token; the end is one more."""
    return PromptLengths.of((" ".join(["word"] * (count - 1)) for count in counts), lambda text: [0] * len(text.split()))


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ((3, 9), 16),
        ((8,), 8),
        ((17, 512), 512),
        ((20,) * 2000 + (600,), 24),
        ((20,) * 100 + (600,) * 100, 512),
        ((600,), 512),
        ((6,) * 35 + (10_708,), 8),
        ((), 8),
    ],
)
def test_the_network_reads_the_longest_or_almost_all(counts: tuple[int, ...], wanted: int) -> None:
    assert lengths(*counts).wanted == wanted


def test_what_is_cut_is_said() -> None:
    found = lengths(*[10] * 98, 20, 40)
    assert found.cut(40) == 0
    assert found.describe(40, "--longer") == "prompts in tokens: median 10, 99 % at most 20, longest 40; the network reads 40, so that none is cut"
    assert found.cut(39) == pytest.approx(0.01)
    assert found.describe(16, "--longer").endswith("the network reads 16: 2.0% of the prompts are cut, and their ends never learnt (--longer)")
    assert ": 1 of 5001 of the prompts are cut" in lengths(*[10] * 5000, 20).describe(16, "--longer")
