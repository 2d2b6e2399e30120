//! What is served, and whether it is ready.

use std::collections::BTreeMap;

use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{Dim, Result};
use sluicegate_proto::inference::model_metadata_response::TensorMetadata;
use sluicegate_proto::inference::{
    ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelStatisticsRequest, ModelStatisticsResponse, ServerMetadataResponse,
};

use super::infer::target;
use crate::http::{Api, models};

pub(super) fn server(api: &Api) -> ServerMetadataResponse {
    let extensions = sluicegate_extension::served(api.protocols.control).into_iter().map(str::to_owned).collect();
    ServerMetadataResponse { name: models::SERVER.to_owned(), version: api.version.to_owned(), extensions }
}

/// Whether it would answer. One that is not there would not, which is an answer.
pub(super) fn is_ready(api: &Api, asked: &ModelReadyRequest) -> bool {
    let table = api.gateway.published().load();
    target(&asked.name, &asked.version).and_then(|target| table.would_answer(&target)).is_ok()
}

pub(super) async fn metadata(api: &Api, asked: &ModelMetadataRequest) -> Result<ModelMetadataResponse> {
    let target = target(&asked.name, &asked.version)?;
    api.gateway.wake(&target).await?;
    let table = api.gateway.published().load();
    let live = table.find(target.model, target.version.as_ref())?;
    let versions = table.models.get(target.model).into_iter().flat_map(|served| served.versions.keys());
    Ok(ModelMetadataResponse {
        name: live.model.as_str().to_owned(),
        versions: versions.map(u64::to_string).collect(),
        platform: live.platform().to_owned(),
        inputs: live.signature.inputs().iter().map(tensor).collect(),
        outputs: live.signature.outputs().iter().map(tensor).collect(),
        properties: models::properties(live).into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<BTreeMap<_, _>>(),
    })
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    let size = |dim: &Dim| dim.fixed().map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
    let (name, datatype) = (spec.name.as_ref().to_owned(), spec.dtype.name().to_owned());
    TensorMetadata { name, datatype, shape: spec.dims.iter().map(size).collect() }
}

pub(super) fn config(api: &Api, asked: &ModelConfigRequest) -> Result<ModelConfigResponse> {
    let table = api.gateway.published().load();
    let target = target(&asked.name, &asked.version)?;
    let live = table.find(target.model, target.version.as_ref())?;
    Ok(ModelConfigResponse { config: Some(sluicegate_extension::config::of(live, table.models.get(target.model))) })
}

/// Of all models where none is named.
pub(super) fn statistics(api: &Api, asked: &ModelStatisticsRequest) -> Result<ModelStatisticsResponse> {
    let target = target(&asked.name, &asked.version)?;
    let model = (!target.model.is_empty()).then_some(target.model);
    sluicegate_extension::statistics::of(&api.gateway.published().load(), model, target.version.as_ref())
}
