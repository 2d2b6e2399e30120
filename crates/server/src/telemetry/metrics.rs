//! The metrics of `sluicegate_core::metric`, collected in this process and printed as Prometheus reads them.

use std::fmt::Write;
use std::time::Duration;

use metrics::Recorder;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use sluicegate_core::metric::{self, Type};
use sluicegate_core::{Code, Error, Result};

use super::{gpu, process};

/// How often observations are sorted into their buckets, so that memory stays small between two scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of this process.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Starts to collect. Handles that were looked up before count nothing.
    ///
    /// # Errors
    /// [`Code::Internal`] when something collects already.
    pub fn install() -> Result<Self> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        let installed = metrics::set_global_recorder(recorder);
        installed.map_err(|error| Error::new(Code::Internal, format!("metrics cannot be collected: {error}")))?;
        Ok(Self(handle))
    }

    /// Every metric, with those of the process, the build and the GPUs read now. It reads files of `/proc` and asks the driver.
    pub fn render(&self) -> String {
        let mut text = self.0.render();
        process::render(&mut text);
        gpu::render(&mut text);
        text
    }

    /// Keeps the memory of histograms small. It never ends: spawn it, and abort it with the process.
    pub async fn upkeep(self) {
        let mut clock = tokio::time::interval(UPKEEP);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// A page of Prometheus' text as OpenMetrics has it: counters are named without their ending in what is said of them, bounds are
/// written in one way alone, nothing is empty, and there is an end.
pub fn openmetrics(text: &str) -> String {
    let mut page = String::with_capacity(text.len() + 16);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut words = line.splitn(4, ' ');
        if let (Some("#"), Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next(), words.next()) {
            let _ = writeln!(page, "# {what} {} {rest}", name.strip_suffix("_total").unwrap_or(name));
            continue;
        }
        let bound = line.find(",le=\"").and_then(|at| Some((at + 5, line[at + 5..].find('"')? + at + 5)));
        match bound {
            Some((from, to)) => {
                let _ = writeln!(page, "{}{}{}", &line[..from], canonical(&line[from..to]), &line[to..]);
            }
            None => {
                let _ = writeln!(page, "{line}");
            }
        }
    }
    page.push_str("# EOF\n");
    page
}

/// A bound as Go writes it, with at least one digit behind the point.
fn canonical(bound: &str) -> String {
    match bound.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 && number < 1e-4 => format!("{number:e}").replace("e-", "e-0"),
        Ok(number) if number.is_finite() => format!("{number:?}"),
        _ => bound.to_owned(),
    }
}

/// A recorder that knows every metric's help and every histogram's buckets.
fn recorder() -> Result<PrometheusRecorder> {
    let buckets = |builder: PrometheusBuilder, suffix: &str, bounds| {
        builder
            .set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)
            .map_err(|error| Error::new(Code::Internal, format!("the buckets of `{suffix}` cannot be set: {error}")))
    };
    let builder = buckets(PrometheusBuilder::new(), "_seconds", metric::SECONDS)?;
    let recorder = buckets(builder, "_rows", metric::ROWS)?.build_recorder();
    for metric in metric::ALL {
        let (name, help) = (metric.name.into(), metric.help.into());
        match metric.kind {
            Type::Counter => recorder.describe_counter(name, None, help),
            Type::Gauge => recorder.describe_gauge(name, None, help),
            Type::Histogram => recorder.describe_histogram(name, None, help),
        }
    }
    Ok(recorder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets_and_everything_has_its_help() {
        let recorder = recorder().expect("buckets");
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!(metric::LOAD_SECONDS, "model" => "fraud").record(0.003);
            metrics::counter!(metric::SWAPS, "model" => "fraud").increment(1);
            metrics::gauge!(metric::READY).set(1.0);
        });
        let text = Metrics(recorder.handle()).render();
        for line in [
            "# HELP sluicegate_swaps_total Times that the default version of a model changed while it served.",
            "# TYPE sluicegate_load_seconds histogram",
            r#"sluicegate_swaps_total{model="fraud"} 1"#,
            r#"sluicegate_load_seconds_bucket{model="fraud",le="0.0025"} 0"#,
            r#"sluicegate_load_seconds_bucket{model="fraud",le="0.005"} 1"#,
            "sluicegate_ready 1",
        ] {
            assert!(text.lines().any(|got| got == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("quantile"), "a summary cannot be added up over replicas: {text}");
    }

    #[test]
    fn openmetrics_is_the_same_written_otherwise() {
        let text = "# HELP a_total A total.\n# TYPE a_total counter\na_total{m=\"x\"} 1\n\n# TYPE b_seconds histogram\n\
                    b_seconds_bucket{m=\"x\",le=\"0.00001\"} 0 # {t=\"1\"} 2\nb_seconds_bucket{m=\"x\",le=\"10\"} 1\n\
                    b_seconds_bucket{m=\"x\",le=\"0.00025\"} 1\nb_seconds_bucket{m=\"x\",le=\"+Inf\"} 1\n";
        let expected = "# HELP a A total.\n# TYPE a counter\na_total{m=\"x\"} 1\n# TYPE b_seconds histogram\n\
                        b_seconds_bucket{m=\"x\",le=\"1e-05\"} 0 # {t=\"1\"} 2\nb_seconds_bucket{m=\"x\",le=\"10.0\"} 1\n\
                        b_seconds_bucket{m=\"x\",le=\"0.00025\"} 1\nb_seconds_bucket{m=\"x\",le=\"+Inf\"} 1\n# EOF\n";
        assert_eq!(openmetrics(text), expected);
    }

    #[test]
    fn every_histogram_has_buckets_by_its_name() {
        for metric in metric::ALL.iter().filter(|metric| metric.kind == Type::Histogram) {
            assert!(metric.name.ends_with("_seconds") || metric.name.ends_with("_rows"), "{}", metric.name);
        }
    }
}
