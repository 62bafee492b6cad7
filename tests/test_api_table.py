"""``distgrad/API.md`` says which of PyTorch's names exist here: it is held to the code, and to PyTorch where it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import distgrad
from distgrad.ops.absent import NAMES


def api_table() -> ModuleType:
    path = Path(__file__).parent / "parity" / "api_table.py"
    specification = importlib.util.spec_from_file_location("api_table", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


TABLE = api_table()
RECORDED = TABLE.recorded(TABLE.FILE.read_text())


@pytest.mark.parametrize("namespace", TABLE.NAMESPACES)
def test_the_page_says_what_is_so(namespace: str) -> None:
    here, missing = RECORDED[namespace]
    owner = TABLE.resolve(TABLE.NAMESPACES[namespace])
    assert here
    assert [name for name in here if not TABLE.exists(owner, name)] == []
    assert [name for name in missing if TABLE.exists(owner, name)] == []


def test_the_page_is_written_as_the_generator_writes_it() -> None:
    assert TABLE.FILE.read_text() == TABLE.render(
        lambda namespace: sorted([*RECORDED[namespace][0], *RECORDED[namespace][1]])
    )


@pytest.mark.parity
def test_the_page_knows_all_of_pytorch() -> None:
    pytest.importorskip("torch")
    current = TABLE.render(lambda namespace: TABLE.public_names(TABLE.resolve(namespace)))
    assert TABLE.FILE.read_text() == current, "python tests/parity/api_table.py writes it anew"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("distgrad.softmx", "module 'distgrad' has no attribute 'softmx': it is not in distgrad; .* 'softmax'"),
        ("distgrad.nn.Conv2D", r"module 'distgrad\.nn' has no attribute 'Conv2D': .* 'Conv2d'"),
        ("distgrad.nn.functional.rellu", r"'distgrad\.nn\.functional' has no attribute 'rellu': .* 'relu'"),
        ("distgrad.optim.Adamm", r"module 'distgrad\.optim' has no attribute 'Adamm': .* 'Adam'"),
        ("distgrad.autograd.gradd", r"module 'distgrad\.autograd' has no attribute 'gradd': .* 'grad'"),
        ("distgrad.linalg.invv", r"module 'distgrad\.linalg' has no attribute 'invv': .* 'inv'"),
        ("distgrad.func.vmapp", r"module 'distgrad\.func' has no attribute 'vmapp': .* 'vmap'"),
        ("distgrad.nn.init.xavier_uniform", r"'distgrad\.nn\.init' has no attribute .* 'xavier_uniform_'"),
        ("distgrad.nn.utils.clip_grad_norm", r"'distgrad\.nn\.utils' has no attribute .* 'clip_grad_norm_'"),
        ("distgrad.nn.utils.rnn.pack_seq", r"'distgrad\.nn\.utils\.rnn' has no attribute .* 'pack_sequence'"),
        ("distgrad.optim.lr_scheduler.StepLRR", r"'distgrad\.optim\.lr_scheduler' has no attribute .* 'StepLR'"),
        ("distgrad.optim.swa_utils.update_b", r"'distgrad\.optim\.swa_utils' has no attribute .* 'update_bn'"),
        ("distgrad.autograd.functional.hessiann", r"'distgrad\.autograd\.functional' has no .* 'hessian'"),
        ("distgrad.autograd.graph.saved_tensor_hooks", r"'distgrad\.autograd\.graph' has no .* 'saved_tensors_hooks'"),
        ("distgrad.utils.checkpont", r"'distgrad\.utils' has no attribute .* 'checkpoint'"),
        ("distgrad.utils.checkpoint.checkpont", r"'distgrad\.utils\.checkpoint' has no attribute .* 'checkpoint'"),
        ("distgrad.models.resnet19", r"'distgrad\.models' has no attribute .* 'resnet18'"),
        ("distgrad.data.DataLoade", r"'distgrad\.data' has no attribute .* 'DataLoader'"),
        ("distgrad.distributed.allreduce", r"'distgrad\.distributed' has no attribute .* 'all_reduce'"),
        ("distgrad.ones(1).index", "'Tensor' object has no attribute 'index': it is not in distgrad; .* 'index_"),
        ("distgrad.ones(1).cuda", "'Tensor' object has no attribute 'cuda': it is not in distgrad"),
        ("distgrad.qqqq", "module 'distgrad' has no attribute 'qqqq': it is not in distgrad$"),
    ],
)
def test_a_missing_name_says_so_and_names_the_nearest(expression: str, message: str) -> None:
    with pytest.raises(AttributeError, match=message):
        eval(expression, {"distgrad": distgrad})


def test_a_tensor_says_of_all_of_pytorchs_names_that_it_lacks_them() -> None:
    x = distgrad.ones(1)
    missing = RECORDED["torch.Tensor"][1]
    assert missing
    assert set(missing) <= NAMES
    for name in NAMES:
        with pytest.raises(AttributeError, match=rf"'Tensor' object has no attribute '{name}': it is not in distgrad"):
            getattr(x, name)
        assert not hasattr(x, name)
        assert name not in dir(x)


def test_of_any_other_name_a_traceback_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'sumn'") as caught:
        distgrad.ones(1).sumn  # noqa: B018
    sys.__excepthook__(caught.type, caught.value, None)
    assert "Did you mean: 'sum'?" in capsys.readouterr().err


@pytest.mark.parametrize("namespace", [name for name in TABLE.NAMESPACES.values() if name != "distgrad.Tensor"])
def test_every_namespace_says_what_is_missing(namespace: str) -> None:
    owner = TABLE.resolve(namespace)
    with pytest.raises(AttributeError, match=r"has no attribute 'qqqq': it is not in distgrad$"):
        _ = owner.qqqq
