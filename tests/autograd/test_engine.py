"""The backward pass: order, accumulation, what it frees, hooks, callbacks, errors."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd.engine import AccumulateGrad, queue_callback, reachable_leaves
from distgrad.autograd.primitive import OperationNode, Primitive


def leaf(*values: float) -> dg.Tensor:
    return dg.tensor(list(values), dtype=dg.float64, requires_grad=True)


def scalar(value: float) -> dg.Tensor:
    return dg.tensor(value, dtype=dg.float64, requires_grad=True)


# Accumulation --------------------------------------------------------------------------------------------------------


def test_gradients_accumulate() -> None:
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]
    first = x.grad
    (3 * x).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]
    assert x.grad is first
    x.grad = None
    (3 * x).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_a_shared_subexpression_counts_once_a_use() -> None:
    x = leaf(2.0)
    y = x * x
    for _ in range(30):  # 2**30 paths, 30 nodes
        y = y + y
    y.backward()
    assert x.grad.tolist() == [4.0 * 2**30]


def test_a_node_is_applied_once_when_all_its_gradients_are_there() -> None:
    x = leaf(3.0)
    y = x * 2
    seen: list[float] = []
    y.register_hook(lambda g: seen.append(g.item()))
    (y * y + y + y.exp() * 0).sum().backward()
    assert seen == [13.0]
    assert x.grad.item() == 26.0


def test_two_leaves_do_not_share_their_gradient() -> None:
    for create_graph in (False, True):
        a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
        (a + b).sum().backward(create_graph=create_graph)
        with dg.no_grad():
            a.grad.zero_()
        assert b.grad.tolist() == [1.0, 1.0]


def test_the_given_gradient_is_not_shared_either() -> None:
    for create_graph in (False, True):
        x, g = leaf(1.0, 2.0), dg.tensor([5.0, 6.0], dtype=dg.float64)
        x.backward(g, create_graph=create_graph)
        with dg.no_grad():
            x.grad.zero_()
        assert g.tolist() == [5.0, 6.0]


def test_gradients_keep_shape_and_dtype_without_dimensions() -> None:
    """NumPy makes scalars of sums of 0-d arrays, and a scalar is easily taken for something in float32."""
    x = scalar(0.1)
    seen: list[Any] = []
    y = x * 1.0
    y.register_hook(lambda g: seen.append(g))
    y.retain_grad()
    (y * y + y + y).backward()
    (x * 3).backward()
    (x * x + x).backward(create_graph=True)
    (x * 3).backward()
    for g in (x.grad, y.grad, seen[0]):
        assert g.dtype == dg.float64
        assert g.shape == ()
    assert y.grad.item() == 2.2
    assert x.grad.item() == pytest.approx(2.2 + 3 + 1.2 + 3, abs=1e-15)


def test_float32_stays_float32() -> None:
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    y = (x * 2.0 + 1) / 3 - x**2 + x.exp() * np.float64(2.0) + dg.where(x > 1, x, 0.5)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dg.float32


# Depth and width -----------------------------------------------------------------------------------------------------


def test_a_chain_of_100000_operations() -> None:
    """Backward and the release of the graph use no recursion."""
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    watched = weakref.ref(y.grad_fn)
    y.backward()
    assert x.grad.item() == 1.0
    y.sum().backward()
    del y
    gc.collect()
    assert watched() is None


def test_a_long_chain_is_deleted_without_a_backward() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y * 1.0
    del y
    assert x.grad is None


def test_operations_run_latest_first_and_leaves_at_once() -> None:
    a, b = leaf(1.0), leaf(1.0)
    order: list[str] = []
    x = a * 2
    y = b * 3
    z = x * y
    for name, tensor in {"a": a, "b": b, "x": x, "y": y, "z": z}.items():
        tensor.register_hook(lambda g, name=name: order.append(name))
    z.sum().backward()
    assert order == ["z", "y", "b", "x", "a"]


# What is kept, and how long ------------------------------------------------------------------------------------------


def saved_of(tensor: Any) -> list[Any]:
    return [item[0] if isinstance(item, tuple) and item and isinstance(item[0], dg.Tensor) else item
            for item in tensor.grad_fn._saved]  # fmt: skip


def test_only_what_a_requested_gradient_needs_is_saved() -> None:
    x, frozen = leaf(1.0, 2.0), dg.tensor([3.0, 4.0], dtype=dg.float64)
    y = x * frozen
    assert any(item is frozen for item in saved_of(y))
    assert not any(item is x for item in saved_of(y))
    z = x + frozen
    assert not any(isinstance(item, dg.Tensor) for item in saved_of(z))


def test_a_frozen_weight_does_not_keep_the_activation() -> None:
    x, frozen = leaf(1.0, 2.0), dg.tensor([3.0, 4.0], dtype=dg.float64)
    hidden = x + 1.0
    memory = weakref.ref(hidden)
    y = hidden * frozen
    del hidden
    assert memory() is None
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]


def test_no_graph_without_a_gradient() -> None:
    y = dg.ones(3) * dg.ones(3)
    assert y.grad_fn is None
    assert not y.requires_grad


def test_residuals_are_freed_as_the_pass_goes_on() -> None:
    """The residual of a later operation is gone when an earlier one is reached."""
    x = leaf(*[0.5] * 4)
    tensors, residuals = [x], []
    for _ in range(5):
        tensors.append(tensors[-1].exp())
    residuals = [weakref.ref(t.detach().numpy()) for t in tensors]
    alive: list[int] = []
    for t in tensors[1:]:
        t.register_hook(lambda g: alive.append(sum(r() is not None for r in residuals[1:])))
    last = tensors[-1].sum()
    del tensors, t
    last.backward()
    # 5 exponentials are saved when the last one is reached; each is gone when the one before it is
    assert alive == [5, 4, 3, 2, 1]


def test_a_freed_graph_says_so() -> None:
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"second time.*Specify retain_graph=True.*\(MulBackward0\)"):
        y.backward()
    assert x.grad.tolist() == [2.0]


def test_retain_graph() -> None:
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4.0]


def test_third_order() -> None:
    x = scalar(0.7)
    y = dg.sin(x) * x**3
    g1 = dg.autograd.grad(y, x, create_graph=True)[0]
    g2 = dg.autograd.grad(g1, x, create_graph=True)[0]
    g3 = dg.autograd.grad(g2, x)[0]
    s, c, v = np.sin(0.7), np.cos(0.7), 0.7
    assert g1.item() == pytest.approx(c * v**3 + 3 * s * v**2, rel=1e-13)
    assert g2.item() == pytest.approx(-s * v**3 + 6 * c * v**2 + 6 * s * v, rel=1e-13)
    assert g3.item() == pytest.approx(-c * v**3 - 9 * s * v**2 + 18 * c * v + 6 * s, rel=1e-13)
    assert not g3.requires_grad


def test_create_graph_with_backward_adds_history() -> None:
    x = scalar(2.0)
    (x**3).backward(create_graph=True)
    assert x.grad.item() == 12.0
    assert x.grad.requires_grad
    first = x.grad
    x.grad = None
    first.backward()
    assert x.grad.item() == 12.0
    assert first.item() == 12.0


def test_a_plain_backward_after_a_recorded_one_keeps_that_history_intact() -> None:
    x = scalar(2.0)
    (x**3).backward(create_graph=True)
    recorded = x.grad
    (x * 1.0).backward()
    assert (recorded.item(), x.grad.item()) == (12.0, 13.0)
    assert not x.grad.requires_grad


# Hooks of tensors ----------------------------------------------------------------------------------------------------


def test_hooks_of_leaves_and_of_others_replace_in_order() -> None:
    for get in (lambda x: x, lambda x: x * 1.0):
        x = leaf(1.0, 2.0)
        y = get(x)
        seen: list[list[float]] = []
        y.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
        y.register_hook(lambda g: g * 2)
        handle = y.register_hook(lambda g: g * 100)
        y.register_hook(lambda g: g + 1)
        handle.remove()
        handle.remove()
        (y * 3).sum().backward()
        assert seen == [[3.0, 3.0]]
        assert x.grad.tolist() == [7.0, 7.0]


def test_a_hook_can_be_removed_by_a_with_block() -> None:
    x = leaf(1.0)
    with x.register_hook(lambda g: g * 10):
        (x * 1).sum().backward()
    (x * 1).sum().backward()
    assert x.grad.tolist() == [11.0]


def test_a_hook_of_a_leaf_sees_the_sum_once() -> None:
    x = leaf(1.0)
    seen: list[float] = []
    x.register_hook(lambda g: seen.append(g.item()))
    (x * 2 + x * 3 + x).sum().backward()
    assert seen == [6.0]


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (3, TypeError, "returned 'int'"),
        (dg.ones(3), RuntimeError, "has changed the size of value"),
        (dg.ones(2), RuntimeError, "has changed the type of value"),
    ],
)
def test_a_hook_must_return_a_like_tensor(returned: Any, error: type[Exception], message: str) -> None:
    for get in (lambda x: x, lambda x: x * 1.0):
        x = leaf(1.0, 2.0)
        y = get(x)
        y.register_hook(lambda g: returned)
        with pytest.raises(error, match=message):
            (y * 2).sum().backward()


def test_hooks_need_a_gradient() -> None:
    with pytest.raises(RuntimeError, match="cannot register a hook on a tensor that doesn't require gradient"):
        dg.ones(2).register_hook(lambda g: g)


def test_hooks_under_create_graph_are_differentiated() -> None:
    x = scalar(2.0)
    y = x**2
    y.register_hook(lambda g: g * x)
    (g,) = dg.autograd.grad(y, x, create_graph=True)  # x * 2x
    assert g.item() == 8.0
    assert dg.autograd.grad(g, x)[0].item() == 8.0


def test_grad_runs_the_hooks_of_its_inputs() -> None:
    x = scalar(2.0)
    y = x * 3
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    assert dg.autograd.grad(y * y, y, retain_graph=True)[0].item() == 120.0
    assert dg.autograd.grad(y * y, x)[0].item() == 361.0


def test_retain_grad() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    y.register_hook(lambda g: g * 5)
    assert y.retains_grad
    (y * 3).sum().backward(retain_graph=True)
    assert y.grad.tolist() == [15.0, 15.0]
    (y * 3).sum().backward()
    assert y.grad.tolist() == [30.0, 30.0]
    x.retain_grad()
    assert not x.retains_grad
    with pytest.raises(RuntimeError, match="can't retain_grad on Tensor that has requires_grad=False"):
        dg.ones(2).retain_grad()


def test_retain_grad_follows_a_change_in_place() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y += 1
    (y * 3).sum().backward()
    assert y.grad.tolist() == [3.0, 3.0]
    assert x.grad.tolist() == [6.0, 6.0]


def test_retain_grad_does_not_keep_the_tensor() -> None:
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    memory, z = weakref.ref(y), (y + 1).sum()
    del y
    assert memory() is None
    z.backward()
    assert x.grad.tolist() == [2.0]


# Hooks of nodes ------------------------------------------------------------------------------------------------------


def test_node_hooks() -> None:
    x = leaf(1.0)
    y = x * 2
    seen: list[Any] = []
    y.grad_fn.register_prehook(lambda outputs: (outputs[0] * 10,))
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append((inputs[0].item(), outputs[0].item())))
    handle = y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] + 1, inputs[1]))
    (y * 3).sum().backward(retain_graph=True)
    assert seen == [(60.0, 30.0)]
    assert x.grad.item() == 61.0
    handle.remove()
    (y * 3).sum().backward()
    assert x.grad.item() == 121.0


def test_node_hooks_must_return_as_many_values() -> None:
    x = leaf(1.0)
    y = x * 2
    y.grad_fn.register_prehook(lambda outputs: (outputs[0], outputs[0]))
    with pytest.raises(RuntimeError, match=r"incorrect number of values \(got 2, but expected 1\)"):
        y.sum().backward()
    y = leaf(1.0) * leaf(2.0)
    y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0],))
    with pytest.raises(RuntimeError, match=r"incorrect number of values \(got 1, but expected 2\)"):
        y.sum().backward()


def test_the_hook_of_an_accumulator() -> None:
    """How a reducer may listen without touching the tensor: the node keeps what the graph keeps."""
    x = leaf(1.0)
    accumulator = x.view(1).grad_fn.next_functions[0][0]
    assert isinstance(accumulator, AccumulateGrad)
    assert accumulator.name() == "AccumulateGrad"
    assert accumulator.variable is x
    fired: list[float] = []
    accumulator.register_hook(lambda inputs, outputs: fired.append(x.grad.item()))
    (x * 2 + x).sum().backward()
    assert fired == [3.0]


# Post-accumulate hooks and callbacks ---------------------------------------------------------------------------------


def test_post_accumulate_hooks_see_the_final_gradient_once() -> None:
    x, other = leaf(1.0), leaf(5.0)
    fired: list[tuple[str, float]] = []
    x.register_post_accumulate_grad_hook(lambda t: fired.append(("x", t.grad.item())))
    other.register_post_accumulate_grad_hook(lambda t: fired.append(("other", t.grad.item())))
    (x * 2 + x * x + x * other).sum().backward()
    assert sorted(fired) == [("other", 1.0), ("x", 9.0)]
    fired.clear()
    (x * 1).sum().backward()
    assert fired == [("x", 10.0)]
    fired.clear()
    dg.autograd.grad((x * 1).sum(), x)
    assert fired == []
    (x * other).sum().backward(inputs=[x])
    assert fired == [("x", 15.0)]
    assert other.grad.item() == 1.0


def test_a_post_accumulate_hook_may_free_the_gradient() -> None:
    x = leaf(1.0)
    handle = x.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", None))
    (x * 2).sum().backward()
    assert x.grad is None
    handle.remove()
    (x * 2).sum().backward()
    assert x.grad.item() == 2.0
    with pytest.raises(RuntimeError, match="cannot be registered on non-leaf tensors"):
        (x * 2).register_post_accumulate_grad_hook(lambda t: None)


def test_callbacks_run_at_the_end() -> None:
    x, y = leaf(1.0), leaf(1.0)
    order: list[str] = []

    def last() -> None:
        order.append("callback")
        assert x.grad is not None
        assert y.grad is not None

    x.register_hook(lambda g: queue_callback(last))
    y.register_hook(lambda g: queue_callback(last))
    for t, name in ((x, "x"), (y, "y")):
        t.register_post_accumulate_grad_hook(lambda t, name=name: order.append(name))
    (x * y).sum().backward()
    assert order == ["x", "y", "callback", "callback"]


def test_callbacks_outside_a_pass() -> None:
    with pytest.raises(RuntimeError, match="Final callbacks can only be installed during backward pass"):
        queue_callback(lambda: None)
    x = leaf(1.0)
    x.register_hook(lambda g: 1 / 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ZeroDivisionError):
        (x * 1).sum().backward()
    with pytest.raises(RuntimeError, match="Final callbacks"):
        queue_callback(lambda: None)


def test_a_callback_may_queue_another() -> None:
    x = leaf(1.0)
    order: list[int] = []

    def first() -> None:
        order.append(1)
        queue_callback(lambda: order.append(2))

    x.register_hook(lambda g: queue_callback(first))
    (x * 1).sum().backward()
    assert order == [1, 2]


def test_which_leaves_a_pass_will_still_reach() -> None:
    a, b, c, unused = leaf(1.0), leaf(2.0), leaf(3.0), leaf(4.0)
    names = {id(a): "a", id(b): "b", id(c): "c", id(unused): "unused"}
    seen: dict[str, set[str]] = {}

    def note(t: dg.Tensor) -> None:
        seen[names[id(t)]] = {names[id(left)] for left in reachable_leaves()}

    for t in (a, b, c, unused):
        t.register_post_accumulate_grad_hook(note)
    _ = unused * a
    loss = ((a * b).tanh() * c).sum()
    loss.backward(retain_graph=True)
    assert seen == {"c": {"a", "b"}, "a": {"b"}, "b": set()} or seen == {"c": {"a", "b"}, "b": {"a"}, "a": set()}
    seen.clear()
    loss.backward(inputs=[b], retain_graph=True)
    assert seen == {"b": set()}
    seen.clear()
    a.requires_grad_(False)  # since the graph was made: it is reached, and takes nothing
    loss.backward()
    assert seen.keys() == {"b", "c"}
    with pytest.raises(RuntimeError, match="can only be asked during backward pass"):
        reachable_leaves()


def test_a_leaf_that_several_operations_use_is_awaited_until_the_last() -> None:
    a, b = leaf(1.0), leaf(2.0)
    left: list[list[dg.Tensor]] = []
    b.register_post_accumulate_grad_hook(lambda t: left.append(reachable_leaves()))
    ((a.tanh() * b).tanh() * a).sum().backward()
    assert [[t is a for t in found] for found in left] == [[True]]
    inner: list[int] = []

    def hook(t: dg.Tensor) -> None:
        with dg.enable_grad():
            (leaf(1.0) * 2).sum().backward()  # a pass of its own, over when the question is asked
        inner.append(len(reachable_leaves()))

    b.register_post_accumulate_grad_hook(hook)
    ((a.tanh() * b).tanh() * a).sum().backward()
    assert inner == [1]


def test_a_gradient_is_put_where_its_leaf_has_memory_for_it() -> None:
    flat = np.full(5, 7.0)
    x, y = leaf(1.0, 2.0), leaf(1.0, 2.0, 3.0)
    x._grad_slot, y._grad_slot = flat[:2], flat[2:]
    ((x * 3).sum() + (y * y).sum()).backward()
    assert flat.tolist() == [3.0, 3.0, 2.0, 4.0, 6.0]
    assert np.shares_memory(x.grad.numpy(), flat)
    x.sum().backward()  # added in the same memory
    assert flat.tolist() == [4.0, 4.0, 2.0, 4.0, 6.0]
    x.grad = None
    x.register_hook(lambda g: dg.from_numpy(flat[:2]))  # the memory itself is what arrives
    x.sum().backward()
    assert flat[:2].tolist() == [4.0, 4.0]
    assert np.shares_memory(x.grad.numpy(), flat)
    y.grad = None
    (y * y).sum().backward(create_graph=True)  # a gradient with history is its own tensor
    assert y.grad.requires_grad
    assert not np.shares_memory(y.grad.detach().numpy(), flat)


# Odd graphs ----------------------------------------------------------------------------------------------------------


def test_backward_inside_a_hook() -> None:
    """As in gradient checkpointing: the inner pass has its own queue, callbacks and mode."""
    x, inner = leaf(1.0), leaf(3.0)
    log: list[str] = []

    def hook(g: dg.Tensor) -> dg.Tensor:
        queue_callback(lambda: log.append("outer"))
        with dg.enable_grad():
            y = (inner * inner).sum()
        y.register_hook(lambda g: queue_callback(lambda: log.append("inner")))
        y.backward()
        return g * inner.grad

    z = x * 2
    z.register_hook(hook)
    z.sum().backward()
    assert x.grad.item() == 12.0
    assert log == ["inner", "outer"]


def test_several_outputs_of_which_one_gets_no_gradient() -> None:
    x = dg.tensor([[1.0, 2.0], [3.0, np.inf]], requires_grad=True)
    a, b = x.unbind()
    assert (a.output_nr, b.output_nr) == (0, 1)
    assert a.grad_fn is b.grad_fn
    (a * np.inf).sum().backward(retain_graph=True)
    assert x.grad.tolist() == [[np.inf, np.inf], [0.0, 0.0]]
    x.grad = None
    (a * b).sum().backward()
    assert x.grad.tolist() == [[3.0, np.inf], [1.0, 2.0]]


def test_an_error_in_a_vjp_names_the_operation() -> None:
    def broken(g: Any) -> Any:
        raise ArithmeticError("no")

    bad = Primitive("Bad", np.negative, ("input",), {"input": broken})
    y = bad(leaf(1.0))
    with pytest.raises(ArithmeticError, match="no") as caught:
        y.sum().backward()
    assert caught.value.__notes__ == ["(in the backward pass of Bad, gradient of 'input')"]


def test_an_exception_leaves_the_mode_as_it_was() -> None:
    x = leaf(1.0)
    x.register_hook(lambda g: 1 / 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ZeroDivisionError):
        (x * 1).sum().backward()
    assert dg.is_grad_enabled()


def test_threads_work_on_graphs_of_their_own() -> None:
    shared = leaf(*np.linspace(0.1, 0.9, 9))
    results: dict[int, list[float]] = {}

    def work(number: int) -> None:
        for _ in range(20):
            x = leaf(*np.linspace(0.1, 0.9, 9))
            y = x
            for _ in range(20):
                y = y * shared.detach() + number
            y.sum().backward()
        results[number] = x.grad.tolist()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(results) == {0, 1, 2, 3}
    for grads in results.values():
        np.testing.assert_allclose(grads, np.linspace(0.1, 0.9, 9) ** 20, rtol=1e-12)


def test_floating_point_trouble_is_a_value_not_a_warning() -> None:
    x = leaf(0.0, 1e200)
    y = x.log() + x * x * x + x / 0.0
    y.sum().backward()
    assert np.isinf(x.grad.tolist()[0])


def test_names_and_next_functions() -> None:
    x, w = leaf(1.0), dg.tensor([2.0], dtype=dg.float64)
    y = x * w
    assert y.grad_fn.name() == "MulBackward0"
    assert isinstance(y.grad_fn, OperationNode)
    (first, number), second = y.grad_fn.next_functions
    assert (first.name(), number) == ("AccumulateGrad", 0)
    assert second == (None, 0)
    assert (x * 2).grad_fn.next_functions == ((first, 0), (None, 0))  # numbers count, as in PyTorch
    assert (y + x).grad_fn.next_functions == ((y.grad_fn, 0), (first, 0))
    assert repr(y.grad_fn).startswith("<MulBackward0 object at 0x")


def test_one_accumulator_a_leaf() -> None:
    x = leaf(1.0)
    a, b = x * 2, x * 3
    assert a.grad_fn.next_functions[0][0] is b.grad_fn.next_functions[0][0]


# Against PyTorch -----------------------------------------------------------------------------------------------------


def tangled(torch: Any, tensor: Callable[..., Any]) -> list[Any]:
    """One graph with most of what an engine has to get right; returns all that can be observed of it."""
    a, b, c = (tensor(v) for v in ([0.5, 1.5, -0.25], [2.0, -1.0, 0.75], [[1.0], [2.0]]))
    log: list[Any] = []
    p = a * b + b.exp()
    p.retain_grad()
    p.register_hook(lambda g: g * 0.5)
    q = p * c - (a * a).sum()
    q.register_hook(lambda g: log.append(("q", g.tolist())))
    for name, t in (("a", a), ("b", b), ("c", c)):
        t.register_hook(lambda g, name=name: log.append((name, g.tolist())))
        t.register_post_accumulate_grad_hook(lambda t, name=name: log.append((name, "final", t.grad.tolist())))
    loss = (q.tanh() * q).mean() + p.max() + (p.unbind(0)[1] ** 2) + torch.stack([a, b]).sum(0).pow(3).sum()
    loss.backward(retain_graph=True)
    loss.backward(create_graph=True)
    total = sum((t.grad * t.grad).sum() for t in (a, b, c))
    second = torch.autograd.grad(total, [a, b, c], allow_unused=True)
    return [log, p.grad.tolist(), [t.grad.tolist() for t in (a, b, c)], [g.tolist() for g in second]]


def flat(value: Any) -> list[Any]:
    return [x for item in value for x in flat(item)] if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Using backward")
def test_a_tangled_graph_as_in_torch() -> None:
    torch = pytest.importorskip("torch")
    mine = tangled(dg, lambda v: dg.tensor(v, dtype=dg.float64, requires_grad=True))
    theirs = tangled(torch, lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True))
    for x, y in zip(flat(mine), flat(theirs), strict=True):
        assert x == (y if isinstance(y, str) else pytest.approx(y, rel=1e-12, abs=1e-12))


def test_a_gradient_that_nobody_else_holds_is_not_copied() -> None:
    made: list[int] = []
    kept: list[Any] = []

    def vjp(g: Any, input: Any) -> Any:
        value = g * input
        made.append(value.ctypes.data)
        if keep:
            kept.append(value)
        return value

    product = Primitive("Product", np.multiply, ("input", "other"), {"input": lambda g, other: vjp(g, other)})
    for keep in (False, True):
        x = leaf(1.0, 2.0)
        product(x, dg.tensor([3.0, 4.0], dtype=dg.float64)).sum().backward()
        assert x.grad.tolist() == [3.0, 4.0]
        assert (x.grad.data_ptr() == made[-1]) is not keep, "taken over where nobody else has it, else copied"
    seed = dg.ones(2, dtype=dg.float64)
    x, y = leaf(1.0, 2.0), leaf(1.0, 2.0)
    (x + y).backward(seed)
    x.grad.mul_(5)
    assert y.grad.tolist() == seed.tolist() == [1.0, 1.0]


def test_a_gradient_that_is_asked_for_is_read_before_the_nodes_own_hooks() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    y.grad_fn.register_prehook(lambda grads: (grads[0] * 10,))
    y.register_hook(lambda g: g * 2)
    at_y, at_x = dg.autograd.grad(y.sum(), (y, x))
    assert at_y.tolist() == [2.0, 2.0] and at_x.tolist() == [60.0, 60.0]


def test_what_a_hook_returns_stays_its_own() -> None:
    x = leaf(1.0, 2.0)
    mine = dg.ones(2, dtype=dg.float64)
    x.register_hook(lambda g: mine)
    for _ in range(2):
        (x * 3).sum().backward()
    assert mine.tolist() == [1.0, 1.0] and x.grad.tolist() == [2.0, 2.0]
    y = leaf(1.0, 2.0)
    (y * 3).sum().backward()
    kept: list[Any] = []
    y.register_hook(lambda g: kept.append(g * 2) or kept[-1])
    for _ in range(2):
        (y * 3).sum().backward()
    assert kept[0].tolist() == [6.0, 6.0] and y.grad.tolist() == [15.0, 15.0]
