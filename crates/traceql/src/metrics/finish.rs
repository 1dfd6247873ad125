//! From counters to series.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cells::Cells;
use super::exemplars::{Candidate, Measured};
use super::groups::Key;
use super::histogram::{Buckets, exponent_of, quantile};
use super::operand::{Function, Measure, MetricsOperand, Partial, bound_of};
use super::series::{Exemplar, Label, NAME, Series};
use super::window::Window;
use crate::ast::Static;
use hashbrown::HashMap;

impl MetricsOperand {
    /// The series of what was counted, in no order; some may have no point.
    pub(super) fn series(&self, partial: &Partial) -> Vec<Series> {
        match (&self.function, &partial.cells) {
            (Function::Compare(comparison), _) => comparison.series(&partial.tally),
            (Function::Histogram(measure), Cells::Buckets(buckets)) => self.histogram(partial, buckets, measure),
            (Function::Quantile(measure, shares), Cells::Buckets(buckets)) => {
                self.quantiles(partial, buckets, measure, shares)
            }
            (function, cells) => self.plain(partial, |cell| point(function, cells, cell, &partial.window)),
        }
    }

    /// The labels of a group; the name where nothing is grouped.
    fn labels(&self, key: &[Static]) -> Vec<Label> {
        let pairs = self.by.iter().zip(key).filter(|(_, value)| !value.is_nil());
        pairs.map(|((name, _), value)| (Arc::clone(name), value.clone())).collect()
    }

    /// An exemplar; without a value of its own, [`fill_exemplars`] gives it one.
    fn exemplar(&self, candidate: &Candidate, value: f64) -> Exemplar {
        let id = candidate.trace.to_string();
        let trace = ("trace:id".into(), Static::Str(id.trim_start_matches('0').into()));
        let labels = std::iter::once(trace).chain(self.labels(&candidate.group)).collect();
        Exemplar { labels, value, timestamp_nano: candidate.start }
    }

    /// One series per group.
    fn plain(&self, partial: &Partial, point: impl Fn(usize) -> Option<f64>) -> Vec<Series> {
        let interval_count = partial.window.interval_count() as usize;
        let mut all = Vec::with_capacity(partial.groups.len());
        let named = || vec![(NAME.into(), Static::Str(self.function.name().into()))];
        for (group, key) in partial.groups.keys().iter().enumerate() {
            let labels = if self.by.is_empty() { named() } else { self.labels(key) };
            let points = (0..interval_count).map(|interval| point(group * interval_count + interval)).collect();
            all.push(Series::new(labels, points));
        }
        if self.by.is_empty() && all.is_empty() {
            // There even when no span is.
            let is_count = matches!(self.function, Function::Rate | Function::Count);
            all.push(Series::new(named(), vec![is_count.then_some(0.0); interval_count]));
        }
        let places: HashMap<&Key, usize> = partial.groups.keys().iter().zip(0..).collect();
        for candidate in partial.chosen.candidates() {
            let value = if let Measured::Value(value) = candidate.measured { value } else { f64::NAN };
            if let Some(place) = places.get(&candidate.group) {
                all[*place].exemplars.push(self.exemplar(candidate, value));
            }
        }
        all
    }

    /// One series per group and bucket.
    fn histogram(&self, partial: &Partial, buckets: &Buckets, measure: &Measure) -> Vec<Series> {
        let mut all = Vec::new();
        let mut places: HashMap<(&Key, i32), usize> = HashMap::new();
        for (group, key) in partial.groups.keys().iter().enumerate() {
            for (exponent, counts) in buckets.rows(group) {
                let mut labels = self.labels(key);
                labels.push(("__bucket".into(), Static::Float(bound_of(measure, exponent))));
                places.insert((key, exponent), all.len());
                all.push(Series::new(labels, counts.iter().map(|count| Some(*count as f64)).collect()));
            }
        }
        for candidate in partial.chosen.candidates() {
            if let Measured::Bucket(place, _) = candidate.measured
                && let Some(series) = places.get(&(&candidate.group, exponent_of(place)))
            {
                all[*series].exemplars.push(self.exemplar(candidate, f64::NAN));
            }
        }
        all
    }

    /// One series per group and share. An exemplar goes to the share whose quantile, over the whole window, is
    /// nearest to it.
    fn quantiles(&self, partial: &Partial, buckets: &Buckets, measure: &Measure, shares: &[f64]) -> Vec<Series> {
        let interval_count = partial.window.interval_count() as usize;
        let mut all = Vec::new();
        let mut overall: HashMap<&Key, (usize, Vec<f64>)> = HashMap::new();
        for (group, key) in partial.groups.keys().iter().enumerate() {
            let rows = buckets.rows(group);
            let of = |count: &dyn Fn(&[u64]) -> u64| -> BTreeMap<i32, u64> {
                rows.iter().map(|(exponent, counts)| (*exponent, count(counts))).collect()
            };
            let by_interval: Vec<BTreeMap<i32, u64>> =
                (0..interval_count).map(|interval| of(&|counts| counts[interval])).collect();
            let whole = of(&|counts| counts.iter().sum());
            let of_whole = shares.iter().map(|share| quantile(&whole, *share, measure.is_duration)).collect();
            overall.insert(key, (all.len(), of_whole));
            for share in shares {
                let mut labels = self.labels(key);
                labels.push(("p".into(), Static::Float(*share)));
                let points = by_interval.iter().map(|buckets| Some(quantile(buckets, *share, measure.is_duration)));
                all.push(Series::new(labels, points.collect()));
            }
        }
        if self.by.is_empty() && all.is_empty() {
            for share in shares {
                let labels = vec![("p".into(), Static::Float(*share))];
                all.push(Series::new(labels, vec![Some(0.0); interval_count]));
            }
        }
        for candidate in partial.chosen.candidates() {
            if let Measured::Bucket(_, value) = candidate.measured
                && let Some((first, quantiles)) = overall.get(&candidate.group)
            {
                let distance = |place: &usize| (quantiles[*place] - value).abs();
                let nearest = (0..quantiles.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0);
                all[first + nearest].exemplars.push(self.exemplar(candidate, value));
            }
        }
        all
    }
}

fn point(function: &Function, cells: &Cells, cell: usize, window: &Window) -> Option<f64> {
    match (function, cells) {
        (Function::Rate, Cells::Counts(counts)) => Some(counts[cell] as f64 / (window.step_nano() as f64 / 1e9)),
        (_, Cells::Counts(counts)) => Some(counts[cell] as f64),
        (_, Cells::Least(values) | Cells::Greatest(values)) => Some(values[cell]).filter(|value| !value.is_nan()),
        (Function::Avg(_), Cells::Sums(sums)) => sums[cell].mean(),
        (_, Cells::Sums(sums)) => sums[cell].total(),
        (_, Cells::Buckets(_)) => None,
    }
}

/// Gives exemplars without a value the point of their interval; those that have none there are dropped.
pub(super) fn fill_exemplars(series: &mut Series, window: &Window) {
    let values = &series.values;
    series.exemplars.retain_mut(|exemplar| {
        let point = window.interval_of(exemplar.timestamp_nano).and_then(|interval| values[interval]);
        if let (true, Some(point)) = (exemplar.value.is_nan(), point) {
            exemplar.value = point;
        }
        !exemplar.value.is_nan()
    });
}
