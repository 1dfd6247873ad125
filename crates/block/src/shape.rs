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
    /// Per shape.
    pub(crate) values: Vec<ShapeValues>,
    /// Every dimension that folded.
    pub(crate) folded: Vec<Dimension>,
}

/// What one shape is: its values by dimension, in the order of folding.
pub(crate) type ShapeValues = Vec<(Dimension, OwnedValue)>;

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

    /// The values on the way to a node, in the order of folding.
    fn spell(&self, mut node: u32, value: impl Fn(u32, u32) -> (Dimension, OwnedValue)) -> ShapeValues {
        let mut values = Vec::new();
        while self.parent[node as usize] != NONE {
            let (level, number) = self.value[node as usize];
            values.push(value(level, number));
            node = self.parent[node as usize];
        }
        values.reverse();
        values
    }
}

/// Finds the shapes of all spans. Nothing of `excluded` folds. 0.05 us per span on the load corpus.
pub(crate) fn detect(
    batches: &[&SpanBatch],
    columns: &[MergedColumn<'_>],
    rows: &[RowRef],
    excluded: &[Dimension],
) -> Shapes {
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
    let candidates = candidates(batches, columns, &sample);
    for dimension in candidates.into_iter().filter(|dimension| !excluded.contains(dimension)) {
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
        let Self { trie, of_row, .. } = self;
        let nodes_max = trie.parent.len() + 4 * SHAPES_MAX as usize;
        let mut batches = of_row.iter_mut().enumerate();
        let is_folded =
            batches.all(|(batch_index, nodes)| fold_batch(trie, nodes, nodes_max, batch_index, level, &mut reader));
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
        let value = |level: u32, number: u32| {
            let (dimension, known) = &self.levels[level as usize];
            (*dimension, known[number as usize].clone())
        };
        let values = nodes.iter().map(|node| self.trie.spell(*node, value)).collect();
        let mut of_row = self.of_row;
        of_row.iter_mut().flatten().for_each(|node| *node = shape_of[*node as usize]);
        assert_eq!(of_row.len(), batches.len());
        Shapes { of_row, values, folded: self.levels.into_iter().map(|(dimension, _)| dimension).collect() }
    }
}

/// Moves each row of a batch one level down. `false` when the dimension has too many values or makes far too many
/// shapes; then some rows were moved and others not.
fn fold_batch(
    trie: &mut Trie,
    nodes: &mut [u32],
    nodes_max: usize,
    batch_index: usize,
    level: u32,
    reader: &mut Reader<'_>,
) -> bool {
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

/// Dimensions that do not fold after all: they took more values, or made more shapes, than the sample showed.
#[derive(Debug)]
pub(crate) struct Drift(pub(crate) Vec<Dimension>);

/// Folds batch after batch as a sample decided, when not all spans are in memory at once. Shapes are numbered as they
/// come.
pub(crate) struct Stream {
    trie: Trie,
    levels: Vec<(Dimension, Coder)>,
    /// Per node: the shape, `NONE` where no span ends.
    shape_of_node: Vec<u32>,
    node_of_shape: Vec<u32>,
    /// Rows of one source have one shape.
    shape_of_source: HashMap<Source, u32>,
}

/// Where a row had all of its values that fold: a shape of a block. Rows of one source are alike.
pub(crate) type Source = Option<(u32, u32)>;

impl Stream {
    /// No shapes yet; `folded` is what folds, the fewest values first.
    pub(crate) fn new(folded: &[Dimension]) -> Self {
        let levels = folded.iter().map(|dimension| (*dimension, Coder::new(0))).collect();
        let (shape_of_node, node_of_shape) = (Vec::new(), Vec::new());
        Self { trie: Trie::new(), levels, shape_of_node, node_of_shape, shape_of_source: HashMap::new() }
    }

    fn shape_of(&mut self, node: u32) -> u32 {
        if self.shape_of_node.len() <= node as usize {
            self.shape_of_node.resize(self.trie.parent.len(), NONE);
        }
        let shape = &mut self.shape_of_node[node as usize];
        if *shape == NONE {
            *shape = self.node_of_shape.len() as u32;
            self.node_of_shape.push(node);
        }
        *shape
    }

    /// The shape of each row. `columns` begin with those of the sample. After an error the stream is of no use.
    pub(crate) fn fold(
        &mut self,
        batch: &SpanBatch,
        columns: &[MergedColumn<'_>],
        sources: &[Source],
    ) -> Result<Vec<u32>, Drift> {
        // Of rows that are alike the first is enough.
        let mut news: HashMap<Source, u32> = HashMap::new();
        let mut rows: Vec<u32> = Vec::new();
        for (source, row) in sources.iter().zip(0..) {
            let is_known = source.is_some() && (self.shape_of_source.contains_key(source) || news.contains_key(source));
            if !is_known {
                news.insert(*source, row);
                rows.push(row);
            }
        }
        let shapes = self.fold_rows(batch, columns, &rows)?;
        for (source, row) in news.into_iter().filter(|(source, _)| source.is_some()) {
            self.shape_of_source.insert(source, shapes[row as usize]);
        }
        let shape = |(source, shape): (&Source, u32)| match source {
            Some(_) => self.shape_of_source[source],
            None => shape,
        };
        Ok(sources.iter().zip(shapes).map(shape).collect())
    }

    /// The shapes of some rows, ascending; those of the others mean nothing.
    fn fold_rows(&mut self, batch: &SpanBatch, columns: &[MergedColumn<'_>], rows: &[u32]) -> Result<Vec<u32>, Drift> {
        let mut nodes = vec![0; batch.len()];
        let nodes_max = self.trie.parent.len() + 4 * SHAPES_MAX as usize;
        let batches = [batch];
        let are_all = rows.len() == batch.len();
        for level in 0..self.levels.len() {
            let (dimension, coder) = &mut self.levels[level];
            let (dimension, mut coder) = (*dimension, std::mem::replace(coder, Coder::new(0)));
            // Codes are those of the batch before.
            coder.of_code = vec![Vec::new()];
            let mut reader = Reader { batches: &batches, columns, dimension, coder };
            let is_folded = match are_all {
                true => fold_batch(&mut self.trie, &mut nodes, nodes_max, 0, level as u32, &mut reader),
                false => rows.iter().all(|row| {
                    let Some(number) = reader.number(RowRef { batch: 0, row: *row }) else { return true };
                    let node = &mut nodes[*row as usize];
                    let is_fine = number < VALUES_DRIFT_MAX && self.trie.parent.len() <= nodes_max;
                    if is_fine {
                        *node = self.trie.child(*node, level as u32, number);
                    }
                    is_fine
                }),
            };
            self.levels[level].1 = reader.coder;
            if !is_folded {
                return Err(Drift(vec![dimension]));
            }
        }
        for row in rows {
            nodes[*row as usize] = self.shape_of(nodes[*row as usize]);
        }
        match self.node_of_shape.len() > SHAPES_MAX as usize {
            true => Err(self.drift()),
            false => Ok(nodes),
        }
    }

    /// Those without which half as many shapes are left, the ones of the most values.
    fn drift(&self) -> Drift {
        let mut shapes = self.spell();
        let mut dimensions: Vec<(usize, Dimension)> =
            self.levels.iter().map(|(dimension, coder)| (coder.values.len(), *dimension)).collect();
        dimensions.sort_by_key(|(value_count, _)| *value_count);
        let mut left_out = Vec::new();
        while let Some((_, dimension)) = dimensions.pop() {
            left_out.push(dimension);
            shapes.iter_mut().for_each(|shape| shape.retain(|(of, _)| *of != dimension));
            let distinct: hashbrown::HashSet<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
            if distinct.len() <= SHAPES_MAX as usize / 2 {
                break;
            }
        }
        Drift(left_out)
    }

    /// What each shape is, as [`Shapes::values`].
    pub(crate) fn spell(&self) -> Vec<ShapeValues> {
        let value = |level: u32, number: u32| {
            let (dimension, coder) = &self.levels[level as usize];
            (*dimension, coder.values[number as usize].clone())
        };
        self.node_of_shape.iter().map(|node| self.trie.spell(*node, value)).collect()
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
