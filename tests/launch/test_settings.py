from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from distgrad import config
from distgrad.distributed.comm_hooks import HOOKS
from distgrad.errors import ConfigError
from distgrad.launch.settings import DistributedSettings, Settings, load_settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FOLDERS = ["--data.train", "t", "--data.val", "v"]


def settings_of(tmp_path: Path, *overrides: str, text: str = "") -> Settings:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load_settings(path, [*FOLDERS, *overrides])


def refusal(tmp_path: Path, *overrides: str, text: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, *overrides, text=text)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_configs_load_and_resolve(path: Path, tmp_path: Path) -> None:
    settings = load_settings(path)
    assert settings.run.name == path.stem
    assert settings.directory == Path("runs", path.stem)
    resolved = tmp_path / "config.toml"
    resolved.write_text(config.dump(settings))
    assert load_settings(resolved) == settings  # the run's own record starts the same run


def test_every_shipped_key_is_explained() -> None:
    """Beside each key of the commented recipe stands what it means, but for names that are PyTorch's own."""
    for line in (CONFIGS / "resnet18_frozen.toml").read_text().splitlines():
        key = line.partition(" = ")[0]
        if "=" in line and not line.startswith("#") and key not in {
            "output", "seed", "name", "lr", "momentum", "weight_decay", "label_smoothing", "epochs"
        }:  # fmt: skip
            assert "#" in line, line


def test_the_frozen_recipe_is_the_issue_s() -> None:
    settings = load_settings(CONFIGS / "resnet18_frozen.toml")
    assert settings.model.name == "resnet18" and settings.model.weights == "default" and settings.model.freeze
    assert (settings.data.image_size, settings.data.resize, settings.data.batch_size) == (224, 256, 64)
    assert (settings.optim.lr, settings.optim.momentum) == (0.01, 0.9)
    assert (settings.schedule.name, settings.train.epochs) == ("cosine", 3)
    assert not load_settings(CONFIGS / "resnet18_full.toml").model.freeze


def test_quickstart_generates_its_data() -> None:
    data = load_settings(CONFIGS / "quickstart.toml").data
    assert (data.dataset, data.train, data.val) == ("digits", None, None)
    assert (data.train_folder, data.val_folder) == (Path("data/digits/train"), Path("data/digits/val"))
    assert data.resize == data.image_size == 64
    assert not data.augment


def test_quickstart_s_generated_data_gives_way_to_photos() -> None:
    data = load_settings(CONFIGS / "quickstart.toml", [*FOLDERS, "--data.dataset", "folder"]).data
    assert (data.train_folder, data.val_folder) == (Path("t"), Path("v"))
    with pytest.raises(ConfigError, match=r'data\.train = "t" is not used by data\.dataset = "digits"'):
        load_settings(CONFIGS / "quickstart.toml", ["--data.train", "t"])


def test_defaults(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert settings.run.name == "mine" and settings.directory == Path("runs/mine")
    assert settings_of(tmp_path, "--run.name", "2024", "--run.output", "out").directory == Path("out/2024")
    assert settings.optim.model_dump() == {
        "lr": 0.05, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False
    }  # fmt: skip
    assert settings.train.max_steps is None


@pytest.mark.parametrize(("side", "resize"), [(224, 256), (64, 73), (32, 37), (299, 342)])
def test_resize_keeps_torchvision_s_ratio(tmp_path: Path, side: int, resize: int) -> None:
    assert settings_of(tmp_path, "--data.image_size", str(side)).data.resize == resize
    assert settings_of(tmp_path, "--data.image_size", str(side), "--data.resize_size", "400").data.resize == 400


def test_warmup_counts_epochs_or_steps(tmp_path: Path) -> None:
    assert settings_of(tmp_path).schedule.warmup(40) == 0
    assert settings_of(tmp_path, "--schedule.warmup_epochs", "0.5").schedule.warmup(40) == 20
    assert settings_of(tmp_path, "--schedule.warmup_steps", "7").schedule.warmup(40) == 7


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optim.lr", "-0.1", "optim.lr = -0.1 must be greater than 0, for example --optim.lr 0.05."),
        ("optim.lr", "0", "optim.lr = 0 must be greater than 0, for example --optim.lr 0.05."),
        ("optim.lr", "nan", "optim.lr = nan must be a finite number, for example --optim.lr 0.05."),
        ("optim.lr", "inf", "optim.lr = inf must be a finite number, for example --optim.lr 0.05."),
        ("optim.lr", "fast", 'optim.lr = "fast" must be a number, for example --optim.lr 0.05.'),
        ("optim.momentum", "1.0", "optim.momentum = 1.0 must be at least 0 and less than 1, for example"),
        ("optim.momentum", "-0.5", "optim.momentum = -0.5 must be at least 0 and less than 1, for example"),
        ("optim.weight_decay", "-1", "optim.weight_decay = -1 must be at least 0, for example"),
        ("train.epochs", "0", "train.epochs = 0 must be at least 1, for example --train.epochs 3."),
        ("train.max_steps", "0", "train.max_steps = 0 must be at least 1, for example --train.max_steps 100."),
        ("train.label_smoothing", "1", "train.label_smoothing = 1 must be at least 0 and less than 1, for example"),
        ("data.batch_size", "0", "data.batch_size = 0 must be at least 1, for example --data.batch_size 64."),
        ("data.workers", "-1", "data.workers = -1 must be at least 0 and at most 256, for example"),
        ("data.resize_size", "100", "data.resize_size = 100 must be at least data.image_size (224)"),
        ("data.on_error", "ignore", "data.on_error = \"ignore\" must be one of 'raise' or 'skip'."),
        ("data.dataset", "digit", "must be one of 'folder' or 'digits' (did you mean 'digits'?)."),
        ("model.name", "resnet51", "model.name = \"resnet51\" must be one of 'resnet18', 'resnet34', 'resnet50', "),
        ("schedule.name", "cosin", "(did you mean 'cosine'?)."),
        ("schedule.gamma", "0", "schedule.gamma = 0 must be greater than 0 and at most 1, for example"),
        ("schedule.min_lr", "0.05", "schedule.min_lr = 0.05 must be less than optim.lr (0.05)"),
        ("schedule.warmup_epochs", "3", "schedule.warmup_epochs = 3 must be less than train.epochs (3)"),
        ("checkpoint.keep", "0", "checkpoint.keep = 0 must be at least 1, for example --checkpoint.keep 2."),
        ("features.cache", "yes", "features.cache = \"yes\" must be one of 'auto', 'on' or 'off'."),
        ("features.views", "-1", "features.views = -1 must be at least 0, for example --features.views 4."),
        ("features.dtype", "float8", "features.dtype = \"float8\" must be one of 'float32' or 'float16'"),
        ("features.limit_gb", "0", "features.limit_gb = 0 must be greater than 0, for example"),
        ("data.decode", "quick", "data.decode = \"quick\" must be one of 'exact', 'box' or 'fast'"),
        ("distributed.comm_hook", "fp61", "distributed.comm_hook = \"fp61\" must be one of 'auto', 'all_reduce', "),
        ("distributed.bucket_cap_mb", "-1", "distributed.bucket_cap_mb = -1 must be at least 0, for example"),
        ("run.seed", "-1", "run.seed = -1 must be at least 0 and less than 9223372036854775808, for example"),
        ("run.name", "a/b", 'run.name = "a/b" must be a plain folder name; run.output says where it lies.'),
        ("run.name", "..", 'run.name = ".." must be a plain folder name; run.output says where it lies.'),
        ("optim.learning_rate", "1", "optim.learning_rate = 1 is not a known key. [optim] takes: lr, momentum,"),
        ("data.batchsize", "1", "data.batchsize = 1 is not a known key. Did you mean 'batch_size'?"),
        ("epochs", "9", "epochs = 9 is not a known key. Did you mean 'train.epochs'? The sections are: run, model,"),
    ],
)
def test_impossible_values(tmp_path: Path, key: str, value: str, message: str) -> None:
    text = refusal(tmp_path, f"--{key}", value)
    assert text.startswith(f"command line: {key} = ")
    assert message in text


def test_nesterov_needs_momentum_without_dampening(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "--optim.nesterov", "true").optim.nesterov
    for tokens, values in ((["--optim.momentum", "0"], "0.0 and 0.0"), (["--optim.dampening", "0.1"], "0.9 and 0.1")):
        message = refusal(tmp_path, *tokens, "--optim.nesterov", "true")
        assert "optim.nesterov = true needs optim.momentum above 0 and optim.dampening = 0" in message
        assert values in message


def test_two_warmups_contradict(tmp_path: Path) -> None:
    message = refusal(tmp_path, "--schedule.warmup_epochs", "1", "--schedule.warmup_steps", "5")
    assert "schedule.warmup_steps = 5 and schedule.warmup_epochs = 1.0 say the same thing" in message


def test_every_hook_that_needs_nothing_else_can_be_named() -> None:
    """Post-local SGD is the exception: its optimizer averages."""
    named = get_args(DistributedSettings.model_fields["comm_hook"].annotation)
    assert set(named) == {"auto", *HOOKS} - {"post_local_sgd"}


@pytest.mark.parametrize(("key", "value"), [("comm_hook", "auto"), ("bucket_cap_mb", "0")])
def test_a_reproducible_run_leaves_nothing_to_the_clock(tmp_path: Path, key: str, value: str) -> None:
    chosen = (f"--distributed.{key}", value)
    assert str(getattr(settings_of(tmp_path, *chosen).distributed, key)).startswith(value)
    message = refusal(tmp_path, *chosen, "--distributed.reproducible", "true")
    assert "distributed.reproducible" in message and "leaves nothing to the clock" in message


def test_features_are_kept_where_they_can_be_used_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert settings.caches_features and settings.feature_folder == Path("runs/.features")
    assert settings_of(tmp_path, "--run.output", "out").feature_folder == Path("out/.features")
    assert settings_of(tmp_path, "--features.folder", "mine").feature_folder == Path("mine")
    assert settings_of(tmp_path, "--features.cache", "on").caches_features
    for tokens in (["--features.cache", "off"], ["--model.freeze", "false"], ["--features.views", "0"]):
        assert not settings_of(tmp_path, *tokens).caches_features
    assert settings_of(tmp_path, "--features.views", "0", "--data.augment", "false").caches_features
    on = ["--features.cache", "on"]
    message = refusal(tmp_path, *on, "--model.freeze", "false")
    assert (
        'features.cache = "on" is "on", but' not in message and "model.freeze = false changes the features" in message
    )
    assert "features.views = 0 gives each photo a new version" in refusal(tmp_path, *on, "--features.views", "0")


def test_photos_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[optim]\nlr = 0.1\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    first, train, val = str(caught.value).split("\n  ")
    assert first == f"{path} cannot be used, 2 problems:"
    assert train == (
        f"{path}: data.train must name a folder of photos, one folder a class: "
        'write train = "PATH" in [data] or pass --data.train PATH.'
    )
    assert val.startswith(f"{path}: data.val must name a folder of photos")


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.optim.lr = 1.0  # type: ignore[misc]
