//! Evaluating a planned filter: sets of rows in, sets of rows out.

use spoor_model::bits::Bits;
use spoor_model::structure::{MISSING, ROOT};

use super::frame::Frame;
use super::operand::{Choice, Operand, is_true};

/// A filter, ready to be evaluated. Masks by their place in the request.
#[derive(Debug, Clone)]
pub(super) enum Formula {
    Constant(bool),
    Mask(usize),
    /// Rows of the mask that stand at the top of a tree; where no tree was asked for, all traces are
    /// regular, and the mask tells alone.
    Roots(usize),
    /// Rows with a parent that is in the mask; with `or_without`, also rows that have no parent.
    OfParent {
        mask: usize,
        or_without: bool,
    },
    /// All rows of traces for which the operand is true.
    PerTrace(Operand),
    /// Rows for which the operand is true.
    Holds(Operand),
    /// Rows for which it is, with one choice of event and link. Which columns tell how many there are.
    Chosen {
        operand: Operand,
        events: Option<usize>,
        links: Option<usize>,
    },
    Not(Box<Formula>),
    All(Vec<Formula>),
    Any(Vec<Formula>),
}

impl Formula {
    /// Those rows of `among` for which the filter holds.
    pub(super) fn rows(&self, frame: &Frame<'_>, among: &Bits) -> Bits {
        let mut rows = among.clone();
        match self {
            Self::Constant(true) => {}
            Self::Constant(false) => return Bits::none(among.len()),
            Self::Mask(mask) => rows.intersect(&frame.batch.masks[*mask]),
            Self::Roots(mask) => {
                rows.intersect(&frame.batch.masks[*mask]);
                if !frame.batch.parents.is_empty() {
                    retain(&mut rows, |row| frame.batch.parents[row] == ROOT);
                }
            }
            Self::OfParent { mask, or_without } => of_parent(frame, *mask, *or_without, &mut rows),
            Self::PerTrace(operand) => {
                let mut traces = Bits::none(among.len());
                for trace in 0..frame.batch.trace_count() {
                    let of = frame.batch.rows_of(trace);
                    if among.any_in(of.clone()) && is_true(&operand.value(frame, of.start)) {
                        traces.insert_range(of);
                    }
                }
                rows.intersect(&traces);
            }
            Self::Holds(operand) => {
                // Nothing is chosen, and what a name without scope stands for is still any of its values.
                let choice = Choice::Of { event: None, link: None };
                retain(&mut rows, |row| is_true(&operand.chosen(frame, row, choice)));
            }
            Self::Chosen { operand, events, links } => {
                retain(&mut rows, |row| holds_for_some_choice(frame, operand, *events, *links, row));
            }
            Self::Not(formula) => rows.subtract(&formula.rows(frame, among)),
            Self::All(formulas) => {
                for formula in formulas {
                    if rows.is_empty() {
                        break;
                    }
                    rows = formula.rows(frame, &rows);
                }
            }
            Self::Any(formulas) => {
                let mut found = Bits::none(among.len());
                for formula in formulas {
                    // Rows that were found need not be looked at again.
                    rows = formula.rows(frame, &rows);
                    found.union(&rows);
                    rows = among.clone();
                    rows.subtract(&found);
                }
                return found;
            }
        }
        rows
    }
}

/// Keeps the rows for which `holds` says so.
fn retain(rows: &mut Bits, holds: impl Fn(usize) -> bool) {
    let mut kept = Bits::none(rows.len());
    rows.iter().filter(|row| holds(*row)).for_each(|row| kept.insert(row));
    *rows = kept;
}

fn of_parent(frame: &Frame<'_>, mask: usize, or_without: bool, rows: &mut Bits) {
    let mask = frame.batch.masks[mask].to_bytes();
    let parents = &frame.batch.parents;
    let by_parent: Vec<u8> = parents
        .iter()
        .map(|parent| match *parent < MISSING {
            true => mask.get(*parent as usize).copied().unwrap_or(0),
            false => u8::from(or_without),
        })
        .collect();
    let mut by_parent = Bits::from_bytes(&by_parent);
    if let Some(connected) = frame.connected() {
        match or_without {
            // Below a missing parent nothing is known of any.
            true => {
                let mut loose = connected.clone();
                loose.invert();
                by_parent.union(&loose);
            }
            false => by_parent.intersect(connected),
        }
    }
    rows.intersect(&by_parent);
}

fn holds_for_some_choice(
    frame: &Frame<'_>,
    operand: &Operand,
    events: Option<usize>,
    links: Option<usize>,
    row: usize,
) -> bool {
    let places = |column: Option<usize>| {
        let count = column.map_or(0, |column| frame.column(column).items(row).len());
        (0..count.max(1)).map(move |place| (count > 0).then_some(place))
    };
    places(events)
        .any(|event| places(links).any(|link| is_true(&operand.chosen(frame, row, Choice::Of { event, link }))))
}
