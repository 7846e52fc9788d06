from __future__ import annotations

import numpy as np
import pytest

from dyninfer import AlwaysEasy, AlwaysHard, InputError, LeaveAt, Threshold
from dyninfer.monitoring import drift
from dyninfer.monitoring.drift import mean_bounds
from dyninfer.monitoring.expected import Reference
from dyninfer.routing import thresholds
from tests import support
from tests.dyninfer.calibrations import choosing
from tests.dyninfer.monitoring import watching

RISK_MARGIN = 0.01
EASINESS = np.array([0.1, 0.3, 0.3, 0.5, 0.7, 0.9])
LOSSES = np.array([0.9, 0.6, 0.2, 0.2, 0.0, 0.1])


def limit_of(risk: float, images: int) -> float:
    return mean_bounds(risk, images, 0.05)[1] + RISK_MARGIN


@pytest.mark.parametrize(
    ("policy", "hard", "easy_loss", "risk"),
    [
        (Threshold(0.0), 0.0, 2.0 / 6, 2.0 / 6),
        (Threshold(0.3), 1 / 6, 1.1 / 5, 1.1 / 6),
        (Threshold(0.5), 0.5, 0.1, 0.05),
        (Threshold(1.5), 1.0, 0.0, 0.0),
        (AlwaysEasy(), 0.0, 2.0 / 6, 2.0 / 6),
        (AlwaysHard(), 1.0, 0.0, 0.0),
        (LeaveAt(0), 0.0, 2.0 / 6, 2.0 / 6),
    ],
)
def test_a_policy_is_foretold_from_the_calibrations_images(policy, hard, easy_loss, risk) -> None:
    outlook = Reference.of_calibration(watching.calibration_of(EASINESS, LOSSES)).under(policy)
    assert outlook.images == 6
    assert outlook.hard_share == pytest.approx(hard)
    assert outlook.easy_loss == pytest.approx(easy_loss)
    assert outlook.risk_limit == pytest.approx(limit_of(risk, 6))
    assert outlook.easiness.tolist() == drift.on_grid(EASINESS).tolist()
    assert sum(outlook.histogram) == pytest.approx(1)


def test_nan_is_hard_for_a_threshold_and_stands_in_no_histogram() -> None:
    easiness = [np.nan, 0.2, 0.8, np.nan]
    reference = Reference.of_calibration(watching.calibration_of(easiness, 0.5))
    outlook = reference.under(Threshold(0.1))
    assert (outlook.hard_share, outlook.nan_share) == (0.5, 0.5)
    assert outlook.easiness.tolist() == drift.on_grid([0.2, 0.8]).tolist()
    one = Reference.of_easiness([0.8], 1).under(Threshold(0.1))
    assert sum(one.histogram) == 1
    only_nan = Reference("nothing", np.full((1, 3), np.nan)).under(Threshold(0.1))
    assert (only_nan.hard_share, only_nan.nan_share) == (1.0, 1.0)
    assert only_nan.histogram == (0.0,) * 10


def test_of_three_exits_the_last_router_that_sees_an_image_reports() -> None:
    generator = np.random.default_rng(0)
    easiness, losses = generator.random((2, 2, 300))
    for policy in (Threshold(0.4), Threshold((0.3, 0.8)), AlwaysEasy(), AlwaysHard(), LeaveAt(1)):
        outlook = Reference.of_calibration(watching.calibration_of(easiness, losses)).under(policy)
        reported, hard, early = [], 0, []
        for (first, second), (loss, later) in zip(easiness.T, losses.T, strict=True):
            goes_on = support.go_on(policy, np.float32([first]), 0, 3)[0]
            is_hard = goes_on and support.go_on(policy, np.float32([second]), 1, 3)[0]
            reported.append(second if goes_on else first)
            hard += is_hard
            early += [] if is_hard else [later if goes_on else loss]
        assert outlook.easiness.tolist() == sorted(drift.on_grid(reported))
        assert outlook.hard_share == pytest.approx(hard / 300)
        assert outlook.easy_loss == pytest.approx(np.mean(early) if early else 0)
        assert outlook.risk_limit == pytest.approx(limit_of(sum(early) / 300, 300))
    shares = thresholds.exit_shares_at(easiness, 0.4)
    outlook = Reference("both", easiness).under(Threshold(0.4))
    assert outlook.hard_share == pytest.approx(shares[2])


def test_the_certificate_limits_the_risk_of_policies_that_send_on_as_much() -> None:
    certified = watching.calibration_of(EASINESS, LOSSES, watching.certificate(0.5, 0.123))
    reference = Reference.of_calibration(certified)
    for policy in (Threshold(0.5), Threshold(0.6), AlwaysHard()):
        assert reference.under(policy).risk_limit == 0.123
    for policy in (Threshold(0.2), AlwaysEasy()):
        assert reference.under(policy).risk_limit == pytest.approx(
            Reference.of_calibration(watching.calibration_of(EASINESS, LOSSES))
            .under(policy)
            .risk_limit
        )


class Learning:
    """A policy whose state moves with every image that it is asked about."""

    def decide(self, _easiness, _point):
        raise AssertionError("asked about images that are not its own")


def test_a_policy_that_may_learn_from_it_is_not_asked() -> None:
    calibration = watching.calibration_of(EASINESS, LOSSES)
    outlook = Reference.of_calibration(calibration).under(Learning())
    assert (outlook.hard_share, outlook.easy_loss) == (None, None)
    assert outlook.easiness.tolist() == drift.on_grid(EASINESS).tolist()
    assert outlook.risk_limit == pytest.approx(limit_of(2.0 / 6, 6))


def test_what_such_a_policy_reports_of_three_exits_is_not_known() -> None:
    calibration = watching.calibration_of(np.full((2, 5), 0.5), [[0.1] * 5, [0.3] * 5])
    outlook = Reference.of_calibration(calibration).under(Learning())
    assert (len(outlook.easiness), outlook.images) == (0, 5)
    assert outlook.risk_limit == pytest.approx(limit_of(0.3, 5))


def test_of_a_choosers_branches_there_is_no_easiness() -> None:
    calibration = choosing(np.array([[0.9, 0.1], [0.2, 0.8]]), (10, 20), ((1.0,), (2.0,)))
    outlook = Reference.of_calibration(calibration).under(Learning())
    assert (len(outlook.easiness), outlook.nan_share) == (0, 0.0)


def test_easiness_alone_gives_no_losses() -> None:
    outlook = Reference.of_easiness([0.2, 0.4, np.nan], 1).under(Threshold(0.3))
    assert outlook.hard_share == pytest.approx(2 / 3)
    assert (outlook.easy_loss, outlook.risk_limit) == (None, None)
    assert "3 images" in Reference.of_easiness([1, 0, 1], 1).source


@pytest.mark.parametrize(
    ("easiness", "routers"),
    [([], 1), ([np.nan], 1), ([[0.1], [0.2]], 1), ([0.1], 2), (np.inf, 1), ([0.1, np.inf], 1),
     ("easy", 1), (["0.3"], 1), ([[[0.1]]], 1), ([True], 1)],
)  # fmt: skip
def test_a_baseline_that_is_no_easiness_is_refused(easiness, routers) -> None:
    with support.refuses(InputError, "a baseline is", "expected", "easiness"):
        Reference.of_easiness(easiness, routers)


def test_outlooks_and_references_are_themselves_and_no_others() -> None:
    """Their arrays could not say in one word whether they are equal."""
    ones, others = ([Reference("r", np.full((1, 3), 0.5))] for _ in range(2))
    for found in (ones, others):
        found.append(found[0].under(Threshold(0.1)))
    for one, other in zip(ones, others, strict=True):
        assert one == one
        assert one != other
        assert len({one, other}) == 2
