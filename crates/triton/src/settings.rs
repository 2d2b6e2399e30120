//! What a configuration says of batches, instances and versions: whether that can be, and what of it has no effect.

use sluicegate_core::Result;
use sluicegate_engine::{Device, Gpus};
use sluicegate_proto::inference::model_config::SchedulingChoice;
use sluicegate_proto::inference::model_instance_group::Kind;
use sluicegate_proto::inference::model_queue_policy::TimeoutAction;
use sluicegate_proto::inference::model_version_policy::PolicyChoice;
use sluicegate_proto::inference::{ModelConfig, ModelDynamicBatching, ModelInstanceGroup};

use super::bad;

/// The most rows of a run.
pub const MAX_ROWS: usize = 65_536;

/// The parameter of the backend that is read.
pub const THREADS: &str = "intra_op_thread_count";

/// Levels of priority that are told apart.
const LEVELS: u64 = sluicegate_batch::policy::LEVELS as u64;

/// Checks what a configuration says of batches, instances and versions, and adds what has no effect.
///
/// # Errors
/// [`Code::BadManifest`](sluicegate_core::Code::BadManifest) where it contradicts itself.
pub fn check(config: &ModelConfig, remarks: &mut Vec<String>) -> Result<()> {
    let max = usize::try_from(config.max_batch_size)
        .map_err(|_| bad(format!("max_batch_size: expected 0 or more, got {}", config.max_batch_size)))?;
    if max > MAX_ROWS {
        remarks.push(format!("max_batch_size: a run has at most {MAX_ROWS} rows, got {max}"));
    }
    if let Some(batching) = batching(config) {
        let fits = |&size: &i32| usize::try_from(size).is_ok_and(|size| (1..=max.min(MAX_ROWS)).contains(&size));
        if let Some(size) = batching.preferred_batch_size.iter().find(|size| !fits(size)) {
            return Err(bad(format!(
                "dynamic_batching.preferred_batch_size: expected 1 to max_batch_size, which is {max}, got {size}"
            )));
        }
        let (levels, default) = (batching.priority_levels, batching.default_priority_level);
        if levels > 0 && !(1..=levels).contains(&default) {
            return Err(bad(format!("dynamic_batching.default_priority_level: expected 1 to {levels}, got {default}")));
        }
        if levels > LEVELS {
            remarks.push(format!(
                "dynamic_batching.priority_levels: {LEVELS} are told apart, got {levels}; the rest share the last"
            ));
        }
        if batching.default_queue_policy.as_ref().is_some_and(|policy| policy.timeout_action() == TimeoutAction::Delay) {
            remarks.push(
                "dynamic_batching.default_queue_policy.timeout_action: a request whose time is up keeps its place, until queue_timeout"
                    .to_owned(),
            );
        }
    }
    for sample in config.model_warmup.iter().filter(|sample| sample.batch_size == 0) {
        remarks.push(format!("model_warmup `{}` is not run: its batch_size is 0", sample.name));
    }
    let groups = &config.instance_group;
    if let Some(group) = groups.iter().find(|group| group.count < 0 || group.gpus.iter().any(|&gpu| gpu < 0)) {
        return Err(bad(format!(
            "instance_group: expected counts and gpus of 0 or more, got {} and {:?}",
            group.count, group.gpus
        )));
    }
    if let Some(group) = groups.iter().find(|group| group.gpus.iter().any(|&gpu| gpu.cast_unsigned() >= Gpus::MOST)) {
        return Err(bad(format!("instance_group.gpus: expected numbers below {}, got {:?}", Gpus::MOST, group.gpus)));
    }
    if let Some(device) = device(groups).filter(|device| {
        let kind = std::mem::discriminant(device);
        groups.iter().filter_map(of_group).any(|other| std::mem::discriminant(&other) != kind)
    }) {
        remarks.push(format!("instance_group: a version runs on one kind of device, here {device}; set device for another one"));
    }
    if let Some(threads) = config.parameters.get(THREADS)
        && threads.string_value.parse::<usize>().is_err()
    {
        return Err(bad(format!("parameters[{THREADS}]: expected a whole number, got `{}`", threads.string_value)));
    }
    match config.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref()) {
        Some(PolicyChoice::Latest(latest)) if latest.num_versions == 0 => {
            Err(bad("version_policy.latest.num_versions: expected 1 or more, got 0"))
        }
        Some(PolicyChoice::Specific(specific)) if !specific.versions.iter().all(|&version| version > 0) => {
            Err(bad(format!("version_policy.specific.versions: expected numbers from 1, got {:?}", specific.versions)))
        }
        _ => Ok(()),
    }
}

/// How it batches, where it says so.
pub fn batching(config: &ModelConfig) -> Option<&ModelDynamicBatching> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => Some(batching),
        _ => None,
    }
}

/// Where instances run: the GPUs of all groups where all are of GPUs, else where the first group says.
pub fn device(groups: &[ModelInstanceGroup]) -> Option<Device> {
    let devices = || groups.iter().filter_map(of_group);
    let of_gpus = |device| if let Device::Cuda(gpus) = device { Some(gpus) } else { None };
    let all: Option<Vec<Gpus>> = devices().map(of_gpus).collect();
    all.and_then(|all| Gpus::new(all.into_iter().flat_map(Gpus::numbers))).map(Device::Cuda).or(devices().next())
}

/// How many instances there are: as many as a group says, on each of its GPUs.
pub fn instances(groups: &[ModelInstanceGroup]) -> usize {
    let of = |group: &ModelInstanceGroup| {
        let devices = if let Some(Device::Cuda(gpus)) = of_group(group) { gpus.count() } else { 1 };
        usize::try_from(group.count).unwrap_or(0).saturating_mul(devices)
    };
    groups.iter().map(of).fold(0, usize::saturating_add)
}

fn of_group(group: &ModelInstanceGroup) -> Option<Device> {
    let gpus: Vec<u32> = group.gpus.iter().filter_map(|&gpu| u32::try_from(gpu).ok()).collect();
    match group.kind() {
        Kind::Cpu => Some(Device::Cpu),
        Kind::Model => Some(Device::Auto),
        Kind::Auto if gpus.is_empty() => Some(Device::Auto),
        Kind::Gpu if gpus.is_empty() => Some(Device::Cuda(Gpus::FIRST)),
        Kind::Auto | Kind::Gpu => Gpus::new(gpus).map(Device::Cuda),
    }
}
