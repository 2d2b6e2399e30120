//! What a version has done since it went live, in Triton's words. Every key is there, as clients read them without asking.

use std::collections::BTreeMap;
use std::time::SystemTime;

use sluicegate_batch::Batcher;
use sluicegate_core::meter::Total;
use sluicegate_core::{Result, VersionRef};
use sluicegate_proto::inference::{
    InferBatchStatistics, InferStatistics, ModelStatistics, ModelStatisticsResponse, StatisticDuration,
};
use sluicegate_registry::{Live, Table};

/// The statistics of one version, of all live versions of a model, or of all models.
///
/// # Errors
/// Those of [`Table::find`] where a version is named, and [`UnknownModel`](sluicegate_core::Code::UnknownModel).
pub fn of(table: &Table, model: Option<&str>, version: Option<&VersionRef>) -> Result<ModelStatisticsResponse> {
    let live = match (model, version) {
        (None, _) => table.live(),
        (Some(model), Some(_)) => vec![table.find(model, version)?],
        (Some(model), None) => match table.models.get(model) {
            Some(served) => served.versions.values().collect(),
            None => vec![table.find(model, None)?],
        },
    };
    Ok(ModelStatisticsResponse { model_stats: live.into_iter().map(|live| one(live)).collect() })
}

fn one(live: &Live) -> ModelStatistics {
    let (meter, totals) = (&live.meter, live.batcher().map(Batcher::totals).unwrap_or_default());
    let (success, fail) = (meter.succeeded(), meter.failures());
    // Also those that did not wait: clients tell by this count which version was asked.
    let queue = Total { count: success.count + fail.count, ns: meter.queue.total().ns };
    let stats = InferStatistics {
        success: duration(success),
        fail: duration(fail),
        queue: duration(queue),
        compute_input: duration(meter.decode.total()),
        compute_infer: duration(meter.compute.total()),
        compute_output: duration(meter.encode.total()),
        cache_hit: duration(meter.cache.hits()),
        cache_miss: duration(meter.cache.misses()),
    };
    let batch = |(rows, total): (&usize, &Total)| InferBatchStatistics {
        batch_size: *rows as u64,
        // Joining and cutting are a part of the run.
        compute_input: duration(Total { count: total.count, ns: 0 }),
        compute_infer: duration(*total),
        compute_output: duration(Total { count: total.count, ns: 0 }),
    };
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    ModelStatistics {
        name: live.model.to_string(),
        version: live.version.to_string(),
        last_inference: totals.last.map_or(0, |last| u64::try_from(since(last)).unwrap_or(u64::MAX)),
        inference_count: totals.rows,
        execution_count: totals.runs,
        inference_stats: Some(stats),
        batch_stats: totals.sizes.iter().map(batch).collect(),
        // What a version takes is not known: engines share memory and do not say.
        memory_usage: Vec::new(),
        response_stats: BTreeMap::new(),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the messages have it")]
fn duration(Total { count, ns }: Total) -> Option<StatisticDuration> {
    Some(StatisticDuration { count, ns })
}
