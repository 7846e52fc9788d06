"""What a monitor sees of a detector: its session, so that nothing refers back to the detector."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.results.answers import Answer
from dyninfer.results.tasks import Options, TaskKind
from dyninfer.routing.policy import AlwaysHard, DecisionPoint
from dyninfer.runtime.batches import answer_batch
from dyninfer.runtime.session import Session
from dyninfer.types import ImageArray


class WatchedSession:
    """A session as its monitor sees it; see :class:`dyninfer.monitoring.audit.Watched`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.check_open = session.check_open
        self.wait_idle = session.wait_idle

    @property
    def name(self) -> str:
        """Of the bundle."""
        return self._session.manifest.name

    @property
    def task(self) -> TaskKind:
        """What the bundle computes."""
        return self._session.task

    @property
    def points(self) -> Sequence[DecisionPoint]:
        """Where the route decides."""
        return self._session.points

    def last_answer(self, image: ImageArray, options: Options) -> Answer:
        """What the last way finds in a picture (h, w, 3) uint8 BGR, whatever the policy."""
        return answer_batch(self._session, [image], AlwaysHard(), options)[0]
