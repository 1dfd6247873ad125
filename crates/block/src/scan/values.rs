//! Values of fields by row, coded wherever the block has codes.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int32Type, Int64Type, TimestampNanosecondType};
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, PrimitiveArray, StringArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnPart, FieldColumn};
use spoor_model::scan::{AttrScope, Field};
use spoor_model::value::{self, Value};

use super::compile::{IdField, ItemKind};
use super::evaluate::{clamped, hex};
use super::group::GroupReader;
use super::lists::{self, Wanted};
use super::stored::{Stored, Texts, nulls};
use super::tree;
use crate::error::Error;
use crate::outline::Outline;
use crate::rows::attr_value;

/// A dictionary with more entries than one per this many rows is no use to whoever works per entry.
const CODED_ROWS_PER_ENTRY: usize = 4;

/// Values by number.
type ValueTable = Arc<[Option<Value>]>;

/// Where a field has its values in one block, what counts first first.
#[derive(Debug)]
pub(super) struct Source {
    parts: Vec<SourcePart>,
}

#[derive(Debug)]
enum SourcePart {
    Shapes(ValueTable),
    Origins(ValueTable),
    /// The same for all rows.
    Constant(Value),
    /// A column, by its place in the file.
    Column(usize),
    /// A column of unsigned numbers.
    Unsigned(usize),
    /// The column of start times.
    Starts(usize),
    Residual(Arc<str>),
    /// Of each event or link; of a lookup in all scopes only those that have it.
    Items {
        kind: ItemKind,
        field: Field,
        is_lookup: bool,
    },
    Ids(IdField),
}

impl Source {
    /// Finds the places. Copies the values of shapes and origins.
    pub(super) fn new(field: &Field, outline: &Outline) -> Self {
        let column = |name: &str| outline.column(name).map(SourcePart::Column);
        let int = |int: Option<i32>| int.map(|int| Value::Int(i64::from(int)));
        let unsigned = |name: &str| outline.column(name).map(SourcePart::Unsigned);
        let items = |kind| Some(SourcePart::Items { kind, field: field.clone(), is_lookup: false });
        let part = match field {
            Field::Attribute(scope, key) => return Self::of_attribute(*scope, key, outline),
            Field::StatusMessage | Field::TraceState => {
                let name = if *field == Field::TraceState { "trace_state" } else { "status_message" };
                let mut parts: Vec<SourcePart> = column(name).into_iter().collect();
                parts.push(SourcePart::Constant(Value::Str(String::new())));
                return Self { parts };
            }
            Field::Name => column("name").or_else(|| shapes(outline, |shape| shape.name.clone().map(Value::Str))),
            Field::Kind => column("kind").or_else(|| shapes(outline, |shape| int(shape.kind))),
            Field::Status => column("status_code").or_else(|| shapes(outline, |shape| int(shape.status_code))),
            Field::Duration => unsigned("duration_nano"),
            Field::StartTime => outline.column("start_time_unix_nano").map(SourcePart::Starts),
            Field::TraceId => Some(SourcePart::Ids(IdField::Trace)),
            Field::SpanId => Some(SourcePart::Ids(IdField::Span)),
            Field::ParentSpanId => Some(SourcePart::Ids(IdField::Parent)),
            Field::InstrumentationName => origins(outline, |origin| Some(Value::Str(origin.scope.name.clone()))),
            Field::InstrumentationVersion => origins(outline, |origin| Some(Value::Str(origin.scope.version.clone()))),
            Field::EventName | Field::EventTimeSinceStart => items(ItemKind::Event),
            Field::LinkTraceId | Field::LinkSpanId => items(ItemKind::Link),
        };
        Self { parts: part.into_iter().collect() }
    }

    fn of_attribute(scope: AttrScope, key: &Arc<str>, outline: &Outline) -> Self {
        let resource = || origins(outline, |origin| value::find(&origin.resource.attributes, key).cloned());
        let instrumentation = || origins(outline, |origin| value::find(&origin.scope.attributes, key).cloned());
        let span = || {
            let mut parts: Vec<SourcePart> =
                shapes(outline, |shape| value::find(&shape.attributes, key).cloned()).into_iter().collect();
            parts.extend(outline.attribute_columns(key).map(SourcePart::Column));
            if outline.catalogue.residual_keys.contains(&**key) {
                parts.push(SourcePart::Residual(Arc::clone(key)));
            }
            parts
        };
        let items = |kind: ItemKind, is_lookup: bool| {
            let field = Field::Attribute(kind.scope(), Arc::clone(key));
            // Items without the attribute count too, unless the attribute is looked up in all scopes.
            (!is_lookup || kind.keys(outline).contains(&**key)).then_some(SourcePart::Items { kind, field, is_lookup })
        };
        let parts = match scope {
            AttrScope::Span => span(),
            AttrScope::Resource => resource().into_iter().collect(),
            AttrScope::Instrumentation => instrumentation().into_iter().collect(),
            AttrScope::Event => items(ItemKind::Event, false).into_iter().collect(),
            AttrScope::Link => items(ItemKind::Link, false).into_iter().collect(),
            AttrScope::Any => {
                let mut parts = span();
                parts.extend(resource());
                parts.extend(items(ItemKind::Event, true));
                parts.extend(items(ItemKind::Link, true));
                parts.extend(instrumentation());
                parts
            }
        };
        let ends_at = parts.iter().position(SourcePart::is_always_there).map_or(parts.len(), |last| last + 1);
        Self { parts: parts.into_iter().take(ends_at).collect() }
    }
}

/// Which values are to be read.
pub(super) struct Asked<'a> {
    /// At least those of these rows.
    pub(super) rows: &'a Bits,
    /// Start times at least of these.
    pub(super) starts_of: &'a Bits,
    /// Of events and links perhaps only the first.
    pub(super) first_will_do: bool,
}

/// The values of a row group, one column per source.
pub(super) fn read(sources: &[Source], reader: &GroupReader<'_>, asked: &Asked<'_>) -> Result<Vec<FieldColumn>, Error> {
    let wanted = asked.rows;
    let parts = || sources.iter().flat_map(|source| &source.parts);
    let items = |kind: ItemKind| {
        let fields = parts().filter_map(|part| match part {
            SourcePart::Items { kind: of, field, is_lookup } if *of == kind => {
                Some(Wanted { field, is_lookup: *is_lookup })
            }
            _ => None,
        });
        let fields: Vec<_> = fields.collect();
        if asked.first_will_do
            && let Some(firsts) = lists::first_items(reader, kind, &fields, wanted)?
        {
            return Ok(firsts.into_iter());
        }
        lists::items(reader, kind, &fields, wanted).map(Vec::into_iter)
    };
    let keys = parts().filter_map(|part| if let SourcePart::Residual(key) = part { Some(key) } else { None });
    // In the order of the parts that want them.
    let mut residual = lists::residual(reader, &keys.collect::<Vec<_>>(), wanted)?.into_iter();
    let (mut events, mut links) = (items(ItemKind::Event)?, items(ItemKind::Link)?);
    let mut columns = Vec::with_capacity(sources.len());
    for source in sources {
        let mut parts = Vec::new();
        for part in &source.parts {
            parts.extend(match part {
                SourcePart::Items { kind: ItemKind::Event, .. } => events.next().flatten(),
                SourcePart::Items { kind: ItemKind::Link, .. } => links.next().flatten(),
                SourcePart::Residual(_) => residual.next().flatten(),
                SourcePart::Starts(column) => starts(reader, *column, asked.starts_of)?,
                part => part.read(reader, wanted)?,
            });
        }
        columns.push(FieldColumn { parts });
    }
    Ok(columns)
}

fn table(values: Vec<Option<Value>>) -> Option<ValueTable> {
    values.iter().any(Option::is_some).then(|| values.into())
}

fn shapes(outline: &Outline, value: impl Fn(&crate::tables::Shape) -> Option<Value>) -> Option<SourcePart> {
    table(outline.shapes.iter().map(|shape| value(shape)).collect()).map(SourcePart::Shapes)
}

fn origins(outline: &Outline, value: impl Fn(&spoor_model::Origin) -> Option<Value>) -> Option<SourcePart> {
    table(outline.origins.iter().map(|origin| value(origin)).collect()).map(SourcePart::Origins)
}

impl SourcePart {
    fn is_always_there(&self) -> bool {
        matches!(self, Self::Shapes(table) | Self::Origins(table) if table.iter().all(Option::is_some))
    }

    fn read(&self, reader: &GroupReader<'_>, wanted: &Bits) -> Result<Option<ColumnPart>, Error> {
        let coded = |codes, values: &ValueTable| Ok(Some(ColumnPart::Coded { codes, values: Arc::clone(values) }));
        match self {
            Self::Shapes(values) => coded(reader.numbers("shape_id", values.len())?, values),
            Self::Origins(values) => coded(reader.numbers("origin_id", values.len())?, values),
            Self::Constant(value) => {
                let codes = Int32Array::from(vec![0; reader.row_count()]);
                Ok(Some(ColumnPart::Coded { codes, values: Arc::new([Some(value.clone())]) }))
            }
            Self::Column(column) | Self::Unsigned(column) => {
                if reader.opened.is_all_null(reader.group, *column) {
                    return Ok(None);
                }
                let picked = reader.picked(*column, wanted)?;
                let is_unsigned = matches!(self, Self::Unsigned(_));
                match (&picked.values, &picked.rows) {
                    (Stored::Codes { codes, entries }, _) => of_codes(reader, codes, entries, wanted).map(Some),
                    (Stored::Array(array), Some(rows)) => Ok(of_few(array, rows, is_unsigned)),
                    (Stored::Array(array), None) => {
                        of_array(array, is_unsigned).map(Some).map_err(|reason| reader.corrupt(reason))
                    }
                }
            }
            // Read with all others of their kind, or for rows of their own.
            Self::Items { .. } | Self::Residual(_) | Self::Starts(_) => Ok(None),
            Self::Ids(field) => read_ids(reader, *field, wanted).map(Some),
        }
    }
}

/// Start times, at least at the rows of `wanted`: a number per row, so that few are counted as fast as all.
fn starts(reader: &GroupReader<'_>, column: usize, wanted: &Bits) -> Result<Option<ColumnPart>, Error> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let picked = reader.picked(column, wanted)?;
    let Stored::Array(array) = &picked.values else { return Err(reader.corrupt("start times are no numbers")) };
    let part = of_array(array, true).map_err(|reason| reader.corrupt(reason))?;
    let (ColumnPart::Int(starts), Some(rows)) = (&part, &picked.rows) else { return Ok(Some(part)) };
    let mut by_row = vec![0; wanted.len()];
    rows.iter().zip(starts.values()).for_each(|(row, start)| by_row[*row as usize] = *start);
    Ok(Some(ColumnPart::Int(Int64Array::new(by_row.into(), nulls(wanted)))))
}

/// The values of few rows, as themselves.
fn of_few(array: &ArrayRef, rows: &[u32], is_unsigned: bool) -> Option<ColumnPart> {
    let int = |value: i64| if is_unsigned { clamped(value) } else { value };
    let value = |place: usize| match array.data_type() {
        DataType::Int32 => Some(Value::Int(i64::from(array.as_primitive::<Int32Type>().value(place)))),
        DataType::Int64 if is_unsigned => Some(Value::Int(int(array.as_primitive::<Int64Type>().value(place)))),
        DataType::Timestamp(..) => Some(Value::Int(int(array.as_primitive::<TimestampNanosecondType>().value(place)))),
        _ => attr_value(array, place).map(|value| value.to_value()),
    };
    let found = rows.iter().enumerate().filter_map(|(place, row)| value(place).map(|value| (*row, value)));
    let (rows, values): (Vec<u32>, Vec<Value>) = found.unzip();
    (!rows.is_empty()).then_some(ColumnPart::Sparse { rows, values })
}

/// The values of a column as they are stored.
fn of_array(array: &ArrayRef, is_unsigned: bool) -> Result<ColumnPart, String> {
    Ok(match array.data_type() {
        DataType::Int32 => {
            let values = array.as_primitive::<Int32Type>();
            ColumnPart::Int(values.values().iter().map(|value| i64::from(*value)).collect::<Vec<_>>().into())
        }
        DataType::Int64 => {
            let values = array.as_primitive::<Int64Type>();
            ColumnPart::Int(if is_unsigned { ints(values) } else { values.clone() })
        }
        DataType::Timestamp(..) => ColumnPart::Int(ints(array.as_primitive::<TimestampNanosecondType>())),
        DataType::Float64 => ColumnPart::Double(array.as_primitive().clone()),
        DataType::Boolean => ColumnPart::Bool(array.as_boolean().clone()),
        DataType::Utf8 => ColumnPart::Text(array.as_string::<i32>().clone()),
        DataType::Binary => of_encoded(array),
        other => return Err(format!("a column of type {other}")),
    })
}

/// Unsigned numbers, those past the largest integer as that. There are none as a rule; then nothing is copied.
fn ints<T: ArrowPrimitiveType<Native = i64>>(array: &PrimitiveArray<T>) -> Int64Array {
    // All at once: looking at one after the other until one is negative takes four times as long.
    match array.values().iter().fold(0, |all, value| all | value) < 0 {
        true => array.values().iter().map(|value| clamped(*value)).collect::<Vec<i64>>().into(),
        false => array.reinterpret_cast(),
    }
}

/// Texts: coded where an entry stands for several of the wanted rows, else as they are.
fn of_codes(
    reader: &GroupReader<'_>,
    codes: &Int32Array,
    entries: &StringArray,
    wanted: &Bits,
) -> Result<ColumnPart, Error> {
    let mut rows = match codes.nulls() {
        Some(nulls) => of_nulls(nulls),
        None => Bits::all(codes.len()),
    };
    rows.intersect(wanted);
    if entries.len() * CODED_ROWS_PER_ENTRY <= rows.count() {
        let values = entries.iter().map(|entry| entry.map(|text| Value::Str(text.to_owned()))).collect();
        return Ok(ColumnPart::Coded { codes: codes.clone(), values });
    }
    let mut texts = Texts::with_rows(codes.len());
    let values = codes.values();
    let mut is_sound = true;
    rows.for_each_in(0..codes.len(), |row| {
        is_sound &= texts.push(row, entries.value(values[row] as usize).as_bytes()).is_some();
    });
    let texts = texts.finish(codes.len()).filter(|_| is_sound);
    texts.map(ColumnPart::Text).ok_or_else(|| reader.corrupt("a column of more than 2 GiB of text"))
}

fn of_nulls(nulls: &NullBuffer) -> Bits {
    let mut rows = Bits::none(nulls.len());
    nulls.inner().set_slices().for_each(|(from, to)| rows.insert_range(from..to));
    rows
}

/// Encoded values: mostly few different ones, each decoded once.
fn of_encoded(array: &ArrayRef) -> ColumnPart {
    let encoded = array.as_binary::<i32>();
    let mut values: Vec<Option<Value>> = Vec::new();
    let mut known: HashMap<&[u8], i32> = HashMap::new();
    let mut code = |bytes| {
        *known.entry(bytes).or_insert_with(|| {
            values.push(Some(spoor_model::batch::AttrValue::Encoded(bytes).to_value()));
            values.len() as i32 - 1
        })
    };
    let codes: Int32Array = encoded.iter().map(|bytes| bytes.map(&mut code)).collect();
    ColumnPart::Coded { codes, values: values.into() }
}

fn read_ids(reader: &GroupReader<'_>, field: IdField, wanted: &Bits) -> Result<ColumnPart, Error> {
    let len = reader.row_count();
    if field == IdField::Trace {
        let values = reader.trace_ids()?.iter().map(|id| Some(Value::Str(hex(&id.0)))).collect();
        let mut codes = Vec::with_capacity(len);
        for trace in 0..reader.group().traces.len() {
            codes.resize(tree::rows_of_trace(reader, trace).end, trace as i32);
        }
        return Ok(ColumnPart::Coded { codes: codes.into(), values });
    }
    let texts = |id: &dyn Fn(usize) -> String| {
        let text = |row| wanted.contains(row).then(|| id(row));
        ColumnPart::Text((0..len).map(text).collect::<StringArray>())
    };
    Ok(match field {
        IdField::Parent => {
            let ids = tree::parent_ids(reader)?;
            texts(&|row| hex(&ids[row]))
        }
        _ => {
            let ids = tree::span_ids(reader)?;
            texts(&|row| hex(ids.value(row)))
        }
    })
}
