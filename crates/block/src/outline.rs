//! What tells whether a query concerns a block: the tables, the catalogue, the filters, and what each row group holds.
//!
//! ```text
//!   index.bin ----\
//!   shapes.parquet +--> Outline --- a query may find something ---> footer of spans.parquet --> Opened --> rows
//!   origins.parquet/                a query finds nothing:
//!                                   spans.parquet is not touched
//! ```
//!
//! The trace table, which is as large as the rest together, comes when rows are read ([`Outline::traces`]); ids of traces
//! and the filters over values stay in the files.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::GroupInfo;
use spoor_model::scan::{AttrScope, KeySet};
use spoor_model::{BlockId, KeyValue, Origin, TimeRange};

use crate::cache::Shared;
use crate::damage::{Damages, Place};
use crate::error::Error;
use crate::files::BlockFiles;
use crate::filter::ValueFilters;
use crate::groups::GroupSummary;
use crate::index::{Catalogue, Index};
use crate::meta::{BlockMeta, ColumnMeta};
use crate::open::Footer;
use crate::pages::SpansFile;
use crate::pieces::{Pieces, VerifiedFile};
use crate::summary::{ColumnSummaries, ColumnSummary};
use crate::tables::{self, Shape};
use crate::traces::TraceTable;

/// Everything of a block but its spans and its trace table.
pub(crate) struct Outline {
    id: BlockId,
    /// `block 01J... spans.parquet`, for errors.
    pub(crate) object: String,
    pub(crate) shapes: Vec<Arc<Shape>>,
    pub(crate) origins: Vec<Arc<Origin>>,
    pub(crate) catalogue: Catalogue,
    pub(crate) filters: ValueFilters,
    pub(crate) columns: Arc<[ColumnMeta]>,
    /// In row order.
    pub(crate) groups: Vec<Group>,
    /// `None` in blocks that do not say: then the footer does.
    summaries: Option<ColumnSummaries>,
    column_of_name: HashMap<String, usize>,
    /// Gathered when first asked for.
    keys: OnceLock<KeySet>,
    index: Arc<Index>,
    shared: Arc<Shared>,
    pub(crate) file: SpansFile,
    /// Read when spans are first asked for.
    footer: OnceLock<Arc<Footer>>,
}

/// One row group.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its rows in the block.
    pub(crate) rows: Range<usize>,
    /// Its traces, by their numbers.
    pub(crate) traces: Range<usize>,
    pub(crate) info: GroupInfo,
    /// Which of its traces have two rows of one span id. Looked for when first asked for in blocks that do not say.
    pub(crate) irregular: OnceLock<Bits>,
}

/// A file of a block.
pub(crate) fn open_file(
    files: &dyn BlockFiles,
    meta: &BlockMeta,
    name: &str,
    damages: &Arc<Damages>,
) -> Result<VerifiedFile, Error> {
    let found = meta.files.iter().find(|file| file.name == name);
    let described = found.ok_or_else(|| Error::corrupt(meta.describe(), format!("its meta does not list {name}")))?;
    let object = format!("{} {name}", meta.describe());
    let open = |pieces: &Arc<Pieces>| files.open(&meta.tenant, meta.id, name, pieces);
    let opened = VerifiedFile::open(described, object, open);
    damages.learn(meta.id, || Place::Bytes(name.to_owned(), Vec::new()), &opened);
    Ok(opened?.watched(meta.id, damages))
}

/// The index of a block.
pub(crate) fn open_index(files: &dyn BlockFiles, meta: &BlockMeta, damages: &Arc<Damages>) -> Result<Index, Error> {
    Index::open(open_file(files, meta, "index.bin", damages)?, format!("{} index.bin", meta.describe()))
}

/// The trace table of a block that need not be opened for it.
pub(crate) fn traces(files: &dyn BlockFiles, meta: &BlockMeta, shared: &Shared) -> Result<Arc<TraceTable>, Error> {
    shared.traces(meta.id, || open_index(files, meta, &shared.damages)?.traces())
}

impl Outline {
    /// Reads what tells whether a query concerns the block. What other blocks have too is taken from `shared`.
    pub(crate) fn open(files: &dyn BlockFiles, meta: &BlockMeta, shared: &Arc<Shared>) -> Result<Self, Error> {
        let object = |name: &str| format!("{} {name}", meta.describe());
        let read = |name: &str| open_file(files, meta, name, &shared.damages)?.read_all();
        let index = Arc::new(open_index(files, meta, &shared.damages)?);
        let shapes = tables::read_shapes(&read("shapes.parquet")?, &shared.shapes, &object("shapes.parquet"))?;
        let origins = tables::read_origins(&read("origins.parquet")?, &shared.origins, &object("origins.parquet"))?;
        let names = meta.columns.iter().map(|column| column.name.clone());
        let mut outline = Self {
            id: meta.id,
            object: object("spans.parquet"),
            shapes,
            origins,
            catalogue: index.catalogue()?,
            filters: ValueFilters::new(Arc::clone(&index)),
            columns: Arc::clone(&meta.columns),
            groups: Vec::new(),
            summaries: index.columns()?,
            column_of_name: names.enumerate().map(|(index, name)| (name, index)).collect(),
            keys: OnceLock::new(),
            index,
            shared: Arc::clone(shared),
            file: SpansFile(Arc::new(open_file(files, meta, "spans.parquet", &shared.damages)?)),
            footer: OnceLock::new(),
        };
        outline.groups = match outline.index.groups()? {
            Some(summaries) => outline.groups_of_summaries(summaries)?,
            // A block of before that does not describe its row groups.
            None => {
                let groups = groups(outline.load_footer()?.group_rows(), &outline.index.traces()?);
                groups.ok_or_else(|| outline.corrupt("the trace table does not fit the row groups"))?
            }
        };
        outline.check(meta)?;
        Ok(outline)
    }

    fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(&self.object, reason)
    }

    /// The parts must agree with each other before anything is answered from them.
    fn check(&self, meta: &BlockMeta) -> Result<(), Error> {
        let want = meta.span_count;
        let rows = self.row_count() as u64;
        if rows != want {
            return Err(self.corrupt(format!("row count mismatch (want {want}, got {rows})")));
        }
        let traces = self.groups.last().map_or(0, |group| group.traces.end) as u64;
        if traces != meta.trace_count || traces == 0 {
            return Err(self.corrupt(format!("trace count mismatch (want {}, got {traces})", meta.trace_count)));
        }
        let (group_count, column_count) = (self.groups.len(), self.columns.len());
        if self.summaries.as_ref().is_some_and(|summaries| !summaries.fit(group_count, column_count)) {
            return Err(self.corrupt("the index does not fit the columns"));
        }
        Ok(())
    }

    fn groups_of_summaries(&self, summaries: Vec<GroupSummary>) -> Result<Vec<Group>, Error> {
        let mut groups: Vec<Group> = Vec::with_capacity(summaries.len());
        for GroupSummary { span_count, trace_count, range, latest_trace_start, shared_ids } in summaries {
            if trace_count > span_count {
                return Err(self.corrupt("the index has traces without spans"));
            }
            let mut irregular = Bits::none(trace_count);
            shared_ids.into_iter().for_each(|trace| irregular.insert(trace as usize));
            let first = groups.last().map_or((0, 0), |last| (last.rows.end, last.traces.end));
            groups.push(Group {
                rows: first.0..first.0 + span_count,
                traces: first.1..first.1 + trace_count,
                info: GroupInfo { latest_trace_start, range, span_count: span_count as u64 },
                irregular: OnceLock::from(irregular),
            });
        }
        Ok(groups)
    }

    /// The footer of the spans, and whether it was read just now.
    pub(crate) fn footer(&self) -> Result<(Arc<Footer>, bool), Error> {
        if let Some(footer) = self.footer.get() {
            return Ok((Arc::clone(footer), false));
        }
        let footer = self.load_footer()?;
        if !self.groups.iter().map(|group| group.rows.len()).eq(footer.group_rows()) {
            return Err(self.corrupt("the index does not fit the row groups"));
        }
        Ok((footer, true))
    }

    fn load_footer(&self) -> Result<Arc<Footer>, Error> {
        let footer = Footer::load(&self.file, &self.columns, &self.object)?;
        Ok(Arc::clone(self.footer.get_or_init(|| Arc::new(footer))))
    }

    /// Whether all is known of the columns that the footer of the spans could tell.
    pub(crate) fn knows_columns(&self) -> bool {
        self.summaries.is_some() || self.footer.get().is_some()
    }

    /// What a column holds in a row group, as far as is known: [`ColumnSummary::Some`] says nothing.
    pub(crate) fn summary(&self, group: usize, column: usize) -> ColumnSummary {
        match (&self.summaries, self.footer.get()) {
            (Some(summaries), _) => summaries.get(group, column),
            (None, Some(footer)) => footer.summary(group, column),
            (None, None) => ColumnSummary::Some,
        }
    }

    /// Where the rows of each trace are. About 20 ns per trace, unless it is kept from before.
    pub(crate) fn traces(&self) -> Result<Arc<TraceTable>, Error> {
        let traces = self.shared.traces(self.id, || self.index.traces())?;
        // Each time: who looked for a trace may have read the table before anybody opened the block.
        let does_fit = |group: &Group| {
            let Range { start, end } = group.traces;
            start < end
                && end <= traces.len()
                && traces.rows(start).start == group.rows.start
                && traces.rows(end - 1).end == group.rows.end
        };
        let trace_count = self.groups.last().map_or(0, |group| group.traces.end);
        match traces.len() == trace_count && self.groups.iter().all(does_fit) {
            true => Ok(traces),
            false => Err(self.corrupt("the trace table does not fit the row groups")),
        }
    }

    /// The names of all attributes.
    pub(crate) fn keys(&self) -> &KeySet {
        self.keys.get_or_init(|| {
            let mut keys = KeySet::new();
            let mut add = |scope, names: &mut dyn Iterator<Item = &String>| {
                let known: &mut BTreeSet<String> = keys.entry(scope).or_default();
                for name in names {
                    if !known.contains(name) {
                        known.insert(name.clone());
                    }
                }
            };
            fn of(attributes: &[KeyValue]) -> impl Iterator<Item = &String> {
                attributes.iter().map(|attribute| &attribute.key)
            }
            add(AttrScope::Span, &mut self.columns.iter().filter_map(|column| column.attribute.as_ref()));
            add(AttrScope::Span, &mut self.shapes.iter().flat_map(|shape| of(&shape.attributes)));
            add(AttrScope::Span, &mut self.catalogue.residual_keys.iter());
            add(AttrScope::Resource, &mut self.origins.iter().flat_map(|origin| of(&origin.resource.attributes)));
            add(AttrScope::Instrumentation, &mut self.origins.iter().flat_map(|origin| of(&origin.scope.attributes)));
            add(AttrScope::Event, &mut self.catalogue.event_keys.iter());
            add(AttrScope::Link, &mut self.catalogue.link_keys.iter());
            keys
        })
    }

    pub(crate) fn row_count(&self) -> usize {
        self.groups.last().map_or(0, |group| group.rows.end)
    }

    /// What was read of spans and index since the block was opened; not counted: the tables, which are small.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.file.0.read_bytes() + self.index.read_bytes()
    }

    /// The row group of a row.
    pub(crate) fn group_of_row(&self, row: usize) -> usize {
        self.groups.partition_point(|group| group.rows.end <= row)
    }

    /// The place of a column in the file.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.column_of_name.get(name).copied()
    }

    /// The columns of an attribute: one per type that it has.
    pub(crate) fn attribute_columns<'a>(&'a self, key: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_wanted = move |column: &ColumnMeta| column.attribute.as_deref() == Some(key);
        self.columns.iter().enumerate().filter(move |(_, column)| is_wanted(column)).map(|(index, _)| index)
    }

    /// A rough count of the memory held, without what is shared between blocks.
    pub(crate) fn memory_bytes(&self) -> usize {
        /// The lookup by name, and its share of the attribute names.
        const COLUMN_BYTES: usize = 320;
        const OPERATION_BYTES: usize = 96;
        const KEY_BYTES: usize = 64;
        let keys = [&self.catalogue.residual_keys, &self.catalogue.event_keys, &self.catalogue.link_keys];
        let key_bytes: usize = keys.into_iter().flatten().map(|key| 2 * (KEY_BYTES + key.len())).sum();
        let trace_count = self.groups.last().map_or(0, |group| group.traces.end);
        (self.shapes.len() + self.origins.len()) * size_of::<Arc<Shape>>()
            + self.catalogue.operations.len() * OPERATION_BYTES
            + key_bytes
            + self.columns.len() * COLUMN_BYTES
            + self.summaries.as_ref().map_or(0, ColumnSummaries::memory_bytes)
            // Which traces are irregular.
            + trace_count / 8
            + self.groups.len() * size_of::<Group>()
            + self.footer.get().map_or(0, |footer| footer.memory_bytes())
    }
}

/// The row groups with their traces; `None` when a trace crosses the end of a group.
fn groups(group_rows: impl Iterator<Item = usize>, traces: &TraceTable) -> Option<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for row_count in group_rows {
        let first = groups.last().map_or((0, 0), |last| (last.rows.end, last.traces.end));
        let rows = first.0..first.0.checked_add(row_count)?;
        let mut end = first.1;
        while end < traces.len() && traces.rows(end).end <= rows.end {
            end += 1;
        }
        let of_group = first.1..end;
        let range = of_group.clone().map(|trace| traces.range(trace)).reduce(|a: TimeRange, b| a.union(&b))?;
        if traces.rows(first.1).start != rows.start || traces.rows(end - 1).end != rows.end {
            return None;
        }
        // Traces are ordered by start.
        let latest_trace_start = traces.range(end - 1).start;
        let info = GroupInfo { latest_trace_start, range, span_count: rows.len() as u64 };
        groups.push(Group { rows, traces: of_group, info, irregular: OnceLock::new() });
    }
    Some(groups)
}
