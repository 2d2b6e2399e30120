//! What happens before traffic: a version is looked at closely while nobody is served by it.
//!
//! In reading order: [`subject`] (which version is meant, and how it would be run), [`tune`] (which batching setting suits it
//! on this machine). Nothing here touches what serves: a subject is loaded for itself, by the steps that serving takes.

pub mod subject;
pub mod tune;
