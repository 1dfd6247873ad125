//! Who calls whom: the edges between services, counted over all spans that start in a range.
//!
//! ```text
//!   row    service   parent row        edges
//!    0     frontend  (root)
//!    1     frontend     0              frontend -> frontend  1
//!    2     cart         1              frontend -> cart      1
//! ```
//!
//! A span counts for the range in which it starts, so that ranges side by side add up. Its parent may start
//! anywhere: traces that lie in several sources are put together first. A span whose parent has not come gives
//! no edge.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart, ColumnRequest, FieldColumn, ValuesOf};
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, QueryContext, ScanStats, Test};
use spoor_model::structure::MISSING;
use spoor_model::{TenantId, TimeRange, UnixNano, Value};

use crate::explain::{Explain, Stage};
use crate::fold::{Accumulate, Reach, fold};
use crate::lookup::Sources;
use crate::metrics::Op;
use crate::{Answer, Querier, QueryError};

/// The resource's `service.name`; `None` for spans whose resource has none that is text.
pub type Service = Option<Arc<str>>;

/// How often the first service calls the second; each pair once, sorted.
pub type Calls = BTreeMap<(Service, Service), u64>;

impl Querier {
    /// How often a span of the first service is the parent of a span of the second, which starts in the range. Edges
    /// from a service to itself count too. Each edge once, sorted.
    ///
    /// Several tenants are one body of data. Costs one pass over three columns of everything in the range.
    pub fn dependencies(
        &self,
        tenants: &[TenantId],
        range: TimeRange,
        ctx: &QueryContext,
    ) -> Result<Answer<Calls>, QueryError> {
        self.observed_of_all(Op::metrics, tenants, ctx, |snapshot| {
            let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
            let asked = ColumnRequest {
                masks: vec![Predicate::And(starts_in(range))],
                needed: vec![0],
                columns: vec![service_field()],
                values_of: ValuesOf::AllRows,
                tree: true,
                copies: true,
                range,
                intervals: None,
            };
            let mut stage = Stage { name: "dependencies".to_owned(), ..Stage::default() };
            let edges =
                fold(&Counter, &asked, Reach::Around, &self.limits, &self.remembered, &mut sources, &mut stage)?;
            let mut stats = ScanStats::default();
            stage.sources.iter().for_each(|source| stats += source.stats);
            let explain = Explain { stages: vec![stage] };
            Ok(sources.into_answer(edges.named(), stats, explain))
        })
    }
}

/// What [`Service`] is read from.
pub(crate) fn service_field() -> Field {
    Field::Attribute(AttrScope::Resource, "service.name".into())
}

/// Conditions on a span that starts in the range.
pub(crate) fn starts_in(range: TimeRange) -> Vec<Predicate> {
    let bound = |at: UnixNano| Literal::Int(i64::try_from(at.0).unwrap_or(i64::MAX));
    let is = |test| Predicate::Is(Condition { field: Field::StartTime, test });
    vec![is(Test::Ge(bound(range.start))), is(Test::Le(bound(range.end)))]
}

/// Texts by number, each once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Service, u32>,
    names: Vec<Service>,
    bytes: usize,
}

impl Names {
    pub(crate) fn number_of(&mut self, name: Service) -> u32 {
        if let Some(known) = self.numbers.get(&name) {
            return *known;
        }
        let number = u32::try_from(self.names.len()).expect("memory ends before");
        self.bytes += name.as_ref().map_or(0, |name| name.len());
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        number
    }

    /// The names, by number.
    pub(crate) fn all(&self) -> &[Service] {
        &self.names
    }

    /// A number per row: those of the texts in a column, and of `None` for rows with something else.
    pub(crate) fn numbers_of(&mut self, column: &FieldColumn, rows: usize) -> Vec<u32> {
        let none = self.number_of(None);
        if let [ColumnPart::Coded { codes, values }] = &*column.parts {
            let of_code: Vec<u32> = values
                .iter()
                .map(|value| match value {
                    Some(Value::Str(text)) => self.number_of(Some(text.as_str().into())),
                    _ => none,
                })
                .collect();
            return codes.iter().map(|code| code.map_or(none, |code| of_code[code as usize])).collect();
        }
        let number = |row| match column.value(row) {
            Some(Value::Str(text)) => self.number_of(Some(text.into())),
            _ => none,
        };
        (0..rows).map(number).collect()
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes + self.names.len() * (2 * size_of::<Service>() + size_of::<u32>() + 1)
    }
}

#[derive(Debug, Default)]
struct Edges {
    services: Names,
    counts: HashMap<(u32, u32), u64>,
}

impl Edges {
    fn named(self) -> Calls {
        let name = |number: u32| self.services.all()[number as usize].clone();
        self.counts.iter().map(|((parent, child), count)| ((name(*parent), name(*child)), *count)).collect()
    }
}

struct Counter;

impl Accumulate for Counter {
    type Partial = Edges;

    fn start(&self) -> Edges {
        Edges::default()
    }

    fn add(&self, edges: &mut Edges, batch: &ColumnBatch, skip: &Bits) {
        let services = edges.services.numbers_of(&batch.columns[0], batch.row_count());
        for trace in (0..batch.trace_count()).filter(|trace| !skip.contains(*trace)) {
            for row in batch.rows_of(trace).filter(|row| batch.masks[0].contains(*row)) {
                let parent = batch.parents[row];
                if parent < MISSING {
                    *edges.counts.entry((services[parent as usize], services[row])).or_default() += 1;
                }
            }
        }
    }

    fn may_match(&self, batch: &ColumnBatch) -> Bits {
        Bits::from_fn(batch.trace_count(), |trace| batch.masks[0].any_in(batch.rows_of(trace)))
    }

    fn merge(&self, into: &mut Edges, other: Edges) {
        let numbers: Vec<u32> = other.services.all().iter().map(|name| into.services.number_of(name.clone())).collect();
        for ((parent, child), count) in other.counts {
            *into.counts.entry((numbers[parent as usize], numbers[child as usize])).or_default() += count;
        }
    }

    fn held_bytes(&self, edges: &Edges) -> usize {
        edges.services.held_bytes() + edges.counts.allocation_size()
    }
}

#[cfg(test)]
mod tests;
