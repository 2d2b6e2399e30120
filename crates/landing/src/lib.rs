//! Landing places: the wire formats of other servers, so that their clients find here what they knew there. Knows no transport.
//!
//! In reading order: `nest` and `rows` (plain values into the inputs of a signature), [`instances`] (KServe's first protocol,
//! TensorFlow Serving), [`scoring`] (MLflow, SageMaker, CSV), [`generate`] (Triton's for text in, text out); [`text`] (models that read
//! text, and what is asked of them), [`embeddings`] (OpenAI), [`rerank`] (Cohere, Jina), [`tei`] (text-embeddings-inference).

pub mod embeddings;
pub mod generate;
pub mod instances;
mod nest;
pub mod rerank;
mod rows;
pub mod scoring;
pub mod tei;
pub mod text;
