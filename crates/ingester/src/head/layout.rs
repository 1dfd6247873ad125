//! In which order the rows of some traces stand, across segments.
//!
//! ```text
//!   segments           slots: trace by trace           rows of the batch: depth-first
//!   0: a b a c    -->  a0 a2 b0' ...             -->   per trace: sort, parents, walk
//!   1: b a c           (row, id, parent, start)
//! ```
//!
//! Segment by segment the rows of the wanted traces are copied to where their trace stands, under a
//! lock that is held only for that; the rest works on the copies.
//!
//! **Invariant:** rows from a view's length on are not looked at, so a batch is of one instant.

use std::hash::{BuildHasher, RandomState};

use spoor_model::batch::SpanBatch;
use spoor_model::bits::Bits;
use spoor_model::columns::NO_ROW;
use spoor_model::structure::{MISSING, ROOT};
use spoor_model::{SpanId, TraceId, nested, value};

use super::items;

/// What is wanted besides the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Nothing.
    Rows,
    /// Which traces have two rows of one span id.
    Copies,
    /// That, and the tree.
    Tree,
}

/// What the tree needs of a row, copied out of its segment.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    start: u64,
    parent: u64,
}

/// Where the rows of one segment stand in the batch.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) segment: usize,
    /// The first of the segment's rows that is in the batch.
    pub(super) first: u32,
    /// From there on: the row in the batch, or [`NO_ROW`].
    pub(super) rows: Vec<u32>,
}

impl Places {
    /// Where a row of the segment stands.
    #[inline]
    pub(super) fn of(&self, row: u32) -> Option<usize> {
        // Rows before the first wrap round and are past the end.
        let place = self.rows.get(row.wrapping_sub(self.first) as usize).copied()?;
        (place != NO_ROW).then_some(place as usize)
    }

    /// The rows of the segment that are in the batch, ascending, and where they stand.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let all = (self.first as usize..).zip(&self.rows);
        all.filter(|(_, place)| **place != NO_ROW).map(|(row, place)| (row, *place as usize))
    }

    /// Without the rows of the batch that are not among these.
    pub(super) fn restricted_to(&self, wanted: &Bits) -> Self {
        let keep = |place: &u32| match *place != NO_ROW && wanted.contains(*place as usize) {
            true => *place,
            false => NO_ROW,
        };
        Self { segment: self.segment, first: self.first, rows: self.rows.iter().map(keep).collect() }
    }
}

/// Collects rows, segment by segment.
pub(super) struct Collector {
    want: Want,
    /// First slot of each trace and, at the end, the number of slots.
    trace_slots: Vec<u32>,
    /// The next slot of each trace.
    next: Vec<u32>,
    /// Span ids; empty unless they are wanted. So are the following.
    ids: Vec<u64>,
    slots: Vec<Slot>,
    /// Those without parent that are children all the same. Very few.
    children_by_link: Vec<u32>,
    /// Slots, until the rows are known.
    places: Vec<Places>,
}

/// The order, and what follows from it.
pub(super) struct Layout {
    pub(super) trace_rows: Vec<u32>,
    pub(super) irregular: Bits,
    pub(super) parents: Vec<u32>,
    pub(super) roots: Vec<u32>,
    pub(super) places: Vec<Places>,
}

/// Memory per row while a layout is made, and per row of what is left of it.
pub(super) const ROW_BYTES: usize = size_of::<Slot>() + 8 + 4 + 4 + 4;

impl Collector {
    /// For traces with so many spans each.
    pub(super) fn new(want: Want, span_counts: impl Iterator<Item = u32>) -> Self {
        let mut trace_slots = vec![0];
        for count in span_counts {
            trace_slots.push(trace_slots[trace_slots.len() - 1] + count);
        }
        let slot_count = trace_slots[trace_slots.len() - 1] as usize;
        Self {
            want,
            next: trace_slots[..trace_slots.len() - 1].to_vec(),
            trace_slots,
            ids: vec![0; if want == Want::Rows { 0 } else { slot_count }],
            slots: vec![Slot::default(); if want == Want::Tree { slot_count } else { 0 }],
            children_by_link: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Takes a segment's rows below `len` of some of its traces, given as (its own number, the trace's
    /// place in this collection).
    pub(super) fn add(&mut self, segment: usize, batch: &SpanBatch, len: u32, traces: &[(u32, u32)]) {
        let rows: u32 = traces.iter().map(|(local, _)| batch.traces()[*local as usize].span_count).sum();
        let places = match rows >= len / 4 {
            true => self.add_in_order(segment, batch, len, traces),
            false => self.add_by_trace(segment, batch, len, traces),
        };
        if self.want != Want::Rows {
            let ids = batch.span_id();
            places.iter().for_each(|(row, slot)| self.ids[slot] = number(ids[row]));
        }
        if self.want == Want::Tree {
            self.fill_slots(batch, &places);
        }
        self.places.push(places);
    }

    /// Goes through all rows: twice as fast as going from trace to trace when most are wanted.
    fn add_in_order(&mut self, segment: usize, batch: &SpanBatch, len: u32, traces: &[(u32, u32)]) -> Places {
        let mut next = vec![NO_ROW; batch.traces().len()];
        traces.iter().for_each(|(local, trace)| next[*local as usize] = self.next[*trace as usize]);
        let place = |local: &u32| {
            let next = &mut next[*local as usize];
            let place = *next;
            *next += u32::from(place != NO_ROW);
            place
        };
        let rows = batch.trace()[..len as usize].iter().map(place).collect();
        traces.iter().for_each(|(local, trace)| self.next[*trace as usize] = next[*local as usize]);
        Places { segment, first: 0, rows }
    }

    fn add_by_trace(&mut self, segment: usize, batch: &SpanBatch, len: u32, traces: &[(u32, u32)]) -> Places {
        let mut placed = Vec::new();
        for (local, trace) in traces {
            let next = &mut self.next[*trace as usize];
            for row in batch.rows_of_trace(*local).take_while(|row| *row < len) {
                placed.push((row, *next));
                *next += 1;
            }
        }
        let first = placed.iter().map(|(row, _)| *row).min().unwrap_or(0);
        let end = placed.iter().map(|(row, _)| *row + 1).max().unwrap_or(0);
        let mut rows = vec![NO_ROW; (end - first) as usize];
        placed.into_iter().for_each(|(row, place)| rows[(row - first) as usize] = place);
        Places { segment, first, rows }
    }

    fn fill_slots(&mut self, batch: &SpanBatch, places: &Places) {
        let (start, parents) = (batch.start(), batch.parent());
        for (row, slot) in places.iter() {
            let parent = number(parents[row]);
            self.slots[slot] = Slot { start: start[row], parent };
            if parent == 0 && is_child_by_link(batch, row as u32) {
                self.children_by_link.push(slot as u32);
            }
        }
    }

    /// The order of what was collected.
    pub(super) fn finish(self) -> Layout {
        assert_eq!(self.next, self.trace_slots[1..], "as many rows come as were counted");
        let traces = || self.trace_slots.windows(2).map(|ends| ends[0] as usize..ends[1] as usize);
        let mut order = Order::new(self.want, &self.trace_slots);
        let mut irregular = Bits::none(self.trace_slots.len() - 1);
        if self.want == Want::Copies {
            let mut sorted = Vec::new();
            let repeats = traces().enumerate().filter(|(_, slots)| has_repeats(&self.ids[slots.clone()], &mut sorted));
            repeats.for_each(|(trace, _)| irregular.insert(trace));
        }
        if self.want == Want::Tree {
            for (trace, slots) in traces().enumerate() {
                let first = slots.start as u32;
                if order.add_trace(&self.ids[slots.clone()], &self.slots[slots], first) {
                    irregular.insert(trace);
                }
                order.add_root(first, |slot| {
                    self.slots[slot as usize].parent == 0 && !self.children_by_link.contains(&slot)
                });
            }
        }
        let mut places = self.places;
        if self.want == Want::Tree {
            let slots = places.iter_mut().flat_map(|places| &mut places.rows).filter(|slot| **slot != NO_ROW);
            slots.for_each(|slot| *slot = order.row_of[*slot as usize]);
        }
        let Order { parents, roots, .. } = order;
        Layout { trace_rows: self.trace_slots, irregular, parents, roots, places }
    }
}

fn number(id: SpanId) -> u64 {
    u64::from_be_bytes(id.0)
}

/// Whether an id occurs twice. `sorted` is room to work in.
fn has_repeats(ids: &[u64], sorted: &mut Vec<u64>) -> bool {
    // Comparing each with each is done eight at a time: a third of the cost of sorting for 17 ids.
    if ids.len() <= 32 {
        let repeats = |(at, id): (usize, &u64)| ids[at + 1..].iter().filter(|other| *other == id).count();
        return ids.iter().enumerate().map(repeats).sum::<usize>() > 0;
    }
    sorted.clear();
    sorted.extend(ids);
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

/// Whether an OpenTracing reference makes a span without parent a child all the same, as
/// [`spoor_model::structure::is_root`] has it.
fn is_child_by_link(batch: &SpanBatch, row: u32) -> bool {
    let links = batch.links();
    let Ok(at) = links.rows().binary_search(&row) else { return false };
    let trace_id: TraceId = batch.traces()[batch.trace()[row as usize] as usize].id;
    items::messages(links, at).filter_map(|bytes| nested::decode_link(bytes).ok()).any(|link| {
        let reference = value::find(&link.attributes, "opentracing.ref_type").and_then(|value| value.as_str());
        link.trace_id == trace_id && reference == Some("child_of")
    })
}

const NONE: u32 = u32::MAX;

/// Orders the rows of one trace after the other; what it works with is kept between them.
struct Order {
    parents: Vec<u32>,
    roots: Vec<u32>,
    row_of: Vec<u32>,
    /// Random, so that no sender can choose ids that meet in the table.
    multiplier: u64,
    sorted: Vec<(u64, u64, u32)>,
    /// Open addressing: places in `sorted`.
    table: Vec<u32>,
    parent_of: Vec<u32>,
    last_child: Vec<u32>,
    previous_sibling: Vec<u32>,
    is_placed: Vec<bool>,
    stack: Vec<(u32, u32)>,
}

impl Order {
    fn new(want: Want, trace_slots: &[u32]) -> Self {
        let (traces, rows) = (trace_slots.len() - 1, trace_slots[trace_slots.len() - 1] as usize);
        let (tree_rows, tree_traces) = if want == Want::Tree { (rows, traces) } else { (0, 0) };
        Self {
            parents: Vec::with_capacity(tree_rows),
            roots: Vec::with_capacity(tree_traces),
            row_of: vec![0; tree_rows],
            multiplier: RandomState::new().hash_one(0) | 1,
            sorted: Vec::new(),
            table: Vec::new(),
            parent_of: Vec::new(),
            last_child: Vec::new(),
            previous_sibling: Vec::new(),
            is_placed: Vec::new(),
            stack: Vec::new(),
        }
    }

    /// Orders the slots of a trace, the first of which is `first`, as is its first row. Returns whether an id
    /// occurs twice.
    fn add_trace(&mut self, ids: &[u64], slots: &[Slot], first: u32) -> bool {
        self.sorted.clear();
        self.sorted.extend(ids.iter().zip(slots).zip(0..).map(|((id, slot), at)| (slot.start, *id, at)));
        self.sorted.sort_unstable();
        let has_shared_ids = self.fill_table();
        self.find_parents(slots, has_shared_ids);
        self.walk(first);
        has_shared_ids
    }

    /// Notes the root of the trace that was ordered last: the last of its rows that can be one.
    fn add_root(&mut self, first: u32, is_root: impl Fn(u32) -> bool) {
        let root = self.sorted.iter().rev().find(|(_, _, at)| is_root(first + at));
        self.roots.push(root.map_or(NO_ROW, |(_, _, at)| self.row_of[(first + at) as usize]));
    }

    /// Where an id is in the table, or where it belongs.
    #[inline]
    fn find(&self, id: u64) -> usize {
        let mask = self.table.len() - 1;
        let mut at = (id.wrapping_mul(self.multiplier) >> 32) as usize & mask;
        while self.table[at] != NONE && self.sorted[self.table[at] as usize].1 != id {
            at = (at + 1) & mask;
        }
        at
    }

    /// Whether an id came twice; then only the first is in the table.
    fn fill_table(&mut self) -> bool {
        self.table.clear();
        self.table.resize((self.sorted.len() * 2).next_power_of_two(), NONE);
        let mut has_shared_ids = false;
        for place in 0..self.sorted.len() {
            let at = self.find(self.sorted[place].1);
            match self.table[at] {
                NONE => self.table[at] = place as u32,
                _ => has_shared_ids = true,
            }
        }
        has_shared_ids
    }

    /// Fills the lists of children, each from the last to the first.
    fn find_parents(&mut self, slots: &[Slot], has_shared_ids: bool) {
        let len = self.sorted.len();
        for list in [&mut self.parent_of, &mut self.last_child, &mut self.previous_sibling] {
            list.clear();
            list.resize(len, NONE);
        }
        for place in 0..len {
            let parent = slots[self.sorted[place].2 as usize].parent;
            self.parent_of[place] = match parent {
                0 => ROOT,
                // There is no saying which of two is meant; whoever needs it assembles the trace.
                _ if has_shared_ids => MISSING,
                _ => match self.table[self.find(parent)] {
                    NONE => MISSING,
                    holder if holder as usize == place => MISSING,
                    holder => {
                        self.previous_sibling[place] = self.last_child[holder as usize];
                        self.last_child[holder as usize] = place as u32;
                        holder
                    }
                },
            };
        }
    }

    /// Depth-first, as [`spoor_model::structure::Tree`] has it: roots, then orphans, then what sits on cycles.
    fn walk(&mut self, first: u32) {
        let len = self.sorted.len() as u32;
        self.is_placed.clear();
        self.is_placed.resize(len as usize, false);
        let end = self.parents.len() as u32 + len;
        for wanted in [ROOT, MISSING] {
            for top in 0..len {
                if self.parent_of[top as usize] == wanted {
                    self.place(top, wanted, first);
                }
            }
        }
        for top in 0..len {
            if self.parents.len() as u32 == end {
                break;
            }
            self.place(top, MISSING, first);
        }
    }

    fn place(&mut self, top: u32, above: u32, first: u32) {
        self.stack.push((top, above));
        while let Some((place, above)) = self.stack.pop() {
            if std::mem::replace(&mut self.is_placed[place as usize], true) {
                continue;
            }
            let row = self.parents.len() as u32;
            self.parents.push(above);
            self.row_of[(first + self.sorted[place as usize].2) as usize] = row;
            let mut child = self.last_child[place as usize];
            while child != NONE {
                self.stack.push((child, row));
                child = self.previous_sibling[child as usize];
            }
        }
    }
}
