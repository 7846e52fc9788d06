"""A detector with its input adapted and its decode in the graph, as one stage of a bundle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper
from pydantic import TypeAdapter, ValidationError

from dyninfer.bundle.manifest import BATCH_AXIS, Precision, Stage, Task, TensorSpec
from dyninfer.bundle.validation import first_problem
from dyninfer.bundle.writing import write_stage_file
from dyninfer.errors import BundleError, ExportError
from dyninfer.exporters.cascade.batch import loosen_reshapes
from dyninfer.exporters.cascade.decodes import write_decode
from dyninfer.exporters.cascade.graph_builder import GraphBuilder, Value
from dyninfer.exporters.cascade.graphs import add_prefix, all_nodes, prune
from dyninfer.exporters.cascade.onnx_file import parameter_count
from dyninfer.exporters.cascade.options import DetectorPlan, Layout
from dyninfer.exporters.cascade.original import open_model
from dyninfer.exporters.cascade.plan import PlannedDetector
from dyninfer.exporters.cascade.reference import decode_one
from dyninfer.exporters.macs import measured_macs
from dyninfer.types import Float32Array

DETECTOR, DECODE = "detector", "decode"  # prefixes of the names in a stage's graph
PLAN_KEY = "dyninfer_detector"
BATCHES = (1, 2, 3)
Decoded = tuple[Float32Array, Float32Array]
"""Boxes (A, 4) and class scores (A, C) of one image."""


@dataclass(frozen=True)
class WrittenStage:
    """A stage's entry in the manifest, and a note where it takes one image at a time."""

    entry: Stage
    note: str | None


def write_stage(
    ordinal: str, planned: PlannedDetector, image_input: str, folder: Path
) -> WrittenStage:
    """Write ``onnx/<ordinal>.onnx``, with a dynamic batch where that was found to work.

    Raises:
        ExportError: the detector works neither with a dynamic batch nor with single images.
    """
    expected = [decode_one(planned.plan, outputs) for _, outputs in planned.samples]
    model, batched, reason = _choose_batch(planned, image_input, expected)
    file = f"onnx/{ordinal}.onnx"
    plan, outputs = planned.plan, Task.DETECT.outputs
    shapes = ((BATCH_AXIS, plan.anchors, 4), (BATCH_AXIS, plan.anchors, len(plan.columns)))
    size = (BATCH_AXIS, 3, plan.image.height, plan.image.width)
    half = planned.file.image.elem_type == TensorProto.FLOAT16
    entry = Stage(
        file=file,
        sha256=write_stage_file(folder, file, model.SerializeToString()),
        inputs=(TensorSpec(name=image_input, dtype="float32", shape=size),),
        outputs=tuple(
            TensorSpec(name=name, dtype="float32", shape=shape)
            for name, shape in zip(outputs, shapes, strict=True)
        ),
        parameters=parameter_count(prune(planned.file.model.graph, plan.tensors)),
        macs=measured_macs(model, planned.samples[0][0]),
        precision=Precision.FP16 if half else Precision.FP32,
        rows_per_run=None if batched else 1,
    )
    note = f"{ordinal}: takes one image at a time ({_short(reason)})"
    return WrittenStage(entry, None if batched else note)


def _short(reason: str) -> str:
    """ONNX Runtime's reasons begin with codes and end in file names of its own."""
    plain = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", reason)
    node = re.search(r"while running (\w+) node\. Name:'([^']*)'", plain)
    return f"batches fail in {node[1]} {node[2]!r}" if node else plain[:120]


def _choose_batch(
    planned: PlannedDetector, image_input: str, expected: Sequence[Decoded]
) -> tuple[ModelProto, bool, str]:
    """The model with a dynamic batch, as it is or with its Reshapes loosened, else for one image.

    A way is taken only if batches of 1, 2 and 3 give the rows that the original gives one by one.
    """
    fixed = planned.file.image.shape[0] if planned.file.image.shape else None
    reason = "its output has no batch axis"
    if planned.plan.row_width != 7:
        dynamic = build(planned, image_input, dynamic=True)
        if not _difference(dynamic, planned, expected, BATCHES):
            return dynamic, True, ""
        loosened, reason = _try_to_loosen(dynamic, planned, expected, fixed or 1)
        if loosened is not None:
            return loosened, True, ""
    if fixed in (1, None):
        single = build(planned, image_input, dynamic=False)
        failed = _difference(single, planned, expected, (1,))
        if not failed:
            return single, False, reason
        reason = failed
    raise ExportError(
        f"{planned.file.path} cannot become a stage for single images or for batches of any "
        f"size: {reason}; export the detector with batch size 1 or a dynamic batch"
    )


def _try_to_loosen(
    dynamic: ModelProto, planned: PlannedDetector, expected: Sequence[Decoded], batch: int
) -> tuple[ModelProto | None, str]:
    images = np.repeat(planned.samples[0][0], batch, 0)
    try:
        loosened = loosen_reshapes(dynamic, images)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        return None, str(error).splitlines()[0]
    reason = _difference(loosened, planned, expected, BATCHES)
    return (None, reason) if reason else (loosened, "")


def _difference(
    model: ModelProto,
    planned: PlannedDetector,
    expected: Sequence[Decoded],
    batches: Sequence[int],
) -> str:
    """What is wrong with a stage's outputs, or an empty text where they are as expected."""
    images = np.concatenate([image for image, _ in planned.samples])
    half = planned.file.image.elem_type == TensorProto.FLOAT16
    relative = 1e-2 if half else 1e-4
    name = model.graph.input[0].name
    try:
        session = open_model(model)
        for batch in batches:
            found = session.run(list(Task.DETECT.outputs), {name: images[-batch:]})
            for which, array in enumerate(found):
                wanted = np.stack([pair[which] for pair in expected[-batch:]])
                if array.shape != wanted.shape:
                    return f"a batch of {batch} gives {array.shape}, not {wanted.shape}"
                bound = relative * max(1.0, float(np.abs(wanted).max()))
                if not np.allclose(array, wanted, rtol=relative, atol=bound):
                    return f"a batch of {batch} gives other results than its images one by one"
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        return str(error).splitlines()[0]
    return ""


def build(planned: PlannedDetector, image_input: str, *, dynamic: bool) -> ModelProto:
    """The stage's model: adapted input, the detector's own nodes, decode, two outputs."""
    plan, file = planned.plan, planned.file
    inner = prune(file.model.graph, plan.tensors)
    types = {output.name: output.type.tensor_type.elem_type for output in inner.output}
    add_prefix(inner, f"{DETECTOR}/")
    adapter, decode = GraphBuilder(f"{DETECTOR}_input"), GraphBuilder(DECODE)
    _adapt_input(adapter, Value(image_input), f"{DETECTOR}/{file.image.name}", planned)
    tensors = []
    for name in plan.tensors:
        value = Value(f"{DETECTOR}/{name}")
        same = types[name] == TensorProto.FLOAT
        tensors.append(value if same else decode.cast(value, TensorProto.FLOAT))
    boxes, scores = write_decode(decode, plan, tensors)
    for value, name in zip((boxes, scores), Task.DETECT.outputs, strict=True):
        decode.name_output(value, name)
    batch = BATCH_AXIS if dynamic else 1
    whole = helper.make_graph(
        [*adapter.nodes, *inner.node, *decode.nodes],
        "detector",
        [_value(image_input, (batch, 3, plan.image.height, plan.image.width))],
        [
            _value("boxes_xyxy", (batch, plan.anchors, 4)),
            _value("class_scores", (batch, plan.anchors, len(plan.columns))),
        ],
        [*inner.initializer, *adapter.initializers, *decode.initializers],
    )
    whole.sparse_initializer.extend(inner.sparse_initializer)
    return _finish(file.model, whole, plan)


def _value(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _adapt_input(
    adapter: GraphBuilder, image: Value, detector_input: str, planned: PlannedDetector
) -> None:
    """(N, 3, H, W) float32 -> the axes and the element type that the detector takes."""
    value = image
    if planned.plan.layout is Layout.NHWC:
        value = adapter.transpose(value, (0, 2, 3, 1))
    if planned.file.image.elem_type != TensorProto.FLOAT:
        value = adapter.cast(value, planned.file.image.elem_type)
    adapter.name_output(value, detector_input)


def _finish(model: ModelProto, graph: GraphProto, plan: DetectorPlan) -> ModelProto:
    """A clean model around the graph: no notes of the exporting machine, but the plan."""
    used = {node.domain for node in all_nodes(graph)} | {"", "ai.onnx"}
    opsets = [o for o in model.opset_import if o.domain in used or model.functions]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(model.functions))
    made.ir_version = max(model.ir_version, 4)  # from 4 on a weight need not be an input as well
    made.producer_name = "dyninfer"
    for function in made.functions:
        function.doc_string = ""
    for node in all_nodes(made.graph):
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in made.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    helper.set_model_props(made, {PLAN_KEY: dump_plan(plan)})
    return made


def dump_plan(plan: DetectorPlan) -> str:
    """The plan as JSON, for a stage's metadata: what verification rebuilds the source from."""
    return TypeAdapter(DetectorPlan).dump_json(plan).decode()


def read_plan(path: Path) -> DetectorPlan | None:
    """The plan in a stage's metadata, or None where there is none.

    Raises:
        BundleError: it cannot be read.
    """
    model = onnx.load(str(path), load_external_data=False)
    text = next((e.value for e in model.metadata_props if e.key == PLAN_KEY), None)
    if text is None:
        return None
    try:
        return TypeAdapter(DetectorPlan).validate_json(text)
    except ValidationError as error:
        raise BundleError(
            f"{path} describes its detector wrongly: {first_problem(error)}"
        ) from None
