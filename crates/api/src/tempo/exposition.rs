//! Metrics for those who do not read OpenMetrics.
//!
//! The registry writes OpenMetrics. Prometheus's older text format (0.0.4, <https://prometheus.io/docs/instrumenting/exposition_formats/>)
//! has the same samples, and other words about them: a family has the name of its samples, there is no type `info`, and nothing
//! marks the end.

use std::fmt::Write;

/// The same in the older format. Linear in the text.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // Its name depends on the type, which comes next.
            help = described.split_once(' ');
        } else if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take_if(|(described, _)| *described == family) {
                put(&mut out, format_args!("# HELP {family}{suffix} {text}\n"));
            }
            put(&mut out, format_args!("# TYPE {family}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            put(&mut out, format_args!("{line}\n"));
        }
    }
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("texts can always be written to");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_their_samples() {
        let open_metrics = "# HELP a A b.\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"# y\"} 1\n# HELP build B.\n\
                            # TYPE build info\nbuild_info{v=\"1\"} 1\n# TYPE h histogram\nh_sum 1.0\nh_count 1\n# EOF\n";
        let expected = "# HELP a_total A b.\n# TYPE a_total counter\na_total{x=\"# y\"} 1\n# HELP build_info B.\n\
                        # TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n# TYPE h histogram\nh_sum 1.0\nh_count 1\n";
        assert_eq!(classic(open_metrics), expected);
    }
}
