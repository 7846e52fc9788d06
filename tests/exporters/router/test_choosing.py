"""Choosers of image sizes: on branches of which it is known what they find."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import dyninfer
from dyninfer.bundle.folder import ROUTER_FILE, Bundle
from dyninfer.bundle.manifest import SelectRoute, Way
from dyninfer.errors import InputError, RouterError
from dyninfer.evaluation.choice_quality import choose_within, compare_choices
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.router_quality import Metric
from dyninfer.exporters.router.choosing import ChooserFit, fit_chooser, refuse_useless_chooser
from dyninfer.exporters.router.fit import FitOptions, fit_routers
from dyninfer.exporters.router.write import write_chosen
from dyninfer.images.folders import find_images
from dyninfer.results.scores import Scores
from tests import support
from tests.dyninfer.cli.run import run, table_of
from tests.exporters.router import cascades

SIDES = (32, 64)
QUICK = FitOptions(augment=0, seeds=2)


def sized(images: str, side: int, scores: tuple, *, maps: bool = True) -> onnx.ModelProto:
    """A detector of plain pictures: a convolution that changes nothing, two maps, scores."""
    nodes, constants = cascades.detecting_channels("mean", scores)
    steps = [
        helper.make_node("Conv", [images, "same"], ["first"]),
        helper.make_node("AveragePool", ["first"], ["eighth"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("AveragePool", ["eighth"], ["next"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ReduceMean", ["next"], ["mean"], axes=[2, 3], keepdims=0),
    ]
    if not maps:
        steps = [
            steps[0],
            helper.make_node("ReduceMean", ["first"], ["mean"], axes=[2, 3], keepdims=0),
        ]
    constants = constants | {"same": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)}
    box = np.array([[cascades.OBJECT]], np.float32) * side / cascades.SIZE
    inputs = {images: ["batch", 3, side, side]}
    return support.tiny_model(
        inputs, support.DETECTIONS, [*steps, *nodes], constants | {"corners": box}
    )


def write_sizes(path: Path, *, second: tuple = cascades.LAST, maps: bool = True) -> Path:
    """Red and green are the scores of the cheap branch; the dear one reads the class from blue."""
    first, last = SIDES
    models = {
        "size_32": sized("images", first, cascades.FIRST, maps=maps),
        "size_64": sized("images_2", last, second),
    }
    route = SelectRoute(branches=(Way(body="size_32"), Way(body="size_64", image_input="images_2")))
    support.write_tiny_bundle(path, models, route, {"images": first, "images_2": last})

    def price(manifest: dict) -> None:
        for side in SIDES:
            manifest["stages"][f"size_{side}"]["macs"] = 9 * side * side

    support.reseal(path, price)
    return path


def fit(bundle: Path, folder: Path, options: FitOptions = QUICK) -> ChooserFit:
    samples = load_samples(find_images(folder), folder / "labels.json", ("left", "right"))
    with dyninfer.load(bundle) as detector:
        return fit_chooser(detector, samples, options)


def test_a_chooser_that_can_be_learned_sends_the_hard_pictures_to_the_dear_branch(tmp_path) -> None:
    bundle = write_sizes(tmp_path / "sizes.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    fitted = fit(bundle, folder)
    refuse_useless_chooser(fitted)
    (row,) = fitted.comparison.rows
    # half a side, so a quarter of the cheap branch's convolution
    assert (fitted.macs, row.branch, row.macs <= 9 * 64 * 64) == (9 * 16 * 16, 1, True)
    assert row.fitted.ap50.mean == 1 > row.random.ap50.mean
    manifest = write_chosen(Bundle.open(bundle), tmp_path / "chosen.dyn", fitted)
    assert (manifest.route.chooser, manifest.routed) == ("chooser", True)
    assert manifest.macs_to(0) == 9 * (16 * 16 + 32 * 32)
    record = json.loads((tmp_path / "chosen.dyn" / ROUTER_FILE).read_text())
    assert record["chooser"]["comparison"]["rows"][0]["branch"] == 1
    pictures = find_images(folder)
    with dyninfer.load(tmp_path / "chosen.dyn") as detector:
        assert detector.policy == dyninfer.Chosen()
        detector.policy = dyninfer.CostBias(0.2)
        assert [found.exit_index for found in detector(pictures)] == [0, 1] * 20
        first, second = detector.trace(detector.prepare(pictures[:2])).signals[0]
    assert first[1] - first[0] < 0.2 < second[1] - second[0]


def test_a_fitted_bundle_runs_through_the_commands(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    bundle = write_sizes(tmp_path / "sizes.dyn")
    folder = cascades.write_pictures(tmp_path / "pictures")
    pictures = ("--images", str(folder), "--annotations", str(folder / "labels.json"))
    target = str(tmp_path / "chosen.dyn")
    few = ("--augment", "0", "--seeds", "2")
    status, out, _ = run(capsys, "fit-router", str(bundle), *pictures, *few, "-o", target)
    assert status == 0, out
    assert "Choosing a branch at the cost of each" in out
    assert "always branch 1" in out
    assert max(map(len, table_of(out))) <= 80
    status, out, _ = run(capsys, "calibrate", target, *pictures)
    assert (status, "along the cost bias" in out) == (0, True)
    status, out, _ = run(capsys, "eval", target, *pictures, "--speed", "0.03MMACs")
    assert (status, "3e-05 GMACs on average: cost bias" in out) == (0, True)
    status, _, err = run(capsys, "fit-router", target, *pictures, *few, "-o", str(tmp_path / "c"))
    assert status == 0, err  # fitted again, in place of the other chooser


def test_what_is_no_better_than_chance_is_refused_with_its_figures(tmp_path) -> None:
    folder = cascades.write_pictures(tmp_path / "pictures")
    fitted = fit(write_sizes(tmp_path / "sizes.dyn"), folder)
    gain = replace(fitted.comparison.gain, mean=0.9 * fitted.comparison.gain.standard_error)
    unsure = replace(fitted, comparison=replace(fitted.comparison, gain=gain))
    with support.refuses(
        RouterError, "no better than random choices", "(random", "nothing was written"
    ):
        refuse_useless_chooser(unsure)


def test_branches_that_find_the_same_teach_nothing(tmp_path) -> None:
    bundle = write_sizes(tmp_path / "sizes.dyn", second=cascades.FIRST)
    with support.refuses(RouterError, "no picture loses more than another at any size"):
        fit(bundle, cascades.write_pictures(tmp_path / "pictures"))


def test_a_detector_without_maps_is_refused(tmp_path) -> None:
    bundle = write_sizes(tmp_path / "sizes.dyn", maps=False)
    with support.refuses(RouterError, "size_32 has no feature maps of 8 and 16 pixels per cell"):
        fit(bundle, cascades.write_pictures(tmp_path / "pictures"))


def test_routers_and_choosers_are_fitted_to_their_own_routes(tmp_path) -> None:
    folder = cascades.write_pictures(tmp_path / "pictures")
    samples = load_samples(find_images(folder), folder / "labels.json", ("left", "right"))
    sizes = write_sizes(tmp_path / "sizes.dyn")
    message = "fit_chooser fits what chooses there"
    with dyninfer.load(sizes) as detector, support.refuses(InputError, message):
        fit_routers(detector, samples)
    pair, message = cascades.write_learnable(tmp_path / "pair.dyn"), "fit_routers fits what decides"
    with dyninfer.load(pair) as detector, support.refuses(InputError, message):
        fit_chooser(detector, samples, QUICK)
    colours = support.write_select_classifiers(tmp_path / "colours.dyn")
    message = "classifies; routers are fitted to detectors only"
    with dyninfer.load(colours) as detector, support.refuses(InputError, message):
        fit_chooser(detector, samples, QUICK)


@pytest.mark.parametrize("limit", [110, 160, 210, 310])
def test_a_choice_within_a_budget_spends_it_and_no_more(limit) -> None:
    scores = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    macs = np.array([110, 210, 310])
    spent = macs[choose_within(scores, (110, 210, 310), limit)].mean()
    assert limit - 2 * 200 / 50 <= spent <= limit


def test_at_the_cost_of_a_branch_the_chooser_is_paid_from_it() -> None:
    """Two pictures of four gain at branch 1; only three can go there, for the chooser costs 25."""
    gains = np.array([1, 0, 1, 0])

    def scores_of(ways: np.ndarray) -> Scores:
        return Scores(float((ways * gains).sum() / 2), 0.0)

    right = np.stack([np.zeros(4), gains], 1).astype(np.float32)
    found = compare_choices(
        scores_of,
        [right, right],
        right.astype(np.float64),
        branch_macs=(100, 200),
        chooser_macs=25,
        metric=Metric.AP,
    )
    (row,) = found.rows
    assert (row.branch, row.fixed.primary, row.fitted.ap.mean, row.oracle.primary) == (1, 1, 1, 1)
    assert row.shares == (0.5, 0.5)  # the other two are alike, and together do not fit
    assert row.macs == 175
    assert row.random.ap.mean < 1
    assert found.gain.mean == pytest.approx(1 - row.random.ap.mean)
