import torch

from model.masks import attention_mask, text_rows


def test_table_of_two_image_and_three_text_tokens() -> None:
    by_hand = [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    assert attention_mask(torch.tensor([0, 0, 1, 1, 1])).tolist() == torch.tensor(by_hand).bool().tolist()


def test_batched_tables_are_the_single_ones() -> None:
    kinds = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    together = attention_mask(kinds)
    assert together.shape == (2, 4, 4)
    for row in range(2):
        assert torch.equal(together[row], attention_mask(kinds[row]))


def test_text_rows_are_rows_of_the_whole_table() -> None:
    whole = attention_mask(torch.tensor([0] * 3 + [1] * 6))
    for text in range(1, 7):
        assert torch.equal(text_rows(3, text), whole[3 : 3 + text, : 3 + text])
