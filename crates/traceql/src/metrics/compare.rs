//! `compare()`: how often each value of each attribute occurs, among the selected spans and the others.

use std::sync::Arc;

use arrow_array::Array;
use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::scan::{AttrScope, KeySet};

use super::groups::static_bytes;
use super::partial::Places;
use super::series::{Label, Series, label_value, text_of};
use crate::ast::{Attribute, Intrinsic, Static};
use crate::engine::{Frame, Operand};

/// By which people tell spans apart.
const INTRINSICS: [Intrinsic; 9] = [
    Intrinsic::Name,
    Intrinsic::Kind,
    Intrinsic::Status,
    Intrinsic::StatusMessage,
    Intrinsic::RootName,
    Intrinsic::RootServiceName,
    Intrinsic::EventName,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];

/// Every attribute that `compare()` looks at: [`INTRINSICS`], and what spans, resources, scopes, events and links
/// have.
pub(super) fn attributes(keys: &KeySet) -> Vec<Attribute> {
    let named = keys
        .iter()
        .filter(|(scope, _)| **scope != AttrScope::Any)
        .flat_map(|(scope, keys)| keys.iter().map(|key| Attribute::Named(*scope, key.as_str().into())));
    INTRINSICS.into_iter().map(Attribute::Intrinsic).chain(named).collect()
}

/// Baseline and selection.
const SIDES: [&str; 2] = ["baseline", "selection"];

/// Counts by attribute, value, side and interval.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    attributes: Vec<Values>,
}

/// The values of one attribute.
#[derive(Debug, Clone, Default)]
struct Values {
    number_of: HashMap<Static, u32>,
    values: Vec<Static>,
    /// By value: counts by slot.
    counts: Vec<Vec<u32>>,
    text_bytes: usize,
}

impl Values {
    fn counts_of(&mut self, value: &Static, slot_count: usize) -> &mut Vec<u32> {
        let number = match self.number_of.get(value) {
            Some(number) => *number,
            None => {
                let number = self.values.len() as u32;
                self.text_bytes += static_bytes(value);
                self.number_of.insert(value.clone(), number);
                self.values.push(value.clone());
                self.counts.push(vec![0; slot_count]);
                number
            }
        };
        &mut self.counts[number as usize]
    }

    fn memory_bytes(&self) -> usize {
        let counts_bytes = self.counts.first().map_or(0, |counts| 24 + 4 * counts.len());
        self.text_bytes + self.values.len() * counts_bytes
    }
}

impl Comparison {
    pub(super) fn new(attribute_count: usize) -> Self {
        Self { attributes: vec![Values::default(); attribute_count] }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.attributes.iter().map(Values::memory_bytes).sum()
    }

    /// Counts the placed rows; those in `selected` are of the selection.
    pub(super) fn add(&mut self, attributes: &[Operand], frame: &Frame<'_>, places: &Places<'_>, selected: &Bits) {
        let slot_count = SIDES.len() * places.window.interval_count() as usize;
        // A slot is an interval of a side.
        let mut slots: Vec<(u32, u32)> = Vec::with_capacity(places.rows.count());
        places.for_each(|_, row, interval| {
            let slot = SIDES.len() * interval + usize::from(selected.contains(row));
            slots.push((row as u32, slot as u32));
        });
        let mut shared = Shared::default();
        for (place, (values, operand)) in self.attributes.iter_mut().zip(attributes).enumerate() {
            match operand.column_codes(frame) {
                Some((codes, by_code)) => {
                    let counted = shared.count(codes, by_code.len(), &slots, slot_count);
                    for (code, value) in by_code.iter().enumerate().filter(|(_, value)| is_counted(place, value)) {
                        values.add(value, &counted[code * slot_count..(code + 1) * slot_count]);
                    }
                }
                None => {
                    let coded = operand.coded(frame, places.rows);
                    let mut counted = vec![0; coded.values.len() * slot_count];
                    for (row, slot) in &slots {
                        counted[coded.codes[*row as usize] as usize * slot_count + *slot as usize] += 1;
                    }
                    for (code, value) in coded.values.iter().enumerate().filter(|(_, value)| is_counted(place, value)) {
                        values.add(value, &counted[code * slot_count..(code + 1) * slot_count]);
                    }
                }
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (into, values) in self.attributes.iter_mut().zip(&other.attributes) {
            values.values.iter().zip(&values.counts).for_each(|(value, counts)| into.add(value, counts));
        }
    }

    /// The series: of each attribute the `top` most frequent values of each side, and how many spans of the
    /// side have the attribute at all.
    pub(super) fn series(&self, attributes: &[Arc<str>], top: usize) -> Vec<Series> {
        let mut series = Vec::new();
        for (key, values) in attributes.iter().zip(&self.attributes) {
            for (side, name) in SIDES.iter().enumerate() {
                let of_side = |counts: &[u32]| -> Vec<u64> {
                    counts.iter().skip(side).step_by(SIDES.len()).map(|count| u64::from(*count)).collect()
                };
                let mut counted: Vec<(u64, &Static, Vec<u64>)> = values
                    .values
                    .iter()
                    .zip(&values.counts)
                    .map(|(value, counts)| (value, of_side(counts)))
                    .map(|(value, counts)| (counts.iter().sum::<u64>(), value, counts))
                    .filter(|(total, ..)| *total > 0)
                    .collect();
                if counted.is_empty() {
                    continue;
                }
                let mut total = vec![0; counted[0].2.len()];
                counted.iter().for_each(|(_, _, counts)| {
                    total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
                });
                counted.sort_by_cached_key(|(total, value, _)| (std::cmp::Reverse(*total), text_of(value)));
                for (_, value, counts) in counted.into_iter().take(top) {
                    series.push(of_counts(name, key, label_value(value), &counts));
                }
                series.push(of_counts(&format!("{name}_total"), key, Static::Str("nil".into()), &total));
            }
        }
        series
    }
}

impl Values {
    fn add(&mut self, value: &Static, counts: &[u32]) {
        if counts.iter().all(|count| *count == 0) {
            return;
        }
        let into = self.counts_of(value, counts.len());
        into.iter_mut().zip(counts).for_each(|(count, other)| *count += other);
    }
}

/// Whether a value of the attribute at this place is listed: maps and bytes have no text, and of what
/// every span has, it says nothing that it is empty.
fn is_counted(place: usize, value: &Static) -> bool {
    let may_be_unset = || {
        let intrinsic = INTRINSICS.get(place);
        matches!(
            intrinsic,
            Some(Intrinsic::StatusMessage | Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion)
        )
    };
    match value {
        Static::Nil | Static::Opaque(_) => false,
        Static::Str(text) => !text.is_empty() || !may_be_unset(),
        _ => true,
    }
}

fn of_counts(side: &str, key: &Arc<str>, value: Static, counts: &[u64]) -> Series {
    let labels: Vec<Label> = vec![("__meta_type".into(), Static::Str(side.into())), (Arc::clone(key), value)];
    let values = counts.iter().map(|count| Some(*count as f64)).collect();
    Series { labels, values, exemplars: Vec::new() }
}

/// What was counted per code of a column that several attributes share, as those that fold into shapes do.
#[derive(Default)]
struct Shared {
    counted: Vec<(*const i32, Vec<u32>)>,
}

impl Shared {
    fn count(
        &mut self,
        codes: &arrow_array::Int32Array,
        code_count: usize,
        slots: &[(u32, u32)],
        slot_count: usize,
    ) -> &[u32] {
        let (column, size) = (codes.values().as_ptr(), code_count * slot_count);
        let is_same = |(known, counted): &(*const i32, Vec<u32>)| *known == column && counted.len() == size;
        let place = self.counted.iter().position(is_same).unwrap_or_else(|| {
            let mut counted = vec![0; size];
            let (codes, nulls) = (codes.values(), codes.nulls());
            for (row, slot) in slots {
                let row = *row as usize;
                if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                    counted[codes[row] as usize * slot_count + *slot as usize] += 1;
                }
            }
            self.counted.push((column, counted));
            self.counted.len() - 1
        });
        &self.counted[place].1
    }
}
