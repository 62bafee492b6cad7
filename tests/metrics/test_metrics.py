"""Metrics against their definitions, in batches of any size, over any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad import metrics, tensor
from distgrad.autograd import Tensor
from distgrad.distributed import communicator, threads
from distgrad.errors import CommunicationError
from distgrad.metrics import Accuracy, ConfusionMatrix, MeanMetric, MeanVariance, MetricCollection, TopKAccuracy

CLASSES = 7


def batch(samples: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((samples, CLASSES)).astype(np.float32), generator.integers(0, CLASSES, samples)


MAKERS: dict[str, Callable[[], metrics.Metric]] = {
    "accuracy": Accuracy,
    "top 3": lambda: TopKAccuracy(3),
    "confusion": lambda: ConfusionMatrix(CLASSES),
    "mean": MeanMetric,
    "moments": lambda: MeanVariance((CLASSES,)),
}


def feed(metric: metrics.Metric, scores: Any, labels: Any) -> None:
    if isinstance(metric, MeanMetric):
        metric.update(scores[:, 0], abs(scores[:, 1]))
    elif isinstance(metric, MeanVariance):
        metric.update(scores)
    else:
        metric.update(scores, labels)


def bits(value: Any) -> bytes:
    parts = value if isinstance(value, tuple) else (value,)
    return b"".join(np.asarray(part).tobytes() for part in parts)


# ---- Each metric


def test_accuracy_counts_right_classes() -> None:
    scores, labels = batch(50)
    for preds in (scores, Tensor(scores), scores.argmax(1), tensor(scores).argmax(1)):
        accuracy = Accuracy()
        accuracy.update(preds, labels)
        assert accuracy.compute() == (scores.argmax(1) == labels).sum() / 50
        assert (accuracy.correct, accuracy.total) == ((scores.argmax(1) == labels).sum(), 50)


def test_accuracy_of_pixels() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    labels = np.random.default_rng(1).integers(0, 3, (2, 4, 5))
    labels[0, 0] = 255
    accuracy = Accuracy(ignore_index=255)
    accuracy.update(scores, labels)
    kept = labels != 255
    assert accuracy.total == kept.sum() == 35
    assert accuracy.compute() == (scores.argmax(1) == labels)[kept].mean()


@pytest.mark.parametrize("k", [1, 3, CLASSES])
def test_top_k_looks_at_the_k_largest_scores(k: int) -> None:
    scores, labels = batch(60)
    top = TopKAccuracy(k)
    top.update(Tensor(scores), Tensor(labels))
    expected = (np.argsort(-scores, axis=1)[:, :k] == labels[:, None]).any(1).mean()
    assert top.compute() == expected
    if k == 1:
        accuracy = Accuracy()
        accuracy.update(scores, labels)
        assert accuracy.compute() == expected


def test_the_first_of_equal_scores_is_the_choice_and_nan_is_never_right() -> None:
    scores = [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [math.nan, 1.0, 0.0], [math.nan, 1.0, 0.0]]
    labels = [0, 1, 0, 1]
    one, two, three = Accuracy(), TopKAccuracy(2), TopKAccuracy(3)
    for metric in (one, two, three):
        metric.update(scores, labels)
    assert (one.correct, two.correct, three.correct) == (1, 3, 3)


def test_confusion_matrix_and_what_follows_from_it() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    labels = np.array([0, 0, 1, 2, 2, 2, 4, 4])  # class 3 is neither true nor predicted, 5 only predicted
    predicted = np.array([0, 1, 1, 2, 2, 0, 5, 4])
    confusion = ConfusionMatrix(6)
    confusion.update(predicted[:3], labels[:3])
    confusion.update(tensor(np.eye(6)[predicted[3:]]), tensor(labels[3:]))
    np.testing.assert_array_equal(confusion.compute(), sklearn.confusion_matrix(labels, predicted, labels=range(6)))
    for normalize in ("true", "pred", "all"):
        expected = sklearn.confusion_matrix(labels, predicted, labels=range(6), normalize=normalize)
        np.testing.assert_allclose(confusion.compute(normalize=normalize), expected, rtol=1e-15)
    scores = sklearn.precision_recall_fscore_support(labels, predicted, labels=range(6), zero_division=0)
    for ours, expected in zip((confusion.precision(), confusion.recall(), confusion.f1()), scores, strict=False):
        np.testing.assert_allclose(ours, expected, rtol=1e-15)
    np.testing.assert_array_equal(confusion.support(), scores[3])
    for average in ("micro", "macro", "weighted"):
        scores = sklearn.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        ours = confusion.precision(average), confusion.recall(average), confusion.f1(average)
        np.testing.assert_allclose(ours, scores[:3], rtol=1e-15)
    assert confusion.accuracy() == sklearn.accuracy_score(labels, predicted)


def test_a_mean_is_weighted_and_rounded_once() -> None:
    mean = MeanMetric()
    mean.update(0.1)
    mean.update(np.float32([0.2, 0.3]), weight=2)
    mean.update(tensor([[1.0, 2.0]]), weight=tensor([0.5, 0.0]))
    values = [0.1, float(np.float32(0.2)), float(np.float32(0.3)), 1.0]
    assert mean.compute() == pytest.approx(np.average(values, weights=[1, 2, 2, 0.5]), rel=1e-15)
    mean.reset()
    mean.update([1e300, 1.0, -1e300])
    assert mean.compute() == 1 / 3


def test_the_mean_over_an_empty_batch_counts_as_nothing() -> None:
    mean = MeanMetric()
    mean.update(math.nan, weight=0)
    mean.update(3.0, weight=4)
    assert mean.compute() == 3.0
    mean.update([math.nan])
    assert math.isnan(mean.compute())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("correction", [0, 1])
def test_moments_do_not_cancel(dtype: type, correction: int) -> None:
    values = (np.random.default_rng(0).standard_normal((40, 3)) * 3 + 4000).astype(dtype)
    moments = MeanVariance((3,), correction=correction)
    for part in np.array_split(values, 5):
        moments.update(Tensor(part))
    mean, variance, count = moments.compute()
    exact = values.astype(np.longdouble)
    np.testing.assert_allclose(mean, exact.mean(0).astype(float), rtol=1e-15)
    np.testing.assert_allclose(variance, exact.var(0, ddof=correction).astype(float), rtol=1e-15)
    np.testing.assert_allclose(moments.compute().std, exact.std(0, ddof=correction).astype(float), rtol=1e-15)
    assert count == 40


def test_the_variance_of_a_large_constant_is_zero() -> None:
    moments = MeanVariance()
    moments.update(np.full(1000, 1e15 + 0.3))
    assert moments.compute() == (1e15 + 0.3, 0.0, 1000)
    alone = MeanVariance()
    alone.update(3.0)
    assert alone.compute().mean == 3.0 and math.isnan(alone.compute().variance)
    alone.update(math.inf)
    assert alone.compute().mean == math.inf and math.isnan(alone.compute().variance)


# ---- What all of them have in common


@pytest.mark.parametrize("name", MAKERS)
def test_without_a_sample_there_is_no_value(name: str) -> None:
    metric = MAKERS[name]()
    scores, labels = batch(0)
    feed(metric, scores, labels)
    value = metric.reduce().compute()
    if name == "confusion":
        assert not value.any()
        assert all(math.isnan(metric.f1(average)) for average in ("micro", "macro", "weighted"))
    else:
        assert np.isnan(value[1] if isinstance(value, tuple) else value).all()


@pytest.mark.parametrize("name", MAKERS)
def test_batches_merges_and_calls_agree_to_the_last_bit(name: str) -> None:
    scores, labels = batch(41)
    whole = MAKERS[name]()
    feed(whole, scores, labels)
    pieces, merged, called = MAKERS[name](), MAKERS[name](), MAKERS[name]()
    for start, end in ((0, 1), (1, 1), (1, 30), (30, 41)):
        feed(pieces, scores[start:end], labels[start:end])
        other = MAKERS[name]()
        feed(other, scores[start:end], labels[start:end])
        assert merged.merge(other) is merged
        arguments = {"mean": (scores[start:end, 0], abs(scores[start:end, 1])), "moments": (scores[start:end],)}
        of_batch = called(*arguments.get(name, (scores[start:end], labels[start:end])))
        if start < end:
            assert bits(of_batch) == bits(other.compute())
    assert bits(pieces.compute()) == bits(merged.compute()) == bits(called.compute()) == bits(whole.compute())
    whole.reset()
    feed(whole, scores[:5], labels[:5])
    fresh = MAKERS[name]()
    feed(fresh, scores[:5], labels[:5])
    assert bits(whole.compute()) == bits(fresh.compute())


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_see_what_one_process_sees(name: str, world_size: int) -> None:
    """Samples that do not divide by the number of ranks, fewer than ranks, none at all on some."""
    for samples in (1, 2, 29):
        scores, labels = batch(samples)
        alone = MAKERS[name]()
        feed(alone, scores, labels)

        def rank(scores: Any = scores, labels: Any = labels) -> bytes:
            ranks, metric = communicator(), MAKERS[name]()
            mine = slice(ranks.rank, None, ranks.world_size)
            feed(metric, scores[mine], labels[mine])
            before = bits(metric.compute())
            once = metric.reduce()
            assert bits(metric.compute()) == before, "reducing leaves the rank's own counts alone"
            assert bits(metric.reduce(ranks).compute()) == bits(once.compute())
            return bits(once.compute())

        assert set(threads.run(world_size, rank, timeout=20)) == {bits(alone.compute())}


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_goes_into_another_metric(name: str) -> None:
    scores, labels = batch(11)
    metric, again = MAKERS[name](), MAKERS[name]()
    feed(metric, scores, labels)
    state = metric.state_dict()
    feed(metric, scores, labels)
    again.load_state_dict(state)
    feed(again, scores, labels)
    assert bits(again.compute()) == bits(metric.compute())
    with pytest.raises(ValueError, match="has the state"):
        again.load_state_dict({"something": 1})


def test_a_state_can_be_written_to_a_checkpoint() -> None:
    from distgrad.checkpoint.encoding import decode, encode

    mean, moments = MeanMetric(), MeanVariance((2,))
    mean.update([0.1, math.inf])
    moments.update([[1.0, 2.0]])
    text, arrays = encode({"mean": mean.state_dict(), "moments": moments.state_dict()})
    state = decode(text, arrays)
    mean.load_state_dict(state["mean"])
    moments.load_state_dict(state["moments"])
    assert mean.compute() == math.inf and moments.compute().mean.tolist() == [1.0, 2.0]


def test_ranks_with_different_metrics_are_told_so() -> None:
    def rank() -> str:
        metric = TopKAccuracy(2 if communicator().rank == 1 else 1)
        with pytest.raises(CommunicationError) as refused:
            metric.reduce()
        return str(refused.value)

    (message,) = set(threads.run(3, rank, timeout=20))
    assert "rank 0 has TopKAccuracy(k=1, ignore_index=None) with correct (), total () but rank 1 has" in message

    class Seen(metrics.Metric):
        def __init__(self, places: int) -> None:
            super().__init__()
            self.add_counts("seen", (places,))

    def shapes() -> None:
        with pytest.raises(CommunicationError, match=r"seen \(2,\) but rank 1 has Seen\(\) with seen \(3,\)"):
            Seen(2 + communicator().rank).reduce()

    threads.run(2, shapes, timeout=20)


def test_a_collection_hands_on_every_call() -> None:
    scores, labels = batch(30)
    both = MetricCollection({"accuracy": Accuracy(), "top2": TopKAccuracy(2)})
    first = both(scores[:10], labels[:10])
    assert first["accuracy"] == (scores.argmax(1) == labels)[:10].mean()
    both.update(scores[10:20], labels[10:20])
    other = MetricCollection({"accuracy": Accuracy(), "top2": TopKAccuracy(2)})
    other.load_state_dict(both.state_dict())
    other.reset()
    other.update(scores[20:], labels[20:])
    assert both.merge(other).reduce().compute()["accuracy"] == (scores.argmax(1) == labels).mean()
    assert list(both) == ["accuracy", "top2"] and len(both) == 2 and isinstance(both["top2"], TopKAccuracy)
    with pytest.raises(ValueError, match="cannot be merged with other"):
        both.merge(MetricCollection({"other": Accuracy()}))
    with pytest.raises(ValueError, match="was given the state of nothing"):
        both.load_state_dict({"nothing": {}})


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (Accuracy, ([0.5, 0.2], [0, 1]), TypeError, "preds of target's shape"),
        (Accuracy, ([0, 1], [0.0, 1.0]), TypeError, "target must be classes, integers"),
        (Accuracy, ([0, 1, 1], [0, 1]), ValueError, r"preds of shape \(3,\) do not fit target of shape \(2,\)"),
        (Accuracy, ([[0.1, 0.2]], [2]), ValueError, "target has the class 2, but the classes are 0 to 1"),
        (Accuracy, ([[1, 2]], [1]), TypeError, "are scores, but their dtype is int64"),
        (lambda: TopKAccuracy(3), ([[0.1, 0.2]], [1]), ValueError, "k is 3, but there are only 2 classes"),
        (lambda: TopKAccuracy(1), ([1], [1]), ValueError, "preds must be scores"),
        (lambda: TopKAccuracy(0), (), ValueError, "k is 0, must be at least 1"),
        (lambda: ConfusionMatrix(0), (), ValueError, "num_classes is 0"),
        (lambda: ConfusionMatrix(2), ([2], [1]), ValueError, "preds has the class 2"),
        (lambda: ConfusionMatrix(2), ([1], [-1]), ValueError, "target has the class -1"),
        (lambda: ConfusionMatrix(2), ([[0.1, 0.2, 0.3]], [1]), ValueError, "there are scores of 3"),
        (MeanMetric, (1.0, -1.0), ValueError, "at least 0, but there is -1.0"),
        (lambda: MeanVariance((3,)), (np.zeros(2),), ValueError, r"must be \(\.\.\., \*\(3,\)\)"),
        (lambda: MeanVariance(correction=-1), (), ValueError, "correction is -1"),
    ],
)
def test_what_does_not_fit_is_refused(
    make: Callable[[], metrics.Metric], arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make().update(*arguments)


def test_settings_that_differ_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="do not measure the same"):
        TopKAccuracy(1).merge(TopKAccuracy(2))
    confusion = ConfusionMatrix(2)
    with pytest.raises(ValueError, match="normalize is 'rows'"):
        confusion.compute(normalize="rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="average is 'mean'"):
        confusion.f1("mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"counts has the shape \(2, 2\), but was given \(3, 3\)"):
        confusion.load_state_dict(ConfusionMatrix(3).state_dict())


def test_a_users_own_metric_needs_only_its_state_and_its_value() -> None:
    class Positives(metrics.Metric):
        def __init__(self) -> None:
            super().__init__()
            self.add_counts("seen", (2,))

        def update(self, values: Any) -> None:
            self.seen += [(np.asarray(values) > 0).sum(), len(values)]

        def compute(self) -> float:
            return float(self.seen[0] / self.seen[1])

    def rank() -> float:
        mine = Positives()
        mine.update([1.0, -1.0] if communicator().rank else [2.0])
        return mine.reduce().compute()

    assert threads.run(2, rank, timeout=20) == [2 / 3, 2 / 3]


def test_an_unknown_name_is_told_its_neighbour() -> None:
    with pytest.raises(AttributeError, match="'ConfusionMatrix'"):
        metrics.ConfusionMatrx  # noqa: B018
