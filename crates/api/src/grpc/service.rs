//! The service as it is generated, answered by the rooms of this folder.

use sluicegate_extension::{logging, repository, trace};
use sluicegate_proto::inference as message;
use tonic::{Request, Response, Status, Streaming};

use super::{infer, models, status, stream};
use crate::http::Api;
use crate::http::answer::Head;

/// What the build makes of `inference.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
pub(super) mod inference {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

type Answered<T> = Result<Response<T>, Status>;

/// The answer of a step that may fail.
fn answered<T, A>(request: &Request<A>, outcome: sluicegate_core::Result<T>) -> Answered<T> {
    outcome.map(Response::new).map_err(|error| status::of(&error, &Head::of(request.metadata().as_ref()), None))
}

fn no_shared_memory<T, A>(request: &Request<A>) -> Answered<T> {
    answered(request, Err(sluicegate_extension::shared_memory()))
}

#[tonic::async_trait]
impl inference::grpc_inference_service_server::GrpcInferenceService for Api {
    async fn server_live(&self, _: Request<message::ServerLiveRequest>) -> Answered<message::ServerLiveResponse> {
        Ok(Response::new(message::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<message::ServerReadyRequest>) -> Answered<message::ServerReadyResponse> {
        Ok(Response::new(message::ServerReadyResponse { ready: (self.ready)() }))
    }

    async fn model_ready(&self, request: Request<message::ModelReadyRequest>) -> Answered<message::ModelReadyResponse> {
        Ok(Response::new(message::ModelReadyResponse { ready: models::is_ready(self, request.get_ref()) }))
    }

    async fn server_metadata(&self, _: Request<message::ServerMetadataRequest>) -> Answered<message::ServerMetadataResponse> {
        Ok(Response::new(models::server(self)))
    }

    async fn model_metadata(&self, request: Request<message::ModelMetadataRequest>) -> Answered<message::ModelMetadataResponse> {
        answered(&request, models::metadata(self, request.get_ref()).await)
    }

    /// Reached where the path is taken by no other: see [`super::Grpc::answer`].
    async fn model_infer(&self, request: Request<message::ModelInferRequest>) -> Answered<message::ModelInferResponse> {
        let (metadata, extensions, message) = request.into_parts();
        let asked = infer::Asked::of(self, metadata.as_ref(), &extensions);
        let answer = infer::run(self, None, &asked, message).await;
        let status = |error| status::of(&error, &asked.head, answer.live.as_deref());
        answer.outcome.map(|(message, _)| Response::new(message)).map_err(status)
    }

    type ModelStreamInferStream = stream::Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<message::ModelInferRequest>>,
    ) -> Answered<Self::ModelStreamInferStream> {
        Ok(Response::new(stream::answer(self.clone(), request)))
    }

    async fn model_config(&self, request: Request<message::ModelConfigRequest>) -> Answered<message::ModelConfigResponse> {
        answered(&request, models::config(self, request.get_ref()))
    }

    async fn model_statistics(
        &self,
        request: Request<message::ModelStatisticsRequest>,
    ) -> Answered<message::ModelStatisticsResponse> {
        answered(&request, models::statistics(self, request.get_ref()))
    }

    async fn repository_index(
        &self,
        request: Request<message::RepositoryIndexRequest>,
    ) -> Answered<message::RepositoryIndexResponse> {
        answered(&request, repository::index(&self.controls(), &self.status, request.get_ref().ready))
    }

    async fn repository_model_load(
        &self,
        request: Request<message::RepositoryModelLoadRequest>,
    ) -> Answered<message::RepositoryModelLoadResponse> {
        let loaded = repository::load(&self.controls(), request.get_ref().clone(), None).await;
        answered(&request, loaded.map(|_| message::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<message::RepositoryModelUnloadRequest>,
    ) -> Answered<message::RepositoryModelUnloadResponse> {
        let unloaded = repository::unload(&self.controls(), request.get_ref().clone(), None).await;
        answered(&request, unloaded.map(|()| message::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<message::SystemSharedMemoryStatusRequest>,
    ) -> Answered<message::SystemSharedMemoryStatusResponse> {
        no_shared_memory(&request)
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<message::SystemSharedMemoryRegisterRequest>,
    ) -> Answered<message::SystemSharedMemoryRegisterResponse> {
        no_shared_memory(&request)
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<message::SystemSharedMemoryUnregisterRequest>,
    ) -> Answered<message::SystemSharedMemoryUnregisterResponse> {
        no_shared_memory(&request)
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<message::CudaSharedMemoryStatusRequest>,
    ) -> Answered<message::CudaSharedMemoryStatusResponse> {
        no_shared_memory(&request)
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<message::CudaSharedMemoryRegisterRequest>,
    ) -> Answered<message::CudaSharedMemoryRegisterResponse> {
        no_shared_memory(&request)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        request: Request<message::CudaSharedMemoryUnregisterRequest>,
    ) -> Answered<message::CudaSharedMemoryUnregisterResponse> {
        no_shared_memory(&request)
    }

    async fn trace_setting(&self, request: Request<message::TraceSettingRequest>) -> Answered<message::TraceSettingResponse> {
        let asked = request.get_ref();
        let settings = if asked.settings.is_empty() {
            trace::settings(&self.gateway.published().load(), &asked.model_name)
        } else {
            Err(trace::refusal())
        };
        answered(&request, settings)
    }

    async fn log_settings(&self, request: Request<message::LogSettingsRequest>) -> Answered<message::LogSettingsResponse> {
        answered(&request, logging::change(&self.controls(), request.get_ref()))
    }
}
