//! From counts to series: values per interval, labels, exemplars.

use std::sync::Arc;

use super::bucket::{self, Bucket};
use super::exemplars::Candidate;
use super::partial::{Buckets, Counters, Partial, Total};
use super::series::{Exemplar, Label, NAME, Series, label_value};
use super::{COMPARE_TOP, MetricsFunction, MetricsOperand, Window};
use crate::ast::Static;
use crate::compute;

impl MetricsOperand {
    /// The series of a whole result.
    pub(super) fn series(&self, result: Partial) -> Vec<Series> {
        let Partial { window, groups, counters, exemplars } = result;
        let interval_count = window.interval_count() as usize;
        let mut keys = groups.keys().to_vec();
        if self.by.is_empty() && keys.is_empty() {
            keys.push(Vec::new());
        }
        let mut series = match &counters {
            Counters::Spans(counts) => {
                let none = vec![0; interval_count];
                let rows = (0..keys.len()).map(|group| counts.get(group).unwrap_or(&none));
                let seconds = match self.function {
                    MetricsFunction::Rate => window.step_nano() as f64 / 1e9,
                    _ => 1.0,
                };
                let values = rows.map(|row| row.iter().map(|count| Some(*count as f64 / seconds)).collect());
                self.labelled(&keys, values)
            }
            Counters::Totals(totals) => {
                let none = vec![Total::default(); interval_count];
                let rows = (0..keys.len()).map(|group| totals.get(group).unwrap_or(&none));
                let values = rows.map(|row| row.iter().map(|total| self.value_of(total)).collect());
                self.labelled(&keys, values)
            }
            Counters::Buckets(buckets) => match &self.function {
                MetricsFunction::Quantile(_, shares) => self.quantiles(&keys, buckets, shares, interval_count),
                _ => self.histogram(&keys, buckets),
            },
            Counters::Comparison(comparison) => {
                let top = match &self.function {
                    MetricsFunction::Compare(_, numbers) => numbers.first().copied().unwrap_or(COMPARE_TOP),
                    _ => COMPARE_TOP,
                };
                return comparison.series(&self.attribute_keys, usize::try_from(top).unwrap_or(0));
            }
        };
        for candidate in exemplars.into_candidates() {
            let labels = self.labels(&keys[candidate.group as usize]);
            attach(&mut series, &candidate, &labels, &window);
        }
        series.retain(|series| series.values.iter().any(Option::is_some));
        series
    }

    fn value_of(&self, total: &Total) -> Option<f64> {
        (total.count > 0).then(|| match self.function {
            MetricsFunction::Min(_) => total.min,
            MetricsFunction::Max(_) => total.max,
            MetricsFunction::Avg(_) => total.sum() / total.count as f64,
            _ => total.sum(),
        })
    }

    fn labelled(&self, keys: &[Vec<Static>], values: impl Iterator<Item = Vec<Option<f64>>>) -> Vec<Series> {
        let labels = keys.iter().map(|key| match self.by.is_empty() {
            true => vec![(NAME.into(), Static::Str(self.function.name().into()))],
            false => self.labels(key),
        });
        labels.zip(values).map(|(labels, values)| Series { labels, values, exemplars: Vec::new() }).collect()
    }

    /// The labels of a group: a value that is missing has none, unless all are missing.
    fn labels(&self, key: &[Static]) -> Vec<Label> {
        let labelled = self.by_keys.iter().zip(key);
        let present = labelled.filter(|(_, value)| !value.is_nil());
        let labels: Vec<Label> = present.map(|(key, value)| (Arc::clone(key), label_value(value))).collect();
        match self.by_keys.first() {
            Some(first) if labels.is_empty() => vec![(Arc::clone(first), Static::Str("nil".into()))],
            _ => labels,
        }
    }

    fn quantiles(
        &self,
        keys: &[Vec<Static>],
        buckets: &Buckets,
        shares: &[Static],
        interval_count: usize,
    ) -> Vec<Series> {
        let mut series = Vec::new();
        for (group, key) in keys.iter().enumerate() {
            let rows = of_group(buckets, group);
            for share in shares.iter().filter_map(compute::as_float) {
                let value = |interval: usize| {
                    let counts: Vec<(f64, u64)> =
                        rows.iter().map(|(bound, counts)| (*bound, counts[interval])).collect();
                    Some(bucket::quantile(share, &counts))
                };
                let mut labels = self.labels(key);
                labels.push(("p".into(), Static::Float(share)));
                let values = (0..interval_count).map(value).collect();
                series.push(Series { labels, values, exemplars: Vec::new() });
            }
        }
        series
    }

    fn histogram(&self, keys: &[Vec<Static>], buckets: &Buckets) -> Vec<Series> {
        let of_bucket = |((group, bucket), counts): (&(u32, Bucket), &Vec<u64>)| {
            let mut labels = self.labels(&keys[*group as usize]);
            labels.push(("__bucket".into(), Static::Float(bucket.bound())));
            let values = counts.iter().map(|count| Some(*count as f64)).collect();
            Series { labels, values, exemplars: Vec::new() }
        };
        buckets.keys.iter().zip(&buckets.counts).map(of_bucket).collect()
    }
}

impl MetricsFunction {
    /// As the query spells it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Count => "count_over_time",
            Self::Min(_) => "min_over_time",
            Self::Max(_) => "max_over_time",
            Self::Sum(_) => "sum_over_time",
            Self::Avg(_) => "avg_over_time",
            Self::Quantile(..) => "quantile_over_time",
            Self::Histogram(_) => "histogram_over_time",
            Self::Compare(..) => "compare",
        }
    }
}

/// A group's buckets, ascending by bound.
fn of_group(buckets: &Buckets, group: usize) -> Vec<(f64, &Vec<u64>)> {
    let of_group = buckets.keys.iter().zip(&buckets.counts).filter(|((of, _), _)| *of as usize == group);
    let mut rows: Vec<(f64, &Vec<u64>)> = of_group.map(|((_, bucket), counts)| (bucket.bound(), counts)).collect();
    rows.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    rows
}

/// Gives an exemplar to the series that it belongs to: by its group's labels; of several such (quantiles,
/// buckets), the one whose value, or whose bucket, is nearest.
fn attach(series: &mut [Series], candidate: &Candidate, labels: &[Label], window: &Window) {
    let Some(interval) = window.interval_of(candidate.start_nano) else { return };
    let measured = candidate.value.unwrap_or(0.0);
    let distance = |series: &Series| {
        let bucket = series.labels.iter().find_map(|(key, value)| match value {
            Static::Float(bound) if **key == *"__bucket" => Some(*bound),
            _ => None,
        });
        match (bucket, series.values[interval]) {
            // The bucket is the first whose bound is not below.
            (Some(bound), _) if bound < measured => f64::INFINITY,
            (Some(bound), _) => bound - measured,
            (None, Some(value)) => (value - measured).abs(),
            (None, None) => f64::INFINITY,
        }
    };
    let is_of_group = |series: &&mut Series| labels.iter().all(|label| series.labels.contains(label));
    let nearest = series.iter_mut().filter(is_of_group).min_by(|a, b| distance(a).total_cmp(&distance(b)));
    let Some(series) = nearest else { return };
    let counts_spans = candidate.value.is_none() || series.labels.iter().any(|(key, _)| **key == *"__bucket");
    let value = if counts_spans { series.values[interval].unwrap_or(0.0) } else { measured };
    let id = candidate.trace.to_string();
    let mut exemplar_labels: Vec<Label> = vec![("trace:id".into(), Static::Str(id.trim_start_matches('0').into()))];
    exemplar_labels.extend(labels.iter().cloned());
    series.exemplars.push(Exemplar { labels: exemplar_labels, value, timestamp_nano: candidate.start_nano });
}
