"""The road from crawl to model: its settings, and its stages in order, each made from those before it."""

from dataclasses import dataclass, field, replace

from caravela import storage
from caravela.cluster import ClusterConfig
from caravela.config import ConfigError
from caravela.data.packing import PackConfig, pack_stage
from caravela.data.sources import MixtureConfig, pack_inputs
from caravela.data.tokenizer import TokenizerConfig, tokenizer_stage
from caravela.data.tokenizer_report import TokenizerReportConfig, tokenizer_report_stage
from caravela.evaluate import EvaluateConfig, evaluate_stage
from caravela.export import ExportConfig, export_stage, require_class
from caravela.model.config import ModelConfig
from caravela.report import ReportConfig, report_stage
from caravela.sample.crawl import SampleCrawlConfig, crawl_stage
from caravela.stages import Stage
from caravela.train.config import TrainConfig
from caravela.train.estimate import EstimateConfig
from caravela.train.launch import pretrain_stage
from filters.browse import BrowseConfig, browse_stage
from filters.curate import CurateConfig, curate_stages
from filters.dedup.config import DedupConfig
from filters.dedup.road import dedup_stages


@dataclass(frozen=True, kw_only=True)
class RoadConfig:
    """All settings of a run; the sections are the stages'."""

    root: str
    """Where everything is stored: a local folder or s3://bucket/prefix."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    crawl: SampleCrawlConfig = field(default_factory=SampleCrawlConfig)
    curate: CurateConfig = field(default_factory=CurateConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    browse: BrowseConfig = field(default_factory=BrowseConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    tokenizer_report: TokenizerReportConfig = field(default_factory=TokenizerReportConfig)
    pack: PackConfig = field(default_factory=PackConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    model: ModelConfig
    train: TrainConfig
    estimate: EstimateConfig = field(default_factory=EstimateConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        if not self.root:
            raise ConfigError('root = "": expected a folder or s3://bucket/prefix')


CURATE_STAGES = ("site_lines", "repeated_lines", "curate")


def road(config: RoadConfig) -> dict[str, Stage]:
    """Every stage by name, in the order in which they run. Nothing is run or written by this."""
    root = storage.absolute(config.root)
    crawl = [crawl_stage(root, config.crawl)] if config.crawl.enabled else []
    curation = curate_stages(root, config.curate, crawl[0].as_input() if crawl else None)
    curated = curation[-1].as_input()
    deduplication = dedup_stages(root, config.dedup, curated)
    *first, documents = [stage.as_input() for stage in deduplication if stage.name in ("dedup", "trim")]
    browse = browse_stage(root, config.browse, curated, *first, documents)
    tokenizer = tokenizer_stage(root, config.tokenizer, documents)
    tokens = tokenizer.as_input()
    fit = tokenizer_report_stage(root, config.tokenizer_report, config.tokenizer, documents, tokens)
    pack = pack_stage(root, config.pack, documents, tokens)
    model = replace(config.model, vocabulary_size=config.tokenizer.vocabulary_size, max_positions=config.pack.context)
    packs = pack_inputs(config.mixture, pack.as_input())
    pretrain = pretrain_stage(root, config.train, model, packs, tokens, config.mixture)
    evaluate = evaluate_stage(root, config.evaluate, pretrain.as_input(), pack.as_input(), tokens)
    before = [*crawl, *curation, *deduplication, browse, tokenizer, fit, pack, pretrain, evaluate]
    if config.export.enabled:
        require_class(model)
        before.append(export_stage(root, config.export, pretrain.as_input(), tokens, evaluate.as_input()))
    report = report_stage(root, config.report, [stage.as_input() for stage in before])
    return {stage.name: stage for stage in [*before, report]}
