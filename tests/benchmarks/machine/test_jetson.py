from __future__ import annotations

import inspect
import time

import pytest

from dyninfer.benchmarks.machine.jetson import (
    l4t_release,
    power_mode_by_files,
    read_jetson,
    read_jetson_model,
    within,
)
from tests.benchmarks.machine.jtop_standin import FakeJtop
from tests.benchmarks.machine.machine_trees import orin_nano, workstation, write_tree, xavier_nx

# of jetson-stats 7.2.2, read in its source: jtop/jtop.py, jtop/core/nvpmodel.py and
# jtop/core/jetson_clocks.py
RECORDED_7_2_2 = {
    "jtop": {
        *("board", "nvpmodel", "jetson_clocks", "power", "ok"),
        *("__enter__", "__exit__", "close"),
    },
    "NVPModel": {"name", "id"},
    "JetsonClocks": {"get_enable"},
}


def test_other_machines_are_no_jetson(tmp_path):
    assert read_jetson(tmp_path) == (None, {})
    assert read_jetson(write_tree(tmp_path, workstation())) == (None, {})
    pi = write_tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B\0"})
    assert read_jetson_model(pi) is None


def test_an_orin_nano_by_its_files(tmp_path):
    found, missing = read_jetson(write_tree(tmp_path, orin_nano()))
    assert found is not None
    assert found.model == "NVIDIA Jetson Orin Nano Developer Kit Super"
    assert (found.l4t, found.source) == ("36.4.3", "files")
    assert (found.gpu_min_mhz, found.gpu_max_mhz) == (306, 1020)
    assert found.clocks_locked is False
    assert found.power_mode is None
    assert "not installed" in missing["jtop"]
    assert "is not visible" in missing["power mode"]


def test_a_xavier_nx_after_jetson_clocks(tmp_path):
    found, _ = read_jetson(write_tree(tmp_path, xavier_nx()))
    assert found is not None
    assert (found.l4t, found.clocks_locked) == ("35.4.1", True)


def test_a_container_that_shows_no_clocks_leaves_the_lock_unknown(tmp_path):
    release = {"etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 1"}
    found, missing = read_jetson(write_tree(tmp_path, release))
    assert found is not None
    assert (found.model, found.l4t) == ("Jetson of unknown model", "36.4.0")
    assert found.clocks_locked is None
    assert "jetson_clocks" in missing


def test_the_mode_by_what_nvpmodel_wrote(tmp_path):
    modes = (
        "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >"
    )
    assert power_mode_by_files(tmp_path) is None
    write_tree(tmp_path, {"var/lib/nvpmodel/status": "pmode:0002"})
    assert power_mode_by_files(tmp_path) == "mode 2"
    write_tree(tmp_path, {"etc/nvpmodel.conf": modes, **orin_nano()})
    found, missing = read_jetson(tmp_path)
    assert found is not None
    assert found.power_mode == "MAXN_SUPER"
    assert "power mode" not in missing


def test_jtop_tells_more_and_no_serial_number(tmp_path):
    jtop = FakeJtop()
    found, missing = read_jetson(write_tree(tmp_path, orin_nano()), jtop)
    assert found is not None
    assert found.model == "NVIDIA Jetson Orin Nano (Developer kit)"
    assert (found.jetpack, found.power_mode, found.clocks_locked) == ("6.2", "15W", True)
    assert found.source == "jtop"
    assert "1424124000001" not in repr(found)
    assert jtop.closed
    assert not missing


def test_a_board_without_power_modes(tmp_path):
    found, _ = read_jetson(write_tree(tmp_path, orin_nano()), FakeJtop(mode=None))
    assert found is not None
    assert found.power_mode is None


def test_files_are_read_where_the_service_is_off(tmp_path):
    off = FakeJtop(failure="The jtop.service is not active. Please run:\nsudo jtop --install")
    found, missing = read_jetson(write_tree(tmp_path, orin_nano()), off)
    assert found is not None
    assert found.source == "files"
    assert missing["jtop"].startswith("The jtop.service is not active. Please run:;")


def test_a_service_that_hangs_is_not_waited_for():
    start = time.monotonic()
    found, why = within(0.05, lambda: time.sleep(2))
    assert found is None
    assert "no answer within 0.05 s" in why
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("", None),
        ("# R35 (release), REVISION: 2.1, GCID: 1, BOARD: t186ref", "35.2.1"),
        ("# R36 (release), REVISION: 4.7, GCID: 2", "36.4.7"),
        ("Ubuntu 22.04", None),
    ],
)
def test_the_release_of_jetson_linux(text, release):
    assert l4t_release(text) == release


def test_the_stand_in_has_the_recorded_names_and_no_others():
    mine = {name for name, value in vars(FakeJtop).items() if not name.startswith("__init")}
    own = {"__module__", "__doc__", "__dict__", "__weakref__", "__call__", "__firstlineno__"}
    assert mine - own - {"__static_attributes__"} == RECORDED_7_2_2["jtop"]
    assert {"name", "id"} <= set(vars(FakeJtop().nvpmodel))
    assert set(vars(FakeJtop().jetson_clocks)) == RECORDED_7_2_2["JetsonClocks"]


def test_the_real_package_has_the_recorded_names():
    jtop = pytest.importorskip(
        "jtop", reason="jetson-stats is not installed: names were recorded from version 7.2.2"
    )
    for owner, names in RECORDED_7_2_2.items():
        assert names <= set(dir(getattr(jtop, owner)))
    required = [p for p in inspect.signature(jtop.jtop).parameters.values() if p.default is p.empty]
    assert not required
