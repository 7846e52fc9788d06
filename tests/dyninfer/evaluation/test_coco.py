import numpy as np
import pytest

from dyninfer.errors import InputError

pytest.importorskip("faster_coco_eval")

from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.results.answers import Detections


def truth(*boxes, classes=None, **more):
    count = len(boxes)
    return Truth(
        np.array(boxes, np.float32).reshape(count, 4),
        np.array(classes or [0] * count, np.int64),
        **more,
    )


def finds(*boxes, confidences=None, classes=None):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.array(confidences or [0.9] * count, np.float32),
        np.array(classes or [0] * count, np.int64),
        ("",) * count,
    )


SMALL = (10, 10, 30, 30)
MEDIUM = (0, 0, 50, 50)
LARGE = (100, 100, 300, 300)


def test_no_images():
    assert average_precision([], [], classes=1).ap is None


def test_images_without_objects_have_no_precision():
    assert average_precision([truth()], [finds(SMALL)], classes=1).ap is None


def test_nothing_found_is_zero():
    result = average_precision([truth(SMALL)], [finds()], classes=1)
    assert (result.ap, result.small, result.large) == (0, 0, None)


def test_everything_found_exactly():
    images = [truth(SMALL, MEDIUM), truth(LARGE)]
    result = average_precision(images, [finds(SMALL, MEDIUM), finds(LARGE)], classes=1)
    assert (result.ap, result.ap50, result.ap75) == (1, 1, 1)
    assert (result.small, result.medium, result.large) == (1, 1, 1)


def test_one_of_two_objects_is_half_by_coco_interpolation():
    # precision 1 up to recall 0.5: 51 of the 101 recall points 0, 0.01, ..., 1
    result = average_precision([truth(SMALL, MEDIUM)], [finds(SMALL)], classes=1)
    assert result.ap == pytest.approx(51 / 101, abs=1e-6)


@pytest.mark.parametrize(("width", "passed"), [(50, 1), (60, 3), (74, 5), (100, 10)])
def test_ap_counts_the_thresholds_that_the_overlap_reaches(width, passed):
    # the find is `width` percent of the object, so its IoU is width / 100
    object_box, find = (0, 0, 100, 10), (0, 0, width, 10)
    result = average_precision([truth(object_box)], [finds(find)], classes=1)
    assert result.ap == pytest.approx(passed / 10, abs=1e-6)
    assert result.ap75 == (1 if width >= 75 else 0)


def test_a_surer_false_find_halves_the_precision():
    found = finds((200, 200, 220, 220), SMALL, confidences=[0.9, 0.8])
    assert average_precision([truth(SMALL)], [found], classes=1).ap == pytest.approx(0.5)
    found = finds((200, 200, 220, 220), SMALL, confidences=[0.7, 0.8])
    assert average_precision([truth(SMALL)], [found], classes=1).ap == 1


def test_confidences_are_compared_across_images():
    images = [truth(SMALL), truth(SMALL)]
    false_find = (200, 200, 220, 220)
    found = [finds(SMALL, confidences=[0.5]), finds(SMALL, false_find, confidences=[0.9, 0.7])]
    # ranks: true, false, true: precision 1 up to recall .5, then 2/3
    expected = (51 + 50 * 2 / 3) / 101
    assert average_precision(images, found, classes=1).ap == pytest.approx(expected, abs=1e-6)


def test_classes_are_averaged_and_absent_ones_left_out():
    image = truth(SMALL, MEDIUM, classes=[0, 2])
    found = finds(SMALL, MEDIUM, classes=[0, 1])
    assert average_precision([image], [found], classes=4).ap == pytest.approx(0.5)


def test_a_find_in_a_crowd_counts_neither_way():
    image = truth(SMALL, LARGE, crowd=np.array([False, True]))
    found = finds((110, 110, 200, 200), SMALL, confidences=[0.9, 0.8])
    assert average_precision([image], [found], classes=1).ap == 1


def test_given_areas_decide_the_size_range():
    image = truth(LARGE, areas=np.array([100.0]))
    result = average_precision([image], [finds(LARGE)], classes=1)
    assert (result.small, result.large) == (1, None)


def test_prints_nothing(capfd):
    average_precision([truth(SMALL)], [finds(SMALL)], classes=1)
    assert capfd.readouterr() == ("", "")


def test_one_entry_per_image_is_required():
    with pytest.raises(InputError, match="of 1 image, and detections of 2;"):
        average_precision([truth(SMALL)], [finds(), finds()], classes=1)


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(InputError, match=r"expected \(1,\)"):
        truth(SMALL, classes=[0, 1])
    with pytest.raises(InputError, match=r"expected \(D, 4\)"):
        Truth(np.zeros((2, 5)), np.zeros(2, int))
