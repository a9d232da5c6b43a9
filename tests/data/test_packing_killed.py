"""Packing whose driver is killed at every moment of its work ends with the bytes of an undisturbed one."""

from pathlib import Path

import pytest

from caravela import schema
from caravela.data import packing, tokenizer
from caravela.data.packing import PackConfig
from caravela.data.tokenizer import TokenizerConfig
from caravela.manifest import Input, Manifest
from caravela.stages import Shard, ShardOutput, Stage
from tests.deadly import AT_THE_END, MOMENTS, Plan, assert_only_killed_shards_were_done_again, doomed, starts_until_done
from tests.road_without_ray import finish

pytestmark = pytest.mark.slow

TEXTS = Path(__file__).parents[2] / "platform" / "caravela" / "sample" / "texts"
NUM_SHARDS = 6


class Documents:
    """Stands in for deduplication: texts of the sample."""

    def __call__(self, shard: Shard, out: ShardOutput) -> dict[str, int]:
        table, size = out.table("documents", schema.documents()), 0
        for path in sorted(TEXTS.glob("pt-PT/*/*.txt"))[shard.index :: NUM_SHARDS]:
            text = path.read_text(encoding="utf-8")
            table.add({"id": path.stem, "text": text, "source": "sample"})
            size += len(text.encode())
        return {"bytes_kept": size}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Input, Input]:
    """Documents in shards, and a tokenizer."""
    root = str(tmp_path_factory.mktemp("run"))
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(NUM_SHARDS)]
    documents = Stage(
        name="dedup", version=1, root=root, config={}, inputs=(), plan=lambda: plan, make_worker=Documents
    )
    finish(documents)
    tokens = tokenizer.tokenizer_stage(root, TokenizerConfig(vocabulary_size=800), documents.as_input())
    finish(tokens)
    return documents.as_input(), tokens.as_input()


def digests(done: Manifest) -> dict[str, str]:
    return {file.path: file.sha256 for shard in done.shards for file in shard.files}


def drive(root: str, config: PackConfig, documents: Input, tokens: Input, plan: Plan) -> None:
    """A driver without Ray, until it is killed."""
    finish(doomed(packing.pack_stage(root, config, documents, tokens), plan))


@pytest.mark.parametrize("method", ["concatenated", "best_fit"])
def test_packing_with_the_driver_killed_at_every_moment_gives_the_same_bytes(
    tmp_path: Path, inputs: tuple[Input, Input], method: str
) -> None:
    config = PackConfig(context=64, method=method, validation_share=0.1)  # type: ignore[arg-type]
    expected = finish(packing.pack_stage(str(tmp_path / "quiet"), config, *inputs))
    (tmp_path / "deaths").mkdir()
    plan = Plan(str(tmp_path / "deaths"), seed=3, shards=tuple(range(NUM_SHARDS)), finish=True)
    starts = starts_until_done(drive, str(tmp_path / "killed"), config, *inputs, plan)
    assert plan.deaths() == {"pack": {*MOMENTS, AT_THE_END}}, "a moment was left out, so nothing was shown of it"
    assert starts == 1 + NUM_SHARDS + 1
    assert_only_killed_shards_were_done_again(plan)
    found = packing.pack_stage(str(tmp_path / "killed"), config, *inputs).manifest()
    assert found is not None
    assert digests(found) == digests(expected)
    assert found.counters == expected.counters
    assert found.summary == expected.summary
