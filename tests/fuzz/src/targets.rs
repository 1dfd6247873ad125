//! The targets. Each says what must hold for any bytes whatever.

mod block;
mod import;
mod otlp;
mod traceql;

/// A function of any bytes.
type Check = Box<dyn Fn(&[u8])>;

/// One decoder under test.
pub struct Target {
    /// For the command line.
    pub name: &'static str,
    /// Runs of a smoke: a few seconds each.
    pub runs: u64,
    /// Valid inputs.
    pub seeds: Vec<Vec<u8>>,
    /// Panics when an invariant breaks.
    pub check: Check,
}

/// All of them.
pub fn all() -> Vec<Target> {
    vec![
        otlp::protobuf(),
        otlp::json(),
        import::jaeger(),
        import::parts(),
        traceql::query(),
        traceql::identifier(),
        block::files(),
    ]
}
