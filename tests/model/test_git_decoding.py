"""Every way of decoding against transformers' `generate`: networks, prompts and options drawn at random."""

import math
import random
from typing import Any

import pytest
import torch
from gits import BOS, EOS, VOCABULARY, build_git

from model import CaptionModel

NETWORKS = 3
DRAWS = 16  # of options, for each network


@pytest.fixture(scope="module", params=range(NETWORKS))
def networks(request: pytest.FixtureRequest) -> tuple[Any, CaptionModel, random.Random]:
    draw = random.Random(request.param)
    heads = draw.choice((1, 2, 4))
    theirs: Any = build_git(
        hidden_size=heads * draw.choice((6, 10)),
        num_attention_heads=heads,
        num_hidden_layers=draw.choice((1, 2, 3)),
        intermediate_size=draw.choice((8, 50)),
        max_position_embeddings=24,
        vision={"num_hidden_layers": draw.choice((1, 2)), "image_size": draw.choice((16, 32))},
    )
    generator = torch.Generator().manual_seed(request.param)
    with torch.no_grad():  # other weights than any test has seen, and an end that comes early and late
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        theirs.output.bias[EOS] += draw.choice((1.0, 2.0, 3.0))
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        theirs.save_pretrained(directory)
        return theirs, CaptionModel.from_git(directory), draw


def options(draw: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same wishes as we and as transformers call them."""
    beams, longest = draw.randint(1, 5), draw.randint(1, 12)
    shortest = draw.choice((0, 0, draw.randint(0, longest - 1)))
    penalty = draw.choice((-1.0, 0.0, 0.6, 1.0, 2.0))
    count = draw.randint(1, beams)
    prefix = [draw.randrange(3, VOCABULARY) for _ in range(draw.choice((0, 0, 1, 3)))]
    banned = [[draw.randrange(3, VOCABULARY) for _ in range(draw.choice((1, 2)))] for _ in range(draw.choice((0, 0, 2, 8)))]
    ours = {"num_beams": beams, "num_return_sequences": count, "length_penalty": penalty, "prefix": prefix, "bad_words_ids": banned}
    theirs = {"num_beams": beams, "num_return_sequences": count, "length_penalty": penalty, "bad_words_ids": banned or None}
    theirs["input_ids"] = [BOS, *prefix]
    return ours | {"min_new_tokens": shortest, "max_new_tokens": longest}, theirs | {"min_new_tokens": shortest, "max_new_tokens": longest}


def test_every_option_gives_their_tokens_and_scores(networks: tuple[Any, CaptionModel, random.Random]) -> None:
    theirs, ours, draw = networks
    ended, cut = 0, 0
    for number in range(DRAWS):
        wishes, said = options(draw)
        images = draw.randint(1, 3)
        size = ours.config.preprocessing.size
        pixels = torch.randn(images, 3, *size, generator=torch.Generator().manual_seed(number))
        start = torch.tensor([said.pop("input_ids")] * images)
        greedy = {"length_penalty": None} if said["num_beams"] == 1 else {}
        output = theirs.generate(
            pixel_values=pixels, input_ids=start, do_sample=False, return_dict_in_generate=True, output_scores=True, **said | greedy
        )
        expected = [row[: row.index(EOS) + 1] if EOS in row else row for row in output.sequences[:, start.shape[1] :].tolist()]
        found = [text for texts in ours.search(pixels, **wishes) for text in texts]
        assert [list(text.tokens) for text in found] == expected, (wishes, images)
        ended += sum(row[-1] == EOS for row in expected)
        cut += sum(row[-1] != EOS for row in expected)
        if said["num_beams"] > 1 and not wishes["bad_words_ids"] and not wishes["min_new_tokens"]:
            for text, score in zip(found, output.sequences_scores.tolist(), strict=True):
                ranked = sum(text.log_probs) / len(text.log_probs) ** wishes["length_penalty"]
                assert math.isclose(ranked, score, rel_tol=1e-3, abs_tol=1e-3), (wishes, images)
    assert ended
    assert cut
