"""DRNet as a family: two checkpoints become a predictor and a stage for each resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import (
    BATCH_AXIS,
    CHOICE_SCORES,
    Manifest,
    SelectRoute,
    Source,
    Stage,
    Task,
    TensorSpec,
    Way,
)
from dyninfer.bundle.writing import check_target, write_bundle, write_stage_file
from dyninfer.errors import CheckpointError
from dyninfer.exporters.class_names import class_names_for
from dyninfer.exporters.drnet.choices import (
    Sizes,
    check_pair,
    choose_resize,
    choose_shortcut,
    choose_sizes,
    read_settings,
    settings_of,
)
from dyninfer.exporters.drnet.graph import stage_model
from dyninfer.exporters.drnet.model import ResNet, resnet_from_state
from dyninfer.exporters.drnet.names import NAMING
from dyninfer.exporters.drnet.options import Convention, DRNetOptions, ShortcutNorm
from dyninfer.exporters.drnet.resize import Resize
from dyninfer.exporters.drnet.stages import (
    IMAGES,
    PREDICTOR,
    ResolutionStage,
    classifier_name,
)
from dyninfer.exporters.family import Exported, Progress, SourceStage, TorchStage
from dyninfer.exporters.graphs import count_macs
from dyninfer.exporters.shared_weights import share_weights
from dyninfer.exporters.weights import find_weights


class DRNet:
    """See :class:`dyninfer.exporters.family.Family`."""

    name = "drnet"

    def export(
        self, source: tuple[Path, Path], output: Path, options: DRNetOptions, progress: Progress
    ) -> Exported:
        """Export a predictor's and a classifier's checkpoint."""
        check_target(output, overwrite=options.overwrite)
        (predictor, notes), (classifier, more) = map(_read, source)
        check_pair(predictor, classifier)
        sizes = choose_sizes(options, classifier.sets)
        shortcut, note = choose_shortcut(classifier, options.shortcut_bn)
        resize, told = choose_resize(options.resize, source[1])
        names = class_names_for(classifier.classes, options.class_names)
        stages = build_stages(predictor, classifier, sizes, resize, shortcut)

        def write(folder: Path) -> Manifest:
            entries = _write_stages(stages, sizes, folder, progress)
            branches = (Way(body=classifier_name(side)) for side in sizes.resolutions)
            first, *further = (
                Source(file_name=path.name, sha256=file_sha256(path), licence=options.licence)
                for path in source
            )
            return Manifest(
                name=options.name or output.name.removesuffix(SUFFIX),
                family=self.name,
                task=Task.CLASSIFY,
                class_names=names,
                route=SelectRoute(chooser=PREDICTOR, branches=tuple(branches)),
                stages=entries,
                image_inputs={IMAGES: sizes.image_spec()},
                settings=settings_of(sizes, resize, shortcut),
                source=first,
                further_sources=tuple(further),
                written_by=f"dyninfer {__version__}",
            )

        made = write_bundle(output, write, overwrite=options.overwrite)
        described = _described(predictor, classifier)
        return Exported(made, (*notes, *more, *described, note, told))

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """The checkpoints' own models, with all sets of batch norm."""
        manifest = bundle.manifest
        settings = read_settings(manifest.settings, manifest.image_inputs[IMAGES])
        predictor, classifier = map(load_model, sources)
        stages = build_stages(predictor, classifier, *settings)
        return {name: TorchStage(stage) for name, stage in stages.items()}

    def fold(
        self, stages: Mapping[str, SourceStage], _manifest: Manifest
    ) -> Mapping[str, SourceStage]:
        """Batch norms go into the convolutions before them."""
        folded = {}
        for name, stage in stages.items():
            assert isinstance(stage, TorchStage)  # of this family's source_stages
            assert isinstance(stage.module, ResolutionStage)
            folded[name] = TorchStage(stage.module.folded())
        return folded


DRNET = DRNet()


def load_model(checkpoint: Path) -> ResNet:
    """The source model of one checkpoint, with all its sets of batch norm, in float32.

    Raises:
        CheckpointError: the file cannot be read safely, or its weights are of no such ResNet.
    """
    return _read(checkpoint)[0]


def _read(checkpoint: Path) -> tuple[ResNet, tuple[str, ...]]:
    """The model, and lines on where its weights were found."""
    weights = find_weights(checkpoint, NAMING)
    try:
        return resnet_from_state(weights.state), weights.notes
    except CheckpointError as error:  # there are two files
        raise CheckpointError(f"{checkpoint}: {error}") from None


def build_stages(
    predictor: ResNet,
    classifier: ResNet,
    sizes: Sizes,
    resize: Convention,
    shortcut: ShortcutNorm,
) -> dict[str, ResolutionStage]:
    """The stages of a bundle by name, with the models as they are."""

    def resized(side: int) -> Resize:
        return Resize((sizes.image, sizes.image), side, resize)

    stages = {PREDICTOR: ResolutionStage(predictor, resized(sizes.predictor))}
    for index, side in enumerate(sizes.resolutions):
        projected = 0 if shortcut is ShortcutNorm.INDEX0 else index
        stage = ResolutionStage(classifier, resized(side), index, projected)
        stages[classifier_name(side)] = stage
    return {name: stage.eval() for name, stage in stages.items()}


def _write_stages(
    stages: Mapping[str, ResolutionStage], sizes: Sizes, folder: Path, progress: Progress
) -> dict[str, Stage]:
    images = TensorSpec(name=IMAGES, dtype="float32", shape=(BATCH_AXIS, 3, *(sizes.image,) * 2))
    entries = {}
    for name, stage in stages.items():
        progress(f"writing {name}")
        output, file = CHOICE_SCORES if name == PREDICTOR else "logits", f"onnx/{name}.onnx"
        model = stage_model(stage, output, apart=name != PREDICTOR)
        columns = (BATCH_AXIS, stage.model.classes)
        entries[name] = Stage(
            file=file,
            sha256=write_stage_file(folder, file, model.SerializeToString()),
            inputs=(images,),
            outputs=(TensorSpec(name=output, dtype="float32", shape=columns),),
            parameters=_parameters_at(stage.model),
            macs=count_macs(model),
        )
    return share_weights(folder, entries)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _parameters_at(model: ResNet) -> int:
    """Of one set of batch norm."""
    norms = (getattr(parent, norms) for parent, _, norms in model.convolutions())
    return _parameters(model) - sum(_parameters(norm) for set_ in norms for norm in set_.bn[1:])


def _described(predictor: ResNet, classifier: ResNet) -> tuple[str, str]:
    """Lines on what the two are."""
    return (
        f"predictor: {predictor}, {_parameters(predictor):,} parameters",
        f"classifier: {classifier} with {classifier.sets} sets of batch norm, "
        f"{_parameters(classifier):,} parameters",
    )
