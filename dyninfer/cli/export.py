"""``dyninfer export``: a trained checkpoint, or several detectors, become a bundle."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.cli.common import parse_image_size
from dyninfer.cli.detector_options import (
    SPEC,
    NamedDetectors,
    OneDetector,
    gather_sources,
    one_source,
)
from dyninfer.cli.exporting import (
    DYNAMICDET_STAGES,
    USUAL_CANDIDATES,
    CandidatesOption,
    NameOption,
    WritingOptions,
    conclude_export,
    export_checkpoints,
    export_with_progress,
    parse_candidates,
    show,
)
from dyninfer.cli.help import Command, Group
from dyninfer.cli.options import with_option_groups
from dyninfer.exporters.cascade.options import ClassList, made_from_onnx
from dyninfer.exporters.drnet.options import (
    PREDICTOR_SIZE,
    Convention,
    DRNetOptions,
    ShortcutNorm,
)
from dyninfer.exporters.extras import require_export_extra
from dyninfer.exporters.faster_rcnn.options import PROPOSALS, Style

_CHECKPOINTS = (".pt", ".pth", ".ckpt")


class _Families(Group):
    """The families; where files are named without one, it says which is meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not self.commands.keys() & set(args):
            models = [arg for arg in args if arg.partition(",")[0].lower().endswith(".onnx")]
            checkpoints = [arg for arg in args if arg.lower().endswith(_CHECKPOINTS)]
            names = [Path(arg).name.lower() for arg in checkpoints]
            detectors = len(models) + sum("efficientdet" in name for name in names)
            family = "onnx" if models else "efficientdet" if detectors else "dynamicdet"
            if detectors > 1:
                family = "cascade"
            elif not detectors and ("drnet" in " ".join(names) or len(checkpoints) > 1):
                family = "drnet"
            if models or checkpoints:
                # a first word that is no file is a kind, misspelt or of another tool
                word = args[0] if args[0] not in (*models, *checkpoints) else "-"
                wrong = not word.startswith("-") and not Path(word).exists()
                rest = args[1:] if wrong else args
                typed = shlex.join(["dyninfer", "export", family, *rest])
                other = "" if models else "; export other detectors to ONNX first"
                ctx.fail(f"the kind of model comes first: {typed}{other}")
        return super().parse_args(ctx, args)


export_app = typer.Typer(cls=_Families, no_args_is_help=True)


@export_app.callback()
def _families() -> None:
    """Export a trained checkpoint, or ONNX detectors, to a bundle of separate engines.

    Example: **dyninfer export dynamicdet dy-yolov7.pt -o dy-yolov7.dyn**
    """


@export_app.command(cls=Command, no_args_is_help=True)
@with_option_groups
def cascade(
    detectors: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=f"[{SPEC}]...",
            help="The detectors, the cheapest first; options may follow a file's name, as in "
            "a.onnx,decode=nanodet,size=224.",
            show_default=False,
        ),
    ] = None,
    *,
    classes: Annotated[
        ClassList,
        typer.Option(
            help="Classes of the bundle: the last detector's, those common to all, or all of them."
        ),
    ] = ClassList.LAST,
    candidates: CandidatesOption = USUAL_CANDIDATES,
    name: NameOption = None,
    writing: WritingOptions,
    named: NamedDetectors,  # type: ignore[valid-type]  # made of a table
) -> None:
    """Chain any two (or more) detectors, the cheap one first; train their router afterwards.

    They are ONNX files, or checkpoints of EfficientDets. What an ONNX file does not tell is
    guessed, and each guess is reported: size, decode of the outputs, colours, normalisation, class
    names. Classes are matched by their names.

    Example: **dyninfer export cascade --first nano.onnx --first-size 224 --second big.onnx
    -o pair.dyn**

    Example: **dyninfer export cascade tf_efficientdet_d0.pth tf_efficientdet_d3.pth -o pair.dyn**
    """
    require_export_extra()
    from dyninfer.exporters.cascade.export import CASCADE, CascadeOptions

    sources = gather_sources(detectors or [], vars(named))
    paths = [source.path for source in sources]
    target = writing.target(paths)
    kept = parse_candidates(candidates)
    options = CascadeOptions(name, writing.licence, writing.overwrite, kept, classes)
    made = export_with_progress(CASCADE, sources, target, options, 2 * len(sources))
    # of a checkpoint's 1280 pixels, images take gigabytes
    batch = 2 if made_from_onnx(made.manifest) else 1
    conclude_export(made, target, paths, check=writing.check, batch=batch)
    quoted = shlex.quote(str(target))
    show(target, f"fit-router {quoted} --images PHOTOS [--annotations COCO.json]")


@export_app.command(cls=Command, no_args_is_help=True)
@with_option_groups
def onnx(
    detector: Annotated[
        str,
        typer.Argument(
            metavar=SPEC,
            help="The detector; options may follow its name, as in a.onnx,decode=nanodet,size=224.",
            show_default=False,
        ),
    ],
    candidates: CandidatesOption = USUAL_CANDIDATES,
    name: NameOption = None,
    *,
    writing: WritingOptions,
    alone: OneDetector,  # type: ignore[valid-type]  # made of a table
) -> None:
    """Export one ONNX detector as it is, for everything that needs no second one.

    What its file does not tell is guessed, and each guess is reported: size, decode of the
    outputs, colours, normalisation, class names. With several image sizes it becomes a bundle that
    chooses one for each picture, once **dyninfer fit-router** has fitted the chooser.

    Example: **dyninfer export onnx yolov8n.onnx**

    Example: **dyninfer export onnx nanodet.onnx --image-size 160,224,320,416 -o nanodet.dyn**
    """
    require_export_extra()
    from dyninfer.exporters.cascade.export import ONNX, OnnxOptions

    source, sizes = one_source(detector, vars(alone))
    target = writing.target([source.path])
    kept = parse_candidates(candidates)
    options = OnnxOptions(name, writing.licence, writing.overwrite, kept, sizes)
    made = export_with_progress(ONNX, source, target, options, 2 * max(1, len(sizes)))
    conclude_export(made, target, [source.path], check=writing.check)
    quoted = shlex.quote(str(target))
    fit = f"fit-router {quoted} --images PHOTOS [--annotations COCO.json]"
    show(target, fit if sizes else f"predict {quoted} IMAGE_OR_FOLDER")


@export_app.command(cls=Command, no_args_is_help=True)
@with_option_groups
def dynamicdet(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A .pt or .safetensors file of a DynamicDet training.",
            show_default=False,
        ),
    ],
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", "--imgsz", help="N or HxW (height first); 640, or 1280 for W6."
        ),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="A text file, one name per line, or a data set's YAML; COCO's names for 80.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The YAML of a model with a topology of its own.")
    ] = None,
    candidates: CandidatesOption = USUAL_CANDIDATES,
    *,
    writing: WritingOptions,
) -> None:
    """Export Dy-YOLOv7, -X, -W6, or a relative with other widths, classes or layers.

    Widths, classes and anchors are read from the weights; no configuration file is needed for
    the three published variants. Nothing that a checkpoint brings is ever run.

    Example: **dyninfer export dynamicdet dy-yolov7.pt -o dy-yolov7.dyn --image-size 384x640**
    """
    require_export_extra()
    from dyninfer.exporters.dynamicdet.export import DYNAMICDET, DynamicDetOptions

    options = DynamicDetOptions(
        parse_image_size(image_size),
        class_names,
        config,
        parse_candidates(candidates),
        licence=writing.licence,
        overwrite=writing.overwrite,
    )
    export_checkpoints(
        DYNAMICDET,
        checkpoint,
        options,
        [checkpoint],
        writing,
        steps=DYNAMICDET_STAGES,
        config=config,
    )


@export_app.command(cls=Command, no_args_is_help=True)
@with_option_groups
def efficientdet(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A .pth, .pt or .safetensors file: bare, or of a training.",
            show_default=False,
        ),
    ],
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            "--imgsz",
            help="N or HxW (height first). Default: the configuration's.",
        ),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="A text file, one name per line, or a data set's YAML; COCO's for 90 columns.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The published configuration that it was trained with, for example "
            "tf_efficientdet_d7, where neither weights nor file name tell.",
        ),
    ] = None,
    candidates: CandidatesOption = USUAL_CANDIDATES,
    *,
    writing: WritingOptions,
) -> None:
    """Export an EfficientDet: D0 to D7x, trained in TensorFlow or PyTorch, Lite, or a relative.

    What it is made of is read from the weights. Image size, anchors and colours are those of the
    configuration that the checkpoint, its file's name or --config names.

    Example: **dyninfer export efficientdet tf_efficientdet_d0.pth -o d0.dyn**
    """
    require_export_extra()
    from dyninfer.exporters.efficientdet.export import EFFICIENTDET, EfficientDetOptions

    options = EfficientDetOptions(
        parse_image_size(image_size),
        class_names,
        config,
        parse_candidates(candidates),
        licence=writing.licence,
        overwrite=writing.overwrite,
    )
    export_checkpoints(EFFICIENTDET, checkpoint, options, [checkpoint], writing, steps=1)


@export_app.command(cls=Command, no_args_is_help=True)
@with_option_groups
def drnet(
    predictor: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTOR",
            help="The network that chooses the resolution: a .pt, .safetensors or MindSpore's "
            ".ckpt file.",
            show_default=False,
        ),
    ],
    classifier: Annotated[
        Path,
        typer.Argument(
            metavar="CLASSIFIER",
            help="The network with a set of batch norm for each resolution.",
            show_default=False,
        ),
    ],
    resolutions: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Sides in the order of the sets and of the predictor's scores. Default for three "
            "sets: 224,168,112.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", "--imgsz", help="N, the side of the crop. Default: 224.", metavar="N"
        ),
    ] = None,
    predictor_size: Annotated[
        int, typer.Option(metavar="N", help="The side of what the predictor looks at.")
    ] = PREDICTOR_SIZE,
    resize: Annotated[
        Convention | None,
        typer.Option(
            help="Where pixels lie when the crop is resized: half-pixel, as in PyTorch, or "
            "asymmetric, as in MindSpore. Default: as in the library that wrote the classifier.",
            show_default=False,
        ),
    ] = None,
    shortcut_bn: Annotated[
        ShortcutNorm | None,
        typer.Option(
            help="Set of the batch norms of shortcuts: 0 at every resolution, as in the released "
            "code, or one for each. Default: what the weights tell.",
            show_default=False,
        ),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(help="A text file, one name per line, or a data set's YAML."),
    ] = None,
    *,
    writing: WritingOptions,
) -> None:
    """Export a DRNet: a predictor chooses the resolution at which a ResNet classifies an image.

    Depths, widths and classes are read from the weights, whose names may be MindSpore's or
    PyTorch's. Each resolution becomes a branch.

    Example: **dyninfer export drnet predictor.pt classifier.pt -o drnet.dyn**
    """
    require_export_extra()
    from dyninfer.exporters.drnet.export import DRNET

    sources = (predictor, classifier)
    options = DRNetOptions(
        _parse_resolutions(resolutions),
        parse_image_size(image_size),
        predictor_size,
        resize,
        shortcut_bn,
        class_names,
        licence=writing.licence,
        overwrite=writing.overwrite,
    )
    export_checkpoints(DRNET, sources, options, sources, writing, steps=4)


@export_app.command(cls=Command, no_args_is_help=True)
@with_option_groups
def zendet(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CHECKPOINT]",
            help="A .pth, .pt or .safetensors file of the backbone, or of a GFLV2 detector on it. "
            "Without one the backbone gets random weights, for work on its latency.",
            show_default=False,
        ),
    ] = None,
    structure: Annotated[
        Path | None,
        typer.Option(
            metavar="STRUCTURE.txt",
            help="The structure text that the checkpoint was trained with, or that "
            "**dyninfer search backbone** has written.",
        ),
    ] = None,
    second_structure: Annotated[
        Path | None,
        typer.Option(
            metavar="STRUCTURE.txt",
            help="Of a second backbone, which hard images take: makes a cascade with random "
            "weights.",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            "--imgsz",
            help="N or HxW (height first), multiples of 32. Default: 640, of detectors 800x1344.",
        ),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="A text file, one name per line, or a data set's YAML; COCO's for 80 or 81 "
            "columns.",
        ),
    ] = None,
    candidates: CandidatesOption = USUAL_CANDIDATES,
    *,
    writing: WritingOptions,
) -> None:
    """Export a ZenDet (MAE-DET) backbone, or a GFLV2 detector on it, by its structure text.

    A backbone ends in c2 to c5, the maps of strides 4 to 32. A detector is decoded in the graph.

    Example: **dyninfer export zendet maedet_s.pth --structure maedet_s.txt -o maedet-s.dyn**

    Two structures make a cascade of detectors, as DynamicDet's: first backbone, router and head,
    and a second backbone with a head that the first one's maps help. Its weights are random, for
    work on latency before anyone trains it.

    Example: **dyninfer export zendet --structure found.txt -o found.dyn**

    Example: **dyninfer export zendet --structure a.txt --second-structure b.txt -o pair.dyn**
    """
    if structure is None:
        raise typer.BadParameter("there is no structure text: give --structure STRUCTURE.txt")
    require_export_extra()
    from dyninfer.exporters.zendet.export import ZENDET, ZenDetOptions

    sources = [checkpoint or structure, *([second_structure] if second_structure else [])]
    options = ZenDetOptions(
        structure,
        second_structure,
        parse_image_size(image_size),
        class_names,
        parse_candidates(candidates),
        licence=writing.licence,
        overwrite=writing.overwrite,
    )
    steps = DYNAMICDET_STAGES if second_structure else 1
    export_checkpoints(ZENDET, checkpoint, options, sources, writing, steps=steps)


@export_app.command(name="faster-rcnn", cls=Command, no_args_is_help=True, hidden=True)
@export_app.command(name="detnas", cls=Command, no_args_is_help=True)
@with_option_groups
def detnas(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A .pth, .pt or .safetensors file of torchvision or mmdetection.",
            show_default=False,
        ),
    ],
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            "--imgsz",
            help="N or HxW (height first), multiples of 32. Default: 800x1344.",
        ),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="A text file, one name per line, or a data set's YAML; COCO's for 81 or 91 "
            "columns.",
        ),
    ] = None,
    style: Annotated[
        Style | None,
        typer.Option(
            help="Colours and strides of the backbone: pytorch (RGB) or caffe (BGR). Default: "
            "what the file's name tells, or pytorch.",
            show_default=False,
        ),
    ] = None,
    proposals: Annotated[
        int, typer.Option(metavar="N", min=1, max=5000, help="How many regions are looked at.")
    ] = PROPOSALS,
    candidates: CandidatesOption = USUAL_CANDIDATES,
    *,
    writing: WritingOptions,
) -> None:
    """Export a Faster R-CNN with a ResNet and a feature pyramid, of any depths and widths.

    Students of Joint-DetNAS may have others in every block: all are read from the weights. The
    first stage ends in the maps of the pyramid and proposals, the second in boxes and class scores.

    Example: **dyninfer export detnas faster_rcnn_r50.pth -o r50.dyn --image-size 480x800**
    """
    require_export_extra()
    from dyninfer.exporters.faster_rcnn.export import FASTER_RCNN, FasterRCNNOptions

    options = FasterRCNNOptions(
        parse_image_size(image_size),
        class_names,
        style,
        proposals,
        parse_candidates(candidates),
        licence=writing.licence,
        overwrite=writing.overwrite,
    )
    export_checkpoints(FASTER_RCNN, checkpoint, options, [checkpoint], writing, steps=2)


def _parse_resolutions(text: str | None) -> tuple[int, ...] | None:
    """``224,168`` -> (224, 168).

    Raises:
        typer.BadParameter: anything else.
    """
    if text is not None and not re.fullmatch(r" *\d{1,5}( *, *\d{1,5})* *", text, re.ASCII):
        raise typer.BadParameter(f"--resolutions is {text!r}, expected numbers such as 224,168,112")
    return None if text is None else tuple(map(int, text.split(",")))
