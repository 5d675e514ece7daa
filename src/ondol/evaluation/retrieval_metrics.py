"""Metrics of what a search found, against gold documents: recall@k, MRR, nDCG@k (Järvelin & Kekäläinen 2002).

Must not search.
"""

from __future__ import annotations

import math
import re

from ondol.evaluation import text_metrics
from ondol.records.evaluation import EvalSample, MetricValue

_NAME = re.compile(r"(recall|ndcg)@([1-9]\d*)|mrr")


def is_retrieval_metric(name: str) -> bool:
    """Tell whether a metric's name is one of this module's: `recall@5`, `ndcg@10`, `mrr`."""
    return bool(_NAME.fullmatch(name))


def measure(name: str, sample: EvalSample) -> MetricValue:
    """Score what was retrieved for one sample; it does not apply to a sample without gold documents."""
    if not sample.gold:
        return MetricValue(name, None, "no gold document")
    contexts = sample.contexts or ("",) * len(sample.documents)
    retrieved = list(zip(sample.documents, contexts, strict=False))
    ranks = [
        next(
            (rank for rank, pair in enumerate(retrieved, 1) if any(text_metrics.matches(one, *pair) for one in group)),
            0,
        )
        for group in sample.gold
    ]
    found = sorted(rank for rank in ranks if rank)
    reason = f"gold at rank {', '.join(map(str, found))}" if found else "no gold document was retrieved"
    kind, _, k = name.partition("@")
    if kind == "mrr":
        return MetricValue(name, 1 / found[0] if found else 0.0, reason)
    limit = int(k)
    if kind == "recall":
        return MetricValue(name, sum(0 < rank <= limit for rank in ranks) / len(ranks), reason)
    gained = sum(1 / math.log2(rank + 1) for rank in set(found) if rank <= limit)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(limit, len(ranks)) + 1))
    return MetricValue(name, gained / ideal, reason)
