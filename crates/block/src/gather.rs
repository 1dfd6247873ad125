//! From the head's batches, in block order, to Arrow arrays.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Float64Builder, Int64Builder, StringBuilder,
};
use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_schema::{ArrowError, SchemaRef};
use hashbrown::HashMap;
use spoor_model::batch::{AttrColumn, AttrValue, AttrValues, Dropped, SpanBatch, SparseBytes, ValueType};
use spoor_model::nested;
use spoor_model::value::{KeyValue, Value};

use crate::columns::{MergedColumn, RankIndex};
use crate::filter::Place;
use crate::order::{Order, RowRef};
use crate::plan::{Plan, Role};

/// Sparse bytes of all batches, by row.
struct Sparse<'a> {
    parts: Vec<(&'a SparseBytes, RankIndex)>,
}

impl<'a> Sparse<'a> {
    fn new(batches: &[&'a SpanBatch], column: impl Fn(&'a SpanBatch) -> &'a SparseBytes) -> Self {
        let part = |batch: &&'a SpanBatch| (column(batch), RankIndex::new(batch.len(), column(batch).rows()));
        Self { parts: batches.iter().map(part).collect() }
    }

    fn get(&self, at: RowRef) -> Option<&'a [u8]> {
        let (column, ranks) = &self.parts[at.batch as usize];
        ranks.rank(at.row).map(|place| column.get_at(place))
    }
}

/// Everything that arrays are made from.
pub(crate) struct Gatherer<'a> {
    pub(crate) batches: &'a [&'a SpanBatch],
    pub(crate) merged: &'a [MergedColumn<'a>],
    pub(crate) order: &'a Order,
    pub(crate) plan: &'a Plan,
    /// Merged columns that have no column of their own.
    residual_columns: &'a [usize],
    pub(crate) shape_of_row: &'a [Vec<u32>],
    /// Per batch: its origin numbers to the block's.
    pub(crate) origin_of_batch: &'a [Vec<u32>],
    schema: SchemaRef,
    status_message: Sparse<'a>,
    trace_state: Sparse<'a>,
    events: Sparse<'a>,
    links: Sparse<'a>,
    residual: HashMap<(u32, u32), Vec<u8>>,
}

impl<'a> Gatherer<'a> {
    pub(crate) fn new(
        batches: &'a [&'a SpanBatch],
        merged: &'a [MergedColumn<'a>],
        order: &'a Order,
        plan: &'a Plan,
        residual_columns: &'a [usize],
        shape_of_row: &'a [Vec<u32>],
        origin_of_batch: &'a [Vec<u32>],
    ) -> Self {
        Self {
            batches,
            merged,
            order,
            plan,
            residual_columns,
            shape_of_row,
            origin_of_batch,
            schema: plan.schema(),
            status_message: Sparse::new(batches, SpanBatch::status_message),
            trace_state: Sparse::new(batches, SpanBatch::trace_state),
            events: Sparse::new(batches, SpanBatch::events),
            links: Sparse::new(batches, SpanBatch::links),
            residual: collect_residual(batches, merged, residual_columns),
        }
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Keys that the residual column holds.
    pub(crate) fn residual_keys(&self) -> impl Iterator<Item = String> + '_ {
        let used = self.residual_columns.iter().map(|index| &self.merged[*index]).filter(|column| column.row_count > 0);
        let from_columns = used.map(|column| column.key.to_string());
        let from_batches = self.batches.iter().flat_map(|batch| {
            let residual = batch.residual();
            (0..residual.rows().len()).flat_map(|place| keys_of_list(residual.get_at(place)))
        });
        from_columns.chain(from_batches)
    }

    /// The rows `range` of the block as one Arrow batch.
    pub(crate) fn gather(&self, range: Range<usize>) -> Result<RecordBatch, ArrowError> {
        let columns =
            self.plan.columns.iter().map(|column| self.array(column.role, range.clone())).collect::<Result<_, _>>()?;
        RecordBatch::try_new(self.schema(), columns)
    }

    /// Hashes of the values of some rows that neither a shape nor a footer tells of, some perhaps twice.
    pub(crate) fn value_hashes(&self, range: Range<usize>) -> Vec<u64> {
        let rows = &self.order.rows[range];
        let mut hashes = Vec::new();
        for column in &self.plan.columns {
            match column.role {
                Role::Attribute(index) => add_values(&self.merged[index], rows, &mut hashes),
                Role::Name => {
                    let mut seen: Vec<Vec<bool>> =
                        self.batches.iter().map(|batch| vec![false; batch.names().len()]).collect();
                    for at in rows {
                        let (batch, seen) = (self.batch(*at), &mut seen[at.batch as usize]);
                        let code = batch.name()[at.row as usize];
                        if !std::mem::replace(&mut seen[code as usize], true) {
                            hashes.push(Place::Name.seed().text(batch.names().get(code)));
                        }
                    }
                }
                Role::StatusMessage => {
                    let messages = rows.iter().filter_map(|at| self.status_message.get(*at));
                    hashes.extend(messages.map(|text| Place::StatusMessage.seed().text(text)));
                }
                Role::Events => self.add_items(rows, &self.events, &mut hashes, |bytes, hashes| {
                    let event = nested::decode_event(bytes).unwrap_or_default();
                    hashes.push(Place::EventName.seed().text(event.name.as_bytes()));
                    event.attributes.iter().for_each(|kv| Place::Event(&kv.key).seed().add(&kv.value, hashes));
                }),
                Role::Links => self.add_items(rows, &self.links, &mut hashes, |bytes, hashes| {
                    let link = nested::decode_link(bytes).unwrap_or_default();
                    link.attributes.iter().for_each(|kv| Place::Link(&kv.key).seed().add(&kv.value, hashes));
                }),
                Role::Residual => {
                    let lists = rows.iter().filter_map(|at| self.residual.get(&(at.batch, at.row)));
                    for bytes in lists.flat_map(|list| nested::split_list(list).unwrap_or_default()) {
                        let kv = nested::decode_key_value(bytes).unwrap_or_else(|_| KeyValue::new("", Value::Empty));
                        Place::Span(&kv.key).seed().add(&kv.value, &mut hashes);
                    }
                }
                _ => {}
            }
        }
        hashes
    }

    fn add_items(
        &self,
        rows: &[RowRef],
        lists: &Sparse<'_>,
        hashes: &mut Vec<u64>,
        add: impl Fn(&[u8], &mut Vec<u64>),
    ) {
        for list in rows.iter().filter_map(|at| lists.get(*at)) {
            nested::split_list(list).unwrap_or_default().into_iter().for_each(|bytes| add(bytes, hashes));
        }
    }

    fn array(&self, role: Role, range: Range<usize>) -> Result<ArrayRef, ArrowError> {
        let rows = &self.order.rows[range.clone()];
        Ok(match role {
            Role::TraceId => fixed(16, rows, |at| {
                let batch = self.batches[at.batch as usize];
                Some(&batch.traces()[batch.trace()[at.row as usize] as usize].id.0[..])
            })?,
            Role::SpanId => fixed(8, rows, |at| Some(&self.batch(at).span_id()[at.row as usize].0[..]))?,
            Role::ParentSpanId => self.explicit_parents(range)?,
            Role::Start => {
                let starts = rows.iter().map(|at| self.batch(*at).start()[at.row as usize] as i64);
                Arc::new(TimestampNanosecondArray::from_iter_values(starts).with_timezone("UTC"))
            }
            Role::Duration => Arc::new(Int64Array::from_iter_values(rows.iter().map(|at| {
                let (batch, row) = (self.batch(*at), at.row as usize);
                (batch.end()[row] - batch.start()[row]) as i64
            }))),
            Role::ShapeId => int32(rows.iter().map(|at| self.shape_of_row[at.batch as usize][at.row as usize])),
            Role::OriginId => int32(rows.iter().map(|at| {
                let origin = self.batch(*at).origin()[at.row as usize];
                self.origin_of_batch[at.batch as usize][origin as usize]
            })),
            Role::ParentOffset => int32(self.order.parent_offset[range].iter().copied()),
            Role::SubtreeSize => int32(self.order.subtree_size[range].iter().copied()),
            Role::Name => {
                let names = rows.iter().map(|at| {
                    let batch = self.batch(*at);
                    Some(batch.names().get(batch.name()[at.row as usize]))
                });
                text(names)
            }
            Role::Kind => {
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|at| self.batch(*at).kind()[at.row as usize])))
            }
            Role::StatusCode => Arc::new(Int32Array::from_iter_values(
                rows.iter().map(|at| self.batch(*at).status_code()[at.row as usize]),
            )),
            Role::Flags => {
                let flags = rows.iter().map(|at| i64::from(self.batch(*at).flags()[at.row as usize]));
                Arc::new(Int64Array::from_iter_values(flags))
            }
            Role::StatusMessage => text(rows.iter().map(|at| self.status_message.get(*at))),
            Role::TraceState => text(rows.iter().map(|at| self.trace_state.get(*at))),
            Role::DroppedAttributes => self.dropped(rows, |dropped| dropped.attributes),
            Role::DroppedEvents => self.dropped(rows, |dropped| dropped.events),
            Role::DroppedLinks => self.dropped(rows, |dropped| dropped.links),
            Role::Events => binary(rows.iter().map(|at| self.events.get(*at))),
            Role::Links => binary(rows.iter().map(|at| self.links.get(*at))),
            Role::Residual => binary(rows.iter().map(|at| self.residual.get(&(at.batch, at.row)).map(Vec::as_slice))),
            Role::Attribute(index) => attribute(&self.merged[index], rows),
        })
    }

    fn batch(&self, at: RowRef) -> &'a SpanBatch {
        self.batches[at.batch as usize]
    }

    /// Parent ids that no offset can express: of orphans and where a cycle was broken.
    fn explicit_parents(&self, range: Range<usize>) -> Result<ArrayRef, ArrowError> {
        let offsets = &self.order.parent_offset[range.clone()];
        let mut out = FixedSizeBinaryBuilder::with_capacity(offsets.len(), 8);
        for (at, offset) in self.order.rows[range].iter().zip(offsets) {
            let parent = self.batch(*at).parent()[at.row as usize];
            match *offset == 0 && !parent.is_zero() {
                true => out.append_value(parent.0)?,
                false => out.append_null(),
            }
        }
        Ok(Arc::new(out.finish()))
    }

    fn dropped(&self, rows: &[RowRef], count: impl Fn(&Dropped) -> u32) -> ArrayRef {
        let mut out = Int64Builder::with_capacity(rows.len());
        for at in rows {
            let (dropped_rows, dropped) = self.batch(*at).dropped();
            let found = dropped_rows.binary_search(&at.row).ok().map(|place| count(&dropped[place]));
            out.append_option(found.filter(|count| *count > 0).map(i64::from));
        }
        Arc::new(out.finish())
    }
}

fn int32(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values.map(|value| value as i32)))
}

fn fixed<'a>(width: i32, rows: &[RowRef], get: impl Fn(RowRef) -> Option<&'a [u8]>) -> Result<ArrayRef, ArrowError> {
    let mut out = FixedSizeBinaryBuilder::with_capacity(rows.len(), width);
    for at in rows {
        match get(*at) {
            Some(bytes) => out.append_value(bytes)?,
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Texts were checked when they came in, and are once more, all at once; a text that is not UTF-8 all the same is
/// repaired, not lost.
fn text<'a>(values: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> ArrayRef {
    let binary = binary_array(values.clone());
    let (offsets, bytes, nulls) = binary.into_parts();
    match StringArray::try_new(offsets, bytes, nulls) {
        Ok(texts) => Arc::new(texts),
        Err(_) => {
            let mut out = StringBuilder::new();
            values.for_each(|value| out.append_option(value.map(String::from_utf8_lossy)));
            Arc::new(out.finish())
        }
    }
}

fn binary<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    Arc::new(binary_array(values))
}

fn binary_array<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> BinaryArray {
    let mut out = BinaryBuilder::new();
    values.for_each(|value| out.append_option(value));
    out.finish()
}

fn attribute(column: &MergedColumn<'_>, rows: &[RowRef]) -> ArrayRef {
    let values = rows.iter().map(|at| column.get(*at));
    match column.value_type {
        ValueType::Str => text(values.map(|value| value.and_then(bytes_of))),
        ValueType::Encoded => binary(values.map(|value| value.and_then(bytes_of))),
        ValueType::Int => {
            let mut out = Int64Builder::with_capacity(rows.len());
            values.for_each(|value| {
                out.append_option(match value {
                    Some(AttrValue::Int(int)) => Some(int),
                    _ => None,
                })
            });
            Arc::new(out.finish())
        }
        ValueType::Double => {
            let mut out = Float64Builder::with_capacity(rows.len());
            values.for_each(|value| {
                out.append_option(match value {
                    Some(AttrValue::Double(double)) => Some(double),
                    _ => None,
                })
            });
            Arc::new(out.finish())
        }
        ValueType::Bool => {
            let mut out = BooleanBuilder::with_capacity(rows.len());
            values.for_each(|value| {
                out.append_option(match value {
                    Some(AttrValue::Bool(flag)) => Some(flag),
                    _ => None,
                })
            });
            Arc::new(out.finish())
        }
    }
}

/// Integers whose hashes are remembered while a column is gone through: most are those of shortly before.
const RECENT_INTS: usize = 1024;

/// Integers, each once unless too many others came between. About 3 ns per row.
fn add_ints(column: &MergedColumn<'_>, rows: &[RowRef], hashes: &mut Vec<u64>) {
    let seed = Place::Span(&column.key).seed();
    let mut recent: Vec<Option<i64>> = vec![None; RECENT_INTS];
    for at in rows {
        if let Some(AttrValue::Int(int)) = column.get(*at) {
            // Multiplied, so that round numbers do not all meet in few places.
            let place = (int as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - RECENT_INTS.ilog2());
            if recent[place as usize].replace(int) != Some(int) {
                hashes.push(seed.int(int));
            }
        }
    }
}

/// Texts by their codes, each once per batch; of encoded values the elements. Floats and booleans are left out.
fn add_values(column: &MergedColumn<'_>, rows: &[RowRef], hashes: &mut Vec<u64>) {
    let seed = Place::Span(&column.key).seed();
    match column.value_type {
        ValueType::Encoded => {
            let values = rows.iter().filter_map(|at| column.get(*at));
            return values.for_each(|value| seed.add(&value.to_value(), hashes));
        }
        ValueType::Int => return add_ints(column, rows, hashes),
        ValueType::Double | ValueType::Bool => return,
        ValueType::Str => {}
    }
    let entry_count = |part: &Option<(&AttrColumn, RankIndex)>| match part.as_ref().map(|(column, _)| column.values()) {
        Some(AttrValues::Str { dictionary, .. }) => dictionary.len(),
        _ => 0,
    };
    let mut seen: Vec<Vec<bool>> = column.parts.iter().map(|part| vec![false; entry_count(part)]).collect();
    for at in rows {
        if let Some((part, ranks)) = &column.parts[at.batch as usize]
            && let AttrValues::Str { codes, dictionary } = part.values()
            && let Some(place) = ranks.rank(at.row)
            && !std::mem::replace(&mut seen[at.batch as usize][codes[place] as usize], true)
        {
            hashes.push(seed.text(dictionary.get(codes[place])));
        }
    }
}

fn bytes_of(value: AttrValue<'_>) -> Option<&[u8]> {
    match value {
        AttrValue::Str(bytes) | AttrValue::Encoded(bytes) => Some(bytes),
        _ => None,
    }
}

/// The residual lists of all rows that have one: rare attributes, and what fit no column already.
fn collect_residual(
    batches: &[&SpanBatch],
    merged: &[MergedColumn<'_>],
    rare: &[usize],
) -> HashMap<(u32, u32), Vec<u8>> {
    let mut lists: HashMap<(u32, u32), Vec<u8>> = HashMap::new();
    for index in rare {
        let MergedColumn { key, parts, .. } = &merged[*index];
        for (batch, part) in parts.iter().enumerate() {
            let Some((column, _)) = part else { continue };
            for (place, row) in column.rows().iter().enumerate() {
                let attribute = KeyValue::new(&**key, column.get_at(place).to_value());
                let mut message = Vec::new();
                nested::put_key_value(&mut message, &attribute);
                nested::put_list_item(lists.entry((batch as u32, *row)).or_default(), &message);
            }
        }
    }
    for (batch, residual) in batches.iter().map(|batch| batch.residual()).enumerate() {
        for (place, row) in residual.rows().iter().enumerate() {
            lists.entry((batch as u32, *row)).or_default().extend_from_slice(residual.get_at(place));
        }
    }
    lists
}

fn keys_of_list(list: &[u8]) -> Vec<String> {
    let messages = nested::split_list(list).unwrap_or_default();
    messages.into_iter().filter_map(|bytes| nested::decode_key_value(bytes).ok()).map(|kv| kv.key).collect()
}
