from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import dyninfer
from dyninfer import (
    Accuracy,
    AlwaysEasy,
    AlwaysHard,
    CertifiedRisk,
    Controller,
    Forced,
    FramesPerSecond,
    HardFraction,
    LatencyBudget,
    PolicyError,
    Threshold,
)
from dyninfer.bundle.calibration import CALIBRATION_FILE
from dyninfer.bundle.manifest import Precision
from dyninfer.runtime import detector as detector_module
from tests import support
from tests.dyninfer.calibrations import calibration_of, spread
from tests.dyninfer.monitoring import watching

EASINESS = watching.quantised(spread(100))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[dyninfer.Detector]:
    """A detector whose calibration was made on these engines."""
    with dyninfer.load(watching.write_audited(tmp_path / "two.dyn"), max_batch=8) as detector:
        calibrate(detector)
        yield detector


def calibrate(detector: dyninfer.Detector, **changes: object) -> None:
    (detector.bundle.path / CALIBRATION_FILE).unlink(missing_ok=True)  # or both would be kept
    record = detector.engine_record().model_copy(update=changes)
    calibration = calibration_of(EASINESS).model_copy(update={"engine": record})
    detector.bundle.write_calibration(calibration)


def hard_share(detector: dyninfer.Detector, easiness: np.ndarray) -> float:
    found = detector(watching.pictures(easiness))
    return float(np.mean([result.exit_index for result in found]))


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.5, 0.99, 1.0])
def test_a_hard_fraction_is_had_on_the_calibrations_images(opened, fraction) -> None:
    opened.policy = HardFraction(fraction)
    assert opened.policy == HardFraction(fraction)
    assert hard_share(opened, EASINESS[0]) == pytest.approx(fraction, abs=0.011)


def test_the_threshold_of_a_goal_can_be_looked_at(opened) -> None:
    opened.policy = HardFraction(0.3)
    assert opened.active_policy == Threshold(float(np.percentile(EASINESS, 30)))
    opened.policy = Threshold(0.5)
    assert opened.active_policy is opened.policy


def test_every_goal_is_taken(opened) -> None:
    for goal in (LatencyBudget(ms=13), FramesPerSecond(70), LatencyBudget(ms=15, percentile=90)):
        opened.policy = goal
        assert 0 < hard_share(opened, EASINESS[0]) < 1


def test_adaptive_control_moves_with_the_images(opened) -> None:
    opened.policy = HardFraction(0.3, adaptive=True)
    controller = opened.active_policy
    assert isinstance(controller, Controller)
    darker = EASINESS[0] / 4
    assert np.mean([hard_share(opened, darker) for _ in range(6)]) == pytest.approx(0.3, abs=0.05)
    assert controller.state.images == 600
    saved = controller.state.to_dict()
    opened.policy = HardFraction(0.3, adaptive=True)
    again = opened.active_policy
    assert isinstance(again, Controller)
    assert again.state.images == 0
    again.restore(type(again.state).from_dict(saved))
    assert again.state == controller.state


def test_what_a_budget_observes_adds_up_to_the_time_of_the_call(opened, monkeypatch) -> None:
    opened.policy = LatencyBudget(ms=13, adaptive=True)
    controller = opened.active_policy
    seen = []
    monkeypatch.setattr(controller, "observe", lambda exits, ms: seen.append((exits, ms)))
    clock = iter([0, 48_000_000])  # 48 ms in all
    here_alone = SimpleNamespace(perf_counter_ns=lambda: next(clock))  # threads look at others
    monkeypatch.setattr(detector_module, "time", here_alone)
    monkeypatch.setattr(detector_module, "answer_batch", lambda *_, **__: answers)
    answers = [
        watching.answer(
            *(0.9, index, [0.0]), timings_ms={"decode": decode, "prepare": 1.0, "body": spent}
        )
        for index, decode, spent in ((0, 0.0, 9.0), (1, 500.0, 29.0))
    ]
    opened([watching.picture(0.5)] * 2)
    ((exits, spent_ms),) = seen
    assert exits.tolist() == [0, 1]
    assert spent_ms.tolist() == [14.0, 34.0]


def test_prepared_tensors_leave_a_budget_nothing_to_wait_for(opened) -> None:
    opened.policy = LatencyBudget(ms=13, adaptive=True)
    controller = opened.active_policy
    assert isinstance(controller, Controller)
    costs = controller.state.exit_costs
    found = opened.infer({"images": np.full((20, 3, 8, 8), 0.5, np.float32)})
    state = controller.state
    assert (state.images, state.pending, state.exit_costs) == (len(found), (0, 0), costs)


def test_no_calibration_names_the_command(tmp_path: Path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path) as detector:
        with support.refuses(PolicyError, f"dyninfer calibrate {path} --images"):
            detector.policy = HardFraction(0.3)
        assert detector.policy == Threshold(0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backend_version", "0.9"),
        ("backend", "tensorrt"),
        ("provider", "cuda"),
        ("image_inputs", {"images": "640x640"}),
        ("stages_sha256", {"first": "0"}),
        ("precision", {"first": Precision.INT8}),
    ],
)
def test_a_calibration_of_another_engine_is_refused(opened, field, value) -> None:
    calibrate(opened, **{field: value})
    with support.refuses(PolicyError, "was made with", "dyninfer calibrate"):
        opened.policy = HardFraction(0.3)


def test_another_processor_matters_to_times_alone(opened) -> None:
    calibrate(opened, device_name="some other processor")
    opened.policy = HardFraction(0.3)
    for goal in (LatencyBudget(ms=13), FramesPerSecond(70)):
        with support.refuses(PolicyError, "some other processor", "dyninfer calibrate"):
            opened.policy = goal
    assert opened.policy == HardFraction(0.3)


def test_what_the_calibration_lacks_is_asked_for(opened) -> None:
    with support.refuses(PolicyError, "--annotations"):
        opened.policy = Accuracy(max_ap_drop=0.5)
    with support.refuses(PolicyError, "--risk"):
        opened.policy = CertifiedRisk()


def test_a_changed_calibration_is_noticed(opened) -> None:
    path = opened.bundle.path / CALIBRATION_FILE
    path.write_text(path.read_text().replace('"count": 100', '"count": 101'))
    with support.refuses(dyninfer.BundleError, "was changed"):
        opened.policy = HardFraction(0.3)
    with support.refuses(dyninfer.BundleError, "was changed"):
        dyninfer.load(opened.bundle.path)


def test_a_calibration_made_while_open_is_used(tmp_path: Path) -> None:
    with dyninfer.load(watching.write_audited(tmp_path / "two.dyn")) as detector:
        with pytest.raises(PolicyError):
            detector.policy = HardFraction(0.3)
        calibrate(detector)
        detector.policy = HardFraction(0.3)
        assert isinstance(detector.active_policy, Threshold)


def test_goals_need_a_router(tmp_path: Path) -> None:
    for path, why in (
        (support.write_two_exits(tmp_path / "unrouted.dyn", router=False), "no router"),
        (support.write_static(tmp_path / "static.dyn"), "one way"),
        (support.write_select_detectors(tmp_path / "select.dyn"), "choice_scores"),
    ):
        with dyninfer.load(path) as detector, support.refuses(PolicyError, "HardFraction", why):
            detector.policy = HardFraction(0.3)


def test_no_engine_is_opened_again_for_a_policy(opened) -> None:
    before = dict(opened.engines)
    for policy in (AlwaysEasy(), HardFraction(0.2), LatencyBudget(ms=13), AlwaysHard()):
        opened.policy = policy
    assert all(opened.engines[name] is engine for name, engine in before.items())


def test_policies_change_while_other_threads_predict(opened) -> None:
    policies = [AlwaysEasy(), AlwaysHard(), HardFraction(0.5)]
    stop, wrong = threading.Event(), []
    easy, hard = watching.picture(1.0), watching.picture(0.0)

    def predict() -> None:
        while not stop.is_set():
            first, second = opened([easy, hard])
            # one policy decides a whole batch: nothing that no single one would say
            if first.exit_index > second.exit_index:
                wrong.append((first.exit_index, second.exit_index))

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        opened.policy = policies[turn % len(policies)]
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    opened.policy = AlwaysEasy()
    assert opened(hard).exit_index == 0
    opened.policy = AlwaysHard()
    assert opened(easy).exit_index == 1


def test_a_policy_of_one_call_leaves_the_detectors_own_and_its_control_alone(opened) -> None:
    opened.policy = HardFraction(0.3, adaptive=True)
    opened(watching.pictures(EASINESS[0]))
    controller, state = opened.active_policy, opened.active_policy.state
    found = opened(watching.pictures(EASINESS[0]), policy=AlwaysHard())
    assert {result.exit_index for result in found} == {1}
    with pytest.raises(PolicyError, match="no exit 7"):
        opened(watching.pictures([0.5]), policy=Forced([7]))
    picture = watching.pictures([0.5])[0]
    assert [opened(picture, policy=Forced([way])).exit_index for way in (0, 1)] == [0, 1]
    with pytest.raises(PolicyError, match=r"2 images.* 1"):
        opened(picture, policy=Forced([0, 1]))
    assert opened.policy == HardFraction(0.3, adaptive=True)
    assert opened.active_policy is controller
    assert controller.state == state


def test_a_policy_that_a_call_has_again_is_checked_for_its_own_number_of_images(opened) -> None:
    forced, several = Forced([0, 1]), watching.pictures([0.5, 0.5])
    for _ in range(2):
        assert [found.exit_index for found in opened(several, policy=forced)] == [0, 1]
        for images in (several[:1], several[0], several * 2):
            with pytest.raises(PolicyError, match="forced for 2 images"):
                opened(images, policy=forced)


def test_a_goal_that_calls_have_again_is_resolved_once(opened, monkeypatch) -> None:
    """Or an adaptive one would begin anew with every call."""
    resolved, resolve = [], HardFraction.resolve

    def noting(goal, calibration):
        resolved.append(resolve(goal, calibration))
        return resolved[-1]

    monkeypatch.setattr(HardFraction, "resolve", noting)
    goal, pictures = HardFraction(0.3, adaptive=True), watching.pictures([0.2, 0.8])
    for _ in range(3):
        opened(pictures, policy=goal)
    assert [controller.state.images for controller in resolved] == [6]
