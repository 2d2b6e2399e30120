//! A version's configuration in Triton's words, made from what serves.

use std::collections::BTreeMap;

use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Dim};
use sluicegate_proto::inference::model_config::SchedulingChoice;
use sluicegate_proto::inference::model_instance_group::Kind;
use sluicegate_proto::inference::model_version_policy::{All, Latest, PolicyChoice, Specific};
use sluicegate_proto::inference::{
    DataType, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput, ModelParameter, ModelQueuePolicy,
    ModelResponseCache, ModelTransactionPolicy, ModelVersionPolicy,
};
use sluicegate_registry::{Also, Live, Served, Want};

/// The configuration of a version: its `config.pbtxt` where it has one, completed by what serves, else that alone. `served` is
/// its model, which knows what versions are wanted.
pub fn of(live: &Live, served: Option<&Served>) -> ModelConfig {
    let made = made(live, served);
    let Some(said) = &live.config else { return made };
    let or = |said: &str, made: String| if said.is_empty() { made } else { said.to_owned() };
    ModelConfig {
        name: made.name,
        platform: or(&said.platform, made.platform),
        backend: if live.steps().is_some() { said.backend.clone() } else { or(&said.backend, made.backend) },
        version_policy: said.version_policy.clone().or(made.version_policy),
        input: if said.input.is_empty() { made.input } else { said.input.clone() },
        output: if said.output.is_empty() { made.output } else { said.output.clone() },
        instance_group: made.instance_group,
        default_model_filename: or(&said.default_model_filename, made.default_model_filename),
        scheduling_choice: said.scheduling_choice.clone().or(made.scheduling_choice),
        parameters: made.parameters.into_iter().chain(said.parameters.clone()).collect(),
        model_transaction_policy: made.model_transaction_policy,
        response_cache: made.response_cache,
        ..ModelConfig::clone(said)
    }
}

/// What serves, in Triton's words.
fn made(live: &Live, served: Option<&Served>) -> ModelConfig {
    let batched = live.signature.is_batched();
    let limits = &live.run.limits;
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let queue = ModelQueuePolicy {
        default_timeout_microseconds: micros(live.run.timeout),
        allow_timeout_override: true,
        ..ModelQueuePolicy::default()
    };
    let batching = ModelDynamicBatching {
        max_queue_delay_microseconds: micros(limits.max_delay),
        default_queue_policy: Some(queue),
        ..ModelDynamicBatching::default()
    };
    let kind = if live.device.starts_with("cpu") { Kind::Cpu } else { Kind::Gpu };
    let instances = live.batcher().map(|batcher| ModelInstanceGroup {
        name: format!("{}_0", live.model),
        kind: kind.into(),
        count: i32::try_from(batcher.instances()).unwrap_or(i32::MAX),
        ..ModelInstanceGroup::default()
    });
    let max_rows = i32::try_from(limits.max_rows).unwrap_or(i32::MAX);
    ModelConfig {
        name: live.model.to_string(),
        platform: if live.steps().is_some() { live.platform().to_owned() } else { format!("{}_onnx", live.engine) },
        backend: live.engine.to_owned(),
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(policy(live, served)) }),
        max_batch_size: if batched { max_rows } else { 0 },
        input: live.signature.inputs().iter().map(|spec| input(spec, batched)).collect(),
        output: live.signature.outputs().iter().map(|spec| output(spec, batched)).collect(),
        instance_group: instances.into_iter().collect(),
        default_model_filename: if live.steps().is_some() { String::new() } else { "model.onnx".into() },
        scheduling_choice: (batched && live.steps().is_none()).then_some(SchedulingChoice::DynamicBatching(batching)),
        parameters: parameters(live),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        response_cache: Some(ModelResponseCache { enable: live.cache.is_some() }),
        ..ModelConfig::default()
    }
}

fn policy(live: &Live, served: Option<&Served>) -> PolicyChoice {
    match served.and_then(|served| served.wanted.as_ref()) {
        Some((_, Also::All)) => PolicyChoice::All(All {}),
        Some((Want::Latest, Also::Newest(count))) => {
            PolicyChoice::Latest(Latest { num_versions: u32::try_from(*count).unwrap_or(u32::MAX) })
        }
        Some((Want::Latest, Also::Numbers(beside))) if beside.is_empty() => PolicyChoice::Latest(Latest { num_versions: 1 }),
        _ => {
            let numbers = served.into_iter().flat_map(|served| served.versions.keys().copied());
            let mut versions: Vec<u64> = numbers.chain([live.version]).collect();
            versions.sort_unstable();
            versions.dedup();
            PolicyChoice::Specific(Specific { versions: versions.into_iter().map(u64::cast_signed).collect() })
        }
    }
}

fn parameters(live: &Live) -> BTreeMap<String, ModelParameter> {
    let mut facts = vec![("digest", live.digest.to_string())];
    if let Some(batcher) = live.batcher() {
        let inline = batcher.setup().execution == sluicegate_batch::Execution::Inline;
        facts.push(("execution", if inline { "inline" } else { "threads" }.to_owned()));
        facts.push(("intra_op_thread_count", live.run.options.threads.to_string()));
    }
    facts.into_iter().map(|(key, value)| (key.to_owned(), ModelParameter { string_value: value })).collect()
}

fn input(spec: &TensorSpec, batched: bool) -> ModelInput {
    ModelInput {
        name: spec.name.to_string(),
        data_type: data_type(spec.dtype).into(),
        dims: dims(spec, batched),
        ..ModelInput::default()
    }
}

fn output(spec: &TensorSpec, batched: bool) -> ModelOutput {
    ModelOutput {
        name: spec.name.to_string(),
        data_type: data_type(spec.dtype).into(),
        dims: dims(spec, batched),
        ..ModelOutput::default()
    }
}

/// Without the batch's dimension; -1 is any size.
fn dims(spec: &TensorSpec, batched: bool) -> Vec<i64> {
    let size = |dim: &Dim| dim.fixed().map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
    spec.dims.iter().skip(usize::from(batched)).map(size).collect()
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::Bool => DataType::TypeBool,
        DType::Uint8 => DataType::TypeUint8,
        DType::Uint16 => DataType::TypeUint16,
        DType::Uint32 => DataType::TypeUint32,
        DType::Uint64 => DataType::TypeUint64,
        DType::Int8 => DataType::TypeInt8,
        DType::Int16 => DataType::TypeInt16,
        DType::Int32 => DataType::TypeInt32,
        DType::Int64 => DataType::TypeInt64,
        DType::Fp16 => DataType::TypeFp16,
        DType::Bf16 => DataType::TypeBf16,
        DType::Fp32 => DataType::TypeFp32,
        DType::Fp64 => DataType::TypeFp64,
        DType::Bytes => DataType::TypeString,
    }
}
