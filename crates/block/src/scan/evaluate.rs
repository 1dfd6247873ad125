//! Which rows of a row group satisfy a compiled predicate.
//!
//! Kernels turn a column into bits, a word of 64 rows at a time; of dictionaries they look at the entries
//! first. What earlier terms of a conjunction leave over is all that later ones look at.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType};
use arrow_array::{Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, Int32Array, StringArray};
use arrow_schema::DataType;
use spoor_model::batch::AttrValue;
use spoor_model::bits::Bits;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Test, field};
use spoor_model::structure::ROOT;
use spoor_model::value::Value;
use spoor_model::wire::{self, WireError};
use spoor_model::{Event, Link, Span, SpanId, UnixNano, nested};

use super::compile::{IdField, ItemKind, Items, Node, Part, Table};
use super::group::{GroupReader, Picked};
use super::stored::Stored;
use super::tree;
use crate::error::Error;
use crate::rows::attr_value;

/// The field of the name in an encoded event...
const EVENT_NAME: u32 = 2;
/// ... that of attributes...
const EVENT_ATTRIBUTES: u32 = 3;
/// ... and in an encoded link.
const LINK_ATTRIBUTES: u32 = 4;

/// What a part says about rows.
struct Judged {
    /// Where it has a value.
    has: Bits,
    /// Where the condition holds for it.
    holds: Bits,
}

impl Node {
    /// The rows of `within` that satisfy the node.
    pub(super) fn evaluate(&self, reader: &GroupReader<'_>, within: &Bits) -> Result<Bits, Error> {
        let len = reader.row_count();
        if within.is_empty() {
            return Ok(Bits::none(len));
        }
        Ok(match self {
            Self::Always => within.clone(),
            Self::Never => Bits::none(len),
            Self::Shapes(table) => by_number(&shapes(reader)?, table, within),
            Self::Origins(table) => by_number(&origins(reader)?, table, within),
            Self::First { parts, or_else } => evaluate_first(parts, *or_else, reader, within)?,
            Self::And(nodes) => {
                let mut kept = within.clone();
                for node in nodes {
                    kept = node.evaluate(reader, &kept)?;
                }
                kept
            }
            Self::Or(nodes) => {
                let mut found = Bits::none(len);
                let mut open = within.clone();
                for node in nodes {
                    let more = node.evaluate(reader, &open)?;
                    open.subtract(&more);
                    found.union(&more);
                }
                found
            }
        })
    }
}

fn evaluate_first(parts: &[Part], or_else: bool, reader: &GroupReader<'_>, within: &Bits) -> Result<Bits, Error> {
    let mut open = within.clone();
    let mut found = Bits::none(within.len());
    for part in parts {
        let mut judged = part.judge(reader, &open)?;
        judged.holds.intersect(&open);
        found.union(&judged.holds);
        open.subtract(&judged.has);
    }
    if or_else {
        found.union(&open);
    }
    Ok(found)
}

fn shapes(reader: &GroupReader<'_>) -> Result<Int32Array, Error> {
    reader.numbers("shape_id", reader.opened.shapes.len())
}

fn origins(reader: &GroupReader<'_>) -> Result<Int32Array, Error> {
    reader.numbers("origin_id", reader.opened.origins.len())
}

fn by_number(numbers: &Int32Array, table: &Table, within: &Bits) -> Bits {
    let numbers = numbers.values();
    let mut bits = Bits::from_fn(numbers.len(), |row| table[numbers[row] as usize]);
    bits.intersect(within);
    bits
}

impl Part {
    /// Exact for the rows of `within`.
    fn judge(&self, reader: &GroupReader<'_>, within: &Bits) -> Result<Judged, Error> {
        let len = reader.row_count();
        let nothing = || Judged { has: Bits::none(len), holds: Bits::none(len) };
        if within.is_empty() {
            return Ok(nothing());
        }
        let tables = |numbers: &Int32Array, has, holds| Judged {
            has: by_number(numbers, has, within),
            holds: by_number(numbers, holds, within),
        };
        match self {
            Self::Shapes { has, holds } => Ok(tables(&shapes(reader)?, has, holds)),
            Self::Origins { has, holds } => Ok(tables(&origins(reader)?, has, holds)),
            Self::Column(column, condition) | Self::Unsigned(column, condition) => {
                if reader.opened.is_all_null(reader.group, *column) {
                    return Ok(nothing());
                }
                let picked = reader.picked(*column, within)?;
                let is_unsigned = matches!(self, Self::Unsigned(..));
                let judged = match &picked.values {
                    Stored::Codes { codes, entries } => judge_codes(codes, entries, condition),
                    Stored::Array(array) => judge_array(array, condition, is_unsigned),
                };
                Ok(Judged { has: spread(judged.has, &picked, len), holds: spread(judged.holds, &picked, len) })
            }
            Self::Residual(key, condition) => judge_lists(reader, "residual_otlp", within, |list, _| {
                let value = residual_value(list, key)?;
                Ok((value.is_some(), value.is_some_and(|value| condition.holds_for(Some(&value)))))
            }),
            Self::Items(items) => judge_items(reader, items, within),
            Self::Ids(field, condition) => {
                Ok(Judged { has: within.clone(), holds: judge_ids(reader, *field, condition, within)? })
            }
        }
    }
}

/// From places in what was picked to rows.
fn spread(bits: Bits, picked: &Picked, len: usize) -> Bits {
    if picked.rows.is_none() {
        return bits;
    }
    let mut spread = Bits::none(len);
    bits.iter().for_each(|place| spread.insert(picked.row(place)));
    spread
}

fn validity(array: &dyn Array) -> Bits {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => Bits::from_fn(array.len(), |row| nulls.is_valid(row)),
        None => Bits::all(array.len()),
    }
}

/// What a condition says about texts: about each entry once.
fn judge_codes(codes: &Int32Array, entries: &StringArray, condition: &Condition) -> Judged {
    let text = |text: &str| condition.holds_for_attribute(AttrValue::Str(text.as_bytes()));
    let mut table: Table = entries.iter().map(|entry| entry.is_some_and(text)).collect();
    // What stands where there is no value may be no code.
    table.push(false);
    let (has, values, last) = (validity(codes), codes.values(), table.len() - 1);
    let mut holds = Bits::from_fn(values.len(), |row| table[(values[row] as usize).min(last)]);
    holds.intersect(&has);
    Judged { has, holds }
}

/// What a condition says about the values of an array.
fn judge_array(array: &ArrayRef, condition: &Condition, is_unsigned: bool) -> Judged {
    let has = validity(array);
    let int = |int: i64| condition.holds_for_attribute(AttrValue::Int(int));
    let mut holds = match array.data_type() {
        DataType::Int32 => {
            let values = array.as_primitive::<Int32Type>().values();
            Bits::from_fn(values.len(), |row| int(i64::from(values[row])))
        }
        DataType::Int64 => judge_ints(array.as_primitive::<Int64Type>().values(), condition, is_unsigned),
        DataType::Timestamp(..) => {
            judge_ints(array.as_primitive::<TimestampNanosecondType>().values(), condition, is_unsigned)
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().values();
            Bits::from_fn(values.len(), |row| condition.holds_for_attribute(AttrValue::Double(values[row])))
        }
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            match &condition.test {
                // Straight on the text: it is known to be UTF-8.
                Test::Eq(Literal::Str(wanted)) => Bits::from_fn(texts.len(), |row| texts.value(row) == &**wanted),
                Test::Contains(part) => Bits::from_fn(texts.len(), |row| texts.value(row).contains(&**part)),
                Test::Regex(regex) => Bits::from_fn(texts.len(), |row| regex.is_match(texts.value(row))),
                _ => Bits::from_fn(texts.len(), |row| {
                    has.contains(row) && condition.holds_for_attribute(AttrValue::Str(texts.value(row).as_bytes()))
                }),
            }
        }
        _ => Bits::from_fn(array.len(), |row| {
            attr_value(array, row).is_some_and(|value| condition.holds_for_attribute(value))
        }),
    };
    holds.intersect(&has);
    Judged { has, holds }
}

/// A number as queries see it: past the largest integer it is that.
pub(super) fn clamped(stored: i64) -> i64 {
    if stored < 0 { i64::MAX } else { stored }
}

fn judge_ints(values: &[i64], condition: &Condition, is_unsigned: bool) -> Bits {
    let within = |least: i64, greatest: i64, is_outside: bool| {
        // One comparison of the distance instead of two: what is below `least` wraps to far above.
        let span = greatest.wrapping_sub(least) as u64;
        if is_unsigned {
            let distance = |value: i64| clamped(value).wrapping_sub(least) as u64;
            return Bits::from_fn(values.len(), |row| (distance(values[row]) <= span) != is_outside);
        }
        Bits::from_fn(values.len(), |row| (values[row].wrapping_sub(least) as u64 <= span) != is_outside)
    };
    match &condition.test {
        Test::Eq(Literal::Int(int)) => within(*int, *int, false),
        Test::Ne(Literal::Int(int)) => within(*int, *int, true),
        Test::Lt(Literal::Int(int)) if *int > i64::MIN => within(i64::MIN, *int - 1, false),
        Test::Le(Literal::Int(int)) => within(i64::MIN, *int, false),
        Test::Gt(Literal::Int(int)) if *int < i64::MAX => within(*int + 1, i64::MAX, false),
        Test::Ge(Literal::Int(int)) => within(*int, i64::MAX, false),
        _ => {
            let value = |row: usize| if is_unsigned { clamped(values[row]) } else { values[row] };
            Bits::from_fn(values.len(), |row| condition.holds_for_attribute(AttrValue::Int(value(row))))
        }
    }
}

/// Judges the rows that have a list, by (has, holds) of the list.
fn judge_lists(
    reader: &GroupReader<'_>,
    name: &str,
    within: &Bits,
    mut judge: impl FnMut(&[u8], usize) -> Result<(bool, bool), Error>,
) -> Result<Judged, Error> {
    let len = reader.row_count();
    let mut judged = Judged { has: Bits::none(len), holds: Bits::none(len) };
    for_lists(reader, name, within, |row, list| {
        let (has, holds) = judge(list, row)?;
        if has {
            judged.has.insert(row);
        }
        if holds {
            judged.holds.insert(row);
        }
        Ok(())
    })?;
    Ok(judged)
}

/// A column of lists at some rows.
pub(super) struct Lists {
    lists: BinaryArray,
    /// Ascending; `None`: all rows.
    rows: Option<Vec<u32>>,
}

impl Lists {
    /// The lists of a column, at least at the rows of `within`; `None` when there are none at all.
    pub(super) fn read(reader: &GroupReader<'_>, name: &str, within: &Bits) -> Result<Option<Self>, Error> {
        let column = reader.opened.column(name).filter(|column| !reader.opened.is_all_null(reader.group, *column));
        let Some(column) = column else { return Ok(None) };
        let Picked { values, rows } = reader.picked(column, within)?;
        let lists = match &values {
            Stored::Array(array) => array.as_binary_opt::<i32>().cloned(),
            Stored::Codes { .. } => None,
        };
        let lists = lists.ok_or_else(|| reader.corrupt(format!("column {name} has the wrong type")))?;
        Ok(Some(Self { lists, rows }))
    }

    /// Visits the rows of `within` that have a list, ascending.
    pub(super) fn for_each<'a>(
        &'a self,
        within: &Bits,
        mut visit: impl FnMut(usize, &'a [u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for place in 0..self.lists.len() {
            if self.lists.is_valid(place) {
                let row = self.rows.as_ref().map_or(place, |rows| rows[place] as usize);
                if within.contains(row) {
                    visit(row, self.lists.value(place))?;
                }
            }
        }
        Ok(())
    }
}

/// Visits the rows of `within` that have a list in a column, ascending.
pub(super) fn for_lists(
    reader: &GroupReader<'_>,
    name: &str,
    within: &Bits,
    visit: impl FnMut(usize, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    match Lists::read(reader, name, within)? {
        Some(lists) => lists.for_each(within, visit),
        None => Ok(()),
    }
}

/// The first residual attribute of that name. Decodes no other.
pub(super) fn residual_value(list: &[u8], key: &str) -> Result<Option<Value>, Error> {
    let find = || {
        for message in nested::split_list(list)? {
            if key_of(message)? == key.as_bytes() {
                return nested::decode_key_value(message).map(|attribute| Some(attribute.value));
            }
        }
        Ok(None)
    };
    find().map_err(|err: WireError| Error::corrupt("residual_otlp", err.to_string()))
}

/// The key of an encoded `KeyValue`.
pub(super) fn key_of(message: &[u8]) -> Result<&[u8], WireError> {
    let mut key: &[u8] = &[];
    let mut reader = wire::Reader::new(message);
    while let Some((number, field)) = reader.next_field()? {
        if number == 1 {
            key = field.bytes(1)?;
        }
    }
    Ok(key)
}

/// The key and the value of an encoded `KeyValue`, encoded; a value that is missing is empty.
pub(super) fn key_and_value(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = wire::Reader::new(message);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => key = field.bytes(1)?,
            2 => value = field.bytes(2)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn judge_items(reader: &GroupReader<'_>, items: &Items, within: &Bits) -> Result<Judged, Error> {
    let starts = ItemStarts::new(reader, items.conditions.iter().map(|condition| &condition.field))?;
    judge_lists(reader, items.kind.column(), within, |list, row| {
        let (mut has, mut holds) = (false, false);
        for_items(reader, items.kind, list, |item| {
            if let Some(key) = &items.key
                && item.attribute(key)?.is_none()
            {
                return Ok(());
            }
            has = true;
            let mut holds_for_all = true;
            for condition in &items.conditions {
                let value = item.value(&condition.field, &starts, row)?;
                holds_for_all = holds_for_all && condition.holds_for(value.as_ref());
            }
            holds |= holds_for_all;
            Ok(())
        })?;
        Ok((has, holds))
    })
}

/// Starts of the spans, where a field of events is relative to them.
pub(super) struct ItemStarts(Option<ArrayRef>);

impl ItemStarts {
    pub(super) fn new<'a>(
        reader: &GroupReader<'_>,
        mut fields: impl Iterator<Item = &'a Field>,
    ) -> Result<Self, Error> {
        let is_relative = fields.any(|field| matches!(field, Field::EventTimeSinceStart));
        Ok(Self(if is_relative { Some(reader.named("start_time_unix_nano")?) } else { None }))
    }

    fn span(&self, row: usize) -> Span {
        let starts = self.0.as_ref().and_then(|array| array.as_primitive_opt::<TimestampNanosecondType>());
        let start = UnixNano(starts.map_or(0, |starts| starts.value(row) as u64));
        Span { start, ..Span::default() }
    }
}

/// An event or a link, encoded: what is not asked for is not decoded.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    kind: ItemKind,
    message: &'a [u8],
}

impl<'a> Item<'a> {
    /// Visits the encoded attributes.
    pub(super) fn for_attributes(
        &self,
        mut visit: impl FnMut(&'a [u8]) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let attributes = match self.kind {
            ItemKind::Event => EVENT_ATTRIBUTES,
            ItemKind::Link => LINK_ATTRIBUTES,
        };
        let mut reader = wire::Reader::new(self.message);
        while let Some((number, field)) = reader.next_field()? {
            if number == attributes {
                visit(field.bytes(number)?)?;
            }
        }
        Ok(())
    }

    /// The first attribute of that name.
    fn attribute(&self, key: &str) -> Result<Option<Value>, WireError> {
        let mut found = None;
        self.for_attributes(|message| {
            if found.is_none() && key_of(message)? == key.as_bytes() {
                found = Some(nested::decode_key_value(message)?.value);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The value of a field of events or links; fields of the other kind have none.
    pub(super) fn value(&self, field: &Field, starts: &ItemStarts, row: usize) -> Result<Option<Value>, WireError> {
        Ok(match (self.kind, field) {
            (ItemKind::Event, Field::Attribute(AttrScope::Event, key)) => self.attribute(key)?,
            (ItemKind::Link, Field::Attribute(AttrScope::Link, key)) => self.attribute(key)?,
            (_, Field::Attribute(..)) => None,
            (ItemKind::Event, _) => field::of_event(field, &self.event()?, &starts.span(row)),
            (ItemKind::Link, _) => field::of_link(field, &self.link()?),
        })
    }

    /// The name of an event; links have none.
    pub(super) fn name(&self) -> Result<Option<&'a [u8]>, WireError> {
        if self.kind == ItemKind::Link {
            return Ok(None);
        }
        let mut name: &[u8] = &[];
        let mut reader = wire::Reader::new(self.message);
        while let Some((number, field)) = reader.next_field()? {
            if number == EVENT_NAME {
                name = field.bytes(number)?;
            }
        }
        Ok(Some(name))
    }

    /// The event without its attributes.
    fn event(&self) -> Result<Event, WireError> {
        let mut event = Event::default();
        let mut reader = wire::Reader::new(self.message);
        while let Some((number, field)) = reader.next_field()? {
            match number {
                1 => event.time = UnixNano(field.fixed64(1)?),
                EVENT_NAME => event.name = field.text(number)?.to_owned(),
                _ => {}
            }
        }
        Ok(event)
    }

    /// The link, whole.
    pub(super) fn link(&self) -> Result<Link, WireError> {
        nested::decode_link(self.message)
    }
}

/// Visits the events or links of a list.
pub(super) fn for_items<'a>(
    reader: &GroupReader<'_>,
    kind: ItemKind,
    list: &'a [u8],
    mut visit: impl FnMut(Item<'a>) -> Result<(), WireError>,
) -> Result<(), Error> {
    let mut visit_all = || {
        for message in nested::split_list(list)? {
            visit(Item { kind, message })?;
        }
        Ok(())
    };
    visit_all().map_err(|err: WireError| reader.corrupt(format!("{}: {err}", kind.column())))
}

fn judge_ids(reader: &GroupReader<'_>, field: IdField, condition: &Condition, within: &Bits) -> Result<Bits, Error> {
    let len = reader.row_count();
    let holds = |id: &[u8]| condition.holds_for_attribute(AttrValue::Str(hex(id).as_bytes()));
    match field {
        IdField::Trace => {
            let table: Table = reader.trace_ids()?.iter().map(|id| holds(&id.0)).collect();
            let mut bits = Bits::none(len);
            for (trace, _) in table.iter().enumerate().filter(|(_, holds)| **holds) {
                tree::rows_of_trace(reader, trace).for_each(|row| bits.insert(row));
            }
            Ok(bits)
        }
        IdField::Span => {
            let array = tree::span_ids(reader)?;
            Ok(judge_fixed(&array, condition, within))
        }
        IdField::Parent => match wanted_id(condition) {
            // How clients ask for roots: no id need be read for that.
            Some(Some(id)) if id.is_zero() => {
                let parents = tree::parents(reader)?;
                Ok(Bits::from_fn(len, |row| parents[row] == ROOT))
            }
            Some(Some(id)) => {
                let ids = tree::parent_ids(reader)?;
                Ok(Bits::from_fn(len, |row| ids[row] == id.0))
            }
            Some(None) => Ok(Bits::none(len)),
            None => {
                let ids = tree::parent_ids(reader)?;
                Ok(Bits::from_fn(len, |row| within.contains(row) && holds(&ids[row])))
            }
        },
    }
}

/// The id that the condition asks to be equal to; `Some(None)` when no id is spelled like that, `None` when
/// it asks for something else.
fn wanted_id(condition: &Condition) -> Option<Option<SpanId>> {
    match &condition.test {
        Test::Eq(Literal::Str(text)) => Some(SpanId::from_hex(text).ok().filter(|id| id.to_string() == **text)),
        _ => None,
    }
}

fn judge_fixed(array: &FixedSizeBinaryArray, condition: &Condition, within: &Bits) -> Bits {
    if let Some(wanted) = wanted_id(condition) {
        return match wanted {
            Some(id) => Bits::from_fn(array.len(), |row| array.value(row) == id.0),
            None => Bits::none(array.len()),
        };
    }
    let holds = |row: usize| condition.holds_for_attribute(AttrValue::Str(hex(array.value(row)).as_bytes()));
    Bits::from_fn(array.len(), |row| within.contains(row) && holds(row))
}

/// Lower-case hex digits.
pub(super) fn hex(id: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
