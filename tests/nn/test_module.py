from __future__ import annotations

import copy
import re
from collections import OrderedDict
from types import GeneratorType
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(distgrad.ones(2))
        self.register_buffer("count", distgrad.tensor(0))
        self.register_buffer("scratch", distgrad.zeros(2), persistent=False)
        self.register_buffer("nothing", None)
        self.register_parameter("absent", None)

    def forward(self, x: Any) -> Any:
        return x * self.scale


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Inner()
        self.second = Inner()
        self.weight = nn.Parameter(distgrad.zeros(2))

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x)) + self.weight


def test_an_attribute_goes_where_its_kind_belongs() -> None:
    module = Outer()
    assert list(module._parameters) == ["weight"] and list(module._modules) == ["first", "second"]
    assert list(module.first._buffers) == ["count", "scratch", "nothing"]
    module.plain = 3
    assert module.plain == 3 and "plain" in module.__dict__
    assert module.first.absent is None and module.first.nothing is None
    module.tensor = distgrad.ones(1)  # an unregistered tensor is a plain attribute
    assert "tensor" not in module.state_dict()


def test_parameters_is_a_generator_named_as_pytorchs() -> None:
    parameters = Outer().parameters()
    assert isinstance(parameters, GeneratorType)
    assert re.fullmatch(r"<generator object Module.parameters at 0x[0-9a-f]+>", str(parameters))


def test_names() -> None:
    module = Outer()
    assert [name for name, _ in module.named_parameters()] == ["weight", "first.scale", "second.scale"]
    assert [name for name, _ in module.named_parameters(recurse=False)] == ["weight"]
    assert [name for name, _ in module.named_parameters(prefix="p")] == ["p.weight", "p.first.scale", "p.second.scale"]
    assert [name for name, _ in module.named_buffers()] == [
        "first.count",
        "first.scratch",
        "second.count",
        "second.scratch",
    ]
    assert [name for name, _ in module.named_modules()] == ["", "first", "second"]
    assert [name for name, _ in module.named_children()] == ["first", "second"]
    assert list(module.modules()) == [module, module.first, module.second]
    assert list(module.children()) == [module.first, module.second]
    assert len(list(module.buffers())) == 4


def test_what_is_shared_counts_once() -> None:
    module = Outer()
    module.second = module.first
    module.again = module.weight
    assert [name for name, _ in module.named_parameters()] == ["weight", "first.scale"]
    assert [name for name, _ in module.named_parameters(remove_duplicate=False)] == [
        "weight",
        "again",
        "first.scale",
        "second.scale",
    ]
    assert [name for name, _ in module.named_modules()] == ["", "first"]
    assert [name for name, _ in module.named_modules(remove_duplicate=False)] == ["", "first", "second"]
    assert len(list(module.children())) == 1
    assert list(module.state_dict()) == [
        "weight",
        "again",
        "first.scale",
        "first.count",
        "second.scale",
        "second.count",
    ]


def test_replacing_a_child_keeps_its_place() -> None:
    module = Outer()
    module.first = nn.Linear(2, 3)
    assert [name for name, _ in module.named_parameters()] == ["weight", "first.weight", "first.bias", "second.scale"]
    module.first = None
    assert module.first is None and [name for name, _ in module.named_parameters()] == ["weight", "second.scale"]


def test_an_attribute_can_change_its_kind() -> None:
    module = nn.Module()
    module.x = 1
    module.x = nn.Parameter(distgrad.ones(1))
    assert "x" not in module.__dict__ and list(module._parameters) == ["x"]
    module.x = nn.ReLU() if module.x is None else None
    module.x = None
    del module.x
    module.x = nn.ReLU()
    assert list(module._modules) == ["x"]
    module.x = nn.Parameter(distgrad.ones(1))
    assert not module._modules and list(module._parameters) == ["x"]
    del module.x
    assert not hasattr(module, "x")
    with pytest.raises(AttributeError):
        del module.x


def test_a_buffer_is_replaced_by_assignment() -> None:
    module = Inner()
    module.count = distgrad.tensor(5)
    assert module.state_dict()["count"].item() == 5
    module.scratch = distgrad.ones(2)
    assert "scratch" not in module.state_dict() and module.scratch.tolist() == [1.0, 1.0]
    with pytest.raises(TypeError, match=r"cannot assign 'int' as buffer 'count'"):
        module.count = 3
    del module.scratch
    assert [name for name, _ in module.named_buffers()] == ["count"]


def test_registration_refuses_bad_names_and_values() -> None:
    module = Outer()
    for register, value in (
        (module.register_parameter, nn.Parameter(distgrad.ones(1))),
        (module.register_buffer, distgrad.ones(1)),
        (module.add_module, nn.ReLU()),
    ):
        with pytest.raises(KeyError, match=r"can\\'t contain"):
            register("a.b", value)
        with pytest.raises(KeyError, match=r"can\\'t be empty"):
            register("", value)
        with pytest.raises(KeyError, match=r"attribute 'forward' already exists"):
            register("forward", value)
        with pytest.raises(TypeError, match=r"name should be a string. Got int"):
            register(1, value)
    with pytest.raises(TypeError, match=r"cannot assign 'int' object to parameter 'p'"):
        module.register_parameter("p", 1)
    with pytest.raises(TypeError, match=r"Tensor' object to parameter 'p'"):
        module.register_parameter("p", distgrad.ones(1))
    with pytest.raises(ValueError, match=r"non-leaf Tensor to parameter 'p'"):
        parameter = nn.Parameter(distgrad.ones(1))
        parameter.requires_grad_(False)
        parameter.add_(distgrad.ones(1, requires_grad=True))
        module.register_parameter("p", parameter)
    with pytest.raises(TypeError, match=r"cannot assign 'list' object to buffer 'b'"):
        module.register_buffer("b", [1])
    with pytest.raises(TypeError, match=r"int is not a Module subclass"):
        module.add_module("m", 1)
    with pytest.raises(TypeError, match=r"cannot assign 'int' as parameter 'weight'"):
        module.weight = 1
    with pytest.raises(TypeError, match=r"cannot assign 'int' as child module 'first'"):
        module.first = 1


def test_init_comes_first() -> None:
    class Forgetful(nn.Module):
        def __init__(self, value: Any) -> None:
            self.value = value

    with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__\(\) call"):
        Forgetful(nn.Parameter(distgrad.ones(1)))
    with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\(\) call"):
        Forgetful(nn.ReLU())
    with pytest.raises(AttributeError, match=r"cannot assign buffer before Module.__init__\(\) call"):
        Forgetful(1).register_buffer("b", distgrad.ones(1))


def test_a_missing_attribute_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"^'Outer' object has no attribute 'wieght'\. Did you mean 'weight'\?$"):
        _ = Outer().wieght
    with pytest.raises(AttributeError, match=r"^'Outer' object has no attribute 'xyzzy'$"):
        _ = Outer().xyzzy
    names = dir(Outer())
    assert {"weight", "first", "forward", "training"} <= set(names) and names == sorted(names)
    assert "count" in dir(Inner())


def test_getting_by_dotted_name() -> None:
    module = Outer()
    assert module.get_submodule("") is module and module.get_submodule("first") is module.first
    assert module.get_parameter("first.scale") is module.first.scale and module.get_parameter("weight") is module.weight
    assert module.get_buffer("second.count") is module.second.count
    with pytest.raises(AttributeError, match="Outer has no attribute `third`"):
        module.get_submodule("third.x")
    with pytest.raises(AttributeError, match=r"`weight` is not an nn.Module"):
        module.get_submodule("weight")
    with pytest.raises(AttributeError, match=r"`count` is not an nn.Parameter"):
        module.get_parameter("first.count")
    with pytest.raises(AttributeError, match="`scale` is not a buffer"):
        module.get_buffer("first.scale")
    with pytest.raises(AttributeError, match="Inner has no attribute `y`"):
        module.get_parameter("first.y")


def test_forward_is_needed() -> None:
    with pytest.raises(NotImplementedError, match=r'Module \[Module\] is missing the required "forward" function'):
        nn.Module()(1)


def test_hooks_see_and_change_what_flows() -> None:
    module = Inner()
    seen: list[Any] = []
    before = module.register_forward_pre_hook(lambda m, args: seen.append(("pre", m, args)))
    doubled = module.register_forward_pre_hook(lambda m, args: args[0] * 2)
    after = module.register_forward_hook(lambda m, args, output: seen.append(("post", args, output)))
    negated = module.register_forward_hook(lambda m, args, output: -output)
    x = distgrad.ones(2)
    assert module(x).tolist() == [-2.0, -2.0]
    assert seen[0] == ("pre", module, (x,)) and seen[1][1][0].tolist() == [2.0, 2.0]
    assert seen[1][2].tolist() == [2.0, 2.0]
    doubled.remove()
    negated.remove()
    assert module(x).tolist() == [1.0, 1.0]
    before.remove()
    after.remove()
    seen.clear()
    module(x)
    assert not seen


def test_a_hook_may_remove_itself() -> None:
    module, calls = Inner(), []

    def once(m: nn.Module, args: Any) -> None:
        calls.append(1)
        handle.remove()

    handle = module.register_forward_pre_hook(once)
    module(distgrad.ones(2))
    module(distgrad.ones(2))
    assert calls == [1]


def test_train_and_eval_reach_everything() -> None:
    module = Outer()
    assert all(part.training for part in module.modules())
    assert module.eval() is module and not any(part.training for part in module.modules())
    assert module.train() is module and all(part.training for part in module.modules())
    with pytest.raises(ValueError, match="training mode is expected to be boolean"):
        module.train(1)  # type: ignore[arg-type]


def test_requires_grad_and_zero_grad() -> None:
    module = Outer()
    module(distgrad.ones(2)).sum().backward()
    kept = module.weight.grad
    module.zero_grad(set_to_none=False)
    assert module.weight.grad.tolist() == [0.0, 0.0] and kept.tolist() == [1.0, 1.0]
    module.zero_grad()
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.requires_grad_(False) is module
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module(distgrad.ones(2)).requires_grad


def test_apply_goes_children_first() -> None:
    module, seen = Outer(), []
    assert module.apply(seen.append) is module
    assert seen == [module.first, module.second, module]


def test_dtypes_change_in_place() -> None:
    module = Outer()
    module(distgrad.ones(2)).sum().backward()
    parameters = list(module.parameters())
    for convert, dtype in (
        (module.double, np.float64),
        (module.half, np.float16),
        (module.float, np.float32),
        (lambda: module.to(np.float64), np.float64),
        (lambda: module.to("cpu", dtype=np.dtype("float32")), np.float32),
        (lambda: module.to(distgrad.ones(1, dtype=np.float64)), np.float64),
        (lambda: module.to("cpu"), np.float64),
    ):
        assert convert() is module
        assert {parameter.dtype for parameter in module.parameters()} == {np.dtype(dtype)}
        assert {parameter.grad.dtype for parameter in module.parameters()} == {np.dtype(dtype)}
        assert module.first.scratch.dtype == dtype and module.first.count.dtype == np.int64
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))
    assert module.first.scale.requires_grad and module.first.scale.is_leaf
    with pytest.raises(TypeError, match="only accepts floating point dtypes, but got desired dtype=int64"):
        module.to(np.int64)
    with pytest.raises(RuntimeError, match="cuda"):
        module.to("cuda")


def test_state_dict_shares_memory_and_has_no_history() -> None:
    module = Outer()
    state = module.state_dict()
    assert isinstance(state, OrderedDict)
    assert list(state) == ["weight", "first.scale", "first.count", "second.scale", "second.count"]
    assert type(state["weight"]) is distgrad.Tensor and not state["weight"].requires_grad
    state["weight"].fill_(7)
    assert module.weight.tolist() == [7.0, 7.0]
    assert module.state_dict(keep_vars=True)["weight"] is module.weight
    assert list(module.first.state_dict(prefix="p.")) == ["p.scale", "p.count"]
    destination: dict[str, Any] = {}
    assert module.first.state_dict(destination=destination) is destination and "scale" in destination


@pytest.mark.parametrize("kind", ["tensor", "parameter", "array"])
def test_load_copies_in_place_and_casts(kind: str) -> None:
    module = nn.Linear(2, 1)
    weight, address = module.weight, module.weight.data_ptr()
    module.bias.requires_grad_(False)
    make = {"tensor": distgrad.from_numpy, "parameter": nn.Parameter, "array": np.asarray}[kind]
    result = module.load_state_dict({"weight": make(np.array([[1.0, 2.0]])), "bias": make(np.array([3.0]))})
    assert module.weight is weight and weight.data_ptr() == address and weight.dtype == np.float32
    assert weight.tolist() == [[1.0, 2.0]] and weight.requires_grad and weight.is_leaf and weight._version > 0
    assert module.bias.tolist() == [3.0] and not module.bias.requires_grad
    assert repr(result) == "<All keys matched successfully>"


def test_load_reports_missing_and_unexpected_names() -> None:
    module = Outer()
    state = module.state_dict()
    del state["first.scale"]
    state["first.foo"], state["bar"], state["weight.x"] = state["weight"], state["weight"], state["weight"]
    missing, unexpected = result = module.load_state_dict(state, strict=False)
    assert missing == ["first.scale"] and unexpected == ["bar", "weight.x", "first.foo"]
    assert repr(result) == (
        "_IncompatibleKeys(missing_keys=['first.scale'], unexpected_keys=['bar', 'weight.x', 'first.foo'])"
    )
    with pytest.raises(RuntimeError) as caught:
        module.load_state_dict(state)
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Outer:\n"
        '\tMissing key(s) in state_dict: "first.scale". \n'
        '\tUnexpected key(s) in state_dict: "bar", "weight.x", "first.foo". '
    )


def test_load_refuses_other_shapes_even_if_not_strict_and_changes_nothing() -> None:
    module = nn.Linear(2, 1)
    before = module.weight.tolist()
    with pytest.raises(RuntimeError, match=r"size mismatch for bias: copying a param with shape torch.Size\(\[4\]\)"):
        module.load_state_dict({"weight": np.zeros((1, 2)), "bias": np.zeros(4)}, strict=False)
    assert module.weight.tolist() == before


def test_load_refuses_what_is_not_a_tensor() -> None:
    module = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like, got <class 'list'>"):
        module.load_state_dict([])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r'parameter named "bias", expected a Tensor .* received <class \'str\'>'):
        module.load_state_dict({"weight": np.zeros((1, 2)), "bias": "x"})
    with pytest.raises(RuntimeError, match=r"an array of object"):
        module.load_state_dict({"weight": np.zeros((1, 2)), "bias": np.array([None])})


def test_load_takes_one_element_for_a_0d_tensor() -> None:
    module = Inner()
    state = module.state_dict() | {"count": np.array([4])}
    module.load_state_dict(state)
    assert module.count.shape == () and module.count.item() == 4


def test_loading_ones_own_state_changes_nothing() -> None:
    module = Outer()
    module.load_state_dict(module.state_dict())
    assert module.first.scale.tolist() == [1.0, 1.0]


def test_deepcopy_is_independent_and_keeps_sharing() -> None:
    module = Outer()
    module.tied = module.weight
    module.second = module.first
    module.eval()
    module(distgrad.ones(2)).sum().backward()
    duplicate = copy.deepcopy(module)
    assert list(duplicate.state_dict()) == list(module.state_dict())
    assert duplicate.tied is duplicate.weight and duplicate.weight is not module.weight
    assert duplicate.second is duplicate.first and not duplicate.training
    assert duplicate.weight.grad is None and duplicate.first.scale.requires_grad
    with distgrad.no_grad():
        duplicate.weight.fill_(9)
    assert module.weight.tolist() == [0.0, 0.0]
    assert duplicate(distgrad.ones(2)).tolist() == [10.0, 10.0]


def test_text_is_a_tree() -> None:
    class Described(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.child = nn.Sequential(nn.ReLU())
            self.empty = None

        def extra_repr(self) -> str:
            return "one\ntwo"

    assert repr(nn.Module()) == "Module()"
    assert repr(Described()) == ("Described(\n  one\n  two\n  (child): Sequential(\n    (0): ReLU()\n  )\n)")


@pytest.mark.parity
def test_load_errors_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")

    def build(nn: Any) -> Any:
        return nn.Sequential(
            OrderedDict(conv=nn.Conv2d(1, 2, 3), body=nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()), fc=nn.Linear(4, 2))
        )

    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())

    def edited(state: Any, zeros: Any) -> Any:
        del state["body.0.running_mean"], state["body.0.num_batches_tracked"], state["conv.bias"]
        state["conv.kernel"] = zeros(1)
        state["top"] = zeros(1)
        state["body.1.x.y"] = zeros(1)
        state["fc.weight"] = zeros(5, 7)
        state["fc.bias"] = zeros(3)
        return state

    for plain in (False, True):  # a plain dict does not know its version, and may lack what came later
        mine, other = edited(ours.state_dict(), distgrad.zeros), edited(theirs.state_dict(), torch.zeros)
        with pytest.raises(RuntimeError) as caught:
            ours.load_state_dict(dict(mine) if plain else mine)
        with pytest.raises(RuntimeError) as expected:
            theirs.load_state_dict(dict(other) if plain else other)
        assert str(caught.value) == str(expected.value)
        assert ("num_batches_tracked" in str(caught.value)) is not plain
        del mine["fc.weight"], mine["fc.bias"], other["fc.weight"], other["fc.bias"]
        assert repr(ours.load_state_dict(mine, strict=False)) == repr(theirs.load_state_dict(other, strict=False))


@pytest.mark.parity
def test_text_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")

    def build(nn: Any) -> Any:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
                self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Sequential(nn.ReLU()), nn.ReLU()])
                self.drop = nn.Dropout()
                self.empty = nn.ModuleList()
                self.gone = nn.ReLU()
                self.gone = None
                self.loss = nn.CrossEntropyLoss()

        return Net()

    assert repr(build(nn)) == repr(build(torch.nn))


def test_setting_by_dotted_name() -> None:
    module = Outer()
    module.second = nn.Sequential(nn.ReLU())
    new = nn.Tanh()
    module.set_submodule("second.0", new)
    assert module.second[0] is new
    module.set_submodule("second.extra", nn.Identity())
    assert list(module.second._modules) == ["0", "extra"]
    module.set_submodule("first", new, strict=True)
    assert module.first is new
    with pytest.raises(ValueError, match="Cannot set the submodule without a target name!"):
        module.set_submodule("", new)
    with pytest.raises(ValueError, match=r"`module` is not an nn.Module, found <class 'int'>"):
        module.set_submodule("first", 3)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="Sequential has no attribute `other`"):
        module.set_submodule("second.other", new, strict=True)
    with pytest.raises(AttributeError, match="Outer has no attribute `third`"):
        module.set_submodule("third.x", new)
    with pytest.raises(AttributeError, match=r"`weight` is not an nn.Module"):
        module.set_submodule("weight", new)


def test_type_casts_integers_too() -> None:
    module = Outer()
    assert module.type(np.float64) is module
    assert {tensor.dtype for tensor in (*module.parameters(), *module.buffers())} == {np.dtype("float64")}
    assert module.cpu() is module and module.weight.dtype == np.float64
    assert module.to(device="cpu", dtype=distgrad.float32, non_blocking=True).weight.dtype == np.float32


def test_new_memory_without_values() -> None:
    module = Outer()
    weight, memory, below = module.weight, module.weight.data_ptr(), module.first.scale.data_ptr()
    assert module.to_empty(device="cpu", recurse=False) is module and module.weight is weight
    assert weight.data_ptr() != memory and weight.shape == (2,) and module.first.scale.data_ptr() == below
    module.to_empty(device="cpu")
    assert module.first.scale.data_ptr() != below
    with pytest.raises(RuntimeError, match="there is no device 'meta'"):
        module.to_empty(device="meta")


def test_a_subclass_may_apply_to_more() -> None:
    class WithTable(Inner):
        def __init__(self) -> None:
            super().__init__()
            self.table = distgrad.zeros(2)

        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            self.table = fn(self.table)
            return super()._apply(fn, recurse)

    module = nn.Sequential(WithTable()).double()
    assert module[0].table.dtype == module[0].scale.dtype == np.float64


def test_a_name_of_ones_own() -> None:
    class Named(nn.Module):
        def _get_name(self) -> str:
            return "Other"

    assert repr(Named()) == "Other()"
