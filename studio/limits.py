"""What one visitor may ask for where others wait too."""

from dataclasses import dataclass

from studio.domain.errors import RateLimited
from studio.ledger import Ledger

MINUTE_S, DAY_S = 60.0, 24 * 3600.0
_USUAL_JOB_S = 10.0
"""What is said of when to ask again before any job was done."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many jobs may wait, how many begin in a minute, and how many pictures are made in a day; 0 is no limit."""

    waiting: int = 0
    jobs_per_minute: int = 0
    pictures_per_day: int = 0

    def check(self, ledger: Ledger, queue: str, visitor: str) -> None:
        """Refuse another job of `visitor` in `queue` where that would be too many.

        Raises:
            RateLimited: it would; with the seconds until it would not.
        """
        own = ledger.waiting(queue, visitor) if self.waiting else 0
        if self.waiting and own >= self.waiting:
            raise RateLimited(
                f"{own} of your jobs are waiting already; at most {self.waiting} may at once.",
                "Wait until one is done, or cancel one.",
                retry_after_s=max(1.0, ledger.usual_job_s(queue) or _USUAL_JOB_S),
            )
        if self.jobs_per_minute and (wait := ledger.jobs_wait_s(visitor, self.jobs_per_minute, MINUTE_S)):
            raise RateLimited(
                f"You have asked for {self.jobs_per_minute} jobs within a minute, which is the most.",
                f"Ask again in {wait:.0f} s.",
                retry_after_s=wait,
            )
        if self.pictures_per_day and (wait := ledger.pictures_wait_s(visitor, self.pictures_per_day, DAY_S)):
            raise RateLimited(
                f"{self.pictures_per_day} pictures were made for you within a day, which is the most.",
                f"Ask again in {max(1, round(wait / 60))} min.",
                retry_after_s=wait,
            )


NO_LIMITS = Limits()
