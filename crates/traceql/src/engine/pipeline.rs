//! Pipelines: which spans of each trace are in the spansets that come out at the end.

use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ValuesOf};
use spoor_model::scan::Predicate;

use super::Layout;
use super::aggregate::Scalar;
use super::exposed::{self, Exposed};
use super::filter::{self, Facts};
use super::formula::Formula;
use super::frame::Frame;
use super::operand::Operand;
use super::relation::Forest;
use super::spansets::{Described, Spansets};
use crate::ast::{
    BinaryOp, Expr, Node, Pipeline, Quantifier, Relation, SpansetExpr, SpansetKind, SpansetOp, Stage, StageKind,
};
use crate::{PlanError, compute, fold};

/// A pipeline, ready to be evaluated on batches.
#[derive(Debug, Clone)]
pub(crate) struct SpansetPlan {
    pub(super) steps: Vec<Step>,
    needed: Vec<usize>,
    /// What every matching trace has beside the needed ones: a row in one mask of each list.
    required: Vec<Vec<usize>>,
    is_covered: bool,
    is_single_span: bool,
    exposed: Option<Box<Exposed>>,
}

/// What happens to the spansets, one after the other.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Select(Selection),
    ScalarFilter {
        op: BinaryOp,
        left: Scalar,
        right: Scalar,
    },
    /// With the key of the attribute that it adds.
    By(Operand, String),
    Coalesce,
}

/// What of each spanset stays.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    Filter(Formula),
    Piped(Vec<Step>),
    And(Box<Selection>, Box<Selection>),
    Or(Box<Selection>, Box<Selection>),
    Related { relation: Relation, quantifier: Quantifier, left: Box<Selection>, right: Box<Selection> },
}

impl SpansetPlan {
    /// Plans a checked pipeline, and notes in `layout` what it needs. `is_read_by`: whether values of events or links
    /// are read of the rows that it selects.
    pub(crate) fn new(pipeline: &Pipeline, is_read_by: bool, layout: &mut Layout) -> Result<Self, PlanError> {
        let exposed = match is_read_by || exposed::reads_lists(pipeline) {
            true => Exposed::new(pipeline, layout)?.map(Box::new),
            false => None,
        };
        let mut planner = Planner { layout, is_single_span: true };
        let (steps, facts) = planner.steps(&pipeline.stages)?;
        let is_single_span = planner.is_single_span && !layout.needs_whole_traces();
        if !is_single_span {
            layout.need_copies();
        }
        let facts = facts.unwrap_or_default();
        let is_covered = facts.cover.is_some() && facts.cover == facts.needed;
        let needed = facts.needed.unwrap_or_default();
        let mut required = facts.required;
        required.retain(|masks| *masks != needed);
        Ok(Self { steps, needed, required, is_covered, is_single_span, exposed })
    }

    /// A batch, ready to be evaluated by this plan and by whatever reads what it selects.
    pub(crate) fn frame<'a>(&'a self, batch: &'a ColumnBatch) -> Frame<'a> {
        Frame::new(batch).exposing(self.exposed.as_deref())
    }

    /// The rows in the spansets that come out, each at most once.
    pub(crate) fn selected(&self, frame: &Frame<'_>) -> Bits {
        let mut spansets = Spansets::all(frame.batch, None);
        run(&self.steps, frame, &mut spansets);
        spansets.rows
    }

    /// The spansets of a batch of one whole trace, in order, with their attributes. `places` says by row
    /// which span of the trace it is.
    pub(crate) fn described(&self, batch: &ColumnBatch, places: Vec<u32>) -> Vec<Described> {
        let mut spansets = Spansets::all(batch, Some(places));
        run(&self.steps, &self.frame(batch), &mut spansets);
        spansets.into_described(batch)
    }

    /// Masks of which every matching trace has a row in one; empty when there are no such masks.
    pub(crate) fn needed(&self) -> &[usize] {
        &self.needed
    }

    /// What some span of every matching trace satisfies, one predicate after the other, beside what is in
    /// [`Self::needed`].
    pub(crate) fn required(&self, layout: &Layout) -> Vec<Predicate> {
        let one_of =
            |masks: &Vec<usize>| Predicate::Or(masks.iter().map(|mask| layout.predicate(*mask).clone()).collect());
        self.required.iter().map(one_of).collect()
    }

    /// Whose values the plan, of this layout, reads, and so whose values may be read of the rows that it selects.
    pub(crate) fn values_of(&self, layout: &Layout) -> ValuesOf {
        if self.is_covered { layout.values_of() } else { ValuesOf::AllRows }
    }

    /// The same when of the rows that it selects single values are counted.
    pub(crate) fn counted_values_of(&self, layout: &Layout) -> ValuesOf {
        // Without needed masks every row is needed.
        if self.is_covered || self.needed.is_empty() { layout.counted_values_of() } else { ValuesOf::AllRows }
    }

    /// Whether each span is selected for itself, whatever else its trace holds.
    pub(crate) fn is_single_span(&self) -> bool {
        self.is_single_span
    }
}

struct Planner<'a> {
    layout: &'a mut Layout,
    is_single_span: bool,
}

impl Planner<'_> {
    /// The steps, and what they say of rows; `None` when they say nothing of any.
    fn steps(&mut self, stages: &[Stage]) -> Result<(Vec<Step>, Option<Facts>), PlanError> {
        let (mut steps, mut facts) = (Vec::new(), None::<Facts>);
        for stage in stages {
            match &stage.kind {
                StageKind::Spanset(SpansetExpr { kind: SpansetKind::Filter(expr), .. }) if is_true(expr) => {}
                StageKind::Spanset(SpansetExpr { kind: SpansetKind::Pipeline(inner), .. }) => {
                    let (inner, of_inner) = self.steps(&inner.stages)?;
                    steps.extend(inner);
                    facts = self.joined(facts, of_inner);
                }
                StageKind::Spanset(spanset) => {
                    let (selection, of_selection) = self.selection(spanset)?;
                    steps.push(Step::Select(selection));
                    facts = self.joined(facts, Some(of_selection));
                }
                StageKind::ScalarFilter { op, left, right } => {
                    self.is_single_span = false;
                    let (left, right) = (Scalar::new(left, self.layout)?, Scalar::new(right, self.layout)?);
                    facts = facts.or_else(|| left.reads_columns().then(Facts::default));
                    facts = facts.or_else(|| right.reads_columns().then(Facts::default));
                    steps.push(Step::ScalarFilter { op: *op, left, right });
                }
                StageKind::By(expr) => {
                    facts = facts.or_else(|| Some(Facts::default()));
                    steps.push(Step::By(Operand::new(&fold::folded(expr), self.layout)?, format!("by({expr})")));
                }
                StageKind::Coalesce => steps.push(Step::Coalesce),
                StageKind::Select(_) => {}
            }
        }
        Ok((steps, facts))
    }

    fn joined(&self, first: Option<Facts>, second: Option<Facts>) -> Option<Facts> {
        match (first, second) {
            (Some(first), Some(second)) => Some(first.and(second, self.layout)),
            (first, second) => first.or(second),
        }
    }

    fn selection(&mut self, spanset: &SpansetExpr) -> Result<(Selection, Facts), PlanError> {
        match &spanset.kind {
            SpansetKind::Filter(expr) => {
                let (formula, facts) = filter::plan(expr, self.layout)?;
                Ok((Selection::Filter(formula), facts))
            }
            SpansetKind::Pipeline(pipeline) => {
                let (steps, facts) = self.steps(&pipeline.stages)?;
                Ok((Selection::Piped(steps), facts.unwrap_or_default()))
            }
            SpansetKind::Binary { op, left, right } => {
                let (left_plan, of_left) = self.selection(left)?;
                let (right_plan, of_right) = self.selection(right)?;
                let (left_plan, right_plan) = (Box::new(left_plan), Box::new(right_plan));
                let cover = of_left.clone().or(of_right.clone()).cover;
                if *op != SpansetOp::Or {
                    self.is_single_span = false;
                }
                Ok(match *op {
                    SpansetOp::Or => (Selection::Or(left_plan, right_plan), of_left.or(of_right)),
                    SpansetOp::And => {
                        let facts = of_left.and(of_right, self.layout);
                        (Selection::And(left_plan, right_plan), Facts { cover, ..facts })
                    }
                    SpansetOp::Structural(relation, quantifier) => {
                        let facts = match quantifier {
                            Quantifier::Negated => of_right,
                            _ => of_left.and(of_right, self.layout),
                        };
                        self.layout.need_tree();
                        let (left, right) = (left_plan, right_plan);
                        (Selection::Related { relation, quantifier, left, right }, Facts { cover, ..facts })
                    }
                })
            }
        }
    }
}

fn is_true(expr: &Expr) -> bool {
    fold::folded(expr).node == Node::Static(crate::ast::Static::Bool(true))
}

fn run(steps: &[Step], frame: &Frame<'_>, spansets: &mut Spansets) {
    for step in steps {
        if spansets.rows.is_empty() {
            return;
        }
        match step {
            Step::Select(selection) => spansets.rows = select(selection, frame, spansets),
            Step::ScalarFilter { op, left, right } => {
                let (left_values, right_values) = (left.values(frame, spansets), right.values(frame, spansets));
                let is_kept: Vec<bool> = left_values
                    .iter()
                    .zip(&right_values)
                    .map(|(left, right)| compute::compare(*op, left, right))
                    .collect();
                spansets.keep(frame.batch, &is_kept);
                if spansets.is_described() {
                    left.describe(frame, spansets);
                    right.describe(frame, spansets);
                }
            }
            Step::By(operand, key) => spansets.split(frame.batch, &operand.coded(frame, &spansets.rows), key),
            Step::Coalesce => spansets.coalesce(),
        }
    }
}

/// The rows that a selection leaves of spansets.
fn select(selection: &Selection, frame: &Frame<'_>, spansets: &Spansets) -> Bits {
    match selection {
        Selection::Filter(formula) => formula.rows(frame, &spansets.rows),
        Selection::Piped(steps) => {
            let mut inner = spansets.undescribed();
            run(steps, frame, &mut inner);
            inner.rows
        }
        Selection::And(left, right) => {
            let (mut rows, right) = (select(left, frame, spansets), select(right, frame, spansets));
            let is_kept: Vec<bool> = {
                let left_counts = spansets.counts(frame.batch, &rows);
                let right_counts = spansets.counts(frame.batch, &right);
                left_counts.iter().zip(&right_counts).map(|(left, right)| *left > 0 && *right > 0).collect()
            };
            rows.union(&right);
            spansets.kept(frame.batch, &rows, &is_kept)
        }
        Selection::Or(left, right) => {
            let mut rows = select(left, frame, spansets);
            rows.union(&select(right, frame, spansets));
            rows
        }
        Selection::Related { relation, quantifier, left, right } => {
            let (left, right) = (select(left, frame, spansets), select(right, frame, spansets));
            match spansets.is_split() {
                false => forest(frame).related(*relation, *quantifier, &left, &right),
                true => related_within(spansets, frame, *relation, *quantifier, &left, &right),
            }
        }
    }
}

fn forest<'a>(frame: &'a Frame<'_>) -> Forest<'a> {
    let batch = frame.batch;
    Forest { parents: &batch.parents, trace_rows: &batch.trace_rows, connected: frame.connected() }
}

/// Relations between rows of the same spanset. Costs a pass over the trace for each of its spansets.
fn related_within(
    spansets: &Spansets,
    frame: &Frame<'_>,
    relation: Relation,
    quantifier: Quantifier,
    left: &Bits,
    right: &Bits,
) -> Bits {
    let mut found = Bits::none(left.len());
    for (trace, members) in spansets.members(frame.batch) {
        let rows = frame.batch.rows_of(trace);
        let (first, len) = (rows.start, rows.len());
        let part = |of: &Bits| {
            let mut part = Bits::none(len);
            members.iter().filter(|row| of.contains(**row)).for_each(|row| part.insert(row - first));
            part
        };
        let above = |parent: &u32| parent.checked_sub(first as u32).filter(|_| (*parent as usize) < rows.end);
        let parents: Vec<u32> =
            frame.batch.parents[rows.clone()].iter().map(|parent| above(parent).unwrap_or(*parent)).collect();
        let connected = frame.connected().map(|all| Bits::from_fn(len, |row| all.contains(first + row)));
        let forest = Forest { parents: &parents, trace_rows: &[0, len as u32], connected: connected.as_ref() };
        let related = forest.related(relation, quantifier, &part(left), &part(right));
        related.iter().for_each(|row| found.insert(first + row));
    }
    found
}
