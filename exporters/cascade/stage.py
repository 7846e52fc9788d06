"""A detector with its input adapted and its decode in the graph, as one stage of a bundle."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnx_ir.passes import common
from pydantic import TypeAdapter, ValidationError

from dyninfer.bundle.documents import first_problem
from dyninfer.bundle.manifest import BATCH_AXIS, Stage, Task, TensorSpec
from dyninfer.bundle.writing import write_stage_file
from dyninfer.errors import BundleError, ExportError
from dyninfer.exporters.cascade.arithmetic import nodes_of, parameter_count
from dyninfer.exporters.cascade.decodes import write_decode
from dyninfer.exporters.cascade.options import DetectorPlan, Layout
from dyninfer.exporters.cascade.plan import PlannedDetector
from dyninfer.exporters.cascade.ports import size_input
from dyninfer.exporters.cascade.trial import difference
from dyninfer.exporters.graphs import (
    GraphBuilder,
    Probe,
    add_prefix,
    closed,
    editable,
    measured_macs,
)
from dyninfer.foreign_errors import reason_of
from dyninfer.types import Float32Array

DETECTOR, DECODE = "detector", "decode"  # prefixes of the names in a stage's graph
PLAN_KEY = "dyninfer_detector"
BATCHES = (1, 2, 3)


def write_stage(
    name: str, planned: PlannedDetector, image_input: str, folder: Path
) -> tuple[Stage, str | None]:
    """Write ``onnx/<name>.onnx``, with a dynamic batch where that was found to work.

    Returns:
        The stage's entry in the manifest, and a note where it takes one image at a time.

    Raises:
        ExportError: the detector works neither with a dynamic batch nor with single images.
    """
    model, reason = _choose_batch(planned, image_input)
    file, image = f"onnx/{name}.onnx", planned.plan.image
    size = (BATCH_AXIS, 3, image.height, image.width)
    entry = Stage(
        file=file,
        sha256=write_stage_file(folder, file, model.SerializeToString()),
        inputs=(TensorSpec(name=image_input, dtype="float32", shape=size),),
        outputs=tuple(
            TensorSpec(name=output, dtype="float32", shape=shape)
            for output, shape in _output_shapes(planned.plan, BATCH_AXIS).items()
        ),
        parameters=parameter_count(ir.to_proto(_detector(planned).graph)),
        macs=measured_macs(model, planned.samples[0][0]),
        precision=planned.file.precision,
        rows_per_run=1 if reason else None,
    )
    source = planned.file.path.name
    note = f"{source}: takes one image at a time ({_short(reason)})" if reason else None
    return entry, note


def _output_shapes(plan: DetectorPlan, batch: int | str) -> dict[str, tuple[int | str, ...]]:
    widths = zip(
        Task.DETECT.outputs, (4, len(plan.bundle_classes or plan.class_numbers)), strict=True
    )
    return {name: (batch, plan.rows, width) for name, width in widths}


def _short(reason: str) -> str:
    """ONNX Runtime's reasons begin with codes and end in file names of its own."""
    plain = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", reason)
    node = re.search(r"while running (\w+) node\. Name:'([^']*)'", plain)
    return f"batches fail in {node[1]} {node[2]!r}" if node else plain[:120]


def _choose_batch(planned: PlannedDetector, image_input: str) -> tuple[ModelProto, str]:
    """The model, and why it takes single images only: empty where it takes any batch.

    Its batch is dynamic, as it is or with its Reshapes loosened, only if batches of 1, 2 and 3 give
    the rows that the original gives one by one.
    """
    shape = planned.file.image.shape or (None,) * 4
    flat = len(shape) == 3
    fixed = 1 if flat else shape[0]
    reason = f"its {'input' if flat else 'output'} has no batch axis"
    nodes = nodes_of(planned.file.model.graph)
    together = any(node.op_type == "DynamicQuantizeLinear" for node in nodes)
    if together:
        reason = "it quantises a batch as a whole, by the range of all its images"
    if planned.plan.batched and not flat and not together:
        dynamic = build(planned, image_input, dynamic=True)
        if not difference(dynamic, planned, BATCHES):
            return dynamic, ""
        try:
            dynamic = loosen_reshapes(dynamic, np.repeat(planned.samples[0][0], fixed or 1, 0))
            reason = difference(dynamic, planned, BATCHES)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = reason_of(error)
        if not reason:
            return dynamic, ""
    if fixed in (1, None):
        single = build(planned, image_input, dynamic=False)
        failed = difference(single, planned, (1,))
        if not failed:
            return single, reason
        reason = failed
    raise ExportError(
        f"{planned.file.path} cannot become a stage for single images or for batches of any "
        f"size: {reason}; export the detector with batch size 1 or a dynamic batch"
    )


def loosen_reshapes(model: ModelProto, images: Float32Array) -> ModelProto:
    """Let every Reshape whose target begins with the batch size of the export take any batch.

    The targets are read from a run on ``images`` (N, 3, H, W), since many exporters compute them
    inside the graph; they are constants once the image size is fixed. The result is to be tried.

    Raises:
        Exception: ONNX Runtime cannot run the model; its exceptions share no public base class.
    """
    stage = editable(model)
    builder = GraphBuilder(stage.graph, "batch")
    targets = {
        node: str(node.inputs[1].name)
        for node in stage.graph
        if node.op_type == "Reshape" and node.inputs[1] is not None
    }
    seen = Probe(model, {*targets.values()}).read({model.graph.input[0].name: images})
    for node, target in targets.items():
        shape = seen[target].copy()
        if shape.size < 2 or shape[0] != len(images):
            continue
        shape[0] = -1 if (shape > 0).all() else 0
        node.replace_input_with(1, builder.constant(shape))
    common.RemoveUnusedNodesPass()(stage)
    return closed(stage)


def build(planned: PlannedDetector, image_input: str, *, dynamic: bool) -> ModelProto:
    """The stage's model: adapted input, the detector's own nodes, decode, two outputs."""
    plan, batch = planned.plan, BATCH_AXIS if dynamic else 1
    model = _detector(planned)
    graph = model.graph
    add_prefix(graph, f"{DETECTOR}/")
    given = {value.name: value for value in graph.outputs}
    (taken,) = graph.inputs
    size = (batch, 3, plan.image.height, plan.image.width)
    image = ir.val(image_input, ir.DataType.FLOAT, size)
    graph.inputs[:] = [image]
    taken.replace_all_uses_with(_adapted(GraphBuilder(graph, f"{DETECTOR}_input"), image, planned))
    decode = GraphBuilder(graph, DECODE)
    tensors = {n: decode.cast(given[f"{DETECTOR}/{n}"], ir.DataType.FLOAT) for n in plan.tensors}
    graph.outputs[:] = write_decode(decode, plan, tensors)
    shapes = _output_shapes(plan, batch).items()
    for value, (name, shape) in zip(graph.outputs, shapes, strict=True):
        value.name, value.shape = name, ir.Shape(shape)
        value.type = ir.TensorType(ir.DataType.FLOAT)
    graph.sort()  # the adapted input is made first
    return _without_notes(model, plan)


def _detector(planned: PlannedDetector) -> ir.Model:
    """The detector's own nodes, from its image to the outputs that are read."""
    file, image = planned.file, planned.plan.image
    model = editable(file.model)
    for port in file.sizes:
        (value,) = (value for value in model.graph.inputs if value.name == port.name)
        value.const_value = ir.tensor(size_input(port, image.height, image.width), name=port.name)
        model.graph.inputs.remove(value)
        model.graph.initializers.add(value)
    return ir.Model(
        ir.convenience.extract(model.graph, [file.image.name], planned.plan.tensors),
        ir_version=max(file.model.ir_version, 4),  # from 4 on a weight need not be an input as well
        producer_name="dyninfer",
        functions=tuple(model.functions.values()),
    )


def _adapted(builder: GraphBuilder, image: ir.Value, planned: PlannedDetector) -> ir.Value:
    """(N, 3, H, W) float32 -> the axes and the element type that the detector takes."""
    image = builder.cast(image, ir.DataType(planned.file.image.elem_type))
    if planned.plan.layout is Layout.NHWC:
        image = builder.apply("Transpose", image, perm=[0, 2, 3, 1])
    if len(planned.file.image.shape or "four") == 3:
        image = builder.apply("Squeeze", image, builder.constant([0]))
    return image


def _without_notes(model: ir.Model, plan: DetectorPlan) -> ModelProto:
    """A clean model: no notes of the exporting machine, but the plan."""
    common.RemoveUnusedOpsetsPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props[PLAN_KEY] = dump_plan(plan)
    made = closed(model)
    del made.graph.quantization_annotation[:]  # names tensors, and no runtime reads it
    made.graph.initializer.sort(key=lambda tensor: tensor.name)  # extract gives them in any order
    for tensor in made.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
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
            f"{path} describes its detector wrongly: {first_problem(error)}; export it again"
        ) from None
