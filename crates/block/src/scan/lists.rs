//! Values of events, links and residual attributes: lists of messages, one list per row that has any.
//!
//! All fields that a request wants of one kind of list are read in one pass, so that a list is split once, and of its
//! messages nothing is decoded but the values that are wanted.

use std::sync::Arc;

use arrow_array::Int32Array;
use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::ColumnPart;
use spoor_model::nested;
use spoor_model::scan::Field;
use spoor_model::value::Value;
use spoor_model::wire::WireError;

use super::compile::ItemKind;
use super::evaluate::{ItemStarts, Lists, for_items, for_lists, key_and_value, key_of};
use super::group::GroupReader;
use super::stored::nulls;
use crate::error::Error;

/// A field that is wanted of events or links.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) field: &'a Field,
    /// Of a lookup in all scopes only the values that are there.
    pub(super) is_lookup: bool,
}

/// The values of the events or links of a row.
type OfRow = Vec<Option<Value>>;

/// Which of the wanted values bear a name: several do when they were wanted twice.
type Slots<'a> = HashMap<&'a [u8], Vec<usize>>;

fn slots<'a>(keys: impl Iterator<Item = (usize, &'a Arc<str>)>) -> Slots<'a> {
    let mut slots = Slots::new();
    keys.for_each(|(slot, key)| slots.entry(key.as_bytes()).or_default().push(slot));
    slots
}

/// Decodes an attribute into the slots of its name, unless an attribute before it bore the name, too.
fn fill(slots: &Slots<'_>, values: &mut [Option<Value>], attribute: &[u8]) -> Result<(), WireError> {
    let Some(of_key) = slots.get(key_of(attribute)?) else { return Ok(()) };
    if values[of_key[0]].is_some() {
        return Ok(());
    }
    let value = nested::decode_key_value(attribute)?.value;
    of_key.iter().for_each(|slot| values[*slot] = Some(value.clone()));
    Ok(())
}

/// The values of fields of events or links, at least at the rows of `rows`: one part for each that is wanted, `None`
/// where no row has any.
pub(super) fn items(
    reader: &GroupReader<'_>,
    kind: ItemKind,
    wanted: &[Wanted<'_>],
    rows: &Bits,
) -> Result<Vec<Option<ColumnPart>>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let starts = ItemStarts::new(reader, wanted.iter().map(|wanted| wanted.field))?;
    let slots = slots(wanted.iter().enumerate().filter_map(|(slot, wanted)| match wanted.field {
        Field::Attribute(scope, key) if *scope == kind.scope() => Some((slot, key)),
        _ => None,
    }));
    let others: Vec<usize> =
        (0..wanted.len()).filter(|slot| !matches!(wanted[*slot].field, Field::Attribute(..))).collect();
    let mut columns: Vec<(Vec<u32>, Vec<OfRow>)> = vec![Default::default(); wanted.len()];
    for_lists(reader, kind.column(), rows, |row, list| {
        let mut lists: Vec<OfRow> = vec![Vec::new(); wanted.len()];
        let mut values = vec![None; wanted.len()];
        for_items(reader, kind, list, |item| {
            item.for_attributes(|attribute| fill(&slots, &mut values, attribute))?;
            for slot in &others {
                values[*slot] = item.value(wanted[*slot].field, &starts, row)?;
            }
            for ((list, value), wanted) in lists.iter_mut().zip(&mut values).zip(wanted) {
                let value = value.take();
                if value.is_some() || !wanted.is_lookup {
                    list.push(value);
                }
            }
            Ok(())
        })?;
        for (list, (rows, values)) in lists.into_iter().zip(&mut columns).filter(|(list, _)| !list.is_empty()) {
            rows.push(row as u32);
            values.push(list);
        }
        Ok(())
    })?;
    let part = |(rows, values): (Vec<u32>, _)| (!rows.is_empty()).then_some(ColumnPart::PerItem { rows, values });
    Ok(columns.into_iter().map(part).collect())
}

/// The first value that each row of `rows` has of fields of events or links: one part for each that is wanted, `None`
/// where no row has any. `None` when a field is no attribute nor a name, or a first value is no text, number or
/// boolean: then [`items`] are to be read.
pub(super) fn first_items(
    reader: &GroupReader<'_>,
    kind: ItemKind,
    wanted: &[Wanted<'_>],
    rows: &Bits,
) -> Result<Option<Vec<Option<ColumnPart>>>, Error> {
    let is_known = |field: &Field| match field {
        Field::Attribute(scope, _) => *scope == kind.scope(),
        field => matches!((kind, field), (ItemKind::Event, Field::EventName)),
    };
    if wanted.is_empty() || !wanted.iter().all(|wanted| is_known(wanted.field)) {
        return Ok(None);
    }
    let slots = slots(wanted.iter().enumerate().filter_map(|(slot, wanted)| match wanted.field {
        Field::Attribute(_, key) => Some((slot, key)),
        _ => None,
    }));
    let names: Vec<usize> = (0..wanted.len()).filter(|slot| *wanted[*slot].field == Field::EventName).collect();
    let Some(lists) = Lists::read(reader, kind.column(), rows)? else { return Ok(Some(vec![None; wanted.len()])) };
    let mut firsts: Vec<Firsts<'_>> = wanted.iter().map(|_| Firsts::default()).collect();
    let mut is_simple = true;
    lists.for_each(rows, |row, list| {
        for_items(reader, kind, list, |item| {
            if let (false, Some(name)) = (names.is_empty(), item.name()?) {
                let value = |name: &[u8]| decoded_text(name).map(Some);
                names.iter().try_for_each(|slot| firsts[*slot].take(row, name, value).map(|_| ()))?;
            }
            item.for_attributes(|attribute| {
                let (key, value) = key_and_value(attribute)?;
                for slot in slots.get(key).into_iter().flatten() {
                    is_simple &= firsts[*slot].take(row, value, simple_value)?;
                }
                Ok(())
            })
        })
    })?;
    Ok(is_simple.then(|| firsts.into_iter().map(|firsts| firsts.finish(reader.row_count())).collect()))
}

/// The first values of a field, each different one decoded once.
#[derive(Default)]
struct Firsts<'a> {
    /// By their bytes.
    known: HashMap<&'a [u8], i32>,
    values: Vec<Option<Value>>,
    /// Ascending.
    rows: Vec<u32>,
    /// One per row listed.
    codes: Vec<i32>,
}

impl<'a> Firsts<'a> {
    /// Takes a value unless the row, which is not before those that were given, has one. Whether it could.
    fn take(
        &mut self,
        row: usize,
        bytes: &'a [u8],
        decode: impl Fn(&[u8]) -> Result<Option<Value>, WireError>,
    ) -> Result<bool, WireError> {
        if self.rows.last() == Some(&(row as u32)) {
            return Ok(true);
        }
        let code = match self.known.get(bytes) {
            Some(code) => *code,
            None => {
                let Some(value) = decode(bytes)? else { return Ok(false) };
                self.values.push(Some(value));
                let code = self.values.len() as i32 - 1;
                self.known.insert(bytes, code);
                code
            }
        };
        self.rows.push(row as u32);
        self.codes.push(code);
        Ok(true)
    }

    fn finish(self, row_count: usize) -> Option<ColumnPart> {
        let mut codes = vec![0; row_count];
        let mut present = Bits::none(row_count);
        for (row, code) in self.rows.iter().zip(&self.codes) {
            codes[*row as usize] = *code;
            present.insert(*row as usize);
        }
        let codes = Int32Array::new(codes.into(), nulls(&present));
        (!self.rows.is_empty()).then(|| ColumnPart::Coded { codes, values: self.values.into() })
    }
}

fn decoded_text(bytes: &[u8]) -> Result<Value, WireError> {
    std::str::from_utf8(bytes).map(|text| Value::Str(text.to_owned())).map_err(|_| WireError::Utf8)
}

/// A text, number or boolean; `None` for what else there is.
fn simple_value(bytes: &[u8]) -> Result<Option<Value>, WireError> {
    let value = nested::decode_value(bytes)?;
    Ok(matches!(value, Value::Str(_) | Value::Int(_) | Value::Double(_) | Value::Bool(_)).then_some(value))
}

/// What [`items`] are of events, of residual attributes, by their names.
pub(super) fn residual(
    reader: &GroupReader<'_>,
    wanted: &[&Arc<str>],
    rows: &Bits,
) -> Result<Vec<Option<ColumnPart>>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let slots = slots(wanted.iter().copied().enumerate());
    let mut columns: Vec<(Vec<u32>, Vec<Value>)> = vec![Default::default(); wanted.len()];
    let mut found = vec![None; wanted.len()];
    for_lists(reader, "residual_otlp", rows, |row, list| {
        let mut fill_all = || nested::split_list(list)?.into_iter().try_for_each(|one| fill(&slots, &mut found, one));
        fill_all().map_err(|err: WireError| reader.corrupt(format!("residual_otlp: {err}")))?;
        for (value, (rows, values)) in found.iter_mut().zip(&mut columns) {
            if let Some(value) = value.take() {
                rows.push(row as u32);
                values.push(value);
            }
        }
        Ok(())
    })?;
    let part = |(rows, values): (Vec<u32>, _)| (!rows.is_empty()).then_some(ColumnPart::Sparse { rows, values });
    Ok(columns.into_iter().map(part).collect())
}
