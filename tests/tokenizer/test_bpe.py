import itertools
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from torch.utils.data import DataLoader, Dataset

from diffusion.mini.world import random_scenes
from tokenizer import PromptTokenizer, TokenizerError

PROMPTS = [prompt for _, prompt in itertools.islice(random_scenes(0, held_out=False), 500)]
TOKENIZER = PromptTokenizer.train(PROMPTS, vocab_size=600)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_unicode_survives_the_round_trip(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "(masterpiece:1.2), ((best quality)), [blurry:0.5]",
        "<lora:detail:0.8> cat",
        "  two  spaces\nand lines\t",
        "naïve 猫 🦊\u200d👩 \x00",
        "a" * 5000,
        "",
    ],
)
def test_what_people_write_survives(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize("special", ["<|begin|>", "<|end|>", "<|pad|>"])
def test_text_that_looks_like_a_special_token_stays_text(special: str) -> None:
    ids = TOKENIZER.encode(f"a cat {special} a dog")
    assert not {TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id} & set(ids)
    assert TOKENIZER.decode(ids) == f"a cat {special} a dog"


def test_special_tokens_are_three_and_leave_no_text() -> None:
    specials = [TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id]
    assert len(set(specials)) == 3
    assert TOKENIZER.decode([*specials, *TOKENIZER.encode("a fox"), TOKENIZER.eos_id]) == "a fox"


def test_learns_the_words_of_its_prompts() -> None:
    assert len(TOKENIZER.encode("a watercolor painting of")) == 4
    assert TOKENIZER.vocab_size <= 600


def test_saved_and_loaded_it_encodes_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    again = PromptTokenizer.load(tmp_path / "tokenizer.json")
    assert [again.encode(prompt) for prompt in [*PROMPTS, "<|end|>"]] == [TOKENIZER.encode(prompt) for prompt in [*PROMPTS, "<|end|>"]]
    assert (again.bos_id, again.eos_id, again.pad_id) == (TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="259 or more"):
        PromptTokenizer.train(PROMPTS, vocab_size=100)
    with pytest.raises(TokenizerError, match="no text"):
        PromptTokenizer.train(["", "  "])
    with pytest.raises(TokenizerError, match=r"nothing\.json does not exist"):
        PromptTokenizer.load(tmp_path / "nothing.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"broken\.json is not a tokenizer file"):
        PromptTokenizer.load(tmp_path / "broken.json")


class _Tokens(Dataset[list[int]]):
    """What a loading process makes of texts."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> list[int]:
        return self.tokenizer.encode(("<|end|> a fox", "a<|pad|>")[index])


def test_a_spawned_loading_process_reads_typed_special_tokens_as_text() -> None:
    loader = DataLoader(_Tokens(TOKENIZER), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    tokens = list(loader)
    assert tokens == [TOKENIZER.encode("<|end|> a fox"), TOKENIZER.encode("a<|pad|>")]
    assert not {TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id} & {token for some in tokens for token in some}
    assert pickle.loads(pickle.dumps(TOKENIZER)).pieces == TOKENIZER.pieces


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_pieces_are_the_bytes_and_texts_the_characters(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    assert b"".join(TOKENIZER.pieces[token] for token in tokens) == text.encode()
    texts = TOKENIZER.added(tokens)
    assert len(texts) == len(tokens)
    assert "".join(texts) == text
    assert "\ufffd" not in "".join(texts) or "\ufffd" in text


def test_special_tokens_and_half_characters_have_texts_too() -> None:
    tokens = [*TOKENIZER.encode("猫"), TOKENIZER.eos_id]
    assert TOKENIZER.added(tokens)[-1] == ""
    assert "".join(TOKENIZER.added(tokens)) == "猫"
    assert TOKENIZER.added(tokens[:1])[0] == "\ufffd"  # as decode says it


def test_the_pieces_of_a_bert_have_their_spaces() -> None:
    bert = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "cat", "##s", "on", "!"])}, unk_token="[UNK]")
    )
    bert.decoder = decoders.WordPiece()
    bert.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    tokenizer = PromptTokenizer(bert)
    assert tokenizer.added([4, 5, 6, 7, 4, 3, 2]) == ["cat", "s", " on", "!", " cat", "", ""]
    assert tokenizer.pieces == [b"", b"", b"", b"", b" cat", b"s", b" on", b" !"]
