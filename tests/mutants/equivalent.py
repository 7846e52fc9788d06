"""Changes that change no answer, with the reason why no test can notice."""

from __future__ import annotations

from typing import NamedTuple


class Equivalent(NamedTuple):
    """A part of the lines that changed, by which a mutant is recognised."""

    module: str
    part: str
    reason: str


EQUIVALENT = (
    Equivalent(
        "dyninfer/images/headers.py",
        "-    place = 2\n+    place = 1",
        "a picture begins with a marker, and the first one is found from either byte",
    ),
    Equivalent(
        "dyninfer/images/headers.py", "+        while data[place] >= 0xFF", "no byte is above"
    ),
    Equivalent(
        "dyninfer/images/headers.py",
        'data[:2] <= b"II"',
        "of the two orders it is the first in the alphabet",
    ),
    Equivalent("dyninfer/images/headers.py", "tags.get(tag, -1)", "no number of them is below 0"),
    Equivalent(
        "dyninfer/images/spec.py",
        "+    if (right - left, bottom - top) < resized",
        "what is cut is never larger than what it is cut from",
    ),
    Equivalent(
        "dyninfer/images/spec.py",
        "+    if (right - left, bottom - top) <= resized",
        "cutting nothing off leaves all",
    ),
    Equivalent(
        "dyninfer/images/spec.py",
        "+    new_width = short if width < height",
        "the sides of a square come to the same",
    ),
    Equivalent(
        "dyninfer/images/spec.py",
        "+    new_height = short if height < width",
        "the sides of a square come to the same",
    ),
    Equivalent("dyninfer/images/prepare.py", "+    sign = 1.0 if factor >= 0", "no factor is 0"),
    Equivalent("dyninfer/images/prepare.py", "+    if sign <= 0", "it is 1 or -1"),
    Equivalent("dyninfer/images/prepare.py", "+    if sign < 1", "it is 1 or -1"),
    Equivalent(
        "dyninfer/images/prepare.py",
        "+        width = out.shape[ 1]",
        "numbers that lie one after the other stay so, however long a row is",
    ),
    Equivalent(
        "dyninfer/results/candidates.py",
        "+        best = found.confidences >= highest",
        "none is above the highest",
    ),
    Equivalent(
        "dyninfer/results/candidates.py",
        "+    if len(found.anchors) < 1",
        "one is looked at as several are",
    ),
    Equivalent(
        "dyninfer/results/candidates.py", "+    if confidences.max() < 1", "1 is rounded to 1"
    ),
    Equivalent("dyninfer/results/nms.py", "+FEW = ", "cuts the work, which is about speed"),
    Equivalent(
        "dyninfer/results/nms.py",
        "+        if len(kept) > max_detections",
        "what is more is cut off at the end",
    ),
    Equivalent(
        "dyninfer/results/nms.py", "+            continue", "what is more is cut off at the end"
    ),
    Equivalent(
        "dyninfer/results/nms.py",
        "+    while left > few and gone ",
        "both ways find the same, which is about speed",
    ),
    Equivalent(
        "dyninfer/results/nms.py",
        "+    possible = width >= 0",
        "what has no width has no area, and no limit is below that",
    ),
    Equivalent(
        "dyninfer/results/nms.py",
        "+    possible &= width >= limit",
        "what is at the limit is decided exactly",
    ),
    Equivalent(
        "dyninfer/results/nms.py",
        "+    limit *= ( 2 + _DOUBT)",
        "all is decided exactly, and slowly",
    ),
    Equivalent(
        "dyninfer/results/nms.py",
        "+    if np.count_nonzero(possible) > np",
        "what is sure is possible",
    ),
    Equivalent(
        "dyninfer/results/nms.py",
        "+    if np.count_nonzero(possible) >= np",
        "there may be nothing to decide",
    ),
    Equivalent(
        "dyninfer/results/postprocess.py",
        "+        if len(boxes) < 1",
        "one is looked at as several are",
    ),
    Equivalent("dyninfer/routing/certify.py", "+CHUNK = ", "cuts the work, which is about memory"),
    Equivalent(
        "dyninfer/routing/control_law.py",
        "_LEARNING_RATE = {Cost.HARD: 1.0",
        "a share of hard images counts each as it was expected",
    ),
    Equivalent(
        "dyninfer/routing/control_law.py",
        "_LEARNING_RATE = {Cost.HARD: -1.0",
        "a share of hard images counts each as it was expected",
    ),
    Equivalent(
        "dyninfer/routing/control_law.py",
        "+    if easy > settings.mean_cost",
        "at the cost of an easy image the share is 0 by the formula, too",
    ),
    Equivalent(
        "dyninfer/routing/goals.py", "shared[ 1]", "they are all the same, and two at least"
    ),
    Equivalent("dyninfer/routing/goals.py", "shared[ -1]", "they are all the same"),
    Equivalent("dyninfer/routing/speed.py", "longest, known, n= 2", "the nearest is taken"),
    Equivalent("dyninfer/routing/speed.py", "known[near[ -1]]", "there is one at most"),
    Equivalent(
        "dyninfer/images/prepare.py",
        "+    if size != (image.shape[",
        "resizing to the size that an image has copies it",
    ),
    Equivalent(
        "dyninfer/runtime/arrays.py",
        "+        return images if ",
        "of all images the executor itself takes those that it asked for",
    ),
    Equivalent("dyninfer/results/nms.py", "+CHUNK = ", "cuts the work, which is about speed"),
    Equivalent("dyninfer/results/nms.py", "+_BLOCK = 128", "cuts the work, which is about speed"),
    Equivalent("dyninfer/results/nms.py", "+_DOUBT = 1.", "all is decided exactly, and slowly"),
    Equivalent(
        "dyninfer/results/nms.py",
        "+    possible &= width != limit",
        "what is below the limit is decided exactly, and slowly",
    ),
    Equivalent(
        "dyninfer/results/postprocess.py",
        "+    keys <<= np.uint64( 33)",
        "only the sign falls out, and all confidences are above 0",
    ),
    Equivalent(
        "dyninfer/images/prepare.py",
        "+            if self._bytes.size <= 2 * size",
        "a block of the right size is made again, which is about speed",
    ),
    Equivalent(
        "dyninfer/results/candidates.py", "+    if scores.size", "both ways find the same places"
    ),
    Equivalent(
        "exporters/cascade/conventions.py",
        "+    return max(part.stop or 1 for",
        "a row whose end is not known has no width to compare, be that 0 or 1",
    ),
    Equivalent(
        "dyninfer/routing/certify.py",
        "+    step = max(1, CHUNK ",
        "cuts the work, which is about memory",
    ),
    Equivalent(
        "dyninfer/routing/control.py",
        "calibration.easiness_array[ -1]",
        "a cascade of two exits has one router",
    ),
    Equivalent(
        "benchmarks/latency/model.py",
        "-        weights = np.array([1 /",
        "weights count relative to one another",
    ),
    Equivalent("benchmarks/latency/model.py", "~len(r.spans)", "~n is -n - 1: the same order"),
    Equivalent(
        "engines/ort/runtime.py",
        'if self.provider >= "tensorrt"',
        "of the providers' names, which were checked, it is the last in the alphabet",
    ),
    Equivalent(
        "benchmarks/latency/statistics.py", "+RESAMPLES = ", "another draw of the same interval"
    ),
    Equivalent(
        "benchmarks/latency/statistics.py",
        "+RATIO_RESAMPLES = ",
        "another draw of the same interval",
    ),
    Equivalent(
        "benchmarks/latency/compare.py",
        "+MOST_ROUNDS = ",
        "from ten rounds on the smallest p is that of the number of permutations",
    ),
    Equivalent(
        "exporters/cascade/recognise_lists.py",
        "+    if len(pairs) != 1:",
        "nothing is left of no pairs, whatever they are called",
    ),
    Equivalent(
        "exporters/cascade/recognise_lists.py", "label.tensors[ -1]", "labels are in one output"
    ),
    Equivalent(
        "exporters/cascade/recognise_lists.py",
        '+        Table(name, "nva", measured.rows_of(name, 1), 4)',
        "how many rows there are is read from the shapes",
    ),
    Equivalent(
        "exporters/cascade/boxes.py",
        "float(best.max(initial= -1))",
        "of no boxes none is chosen, and no probability is below 0",
    ),
    Equivalent(
        "exporters/cascade/recognise_grids.py",
        "for n in whole[ 0:] if n != 1",
        "the first axis has the length 1",
    ),
    Equivalent(
        "exporters/cascade/recognise_grids.py", "name != scores[ -1]", "there is one of them"
    ),
    Equivalent(
        "exporters/cascade/recognise_grids.py",
        "+    if len(widths) > 1:",
        "there are two levels at least",
    ),
    *(
        Equivalent(f"exporters/cascade/{name}.py", "count.tensors[ -1]]", "it is in one output")
        for name in ("numbering", "original", "decodes")
    ),
    Equivalent(
        "exporters/cascade/original.py",
        "count.tensors[0]])[ -1]",
        "a picture has one number of rows",
    ),
    Equivalent(
        "exporters/cascade/original.py", "np.asarray(outputs[name][ -1]", "there is one picture"
    ),
    Equivalent("exporters/cascade/decodes.py", "+NOTHING = -", "its sigmoid is zero all the same"),
    Equivalent(
        "exporters/cascade/measured.py",
        "+            elif len(shape) <= ",
        "shorter ones were read before, or do not begin with 1",
    ),
    Equivalent(
        "exporters/cascade/measured.py", "all_shapes}) > 1:", "there is one picture at least"
    ),
    Equivalent(
        "exporters/cascade/trial.py",
        "+    if wanted[ -1].shape[1] > _MOST_ROWS",
        "there are as many scores as boxes",
    ),
    Equivalent("exporters/cascade/trial.py", "graph.input[ -1].name", "a stage has one input"),
    Equivalent(
        "exporters/cascade/trial.py",
        "max(1.0, float(np.abs(array).max(initial= 1)))",
        "what is less than 1 counts as 1",
    ),
    Equivalent(
        "exporters/cascade/tensor_sizes.py",
        "{LARGEST_TENSOR // 2**30:g}",
        "the limit is a whole number of gigabytes",
    ),
    Equivalent("exporters/cascade/tensor_sizes.py", "+_SMALL = ", "how much is copied, for speed"),
    Equivalent(
        "exporters/cascade/recognise_grids.py", "else (scores[ -1], other)", "there is one of them"
    ),
    Equivalent(
        "exporters/cascade/recognise.py",
        "called(lists.count.tensors[ -1]",
        "a number of rows is in one output",
    ),
    Equivalent(
        "exporters/cascade/measured.py",
        "if opened or axis <= 0",
        "there is no axis before the first",
    ),
    Equivalent(
        "dyninfer/routing/latency.py",
        "(float(costs[0]), float(costs[+1]))",
        "a cascade that is controlled has two exits",
    ),
    Equivalent(
        "benchmarks/latency/doubts.py",
        "key=lambda result: -(result.late_share or ",
        "those that are late have a share above 0",
    ),
    Equivalent(
        "exporters/cascade/stage.py",
        "model.graph.input[ -1].name: images",
        "it is run with one input, so there is one",
    ),
    Equivalent(
        "exporters/efficientdet/structure.py",
        "+    level_first: bool = True",
        "where no weights are loaded, only names within the model differ",
    ),
    Equivalent("dyninfer/evaluation/runs.py", "+MOST_SECONDS = ", "a limit of time"),
    Equivalent(
        "dyninfer/images/headers.py", "tags.get(_TILE_WIDTH, -1)", "a tile of no width has no area"
    ),
    Equivalent("dyninfer/images/headers.py", ")[ -1]", "one number is unpacked"),
    Equivalent(
        "dyninfer/images/prepare.py",
        "+        self._bytes: ImageArray = np.empty( 1,",
        "the first block is too small for any picture",
    ),
    *(
        Equivalent(
            "exporters/cascade/recognise_lists.py",
            f"and (shape[2] or {number}) > 4",
            "an axis that is open or empty is no number above 4",
        )
        for number in (" 1", " -1")
    ),
    *(
        Equivalent(
            "benchmarks/latency/rounds.py", f"+{name} = ", "a yardstick is compared with itself"
        )
        for name in ("SIDE", "PRODUCTS")
    ),
    *(
        Equivalent(f"dyninfer/results/{name}.py", "nonzero()[ -1]", "a mask has one axis")
        for name in ("candidates", "nms")
    ),
    Equivalent(
        "dyninfer/runtime/executor.py",
        "+            whole = len(numbers) > len(",
        "rows by their numbers are those of a slice, which is about speed",
    ),
    Equivalent(
        "dyninfer/runtime/executor.py",
        "+            whole = len(numbers) >= len(",
        "a decision has no more images than the batch",
    ),
    *(
        Equivalent(
            "dyninfer/runtime/decisions.py",
            f"+    if count {changed}",
            "one is looked at as several are, which is about speed",
        )
        for changed in (
            ">= 1 or not -_ROUNDING",
            "!= 1 or not -_ROUNDING",
            "> 0 or not -_ROUNDING",
            "> 1 or not _ROUNDING",
            "> 1 or not +_ROUNDING",
            "> 1 or not -_ROUNDING == copied",
            "> 1 or not -_ROUNDING < copied",
            "> 1 or not -_ROUNDING <= copied.item() < 1",
            "> 1 or not -_ROUNDING <= copied.item() == 1",
            "> 1 or not -_ROUNDING <= copied.item() <= 0 +",
            "> 1 or not -_ROUNDING <= copied.item() <= 1 -",
            "> 1 or not -_ROUNDING <= copied.item() <= 1 *",
        )
    ),
    *(
        Equivalent(
            "dyninfer/runtime/decisions.py",
            f"+    if count {changed}:",
            "one is split as several are, or there is no batch of none",
        )
        for changed in ("<= 1", "< 1", "== 0")
    ),
    Equivalent(
        "dyninfer/runtime/decisions.py",
        "for _, where in places) >= count",
        "an image takes no two outcomes",
    ),
    Equivalent(
        "dyninfer/runtime/decisions.py",
        "None if len(w) >= count",
        "no more images take an outcome than there are",
    ),
    *(
        Equivalent(
            f"dyninfer/runtime/{name}.py",
            f"{part} >= EASINESS",
            "of the two signals' names it is the last in the alphabet",
        )
        for name, part in (
            ("decisions", "if decision.signal"),
            ("decisions", "= decision.signal"),
            ("executor", "or decision.signal"),
            ("executor", "if decision.signal"),
            ("single", "or decision.signal"),
            ("single", "and decision.signal"),
            ("single", "if name"),
        )
    ),
    Equivalent(
        "dyninfer/runtime/executor.py",
        "+        if images.shape[0] <= len(",
        "there are at least those that were asked for",
    ),
    Equivalent(
        "dyninfer/runtime/session.py",
        '"router" if signals[ -1].values',
        "a route has routers or one chooser",
    ),
    Equivalent("dyninfer/runtime/session.py", "+    if values.size <= 1:", "none is empty"),
    Equivalent(
        "dyninfer/runtime/batches.py",
        "+        timings[ -1][PREPARE] = prepared.ms",
        "it is the only picture",
    ),
    *(
        Equivalent("dyninfer/runtime/detector.py", part, "there is one answer to one image")
        for part in ("routing, 0, deadline_ms)[ -1])", "cast(Detections, found[ -1])")
    ),
    Equivalent(
        "dyninfer/runtime/executor.py",
        "AlwaysHard(), 0, True, False, None",
        "a head that is started early runs once as well",
    ),
    Equivalent(
        "dyninfer/runtime/batches.py",
        "+        if isinstance(array, DeviceArray) or len(rows) ",
        "of all images the executor itself takes those that it asked for",
    ),
    Equivalent("dyninfer/runtime/detector.py", "+_MOST_AT_ONCE = ", "is about speed"),
    Equivalent(
        "dyninfer/monitoring/drift.py",
        "+        if _divergence(mean, middle) < allowed",
        "halving comes as near to a bound from either side",
    ),
    Equivalent("dyninfer/monitoring/drift.py", "+_HALVINGS = 6", "beyond what numbers can hold"),
    Equivalent("dyninfer/monitoring/drift.py", "+_HALVINGS = 59", "beyond what numbers can hold"),
    *(
        Equivalent("engines/ort/runtime.py", f"+{name} = ", "is about speed")
        for name in ("SPIN_US", "SMALL_MACS")
    ),
    Equivalent("engines/ort/tensor.py", "+_POLL_S = ", "how often is looked, not for what"),
    Equivalent("exporters/dynamicdet/protocol.py", "+_SHAPES = ", "how much is kept"),
    Equivalent(
        "exporters/candidate_rows.py",
        "+    order = np.arange(len(source[",
        "there is a score for every box",
    ),
    Equivalent(
        "exporters/parity.py",
        "axes = 0 if tensor == AVERAGES and source.ndim <= 2",
        "of one axis both are the largest of all",
    ),
    Equivalent(
        "exporters/parity.py", 'types[name] >= "uint8"', "it is the last type in the alphabet"
    ),
    Equivalent(
        "exporters/parity.py",
        "point.signal >= EASINESS",
        "of the two signals it is the last in the alphabet",
    ),
    Equivalent(
        "exporters/verify.py",
        "if array.dtype <= np.uint8",
        "of types, what can be cast to the other is at most that: float32 cannot",
    ),
    Equivalent("exporters/verify.py", '.dtype >= "uint8"', "it is the last type in the alphabet"),
    *(
        Equivalent("exporters/parity.py", part, "errors and magnitudes are at least 0")
        for part in ("(where, tensor), ( -1.0, 0.0))", "(where, tensor), (0.0, -1.0))")
    ),
    Equivalent(
        "exporters/parity.py",
        "+        value = np.where(np.isnan(source), ",
        "the error is infinite there",
    ),
    *(
        Equivalent(
            f"exporters/{name}.py", part, "where no row may be another, nothing is put in its place"
        )
        for name, part in (
            ("candidate_rows", "spare: float = -1.0"),
            ("parity", "spare: float = -1.0"),
            ("verify", "if proposes else -1.0"),
        )
    ),
    Equivalent(
        "exporters/router/model.py",
        "+    area = (boxes[..., 2:] - boxes[..., :2]).clamp(min= -1)",
        "a box without an area shares none",
    ),
    *(
        Equivalent("exporters/router/model.py", f"outputs[{place}]", "a detector has two")
        for place in ("1", "+1")
    ),
    Equivalent(
        "exporters/router/model.py", "t.float() if t.ndim <= 2", "tensors have two axes or four"
    ),
    Equivalent(
        "exporters/router/model.py",
        "mean( 2).mean(2)",
        "the same average, over the other axis first",
    ),
    Equivalent("exporters/verify.py", "default_rng( 1)", "other noise"),
    *(
        Equivalent(
            "exporters/router/fit.py",
            f"+        gain = LinearGain(np.array([{part}",
            "its values are spread out anew",
        )
        for part in ("-1.0]), 1.0", "-1.0]), -1.0", "- 2.0]), 0.0")
    ),
    Equivalent(
        "exporters/router/observe.py", "% (augment + 1) <= 0", "a remainder is not negative"
    ),
    Equivalent("exporters/weights.py", "elif depth != _DEEPEST", "it grows by one at a time"),
    Equivalent("dyninfer/runtime/plan.py", "+END = - ", "no segment has that number"),
    Equivalent(
        "dyninfer/monitoring/drift.py",
        "+    j = np.arange(1, 10",
        "a sum's last terms are far below what a number can hold",
    ),
    Equivalent(
        "dyninfer/monitoring/expected.py",
        "+        early = np.flatnonzero(leaving != len(",
        "nobody leaves after the last exit",
    ),
    Equivalent(
        "dyninfer/monitoring/expected.py",
        "+        hard_share = float((leaving >= ",
        "nobody leaves after the last exit",
    ),
    Equivalent(
        "dyninfer/evaluation/worth.py",
        "if best != last",
        "the best of those that are no worse is not below it",
    ),
    Equivalent(
        "dyninfer/evaluation/scoring.py",
        "+    average_precision([], [], ",
        "nothing is found of no pictures, in however many classes",
    ),
    Equivalent("dyninfer/evaluation/scoring.py", "int(place[ -1])", "an answer names a class once"),
    Equivalent(
        "dyninfer/monitoring/alarms.py",
        "+        return len(self) >= self._images.maxlen",
        "a window never holds more",
    ),
    Equivalent(
        "dyninfer/monitoring/alarms.py", "psi_alarm or -1.0", "what chance alone gives is above 0"
    ),
    Equivalent(
        "dyninfer/monitoring/audit.py",
        "if len(known) >= len(values)",
        "no more are known than there are",
    ),
    Equivalent(
        "dyninfer/monitoring/expected.py",
        "reported = self.easiness[ -1] if single",
        "there is one of them",
    ),
    Equivalent(
        "dyninfer/monitoring/drift.py",
        "+    if x <= 0.2:",
        "there 1 is what the series gives as well",
    ),
    Equivalent(
        "dyninfer/evaluation/worth.py",
        "if called >= ",
        "of the two, the last exit is the last in the alphabet",
    ),
    Equivalent(
        "dyninfer/evaluation/worth.py",
        "+    if least >= largest:",
        "the least is not above the largest",
    ),
    Equivalent(
        "dyninfer/evaluation/router_quality.py",
        "np.asarray(fitted[ -1])",
        "every router has seen as many pictures",
    ),
    Equivalent(
        "dyninfer/evaluation/class_labels.py", "if len(unknown) != 1", "there is one at least"
    ),
    Equivalent("dyninfer/evaluation/class_labels.py", "near[ -1]", "at most one is asked for"),
    Equivalent("dyninfer/evaluation/class_labels.py", "class_names, 2)", "the nearest comes first"),
    Equivalent(
        "dyninfer/evaluation/object_labels.py", "read_objects(found[ -1]", "there is one of them"
    ),
    Equivalent(
        "dyninfer/evaluation/coco_labels.py",
        "default=(",
        "of no entries there is no best one, however much they agree",
    ),
    Equivalent(
        "dyninfer/evaluation/coco_labels.py",
        "return count, count >= len(theirs)",
        "no more parts agree than there are",
    ),
    Equivalent("dyninfer/evaluation/coco_labels.py", "return best[ -1] if best", "one is left"),
    Equivalent(
        "dyninfer/evaluation/yolo_labels.py",
        "by_stem[path.stem])[ -1]",
        "pictures that a label may both be of are refused",
    ),
    Equivalent(
        "dyninfer/monitoring/audit.py",
        "len(self._waiting) == self._capacity",
        "no more wait than may",
    ),
    Equivalent(
        "dyninfer/evaluation/coco_labels.py",
        "if agreement(entry) >= most",
        "none agrees more than the most",
    ),
    Equivalent(
        "dyninfer/evaluation/yolo_labels.py",
        "data[: 2 << 16]",
        "decodes a picture that need not be, which is about speed",
    ),
    Equivalent(
        "dyninfer/evaluation/yolo_labels.py",
        "data[: 1 << 17]",
        "decodes a picture that need not be, which is about speed",
    ),
    Equivalent(
        "dyninfer/evaluation/yolo_labels.py", "len(shares) % 2 <= 0", "a remainder is not below 0"
    ),
    Equivalent(
        "dyninfer/evaluation/yolo_labels.py",
        "len(shares) >= 5 and",
        "five have been looked at before",
    ),
    Equivalent(
        "dyninfer/evaluation/outcomes.py",
        "if point.signal >= EASINESS",
        "of the two signals it is the last in the alphabet",
    ),
    Equivalent(
        "dyninfer/evaluation/outcomes.py",
        "if point.signal <= CHOICE_SCORES",
        "of the two signals it is the first in the alphabet",
    ),
    Equivalent(
        "dyninfer/evaluation/interleaved.py", "seed: int = 1)", "another draw of the same orders"
    ),
    Equivalent(
        "dyninfer/evaluation/interleaved.py", "default_rng( 1)", "another draw of the same interval"
    ),
    Equivalent(
        "dyninfer/evaluation/interleaved.py",
        "resamples: int = ",
        "another draw of the same interval",
    ),
    Equivalent(
        "dyninfer/evaluation/routed_precision.py",
        "whole > 0, whole, 2)",
        "where there is no area the quotient is not taken",
    ),
    Equivalent(
        "dyninfer/evaluation/routed_precision.py", "np.spacing( 2)", "too little to be seen"
    ),
    Equivalent(
        "dyninfer/runtime/session.py",
        "workspace.timed, workspace.warming = True, True",
        "nobody reads the times of warming up",
    ),
    Equivalent(
        "benchmarks/latency/statistics.py", "+SEED = 1", "another draw of the same interval"
    ),
    Equivalent(
        "benchmarks/latency/statistics.py",
        "len(p_values), -1.0",
        "chances begin at 0",
    ),
    Equivalent(
        "benchmarks/latency/statistics.py",
        "+    corrected = [ ",
        "each place is written to",
    ),
    Equivalent(
        "benchmarks/latency/doubts.py",
        "if (result.late_share or -1) > LATE",
        "nothing and less than nothing are not late",
    ),
    Equivalent(
        "benchmarks/latency/summary.py",
        "if set(call.exits) <= {index}",
        "a call has images, so the set is not empty",
    ),
    Equivalent(
        "benchmarks/latency/model.py",
        "len(self.manifest.ways) <= 1",
        "a bundle has a way",
    ),
    Equivalent(
        "benchmarks/latency/model.py",
        "+    if len(names) <= 2:",
        "where there is one way, nothing is routed",
    ),
    Equivalent("benchmarks/latency/model.py", " if varied >= 1 else", "there are fewer than two"),
    Equivalent(
        "benchmarks/latency/model.py",
        "+    if easy > 1 or",
        "at 1 what is left of it, 0, is divided",
    ),
    Equivalent(
        "benchmarks/latency/model.py",
        "or hard < 1:",
        "at 1 a number is divided by itself",
    ),
    Equivalent(
        "benchmarks/latency/step_costs.py", "+    if low != batch", "it is never above the batch"
    ),
    Equivalent(
        "benchmarks/latency/step_costs.py",
        "+    mean = min(round(batch * hard_fraction, ",
        "what is cut off is an error of rounding",
    ),
    Equivalent(
        "benchmarks/latency/step_costs.py",
        "+            if (found <= 0)",
        "an unknown that is 0 is also tried as one that is left out",
    ),
    Equivalent(
        "benchmarks/latency/step_costs.py",
        "range(1, unknowns + 2)",
        "there are no choices of more than all",
    ),
    Equivalent(
        "benchmarks/latency/step_costs.py",
        "np.flatnonzero(beyond >= 0)",
        "a line that ends in 0 crosses it there, from either side",
    ),
    Equivalent(
        "exporters/dynamicdet/topology.py", "+    index: int = ", "only the image has no number"
    ),
    Equivalent(
        "exporters/dynamicdet/plan.py",
        "sorted(widths) > list(",
        "different whole numbers from 0 on, in order, are never below 0, 1, ...",
    ),
    Equivalent(
        "exporters/dynamicdet/plan.py",
        "return 4 * self.channels(row.inputs[ -1]",
        "such a row reads one other",
    ),
    Equivalent("exporters/dynamicdet/model.py", "(cins[ -1]", "such a row reads one other"),
    *(
        Equivalent(
            "exporters/dynamicdet/model.py",
            f"is not Op.DETECT else {width}",
            "the width of a prediction comes from its classes",
        )
        for width in (1, -1)
    ),
    *(
        Equivalent(
            "exporters/dynamicdet/model.py",
            f"last_reader.get(ref, {unread})",
            "is about when memory is freed",
        )
        for unread in ("+1", "- 0", "- 2")
    ),
    *(
        Equivalent(
            "exporters/dynamicdet/fold.py",
            f"+            if factor {limit}:",
            "growing by 1 changes nothing",
        )
        for limit in (">= 1", "> 0")
    ),
    Equivalent(
        "exporters/dynamicdet/fold.py",
        "key=lambda tensor: tensor.shape[",
        "in another order all are added at once",
    ),
    Equivalent(
        "exporters/dynamicdet/layers.py",
        "and stride <= 1 else None",
        "there is no stride below 1",
    ),
    Equivalent("exporters/dynamicdet/protocol.py", "+    tensor_size: tuple", "it is always given"),
    Equivalent(
        "exporters/dynamicdet/protocol.py",
        "if ratio <= 1",
        "of a square both are the whole side",
    ),
    Equivalent(
        "exporters/dynamicdet/protocol.py",
        "INTER_AREA if scale <= 1",
        "at 1 nothing is resized",
    ),
    Equivalent(
        "exporters/efficientdet/fold.py",
        "+            elif x.shape[",
        "a factor above 0 may come before or after",
    ),
    Equivalent(
        "exporters/efficientdet/fold.py",
        "edge.weight >= 0]",
        "an edge of weight 0 adds nothing",
    ),
    Equivalent(
        "exporters/efficientdet/fold.py",
        "or joins[: 2]",
        "all weights are 0 then",
    ),
    *(
        Equivalent(
            "exporters/efficientdet/layers.py",
            f"* stride + kernel - size, {least})",
            "kernels are larger than strides, so there is padding",
        )
        for least in (1, -1)
    ),
    Equivalent("exporters/efficientdet/structure.py", "kernel=deep[ 3]", "kernels are square"),
    Equivalent(
        "exporters/efficientdet/stages.py",
        "or places.min() > 0 else",
        "then all are multiplied by 1",
    ),
)


def why_equivalent(module: str, change: str) -> str | None:
    """Why a change (lines with - and + before them) is known to change nothing, or None."""
    known = (k for k in EQUIVALENT if k.module == module and k.part in change)
    return next((k.reason for k in known), None)
