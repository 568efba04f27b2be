"""The schedule of the daily DAGs: UTC days, each run named by its day."""

from __future__ import annotations

from typing import Any

from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.utils.types import DagRunType


class DayTimetable(CronDataIntervalTimetable):
    """Each whole UTC day, once it is over.

    Airflow names a run by the instant from which it is due, the midnight after its day, and its pages show no other
    date of a run: whoever looks for a day would always be one day off.
    """

    def __init__(self) -> None:
        super().__init__("0 0 * * *", timezone="UTC")

    def generate_run_id(self, *, run_type: DagRunType, run_after: Any, data_interval: Any, **extra: Any) -> str:
        """The name of a run: of a scheduled one its day. A run by hand may be given another day by a parameter."""
        if run_type is DagRunType.SCHEDULED and data_interval is not None:
            return f"{run_type.value}__{data_interval.start:%Y-%m-%d}"
        return str(
            super().generate_run_id(run_type=run_type, run_after=run_after, data_interval=data_interval, **extra)
        )

    def serialize(self) -> dict[str, Any]:
        """Nothing needs to be kept: all instances are alike."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> DayTimetable:  # noqa: ARG003
        """See :meth:`serialize`."""
        return cls()
