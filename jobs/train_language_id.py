"""A fastText model that names languages, trained on your labelled texts, with a report on how well it does."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from caravela import command, storage
from caravela.cluster import ClusterConfig
from caravela.config import ConfigError
from caravela.manifest import Manifest
from filters.training.stages import LanguageIdConfig, language_id_stage


@dataclass(frozen=True, kw_only=True)
class LanguageIdJob:
    """All settings of this job."""

    root: str
    """Where the model and its report are stored: a local folder or s3://bucket/prefix."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    language_id: LanguageIdConfig = field(default_factory=LanguageIdConfig)

    def __post_init__(self) -> None:
        if not self.root:
            raise ConfigError('root = "": expected a folder or s3://bucket/prefix')


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.run_stages(
        argv,
        __doc__,
        LanguageIdJob,
        lambda config: [language_id_stage(storage.absolute(config.root), config.language_id)],
        _epilogue,
    )


def _epilogue(config: LanguageIdJob, manifests: Mapping[str, Manifest]) -> str:
    """How good it is, and what makes curation use it."""
    done = manifests["language_id"]
    found = done.summary
    return (
        f"accuracy {found['accuracy']:.4f} on {found['test_texts']:,} texts that it did not learn from; "
        f"see {storage.join(done.uri, 'report.html')}\n\n"
        f'[curate.language]\nmodel_uri = "{found["model_uri"]}"\nmodel_sha256 = "{found["model_sha256"]}"'
    )


if __name__ == "__main__":
    sys.exit(main())
