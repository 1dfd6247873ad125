//! The known word that a mistyped one is nearest to.

/// What is longer is no mistyped word of ours; bounds the work.
const LENGTH_MAX: usize = 40;

/// The candidate that takes the fewest edits to reach, when these are few: at most a third of the letters.
/// Letters of the other case are no edit.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(LENGTH_MAX + 1).map(|c| c.to_ascii_lowercase()).collect();
    if word.len() > LENGTH_MAX {
        return None;
    }
    let ranked = candidates.into_iter().map(|candidate| (edit_count(&word, candidate), candidate));
    ranked.min_by_key(|(edits, _)| *edits).filter(|(edits, _)| edits * 3 <= word.len()).map(|(_, nearest)| nearest)
}

/// Letters to insert, drop, replace, or swap with their neighbour (optimal string alignment).
fn edit_count(word: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().map(|c| c.to_ascii_lowercase()).collect();
    // By letters taken of the word: what it costs to make these of the candidate's first letters.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=candidate.len()).collect();
    for taken in 1..=word.len() {
        let mut costs = vec![taken];
        for of in 1..=candidate.len() {
            let is_same = word[taken - 1] == candidate[of - 1];
            let mut cost = (last[of - 1] + usize::from(!is_same)).min(last[of] + 1).min(costs[of - 1] + 1);
            let is_swapped =
                taken > 1 && of > 1 && word[taken - 1] == candidate[of - 2] && word[taken - 2] == candidate[of - 1];
            if is_swapped {
                cost = cost.min(before_last[of - 2] + 1);
            }
            costs.push(cost);
        }
        before_last = std::mem::replace(&mut last, costs);
    }
    last[candidate.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expect: Option<&str>) {
        assert_eq!(nearest(word, ["name", "duration", "status", "count_over_time"]), expect, "{word}");
    }

    #[test]
    fn few_edits_lead_to_a_known_word() {
        check("nmae", Some("name"));
        check("Duration", Some("duration"));
        check("durtion", Some("duration"));
        check("count_overtime", Some("count_over_time"));
        check("foo", None);
        check("n", None);
        check(&"name".repeat(20), None);
    }
}
