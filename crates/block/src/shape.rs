//! Shapes: the combinations of low-cardinality values that spans really have.
//!
//! Of 53 attribute keys of the measured corpus 35 take few values, and only 161 combinations of
//! those (with name, kind, status and flags) occur. A block stores each combination once and one
//! small number per span: 0.28 bytes instead of 2.5 for the same attributes as columns.
//!
//! A shape is a path in a trie, one level per folded dimension:
//!
//! ```text
//!   root --name=GET--> 1 --kind=server--> 2 --http.status_code=200--> 3
//!                                           `-(attribute absent)----> 2
//! ```
//!
//! **Which dimensions fold**: those of at most [`VALUES_MAX`] values on a sample, the fewest values
//! first, as long as the number of shapes on the sample grows by at most half. Then on all spans, as
//! long as there are at most [`SHAPES_MAX`] shapes; a dimension that drifts past that is taken back
//! and becomes a column. So shapes stay few whatever the data, and nothing is configured.

use hashbrown::HashMap;
use spoor_model::batch::{AttrValue, SpanBatch};

use crate::columns::MergedColumn;
use crate::order::RowRef;

/// The most distinct values of a folded dimension on the sample. Names may have more.
const VALUES_MAX: u32 = 64;
/// The most distinct span names that still fold: routes and RPC methods do, names with ids do not.
const NAMES_MAX: u32 = 1024;
/// The most distinct values of a folded dimension on all spans.
const VALUES_DRIFT_MAX: u32 = 4096;
/// The most shapes of a block: two bytes of `shape_id`, a table of a few hundred kilobytes.
const SHAPES_MAX: u32 = 8192;
/// How many spans decide.
const SAMPLE_ROWS: usize = 65_536;

/// What a trie level is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Name,
    Kind,
    StatusCode,
    Flags,
    /// Index into the merged columns.
    Attribute(usize),
}

/// The shapes of a block.
pub(crate) struct Shapes {
    /// Per batch and row: the shape.
    pub(crate) of_row: Vec<Vec<u32>>,
    /// Per shape: its (dimension, value), in the order of folding.
    pub(crate) values: Vec<Vec<(Dimension, OwnedValue)>>,
    /// Every dimension that folded.
    pub(crate) folded: Vec<Dimension>,
}

/// A value of a shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OwnedValue {
    Str(Vec<u8>),
    Int(i64),
    Double(f64),
    Bool(bool),
    Encoded(Vec<u8>),
}

impl OwnedValue {
    pub(crate) fn borrow(&self) -> AttrValue<'_> {
        match self {
            Self::Str(text) => AttrValue::Str(text),
            Self::Int(int) => AttrValue::Int(*int),
            Self::Double(double) => AttrValue::Double(*double),
            Self::Bool(flag) => AttrValue::Bool(*flag),
            Self::Encoded(bytes) => AttrValue::Encoded(bytes),
        }
    }

    fn from_ref(value: AttrValue<'_>) -> Self {
        match value {
            AttrValue::Str(text) => Self::Str(text.to_vec()),
            AttrValue::Int(int) => Self::Int(int),
            AttrValue::Double(double) => Self::Double(double),
            AttrValue::Bool(flag) => Self::Bool(flag),
            AttrValue::Encoded(bytes) => Self::Encoded(bytes.to_vec()),
        }
    }
}

/// Numbers the distinct values of one dimension, up to a bound.
struct Coder {
    values: Vec<OwnedValue>,
    by_bits: HashMap<u64, u32>,
    by_bytes: HashMap<Vec<u8>, u32>,
    /// Per batch: dictionary code to number, `NONE` where not asked yet.
    of_code: Vec<Vec<u32>>,
}

const NONE: u32 = u32::MAX;

impl Coder {
    fn new(batch_count: usize) -> Self {
        let of_code = vec![Vec::new(); batch_count];
        Self { values: Vec::new(), by_bits: HashMap::new(), by_bytes: HashMap::new(), of_code }
    }

    fn number(&mut self, value: AttrValue<'_>) -> u32 {
        let next = self.values.len() as u32;
        let number = match value {
            AttrValue::Int(int) => *self.by_bits.entry(int as u64).or_insert(next),
            AttrValue::Double(double) => *self.by_bits.entry(double.to_bits()).or_insert(next),
            AttrValue::Bool(flag) => *self.by_bits.entry(u64::from(flag)).or_insert(next),
            AttrValue::Str(bytes) | AttrValue::Encoded(bytes) => match self.by_bytes.get(bytes) {
                Some(number) => *number,
                None => *self.by_bytes.entry(bytes.to_vec()).or_insert(next),
            },
        };
        if number == next {
            self.values.push(OwnedValue::from_ref(value));
        }
        number
    }

    /// The number of a dictionary entry: hashed once per entry instead of once per row.
    #[inline]
    fn number_of_code(&mut self, batch: usize, code: u32, text: &[u8]) -> u32 {
        let codes = &mut self.of_code[batch];
        if codes.len() <= code as usize {
            codes.resize(code as usize + 1, NONE);
        }
        match codes[code as usize] {
            NONE => {
                let number = self.number(AttrValue::Str(text));
                self.of_code[batch][code as usize] = number;
                number
            }
            number => number,
        }
    }
}

/// One dimension as seen from a row.
struct Reader<'a> {
    batches: &'a [&'a SpanBatch],
    columns: &'a [MergedColumn<'a>],
    dimension: Dimension,
    coder: Coder,
}

impl<'a> Reader<'a> {
    fn new(batches: &'a [&'a SpanBatch], columns: &'a [MergedColumn<'a>], dimension: Dimension) -> Self {
        Self { batches, columns, dimension, coder: Coder::new(batches.len()) }
    }

    /// The number of the row's value; `None` when the row has none.
    #[inline]
    fn number(&mut self, at: RowRef) -> Option<u32> {
        let (batch, row) = (self.batches[at.batch as usize], at.row as usize);
        let number = match self.dimension {
            Dimension::Name => {
                let code = batch.name()[row];
                self.coder.number_of_code(at.batch as usize, code, batch.names().get(code))
            }
            Dimension::Kind => self.coder.number(AttrValue::Int(i64::from(batch.kind()[row]))),
            Dimension::StatusCode => self.coder.number(AttrValue::Int(i64::from(batch.status_code()[row]))),
            Dimension::Flags => self.coder.number(AttrValue::Int(i64::from(batch.flags()[row]))),
            Dimension::Attribute(index) => {
                let (_, ranks) = self.columns[index].parts[at.batch as usize].as_ref()?;
                let place = ranks.rank(at.row)?;
                self.number_at(index, at.batch as usize, place)
            }
        };
        Some(number)
    }

    fn distinct_count(&self) -> u32 {
        self.coder.values.len() as u32
    }
}

/// The trie. Node 0 is the root; a node is a shape or a prefix of shapes.
struct Trie {
    parent: Vec<u32>,
    /// (index into `levels`, number of the value)
    value: Vec<(u32, u32)>,
    children: HashMap<u64, u32>,
}

impl Trie {
    fn new() -> Self {
        Self { parent: vec![NONE], value: vec![(0, 0)], children: HashMap::new() }
    }

    #[inline]
    fn child(&mut self, node: u32, level: u32, number: u32) -> u32 {
        let next = self.parent.len() as u32;
        debug_assert!(level < 1 << 16 && number < 1 << 16);
        let key = u64::from(node) << 32 | u64::from(level) << 16 | u64::from(number);
        let child = *self.children.entry(key).or_insert(next);
        if child == next {
            self.parent.push(node);
            self.value.push((level, number));
        }
        child
    }
}

/// Finds the shapes of all spans. 0.05 us per span on the load corpus.
pub(crate) fn detect(batches: &[&SpanBatch], columns: &[MergedColumn<'_>], rows: &[RowRef]) -> Shapes {
    let stride = rows.len().div_ceil(SAMPLE_ROWS).max(1);
    let sample: Vec<RowRef> = rows.iter().step_by(stride).copied().collect();
    let mut folder = Folder {
        trie: Trie::new(),
        of_row: batches.iter().map(|batch| vec![0; batch.len()]).collect(),
        levels: Vec::new(),
    };
    let mut sample_trie = Trie::new();
    let mut sample_nodes = vec![0u32; sample.len()];
    let mut sample_shape_count = 1;
    for dimension in candidates(batches, columns, &sample) {
        let mut reader = Reader::new(batches, columns, dimension);
        let next = sample_fold(&mut sample_trie, &sample_nodes, &sample, &mut reader, folder.levels.len() as u32);
        let is_intrinsic = !matches!(dimension, Dimension::Attribute(_));
        let grows_little = next.shape_count <= sample_shape_count * 3 / 2 + 8;
        if (is_intrinsic || grows_little) && next.shape_count <= SHAPES_MAX && folder.fold(reader) {
            sample_nodes = next.nodes;
            sample_shape_count = next.shape_count;
        }
    }
    folder.finish(batches)
}

/// The dimensions worth trying, in the order of trying.
fn candidates(batches: &[&SpanBatch], columns: &[MergedColumn<'_>], sample: &[RowRef]) -> Vec<Dimension> {
    let distinct_count = |dimension, max| {
        let mut reader = Reader::new(batches, columns, dimension);
        for at in sample {
            reader.number(*at);
            if reader.distinct_count() > max {
                return None;
            }
        }
        Some(reader.distinct_count())
    };
    let mut intrinsic = vec![Dimension::Kind, Dimension::StatusCode, Dimension::Flags];
    intrinsic.retain(|dimension| distinct_count(*dimension, VALUES_MAX).is_some());
    if distinct_count(Dimension::Name, NAMES_MAX).is_some() {
        intrinsic.insert(0, Dimension::Name);
    }
    let mut attributes: Vec<(u32, Dimension)> = (0..columns.len())
        .filter_map(|index| {
            let dimension = Dimension::Attribute(index);
            distinct_count(dimension, VALUES_MAX).map(|count| (count, dimension))
        })
        .collect();
    attributes.sort_by_key(|(count, _)| *count);
    intrinsic.extend(attributes.into_iter().map(|(_, dimension)| dimension));
    intrinsic
}

struct SampleFold {
    nodes: Vec<u32>,
    shape_count: u32,
}

fn sample_fold(trie: &mut Trie, nodes: &[u32], sample: &[RowRef], reader: &mut Reader<'_>, level: u32) -> SampleFold {
    let folded: Vec<u32> = nodes
        .iter()
        .zip(sample)
        .map(|(node, at)| match reader.number(*at) {
            Some(number) => trie.child(*node, level, number),
            None => *node,
        })
        .collect();
    let mut is_used = vec![false; trie.parent.len()];
    folded.iter().for_each(|node| is_used[*node as usize] = true);
    let shape_count = is_used.iter().filter(|is_used| **is_used).count() as u32;
    SampleFold { nodes: folded, shape_count }
}

struct Folder {
    trie: Trie,
    of_row: Vec<Vec<u32>>,
    levels: Vec<(Dimension, Vec<OwnedValue>)>,
}

impl Folder {
    /// Folds a dimension on all spans; `false`, and nothing changed, when that makes too many shapes.
    fn fold(&mut self, mut reader: Reader<'_>) -> bool {
        let level = self.levels.len() as u32;
        let before = (self.trie.parent.len(), self.of_row.clone());
        let is_folded = (0..self.of_row.len()).all(|batch_index| self.fold_batch(batch_index, level, &mut reader));
        if is_folded && self.shape_count() <= SHAPES_MAX {
            self.levels.push((reader.dimension, reader.coder.values));
            return true;
        }
        self.trie.parent.truncate(before.0);
        self.trie.value.truncate(before.0);
        self.trie.children.retain(|_, child| (*child as usize) < before.0);
        self.of_row = before.1;
        false
    }

    /// `false` when the dimension has too many values or makes far too many shapes.
    fn fold_batch(&mut self, batch_index: usize, level: u32, reader: &mut Reader<'_>) -> bool {
        let nodes_max = self.trie.parent.len() + 4 * SHAPES_MAX as usize;
        let (trie, nodes) = (&mut self.trie, &mut self.of_row[batch_index]);
        let mut fold_row = |row: u32, number: u32| {
            if number >= VALUES_DRIFT_MAX || trie.parent.len() > nodes_max {
                return false;
            }
            let node = &mut nodes[row as usize];
            *node = trie.child(*node, level, number);
            true
        };
        let Dimension::Attribute(index) = reader.dimension else {
            return (0..reader.batches[batch_index].len() as u32).all(|row| {
                let number = reader.number(RowRef { batch: batch_index as u32, row }).expect("every row has it");
                fold_row(row, number)
            });
        };
        let Some((column, _)) = &reader.columns[index].parts[batch_index] else { return true };
        let mut rows = column.rows().iter().enumerate();
        rows.all(|(place, row)| fold_row(*row, reader.number_at(index, batch_index, place)))
    }

    fn shape_count(&self) -> u32 {
        let mut is_used = vec![false; self.trie.parent.len()];
        self.of_row.iter().flatten().for_each(|node| is_used[*node as usize] = true);
        is_used.iter().filter(|is_used| **is_used).count() as u32
    }

    /// Numbers the shapes that occur, the most frequent first, and spells them out.
    fn finish(self, batches: &[&SpanBatch]) -> Shapes {
        let mut counts = vec![0u64; self.trie.parent.len()];
        self.of_row.iter().flatten().for_each(|node| counts[*node as usize] += 1);
        let mut nodes: Vec<u32> = (0..counts.len() as u32).filter(|node| counts[*node as usize] > 0).collect();
        nodes.sort_by_key(|node| std::cmp::Reverse(counts[*node as usize]));
        let mut shape_of = vec![NONE; counts.len()];
        for (shape, node) in nodes.iter().enumerate() {
            shape_of[*node as usize] = shape as u32;
        }
        let spell = |mut node: u32| {
            let mut values = Vec::new();
            while self.trie.parent[node as usize] != NONE {
                let (level, number) = self.trie.value[node as usize];
                let (dimension, known) = &self.levels[level as usize];
                values.push((*dimension, known[number as usize].clone()));
                node = self.trie.parent[node as usize];
            }
            values.reverse();
            values
        };
        let values = nodes.iter().map(|node| spell(*node)).collect();
        let mut of_row = self.of_row;
        of_row.iter_mut().flatten().for_each(|node| *node = shape_of[*node as usize]);
        assert_eq!(of_row.len(), batches.len());
        Shapes { of_row, values, folded: self.levels.into_iter().map(|(dimension, _)| dimension).collect() }
    }
}

impl Reader<'_> {
    /// The number of an attribute's `place`-th value in a batch, by dictionary code where it has one.
    #[inline]
    fn number_at(&mut self, index: usize, batch: usize, place: usize) -> u32 {
        use spoor_model::batch::AttrValues;
        let (column, _) = self.columns[index].parts[batch].as_ref().expect("the caller walks its rows");
        match column.values() {
            AttrValues::Str { codes, dictionary } => {
                self.coder.number_of_code(batch, codes[place], dictionary.get(codes[place]))
            }
            _ => self.coder.number(column.get_at(place)),
        }
    }
}
