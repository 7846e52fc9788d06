from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.errors import RouterError
from dyninfer.evaluation.coco import Truth
from dyninfer.evaluation.routed_precision import match_picture
from dyninfer.exporters.router import learning
from dyninfer.exporters.router.learning import DetectionPool, ExitData, fit_gain, fit_losses
from dyninfer.exporters.router.observe import Observations, agreed_truth
from dyninfer.results.answers import Detections
from tests.support import refuses

BOX, AWAY = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def detections(*found: tuple[list[float], float, int]) -> Detections:
    return Detections(
        boxes_xyxy=np.array([box for box, *_ in found], np.float32).reshape(-1, 4),
        confidences=np.array([confidence for _, confidence, _ in found], np.float32),
        class_ids=np.array([class_id for *_, class_id in found], np.int64),
        class_names=("thing",) * len(found),
    )


def truth(*objects: tuple[list[float], int], crowd: bool = False) -> Truth:
    boxes = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
    return Truth(boxes, np.array([c for _, c in objects], np.int64), np.full(len(objects), crowd))


def losses(*pictures, classes=None) -> np.ndarray:
    matches = [match_picture(known, exits) for known, *exits in pictures]
    return DetectionPool(matches, (0, 1), classes).losses(np.ones(len(matches), bool))


def test_nothing_there_and_nothing_found_costs_nothing():
    assert losses((truth(), detections(), detections())).tolist() == [[0, 0]]


def test_a_missed_object_costs_one_and_a_found_one_nothing():
    found = losses((truth((BOX, 0)), detections(), detections((BOX, 0.9, 0))))
    assert found.tolist() == [[1, 0]]


def test_a_false_detection_costs_only_above_true_ones():
    below = losses((truth((BOX, 0)), detections((AWAY, 0.1, 0)), detections((BOX, 0.9, 0))))
    above = losses((truth((BOX, 0)), detections((AWAY, 0.95, 0)), detections((BOX, 0.9, 0))))
    assert below[0, 0] == 1
    assert above[0, 0] > 1.2


def test_the_class_must_be_right():
    wrong = losses((truth((BOX, 0)), detections((BOX, 0.9, 1)), detections((BOX, 0.8, 0))))
    assert wrong[0, 0] > 1 > wrong[0, 1]


def test_crowds_count_neither_way():
    crowd = truth((BOX, 0), crowd=True)
    assert losses((crowd, detections((BOX, 0.9, 0)), detections())).tolist() == [[0, 0]]


def test_a_detection_is_matched_at_an_overlap_of_half():
    """0.52 finds an object, and lies in a crowd."""
    slim = [0.0, 0.0, 10.0, 5.2]
    found = losses((truth((BOX, 0)), detections((slim, 0.9, 0)), detections((slim, 0.8, 0))))
    assert found.tolist() == [[0, 0]]
    both = Truth(np.array([slim, AWAY]), np.array([0, 0]), np.array([True, False]))
    picture = (both, detections((BOX, 0.9, 0)), detections((AWAY, 0.5, 0)))
    assert losses(picture).tolist() == [[1, 0]]


def test_classes_that_are_never_there_count_neither_way_where_asked():
    picture = (truth((BOX, 0)), detections((AWAY, 0.95, 1)), detections((BOX, 0.9, 0)))
    assert losses(picture)[0, 0] > 1
    assert losses(picture, classes=np.array([True, False]))[0, 0] == 1


def test_only_the_marked_images_are_looked_at():
    pictures = [
        (truth((BOX, 0)), detections((AWAY, 0.95, 0)), detections((BOX, 0.9, 0))),
        (truth((BOX, 0)), detections((BOX, 0.7, 0)), detections((AWAY, 0.8, 0))),
    ]
    matches = [match_picture(known, exits) for known, *exits in pictures]
    alone = DetectionPool(matches[:1], (0, 1)).losses(np.array([True]))
    marked = DetectionPool(matches, (0, 1)).losses(np.array([True, False]))
    assert marked[0].tolist() == alone[0].tolist()
    assert marked[1].tolist() == [0, 0]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 100_000))
def test_the_losses_add_up_to_what_average_precision_lacks(seed: int):
    rng = np.random.default_rng(seed)

    def some() -> Detections:
        boxes = [BOX, AWAY, [20.0, 20.0, 30.0, 30.0]]
        return detections(
            *((boxes[k], float(rng.uniform()), 0) for k in rng.permutation(3)[: rng.integers(4)])
        )

    pictures = [(truth((BOX, 0), (AWAY, 0)), some(), some()) for _ in range(5)]
    ranked = sorted(
        (
            (confidence, true)
            for known, *exits in pictures
            for matches in match_picture(known, exits).exits
            for confidence, true in zip(matches.confidences, matches.true[:, 0], strict=True)
        ),
        reverse=True,
    )
    hits = np.cumsum([true for _, true in ranked])
    precisions = [hits[rank] / (rank + 1) for rank, (_, true) in enumerate(ranked) if true]
    objects = 2 * 2 * len(pictures)  # both exits could have found them
    average = sum(precisions) / objects
    assert losses(*pictures).sum() == pytest.approx(objects * (1 - average))


def test_what_the_last_exit_is_sure_of_is_true_and_what_it_has_seen_is_left_open():
    agreed = agreed_truth(detections((BOX, 0.9, 1), (AWAY, 0.6, 0), (BOX, 0.05, 0)), 0.6)
    assert agreed.class_ids.tolist() == [1, 0]
    assert agreed.crowd is not None
    assert agreed.crowd.tolist() == [False, True]
    below, above = (np.nextafter(np.float32(0.125), side) for side in (0, 1))
    seen = agreed_truth(detections((BOX, 0.125, 0), (AWAY, above, 1), (BOX, below, 2)), 0.625)
    assert seen.class_ids.tolist() == [1]  # of more than a fifth of that
    seen = agreed_truth(detections((BOX, 0.3, 0), (AWAY, 0.61, 1), (BOX, 0.64, 2)), 0.625)
    assert seen.crowds.tolist() == [True, True, False]


def example(features: int, count: int = 300, noise: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, features))
    gain = 2 * values[:, 0] + noise * rng.normal(size=count)
    first = rng.uniform(1, 2, count)
    return values, np.stack([first + gain, first], 1)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_the_feature_that_tells_is_found():
    features, losses = example(5)
    gain = fit_gain(features, losses)
    assert gain is not None
    assert gain.weights[0] > 5 * np.abs(gain.weights[1:]).max()


def test_estimates_have_median_zero_and_unit_spread():
    features, losses = example(4)
    gain = fit_gain(features, losses)
    assert gain is not None
    estimates = gain(features)
    assert np.median(estimates) == pytest.approx(0, abs=1e-9)
    assert estimates.std() == pytest.approx(1)


@settings(deadline=None, max_examples=20)
@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 50), seed=st.integers(0, 1000))
def test_units_of_features_and_losses_do_not_matter(shift: float, scale: float, seed: int):
    features, losses = example(3, count=60, seed=seed)
    plain = fit_gain(features, losses)
    other = fit_gain(features * scale + shift, losses * scale)
    assert plain is not None
    assert other is not None
    np.testing.assert_allclose(other(features * scale + shift), plain(features), atol=1e-4)


def test_many_features_of_few_images_do_not_drown_what_tells():
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(400, 3))
    features = hidden @ rng.normal(size=(3, 600)) + rng.normal(size=(400, 600))
    first = np.ones(400)
    losses = np.stack([first + hidden[:, 0], first], 1)
    gain = fit_gain(features[:100], losses[:100])
    assert gain is not None
    assert correlation(gain(features[100:]), hidden[100:, 0]) > 0.7


def test_one_image_with_a_huge_gain_does_not_decide():
    features, losses = example(3)
    losses[0, 0] += 1e6
    gain = fit_gain(features, losses)
    assert gain is not None
    assert correlation(gain(features), features[:, 0]) > 0.9


def test_features_or_gains_that_do_not_vary_give_nothing():
    features, losses = example(3)
    assert fit_gain(np.ones_like(features), losses) is None
    assert fit_gain(features, np.ones_like(losses)) is None


def test_features_that_say_nothing_of_the_gain_give_nothing():
    features = np.tile([[0.0], [1.0]], (20, 1))
    gain = np.repeat([0.0, 1.0], 20)
    assert fit_gain(features, np.stack([gain, np.zeros(40)], 1)) is None


@pytest.mark.parametrize(("size", "learned"), [(1e-12, False), (1e-6, True)])
def test_gains_that_vary_by_rounding_alone_teach_nothing(size: float, learned: bool):
    features, losses = example(3)
    losses = 1 + size * losses / np.ptp(losses[:, 0] - losses[:, 1])
    assert (fit_gain(features, losses) is not None) is learned
    if learned:
        assert np.isfinite(fit_losses(features, losses)[0]).all()
        return
    with refuses(RouterError, "no picture loses more than another"):
        fit_losses(features, losses)


def test_a_constant_feature_among_others_gets_no_weight():
    features, losses = example(3)
    features[:, 1] = 7
    gain = fit_gain(features, losses)
    assert gain is not None
    assert gain.weights[1] == 0


def test_the_weights_have_the_least_loss_of_all_near_them():
    features, losses = example(3)
    gain = losses[:, 0] - losses[:, 1]
    median = np.median(gain)
    unit = np.abs(gain - median).mean()
    weights = learning._minimise(features, gain)

    def loss(tried: np.ndarray, bias: float) -> float:
        """Of easiness e: e (L1 - m / 2) + (1 - e) (L2 + m / 2), and what decay adds."""
        easiness = 1 / (1 + np.exp(features @ tried + bias))
        first, last = losses[:, 0] - median / 2, losses[:, 1] + median / 2
        taken = np.mean(easiness * first + (1 - easiness) * last) / unit
        return float(taken + 0.005 / 2 * (tried**2).sum())

    biases = np.linspace(-1, 1, 201)
    least = min(loss(weights, bias) for bias in biases)
    for axis in range(3):
        for step in (-0.2, 0.2):
            moved = weights + step * np.eye(3)[axis]
            assert min(loss(moved, bias) for bias in biases) > least


def ridge(features: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Estimates (N, branches) by least squares with rows that pull the weights to 0."""
    spread = features.std(0)
    scale = np.sqrt(spread**2 + 0.05**2 * (spread**2).mean())
    inputs = (features - features.mean(0)) / scale
    count, width = inputs.shape
    rows = np.r_[inputs, np.sqrt(0.16 * count) * np.eye(width)]
    aims = np.r_[wanted - wanted.mean(0), np.zeros((width, wanted.shape[1]))]
    return inputs @ np.linalg.lstsq(rows, aims, rcond=None)[0] + wanted.mean(0)


@pytest.mark.parametrize("branches", [2, 4])
def test_losses_are_estimated_by_ridge_regression(branches: int):
    rng = np.random.default_rng(branches)
    features = rng.normal(5, [1, 3, 0.5], (200, 3))
    losses = features @ rng.normal(size=(3, branches)) + rng.normal(size=(200, branches))
    wanted = losses - losses.mean(1, keepdims=True)
    low, high = np.quantile(wanted, [0.02, 0.98], axis=0)
    weights, centre = fit_losses(features, losses)
    np.testing.assert_allclose(centre, features.mean(0))
    found = (features - centre) @ weights[:-1] + weights[-1]
    np.testing.assert_allclose(found, ridge(features, np.clip(wanted, low, high)), atol=1e-9)


def test_what_all_branches_lose_does_not_choose():
    rng = np.random.default_rng(0)
    features, losses = rng.normal(size=(100, 3)), rng.normal(size=(100, 3))
    one, _ = fit_losses(features, losses)
    other, _ = fit_losses(features, losses + 100 * rng.normal(size=(100, 1)))
    np.testing.assert_allclose(one, other, atol=1e-9)
    with refuses(RouterError, "no picture loses more than another"):
        fit_losses(features, np.repeat(losses[:, :1], 3, 1))
    with refuses(RouterError, "the same for all pictures"):
        fit_losses(np.ones_like(features), losses)


def test_many_features_weigh_as_much_as_sixteen_in_no_more_than_64_directions():
    rng = np.random.default_rng(0)
    for width, directions in ((16, 16), (17, 17), (64, 64), (200, 64)):
        features = rng.normal(size=(300, width))
        centred = features - features.mean(0)
        basis = learning._basis(centred, np.abs(features).max(0))
        assert basis.shape == (width, directions)
        inputs = centred @ basis
        spread = centred.std(0)
        scale = np.sqrt(spread**2 + 0.05**2 * (spread**2).mean())
        standard = centred / scale
        if width <= 16:
            np.testing.assert_allclose(inputs, standard)
            continue
        # the strongest directions, none of which goes with another
        strongest = np.sort(np.linalg.eigvalsh(standard.T @ standard))[::-1][:directions]
        np.testing.assert_allclose(inputs.T @ inputs, np.diag(strongest * 16 / width), atol=1e-6)


def test_features_that_hardly_vary_are_left_out_or_held_back():
    rng = np.random.default_rng(0)
    centred = rng.normal(size=(1000, 3)) * [1, 1.1e-3, 0.9e-3]
    centred -= centred.mean(0)
    spread = centred.std(0)
    basis = learning._basis(centred, np.array([2.0, spread[1] / 1.01e-3, spread[2] / 0.99e-3]))
    assert basis.shape == (3, 2)
    root = 0.05 * np.sqrt((spread**2).mean())
    expected = [1 / np.hypot(spread[0], root), 1 / np.hypot(spread[1], root)]
    np.testing.assert_allclose(basis, [[expected[0], 0], [0, expected[1]], [0, 0]])


def test_equal_confidences_share_the_rank_of_the_last():
    """Three of one confidence, two of them right: as if both came with the wrong one."""
    pictures = [
        (truth((BOX, 0)), detections((BOX, 0.5, 0)), detections()),
        (truth((BOX, 0)), detections((AWAY, 0.5, 0)), detections()),
        (truth((BOX, 0)), detections((BOX, 0.5, 0)), detections()),
    ]
    third = 1 / 3
    right = 2 * third + 2 * third * third  # its precision, and what it lifts both by
    wrong = 2 * (2 * third) * third
    np.testing.assert_allclose(losses(*pictures)[:, 0], [1 - right, 1 + wrong, 1 - right])


def observed(photos: int, views: int, features: int) -> Observations:
    """Views of pictures in which a thing is found at the first exit, at the last, or nowhere."""
    rng = np.random.default_rng(7)
    count = photos * views

    def some() -> Detections:
        spots = (BOX, AWAY)
        return detections(*((spots[k], rng.uniform(), 0) for k in range(2) if rng.uniform() < 0.7))

    matches = [match_picture(truth((BOX, 0), (AWAY, 0)), [some(), some()]) for _ in range(count)]
    return Observations(
        photos=np.repeat(np.arange(photos), views),
        original=np.arange(count) % views == 0,
        features=(rng.normal(size=(count, features)),),
        easiness=np.full((1, count), np.nan),
        best=np.zeros((1, count)),
        matches=tuple(matches),
        labelled=True,
        readers=(),
    )


def test_a_picture_is_estimated_by_what_was_fitted_without_all_of_its_views():
    seen = observed(photos=11, views=3, features=2)
    data = ExitData(seen, 0, 1)
    found = data.out_of_fold(3, seed=5)
    parts = np.random.default_rng(5).permutation(11) % 3
    for photo in range(11):
        fitted = data.fit(parts[seen.photos] != parts[photo])
        (own,) = fitted(seen.features[0][3 * photo : 3 * photo + 1])
        assert found[photo] == pytest.approx(own, abs=1e-9)
    assert not np.array_equal(found, data.out_of_fold(3, seed=6))


@pytest.mark.parametrize(("labelled", "loss"), [(True, 1.0), (False, 1.5)])
def test_classes_without_an_object_count_where_the_truth_is_not_known(labelled, loss):
    """There, what the last exit is not sure of may be one."""
    known = truth((BOX, 0))
    found = [detections((AWAY, 0.9, 1)), detections((BOX, 0.8, 0))]
    seen = replace(
        observed(photos=1, views=1, features=1),
        matches=(match_picture(known, found),),
        labelled=labelled,
    )
    here, last = ExitData(seen, 0, 2).losses()[0]
    assert here == pytest.approx(1.0 if labelled else 1.25)
    assert last == pytest.approx(0.0 if labelled else 0.25)
    assert here + last == pytest.approx(loss)


def test_a_fit_sees_only_the_views_that_it_is_given():
    seen = observed(photos=12, views=2, features=2)
    data = ExitData(seen, 0, 1)
    own = fit_gain(seen.features[0], data.losses())
    assert own is not None
    assert data.fit().weights.tolist() == own.weights.tolist()
    half = np.arange(24) < 12
    first = observed(photos=12, views=2, features=2)
    alone = replace(
        first,
        photos=first.photos[half],
        original=first.original[half],
        features=(first.features[0][half],),
        matches=first.matches[:12],
    )
    assert data.fit(half).weights.tolist() == ExitData(alone, 0, 1).fit().weights.tolist()
    same = replace(seen, features=(np.ones((24, 2)),))
    with refuses(RouterError, "the router reads is the same for all pictures"):
        ExitData(same, 0, 1).fit()
    equal = [replace(m, exits=(m.exits[0], m.exits[0])) for m in seen.matches]
    with refuses(RouterError, "both exits find the same"):
        ExitData(replace(seen, matches=tuple(equal)), 0, 1).fit()
