//! `ModelStreamInfer`: messages of one stream are run side by side, and answered in their order.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use http::HeaderMap;
use sluicegate_proto::inference::infer_parameter::ParameterChoice;
use sluicegate_proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use tonic::{Request, Status, Streaming};

use super::infer::{self, Asked};
use super::status;
use crate::http::Api;

/// Messages of one stream that are under way at once; further ones are not read before.
const UNDER_WAY: usize = 64;

/// Whether an error ends the stream with a status; without it, it is told in a message, and the stream goes on.
const AS_STATUS: &str = "triton_grpc_error";

/// Says that no further answer to the same request follows.
const FINAL: &str = "triton_final_response";

/// The answers of a stream.
pub type Answers = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

/// Answers a stream.
pub(super) fn answer(api: Api, request: Request<Streaming<ModelInferRequest>>) -> Answers {
    let (metadata, extensions, messages) = request.into_parts();
    let headers: HeaderMap = metadata.into_headers();
    let as_status = headers.get(AS_STATUS).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let answers = messages
        .map(move |message| one(api.clone(), Asked::of(&api, &headers, &extensions), message, as_status))
        .buffered(UNDER_WAY);
    // Nothing follows a status.
    let mut ended = false;
    Box::pin(answers.take_while(move |answer| {
        let go_on = !ended;
        ended = answer.is_err();
        std::future::ready(go_on)
    }))
}

async fn one(
    api: Api,
    mut asked: Asked,
    message: Result<ModelInferRequest, Status>,
    as_status: bool,
) -> Result<ModelStreamInferResponse, Status> {
    let message = message?;
    asked.trace = asked.trace.map(|stream| stream.part());
    let (id, model_name) = (message.id.clone(), message.model_name.clone());
    let answer = infer::run(&api, None, &asked, message).await;
    match answer.outcome {
        Ok((mut response, _)) => {
            let is_final = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
            response.parameters.insert(FINAL.to_owned(), is_final);
            Ok(ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) })
        }
        Err(error) => {
            let status = status::of(&error, &asked.head, answer.live.as_deref());
            if as_status {
                return Err(status);
            }
            // Which request it was, for callers with several under way.
            let response = ModelInferResponse { id, model_name, ..ModelInferResponse::default() };
            Ok(ModelStreamInferResponse { error_message: status.message().to_owned(), infer_response: Some(response) })
        }
    }
}
