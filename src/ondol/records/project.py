"""What `ondol.yaml` says: which of the field's files belong together, and how the loop treats them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from ondol.base import errors
from ondol.records.alert import AlertSpec
from ondol.records.rollout import JudgePolicy

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EvaluateSpec:
    """How a trained model is scored."""

    data: str
    """Pipeline output with held-out rows: `task.output`."""

    target: str
    """Column that holds the truth."""

    positive: Any = None
    """The target's value that counts as positive of two; None: the last one in order."""

    train: str = ""
    """Pipeline output with the rows it was trained on: a first model must beat their base rate. Empty: it must beat the
    held-out rows' own base rate, which nobody could have known and is harder."""

    metrics: tuple[str, ...] = ()
    """Names of `evaluation.tabular`; empty: the usual ones for the kind of target."""

    slices: tuple[str, ...] = ()
    """Columns whose values are scored apart."""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """Which data is checked before anything else, against which schema."""

    data: str
    """A CSV or Parquet file of the project."""

    schema: str
    """The schema file of `ondol data check`."""


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """An absolute bound on one score."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class GateSpec:
    """When a candidate may be registered as a release."""

    primary: str = ""
    """Loss compared in pairs with the champion; empty: log loss or absolute error."""

    margin: float = 0.0
    """A loss greater than the champion's by less than this is accepted."""

    level: float = 0.95
    """Confidence level of the interval."""

    min_samples: int = 200
    """Fewer held-out samples are not enough data."""

    rules: tuple[RuleSpec, ...] = ()
    """Absolute bounds beside the comparison."""


@dataclass(frozen=True, slots=True)
class MonitorSpec:
    """How what a model is asked is watched for drift."""

    window: int = 2000
    """Requests per look. Choose it so that a window covers what is normal: all hours, all weekdays."""

    alpha: float = 0.01
    """False discovery rate over all columns of one look."""

    effect: float = 0.1
    """Differences smaller than this share of the distribution do not matter, however certain."""

    reference: Literal["training", "last-good", "season"] = "training"
    """What a window is compared with: held-out rows of the release, its newest window without drift, or what was asked
    one `season` before."""

    season: str = ""
    """How long ago the same season was: `7d`, `365d`."""

    blocks: int = 20
    """Requests near in time are alike (the weather of a day, one customer's batch), so a window is cut into this many
    pieces in order, and whole pieces are what is tested. 1: requests are independent of each other."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One registered model: its pipeline, its evaluation, its gate."""

    pipeline: str
    """KFP file."""

    model: str
    """Pipeline output with the model: `task.output`."""

    evaluate: EvaluateSpec
    pipeline_name: str = ""
    """Which `@dsl.pipeline` of the file, when there are several."""

    parameters: Json = field(default_factory=dict)
    check: CheckSpec | None = None
    gate: GateSpec = field(default_factory=GateSpec)
    monitor: MonitorSpec = field(default_factory=MonitorSpec)
    rollout: JudgePolicy | None = None
    """How its candidates are tried, when not as the project's `rollout` says."""


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """One document index."""

    path: str
    """Folder or file with documents."""

    options: Json = field(default_factory=dict)
    """Chunking and embedding options."""


@dataclass(frozen=True, slots=True)
class QuestionsSpec:
    """How what an application is asked is watched for drift, by the meaning of the questions."""

    window: int = 500
    """Requests per look; 0: no watch."""

    alpha: float = 0.01
    """Probability of a false alarm of one look."""

    effect: float = 0.1
    """Smaller changes do not matter, however certain: how much better than chance old and new can be told apart."""

    blocks: int = 20
    """Consecutive pieces of a window that are tested as whole pieces; 1: questions are independent of each other."""

    reference: Literal["first", "last-good"] = "first"
    """What a window is compared with: the first one, or the newest without drift."""


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """One LLM application: what a release of it pins together."""

    llm: str = ""
    """`openai/gpt-4o-mini`, `ollama/…`, `gguf:PATH`, …; empty: the extractive reader."""

    base_url: str = ""
    """OpenAI-compatible endpoint, when it is not the provider's own."""

    prompt: str = ""
    index: str = ""
    guardrails: str = ""
    output: str = ""
    """`schemas.py:StructuredResponse`."""

    retrieval: Json = field(default_factory=dict)
    """`k`, `threshold`, `gate` …"""

    evaluation: str = ""
    """Suite that gates its releases."""

    monitor: QuestionsSpec = field(default_factory=QuestionsSpec)
    rollout: JudgePolicy | None = None
    """How its candidates are tried, when not as the project's `rollout` says."""


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """Money that may be spent."""

    scope: str
    """`application/NAME`, `model/NAME`, `user/NAME` or `all`."""

    limit: str
    """`20 USD`."""

    per: str = "day"
    """`hour`, `day`, `week`, `month` or `total`."""

    alert_at: tuple[float, ...] = (0.5, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class MonitoringSpec:
    """What is kept of the requests, and for how long."""

    sample: float = 1.0
    """Share of requests that are logged while no trial is on; errors always are."""

    features: bool = True
    """Whether what was asked is logged, too. Without it there is no drift to see."""

    scores: float = 0.0
    """Share of an application's answers that are scored as they are given: `faithfulness`, `answer_relevancy`."""

    recent: str = "1d"
    """How long requests stay in the database before they move to columnar files."""

    retention: str = "90d"
    """How long requests, their labels and signals are kept."""

    traces: str = "30d"
    """How long traces are kept."""

    snapshots: str = "90d"
    """How long an index snapshot is kept that no index and no release names."""


@dataclass(frozen=True, slots=True)
class RetrainSpec:
    """What starts a retraining."""

    on: tuple[str, ...] = ()
    """`drift`, `quality`, `data`, `change`, or a cron expression."""

    pipeline: str = ""
    """KFP file; empty: the model's own."""

    timezone: str = "UTC"
    """Of the cron expressions, such as `Asia/Seoul`."""

    data: tuple[str, ...] = ()
    """What `data` watches: files, folders, globs, or tables as `sqlite:///FILE#TABLE`, `postgresql://…#TABLE`."""

    debounce: str = "5s"
    """How long to wait for further signals, so that one retraining answers them all."""

    cool_down: str = "10m"
    """How long after one retraining the next one may begin; by hand at once."""

    attempts: int = 3
    """How often a walk that fails before its gate is begun."""

    back_off: str = "1m"
    """Wait before the second walk, doubled before each further one."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What a container image means on this machine: a local command, or a Python environment (`python` in the file)."""

    command: tuple[str, ...] = ()
    """The image's entrypoint here, run in the project's folder; empty: the container's own command runs in the
    environment that `packages` and `python` describe."""

    packages: tuple[str, ...] = ()
    """Requirements of the environment; none: the running one is taken as it is."""

    python: str = ""
    """Version of the environment's Python, `3.11`; empty: the running one's."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project: what exists, by name. It never repeats what the field's files say."""

    name: str
    pipelines: tuple[str, ...] = ()
    serving: tuple[str, ...] = ()
    prompts: str = ""
    guardrails: str = ""
    evaluations: tuple[str, ...] = ()
    models: dict[str, ModelSpec] = field(default_factory=dict)
    indexes: dict[str, IndexSpec] = field(default_factory=dict)
    applications: dict[str, ApplicationSpec] = field(default_factory=dict)
    llms: dict[str, Json] = field(default_factory=dict)
    """Providers of one's own: name to `{base_url, key: ${VARIABLE}, price, …}`; or one model, as `llm:` writes it, to
    its options."""

    prices: dict[str, Any] = field(default_factory=dict)
    """`provider/model` to `{input, output, cached}` in US dollars per million tokens, or `free`."""

    rollout: JudgePolicy = field(default_factory=JudgePolicy)
    budgets: tuple[BudgetSpec, ...] = ()
    alerts: tuple[AlertSpec, ...] = ()
    retrain: RetrainSpec = field(default_factory=RetrainSpec)
    monitoring: MonitoringSpec = field(default_factory=MonitoringSpec)
    safe: bool = False
    """Serve no model that has to be unpickled, and score none."""

    images: dict[str, ImageSpec] = field(default_factory=dict)
    """Patterns of container images (`*`, `?`, `[…]`) to what they mean here; the first that fits counts."""

    def policy(self, service: str) -> JudgePolicy:
        """Return how candidates of a model or application are tried."""
        own = self.models.get(service) or self.applications.get(service)
        return (own.rollout if own else None) or self.rollout

    def image(self, name: str, where: str = "") -> ImageSpec:
        """Return what a container image means on this machine.

        Docker Hub's long and short names of an image are the same, and a missing tag is `latest`.

        :param where: the file and field that names it.
        :raises UnsupportedError: UNS-340 when no rule fits; no image is ever pulled or guessed.
        """
        short = _short_image(name)
        for pattern, spec in self.images.items():
            if fnmatchcase(short, _short_image(pattern)):
                return spec
        raise errors.UnsupportedError(
            f"image {name!r} has no meaning on this machine: nothing is pulled, and no rule of ondol.yaml fits",
            where=where,
            way_out=f"Say what it is: images: {{{name!r}: python}}, or {{command: [./program]}}, or {{packages: […]}}.",
            code="UNS-340",
        )


def _short_image(name: str) -> str:
    short = name.removeprefix("docker.io/").removeprefix("library/")
    bare = ":" not in short.rpartition("/")[2] and not short.endswith("*")
    return f"{short}:latest" if bare and "@" not in short else short
