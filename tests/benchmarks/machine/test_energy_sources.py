from __future__ import annotations

import os
import time

import pytest

from dyninfer.benchmarks.machine.energy_sources import (
    find_rails,
    open_jtop_power,
    open_rails,
    open_rapl,
    rails_of_total,
)
from dyninfer.errors import DyninferError
from tests.benchmarks.machine.jtop_standin import FakeJtop
from tests.benchmarks.machine.machine_trees import (
    HWMON,
    POWERCAP,
    agx_orin_rails,
    ina3221,
    orin_nano,
    rapl,
    write_tree,
    xavier_nx,
)

RANGE_UJ = 262_143_328_850


def set_energy(root, zone: str, microjoules: int) -> None:
    write_tree(root, {f"{POWERCAP}/{zone}/energy_uj": microjoules})


def test_packages_are_added_and_their_parts_are_not(tmp_path):
    meter, _ = open_rapl(write_tree(tmp_path, rapl()))
    assert meter is not None
    assert meter.joules() == 0
    for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
        set_energy(tmp_path, zone, 21_000_000)
    set_energy(tmp_path, "intel-rapl:1", 6_000_000)
    assert meter.joules() == pytest.approx(20 + 1)
    meter.close()


def test_a_counter_that_starts_anew_goes_on(tmp_path):
    set_energy(write_tree(tmp_path, rapl()), "intel-rapl:0", RANGE_UJ - 3_000_000)
    meter, _ = open_rapl(tmp_path)
    assert meter is not None
    set_energy(tmp_path, "intel-rapl:0", 2_000_000)
    assert meter.joules() == pytest.approx(5)
    set_energy(tmp_path, "intel-rapl:0", 4_000_000)
    assert meter.joules() == pytest.approx(7)


def test_a_counter_that_vanishes_is_an_error(tmp_path):
    meter, _ = open_rapl(write_tree(tmp_path, rapl()))
    assert meter is not None
    (tmp_path / POWERCAP / "intel-rapl:1/energy_uj").unlink()
    with pytest.raises(DyninferError, match="cannot be read any more"):
        meter.joules()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_counter_for_root_alone_says_how_to_allow_it(tmp_path):
    write_tree(tmp_path, rapl())
    (tmp_path / POWERCAP / "intel-rapl:0/energy_uj").chmod(0)
    _, why = open_rapl(tmp_path)
    assert "Permission denied" in why
    assert "sudo chmod a+r" in why


def test_an_unreadable_counter_is_named(tmp_path):
    write_tree(tmp_path, rapl())
    (tmp_path / POWERCAP / "intel-rapl:0/energy_uj").unlink()
    meter, why = open_rapl(tmp_path)
    assert meter is None
    assert "/sys/class/powercap/intel-rapl:0/energy_uj cannot be read (No such file" in why
    assert "sudo chmod a+r" in why


def test_the_rail_of_the_whole_module_is_taken(tmp_path):
    rails = find_rails(write_tree(tmp_path, xavier_nx()))
    assert [rail.label for rail in rails] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]
    (total,) = rails_of_total(rails)
    assert total.watts() == pytest.approx(4.984 * 0.8)


def test_unconnected_and_switched_off_channels_are_left_out(tmp_path):
    write_tree(tmp_path, agx_orin_rails())
    write_tree(tmp_path, {f"{HWMON}/hwmon2/in2_enable": 0})
    rails = rails_of_total(find_rails(tmp_path))
    assert [rail.label for rail in rails] == ["VDD_GPU_SOC", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
    assert sum(rail.watts() or 0 for rail in rails) == pytest.approx(2 + 2 + 0.5)


def test_thors_monitor_tells_power_itself(tmp_path):
    files = {
        **ina3221("hwmon1", {"VDD_GPU": (12_000, 100)}),
        f"{HWMON}/hwmon2/name": "ina238",
        f"{HWMON}/hwmon2/power1_input": 31_500_000,
    }
    (total,) = rails_of_total(find_rails(write_tree(tmp_path, files)))
    assert (total.label, total.watts()) == ("VIN", 31.5)


def test_a_rail_that_refuses_is_named(tmp_path):
    write_tree(tmp_path, orin_nano())
    (tmp_path / HWMON / "hwmon1/curr1_input").write_text("")
    meter, why = open_rails(tmp_path)
    assert meter is None
    assert why == "rail VDD_IN cannot be read (no number)"


def test_rails_are_integrated(tmp_path):
    meter, _ = open_rails(write_tree(tmp_path, orin_nano()))
    assert meter is not None
    first = meter.joules()
    assert meter.joules() >= first >= 0
    meter.close()


def test_a_broken_connection_to_jtop_is_no_constant_power():
    jtop = FakeJtop(milliwatts=8000)
    meter, _ = open_jtop_power(jtop)
    assert meter is not None
    time.sleep(0.02)
    assert meter.joules() > 0
    jtop.broken = RuntimeError("Lost connection with jtop server")
    before = meter.joules()
    time.sleep(0.02)
    assert meter.joules() == before
    meter.close()
