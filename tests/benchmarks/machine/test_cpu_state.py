from __future__ import annotations

import pytest

from dyninfer.benchmarks.machine.cpu_state import (
    QUOTA,
    TEMPERATURE,
    CpuState,
    increased,
    read_counters,
    read_cpu_state,
)
from tests.benchmarks.machine.machine_trees import (
    CPU,
    HWMON,
    cgroup_v1,
    cgroup_v2,
    cpufreq,
    orin_nano,
    workstation,
    write_tree,
)


def test_a_machine_without_cpufreq_says_so_and_guesses_nothing(tmp_path):
    state, missing = read_cpu_state(tmp_path)
    assert state == CpuState()
    assert "no policy" in missing["cpu clocks"]


def test_a_workstation_is_not_locked(tmp_path):
    state, missing = read_cpu_state(write_tree(tmp_path, workstation()))
    assert (state.governor, state.driver) == ("powersave", "intel_pstate")
    assert (state.min_mhz, state.max_mhz, state.hardware_max_mhz) == (800, 4800, 4800)
    assert state.current_mhz == 1350
    assert state.locked is False
    assert (state.boost, state.smt) == (True, True)
    assert (state.energy_preference, state.platform_profile) == ("balance_performance", "balanced")
    assert not missing


def test_clocks_are_locked_when_every_core_has_one_to_choose_from(tmp_path):
    clocks = [2_000_000, 1_500_000]
    write_tree(tmp_path, cpufreq(2, scaling_min_freq=clocks, scaling_max_freq=clocks))
    assert read_cpu_state(tmp_path)[0].locked is True


def test_one_free_core_is_not_locked(tmp_path):
    low, high = [2_000_000, 1_500_000], [2_000_000, 1_600_000]
    write_tree(tmp_path, cpufreq(2, scaling_min_freq=low, scaling_max_freq=high))
    assert read_cpu_state(tmp_path)[0].locked is False


def test_a_core_that_does_not_tell_leaves_the_lock_unknown(tmp_path):
    write_tree(tmp_path, cpufreq(2, scaling_min_freq=1, scaling_max_freq=1))
    (tmp_path / CPU / "cpufreq/policy1/scaling_max_freq").write_text("<unknown>")
    assert read_cpu_state(tmp_path)[0].locked is None


def test_governors_that_differ_are_all_named(tmp_path):
    write_tree(tmp_path, cpufreq(2, scaling_governor=["performance", "ondemand"]))
    assert read_cpu_state(tmp_path)[0].governor == "ondemand, performance"


@pytest.mark.parametrize(
    ("file", "content", "boost"),
    [
        ("intel_pstate/no_turbo", 1, False),
        ("intel_pstate/no_turbo", 0, True),
        ("cpufreq/boost", 1, True),
        ("cpufreq/boost", 0, False),
    ],
)
def test_boost_by_either_file(tmp_path, file, content, boost):
    write_tree(tmp_path, {f"{CPU}/{file}": content})
    assert read_cpu_state(tmp_path)[0].boost is boost


def test_a_jetson_has_no_boost_and_no_threads_to_tell_of(tmp_path):
    state, _ = read_cpu_state(write_tree(tmp_path, orin_nano()))
    assert (state.boost, state.smt, state.locked) == (None, None, False)
    assert state.max_mhz == pytest.approx(1728)


def test_an_empty_system_counts_nothing(tmp_path):
    assert read_counters(tmp_path) == {}
    assert increased({}, {}) == ()


def test_a_quota_that_stopped_threads_is_seen(tmp_path):
    before = read_counters(write_tree(tmp_path, cgroup_v2(throttled=4)))
    after = read_counters(write_tree(tmp_path, cgroup_v2(throttled=5)))
    assert increased(before, before) == ()
    assert increased(before, after) == (QUOTA,)


def test_version_1_counts_too(tmp_path):
    assert read_counters(write_tree(tmp_path, cgroup_v1())) == {QUOTA: 0}


def test_a_processor_that_was_too_hot(tmp_path):
    name = f"{CPU}/cpu1/thermal_throttle/package_throttle_count"
    before = read_counters(write_tree(tmp_path, {name: 7}))
    after = read_counters(write_tree(tmp_path, {name: 9}))
    assert increased(before, after) == (TEMPERATURE,)


def test_over_current_on_a_jetson(tmp_path):
    before = read_counters(write_tree(tmp_path, orin_nano()))
    after = read_counters(write_tree(tmp_path, {f"{HWMON}/hwmon3/oc3_event_cnt": 16}))
    assert increased(before, after) == ("module: instantaneous over-current",)


def test_a_counter_that_appears_later_accuses_nobody():
    assert increased({}, {QUOTA: 5}) == ()
