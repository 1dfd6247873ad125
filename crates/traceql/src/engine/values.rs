//! Values of all rows at once: codes to group by, numbers to compute with.

use std::borrow::Cow;

use arrow_array::{Array, Int32Array};
use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart, NO_ROW};

use super::frame::{Column, Frame, Part};
use super::operand::{Meaning, Operand, TraceValue};
use crate::ast::Static;

/// A code per row and what the codes mean.
#[derive(Debug, Clone)]
pub(crate) struct Coded {
    /// One per row, each an index of `values`.
    pub(crate) codes: Vec<u32>,
    /// Distinct, by value and type; [`Static::Nil`] where rows have no value, or one that cannot be told from
    /// others (maps and bytes).
    pub(crate) values: Vec<Static>,
}

/// The numbers among the values of rows.
#[derive(Debug, Clone)]
pub(crate) enum Numbers<'a> {
    /// All that there are, are integers (or durations in nanoseconds).
    Ints {
        values: Cow<'a, [i64]>,
        /// `None`: every row has one.
        present: Option<Bits>,
        is_duration: bool,
    },
    /// All that there are, are floats.
    Floats { values: Cow<'a, [f64]>, present: Option<Bits> },
    /// Several kinds: [`Static::Nil`] for rows without a number.
    Mixed(Vec<Static>),
}

/// Gives out codes.
#[derive(Default)]
struct Coder {
    values: Vec<Static>,
    known: HashMap<Static, u32>,
}

impl Coder {
    fn code(&mut self, value: Static) -> u32 {
        let value = if let Static::Opaque(_) = value { Static::Nil } else { value };
        *self.known.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            self.values.len() as u32 - 1
        })
    }
}

impl Operand {
    /// The codes of a column as the source has them, and what each means; `None` when there is no one such
    /// column. A null is no value.
    pub(crate) fn column_codes<'a>(&self, frame: &Frame<'a>) -> Option<(&'a Int32Array, Vec<Static>)> {
        let Self::Field { column, meaning } = self else { return None };
        let [Part::Coded { codes, values }] = &frame.column(*column).parts[..] else { return None };
        let value = |value: &Option<Static>| value.as_ref().map_or(Static::Nil, |value| meaning.value(value.clone()));
        Some((codes, values.iter().map(value).collect()))
    }

    /// The values of rows as codes, for grouping; rows that are not `among` those asked for may have any code.
    pub(crate) fn coded(&self, frame: &Frame<'_>, among: &Bits) -> Coded {
        let mut coder = Coder::default();
        let row_count = frame.batch.row_count();
        let codes = match self {
            Self::Field { column, meaning } => match &frame.column(*column).parts[..] {
                [] => Some(vec![coder.code(Static::Nil); row_count]),
                [Part::Coded { codes, values }] => Some(column_codes(codes, values, *meaning, &mut coder)),
                _ => None,
            },
            Self::OfTrace(TraceValue::RootName(column) | TraceValue::RootServiceName(column)) => {
                Some(root_codes(*column, frame, &mut coder).unwrap_or_else(|| trace_codes(self, frame, &mut coder)))
            }
            operand if operand.is_per_trace() => Some(trace_codes(operand, frame, &mut coder)),
            _ => None,
        };
        let codes = codes.unwrap_or_else(|| {
            let mut codes = vec![0; row_count];
            among.iter().for_each(|row| codes[row] = coder.code(self.value(frame, row)));
            codes
        });
        Coded { codes, values: coder.values }
    }

    /// The numbers among the values of rows; of rows that are not `among` those asked for, nothing is said.
    pub(crate) fn numbers<'a>(&self, frame: &Frame<'a>, among: &Bits) -> Numbers<'a> {
        let by_column = match self {
            Self::Field { column, meaning } => column_numbers(frame.column(*column), frame.batch, *meaning),
            _ => None,
        };
        by_column.unwrap_or_else(|| {
            let mut values = vec![Static::Nil; frame.batch.row_count()];
            among.iter().for_each(|row| values[row] = number(self.value(frame, row)));
            Numbers::Mixed(values)
        })
    }
}

fn number(value: Static) -> Static {
    match value {
        Static::Int(_) | Static::Float(_) | Static::Duration(_) => value,
        _ => Static::Nil,
    }
}

/// Codes by the column's own, which may name a value twice.
fn column_codes(codes: &Int32Array, values: &[Option<Static>], meaning: Meaning, coder: &mut Coder) -> Vec<u32> {
    let by_code: Vec<u32> = values
        .iter()
        .map(|value| coder.code(value.as_ref().map_or(Static::Nil, |value| meaning.value(value.clone()))))
        .collect();
    let raw = codes.values().iter().map(|code| *code as usize);
    match codes.nulls() {
        None => raw.map(|code| by_code[code]).collect(),
        Some(nulls) => {
            let nil = coder.code(Static::Nil);
            // What stands where there is no value may be no code.
            raw.zip(nulls).map(|(code, is_valid)| if is_valid { by_code[code] } else { nil }).collect()
        }
    }
}

/// Texts of the roots by the column's own codes: no text is looked at twice. `None` when the column has no one code per
/// row.
fn root_codes(column: usize, frame: &Frame<'_>, coder: &mut Coder) -> Option<Vec<u32>> {
    let [Part::Coded { codes, values }] = &frame.column(column).parts[..] else { return None };
    let batch = frame.batch;
    let mut by_code: Vec<Option<u32>> = vec![None; values.len()];
    let mut nameless = None;
    let mut of_rows = Vec::with_capacity(batch.row_count());
    for trace in 0..batch.trace_count() {
        let root = batch.roots[trace];
        let named = (root != NO_ROW && codes.is_valid(root as usize)).then(|| codes.value(root as usize) as usize);
        let text = named.and_then(|code| values[code].as_ref()).filter(|value| matches!(value, Static::Str(_)));
        let known = match named {
            Some(code) => &mut by_code[code],
            None => &mut nameless,
        };
        let code = *known.get_or_insert_with(|| coder.code(text.cloned().unwrap_or_else(|| Static::Str("".into()))));
        of_rows.resize(batch.rows_of(trace).end, code);
    }
    Some(of_rows)
}

fn trace_codes(operand: &Operand, frame: &Frame<'_>, coder: &mut Coder) -> Vec<u32> {
    let mut codes = Vec::with_capacity(frame.batch.row_count());
    for trace in 0..frame.batch.trace_count() {
        let rows = frame.batch.rows_of(trace);
        let code = coder.code(operand.value(frame, rows.start));
        codes.resize(rows.end, code);
    }
    codes
}

fn column_numbers<'a>(column: &Column<'a>, batch: &ColumnBatch, meaning: Meaning) -> Option<Numbers<'a>> {
    let is_duration = matches!(meaning, Meaning::Duration | Meaning::EventTime);
    let present = |array: &dyn Array| {
        array.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| {
            let mut rows = Bits::none(nulls.len());
            nulls.valid_slices().for_each(|(from, to)| rows.insert_range(from..to));
            rows
        })
    };
    match &column.parts[..] {
        [] => Some(Numbers::Ints {
            values: vec![0; batch.row_count()].into(),
            present: Some(Bits::none(batch.row_count())),
            is_duration,
        }),
        [Part::Plain(ColumnPart::Int(array))] if is_number(meaning) => {
            Some(Numbers::Ints { values: Cow::Borrowed(array.values()), present: present(array), is_duration })
        }
        [Part::Plain(ColumnPart::Double(array))] => {
            Some(Numbers::Floats { values: Cow::Borrowed(array.values()), present: present(array) })
        }
        [Part::Coded { codes, values }] if is_number(meaning) && values.iter().flatten().all(is_int) => {
            let (values, present) = coded_ints(codes, values);
            Some(Numbers::Ints { values: values.into(), present, is_duration })
        }
        _ => None,
    }
}

/// By row: the integer that its code stands for, and whether it has one (`None`: all rows have).
fn coded_ints(codes: &Int32Array, values: &[Option<Static>]) -> (Vec<i64>, Option<Bits>) {
    let int = |value: &Option<Static>| match value {
        Some(Static::Int(int)) => Some(*int),
        _ => None,
    };
    let by_code: Vec<Option<i64>> = values.iter().map(int).collect();
    // What stands where there is no value may be no code.
    let of = |code: &i32| by_code.get(*code as usize).copied().flatten();
    let ints = codes.values().iter().map(|code| of(code).unwrap_or(0)).collect();
    let is_complete = codes.null_count() == 0 && by_code.iter().all(Option::is_some);
    let present = |(row, code)| u8::from(codes.is_valid(row) && of(code).is_some());
    let present = (!is_complete).then(|| codes.values().iter().enumerate().map(present).collect::<Vec<u8>>());
    (ints, present.map(|present| Bits::from_bytes(&present)))
}

fn is_int(value: &Static) -> bool {
    matches!(value, Static::Int(_))
}

/// Statuses and kinds are kept as integers, and are none.
fn is_number(meaning: Meaning) -> bool {
    !matches!(meaning, Meaning::Status | Meaning::Kind)
}
