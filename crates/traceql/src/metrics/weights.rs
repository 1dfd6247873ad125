//! For how many spans one stands that a sampler let through: `with(extrapolate=true)`.
//!
//! Samplers write into the W3C `tracestate` by which threshold they decided, and perhaps on which random number:
//!
//! ```text
//!   tracestate   vendor=1,ot=th:c;rv:e89b12cd34ef56     56 bits each in hex, zeros at the end left out
//!   kept         if random number >= threshold, and so with the probability (2^56 - threshold) / 2^56
//! ```
//!
//! Without `rv` the last 7 bytes of the trace id are the random number. A span stands for the reciprocal of its
//! probability. Where that is no whole number it is rounded up or down, by the random number, as often as makes
//! the mean right; so counts stay whole, and each span has the same weight in whatever it is counted.
//!
//! Source: OpenTelemetry, "TraceState: Probability Sampling" (`th`, `rv`).

use spoor_model::TraceId;
use spoor_model::bits::Bits;

use super::observed::Observed;
use crate::ast::Static;
use crate::engine::{Frame, Operand};

/// Thresholds and random numbers are below this.
const UNIT: u64 = 1 << 56;
/// Hex digits of these.
const DIGITS: usize = 14;

/// What a trace state says of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sampled {
    threshold: u64,
    random: Option<u64>,
}

/// Reads a trace state; `None` when it says nothing of sampling, or nonsense.
fn sampled(trace_state: &str) -> Option<Sampled> {
    let mut members = trace_state.split(',').filter_map(|member| member.trim().split_once('='));
    let (_, ours) = members.rfind(|(key, _)| *key == "ot")?;
    let field = |name: &str| {
        let fields = ours.split(';').filter_map(|field| field.split_once(':'));
        fields.rev().find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let threshold = field("th").filter(|text| text.len() <= DIGITS).and_then(hex)?;
    let random = field("rv").filter(|text| text.len() == DIGITS).and_then(hex);
    Some(Sampled { threshold, random })
}

/// Hex digits, of which zeros at the end may be missing.
fn hex(text: &str) -> Option<u64> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = u64::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    Some(value << (4 * (DIGITS - text.len())))
}

fn random_of(trace: TraceId) -> u64 {
    u128::from_be_bytes(trace.0) as u64 % UNIT
}

impl Sampled {
    /// How many spans one of this trace stands for.
    fn weight(&self, trace: TraceId) -> u64 {
        let kept = UNIT - self.threshold;
        let random = self.random.unwrap_or_else(|| random_of(trace));
        // Evenly spread below `kept`, if the sampler did what it says.
        let place = (random + UNIT - self.threshold) % UNIT % kept;
        UNIT / kept + u64::from(place < UNIT % kept)
    }
}

/// The weights of the rows that were observed, in their order.
pub(super) fn weights(trace_state: &Operand, frame: &Frame<'_>, selected: &Bits, seen: &Observed) -> Vec<u64> {
    let coded = trace_state.coded(frame, selected);
    let by_code: Vec<Option<Sampled>> = coded.values.iter().map(of_value).collect();
    let mut trace = 0;
    let weight = |row: &u32| {
        let row = *row as usize;
        by_code[coded.codes[row] as usize].map_or(1, |sampled| {
            while frame.batch.rows_of(trace).end <= row {
                trace += 1;
            }
            sampled.weight(frame.batch.trace_ids[trace])
        })
    };
    seen.rows.iter().map(weight).collect()
}

fn of_value(value: &Static) -> Option<Sampled> {
    match value {
        Static::Str(text) => sampled(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thresholds_are_read_and_nonsense_is_not() {
        let threshold = |text: &str| sampled(text).map(|sampled| (sampled.threshold, sampled.random));
        assert_eq!(threshold("ot=th:c"), Some((0xc << 52, None)));
        assert_eq!(threshold("a=1, ot=x:1;th:0;rv:00000000000001 ,b=2"), Some((0, Some(1))));
        assert_eq!(threshold("ot=th:8;rv:1"), Some((1 << 55, None)));
        for nonsense in ["", "ot", "ot=", "ot=th:", "ot=th:+8", "ot=th:g", "ot=th:000000000000001", "th:8", "to=th:8"] {
            assert_eq!(threshold(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_span_stands_for_as_many_as_were_dropped_and_itself() {
        let weight = |text: &str| sampled(text).expect("sampled").weight(TraceId([0xff; 16]));
        assert_eq!((weight("ot=th:0"), weight("ot=th:8"), weight("ot=th:c"), weight("ot=th:f")), (1, 2, 4, 16));
        assert_eq!(weight("ot=th:ffffffffffffff"), UNIT);
        // Of two thirds of the traces every other one counts twice.
        let third = "ot=th:55555555555555";
        assert_eq!(
            (weight(&format!("{third};rv:60000000000000")), weight(&format!("{third};rv:f0000000000000"))),
            (2, 1)
        );
    }

    proptest! {
        #[test]
        fn the_mean_is_right(threshold in 0..UNIT) {
            let kept = UNIT - threshold;
            let weight = |random| Sampled { threshold, random: Some(random) }.weight(TraceId([0; 16]));
            // The weights of all random numbers that are kept add up to all there are.
            let (low, up) = (UNIT / kept, UNIT % kept);
            prop_assert_eq!(low * kept + up, UNIT);
            prop_assert_eq!(weight(threshold), low + u64::from(up > 0));
            prop_assert_eq!(weight(UNIT - 1), low + u64::from(kept - 1 < up));
            if up > 0 {
                prop_assert_eq!((weight(threshold + up - 1), weight(threshold + up)), (low + 1, low));
            }
        }

        #[test]
        fn any_text_is_read(text in ".{0,40}") {
            if let Some(sampled) = sampled(&text) {
                sampled.weight(TraceId([7; 16]));
            }
        }
    }
}
