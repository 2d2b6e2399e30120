//! What the gateway asks of others, against receivers and servers that are real and bad ones that are made.

mod log;
mod prometheus;
mod receiver;
mod webhook;
