//! Which span stands for the trace.

use spoor_model::{SpanEntry, Trace, structure};

/// The trace's root: the last span, in the order of [`Trace::entries`], that has no parent, neither
/// by id nor by an OpenTracing `child_of` link within the trace. `None` when it has not come (yet).
pub fn root(trace: &Trace) -> Option<&SpanEntry> {
    structure::root(trace).map(|index| &trace.entries[index])
}
