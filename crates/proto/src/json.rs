//! A message as JSON, with the names of its fields as the protobuf files have them.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::DESCRIPTORS;

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok());

/// Writes the JSON of a message of the protocol, `name` being that in its package. What has its default is there too, and
/// 64-bit numbers are numbers: clients read both so, without asking.
///
/// # Errors
/// Where there is no such message.
pub fn whole<M: Message>(name: &str, message: &M) -> Result<serde_json::Value, String> {
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&format!("inference.{name}")));
    let descriptor = descriptor.ok_or_else(|| format!("the descriptors of this build have no message {name}"))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false).skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::{InferStatistics, ModelStatistics, ModelStatisticsResponse, StatisticDuration};

    #[test]
    fn what_is_zero_is_there_as_a_number() {
        let duration = || Some(StatisticDuration::default());
        let stats = InferStatistics { success: duration(), fail: duration(), ..InferStatistics::default() };
        let model = ModelStatistics { name: "m".into(), inference_stats: Some(stats), ..ModelStatistics::default() };
        let json = whole("ModelStatisticsResponse", &ModelStatisticsResponse { model_stats: vec![model] }).expect("a message");
        let model = &json["model_stats"][0];
        assert_eq!(model["inference_stats"]["fail"], serde_json::json!({ "count": 0, "ns": 0 }));
        assert_eq!((&model["last_inference"], &model["batch_stats"]), (&0.into(), &serde_json::json!([])));
        assert_eq!(model["response_stats"], serde_json::json!({}));
        assert!(whole("Nothing", &StatisticDuration::default()).is_err());
    }
}
