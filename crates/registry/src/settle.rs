//! Who wins where two say something of a model: its own entry, then its `config.pbtxt`, then what holds for all models.

use std::borrow::Cow;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use sluicegate_proto::inference::ModelConfig;
use sluicegate_proto::inference::model_queue_policy::TimeoutAction;
use sluicegate_proto::inference::model_version_policy::PolicyChoice;
use sluicegate_triton::settings::{MAX_ROWS, THREADS, batching, device, instances};

use crate::source::Found;
use crate::spec::{Also, Key, Priorities, Run, Spec, Want};

/// Room for answers where `response_cache` is enabled: it does not say how much.
pub const CACHE: NonZeroU64 = NonZeroU64::new(64 << 20).expect("64 MiB are not zero");

/// The bounds of the settings that a configuration may have too.
const MAX_QUEUE: usize = 16_777_216;
const MAX_INSTANCES: usize = 64;
const MAX_THREADS: usize = 256;
const MAX_TIME: Duration = Duration::from_secs(3600);

/// How a version runs: what is declared, and under it what its configuration says, on a machine of so many cores.
pub fn run(declared: &Run, config: &ModelConfig, cores: NonZeroUsize) -> Run {
    let mut run = declared.clone();
    let free = |key: Key| !declared.said.has(key);
    let above_zero = |number: usize, most: usize| (number > 0).then(|| number.min(most));
    if let Some(rows) = usize::try_from(config.max_batch_size).ok().and_then(|rows| above_zero(rows, MAX_ROWS))
        && free(Key::MaxRows)
    {
        run.limits.max_rows = rows;
    }
    if let Some(batching) = batching(config) {
        if free(Key::MaxDelay) {
            run.limits.max_delay = micros(batching.max_queue_delay_microseconds);
        }
        let sizes = batching.preferred_batch_size.iter().filter_map(|&size| usize::try_from(size).ok());
        run.preferred = sizes.filter(|&size| size <= run.limits.max_rows).collect();
        run.priorities = Priorities { levels: batching.priority_levels, default: batching.default_priority_level };
        if let Some(policy) = &batching.default_queue_policy {
            if let Some(rows) = above_zero(policy.max_queue_size as usize, MAX_QUEUE)
                && free(Key::QueueRows)
            {
                run.limits.queue_rows = rows;
            }
            let rejects = policy.timeout_action() == TimeoutAction::Reject;
            if policy.default_timeout_microseconds > 0 && rejects && free(Key::QueueTimeout) {
                run.timeout = micros(policy.default_timeout_microseconds);
            }
            run.own_timeout = policy.allow_timeout_override;
        }
    }
    let groups = &config.instance_group;
    let threads = config.parameters.get(THREADS).and_then(|threads| threads.string_value.parse().ok());
    if let Some(threads) = threads.and_then(|threads| NonZeroUsize::new(threads).map(|threads| threads.min(cores)))
        && free(Key::Threads)
    {
        run.options.threads = threads.min(NonZeroUsize::new(MAX_THREADS).unwrap_or(threads));
    }
    if let Some(count) = above_zero(instances(groups), MAX_INSTANCES).and_then(NonZeroUsize::new)
        && free(Key::Instances)
    {
        run.options.instances = count;
        run.options.auto_instances = false;
    }
    if let Some(device) = device(groups)
        && free(Key::Device)
    {
        run.options.device = device;
    }
    if config.response_cache.is_some_and(|cache| cache.enable) && free(Key::Cache) {
        run.cache = Some(CACHE);
    }
    run
}

/// Which versions serve: what is declared, and under it what the configuration says. Where that is broken, what serves goes on.
pub fn versions<'a>(spec: &'a Spec, found: &[Found], default: Option<u64>) -> Cow<'a, Spec> {
    let Some(config) = found.iter().rev().find_map(|found| found.config.as_ref()) else { return Cow::Borrowed(spec) };
    let Ok(config) = config else {
        let version = default.filter(|_| spec.version == Want::Latest).map_or_else(|| spec.version.clone(), Want::Number);
        return Cow::Owned(Spec { version, also: Also::All, ..spec.clone() });
    };
    let (version, also) = policy(&config.model);
    let is_said = spec.also != Also::Numbers(Vec::new());
    Cow::Owned(Spec {
        version: if spec.version == Want::Latest { version } else { spec.version.clone() },
        also: if is_said { spec.also.clone() } else { also },
        ..spec.clone()
    })
}

/// `version_policy`; without one the newest alone.
fn policy(config: &ModelConfig) -> (Want, Also) {
    match config.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref()) {
        Some(PolicyChoice::All(_)) => (Want::Latest, Also::All),
        Some(PolicyChoice::Specific(specific)) => {
            let versions: Vec<u64> = specific.versions.iter().filter_map(|&version| u64::try_from(version).ok()).collect();
            (Want::LatestOf(versions.clone()), Also::Numbers(versions))
        }
        Some(PolicyChoice::Latest(latest)) if latest.num_versions > 1 => {
            (Want::Latest, Also::Newest(latest.num_versions as usize))
        }
        Some(PolicyChoice::Latest(_)) | None => (Want::Latest, Also::Numbers(Vec::new())),
    }
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros).min(MAX_TIME)
}

#[cfg(test)]
mod tests {
    use sluicegate_batch::{Execution, Limits};
    use sluicegate_engine::{Device, Gpus, Options};
    use sluicegate_proto::config::from_text;

    use super::*;
    use crate::spec::Said;

    fn declared(said: &[Key]) -> Run {
        Run {
            options: Options { auto_instances: true, ..Options::default() },
            limits: Limits { max_rows: 64, max_delay: Duration::ZERO, queue_rows: 4096 },
            preferred: Vec::new(),
            priorities: Priorities::default(),
            execution: Execution::Auto,
            timeout: Duration::from_secs(10),
            own_timeout: true,
            cache: None,
            allow_signature_change: false,
            said: Said::default().and(said.iter().copied()),
        }
    }

    fn settled(said: &[Key], text: &str) -> Run {
        let config = from_text(text).expect("a configuration");
        sluicegate_triton::settings::check(&config, &mut Vec::new()).expect("a good one");
        run(&declared(said), &config, NonZeroUsize::new(4).expect("four"))
    }

    const FULL: &str = r#"
        max_batch_size: 16
        dynamic_batching {
          preferred_batch_size: [ 4, 16 ] max_queue_delay_microseconds: 500 priority_levels: 3 default_priority_level: 2
          default_queue_policy { max_queue_size: 100 default_timeout_microseconds: 2000000 }
        }
        instance_group [ { count: 2 kind: KIND_GPU gpus: [ 1 ] }, { count: 1 kind: KIND_GPU gpus: [ 1 ] } ]
        parameters { key: "intra_op_thread_count" value: { string_value: "8" } }
        response_cache { enable: true }
    "#;

    #[test]
    fn a_group_has_as_many_instances_on_each_of_its_gpus() {
        let text = "instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 3 ] }, { count: 1 kind: KIND_GPU gpus: [ 1 ] } ]";
        let Options { instances, device, .. } = settled(&[], text).options;
        assert_eq!((instances.get(), &*device.to_string()), (5, "cuda:0,1,3"));
        let Options { instances, device, .. } =
            settled(&[], "instance_group [ { count: 2 kind: KIND_CPU gpus: [ 0, 3 ] } ]").options;
        assert_eq!((instances.get(), device), (2, Device::Cpu));
    }

    #[test]
    fn a_configuration_wins_over_what_holds_for_all_models() {
        let (run, gpus) = (settled(&[], FULL), Gpus::new([1]).expect("one"));
        assert_eq!(run.limits, Limits { max_rows: 16, max_delay: Duration::from_micros(500), queue_rows: 100 });
        assert_eq!((run.options.instances.get(), run.options.threads.get(), run.options.device), (3, 4, Device::Cuda(gpus)));
        assert_eq!((run.preferred, run.timeout, run.own_timeout), (vec![4, 16], Duration::from_secs(2), false));
        assert_eq!((run.cache, run.options.auto_instances), (Some(CACHE), false));
        assert_eq!([0, 1, 3, 4].map(|asked| run.priorities.of(asked)), [2, 1, 3, 2]);
        assert_eq!(settled(&[], ""), declared(&[]), "what it does not say stays");
    }

    #[test]
    fn what_an_entry_says_itself_wins_over_its_configuration_each_by_itself() {
        let (declared, free) = (declared(&[]), settled(&[], FULL));
        for (key, kept) in [
            (Key::MaxRows, Run { limits: Limits { max_rows: 64, ..free.limits }, ..free.clone() }),
            (Key::MaxDelay, Run { limits: Limits { max_delay: Duration::ZERO, ..free.limits }, ..free.clone() }),
            (Key::QueueRows, Run { limits: Limits { queue_rows: 4096, ..free.limits }, ..free.clone() }),
            (Key::QueueTimeout, Run { timeout: declared.timeout, ..free.clone() }),
            (Key::Cache, Run { cache: None, ..free.clone() }),
            (Key::Device, Run { options: Options { device: Device::Auto, ..free.options.clone() }, ..free.clone() }),
            (Key::Threads, Run { options: Options { threads: NonZeroUsize::MIN, ..free.options.clone() }, ..free.clone() }),
        ] {
            assert_eq!(settled(&[key], FULL), Run { said: Said::default().and([key]), ..kept }, "{key:?}");
        }
        let instances = settled(&[Key::Instances], FULL);
        assert!(instances.options.auto_instances && instances.options.instances.get() == 1);
    }

    #[test]
    fn preferred_sizes_above_what_the_entry_allows_are_left_out() {
        let mut run = declared(&[Key::MaxRows]);
        run.limits.max_rows = 8;
        let config = from_text(FULL).expect("a configuration");
        assert_eq!(super::run(&run, &config, NonZeroUsize::MIN).preferred, [4]);
    }

    #[test]
    fn version_policies_are_those_that_are_declared() {
        for (text, expected) in [
            ("", (Want::Latest, Also::Numbers(vec![]))),
            ("version_policy { latest { num_versions: 1 } }", (Want::Latest, Also::Numbers(vec![]))),
            ("version_policy { latest { num_versions: 2 } }", (Want::Latest, Also::Newest(2))),
            ("version_policy { all { } }", (Want::Latest, Also::All)),
            ("version_policy { specific { versions: [ 1, 3 ] } }", (Want::LatestOf(vec![1, 3]), Also::Numbers(vec![1, 3]))),
        ] {
            assert_eq!(policy(&from_text(text).expect("a policy")), expected, "{text}");
        }
    }
}
