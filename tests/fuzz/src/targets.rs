//! The targets. Each says what must hold for any bytes whatever.

mod block;
mod otlp;
mod traceql;

/// One decoder under test.
pub struct Target {
    /// For the command line.
    pub name: &'static str,
    /// Runs of a smoke: a few seconds each.
    pub runs: u64,
    /// Valid inputs.
    pub seeds: Vec<Vec<u8>>,
    /// Panics when an invariant breaks.
    pub check: Box<dyn Fn(&[u8])>,
}

/// All of them.
pub fn all() -> Vec<Target> {
    vec![otlp::protobuf(), otlp::json(), traceql::query(), traceql::identifier(), block::files()]
}
