use std::fmt::Debug;

use arrow_array::{DictionaryArray, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::column::page::PageReader;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;

use super::*;

/// The pages of the only column of a file with that array.
fn pages(array: ArrayRef, properties: WriterPropertiesBuilder) -> Box<dyn PageReader> {
    let batch = RecordBatch::try_from_iter_with_nullable([("a", array, true)]).unwrap();
    let mut written = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut written, batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let file = SerializedFileReader::new(Bytes::from(written)).unwrap();
    file.get_row_group(0).unwrap().get_column_page_reader(0).unwrap()
}

fn properties(page_rows: usize) -> WriterPropertiesBuilder {
    WriterProperties::builder().set_data_page_row_count_limit(page_rows).set_write_batch_size(page_rows)
}

fn read_as(pages: &mut dyn PageReader, layout: StoredLayout, data_type: &DataType, wanted: &Bits) -> Option<Stored> {
    read(pages, StoredAs { layout, data_type, is_nullable: true }, wanted).unwrap()
}

/// Values, with runs of the same and of none, and which rows are wanted.
fn rows<T: Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = (Vec<Option<T>>, Vec<bool>)> {
    let run = (prop::option::of(value), prop_oneof![3 => 1..4usize, 1 => 1..300usize], any::<bool>());
    prop::collection::vec(run, 1..60).prop_map(|runs| {
        let repeated = runs.into_iter().flat_map(|(value, count, is_wanted)| vec![(value, is_wanted); count]);
        repeated.unzip()
    })
}

proptest! {
    #[test]
    fn codes_are_read((values, _) in rows("[a-c]{0,2}|[a-z\u{e4}]{0,6}"), page_rows in 1..500usize) {
        let texts: StringArray = values.iter().map(Option::as_deref).collect();
        let mut pages = pages(Arc::new(texts), properties(page_rows).set_dictionary_enabled(true));
        let everything = Bits::all(values.len());
        match read_as(&mut *pages, StoredLayout::Codes, &DataType::Utf8, &everything) {
            Some(Stored::Codes { codes, entries }) => {
                let entry = |code: i32| entries.value(code as usize).to_owned();
                let read: Vec<Option<String>> = codes.iter().map(|code| code.map(entry)).collect();
                prop_assert_eq!(read, values);
                // What stands where there is no value does no harm either.
                let codes = codes.values().iter().all(|code| *code == 0 || (*code as usize) < entries.len());
                prop_assert!(codes);
            }
            // Then there is no dictionary.
            read => prop_assert!(read.is_none() && values.is_empty(), "{:?}", read),
        }
    }

    #[test]
    fn plain_texts_are_read_where_they_are_wanted((values, wanted) in rows("[a-z\u{e4}]{0,9}"), page_rows in 1..500usize) {
        let wanted = Bits::from_fn(wanted.len(), |row| wanted[row]);
        let texts: StringArray = values.iter().map(Option::as_deref).collect();
        for data_type in [DataType::Utf8, DataType::Binary] {
            let mut pages = pages(Arc::new(texts.clone()), properties(page_rows).set_dictionary_enabled(false));
            let Some(Stored::Array(read)) = read_as(&mut *pages, StoredLayout::Plain, &data_type, &wanted) else {
                return Err(TestCaseError::fail("not read"));
            };
            prop_assert_eq!((read.data_type(), read.len()), (&data_type, values.len()));
            let value = |row: usize| match &data_type {
                DataType::Utf8 => read.as_string::<i32>().value(row).as_bytes(),
                _ => read.as_binary::<i32>().value(row),
            };
            for (row, expect) in values.iter().enumerate() {
                let expect = expect.as_ref().filter(|_| wanted.contains(row)).map(String::as_bytes);
                prop_assert_eq!(read.is_valid(row).then(|| value(row)), expect, "row {}", row);
            }
        }
    }

    #[test]
    fn numbers_are_read((values, _) in rows(any::<i64>()), page_rows in 1..500usize) {
        let everything = Bits::all(values.len());
        let streams = || properties(page_rows).set_dictionary_enabled(false).set_encoding(Encoding::BYTE_STREAM_SPLIT);
        let array = Int64Array::from(values.clone());
        let mut ints = pages(Arc::new(array.clone()), streams());
        let read = read_as(&mut *ints, StoredLayout::Streams, &DataType::Int64, &everything);
        prop_assert!(matches!(&read, Some(Stored::Array(read)) if read.as_primitive() == &array), "{:?}", read);
        let array: Float64Array = values.iter().map(|value| value.map(|value| value as f64)).collect();
        let mut doubles = pages(Arc::new(array.clone()), streams());
        let read = read_as(&mut *doubles, StoredLayout::Streams, &DataType::Float64, &everything);
        prop_assert!(matches!(&read, Some(Stored::Array(read)) if read.as_primitive() == &array), "{:?}", read);
    }

    #[test]
    fn numbers_of_any_width_are_unpacked(width in 1..33u32, seed in prop::collection::vec(any::<u32>(), 0..40), max in 0..400usize) {
        let bits: Vec<bool> = (0..seed.len() * 32).map(|bit| seed[bit / 32] >> (bit % 32) & 1 == 1).collect();
        let groups = bits.len() / (8 * width as usize);
        let bits = &bits[..groups * 8 * width as usize];
        let packed: Vec<u8> =
            bits.chunks(8).map(|eight| (0..8).fold(0, |byte, bit| byte | u8::from(eight[bit]) << bit)).collect();
        let number = |bits: &[bool]| bits.iter().rev().fold(0u32, |number, bit| number << 1 | u32::from(*bit)) as i32;
        let expect: Vec<i32> = bits.chunks(width as usize).map(number).take(max).collect();
        let mut numbers = vec![7];
        unpack(&packed, width, max, &mut numbers);
        prop_assert_eq!(&numbers[1..], &expect[..]);
    }

    /// Bytes that are no page are left to the Parquet crate; they do no harm.
    #[test]
    fn any_bytes_are_read_or_refused(page in prop::collection::vec(any::<u8>(), 0..80), count in 0..100usize) {
        let mut present = Bits::none(count);
        read_levels(&page, 0..count, &mut present);
        let mut codes = Codes { entries: None, codes: Vec::new(), packed: Vec::new() };
        let _ = codes.take_dictionary(&page, count);
        codes.entries = Some(StringArray::from(vec!["a"; 4]));
        let rows = || Values { rows: 0..count, count, bytes: &page, encoding: Encoding::RLE_DICTIONARY };
        let is_taken = codes.take(rows(), &Bits::all(count)).is_some();
        prop_assert!(!is_taken || codes.codes.len() == count);
        let (wanted, texts) = (Bits::all(count), Texts::with_rows(count));
        let _ = Plain { wanted: &wanted, texts }.take(Values { encoding: Encoding::PLAIN, ..rows() }, &wanted);
    }
}

#[test]
fn a_dictionary_that_grew_too_large_is_left_to_the_crate() {
    let values: Vec<String> = (0..500).map(|number| format!("a text with a number, {number}")).collect();
    let texts: StringArray = values.iter().map(Some).collect();
    let small = properties(50).set_dictionary_page_size_limit(400);
    let mut pages = pages(Arc::new(texts), small);
    assert!(read_as(&mut *pages, StoredLayout::Codes, &DataType::Utf8, &Bits::all(500)).is_none());
}

#[test]
fn dictionaries_of_the_crate_are_codes() {
    let array: DictionaryArray<Int32Type> = [Some("a"), None, Some("b")].into_iter().collect();
    let Stored::Codes { codes, entries } = Stored::of(Arc::new(array)) else { panic!("codes") };
    assert_eq!((codes.null_count(), entries.len()), (1, 2));
}
