from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from dyninfer.errors import ConfigError, InputError
from dyninfer.search.budgets import Budgets, Measure
from dyninfer.search.evolution import POPULATION, Search, Settings
from dyninfer.search.space import START, Space
from dyninfer.search.state import resume, save
from dyninfer.search.structure import Block, Structure, checked
from tests.dyninfer.search.structures import SMALL

SETTINGS = Settings(Budgets(flops=18_800_000_000), Measure((480, 480)))


def searched(evaluations: int, settings: Settings = SETTINGS) -> Search:
    search = Search(settings)
    search.advance(evaluations)
    return search


def test_a_search_for_resnet_50s_budget_surpasses_the_published_small_structure() -> None:
    search = searched(10_000)
    assert search.best.score >= 1731.9
    assert len(search.population) == POPULATION
    for candidate in search.population:
        assert candidate.cost.flops <= 18_800_000_000
        assert candidate.cost.layers <= 91
        assert checked(candidate.structure.blocks) == candidate.structure


def test_the_same_seed_makes_the_same_search() -> None:
    one, same = searched(600), searched(600)
    other = searched(600, Settings(SETTINGS.budgets, SETTINGS.measure, seed=1))
    assert (one.population, one.front) == (same.population, same.front)
    assert other.best != one.best


def test_the_population_is_the_best_and_no_two_are_the_same() -> None:
    search = searched(1000)
    scores = [candidate.score for candidate in search.population]
    assert scores == sorted(scores, reverse=True)
    assert len({candidate.structure for candidate in search.population}) == len(scores)


def test_the_front_rises_with_the_price_and_nothing_surpasses_it() -> None:
    for budgets in (SETTINGS.budgets, Budgets(parameters=20_000_000)):
        search = searched(1500, Settings(budgets, SETTINGS.measure))
        for cheaper, dearer in pairwise(search.front):
            assert search.price(cheaper) < search.price(dearer)
            assert cheaper.score < dearer.score
        assert search.front[-1].score == search.best.score
        for kept in search.population:
            assert any(
                search.price(each) <= search.price(kept) and each.score >= kept.score
                for each in search.front
            )


@pytest.mark.parametrize(
    ("budgets", "size", "expected"),
    [
        (Budgets(flops=4_000_000_000), 480, "7,745,241,600 flops, more than the budget of 4,000"),
        (Budgets(flops=10_000_000_000), 640, "at 640x640, 13,769,318,400 flops"),
        (Budgets(parameters=1_000_000), 480, "9,639,584 parameters"),
        (Budgets(flops=10**12, layers=15), 480, "16 layers, more than the budget of 15"),
    ],
    ids=["flops", "larger pictures", "parameters", "layers"],
)
def test_a_budget_that_the_start_network_breaks(budgets, size: int, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        Search(Settings(budgets, Measure((size, size))))


def test_odd_sizes_and_grouped_starts_are_refused() -> None:
    with pytest.raises(InputError, match="expected multiples of 32"):
        Search(Settings(SETTINGS.budgets, Measure((480, 500))))
    grouped = Structure((*START.blocks[:1], Block(32, 256, 3, 2, 1, 64, 2), *START.blocks[2:]))
    with pytest.raises(InputError, match="grouped convolutions"):
        Search(Settings(SETTINGS.budgets, SETTINGS.measure, grouped))


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    path = tmp_path / "found.search.json"
    save(searched(700), path)
    continued = resume(path, SETTINGS)
    assert continued.evaluations == 700
    continued.advance(1500)
    whole = searched(1500)
    assert (continued.population, continued.front) == (whole.population, whole.front)
    assert [path] == list(tmp_path.iterdir())


def test_a_state_of_other_settings_or_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.search.json"
    save(searched(50), path)
    with pytest.raises(ConfigError, match="is of a search with another seed, image size;"):
        resume(path, Settings(SETTINGS.budgets, Measure((640, 640)), seed=1))
    document = json.loads(path.read_text())
    for name, broken in (
        ("random", [1] * 624),
        ("population", []),
        ("population", [[[3, 32, 3, 2, 1, 0, 1]]]),
        ("front", [[[3, 32, 3, "2", 1]]]),
        ("evaluations", -1),
    ):
        path.write_text(json.dumps({**document, name: broken}))
        with pytest.raises(ConfigError, match="is no state of a search"):
            resume(path, SETTINGS)
    path.write_text("{")
    with pytest.raises(ConfigError, match="is no state of a search"):
        resume(path, SETTINGS)


def test_coarse_to_fine_changes_only_channels_in_the_end() -> None:
    settings = Settings(SETTINGS.budgets, SETTINGS.measure, fine_after=0)
    search = searched(500, settings)
    blocks = [block for each in search.population for block in each.structure.blocks]
    assert {(block.kernel, block.depth) for block in blocks} == {(3, 1)}
    assert len(search.population) > 20


def test_every_block_and_attribute_is_changed_within_the_published_rules() -> None:
    rng, space, changed = random.Random(3), Space(layers=91, side=480), set()
    structure = START
    for _ in range(4000):
        child = space.mutated(structure, rng)
        for index, (old, new) in enumerate(zip(structure.blocks, child.blocks, strict=True)):
            names = ("outputs", "kernel", "depth", "width")
            changed |= {(index, n) for n in names if getattr(old, n) != getattr(new, n)}
            assert new.outputs % 8 == 0
            assert new.outputs <= (2048 if index else 32)
            assert new.stride == old.stride
        assert checked(child.blocks) == child
        for index, (before, after) in enumerate(pairwise(child.blocks), start=1):
            assert before.outputs <= after.outputs
            assert after.kernel in (3, 5)
            assert after.outputs / 10 <= after.width <= after.outputs
            assert after.depth <= (3 if index == 1 else 7)  # 91 layers // 3 // 4 blocks
        structure = child if rng.random() < 0.95 else START
    named = {(index, name) for index in range(1, 6) for name in ("kernel", "depth", "width")}
    assert changed >= {(index, "outputs") for index in range(6)} | named


def test_kernels_fit_into_the_maps_of_small_pictures() -> None:
    """Of 64 pixels, the last block sees a map of 4x4: 1.5 times 3 is too much for it."""
    rng, space = random.Random(5), Space(91, 64)
    seen = [space.mutated(SMALL, rng).blocks for _ in range(300)]
    assert {blocks[4].kernel for blocks in seen} == {SMALL.blocks[4].kernel, 1}
    assert {blocks[3].kernel for blocks in seen} == {SMALL.blocks[3].kernel, 3}
    assert {blocks[1].kernel for blocks in seen} == {3, 5}
