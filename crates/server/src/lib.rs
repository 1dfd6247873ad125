//! What makes the crates one process: configuration, lifecycle, ports, logs and own metrics.

pub mod config;
