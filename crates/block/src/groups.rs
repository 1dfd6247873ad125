//! What each row group holds, so that a query knows which to read before it has the trace table.
//!
//! A section of `index.bin`: varints. The number of row groups, then per group: spans; traces; start of its first
//! trace, as the difference to that of the group before; start of its last trace and latest end of any, both as
//! differences to that start; how many traces have two spans of one id; and those traces, by their places in the
//! group, each as the difference to the one before.

use spoor_model::{TimeRange, UnixNano, wire};

use crate::order::OrderedTrace;
use crate::traces::take_varint;

/// What a row group holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupSummary {
    pub(crate) span_count: usize,
    pub(crate) trace_count: usize,
    /// Earliest start and latest end of its spans.
    pub(crate) range: TimeRange,
    /// No trace of the group starts later, and one starts then.
    pub(crate) latest_trace_start: UnixNano,
    /// Traces with two spans of one id, by their places in the group, ascending.
    pub(crate) shared_ids: Vec<u32>,
}

/// Summaries of row groups of so many rows, which end at trace ends.
pub(crate) fn summarise(traces: &[OrderedTrace], group_rows: &[u32]) -> Vec<GroupSummary> {
    let mut left = traces;
    let mut summarise = |row_count: &u32| {
        let end = left[0].first_row + row_count;
        let (of_group, rest) = left.split_at(left.partition_point(|trace| trace.first_row < end));
        left = rest;
        let last = of_group.last().expect("a row group has a trace");
        assert_eq!(last.first_row + last.span_count, end, "row groups end at trace ends");
        let range = of_group.iter().skip(1).fold(of_group[0].range, |range, trace| range.union(&trace.range));
        let shared_ids = (0..).zip(of_group).filter(|(_, trace)| trace.shares_ids).map(|(place, _)| place).collect();
        GroupSummary {
            span_count: *row_count as usize,
            trace_count: of_group.len(),
            range,
            latest_trace_start: last.range.start,
            shared_ids,
        }
    };
    let groups = group_rows.iter().map(&mut summarise).collect();
    assert!(left.is_empty(), "every trace lies in a row group");
    groups
}

pub(crate) fn encode(groups: &[GroupSummary]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |value: u64| wire::put_varint(&mut out, value);
    put(groups.len() as u64);
    let mut previous = 0;
    for group in groups {
        let start = group.range.start.0;
        put(group.span_count as u64);
        put(group.trace_count as u64);
        put(start - previous);
        put(group.latest_trace_start.0 - start);
        put(group.range.end.0 - start);
        put(group.shared_ids.len() as u64);
        let mut place = 0;
        for next in &group.shared_ids {
            put(u64::from(next - place));
            place = *next;
        }
        previous = start;
    }
    out
}

/// Reads the section; `None` when it is malformed.
pub(crate) fn decode(section: &[u8]) -> Option<Vec<GroupSummary>> {
    let mut bytes = section;
    let mut take = || take_varint(&mut bytes);
    let mut groups = Vec::new();
    let mut start = 0u64;
    for _ in 0..take()? {
        let (span_count, trace_count) = (take()?, take()?);
        start = start.checked_add(take()?)?;
        let latest_trace_start = UnixNano(start.checked_add(take()?)?);
        let range = TimeRange { start: UnixNano(start), end: UnixNano(start.checked_add(take()?)?) };
        let mut shared_ids = Vec::new();
        let mut place = 0u64;
        for _ in 0..take()? {
            place = place.checked_add(take()?).filter(|place| *place < trace_count)?;
            shared_ids.push(u32::try_from(place).ok()?);
        }
        let (span_count, trace_count) = (usize::try_from(span_count).ok()?, usize::try_from(trace_count).ok()?);
        groups.push(GroupSummary { span_count, trace_count, range, latest_trace_start, shared_ids });
    }
    bytes.is_empty().then_some(groups)
}
