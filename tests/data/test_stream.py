from __future__ import annotations

import itertools

import numpy as np
import pytest

from distgrad.data import sample_generator
from distgrad.data.stream import order_generator


def test_a_stream_depends_on_its_key_alone():
    keys = list(itertools.product((0, 1, 2**64 - 1), (0, 1, 7), (0, 1, 2, 10**12)))
    streams = {key: tuple(sample_generator(*key).integers(0, 2**63, 4).tolist()) for key in keys}
    assert len(set(streams.values())) == len(keys)
    # Asked again, backwards and amid other draws, each is the same.
    for key in reversed(keys):
        np.random.default_rng().random()
        assert tuple(sample_generator(*key).integers(0, 2**63, 4).tolist()) == streams[key]


def test_the_order_has_a_stream_of_its_own():
    assert order_generator(3, 5).random() != sample_generator(3, 5, 0).random()
    assert order_generator(3, 5).random() == order_generator(3, 5).random()


def test_neighbouring_streams_are_independent():
    # 2000 consecutive samples, one uniform draw each: mean and lag-1 correlation within 5 standard errors.
    draws = np.array([sample_generator(0, 0, index).random() for index in range(2000)])
    assert abs(draws.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 2000)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5 / np.sqrt(2000)


@pytest.mark.parametrize(
    ("key", "name"), [((-1, 0, 0), "seed"), ((0, -1, 0), "epoch"), ((0, 0, 2**64), "sample index")]
)
def test_a_key_that_does_not_fit_is_refused(key, name):
    with pytest.raises(ValueError, match=f"{name} must be an integer from 0"):
        sample_generator(*key)
