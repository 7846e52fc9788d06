from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dyninfer
from dyninfer.bundle.documents import load_sealed
from dyninfer.bundle.folder import PARITY_FILE, ROUTER_FILE, Bundle
from dyninfer.bundle.manifest import CascadeRoute, Exit, TensorSpec
from dyninfer.errors import RouterError
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.evaluation.router_quality import (
    FITTED,
    RANDOM,
    Metric,
    compare,
    random_choices,
)
from dyninfer.exporters.router import FeatureKind
from dyninfer.exporters.router.fit import (
    ExitFit,
    FitOptions,
    RouterFit,
    _spread_out,
    check_count,
    fit_record,
    fit_routers,
    refuse_useless,
)
from dyninfer.exporters.router.learning import ExitData
from dyninfer.exporters.router.model import FittedRouter, LinearGain, PooledFeatures, Reader
from dyninfer.exporters.router.write import write_routed
from dyninfer.images.folders import find_images
from dyninfer.images.pictures import read_image
from dyninfer.results.scores import Scores
from tests import support
from tests.exporters.router import cascades

QUICK = FitOptions(augment=1, seeds=3)


def samples_of(folder: Path, *, labelled: bool = True) -> Samples:
    labels = folder / "labels.json" if labelled else None
    return load_samples(find_images(folder), labels, ("left", "right"))


def fit(bundle: Path, folder: Path, options: FitOptions = QUICK, **of_samples) -> RouterFit:
    with dyninfer.load(bundle) as detector:
        return fit_routers(detector, samples_of(folder, **of_samples), options)


def write(bundle: Path, output: Path, fitted: RouterFit) -> Path:
    write_routed(Bundle.open(bundle), output, [e.router for e in fitted.exits], fitted.record)
    return output


def test_a_router_that_can_be_learned_sends_the_hard_pictures_on(tmp_path):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    fitted = fit(bundle, folder)
    refuse_useless(fitted)
    comparison = fitted.exits[0].comparison
    assert comparison.row(FITTED, 0.5).ap50.mean > comparison.row(RANDOM, 0.5).ap50.mean + 0.03
    assert comparison.row("oracle", 0.5).ap50.mean >= comparison.row(FITTED, 0.5).ap50.mean
    routed = write(bundle, tmp_path / "routed.dyn", fitted)
    with dyninfer.load(routed) as detector:
        detector.policy = dyninfer.Threshold(0.5)
        found = detector(find_images(folder))
    assert [d.exit_index for d in found] == [0, 1] * 20
    easiness = np.array([d.easiness for d in found])
    assert 0.02 < easiness.min() < 0.45
    assert 0.55 < easiness.max() < 0.98


@pytest.mark.parametrize(
    "write_bundle", [cascades.write_learnable, cascades.write_learnable_with_head]
)
def test_the_exported_router_says_what_the_fitted_one_says(tmp_path, write_bundle):
    bundle = write_bundle(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    fitted = fit(bundle, folder)
    routed = write(bundle, tmp_path / "routed.dyn", fitted)
    router = fitted.exits[0].router
    pictures = [read_image(path) for path in find_images(folder)]
    with dyninfer.load(routed) as detector:
        made = detector.trace(detector.prepare(pictures), keep=["first"]).stages["first"]
        inputs = {spec.name: made[spec.name] for spec in router.inputs}
        found = detector.run_stage("router", inputs)["easiness"]
        alone = [detector(picture).easiness for picture in pictures[:3]]
    expected = router(*(torch.from_numpy(array) for array in inputs.values()))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(alone, found[:3, 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 0], fitted.exits[0].easiness, atol=1e-5)


def test_without_labels_agreement_with_the_last_exit_teaches_the_same(tmp_path):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    fitted = fit(bundle, folder, labelled=False)
    refuse_useless(fitted)
    assert fitted.record["truth"] == "agreement with the last exit"
    easiness = fitted.exits[0].easiness
    assert easiness[::2].min() > easiness[1::2].max()


def test_without_labels_a_detector_of_low_confidences_is_believed_by_its_own(tmp_path):
    # blue is 0.9 or 0.1, so the last exit's best confidence in every picture is 0.36
    unsure = ((2, 2), (0.4, -0.4), (0.0, 0.4))
    bundle = cascades.write_learnable(tmp_path / "pair.dyn", second=unsure)
    folder = cascades.write_pictures(tmp_path / "pictures")
    fitted = fit(bundle, folder, labelled=False)
    assert fitted.record["found_confidence"] == pytest.approx(0.6 * 0.36, abs=0.01)
    refuse_useless(fitted)
    with support.refuses(
        RouterError, "there is nothing to find", "confidence above 0.5", "--found-confidence"
    ):
        fit(bundle, folder, replace(QUICK, found_confidence=0.5), labelled=False)


def test_maximum_confidence_becomes_the_router_where_it_chooses_better(tmp_path, monkeypatch):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    noise = np.random.default_rng(0).random(40)
    monkeypatch.setattr(ExitData, "out_of_fold", lambda *_: noise)
    fitted = fit(bundle, folder, FitOptions(augment=0, seeds=2))
    (entry,) = fitted.exits
    assert entry.comparison.winner == "maximum confidence"
    assert entry.to_dict()["features"] == "maximum confidence"
    refuse_useless(fitted)
    with dyninfer.load(write(bundle, tmp_path / "routed.dyn", fitted)) as detector:
        found = detector(find_images(folder))
        best = [detector(path, policy=dyninfer.AlwaysEasy()) for path in find_images(folder)]
    # the surest half leaves, in the order of the confidences
    assert np.mean([each.exit_index for each in found]) == 0.5
    confidences = [each.confidences.max() for each in best]
    order = np.argsort([each.easiness for each in found], kind="stable")
    assert (np.diff(np.array(confidences)[order]) >= 0).all()
    np.testing.assert_allclose([each.easiness for each in found], entry.easiness, atol=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_share_that_goes_on_unless_told_otherwise_can_be_another_than_half(tmp_path, share):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    (entry,) = fit(bundle, folder, FitOptions(augment=0, seeds=2, hard_share=share)).exits
    assert np.mean(entry.easiness < 0.5) == pytest.approx(share, abs=0.03)


def test_an_existing_router_is_compared_and_replaced(tmp_path):
    bundle = cascades.write_learnable_with_head(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    before = support.files_below(bundle)
    # other light would hide what tells the pictures apart
    fitted = fit(bundle, folder, FitOptions(augment=0, seeds=3))
    comparison = fitted.exits[0].comparison
    assert comparison.row("existing router", 0.5).ap50.mean < comparison.row(FITTED, 0.5).ap50.mean
    assert fitted.record["exits"][0]["features"] == "pooled"
    routed = write(bundle, tmp_path / "routed.dyn", fitted)
    assert support.files_below(bundle) == before
    old, new = Bundle.open(bundle).manifest, Bundle.open(routed).manifest
    assert new.stages["router"].sha256 != old.stages["router"].sha256
    assert {n: s for n, s in new.stages.items() if n != "router"} == {
        n: s for n, s in old.stages.items() if n != "router"
    }
    with dyninfer.load(routed) as detector:
        easiness = [d.easiness for d in detector(find_images(folder))]
    assert np.mean(easiness[::2]) > np.mean(easiness[1::2]) + 0.1


def test_every_exit_but_the_last_gets_its_router(tmp_path):
    bundle = cascades.write_learnable_three(tmp_path / "three.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    fitted = fit(bundle, folder)
    routed = write(bundle, tmp_path / "routed.dyn", fitted)
    manifest = Bundle.open(routed).manifest
    assert [exit_.router for exit_ in manifest.route.exits] == ["router_1", "router_2", None]
    with dyninfer.load(routed) as detector:
        detector.policy = dyninfer.Threshold(0.5)
        assert [d.exit_index for d in detector(find_images(folder))] == [0, 1] * 20


def test_what_held_for_the_old_router_stays_behind(tmp_path):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    Bundle.open(bundle).write_parity({"schema_version": 1})
    fitted = fit(bundle, cascades.write_pictures(tmp_path / "pictures"))
    routed = write(bundle, tmp_path / "routed.dyn", fitted)
    assert not (routed / PARITY_FILE).exists()
    assert not (routed / "calibration.json").exists()
    record = load_sealed(routed / ROUTER_FILE)
    assert record == fitted.record
    assert record["images"] == 40
    assert record["exits"][0]["comparison"]["beats_random"]


def test_a_stage_that_is_called_router_already_keeps_its_name(tmp_path):
    models = {
        "router": cascades.body("images", cascades.FIRST),
        "second": cascades.body("images", cascades.LAST),
    }
    route = CascadeRoute(exits=(Exit(body="router"), Exit(body="second")))
    bundle = support.write_tiny_bundle(tmp_path / "odd.dyn", models, route, {"images": 8})
    fitted = fit(bundle, cascades.write_pictures(tmp_path / "pictures"))
    routed = Bundle.open(write(bundle, tmp_path / "routed.dyn", fitted))
    assert routed.manifest.ways[0].router == "router_fitted"
    assert routed.manifest.stages["router"] == Bundle.open(bundle).manifest.stages["router"]


def test_where_both_exits_find_the_same_there_is_nothing_to_learn(tmp_path):
    bundle = cascades.write_learnable(tmp_path / "twins.dyn", second=cascades.FIRST)
    folder = cascades.write_pictures(tmp_path / "pictures")
    with support.refuses(RouterError, "nothing to learn", "both exits find the same"):
        fit(bundle, folder)


def test_where_all_pictures_look_the_same_there_is_nothing_to_learn_from(tmp_path):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures", told=False)
    same = (folder / "000.png").read_bytes()
    for path in find_images(folder):
        path.write_bytes(same)
    with support.refuses(RouterError, "the same for all pictures"):
        fit(bundle, folder, FitOptions(augment=0, seeds=2))


def test_a_router_that_learned_nothing_of_use_is_refused_with_its_figures(tmp_path):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures", told=False, seed=1)
    fitted = fit(bundle, folder, FitOptions(augment=0, seeds=5))
    with support.refuses(RouterError, "no better than random", "25% hard", "50% hard"):
        refuse_useless(fitted)


def test_a_bundle_with_a_single_exit_has_nothing_to_route(tmp_path):
    static = support.write_static(tmp_path / "one.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    with support.refuses(dyninfer.InputError, "single exit", "expected a cascade"):
        fit(static, folder)


@pytest.mark.parametrize(
    ("write_select", "parts"),
    [
        (support.write_select_detectors, ("2 branches", "fit_chooser")),
        (support.write_select_classifiers, ("classifies", "detectors only")),
    ],
)
def test_a_bundle_with_a_chooser_of_its_own_is_refused(tmp_path, write_select, parts):
    folder = cascades.write_pictures(tmp_path / "pictures")
    with support.refuses(dyninfer.InputError, *parts):
        fit(write_select(tmp_path / "select.dyn"), folder)


@pytest.mark.parametrize("count", [1, 9])
def test_too_few_pictures_for_the_folds_are_refused(tmp_path, count):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures", count)
    with support.refuses(dyninfer.InputError, f"{count} picture", "at least 10"):
        fit(bundle, folder)


def test_pictures_with_nothing_in_them_are_refused(tmp_path):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures", 12)
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    text = json.dumps(labels | {"annotations": []})
    (folder / "labels.json").write_text(text, encoding="utf-8")
    with support.refuses(RouterError, "there is nothing to find in any picture (12)"):
        fit(bundle, folder)


def test_features_that_are_not_there_are_refused(tmp_path):
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    with support.refuses(dyninfer.InputError, "--features detections"):
        fit(bundle, folder, FitOptions(features=FeatureKind.POOLED))


def test_outputs_that_are_not_finite_are_refused(tmp_path):
    bundle = cascades.write_not_finite(tmp_path / "nan.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    with support.refuses(RouterError, "not finite", "000.png"):
        fit(bundle, folder)


@pytest.mark.parametrize(
    ("labelled", "confidence", "more"), [(True, None, 0), (False, 0.5, 0), (False, None, 12)]
)
def test_progress_is_told_of_every_view_and_of_every_picture_that_is_asked(
    tmp_path, labelled, confidence, more
):
    folder = cascades.write_pictures(tmp_path / "pictures", 12)
    options = FitOptions(augment=3, found_confidence=confidence)
    assert options.runs(samples_of(folder, labelled=labelled)) == 12 * 4 + more


@pytest.mark.parametrize(("size", "collapsed"), [(9e-10, True), (1.1e-9, False), (1e-3, False)])
def test_a_router_has_collapsed_where_its_values_differ_by_rounding_alone(size, collapsed) -> None:
    features = np.tile([[0.0], [2.0]], (5, 1))  # a standard deviation of 1
    gain = LinearGain(np.array([size]), 0.0)
    if collapsed:
        with support.refuses(RouterError, "router collapsed: always the same exit"):
            _spread_out(gain, features, 0.5)
        return
    assert _spread_out(gain, features, 0.5)(features).std() == pytest.approx(1)


def test_an_easiness_has_its_median_in_the_middle_and_one_scale():
    rng = np.random.default_rng(0)
    features = rng.normal(7, 3, (100, 2))
    gain = LinearGain(np.array([2.0, -1.0]), 0.5)
    spread = _spread_out(gain, features, 0.5)
    estimates = spread(features)
    assert np.median(estimates) == pytest.approx(0)
    assert estimates.std() == pytest.approx(1)
    np.testing.assert_array_equal(np.argsort(estimates), np.argsort(gain(features)))
    with support.refuses(RouterError, "router collapsed"):
        _spread_out(gain, np.ones((5, 2)), 0.5)


@pytest.mark.parametrize("metric", list(Metric))
def test_a_refusal_has_the_figures_of_the_metric_that_judged(metric):
    """Of pictures that all gain a hundredth, one of which each router sends on too early."""

    def scores(hard: np.ndarray) -> Scores:
        found = 0.4 + 0.01 * hard.sum() - 0.1 * hard[0]
        return Scores(found, found / 2)

    easiness = np.arange(8.0)  # the worst to send on goes first
    comparison = compare(scores, [easiness], {}, metric, draws=1)
    lowest_four = 0.4 + 0.04 - 0.1
    part = 1 if metric is Metric.AP else 2
    figures = [
        f"{100 * (0.4 + 0.02 - 0.1) / part:.1f} at 25% hard (random ",
        f"{100 * lowest_four / part:.1f} at 50% hard (random ",
    ]
    for share, masks in ((0, random_choices(8, 0.25, 1)), (1, random_choices(8, 0.5, 1))):
        figures[share] += f"{100 * scores(masks[0]).primary / part:.1f})"
    entry = SimpleNamespace(exit_index=3, comparison=comparison)
    with support.refuses(RouterError, "router of exit 3", f"{metric.label} {', '.join(figures)}; "):
        refuse_useless(SimpleNamespace(exits=(entry,)))


def test_the_record_of_a_fit_tells_on_what_and_how() -> None:
    options = FitOptions(folds=3, augment=2, found_confidence=0.5)
    samples = SimpleNamespace(items=[0] * 7, labels_sha256="d", sha256=lambda: "c", labelled=True)
    told = fit_record(samples, options, None)
    assert told["written_by"].startswith("dyninfer ")
    assert told["postprocess"]["confidence"] == options.postprocess.confidence
    kept = {name: told[name] for name in told if name not in ("written_by", "postprocess")}
    assert kept == {
        "schema_version": 1,
        "images": 7,
        "images_sha256": "c",
        "labels_sha256": "d",
        "truth": "annotations",
        "found_confidence": None,
        "augment": 2,
        "folds": 3,
        "seeds": 20,
    }
    agreed = fit_record(samples, options, 0.25)
    assert (agreed["truth"], agreed["found_confidence"]) == ("agreement with the last exit", 0.25)


@pytest.mark.parametrize("features", [32, 33])
def test_the_record_of_an_exit_has_the_weights_of_up_to_32_features(features) -> None:
    names = [f"value[{number}]" for number in range(features)]
    gain = LinearGain(np.arange(features) + 0.5, 0.25)
    spec = TensorSpec(name="value", dtype="float32", shape=("batch", features))
    router = FittedRouter(Reader(PooledFeatures(names), (spec,)), np.zeros(features), gain)
    comparison = SimpleNamespace(to_dict=lambda: {"winner": "it"})
    told = ExitFit(3, router, comparison, np.linspace(0, 1, 101)).to_dict()
    weights = told.pop("weights", None)
    assert weights == (
        {name: -number - 0.5 for number, name in enumerate(names)} if features == 32 else None
    )
    levels = told.pop("easiness_percentiles")
    expected = {"5": 0.05, "25": 0.25, "50": 0.5, "75": 0.75, "95": 0.95}
    assert levels == pytest.approx(expected)
    assert told == {
        "exit": 3,
        "features": "pooled",
        "inputs": [f"value float32 (batch, {features})"],
        "feature_count": features,
        "comparison": {"winner": "it"},
    }


@pytest.mark.parametrize(
    ("labelled", "found", "pictures", "runs"),
    [(True, None, 7, 91), (False, 0.5, 7, 91), (False, None, 7, 98), (False, None, 200, 2700)],
)
def test_progress_counts_every_view_and_up_to_a_hundred_pictures(labelled, found, pictures, runs):
    samples = SimpleNamespace(items=list(range(pictures)), labelled=labelled)
    assert FitOptions(found_confidence=found).runs(samples) == runs


def test_a_fit_is_usually_of_five_parts_twenty_times_with_twelve_views_more() -> None:
    usual = FitOptions()
    assert (usual.augment, usual.folds, usual.seeds, usual.hard_share) == (12, 5, 20, 0.5)
    check_count(10, 5)
    with support.refuses(dyninfer.InputError, "9 pictures given, expected at least 10"):
        check_count(9, 5)
    with support.refuses(dyninfer.InputError, "1 picture given, expected at least 4"):
        check_count(1, 2)
