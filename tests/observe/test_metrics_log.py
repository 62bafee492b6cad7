from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from distgrad.errors import DistgradError
from distgrad.observe import MetricsLog, read_metrics


def filled(path: Path, steps: range) -> None:
    with MetricsLog(path) as log:
        for step in steps:
            log.write({"kind": "train", "step": step, "loss": 1 / step})


def test_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write({"step": 1, "loss": np.float32(0.5), "classes": np.int64(3), "name": "a\nb"})
        assert len(path.read_text().splitlines()) == 1  # there at once, not at the end
        log.write({"step": 2, "nested": {"lr": [0.1, (np.bool_(True), None)]}})
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5, "classes": 3, "name": "a\nb"},
        {"step": 2, "nested": {"lr": [0.1, [True, None]]}},
    ]
    assert read_metrics(path) == [json.loads(line) for line in lines]


def test_what_is_not_finite_is_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write({"step": 1, "loss": math.nan, "norms": [np.float32("inf"), -math.inf], "text": "NaN is fine"})
    record = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record == {"step": 1, "loss": "NaN", "norms": ["Infinity", "-Infinity"], "text": "NaN is fine"}
    back = read_metrics(path)[0]
    assert math.isnan(back["loss"]) and back["norms"] == [math.inf, -math.inf] and back["text"] == "NaN is fine"


def test_only_rank_0_writes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path, rank=1) as log:
        log.write({"step": 1})
    assert not path.parent.exists()


def test_a_new_run_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    filled(path, range(1, 5))
    filled(path, range(1, 2))
    assert [record["step"] for record in read_metrics(path)] == [1]


def test_a_resume_repeats_nothing(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.jsonl", tmp_path / "metrics.jsonl"
    filled(whole, range(1, 11))
    filled(path, range(1, 8))
    with MetricsLog(path, resume_step=4) as log:
        assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 4]
        for step in range(5, 11):
            log.write({"kind": "train", "step": step, "loss": 1 / step})
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("torn", [b'{"kind": "train", "st', b'{"step": 9}', b"\x00\x00\x00", b"nonsense\n"])
def test_a_torn_last_line(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    filled(path, range(1, 4))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]
    MetricsLog(path, resume_step=100).close()
    assert path.read_bytes() == whole


def test_resume_keeps_records_without_a_step_and_makes_a_missing_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "start"}\n{"step": 1}\n{"step": 2}\n{"kind": "end"}\n')
    MetricsLog(path, resume_step=1).close()
    assert path.read_text() == '{"kind": "start"}\n{"step": 1}\n'
    MetricsLog(tmp_path / "new.jsonl", resume_step=7).close()
    assert read_metrics(tmp_path / "new.jsonl") == []


def test_a_full_disk_tears_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    write, calls = os.write, 0

    def nearly_full(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return write(descriptor, bytes(data[:5]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with MetricsLog(path) as log:
        log.write({"step": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", nearly_full)
            with pytest.raises(
                DistgradError, match=r"cannot write .*metrics\.jsonl: No space left on device\. Make room"
            ):
                log.write({"step": 2})
        log.write({"step": 3})
    assert [record["step"] for record in read_metrics(path)] == [1, 3]


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DistgradError, match=r"cannot read .*nowhere\.jsonl: No such file or directory"):
        read_metrics(tmp_path / "nowhere.jsonl")
    with pytest.raises(DistgradError, match="Is a directory"):
        MetricsLog(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nhello\n{"step": 2}\n')
    with pytest.raises(DistgradError, match=r"metrics\.jsonl, line 2, is not a record: b'hello\\n'"):
        read_metrics(path)


def test_a_value_that_json_lacks(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl") as log, pytest.raises(TypeError, match="set"):
        log.write({"step": {1}})
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
