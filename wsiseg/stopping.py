"""Stopping long work in good order, because of a signal or because time is up."""

from __future__ import annotations

import os
import time

from wsiseg.errors import StoppedError

# Schedulers kill a job at its limit without mercy: leave room to close what is open.
MARGIN_S = 60.0


class Stop:
    """A request to stop that long work looks at between its units.

    Parameters
    ----------
    time_limit_s
        Seconds from now after which work should stop, or None. Where the scheduler tells the
        end of the job (``SLURM_JOB_END_TIME``, seconds since 1970), the earlier of both counts.
    """

    def __init__(self, time_limit_s: float | None = None) -> None:
        self._reason: str | None = None
        self._is_urgent = False
        limits = []
        if time_limit_s is not None:
            limits.append(time.time() + time_limit_s)
        if (end := os.environ.get("SLURM_JOB_END_TIME", "")).isdigit():
            limits.append(float(end) - MARGIN_S)
        self._deadline = min(limits, default=None)

    def request(self, reason: str) -> None:
        """Ask for a stop; safe in a signal handler."""
        self._reason = reason

    def insist(self) -> None:
        """Ask that not even the work in hand be finished; safe in a signal handler."""
        self._is_urgent = True

    @property
    def is_urgent(self) -> bool:
        """Tell whether not even the work in hand should be finished."""
        return self._is_urgent

    @property
    def is_requested(self) -> bool:
        """Tell whether work should stop now."""
        if self._reason is None and self._deadline is not None and time.time() >= self._deadline:
            self._reason = "the time limit is reached"
        return self._reason is not None

    def error(self) -> StoppedError:
        """Return the error that ends the work once its state is saved."""
        return StoppedError(f"stopped because {self._reason}; the work so far is saved", mend="Run again to go on")
