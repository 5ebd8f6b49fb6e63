"""The network against independent computations of the same thing."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from examples import lively, tiny_config
from torch import nn

from model import CaptionModel, load_model, save_model
from model.cache import KVCache
from model.decoder import attend, attend_shared
from model.masks import attention_mask, text_rows


def example(batch: int = 3, tokens: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(batch, 3, 32, 32, generator=generator)
    return pixels, torch.randint(3, 23, (batch, tokens), generator=generator)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_equals_torch_transformer_over_the_joined_sequence(norm: str) -> None:
    """`nn.TransformerEncoder` with our mask, given our weights, over [image ; text] in one piece."""
    model = lively(CaptionModel(tiny_config(norm=norm))).eval()
    config, decoder = model.config, model.decoder
    layer = nn.TransformerEncoderLayer(
        config.width, config.heads, config.ffn_width, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True, norm_first=norm == "pre"
    )
    reference = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False).eval()
    for theirs, ours in zip(reference.layers, decoder.blocks, strict=True):
        theirs.self_attn.in_proj_weight.data.copy_(ours.attention.qkv.weight)
        theirs.self_attn.in_proj_bias.data.copy_(ours.attention.qkv.bias)
        theirs.self_attn.out_proj.load_state_dict(ours.attention.output.state_dict())
        theirs.linear1.load_state_dict(ours.ffn[0].state_dict())
        theirs.linear2.load_state_dict(ours.ffn[2].state_dict())
        theirs.norm1.load_state_dict(ours.attention_norm.state_dict())
        theirs.norm2.load_state_dict(ours.ffn_norm.state_dict())
    pixels, ids = example()
    image = model.encoder(pixels)
    text = decoder.token_embedding(ids) + decoder.position_embedding(torch.arange(ids.shape[1]))
    joined = torch.cat([image, decoder.embedding_norm(text)], dim=1)
    kinds = torch.tensor([0] * image.shape[1] + [1] * ids.shape[1])
    hidden = decoder.final_norm(reference(joined, mask=~attention_mask(kinds)))[:, image.shape[1] :]
    torch.testing.assert_close(model(pixels, ids), decoder.logits(hidden), atol=2e-4, rtol=2e-4)


def test_a_token_changes_only_what_comes_after_it(tiny_model: CaptionModel) -> None:
    pixels, ids = example(batch=1)
    before = tiny_model(pixels, ids)
    for place in range(ids.shape[1]):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] - 3 + 1) % 20 + 3
        differs = (tiny_model(pixels, changed) - before).abs().amax(-1)[0] > 1e-6
        assert differs.tolist() == [False] * place + [True] * (ids.shape[1] - place)


def test_the_image_changes_every_position(tiny_model: CaptionModel) -> None:
    pixels, ids = example(batch=1)
    assert ((tiny_model(pixels + 0.5, ids) - tiny_model(pixels, ids)).abs().amax(-1) > 1e-5).all()


def test_cached_decoding_equals_the_whole_text_at_once(tiny_model: CaptionModel) -> None:
    pixels, ids = example()
    whole = tiny_model(pixels, ids)
    prefix = tiny_model.decoder.prefix(tiny_model.encoder(pixels))
    cache = KVCache([prefix])
    steps = [tiny_model.decoder.logits(tiny_model.decoder.step(part, cache)) for part in ids.split([2, 1, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_more_images_than_are_encoded_at_once_give_what_each_gives_alone(tiny_model: CaptionModel) -> None:
    images = torch.randn(19, 3, 32, 32)
    together = tiny_model.search(images, num_beams=2, max_new_tokens=6)
    alone = [tiny_model.search(image[None], num_beams=2, max_new_tokens=6)[0] for image in images]
    assert [texts[0].tokens for texts in together] == [texts[0].tokens for texts in alone]


def test_padding_at_the_right_changes_nothing_before_it(tiny_model: CaptionModel) -> None:
    pixels, ids = example(batch=2)
    padded = ids.clone()
    padded[1, 4:] = tiny_model.config.pad_token_id
    alone = tiny_model(pixels[1:], ids[1:, :4])
    torch.testing.assert_close(tiny_model(pixels, padded)[1:, :4], alone, atol=1e-5, rtol=1e-5)


def test_shared_attention_equals_attention_over_repeated_keys() -> None:
    images, hypotheses, heads, p, new, d = 2, 3, 2, 5, 4, 4
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(images * hypotheses, heads, new, d, generator=draw)
    prefix_key, prefix_value = torch.randn(2, images, heads, p, d, generator=draw)
    key, value = torch.randn(2, images * hypotheses, heads, new, d, generator=draw)
    mask = text_rows(p, new)
    repeated = [torch.cat([side.repeat_interleave(hypotheses, 0), own], 2) for side, own in ((prefix_key, key), (prefix_value, value))]
    expected = attend(query, repeated[0], repeated[1], mask)
    torch.testing.assert_close(attend_shared(query, prefix_key, prefix_value, key, value, mask), expected, atol=1e-6, rtol=1e-5)


def test_loss_is_the_mean_cross_entropy_over_labelled_positions(tiny_model: CaptionModel) -> None:
    pixels, ids = example()
    labels = ids.roll(-1, 1)
    labels[0, 3:] = -100
    labels[:, -1] = -100
    log_probs = tiny_model(pixels, ids).log_softmax(-1)
    picked = [log_probs[i, t, labels[i, t]] for i in range(3) for t in range(7) if labels[i, t] != -100]
    torch.testing.assert_close(tiny_model.loss(pixels, ids, labels), -torch.stack(picked).mean())


def test_texts_of_one_image_share_what_is_computed_of_it(tiny_model: CaptionModel) -> None:
    """The same loss and gradients as with a row of its own for each text, and the encoder sees each image once."""
    pixels, (_, ids) = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), example(batch=6)
    labels = ids.roll(-1, 1)
    labels[2, 3:] = -100
    pictures, seen = torch.tensor([0, 0, 1, 2, 2, 2]), list[int]()
    handle = tiny_model.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    losses, gradients = [], []
    for loss in (tiny_model.summed_loss(pixels, ids, labels, pictures), tiny_model.summed_loss(pixels[pictures], ids, labels)):
        tiny_model.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: weight.grad.clone() for name, weight in tiny_model.named_parameters() if weight.grad is not None})
    handle.remove()
    assert seen == [3, 6]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-3)


def test_label_smoothing_in_training_only(tiny_model: CaptionModel) -> None:
    pixels, ids = example()
    log_probs = tiny_model(pixels, ids).log_softmax(-1)
    right = log_probs.gather(-1, ids[..., None]).squeeze(-1)
    by_hand = -(0.9 * right + 0.1 * log_probs.mean(-1)).mean()
    tiny_model.train()
    torch.testing.assert_close(tiny_model.loss(pixels, ids, ids), by_hand, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    model = lively(CaptionModel(tiny_config())).train()
    pixels, ids = example()
    model.loss(pixels, ids, ids.roll(-1, 1)).backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    # the class head's norm of the ViT is part of forward_features; the last token position is never reached by 7 tokens
    assert silent == []


def gradients(model: CaptionModel) -> dict[str, torch.Tensor]:
    pixels, ids = example()
    labels = ids.roll(-1, 1)
    labels[1, 4:] = -100
    loss = model.loss(pixels, ids, labels)
    loss.backward()
    return {"loss": loss.detach()} | {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("encoder", ["test_vit", "test_convnext"])
def test_gradient_checkpointing_changes_only_memory(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from model import EncoderConfig, decoder

    model = lively(CaptionModel(tiny_config(encoder=EncoderConfig(name=encoder)))).train()
    expected = gradients(model)
    model.zero_grad()
    layers: list[object] = []
    original = decoder.checkpoint
    monkeypatch.setattr(decoder, "checkpoint", lambda layer, *rest, **options: (layers.append(layer), original(layer, *rest, **options))[1])
    model.enable_gradient_checkpointing()
    found = gradients(model)
    assert len(layers) == 2 * model.config.layers - 1  # the image's last layer makes keys and values alone
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_network_gives_the_same_loss_and_gradients(backend: str) -> None:
    model = lively(CaptionModel(tiny_config())).train()
    expected = gradients(model)
    model.zero_grad()
    compiled = torch.compile(model.loss, backend=backend, dynamic=True)
    pixels, ids = example()
    labels = ids.roll(-1, 1)
    labels[1, 4:] = -100
    loss = compiled(pixels, ids, labels)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected["loss"], atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_overfits_one_batch() -> None:
    model = CaptionModel(tiny_config()).train()
    pixels, ids = example(batch=4)
    ids[:, 0] = model.config.bos_token_id
    labels = torch.cat([ids[:, 1:], torch.full((4, 1), model.config.eos_token_id)], 1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(pixels, ids, labels).backward()
        optimizer.step()
    model.eval()
    tokens, scores = model.generate(pixels, num_beams=1, max_new_tokens=7)
    assert tokens.tolist() == labels.tolist()
    assert (scores > -0.2).all()


def test_too_many_text_tokens_is_an_error_that_says_how_many(tiny_model: CaptionModel) -> None:
    pixels, _ = example(batch=1)
    with pytest.raises(ValueError, match=r"17 text tokens.*16"):
        tiny_model(pixels, torch.full((1, 17), 4))


def test_weights_begin_as_gpt_2s_do() -> None:
    """Normal with 0.02, what ends a residual branch with 0.02 / sqrt(2 layers); biases of zero and norms of one."""
    torch.manual_seed(1)
    config = tiny_config(width=64, layers=8, ffn_width=128, tied_output=False)
    decoder = CaptionModel(config).decoder
    for name, weight in decoder.named_parameters():
        if weight.ndim == 2:
            ends = name.endswith(("attention.output.weight", "ffn.2.weight"))
            assert float(weight.std()) == pytest.approx(0.02 / (4 if ends else 1), rel=0.15), name
        elif "norm" in name and name.endswith("weight"):
            assert weight.eq(1).all(), name
        else:
            assert weight.eq(0).all(), name


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_everything_that_is_to_be_dropped_is(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings, attention weights and both branches of every layer, over image and text; the last layer of the image is nobody's input."""
    import model.decoder
    import model.dropout

    shapes: list[tuple[int, ...]] = []

    def record(x: torch.Tensor, probability: float) -> torch.Tensor:
        if probability > 0:
            assert probability == 0.25
            shapes.append(tuple(x.shape))
        return x

    monkeypatch.setattr(model.decoder, "dropout", record)
    monkeypatch.setattr(model.dropout, "dropout", record)
    network = CaptionModel(tiny_config(norm=norm, dropout=0.25)).train()
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(3, 20, (2, 6))
    network(pixels, ids)
    image, layers, heads, width = network.num_image_tokens, 3, 4, 32
    expected = Counter({(2, 6, width): 1 + 2 * layers, (2, heads, 6, image + 6): layers, (2, image, width): 2 * (layers - 1)})
    expected[(2, heads, image, image)] = layers - 1
    assert Counter(shapes) == expected
    shapes.clear()
    hypotheses = network.decoder(ids.repeat(2, 1), network.decoder.prefix(network.encoder(pixels)))  # two texts for each image
    assert hypotheses.shape == (4, 6, width)
    assert Counter(shapes)[(4, heads, 6, image + 6)] == layers
    shapes.clear()
    network.eval()(pixels, ids)
    assert shapes == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_kept_in_the_precision_they_were_stored_in(tmp_path: Path, dtype: torch.dtype) -> None:
    save_model(CaptionModel(tiny_config()).to(dtype), tmp_path)
    assert {parameter.dtype for parameter in load_model(tmp_path).parameters()} == {dtype}
