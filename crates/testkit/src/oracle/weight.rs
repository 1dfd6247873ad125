//! For how many spans a sampled one stands.

use spoor_model::Span;

/// Digits of thresholds and random numbers, in hex.
const DIGITS: usize = 14;

/// Imagine all random numbers in rows as long as there are some that are kept, the first row those that are: a span
/// stands for every number in its column.
pub(super) fn of(span: &Span) -> usize {
    let all = 1i128 << (4 * DIGITS);
    let Some(threshold) = field(&span.trace_state, "th:") else { return 1 };
    let id = span.trace_id.0[9..].iter().fold(0, |number, byte| number << 8 | i128::from(*byte));
    let random = field(&span.trace_state, "rv:").unwrap_or(id);
    let row_len = all - threshold;
    let column = (random - threshold).rem_euclid(all) % row_len;
    (0..).take_while(|row| column + row * row_len < all).count()
}

/// What follows a name within `ot=`, with the zeros that it lacks. Good enough for the states that tests make.
fn field(state: &str, name: &str) -> Option<i128> {
    let ours = state.split(',').find_map(|member| member.strip_prefix("ot="))?;
    let text = ours.split(';').find_map(|field| field.strip_prefix(name))?;
    i128::from_str_radix(&format!("{text:0<DIGITS$}"), 16).ok()
}
