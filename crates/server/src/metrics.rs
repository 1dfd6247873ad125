//! The process's own metrics: the registry that every part registers with, and those of `server`.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::build_info;
use crate::process::ProcessCollector;

/// A registry with what is known of the process itself: its build, its memory, its time.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    for name in ["spoor_build", "tempo_build"] {
        let labels = vec![("version", build_info::VERSION), ("revision", build_info::REVISION)];
        registry.register(name, "Which build this is", Info::new(labels));
    }
    registry.register_collector(Box::new(ProcessCollector));
    registry
}

/// Everything registered, in the OpenMetrics text format.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("a String takes all");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described_under_the_names_that_dashboards_know() {
        let text = text(&registry());
        for expected in
            ["process_resident_memory_bytes ", "process_cpu_seconds_total ", "tempo_build_info{version=", "# EOF"]
        {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
