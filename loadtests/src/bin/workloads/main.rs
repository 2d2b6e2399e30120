//! The workloads that the gateway is built for, each as ratios within one run: `workloads [batching|overload|many|neighbours]..`.

mod batching;
mod many;
mod neighbours;
mod overload;

use std::path::Path;
use std::process::ExitCode;

use sluicegate_loadtests::{machine, publish, table};

/// What one workload showed.
struct Section {
    title: &'static str,
    /// What was done, and what else was seen.
    text: String,
    /// Figure, wanted, measured.
    figures: Vec<[String; 3]>,
}

type Workload = fn() -> Section;

const WORKLOADS: [(&str, Workload); 4] =
    [("batching", batching::run), ("overload", overload::run), ("many", many::run), ("neighbours", neighbours::run)];

#[expect(clippy::print_stderr, reason = "a measurement says how far it is")]
fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|name| WORKLOADS.iter().all(|(known, _)| known != name)) {
        let known = WORKLOADS.map(|(name, _)| name).join(", ");
        eprintln!("error: no workload is called `{unknown}`; there are: {known}");
        return ExitCode::from(2);
    }
    let (mut rows, mut texts) = (Vec::new(), String::new());
    for (name, workload) in WORKLOADS.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|one| one == name)) {
        eprintln!("{name} ...");
        let Section { title, text, figures } = workload();
        rows.extend(figures.into_iter().map(|figure| [&[(*name).to_owned()], &figure[..]].concat()));
        texts += &format!("\n## {title}\n\n{text}\n");
    }
    let head = "Load generators run on the same machine. Rounds are interleaved; figures are medians with the smallest and the largest \
                round.";
    let summary = table(&["workload", "figure", "wanted", "measured"], &rows);
    let name = if asked.is_empty() { "workloads".to_owned() } else { format!("workloads-{}", asked.join("-")) };
    publish(&name, &format!("# The workloads\n\n{}. {head}\n\n{summary}{texts}", machine()));
    ExitCode::SUCCESS
}

/// The configuration of a gateway over these models, looked at as seldom as by default.
fn config(models: &Path, rest: &str) -> String {
    format!("registries: {{ local: {{ type: directory, path: '{}' }} }}\n{rest}", models.display())
}

/// One row of `width` zeros for the typed route.
fn row(width: usize) -> String {
    format!("{{\"x\":[{}]}}", vec!["0"; width].join(","))
}
