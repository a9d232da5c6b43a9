"""The index of a deduplication: finished runs whose documents go before those of this run, and are not touched.

In: roots of runs, older first. Out: of each the stages that this run reads: its signatures; its decisions, since a
document that its own run removed can be nobody's keeper here; and its documents, where texts are to be compared. All of
them are found by the run's ``run.json`` and manifests, relative to its root, so that a run may be moved as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caravela import manifest, storage
from caravela.errors import UserError
from caravela.manifest import Input, Manifest


@dataclass(frozen=True, kw_only=True)
class IndexRun:
    """One finished run."""

    signatures: Input
    clusters: Input
    documents: Input
    """The stage whose table ``documents`` the signatures are of."""


def index_runs(
    roots: Sequence[str], settings: Mapping[str, object], version: int, *, with_documents: bool
) -> tuple[IndexRun, ...]:
    """The finished runs that are the index, older ones first; settings and version are those of this run's signatures.

    Raises:
        UserError: a run is not finished, was made with other settings or by another version, is itself indexed by a
            run not named before, or has no documents any more, where they are needed.
    """
    found: list[IndexRun] = []
    for root in roots:
        signatures, clusters = (stage_of(root, name) for name in ("signatures", "clusters"))
        if signatures.version != version:
            raise UserError(
                f"dedup.index: {root} has signatures of version {signatures.version}, and this run's have version "
                f"{version}; run its dedup again"
            )
        for name, value in settings.items():
            if name != "keys_per_partition" and (own := signatures.config.get(name)) != value:
                raise UserError(
                    f"dedup.index: {root} was made with {name} = {own}, this run has {value}; make them equal"
                )
        expected = [run.signatures.fingerprint for run in found]
        if list(clusters.config["index"]) != expected:
            raise UserError(
                f"dedup.index: {root} was deduplicated against {len(clusters.config['index'])} runs, and {len(found)} "
                "others stand before it; name all of them, older ones first"
            )
        if signatures.fingerprint not in {source.fingerprint for source in clusters.inputs}:
            raise UserError(
                f"dedup.index: the clusters of {root} are not of its latest signatures; run its dedup again"
            )
        (documents,) = signatures.inputs
        uri = storage.join(storage.absolute(root), documents.name, documents.fingerprint)
        if with_documents and manifest.read(uri) is None:
            raise UserError(
                f"dedup.index: {uri} is gone, whose documents dedup.verify compares; put it back, or set dedup.verify "
                'to "off"'
            )
        found.append(
            IndexRun(
                signatures=_as_input(signatures),
                clusters=_as_input(clusters),
                documents=Input(name=documents.name, fingerprint=documents.fingerprint, uri=uri),
            )
        )
    return tuple(found)


def stage_of(root: str, name: str) -> Manifest:
    """The latest finished stage of a run of the index."""
    found = manifest.latest(root, name)
    if found is None:
        raise UserError(f"dedup.index: {root} has no finished stage {name}; expected the root of a deduplicated run")
    return found


def _as_input(stage: Manifest) -> Input:
    return Input(name=stage.stage, fingerprint=stage.fingerprint, uri=stage.uri)
