//! Values of events, links and residual attributes: lists of messages, one list per row that has any.
//!
//! All fields that a request wants of one kind of list are read in one pass, so that a list is split once, and of its
//! messages nothing is decoded but the values that are wanted.

use std::sync::Arc;

use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::ColumnPart;
use spoor_model::nested;
use spoor_model::scan::Field;
use spoor_model::value::Value;
use spoor_model::wire::WireError;

use super::compile::ItemKind;
use super::evaluate::{ItemStarts, for_items, for_lists, key_of};
use super::group::GroupReader;
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

/// The same of residual attributes, by their names.
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
