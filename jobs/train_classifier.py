"""A fastText classifier trained on documents to keep and to drop, with its precision and recall by threshold."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from caravela import command, storage
from caravela.cluster import ClusterConfig
from caravela.config import ConfigError
from caravela.manifest import Manifest
from filters.training.stages import ClassifierTrainingConfig, classifier_stage

SHOWN = ("precision", "recall", "dropped", "kept")


@dataclass(frozen=True, kw_only=True)
class ClassifierJob:
    """All settings of this job."""

    root: str
    """Where the model and its report are stored, and the run of curation lies if there is one to learn from."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    classifier: ClassifierTrainingConfig = field(default_factory=ClassifierTrainingConfig)

    def __post_init__(self) -> None:
        if not self.root:
            raise ConfigError('root = "": expected a folder or s3://bucket/prefix')


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(
        argv,
        __doc__,
        ClassifierJob,
        lambda config: [classifier_stage(storage.absolute(config.root), config.classifier)],
        _epilogue,
    )


def _epilogue(config: ClassifierJob, manifests: Mapping[str, Manifest]) -> str:
    """How good it is, and what makes curation use it."""
    done = manifests["classifier"]
    found = done.summary
    lines = [f"average precision {found['average_precision']:.4f}, ROC AUC {found['roc_auc']:.4f}"]
    for name, row in found["thresholds"].items():
        figures = ", ".join(f"{key} {row[key]:.3f}" for key in SHOWN if row[key] is not None)
        lines.append(f"{name}: at_least = {row['threshold']:.4f} gives {figures}")
    lines.append(f"see {storage.join(done.uri, 'report.html')}\n")
    lines += ["[[curate.classifiers]]", 'name = "quality"', f'model_uri = "{found["model_uri"]}"']
    lines += [f'model_sha256 = "{found["model_sha256"]}"', f"at_least = {found['thresholds']['best F1']['threshold']}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
