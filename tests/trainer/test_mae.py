"""MAE: its loss written out, that of transformers' network, its masks, and what it refuses."""

import base64
import math

import pytest
import torch
from PIL import Image
from small_methods import build, transformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ortho_kernels.trainer.backbones import BACKBONES, Wrapped, build_encoder
from ortho_kernels.trainer.distributed.processes import Ranks
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.methods import METHODS, BatchPlace
from ortho_kernels.trainer.methods.masking import visible_count, visible_tokens
from ortho_kernels.trainer.runs.pretrain import pretrain

DECODER = {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}
NETWORK = {"img_size": 12, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}


def mae(encoder=None, **options):
    return METHODS["mae"](encoder or transformer(**NETWORK), METHODS["mae"].Settings(**DECODER | options))


def pictures(count=3, size=12, channels=3):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def scattered(module):
    """Weights as training leaves them: no norm is 1, no bias 0."""
    drawn = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=drawn))
    return module


def order_of(method, count, patches):
    """The numbers of each picture's patches, those that stay visible first."""
    noise = method.place.uniform("mask", count, patches, torch.device("cpu"))
    return [sorted(range(patches), key=row.__getitem__) for row in noise.tolist()]


# The network written out for one picture, in the order of its patches: names are those of the weights.


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights, name, x):
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def block(weights, name, x, heads):
    width = x.shape[1]
    each = width // heads
    qkv = linear(weights, f"{name}.attn.qkv", norm(weights, f"{name}.norm1", x))
    seen = torch.zeros_like(x)
    for head in range(heads):
        query, key, value = (qkv[:, part * width + head * each :][:, :each] for part in range(3))
        scores = (query @ key.T / math.sqrt(each)).exp()
        seen[:, head * each :][:, :each] = scores / scores.sum(1, keepdim=True) @ value
    x = x + linear(weights, f"{name}.attn.proj", seen)
    hidden = linear(weights, f"{name}.mlp.fc1", norm(weights, f"{name}.norm2", x))
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + linear(weights, f"{name}.mlp.fc2", hidden)


def patches_of(picture, side):
    """`(patches, pixels)`: the channels of a pixel side by side."""
    channels, height, width = picture.shape
    found = []
    for row in range(0, height, side):
        for column in range(0, width, side):
            pixels = [
                picture[c, row + i, column + j] for i in range(side) for j in range(side) for c in range(channels)
            ]
            found.append(torch.stack(pixels))
    return torch.stack(found)


def loss_of(picture, order, weights, positions, masked, normalize, side=4, heads=(3, 2)):
    """The mean squared error over the pixels of the masked patches, each patch with the published normalization."""
    target = patches_of(picture, side)
    kernel = weights["encoder.network.patch_embed.proj.weight"].permute(0, 2, 3, 1).flatten(1)
    embedded = target @ kernel.T + weights["encoder.network.patch_embed.proj.bias"]
    places = weights["encoder.network.pos_embed"][0]
    hidden = set(order[len(order) - masked :])
    visible = [number for number in range(len(target)) if number not in hidden]
    tokens = torch.stack(
        [weights["encoder.network.cls_token"][0, 0] + places[0]] + [embedded[n] + places[n + 1] for n in visible]
    )
    for number in range(2):
        tokens = block(weights, f"encoder.network.blocks.{number}", tokens, heads[0])
    tokens = linear(weights, "decoder.embedding", norm(weights, "encoder.network.norm", tokens))
    whole = [tokens[0]]  # the class token, which the decoder gives no position
    for number in range(len(target)):
        token = weights["decoder.mask_token"][0, 0] if number in hidden else tokens[1 + visible.index(number)]
        whole.append(token + positions[0, number])
    whole = torch.stack(whole)
    for number in range(2):
        whole = block(weights, f"decoder.blocks.{number}", whole, heads[1])
    predicted = linear(weights, "decoder.head", norm(weights, "decoder.norm", whole))[1:]
    errors = []
    for number in hidden:
        wanted = target[number]
        if normalize:
            mean = wanted.mean()
            variance = (wanted - mean).square().sum() / (len(wanted) - 1)
            wanted = (wanted - mean) / (variance + 1e-6).sqrt()
        errors.append((predicted[number] - wanted).square().mean())
    return torch.stack(errors).mean()


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_the_published_one(normalize):
    method = scattered(mae(normalize_pixels=normalize)).double()
    method.place = BatchPlace(seed=3, number=5)
    images = pictures().double()
    weights = {name: value.detach() for name, value in method.state_dict().items()}
    orders = order_of(method, 3, 9)
    assert len({tuple(order) for order in orders}) == 3
    expected = [
        loss_of(image, order, weights, method.decoder.positions, 7, normalize)
        for image, order in zip(images, orders, strict=True)
    ]
    loss = method([images]).loss
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-6, atol=0)


def test_the_decoder_knows_places_by_fixed_sines_and_cosines():
    positions = mae().decoder.positions
    assert positions.shape == (1, 9, 16)
    assert not positions.requires_grad
    for row, column in ((0, 0), (1, 2), (2, 1)):
        angles = [place / 10_000 ** (i / 4) for place in (row, column) for i in range(4)]
        expected = [*map(math.sin, angles[:4]), *map(math.cos, angles[:4])]
        expected += [*map(math.sin, angles[4:]), *map(math.cos, angles[4:])]
        torch.testing.assert_close(positions[0, 3 * row + column], torch.tensor(expected))


def test_transformers_network_gives_the_same_loss():
    transformers = pytest.importorskip("transformers")
    method = scattered(mae())
    config = transformers.ViTMAEConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=12,
        patch_size=4,
        layer_norm_eps=1e-6,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        mask_ratio=0.75,
        norm_pix_loss=True,
    )
    theirs = transformers.ViTMAEForPreTraining(config)
    theirs.load_state_dict(dict(as_transformers(method)))
    images = pictures()
    noise = method.place.uniform("mask", 3, 9, torch.device("cpu"))
    found = theirs(images, noise=noise)
    assert found.mask.sum() == 3 * 7
    torch.testing.assert_close(method([images]).loss, found.loss, rtol=1e-5, atol=0)


def as_transformers(method):
    """Our weights by transformers' names, in which queries, keys and values are apart."""
    ends = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
    heads = {
        "encoder.network.cls_token": "vit.embeddings.cls_token",
        "encoder.network.pos_embed": "vit.embeddings.position_embeddings",
        "encoder.network.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "encoder.network.blocks": "vit.layers",
        "encoder.network.norm": "vit.layernorm",
        "decoder.embedding": "decoder.decoder_embed",
        "decoder.blocks": "decoder.decoder_layers",
        "decoder.norm": "decoder.decoder_norm",
        "decoder.head": "decoder.decoder_pred",
        "decoder.mask_token": "decoder.mask_token",
    }
    positions = torch.cat([torch.zeros(1, 1, 16), method.decoder.positions], dim=1)
    yield "decoder.decoder_pos_embed", positions
    for name, value in method.state_dict().items():
        head = next(head for head in heads if name.startswith(head))
        name = heads[head] + name.removeprefix(head)
        for end, theirs in ends.items():
            name = name.replace(end, theirs)
        if ".attn.qkv." in name:
            for part, letter in zip(value.chunk(3), "qkv", strict=True):
                yield name.replace("attn.qkv", f"attention.{letter}_proj"), part
        else:
            yield name, value


def test_the_initial_weights_are_the_published_ones():
    torch.manual_seed(0)
    options = {"depth": 1, "initialization": "mae", "positions": "sincos"}
    network = build_encoder(BACKBONES["vit_tiny"](**options), 3, 32).network
    decoder = mae().decoder
    layers = [layer for module in (network, decoder) for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == 4 + 2 + 2 * 4
    for layer in layers:
        assert_xavier(layer.weight)
        assert not layer.bias.any()
    assert_xavier(network.patch_embed.proj.weight.flatten(1))
    for token in (network.cls_token, mae(decoder_width=512).decoder.mask_token):
        assert token.std().item() == pytest.approx(0.02, rel=0.2)
    assert not network.pos_embed.requires_grad


def assert_xavier(weight):
    """Uniform with the variance 2 / (rows + columns)."""
    bound = math.sqrt(6 / sum(weight.shape))
    assert 0.98 * bound < weight.abs().max() <= bound
    assert weight.square().mean().item() == pytest.approx(bound**2 / 3, rel=0.15)


@pytest.mark.parametrize(("patches", "mask", "visible"), [(196, 0.75, 49), (64, 0.75, 16), (49, 0.75, 12), (4, 0.3, 2)])
def test_how_many_patches_stay_visible(patches, mask, visible):
    assert visible_count(patches, mask) == visible


def test_the_encoder_sees_nothing_of_a_masked_patch():
    method = mae(normalize_pixels=False)
    images = pictures().requires_grad_()
    [gradient] = torch.autograd.grad(method([images]).projections[:, 0].sum(), images)
    touched = gradient.unflatten(2, (3, 4)).unflatten(4, (3, 4)).abs().sum((1, 3, 5)).flatten(1) > 0
    for row, order in zip(touched.tolist(), order_of(method, 3, 9), strict=True):
        assert {number for number, flag in enumerate(row) if flag} == set(order[:2])


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"no_embed_class": True, "reg_tokens": 1}])
def test_with_all_patches_visible_the_encoder_is_the_one_that_is_judged(options):
    encoder = scattered(transformer(**NETWORK, **options))
    images = pictures()
    tokens = visible_tokens(encoder.network, images, torch.arange(9).expand(3, -1))
    torch.testing.assert_close(tokens[:, 0], encoder(images))
    method = mae(encoder)
    assert method.network("student") is encoder
    assert method([images]).loss.isfinite()


def test_a_mask_is_a_function_of_the_seed_the_batch_and_the_place():
    method = mae()
    images = pictures(6)

    def losses(place):
        torch.rand(1)  # what else is drawn does not matter
        method.place = place
        return method([images[place.ranks.rank * 3 :][:3] if place.ranks.count == 2 else images]).loss.item()

    assert losses(BatchPlace(0, 4)) == losses(BatchPlace(0, 4))
    assert len({losses(place) for place in (BatchPlace(0, 4), BatchPlace(0, 5), BatchPlace(1, 4))}) == 3
    parts = [losses(BatchPlace(0, 4, Ranks(rank, 2))) for rank in (0, 1)]
    assert sum(parts) / 2 == pytest.approx(losses(BatchPlace(0, 4)), rel=1e-5)


def test_compiled_it_is_the_same_and_draws_another_mask_each_time():
    method, images = mae(), pictures()
    plain = []
    for number in range(3):
        method.place = BatchPlace(0, number)
        plain.append(method([images]).loss.item())
    graphs = []
    method.compile(backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
    compiled = []
    for number in range(3):
        method.place = BatchPlace(0, number)
        compiled.append(method([images]).loss.item())
        if number == 0:
            first = len(graphs)
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert len(graphs) == first > 0  # none is made anew for another batch


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (lambda: build_encoder(BACKBONES["resnet18"](width=2), 3, 12), "it can't of a ResNet"),
        (lambda: timm_encoder("swin_tiny_patch4_window7_224", img_size=64), "it can't of a SwinTransformer"),
        (lambda: timm_encoder("eva02_tiny_patch14_224", img_size=28), "it can't of a Eva"),
        (lambda: transformer(**NETWORK, class_token=False, global_pool="avg"), "global_pool='avg'"),
        (lambda: transformer(**NETWORK, pos_embed="none"), "without a position embedding"),
    ],
)
def test_what_has_no_patches_to_leave_out_is_refused(encoder, said):
    with pytest.raises(TrainerError, match=said) as error:
        mae(encoder())
    assert "Give backbone=vit_tiny" in str(error.value)


def timm_encoder(model, **options):
    return build_encoder(BACKBONES["timm"](model=model, options=options), 3, options["img_size"])


def test_a_plain_transformer_of_timm_serves():
    encoder = timm_encoder("vit_tiny_patch16_224", img_size=32, depth=1)
    assert isinstance(encoder, Wrapped)
    assert type(encoder.network) is VisionTransformer
    assert mae(encoder, mask=0.5)([pictures(size=32)]).loss.isfinite()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"mask": 0.95},
            r"method\.mask=0\.95 of 9 patches leaves none of them visible: give a share from 0\.11 to 0\.89",
        ),
        ({"mask": 0.0}, "leaves none of them masked"),
        ({"decoder_width": 18}, r"method\.decoder_width=18 must be a multiple of 4 and of method\.decoder_heads=2"),
        ({"decoder_heads": 3}, r"method\.decoder_width=16 must be a multiple of 4 and of method\.decoder_heads=3"),
    ],
)
def test_options_that_do_not_fit_the_pictures_are_refused(options, said):
    with pytest.raises(TrainerError, match=said):
        mae(**options)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(TrainerError, match=r"built for pictures of 12 x 12 pixels, and the views have 16 x 16\. Give"):
        mae(transformer(**NETWORK, dynamic_img_size=True))([pictures(size=16)])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method.mask=1", "method.mask must be more than 0 and less than 1; got 1.0."),
        ("method.mask=0", "method.mask must be more than 0 and less than 1; got 0.0."),
        ("method.views=two", "method.views must be one; got two."),
        ("optimizer.betas=[0.9,1]", "optimizer.betas must be at least 0 and less than 1; got 1.0."),
    ],
)
def test_options_that_no_run_can_have_are_answered_before_it(tiny, word, said):
    with pytest.raises(TrainerError) as error:
        tiny("method=mae", "backbone=vit_tiny", "optimizer=adamw", word)
    assert str(error.value) == said


def test_a_run_with_a_convolutional_network_is_refused_at_once(run_tiny, tmp_path):
    with pytest.raises(TrainerError, match="method=mae leaves patches out of a plain vision transformer"):
        run_tiny("method=mae")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("normalize", [True, False])
def test_what_it_shows_is_the_picture_where_nothing_is_masked_and_the_decoders_elsewhere(normalize):
    method = mae(normalize_pixels=normalize)
    nn.init.zeros_(method.decoder.head.weight)  # so it predicts 0: with normalized pixels, the mean of each patch
    images = pictures()
    masked, reconstructed = method.illustrate(images)
    for image, hidden, drawn, order in zip(images, masked, reconstructed, order_of(method, 3, 9), strict=True):
        for number in range(9):
            place = slice(number // 3 * 4, number // 3 * 4 + 4), slice(number % 3 * 4, number % 3 * 4 + 4)
            true, seen, guess = (each[(slice(None), *place)] for each in (image, hidden, drawn))
            if number in order[:2]:
                assert torch.equal(seen, true)
                assert torch.equal(guess, true)
            else:
                assert not seen.any()
                expected = true.mean() if normalize else torch.zeros(())
                torch.testing.assert_close(guess, expected.expand_as(guess))


def test_a_run_leaves_its_reconstructions_and_the_report_shows_them(tiny):
    folder = pretrain(tiny("method=mae", "backbone=vit_tiny", "data.views.jitter=0", "trainer.tensorboard=false"))
    strip = Image.open(folder / "illustration.png")
    assert (strip.mode, strip.size) == ("L", (8 * 8, 3 * 8))
    page = (folder / "report.html").read_text()
    assert base64.b64encode((folder / "illustration.png").read_bytes()).decode() in page
    assert "<h2>Reconstructions</h2>" in page


def test_gray_pictures_are_reconstructed_in_gray():
    method = mae(transformer(**NETWORK, in_chans=1))
    assert method.decoder.head.out_features == 16
    assert method([pictures(channels=1)]).loss.isfinite()


def test_a_small_method_has_the_options_of_the_others():
    assert build("mae").network("student").features == 8
