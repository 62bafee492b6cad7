"""What a run tells: progress while it goes, metrics for machines, lines for people, a timeline of all ranks."""

from __future__ import annotations

from .metrics_log import MetricsLog, read_metrics
from .progress import Progress
from .report import epoch_line, summary
from .timeline import Timeline
from .timeline_summary import TimelineSummary

__all__ = ["MetricsLog", "Progress", "Timeline", "TimelineSummary", "epoch_line", "read_metrics", "summary"]
