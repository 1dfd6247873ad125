//! `compare()`: how often each value of each attribute occurs, among the selected spans and among the others.

use std::sync::Arc;

use spoor_model::bits::Bits;
use spoor_model::scan::{AttrScope, KeySet};

use super::observed::Observed;
use super::series::Series;
use crate::PlanError;
use crate::ast::{Attribute, Expr, Intrinsic, Pipeline, SpansetExpr, SpansetKind, Stage, StageKind};
use crate::engine::{Frame, Layout, Operand, SpansetPlan};

mod rows;
mod tally;

use rows::{Rows, Shared};
use tally::{Kind, SIDES};

pub(super) use tally::Tally;

/// How many values of each attribute and side are told when the query does not say.
const TOP_DEFAULT: usize = 10;

/// The intrinsics that are counted; of those marked, values that are not empty.
const INTRINSICS: [(Intrinsic, bool); 9] = [
    (Intrinsic::Name, false),
    (Intrinsic::Kind, false),
    (Intrinsic::Status, false),
    (Intrinsic::StatusMessage, true),
    (Intrinsic::RootName, false),
    (Intrinsic::RootServiceName, false),
    (Intrinsic::EventName, false),
    (Intrinsic::InstrumentationName, true),
    (Intrinsic::InstrumentationVersion, true),
];

/// A planned `compare()`.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    selection: SpansetPlan,
    /// `(from, to]`, when only spans that start then can be selected.
    between: Option<(u64, u64)>,
    top: usize,
    counted: Vec<Counted>,
}

/// An attribute whose values are counted.
#[derive(Debug, Clone)]
struct Counted {
    label: Arc<str>,
    operand: Operand,
    skips_empty: bool,
}

impl Comparison {
    /// Plans the function and notes in `layout` what it needs.
    pub(super) fn new(selection: &Expr, numbers: &[i64], layout: &mut Layout) -> Result<Self, PlanError> {
        let pos = selection.pos;
        let kind = StageKind::Spanset(SpansetExpr { pos, kind: SpansetKind::Filter(selection.clone()) });
        let pipeline = Pipeline { stages: vec![Stage { pos, kind }] };
        let selection = SpansetPlan::new(&pipeline, false, layout)?;
        let counted = INTRINSICS.map(|(intrinsic, skips_empty)| Counted {
            label: intrinsic.text().into(),
            operand: Operand::counted(&Attribute::Intrinsic(intrinsic), layout),
            skips_empty,
        });
        let top = numbers.first().and_then(|top| usize::try_from(*top).ok()).unwrap_or(TOP_DEFAULT);
        let between = match numbers {
            [_, from, to] => Some((*from as u64, *to as u64)),
            _ => None,
        };
        Ok(Self { selection, between, top, counted: counted.into() })
    }

    /// Counts these attributes, too.
    pub(super) fn count_attributes(&mut self, keys: &KeySet, layout: &mut Layout) {
        for (scope, names) in keys.iter().filter(|(scope, _)| **scope != AttrScope::Any) {
            for name in names {
                let attribute = Attribute::Named(*scope, name.as_str().into());
                let operand = Operand::counted(&attribute, layout);
                self.counted.push(Counted { label: attribute.to_string().into(), operand, skips_empty: false });
            }
        }
    }

    /// Whether it matters when exactly spans start.
    pub(super) fn is_limited_in_time(&self) -> bool {
        self.between.is_some()
    }

    /// How many attributes are counted.
    pub(super) fn attribute_count(&self) -> usize {
        self.counted.len()
    }

    /// Empty counters.
    pub(super) fn start(&self, interval_count: usize) -> Tally {
        Tally::new(self.counted.len(), interval_count)
    }

    /// Counts the values of rows, each in its interval, as often as `weights` say; `starts` by row of the batch.
    pub(super) fn add(
        &self,
        tally: &mut Tally,
        frame: &Frame<'_>,
        seen: &Observed,
        starts: &[i64],
        weights: Option<Vec<u64>>,
    ) {
        let selected = self.selection.selected(frame);
        let interval_count = (tally.width / SIDES.len()) as u32;
        let is_in_time =
            |row: u32| self.between.is_none_or(|(from, to)| (from + 1..=to).contains(&(starts[row as usize] as u64)));
        let side = |row: u32| u32::from(selected.contains(row as usize) && is_in_time(row));
        let pairs = seen.rows.iter().zip(&seen.intervals);
        let cells = pairs.map(|(row, interval)| side(*row) * interval_count + interval);
        let rows = Rows::new(&seen.rows, cells, tally.width).weighted(weights);
        let (mut among, mut shared) = (None, Shared::default());
        for (counted, attribute) in self.counted.iter().zip(&mut tally.attributes) {
            match &counted.operand {
                Operand::Field { column, meaning } => {
                    let kind = Kind { meaning: *meaning, skips_empty: counted.skips_empty };
                    attribute.add_column(&frame.batch.columns[*column], kind, &rows, &mut shared);
                }
                operand => {
                    let among: &Bits = among.get_or_insert_with(|| rows.as_bits(frame.batch.row_count()));
                    attribute.add_coded(&operand.coded(frame, among), &rows);
                }
            }
        }
    }

    /// The totals, and per side and attribute the values that occur most often; ties by the value's text.
    pub(super) fn series(&self, tally: &Tally) -> Vec<Series> {
        let mut all = Vec::new();
        for (counted, attribute) in self.counted.iter().zip(&tally.attributes) {
            for (side, name) in SIDES.iter().enumerate() {
                attribute.add_series(&mut all, (side, name), &counted.label, self.top, tally.width);
            }
        }
        all
    }
}
