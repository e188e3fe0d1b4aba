"""Folders for transformers: its own classes load them and give the run's features; what it has no network for is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from saved_encoder import save_encoder
from torch import nn

from ortho_kernels.trainer.backbones import build_encoder
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data.preprocess import Preprocess
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder, export_huggingface, huggingface
from ortho_kernels.trainer.export.__main__ import main
from ortho_kernels.trainer.export.image_processor import image_processor
from ortho_kernels.trainer.runs.trained import load_trained

FILES = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
SMALL_VIT = ["backbone=timm", "backbone.model=vit_tiny_patch16_224"]
IMAGENET = "backbone.stem=imagenet"


@pytest.fixture
def checkpoint(tmp_path):
    """The folder of a run that "trained" a backbone for pictures of 32 pixels, and the encoder."""

    def write(*words, channels=3, size=32):
        config = load_config(["data=digits", f"data.size={size}", *words])
        encoder = build_encoder(OmegaConf.to_object(config.backbone), channels, size)
        age(encoder, channels, size)
        preprocess = {"channels": channels, "decode_size": size, "size": size}
        preprocess |= {"mean": [0.5] * channels, "std": [0.2] * channels}
        return save_encoder(tmp_path / "run", config, encoder, preprocess), encoder

    return write


@torch.no_grad()
def age(encoder, channels, size):
    """Gives all weights, statistics and positions values that no initialization gives, as training does."""
    generator = torch.Generator().manual_seed(0)
    for weight in encoder.parameters():
        weight += 0.02 * torch.randn(weight.shape, generator=generator)
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.5
            layer.weight += 0.2 * torch.rand(layer.weight.shape, generator=generator)
    encoder.train()(0.3 + torch.randn(8, channels, size, size, generator=generator))
    encoder.eval()


def load(folder):
    """As its user loads it; nothing may be missing, left over or made at random."""
    from transformers import AutoModel

    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert not model.training
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    ("words", "channels", "kind"),
    [
        (["backbone=resnet18", IMAGENET], 3, "ResNetModel"),
        (["backbone=resnet18", IMAGENET, "backbone.width=6"], 1, "ResNetModel"),
        (["backbone=resnet50", IMAGENET, "backbone.width=8"], 3, "ResNetModel"),
        (["backbone=torchvision", "backbone.model=resnet34"], 1, "ResNetModel"),
        (["backbone=timm", "backbone.model=resnet26"], 3, "ResNetModel"),
        (["backbone=vit_tiny", "backbone.depth=2"], 3, "ViTModel"),
        (["backbone=vit_small", "backbone.depth=1", "backbone.positions=sincos"], 1, "ViTModel"),
        (["backbone=vit_base", "backbone.depth=1", "backbone.patch=8", "backbone.heads=6"], 3, "ViTModel"),
        ([*SMALL_VIT, "backbone.options={img_size: 32, patch_size: 8, depth: 2, qkv_bias: false}"], 3, "ViTModel"),
        ([*SMALL_VIT, "backbone.options={img_size: 32, patch_size: 8, depth: 1, mlp_ratio: 2.7}"], 3, "ViTModel"),
    ],
)
def test_transformers_gives_the_features_of_the_encoder(checkpoint, tmp_path, words, channels, kind):
    run, encoder = checkpoint(*words, channels=channels)
    export_huggingface(run, tmp_path / "folder")
    model = load(tmp_path / "folder")
    assert type(model).__name__ == kind
    images = torch.randn(3, channels, 32, 32)
    output, features = model(images), encoder(images)
    assert features.std(0).mean() > 1e-3
    close = {"rtol": 0, "atol": 1e-5 * max(1, features.abs().max().item())}
    torch.testing.assert_close(output.pooler_output.flatten(1), features, **close)
    if kind == "ViTModel":
        torch.testing.assert_close(output.last_hidden_state[:, 0], features, **close)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["backbone=resnet18"], r"its stem is a convolution of 3 x 3, and transformers' ResNet begins with 7 x 7"),
        (["backbone=wrn28_2", "backbone.depth=10"], "it is a WideResNet, and only a plain ViT and a ResNet"),
        (["backbone=timm"], "it is a ConvNeXt, and only a plain ViT"),
        (["backbone=timm", "backbone.model=resnet10t"], "its stem is several convolutions"),
        (
            ["backbone=torchvision", "backbone.model=resnet50", "backbone.options={width_per_group: 8}"],
            r"not those of transformers' ResNet \(size mismatch for layer1\.0\.conv1\.weight",
        ),
        (
            ["backbone=timm", "backbone.model=resnet18", "backbone.options={output_stride: 8}"],
            "fit transformers' ResNet, and its features are others",
        ),
        (
            [*SMALL_VIT, "backbone.options={img_size: 32, depth: 1, global_pool: avg}"],
            r"pooled over the patches \(global_pool=avg\), and those of transformers' ViT are the class token's",
        ),
        (
            [*SMALL_VIT, "backbone.options={img_size: 32, depth: 1, init_values: 0.1}"],
            r"not those of transformers' ViT \(Unexpected .*blocks\.0\.ls1\.gamma",
        ),
        ([*SMALL_VIT, "backbone.options={depth: 1, dynamic_img_size: true}"], "size mismatch for pos_embed"),
        (
            [*SMALL_VIT, "backbone.options={img_size: 32, depth: 1, act_layer: silu}"],
            "fit transformers' ViT, and its features are others",
        ),
        (
            [
                "backbone=timm",
                "backbone.model=deit_tiny_distilled_patch16_224",
                "backbone.options={img_size: 32, depth: 1}",
            ],
            "not those of transformers' ViT",
        ),
    ],
)
def test_what_transformers_has_no_network_for_is_refused_with_the_reason(checkpoint, tmp_path, words, reason):
    run, _ = checkpoint(*words)
    with pytest.raises(TrainerError, match=rf"cannot become a folder for transformers: .*{reason}") as caught:
        export_huggingface(run, tmp_path / "folder")
    assert str(caught.value).endswith("Leave format=huggingface out: a safetensors file holds any encoder.")
    assert list(tmp_path.iterdir()) == [run]


def picture(height, width, mode):
    coarse = np.random.default_rng(height).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def processor(tmp_path):
    from transformers import AutoImageProcessor

    def load(preprocess, backend):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(image_processor(preprocess)))
        return AutoImageProcessor.from_pretrained(tmp_path, backend=backend)

    return load


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_processor_gives_the_runs_own_pixels(processor, mode):
    """By PIL to rounding; by torchvision, which rounds a scaled byte now and then otherwise, to one level."""
    channels = len(mode)
    preprocess = Preprocess(channels, 32, 32, (0.5, 0.4, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels])
    level = 1 / 255 / 0.2
    for height, width in ((32, 32), (64, 64), (20, 40), (96, 64), (71, 100), (20, 31), (40, 59), (59, 40), (61, 97)):
        image = picture(height, width, mode)
        ours = preprocess(image)
        for backend, atol in (("pil", 1e-5), ("torchvision", 1e-5 if height == width else level + 1e-5)):
            theirs = processor(preprocess, backend)(image, return_tensors="pt").pixel_values[0]
            torch.testing.assert_close(theirs, ours, rtol=0, atol=atol)


@pytest.mark.parametrize(("decode_size", "size"), [(28, 16), (28, 32), (40, 32)])
def test_pictures_of_the_runs_size_that_are_scaled_differ_by_rounding_to_bytes(processor, decode_size, size):
    preprocess = Preprocess(1, decode_size, size, (0.3,), (0.35,))
    image = picture(decode_size, decode_size, "L")
    theirs = processor(preprocess, "pil")(image, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(theirs, preprocess(image), rtol=0, atol=1 / 255 / 0.35)


@pytest.fixture
def run(run_tiny):
    """A small ViT that has trained on pictures of 8 x 8 gray pixels."""
    words = "backbone=vit_tiny", "method=byol", "optimizer.lr=1", "optimizer.warmup=0", "trainer.ema=0.5"
    return run_tiny(*words, "trainer.max_steps=3")


@torch.no_grad()
def test_one_command_takes_a_run_to_its_own_features_in_transformers(run, capsys, monkeypatch):
    main([str(run), "format=huggingface"])
    folder = run / "huggingface"
    said = capsys.readouterr().out
    assert f"{folder}: transformers' ViTModel" in said
    assert f'AutoModel.from_pretrained("{folder}")' in said
    assert sorted(path.name for path in folder.iterdir()) == FILES
    trained = load_trained(run)
    pixels = trained.splits().test.batch(torch.arange(10))
    from transformers import AutoImageProcessor

    pictures = [Image.fromarray(each.numpy()) for each in pixels[:, 0]]
    inputs = AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")
    features = load(folder)(**inputs).pooler_output
    torch.testing.assert_close(features, trained.encoder(trained.preprocess.view(pixels)), rtol=0, atol=1e-5)


def test_student_teacher_and_average_are_exported(run, tmp_path):
    found = []
    for network in ("student", "teacher", "ema"):
        main([str(run), str(tmp_path / network), "format=huggingface", f"network={network}"])
        found.append(
            load_file(tmp_path / network / "model.safetensors")["embeddings.patch_embeddings.projection.weight"]
        )
        weight = load_trained(run, network).encoder.network.patch_embed.proj.weight
        assert torch.equal(found[-1], weight)
        assert f"| network | {network} |" in (tmp_path / network / "README.md").read_text()
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_an_exported_file_becomes_the_same_folder(run, tmp_path):
    file = tmp_path / "encoder.safetensors"
    export_encoder(run, file)
    main([str(file), "format=huggingface"])
    main([str(run), "format=huggingface"])
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (tmp_path / "encoder" / name).read_bytes() == (run / "huggingface" / name).read_bytes()
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert "# vit_tiny, pretrained by byol on digits" in card
    assert "None are known" in card  # scores stand in the run's folder
    with pytest.raises(TrainerError, match=r"network=teacher: .* holds one network"):
        main([str(file), "format=huggingface", "network=teacher"])


def test_the_card_says_what_it_is_how_it_was_trained_and_what_it_scored(run, tmp_path, monkeypatch):
    results = json.loads((run / "results.json").read_text())
    (run / "evaluations").mkdir(exist_ok=True)
    later = {"data": "cifar10", "train_images": 5, "test_images": 9, "network": "student", "step": 3}
    later |= {"accuracy": 0.25, "low": 0.1, "high": 0.4}
    (run / "evaluations" / "logistic-cifar10.json").write_text(json.dumps(later))
    (run / "evaluations" / "knn-teacher.json").write_text(json.dumps({**later, "network": "teacher", "accuracy": 0.75}))
    export_huggingface(run, tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["library_name"] == "transformers"
    assert metadata["pipeline_tag"] == "image-feature-extraction"
    assert "| kNN | digits | " + f"{results['knn']:.2%} |" in card
    assert f"| linear probe | digits | {results['linear_probe']:.2%} |" in card
    assert "| logistic-cifar10 | cifar10 | 25.00% | 10.00% to 40.00% |" in card
    assert "75.00%" not in card
    assert "| gamma, the penalty's factor | 1e-05 |" in card  # the paper's for this backbone
    code = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 30), "red").save("picture.jpg")
    names = {}
    exec(code, names)
    assert names["features"].shape == (1, 192)
    assert "`(pictures, 192)`" in card


def test_no_name_of_a_file_leaves_the_machine(checkpoint, tmp_path):
    words = ["data=imagefolder", "data.root=/home/someone/secret", "data.classes=my/secret.txt"]
    words += ["init=../secret/run", "resume=a/secret/run", "prolongs=a/secret/run", "runs=secret"]
    run, _ = checkpoint("backbone=vit_tiny", "backbone.depth=1", *words)
    export_huggingface(run, tmp_path / "folder")
    export_encoder(run, tmp_path / "encoder.safetensors")
    for file in (tmp_path / "folder" / "README.md", tmp_path / "encoder.safetensors"):
        assert b"secret" not in file.read_bytes()


@pytest.mark.parametrize("words", [[], ["init=pretrained", f"init_sha256='{'0' * 64}'"]])
def test_the_card_says_whether_the_encoder_started_from_trained_weights(checkpoint, tmp_path, words):
    run, _ = checkpoint("backbone=vit_tiny", "backbone.depth=1", *words)
    export_huggingface(run, tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text()
    assert ("It started from trained weights." in card) == bool(words)


def test_the_card_says_which_pixels_are_not_the_runs(checkpoint, tmp_path):
    run, _ = checkpoint("backbone=vit_tiny", "backbone.depth=1")
    export_huggingface(run, tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "some bytes are rounded otherwise than the run rounded them" in card


def test_the_present_folder_and_a_link_are_places(checkpoint, tmp_path, monkeypatch):
    run, _ = checkpoint("backbone=resnet18", IMAGENET, "backbone.width=4")
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    export_huggingface(run, tmp_path / "link")
    monkeypatch.chdir(tmp_path / "here")
    export_huggingface(run, Path("."))
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == FILES
    assert (tmp_path / "link").is_symlink()
    assert 'from_pretrained("here")' in (tmp_path / "here" / "README.md").read_text()


def test_a_color_encoder_serves_in_transformers_pipeline(checkpoint, tmp_path):
    from transformers import pipeline

    run, encoder = checkpoint("backbone=vit_tiny", "backbone.depth=1")
    export_huggingface(run, tmp_path / "folder")
    features = pipeline("image-feature-extraction", str(tmp_path / "folder"))(picture(32, 32, "RGB"), pool=True)
    expected = encoder(Preprocess(3, 32, 32, (0.5,) * 3, (0.2,) * 3)(picture(32, 32, "RGB"))[None])
    torch.testing.assert_close(torch.tensor(features), expected, rtol=0, atol=1e-5)


def test_transformers_is_not_needed_to_write(checkpoint, tmp_path, monkeypatch):
    run, _ = checkpoint("backbone=resnet18", IMAGENET, "backbone.width=4")
    monkeypatch.setitem(sys.modules, "transformers", None)
    export_huggingface(run, tmp_path / "folder")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == FILES


def test_an_earlier_export_is_replaced_whole_or_stays(checkpoint, tmp_path, monkeypatch):
    run, _ = checkpoint("backbone=resnet18", IMAGENET, "backbone.width=4")
    folder = tmp_path / "folder"
    export_huggingface(run, folder)
    (folder / "README.md").write_text("old")
    monkeypatch.setattr(huggingface, "image_processor", lambda preprocess: {"mean": object()})
    with pytest.raises(TypeError):
        export_huggingface(run, folder)
    assert (folder / "README.md").read_text() == "old"
    monkeypatch.undo()
    export_huggingface(run, folder)
    assert (folder / "README.md").read_text() != "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "run"]


def test_nothing_else_is_replaced(checkpoint, tmp_path):
    run, _ = checkpoint("backbone=resnet18", IMAGENET, "backbone.width=4")
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises(TrainerError, match=r"file\.txt names a file: give a folder to write, such as \S*/file\."):
        export_huggingface(run, tmp_path / "file.txt")
    with pytest.raises(TrainerError, match=r"new\.safetensors names a file: give a folder"):
        export_huggingface(run, tmp_path / "new.safetensors")
    with pytest.raises(TrainerError, match=r"run holds something else \(checkpoints\): give a new folder"):
        export_huggingface(run, run)
    with pytest.raises(TrainerError, match=r"Cannot write /proc/nothing: .* then export again"):
        export_huggingface(run, Path("/proc/nothing"))


def test_wrong_words_are_answered(tmp_path):
    for words, said in (
        (["run", "form=huggingface"], "There is no option form. Did you mean format?"),
        (["run", "format=onnx"], "format must be one of safetensors, huggingface"),
        (["a", "b", "c"], "One encoder is exported at a time, to one target; got 3 paths: a, b, c."),
        ([], "Give the folder of a finished run"),
        ([str(tmp_path), "format=huggingface"], "has no checkpoint to export"),
    ):
        with pytest.raises(TrainerError, match=said):
            main(words)
