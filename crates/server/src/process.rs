//! What the system knows about this process, read from `/proc` when somebody scrapes.
//!
//! The names are those that every Prometheus client library uses. On systems without `/proc` they
//! are missing.

use std::fmt::Error;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Linux counts CPU time for `/proc` in hundredths of a second, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self` at each scrape: three small files and one directory.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let Some(process) = Process::read() else { return Ok(()) };
        let cpu = ConstCounter::new(process.cpu_seconds);
        let help = "User and system CPU time spent";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
        for (name, help, unit, value) in [
            ("process_resident_memory", "Memory that is really there", Some(Unit::Bytes), process.resident_bytes),
            ("process_virtual_memory", "Address space", Some(Unit::Bytes), process.virtual_bytes),
            ("process_start_time", "Start since the Unix epoch", Some(Unit::Seconds), process.started_seconds),
            ("process_open_fds", "Open file descriptors", None, process.open_fds),
            ("process_max_fds", "File descriptors that may be open", None, process.max_fds),
            ("process_threads", "Threads", None, process.threads),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    started_seconds: f64,
    open_fds: f64,
    max_fds: f64,
    threads: f64,
}

impl Process {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // proc(5): the second field is the name in parentheses and may hold spaces. Counted from 1,
        // what follows is field 3.
        let fields: Vec<f64> =
            stat.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            started_seconds: word_after(&boot, "btime")? + field(22)? / TICKS_PER_SECOND,
            resident_bytes: word_after(&status, "VmRSS:")? * 1024.0,
            virtual_bytes: word_after(&status, "VmSize:")? * 1024.0,
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as f64,
            max_fds: word_after(&limits, "Max open files")?,
        })
    }
}

/// The number that follows a label at the start of a line.
fn word_after(text: &str, label: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_time_and_files() {
        let process = Process::read().expect("/proc is there");
        assert!(process.resident_bytes > 1e6 && process.virtual_bytes >= process.resident_bytes);
        assert!(process.open_fds >= 3.0 && process.max_fds >= process.open_fds && process.threads >= 1.0);
        assert!(process.started_seconds > 1.6e9);
    }
}
