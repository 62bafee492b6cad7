"""What a run tells: progress while it goes, metrics for machines, lines for people."""

from __future__ import annotations

from .metrics_log import MetricsLog, read_metrics
from .progress import Progress
from .report import epoch_line, summary

__all__ = ["MetricsLog", "Progress", "epoch_line", "read_metrics", "summary"]
