"""What a monitor sees of a detector: its session, so that nothing refers back to the detector."""

from __future__ import annotations

from dyninfer.errors import EngineRunError
from dyninfer.images.inputs import Picture
from dyninfer.monitoring.audit import Watched
from dyninfer.results.answers import Answer
from dyninfer.results.tasks import Options
from dyninfer.routing.policy import AlwaysHard
from dyninfer.runtime.batches import answer_batch
from dyninfer.runtime.session import Session
from dyninfer.types import ImageArray


def watched(session: Session) -> Watched:
    """A session as its monitor sees it."""

    def last_answer(image: ImageArray, options: Options) -> Answer:
        answer = answer_batch(session, [Picture(image)], AlwaysHard(), options)[0]
        if answer.degraded:  # an earlier exit would agree with itself
            raise EngineRunError("the last exit gave no answer; see failure_counts")
        return answer

    name, task, points = session.manifest.name, session.task, session.points
    return Watched(name, task, points, session.check_open, session.wait_idle, last_answer)
