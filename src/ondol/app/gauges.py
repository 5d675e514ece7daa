"""What Prometheus reads of the data plane beside its requests: queues, processes, logs, events.

Must not keep numbers of its own: each is asked of whoever has it.
"""

from __future__ import annotations

from ondol.api.kserve.exchange import Context
from ondol.api.kserve.payload_events import PayloadEvents
from ondol.serving.metrics import Labels
from ondol.serving.models import Models


def add(context: Context, models: Models, events: PayloadEvents) -> None:
    """Add the gauges to the metrics of the data plane."""
    gauge, request_log, fleet = context.metrics.gauge, context.request_log, models.fleet
    gauge("ondol_queue_rows", "Rows queued or in a model.", lambda: _queues(models))
    gauge("ondol_payload_events_waiting", "CloudEvents not sent yet.", lambda: [((), events.waiting)])
    gauge("ondol_payload_events_delivered_total", "CloudEvents sent.", lambda: [((), events.delivered)])
    gauge("ondol_payload_events_lost_total", "CloudEvents given up.", lambda: [((), events.lost)])
    gauge("ondol_processes", "Processes that serve.", lambda: fleet.measured(lambda pool: len(pool.ready)))
    gauge("ondol_processes_waiting", "Requests without a process.", lambda: fleet.measured(lambda pool: pool.waiting))
    gauge("ondol_process_restarts_total", "Processes ended.", lambda: fleet.measured(lambda pool: pool.restarts))
    gauge("ondol_observations_waiting", "Observations not written yet.", lambda: [((), request_log.waiting)])
    gauge("ondol_observations_dropped_total", "Observations lost.", lambda: [((), request_log.dropped)])
    gauge("ondol_mirror_dropped_total", "Copies for a candidate not made.", lambda: [((), context.mirror.dropped)])
    gauge("ondol_observations_sampled_out_total", "Anonymous requests not logged.", lambda: [((), context.sampled_out)])


def _queues(models: Models) -> list[tuple[Labels, float]]:
    return [
        ((("service", name), ("release", model.version)), model.batcher.waiting_rows)
        for name, serving in sorted(models.serving.items())
        for model in serving.models
    ]
