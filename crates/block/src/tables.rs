//! The two dimension tables: `shapes.parquet` and `origins.parquet`.
//!
//! Each holds its content twice: once as columns and maps of texts, for people with DuckDB or
//! pandas, and once as OTLP messages, from which Spoor reads back exactly what was sent.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, MapBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::arrow::{ArrowWriter, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::WriterProperties;
use spoor_model::batch::AttrValue;
use spoor_model::value::{KeyValue, Value};
use spoor_model::{Origin, nested};

use crate::error::Error;
use crate::interned::Interner;
use crate::meta::FileMeta;
use crate::pages::TableChunks;
use crate::pieces::PieceWriter;
use crate::shape::{Dimension, ShapeValues};

/// Rows of a table decoded at once: more than most blocks have shapes.
const BATCH_ROWS: usize = 8192;

/// A shape, read back. Fields that are `None` vary and are columns of `spans.parquet`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    pub(crate) name: Option<String>,
    pub(crate) kind: Option<i32>,
    pub(crate) status_code: Option<i32>,
    pub(crate) flags: Option<u32>,
    pub(crate) attributes: Vec<KeyValue>,
}

fn write_table(path: std::path::PathBuf, columns: Vec<(&str, ArrayRef)>, zstd_level: i32) -> Result<FileMeta, Error> {
    let nullable = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(nullable).map_err(|err| Error::encode(&path, &err))?;
    let level = ZstdLevel::try_new(zstd_level).map_err(|err| Error::encode(&path, &err))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let file = PieceWriter::create(path.clone())?;
    let mut writer =
        ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(|err| Error::encode(&path, &err))?;
    writer.write(&batch).map_err(|err| Error::encode(&path, &err))?;
    writer.into_inner().map_err(|err| Error::encode(&path, &err))?.finish()
}

/// Some columns of a small table, all rows. What people read beside them is not touched.
fn read_table(bytes: &Bytes, columns: &[&str], object: &str) -> Result<Vec<RecordBatch>, Error> {
    let corrupt = |err: &dyn std::error::Error| Error::corrupt(object, err.to_string());
    let metadata = ParquetMetaDataReader::new().parse_and_finish(bytes).map_err(|err| corrupt(&err))?;
    let schema = metadata.file_metadata().schema_descr();
    let is_wanted = |leaf: &usize| columns.iter().any(|name| schema.column(*leaf).path().parts() == [*name]);
    let mask = ProjectionMask::leaves(schema, (0..schema.num_columns()).filter(is_wanted));
    let levels = parquet_to_arrow_field_levels(schema, mask, None).map_err(|err| corrupt(&err))?;
    let mut batches = Vec::new();
    for group in 0..metadata.num_row_groups() {
        let chunks = TableChunks { file: bytes, metadata: &metadata, group };
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(&levels, &chunks, BATCH_ROWS, None);
        for batch in reader.map_err(|err| corrupt(&err))? {
            batches.push(batch.map_err(|err| corrupt(&err))?);
        }
    }
    Ok(batches)
}

fn column<'a>(batch: &'a RecordBatch, name: &str, object: &str) -> Result<&'a ArrayRef, Error> {
    batch.column_by_name(name).ok_or_else(|| Error::corrupt(object, format!("column {name} is missing")))
}

/// How a person sees a value: texts as they are, the rest as JSON would have it.
fn display(value: &Value) -> String {
    match value {
        Value::Str(text) => text.clone(),
        other => display_nested(other),
    }
}

fn display_nested(value: &Value) -> String {
    match value {
        Value::Empty => "null".to_owned(),
        Value::Str(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(int) => int.to_string(),
        Value::Double(double) => double.to_string(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Value::Array(values) => format!("[{}]", values.iter().map(display_nested).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let entry = |entry: &KeyValue| {
                format!("{}:{}", serde_json::Value::from(entry.key.as_str()), display_nested(&entry.value))
            };
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
        }
    }
}

type TextMap = MapBuilder<StringBuilder, StringBuilder>;

fn append_map(map: &mut TextMap, attributes: &[KeyValue]) -> Result<(), arrow_schema::ArrowError> {
    // A Parquet map has each key once: the first of a repeated key is shown, the OTLP form has all.
    for (index, attribute) in attributes.iter().enumerate() {
        if attributes[..index].iter().all(|earlier| earlier.key != attribute.key) {
            map.keys().append_value(&attribute.key);
            map.values().append_value(display(&attribute.value));
        }
    }
    map.append(true)
}

fn encode_list(attributes: &[KeyValue]) -> Vec<u8> {
    let mut list = Vec::new();
    for attribute in attributes {
        let mut message = Vec::new();
        nested::put_key_value(&mut message, attribute);
        nested::put_list_item(&mut list, &message);
    }
    list
}

/// Reads a list of encoded `KeyValue`s.
pub(crate) fn decode_list(list: &[u8], object: &str) -> Result<Vec<KeyValue>, Error> {
    let messages = nested::split_list(list).map_err(|err| Error::corrupt(object, err.to_string()))?;
    let decode = |bytes: &&[u8]| nested::decode_key_value(bytes).map_err(|err| Error::corrupt(object, err.to_string()));
    messages.iter().map(decode).collect()
}

/// Spells the shapes out. `key_of` names a merged column's attribute.
pub(crate) fn spell_shapes<'a>(shapes: &[ShapeValues], key_of: impl Fn(usize) -> &'a str) -> Vec<Shape> {
    let spell = |values: &ShapeValues| {
        let mut shape = Shape::default();
        for (dimension, value) in values {
            match (dimension, value.borrow()) {
                (Dimension::Name, AttrValue::Str(text)) => {
                    shape.name = Some(String::from_utf8_lossy(text).into_owned())
                }
                (Dimension::Kind, AttrValue::Int(kind)) => shape.kind = Some(kind as i32),
                (Dimension::StatusCode, AttrValue::Int(code)) => shape.status_code = Some(code as i32),
                (Dimension::Flags, AttrValue::Int(flags)) => shape.flags = Some(flags as u32),
                (Dimension::Attribute(index), value) => {
                    shape.attributes.push(KeyValue::new(key_of(*index), value.to_value()));
                }
                (dimension, value) => unreachable!("{dimension:?} never has {value:?}"),
            }
        }
        shape
    };
    shapes.iter().map(spell).collect()
}

pub(crate) fn write_shapes(dir: &Path, shapes: &[Shape], zstd_level: i32) -> Result<FileMeta, Error> {
    let path = dir.join("shapes.parquet");
    let mut name = StringBuilder::new();
    let [mut shape_id, mut kind, mut status_code] = std::array::from_fn(|_| Int32Builder::new());
    let mut flags = Int64Builder::new();
    let mut attributes = TextMap::new(None, StringBuilder::new(), StringBuilder::new());
    let mut otlp = BinaryBuilder::new();
    for (id, shape) in shapes.iter().enumerate() {
        shape_id.append_value(id as i32);
        name.append_option(shape.name.as_deref());
        kind.append_option(shape.kind);
        status_code.append_option(shape.status_code);
        flags.append_option(shape.flags.map(i64::from));
        append_map(&mut attributes, &shape.attributes).map_err(|err| Error::encode(&path, &err))?;
        otlp.append_value(encode_list(&shape.attributes));
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("shape_id", Arc::new(shape_id.finish())),
        ("name", Arc::new(name.finish())),
        ("kind", Arc::new(kind.finish())),
        ("status_code", Arc::new(status_code.finish())),
        ("flags", Arc::new(flags.finish())),
        ("attributes", Arc::new(attributes.finish())),
        ("attributes_otlp", Arc::new(otlp.finish())),
    ];
    write_table(path, columns, zstd_level)
}

/// Reads the shapes. Those that other blocks have too are not decoded again.
pub(crate) fn read_shapes(bytes: &Bytes, known: &Interner<Shape>, object: &str) -> Result<Vec<Arc<Shape>>, Error> {
    let mut shapes = Vec::new();
    let columns = ["name", "kind", "status_code", "flags", "attributes_otlp"];
    for batch in read_table(bytes, &columns, object)? {
        let int32 = |name| {
            column(&batch, name, object).and_then(|array| {
                array
                    .as_primitive_opt::<Int32Type>()
                    .ok_or_else(|| Error::corrupt(object, format!("column {name} is not int32")))
            })
        };
        let (kind, status_code) = (int32("kind")?, int32("status_code")?);
        let wrong = |name: &str| Error::corrupt(object, format!("column {name} has the wrong type"));
        let name = column(&batch, "name", object)?.as_string_opt::<i32>().ok_or_else(|| wrong("name"))?;
        let flags = column(&batch, "flags", object)?.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("flags"))?;
        let otlp = column(&batch, "attributes_otlp", object)?
            .as_binary_opt::<i32>()
            .ok_or_else(|| wrong("attributes_otlp"))?;
        for row in 0..batch.num_rows() {
            let stored = StoredShape {
                name: name.is_valid(row).then(|| name.value(row)),
                kind: kind.is_valid(row).then(|| kind.value(row)),
                status_code: status_code.is_valid(row).then(|| status_code.value(row)),
                flags: flags.is_valid(row).then(|| flags.value(row) as u32),
                attributes: otlp.value(row),
            };
            shapes.push(known.get(&stored.encoded(), || stored.decode(object))?);
        }
    }
    Ok(shapes)
}

/// A shape as it stands in the table.
struct StoredShape<'a> {
    name: Option<&'a str>,
    kind: Option<i32>,
    status_code: Option<i32>,
    flags: Option<u32>,
    attributes: &'a [u8],
}

impl StoredShape<'_> {
    /// Equal for equal shapes, and for no others.
    fn encoded(&self) -> Vec<u8> {
        let number = |number: Option<u32>| {
            number.map_or([0; 5], |number| {
                let [a, b, c, d] = number.to_le_bytes();
                [1, a, b, c, d]
            })
        };
        let name = self.name.unwrap_or_default();
        let mut out = Vec::with_capacity(24 + name.len() + self.attributes.len());
        let numbers = [self.kind.map(|kind| kind as u32), self.status_code.map(|code| code as u32), self.flags];
        numbers.into_iter().for_each(|of| out.extend_from_slice(&number(of)));
        out.extend_from_slice(&number(self.name.map(|name| name.len() as u32)));
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(self.attributes);
        out
    }

    /// The shape, and what it takes in memory.
    fn decode(&self, object: &str) -> Result<(Shape, usize), Error> {
        let Self { kind, status_code, flags, .. } = *self;
        let (name, attributes) = (self.name.map(str::to_owned), decode_list(self.attributes, object)?);
        let attribute_bytes: usize = attributes.iter().map(attribute_bytes).sum();
        let held_bytes = size_of::<Shape>() + name.as_ref().map_or(0, String::len) + attribute_bytes;
        Ok((Shape { name, kind, status_code, flags, attributes }, held_bytes))
    }
}

fn attribute_bytes(attribute: &KeyValue) -> usize {
    let value = match &attribute.value {
        Value::Str(text) => text.len(),
        _ => 16,
    };
    attribute.key.len() + value + size_of::<KeyValue>()
}

pub(crate) fn write_origins(dir: &Path, origins: &[Arc<Origin>], zstd_level: i32) -> Result<FileMeta, Error> {
    let path = dir.join("origins.parquet");
    let mut origin_id = Int32Builder::new();
    let [mut service, mut resource_url, mut scope_name, mut scope_version, mut scope_url] =
        std::array::from_fn(|_| StringBuilder::new());
    let [mut resource_map, mut scope_map] =
        std::array::from_fn(|_| TextMap::new(None, StringBuilder::new(), StringBuilder::new()));
    let [mut resource_otlp, mut scope_otlp] = std::array::from_fn(|_| BinaryBuilder::new());
    for (id, origin) in origins.iter().enumerate() {
        origin_id.append_value(id as i32);
        service.append_option(origin.service_name());
        append_map(&mut resource_map, &origin.resource.attributes).map_err(|err| Error::encode(&path, &err))?;
        resource_otlp.append_value(&origin.resource_encoded);
        resource_url.append_value(&origin.resource_schema_url);
        scope_name.append_value(&origin.scope.name);
        scope_version.append_value(&origin.scope.version);
        append_map(&mut scope_map, &origin.scope.attributes).map_err(|err| Error::encode(&path, &err))?;
        scope_otlp.append_value(&origin.scope_encoded);
        scope_url.append_value(&origin.scope_schema_url);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("origin_id", Arc::new(origin_id.finish())),
        ("service_name", Arc::new(service.finish())),
        ("resource_attributes", Arc::new(resource_map.finish())),
        ("resource_otlp", Arc::new(resource_otlp.finish())),
        ("resource_schema_url", Arc::new(resource_url.finish())),
        ("scope_name", Arc::new(scope_name.finish())),
        ("scope_version", Arc::new(scope_version.finish())),
        ("scope_attributes", Arc::new(scope_map.finish())),
        ("scope_otlp", Arc::new(scope_otlp.finish())),
        ("scope_schema_url", Arc::new(scope_url.finish())),
    ];
    write_table(path, columns, zstd_level)
}

/// Reads the origins. Those that other blocks have too are not decoded again.
pub(crate) fn read_origins(bytes: &Bytes, known: &Interner<Origin>, object: &str) -> Result<Vec<Arc<Origin>>, Error> {
    let mut origins = Vec::new();
    let columns = ["resource_otlp", "scope_otlp", "resource_schema_url", "scope_schema_url"];
    for batch in read_table(bytes, &columns, object)? {
        let wrong = |name: &str| Error::corrupt(object, format!("column {name} has the wrong type"));
        let text = |name| column(&batch, name, object)?.as_string_opt::<i32>().ok_or_else(|| wrong(name));
        let binary = |name| column(&batch, name, object)?.as_binary_opt::<i32>().ok_or_else(|| wrong(name));
        let (resource, scope) = (binary("resource_otlp")?, binary("scope_otlp")?);
        let (resource_url, scope_url) = (text("resource_schema_url")?, text("scope_schema_url")?);
        for row in 0..batch.num_rows() {
            let (resource, scope) = (resource.value(row), scope.value(row));
            let (resource_url, scope_url) = (resource_url.value(row), scope_url.value(row));
            let mut encoded = Vec::with_capacity(resource.len() + scope.len() + 64);
            for part in [resource, scope, resource_url.as_bytes(), scope_url.as_bytes()] {
                encoded.extend_from_slice(&(part.len() as u32).to_le_bytes());
                encoded.extend_from_slice(part);
            }
            let decode = || {
                let copy = Bytes::copy_from_slice;
                let origin = Origin::decode(copy(resource), copy(scope), resource_url, scope_url);
                let held_bytes = 512 + 3 * (resource.len() + scope.len());
                Ok((origin.map_err(|err| Error::corrupt(object, err.to_string()))?, held_bytes))
            };
            origins.push(known.get(&encoded, decode)?);
        }
    }
    Ok(origins)
}
