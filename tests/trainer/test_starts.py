"""`init=RUN|FILE|pretrained`: the encoder's first weights, and what is said of a start that does not fit."""

import hashlib
import pickle
import shutil
from functools import partial

import pytest
import timm
import torch
import torchvision
from lightning.pytorch import Callback
from safetensors.torch import load_file, save_file
from tiny import tiny_words

from ortho_kernels.trainer.backbones import build_encoder
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data import load_splits
from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder, load_encoder
from ortho_kernels.trainer.runs.pretrain import build_module, instantiate, pretrain
from ortho_kernels.trainer.runs.starts import Start, fill, prepare_start

STILL = ["optimizer.lr=0", "optimizer.weight_decay=0", "trainer.max_steps=1"]  # the weights stay as they begin


class First(Callback):
    """Keeps the weights that a run begins with."""

    def on_train_start(self, trainer, module):
        self.weights = {name: value.clone() for name, value in module.method.state_dict().items()}


def state(run):
    return read_checkpoint(checkpoint_files(run / "checkpoints")[0])["state_dict"]


def noted(run):
    return read_checkpoint(checkpoint_files(run / "checkpoints")[0])["configuration"]["init_sha256"]


def started(config):
    """The method's module as the run would begin with it, and the configuration that notes its start."""
    splits = load_splits(instantiate(config.data), ALONE)
    config, start = prepare_start(config, splits.channels, ALONE)
    return build_module(config, splits, ALONE, steps=1, start=start).method, config


@pytest.fixture
def source(run_tiny, tmp_path):
    """A run with moved weights and statistics, its export, and the weights of that."""
    run = run_tiny("method=byol", "optimizer.lr=1", "seed=5", f"runs={tmp_path / 'sources'}")
    file = tmp_path / "encoder.safetensors"
    export_encoder(run, file)
    return run, file, load_file(file)


def test_encoder_and_teacher_begin_with_the_weights_and_the_heads_do_not(source, run_tiny, capsys):
    run, file, weights = source
    for init in (run, run / "checkpoints" / "step-000000002.ckpt", file):
        first = First()
        run_tiny("method=byol", f"init={init}", callbacks=[first])
        for name, weight in weights.items():
            assert torch.equal(first.weights[f"encoder.{name}"], weight), name
            assert torch.equal(first.weights[f"teacher.0.{name}"], weight), name
        count = sum(weight.numel() for weight in load_encoder(file).parameters())
        origin = run / "checkpoints" / "step-000000002.ckpt" if init == run else init
        assert f"The encoder starts from {origin}: {count:,} weights.\n" in capsys.readouterr().out
    random = First()
    run_tiny("method=byol", callbacks=[random])
    heads = [name for name in random.weights if not name.startswith(("encoder.", "teacher.0."))]
    assert heads
    for name in heads:  # the same as without a start
        assert torch.equal(first.weights[name], random.weights[name]), name


def test_the_judged_network_of_a_run_is_the_start(run_tiny):
    words = "method=byol", "optimizer.lr=10", "optimizer.warmup=0", "evaluation.network=teacher"
    run, first = run_tiny(*words), First()
    run_tiny("method=simclr", f"init={run}", callbacks=[first])
    assert torch.equal(first.weights["encoder.conv1.weight"], state(run)["method.teacher.0.conv1.weight"])
    assert not torch.equal(first.weights["encoder.conv1.weight"], state(run)["method.encoder.conv1.weight"])


def test_the_hash_is_that_of_names_dtypes_shapes_and_values(tmp_path):
    weights = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(7), "h": torch.ones(2, dtype=torch.bfloat16)}
    text = b"a torch.int64 ()\n" + (7).to_bytes(8, "little")
    text += b"b torch.float32 (2, 3)\n" + weights["b"].numpy().tobytes()
    text += b"h torch.bfloat16 (2,)\n" + b"\x80\x3f" * 2
    assert Start("", weights).digest() == hashlib.sha256(text).hexdigest()
    turned = weights | {"b": weights["b"].T.contiguous().T}  # the same values in another order of memory
    assert Start("", turned).digest() == hashlib.sha256(text).hexdigest()


def test_a_run_is_known_by_the_weights_and_not_by_their_path(source, run_tiny, tmp_path):
    run, file, weights = source
    first = run_tiny(f"init={file}", "resume=auto")
    assert run_tiny(f"init={run}", "resume=auto") == first  # the same weights elsewhere
    assert run_tiny("resume=auto") != first
    save_file({name: 2 * weight for name, weight in weights.items()}, file)
    second = run_tiny(f"init={file}", "resume=auto")  # others in the same place
    assert second != first
    with pytest.raises(TrainerError, match=rf"init_sha256: {noted(first)} -> {noted(second)}"):
        run_tiny(f"init={file}", f"resume={first}")
    with pytest.raises(TrainerError, match=r"holds other weights than init_sha256 notes: .* give init_sha256=null"):
        pretrain(load_config([f"config={first / 'config.yaml'}"]))
    assert pretrain(load_config([f"config={first / 'config.yaml'}", f"init={run}", "resume=auto"])) == first
    again = pretrain(load_config([f"config={first / 'config.yaml'}", "init_sha256=null", "resume=auto"]))
    assert again == second


def test_a_resumed_run_needs_no_start_any_more(source, run_tiny):
    _, file, _ = source
    words = "method=simclr", f"init={file}", "trainer.checkpoint_every=1", "trainer.max_steps=3"
    whole = run_tiny(*words)
    file.rename(file.with_suffix(".gone"))
    with pytest.raises(TrainerError, match=r"encoder\.safetensors: there is no such file\. Give a run's folder, a saf"):
        run_tiny(*words)
    with pytest.raises(TrainerError, match="there is no such file"):  # a run of other options
        run_tiny(*words, "seed=9", "resume=auto")
    for more in (["resume=auto"], [f"resume={whole}"]):
        theirs = state(whole)
        (whole / "results.json").unlink()
        checkpoint_files(whole / "checkpoints")[0].unlink()
        assert run_tiny(*words, *more) == whole
        assert all(torch.equal(weight, theirs[name]) for name, weight in state(whole).items())
    prolonged = run_tiny(*words[:-1], "trainer.max_steps=4", f"resume={whole}")
    assert noted(prolonged) == noted(whole)
    again = pretrain(load_config([f"config={prolonged / 'config.yaml'}", f"resume={whole}"]))
    assert again == prolonged


def test_a_backbone_of_ones_own_starts_from_a_run_and_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
    words = ["method=outside_parts:Predicting", "data=outside_parts:Noise", "backbone=outside_parts:Flat"]
    words += ["penalty=outside_parts:SumOfSquares", "penalty.gamma=0.01", "trainer.batch_size=16", f"runs={tmp_path}"]
    run = pretrain(load_config([*words, "trainer.max_steps=2"]))
    export_encoder(run, tmp_path / "flat.safetensors")
    for init in (run, tmp_path / "flat.safetensors"):
        method, config = started(load_config([*words, f"init={init}", "seed=3"]))
        assert config.init_sha256 == Start("", load_file(tmp_path / "flat.safetensors")).digest()
        for name, weight in method.encoder.state_dict().items():
            assert torch.equal(weight, state(run)[f"method.encoder.{name}"])
    with pytest.raises(TrainerError, match=r"no library has trained weights of backbone=outside_parts:Flat"):
        started(load_config([*words, "init=pretrained"]))
    with pytest.raises(
        TrainerError,
        match=r"Of another shape: 2 \(1\.weight: 5 x 36 in it and 6 x 36 here, .* has backbone\.width=5: give",
    ):
        started(load_config([*words, f"init={run}", "backbone.width=6"]))


# What does not fit.


def refused(words, said):
    other = any(word.startswith("backbone=") and word != "backbone=resnet18" for word in words)
    narrow = [] if other else ["backbone.width=4"]
    with pytest.raises(TrainerError, match=said) as caught:
        started(load_config(["data=digits", *narrow, "trainer.batch_size=16", *words]))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Safetensors files of torchvision's resnet18, for three channels, in several states."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    weights = torchvision.models.resnet18().state_dict()
    save_file(weights, folder / "resnet18.safetensors")
    fewer = {name: weight for name, weight in weights.items() if not name.startswith(("layer4.1.conv", "fc."))}
    save_file(fewer | {"projector.0.weight": torch.ones(2)}, folder / "others.safetensors")
    save_file(weights | {"bn1.bias": torch.full((64,), float("nan"))}, folder / "nan.safetensors")
    save_file(weights | {"bn1.bias": torch.ones(64, dtype=torch.int8)}, folder / "int8.safetensors")
    uncounted = {name: weight for name, weight in weights.items() if not name.endswith("num_batches_tracked")}
    save_file(uncounted, folder / "uncounted.safetensors")
    save_file({name: weight.bfloat16() for name, weight in uncounted.items()}, folder / "bfloat16.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "resnet18.safetensors").read_bytes()[:1000])
    (folder / "text.safetensors").write_text("hello")
    torch.save(weights, folder / "resnet18.pth")
    torch.save(weights, folder / "renamed.weights")
    (folder / "old.weights").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"state_dict": {}}, folder / "step-000000001.ckpt")
    torch.save({"state_dict": {}}, folder / "last.ckpt")
    return folder, weights


STANDARD = ["backbone=resnet18", "backbone.width=64", "backbone.stem=imagenet"]


def encoder_of(words):
    config = load_config(words)
    return config, build_encoder(instantiate(config.backbone), 3, 32)


@pytest.mark.parametrize("name", ["resnet18", "uncounted", "bfloat16"])
def test_a_librarys_file_serves_without_its_classifier(files, name):
    folder, weights = files
    config, encoder = encoder_of([*STANDARD, f"init={folder / name}.safetensors"])
    config, start = prepare_start(config, 3, ALONE)
    fill(encoder, start, config, 3)
    theirs = torchvision.models.resnet18()
    theirs.load_state_dict(weights)
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    tolerance = 1e-1 if name == "bfloat16" else 1e-5
    torch.testing.assert_close(encoder.eval()(images), theirs.eval()(images), rtol=tolerance, atol=tolerance)
    assert start.describe(encoder).endswith("weights. Left out: fc.bias, fc.weight.")


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        (
            "resnet18",
            ["backbone.width=64"],
            r"does not fit the encoder of backbone=resnet18\. Of another shape: 1 \(conv1\.weight: 64 x 3 x 7 x 7 in it and "
            r"64 x 1 x 3 x 3 here\)\. Give the backbone, its options and the data\.size that it was trained with\.",
        ),
        (
            "resnet18",
            STANDARD,
            r"Of another shape: 1 \(.*\)\. Its network takes pictures of 3 channels, and the data has 1",
        ),
        ("resnet18", ["backbone.width=8"], r"Of another shape: 100 \(conv1\.weight: .*, \.\.\.\)\. Give"),
        (
            "others",
            STANDARD,
            r"Missing in it: 2 \(layer4\.1\.conv1\.weight, layer4\.1\.conv2\.weight\)\. "
            r"Unknown to the encoder: 1 \(projector\.0\.weight\)\. Of another shape: 1 \(conv1",
        ),
        ("resnet18", ["backbone=wrn28_2"], r"Missing in it: \d\d+ \(stage1\.0\.bn1\.weight, .*\)\. Unknown to the enc"),
        ("cut", [], r"cannot be read \(.*\): give a safetensors file or a run's folder"),
        ("text", [], r"cannot be read"),
    ],
)
def test_a_file_of_another_network_is_refused_with_what_differs(files, name, words, said):
    refused([f"init={files[0] / name}.safetensors", *words], said)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nan", r"not finite: bn1\.bias\. Give another"), ("int8", r"dtype: 1 \(bn1\.bias: torch\.int8\)")],
)
def test_values_that_no_weight_can_have_are_refused(files, name, said):
    config, encoder = encoder_of([*STANDARD, f"init={files[0] / name}.safetensors"])
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    config, start = prepare_start(config, 3, ALONE)
    with pytest.raises(TrainerError, match=said):
        fill(encoder, start, config, 3)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18.pth", "renamed.weights", "old.weights", "last.ckpt"])
def test_a_pickle_is_refused_before_it_is_read(files, monkeypatch, name):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    refused(
        [f"init={files[0] / name}"],
        rf"{name} is a pickle, which runs code when it is read\. Convert it .*save_file\(torch\.load\('{name}', weights",
    )


def test_the_conversion_that_the_error_names_works(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(files[0] / "resnet18.pth", tmp_path)
    with pytest.raises(TrainerError) as caught:
        prepare_start(load_config(["init=resnet18.pth"]), 3, ALONE)
    exec(str(caught.value).partition("give the result: ")[2].removesuffix("."))
    assert load_file("resnet18.safetensors").keys() == files[1].keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init=nothing.safetensors"], r"init=nothing\.safetensors: there is no such file\. Give a run's folder"),
        (["init=tests"], r"init=tests has no checkpoint to start from"),
        (["init_sha256=abc"], r"init_sha256 says what a start holds, and there is none"),
        (["init=pretrained"], r"no library has trained weights of backbone=resnet18 as its options make it\. Give"),
        (["init=pretrained", "backbone=wrn28_2"], "no library has trained weights of backbone=wrn28_2"),
        (
            ["init=pretrained", "backbone.width=64"],
            r"resnet18 was trained with another stem\. Give backbone\.stem=imagenet",
        ),
        (
            ["init=pretrained", "backbone=vit_tiny", "backbone.depth=1", "backbone.positions=sincos"],
            r"trained with other options\. Leave out backbone\.depth, backbone\.positions\.",
        ),
    ],
)
def test_what_cannot_be_a_start_is_said(words, said):
    refused(words, said)


def test_a_checkpoint_by_its_name_alone_is_refused(files):
    refused([f"init={files[0] / 'step-000000001.ckpt'}"], r"is no checkpoint of a run: it holds no 'configuration'")


# Trained weights of the libraries, from caches and loaders in the place of the network.


@pytest.fixture
def cached(monkeypatch, tmp_path, files):
    """torchvision's cache and timm's loader, filled with random weights."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save(files[1], folder / torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    networks = {}

    def load(model_id, *_, **__):
        name = model_id.partition("/")[2].partition(".")[0]
        torch.manual_seed(1)
        networks[name] = timm.create_model(name)
        return networks[name].state_dict()

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", load)
    return networks


def test_torchvisions_trained_weights_fill_a_resnet(cached, files):
    for words in (STANDARD, ["backbone=torchvision", "backbone.model=resnet18"]):
        config, encoder = encoder_of([*words, "init=pretrained"])
        config, start = prepare_start(config, 3, ALONE)
        fill(encoder, start, config, 3)
        assert start.describe(encoder).startswith("The encoder starts from trained weights of resnet18: 11,")
        assert "Left out: fc.weight, fc.bias" in start.describe(encoder)
        theirs = torchvision.models.resnet18()
        theirs.load_state_dict(files[1])
        theirs.fc = torch.nn.Identity()
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(encoder.eval()(images), theirs.eval()(images), rtol=1e-5, atol=1e-5)


def test_timms_trained_weights_fill_a_vit_and_are_scaled_to_its_patches(cached):
    config, encoder = encoder_of(["backbone=vit_tiny", "data.size=32", "backbone.patch=8", "init=pretrained"])
    config, start = prepare_start(config, 3, ALONE)
    fill(encoder, start, config, 3)
    theirs, ours = cached["vit_tiny_patch16_224"], encoder.network
    assert torch.equal(ours.blocks[5].attn.qkv.weight, theirs.blocks[5].attn.qkv.weight)
    assert ours.patch_embed.proj.weight.shape[-1] == 8
    assert not torch.equal(ours.pos_embed, torch.zeros_like(ours.pos_embed))


def test_timms_trained_weights_fill_a_network_of_timm(cached):
    config, encoder = encoder_of(["backbone=timm", "backbone.model=resnet10t", "init=pretrained"])
    config, start = prepare_start(config, 3, ALONE)
    fill(encoder, start, config, 3)
    theirs = cached["resnet10t"]
    assert torch.equal(encoder.network.layer3[0].conv1.weight, theirs.layer3[0].conv1.weight)


@pytest.mark.parametrize(
    ("words", "cache"),
    [
        (STANDARD, "TORCH_HOME"),
        (["backbone=torchvision", "backbone.model=resnet18"], "TORCH_HOME"),
        (["backbone=timm", "backbone.model=resnet10t"], "HF_HOME"),
        (["backbone=vit_tiny", "backbone.patch=4", "data.size=32"], "HF_HOME"),
    ],
)
def test_without_a_network_it_says_what_to_do(monkeypatch, tmp_path, words, cache):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", no_network)
    with pytest.raises(
        TrainerError,
        match=rf"that init=pretrained asks for \(no network\): connect .* set {cache} .* or leave init out",
    ):
        prepare_start(load_config([*words, "init=pretrained"]), 3, ALONE)


def keep_first(ranks, words, runs):
    """Trains no step that moves a weight, and returns the folder."""
    from bare_runs import train

    return train(ranks, load_config([*words, f"runs={runs}"]))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_start_alike(source, tmp_path, strategy):
    _, file, weights = source
    words = [*tiny_words(), *STILL, "method=byol", f"trainer={strategy}", "trainer.accelerator=cpu", f"init={file}"]
    run = launch_processes(2, "gloo", 60.0, partial(keep_first, words=words, runs=tmp_path / "two"))
    assert noted(run) == Start("", weights).digest()
    ours = state(run)
    for name, weight in weights.items():
        if weight.dim() > 1:  # batch norms have taken statistics meanwhile
            assert torch.equal(ours[f"method.encoder.{name}"], weight), name
            assert torch.equal(ours[f"method.teacher.0.{name}"], weight), name
    refusal = [*words, "backbone.width=8"]
    with pytest.raises(TrainerError, match=r"does not fit the encoder .* has backbone\.width=4: give these options"):
        launch_processes(2, "gloo", 60.0, partial(keep_first, words=refusal, runs=tmp_path / "refused"))
