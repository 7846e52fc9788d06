from __future__ import annotations

from dyninfer.benchmarks.machine.cpu_state import QUOTA, TEMPERATURE, increased, read_counters
from tests.benchmarks.machine.machine_trees import (
    CPU,
    HWMON,
    cgroup_v1,
    cgroup_v2,
    orin_nano,
    write_tree,
)


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
