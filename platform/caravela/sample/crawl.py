"""The sample crawl: what a crawler would bring home if the sample's texts stood on the web, and the truth about it.

In: the texts and a seed. Out: five WARC files and ``labels.jsonl``, one JSON object (``press.Label``) per response
record, in the order of the records. The same texts and seed give the same bytes. Cost: under a second, 2.5 MB.

The stage ``crawl`` has one shard and no inputs; ``build_crawl`` does the work and needs no Ray.
"""

import dataclasses
import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass

from caravela import stages
from caravela.sample.plan import plan_pages
from caravela.sample.press import Press
from caravela.sample.texts import fingerprint_of_texts
from caravela.sample.warc import WarcWriter

WARC_FILES = tuple(f"crawl-{i:05d}.warc.gz" for i in range(5))
LABELS_FILE = "labels.jsonl"


@dataclass(frozen=True, kw_only=True)
class SampleCrawlConfig:
    """Settings of the sample crawl."""

    enabled: bool = False
    """Whether the run starts from the sample crawl."""
    seed: int = 20261121
    """Decides which texts are copied and all that is drawn; another seed is another crawl of the same texts."""


def crawl_stage(root: str, config: SampleCrawlConfig) -> stages.Stage:
    """The stage that builds the sample crawl. Its directory depends on the seed and on the texts."""
    return stages.Stage(
        name="crawl",
        version=1,
        root=root,
        config={"seed": config.seed, "texts": fingerprint_of_texts()},
        inputs=(),
        plan=lambda: [stages.Shard(index=0, name="sample crawl", spec={"seed": config.seed})],
        make_worker=CrawlWorker,
    )


class CrawlWorker:
    """Builds the crawl into a shard's files."""

    def __call__(self, shard: stages.Shard, out: stages.ShardOutput) -> Mapping[str, int]:
        paths = [out.local_path(name) for name in (*WARC_FILES, LABELS_FILE)]
        return build_crawl(os.path.dirname(paths[0]), int(shard.spec["seed"]))


def build_crawl(folder: str, seed: int) -> dict[str, int]:
    """Writes the WARC files and the labels to an existing folder; gives the number of pages and of WARC files."""
    drafts = plan_pages(seed)
    drafts, last = drafts[:-1], drafts[-1]
    random.Random(f"{seed}/order").shuffle(drafts)
    drafts.append(last)
    press = Press(seed)
    per_file = -(-len(drafts) // len(WARC_FILES))
    labels = []
    for number, name in enumerate(WARC_FILES):
        with open(os.path.join(folder, name), "wb") as file:
            writer = WarcWriter(file, name, seed)
            for draft in drafts[number * per_file : (number + 1) * per_file]:
                labels.append(press.write(draft, writer, name))
    with open(os.path.join(folder, LABELS_FILE), "w", encoding="utf-8", newline="\n") as lines:
        for label in labels:
            lines.write(json.dumps(dataclasses.asdict(label), ensure_ascii=False) + "\n")
    return {"pages": len(labels), "files": len(WARC_FILES)}
