//! Spans below their parents, and which spans of two traces are the same step.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use spoor_model::{Span, SpanId, Trace};

/// Steps of a path that are told; those nearest to the span.
const PATH_STEPS_MAX: usize = 32;

/// A trace as a forest. Spans are meant by their index among the trace's entries.
pub(super) struct Forest<'a> {
    pub(super) trace: &'a Trace,
    parents: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
    roots: Vec<usize>,
    /// How many equal steps stand before it among its siblings.
    places: Vec<usize>,
    /// Spans beyond the first of their id.
    pub(super) duplicate_ids: usize,
}

/// What makes two spans the same step, but for where they stand.
pub(super) type Step<'a> = (&'a str, &'a str, i32);

impl<'a> Forest<'a> {
    /// Costs time linear in the trace. A parent that is missing, or that is below its own child, makes a root.
    pub(super) fn new(trace: &'a Trace) -> Self {
        let count = trace.entries.len();
        let mut by_id: HashMap<SpanId, usize> = HashMap::with_capacity(count);
        for (index, entry) in trace.entries.iter().enumerate() {
            by_id.entry(entry.span.span_id).or_insert(index);
        }
        let parent_of = |(index, entry): (usize, &spoor_model::SpanEntry)| {
            let parent = entry.span.parent_span_id;
            by_id.get(&parent).copied().filter(|found| *found != index && !parent.is_zero())
        };
        let parents: Vec<Option<usize>> = trace.entries.iter().enumerate().map(parent_of).collect();
        let duplicate_ids = count - by_id.len();
        let (children, roots, places) = (vec![Vec::new(); count], Vec::new(), vec![0; count]);
        let mut forest = Self { trace, parents, children, roots, places, duplicate_ids };
        forest.cut_cycles();
        for index in 0..count {
            match forest.parents[index] {
                Some(parent) => forest.children[parent].push(index),
                None => forest.roots.push(index),
            }
        }
        forest.count_places();
        forest
    }

    fn cut_cycles(&mut self) {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            OnTheWay,
            Good,
        }
        let mut states = vec![State::New; self.parents.len()];
        for start in 0..self.parents.len() {
            let mut way = Vec::new();
            let mut next = Some(start);
            while let Some(index) = next {
                match states[index] {
                    State::New => {
                        states[index] = State::OnTheWay;
                        way.push(index);
                        next = self.parents[index];
                    }
                    State::OnTheWay => {
                        self.parents[index] = None;
                        next = None;
                    }
                    State::Good => next = None,
                }
            }
            way.into_iter().for_each(|index| states[index] = State::Good);
        }
    }

    fn count_places(&mut self) {
        let mut places = vec![0; self.parents.len()];
        for siblings in self.children.iter().chain([&self.roots]) {
            let mut seen: HashMap<Step<'_>, usize> = HashMap::new();
            for index in siblings {
                let count = seen.entry(self.step(*index)).or_default();
                places[*index] = *count;
                *count += 1;
            }
        }
        self.places = places;
    }

    pub(super) fn span(&self, index: usize) -> &'a Span {
        &self.trace.entries[index].span
    }

    pub(super) fn service(&self, index: usize) -> &'a str {
        self.trace.entries[index].origin.service_name().unwrap_or_default()
    }

    fn step(&self, index: usize) -> Step<'a> {
        let span = self.span(index);
        (self.service(index), &span.name, span.kind)
    }

    /// From the root to the span: `service: name`, and which of several when there are several.
    pub(super) fn path(&self, index: usize) -> Vec<String> {
        let mut path = Vec::new();
        let mut next = Some(index);
        while let Some(index) = next.filter(|_| path.len() < PATH_STEPS_MAX) {
            let (service, name, _) = self.step(index);
            path.push(match self.places[index] {
                0 => format!("{service}: {name}"),
                place => format!("{service}: {name} [{place}]"),
            });
            next = self.parents[index];
        }
        path.reverse();
        path
    }

    pub(super) fn parent(&self, index: usize) -> Option<usize> {
        self.parents[index]
    }

    pub(super) fn place(&self, index: usize) -> usize {
        self.places[index]
    }

    /// Who calls whom, each pair of steps once.
    pub(super) fn edges(&self) -> BTreeSet<(Option<Step<'a>>, Step<'a>)> {
        let edge = |index: usize| (self.parents[index].map(|parent| self.step(parent)), self.step(index));
        (0..self.parents.len()).map(edge).collect()
    }
}

/// Which spans are the same step of two traces.
pub(super) struct Matching {
    /// By the index in the base.
    pub(super) pairs: Vec<(usize, usize)>,
    /// Only in the base, ascending.
    pub(super) removed: Vec<usize>,
    /// Only in the other, ascending.
    pub(super) added: Vec<usize>,
}

impl Matching {
    /// The n-th of several equal steps is the n-th of the other trace, by start. Below what has no partner, nothing has.
    pub(super) fn new(base: &Forest<'_>, compare: &Forest<'_>) -> Self {
        let mut matching = Self { pairs: Vec::new(), removed: Vec::new(), added: Vec::new() };
        let mut open = vec![(base.roots.as_slice(), compare.roots.as_slice())];
        while let Some((left, right)) = open.pop() {
            let mut by_step: BTreeMap<(Step<'_>, usize), (Option<usize>, Option<usize>)> = BTreeMap::new();
            for index in left {
                by_step.entry((base.step(*index), base.place(*index))).or_default().0 = Some(*index);
            }
            for index in right {
                by_step.entry((compare.step(*index), compare.place(*index))).or_default().1 = Some(*index);
            }
            for found in by_step.into_values() {
                match found {
                    (Some(left), Some(right)) => {
                        matching.pairs.push((left, right));
                        open.push((&base.children[left], &compare.children[right]));
                    }
                    (Some(left), None) => {
                        matching.removed.push(left);
                        open.push((&base.children[left], &[]));
                    }
                    (None, Some(right)) => {
                        matching.added.push(right);
                        open.push((&[], &compare.children[right]));
                    }
                    (None, None) => {}
                }
            }
        }
        matching.pairs.sort_unstable();
        matching.removed.sort_unstable();
        matching.added.sort_unstable();
        matching
    }

    /// A removed and an added name of one service that are the same when digits are left out.
    pub(super) fn same_but_for_digits<'a>(
        &self,
        base: &Forest<'a>,
        compare: &Forest<'a>,
    ) -> Option<(&'a str, &'a str)> {
        let shape = |name: &str| name.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        let shape_of = |forest: &Forest<'a>, index: usize| (forest.service(index), shape(&forest.span(index).name));
        let removed: HashMap<(&str, String), usize> =
            self.removed.iter().map(|index| (shape_of(base, *index), *index)).collect();
        self.added.iter().find_map(|added| {
            let removed = removed.get(&shape_of(compare, *added))?;
            let (before, after) = (base.span(*removed).name.as_str(), compare.span(*added).name.as_str());
            (before != after).then_some((before, after))
        })
    }
}
