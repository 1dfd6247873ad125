//! Tempo's legacy search: conditions that hold within one resource, not within one span.

use hashbrown::HashMap;
use spoor_model::scan::{Condition, Field, Literal, Predicate, Test};
use spoor_model::{SpanId, Trace};

use crate::request::GroupCondition;
use crate::root::root;

/// The entries of the first resource whose spans satisfy all conditions; empty when none does.
pub(crate) fn matched(trace: &Trace, conditions: &[GroupCondition]) -> Vec<usize> {
    let is_root_right = conditions.iter().all(|condition| match condition {
        GroupCondition::Root(condition) => root(trace).is_some_and(|entry| condition.matches(entry)),
        GroupCondition::Span(_) => true,
    });
    if !is_root_right {
        return Vec::new();
    }
    let holds_in = |group: &[usize]| {
        conditions.iter().all(|condition| match condition {
            GroupCondition::Span(predicate) => group.iter().any(|index| predicate.matches(&trace.entries[*index])),
            GroupCondition::Root(_) => true,
        })
    };
    groups(trace).into_iter().find(|group| holds_in(group)).unwrap_or_default()
}

/// Indexes of entries by resource, in the order in which resources appear.
fn groups(trace: &Trace) -> Vec<Vec<usize>> {
    let mut group_of = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, entry) in trace.entries.iter().enumerate() {
        let resource = (&entry.origin.resource_encoded, &entry.origin.resource_schema_url);
        let group = *group_of.entry(resource).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(index);
    }
    groups
}

/// What spans of every such trace satisfy: each of these at least one, if not the same one.
pub(crate) fn necessary(conditions: &[GroupCondition]) -> Vec<Predicate> {
    let necessary = conditions.iter().map(|condition| match condition {
        GroupCondition::Span(predicate) => predicate.clone(),
        GroupCondition::Root(condition) => {
            let test = Test::Eq(Literal::Str(SpanId::default().to_string().into()));
            let has_no_parent = Condition { field: Field::ParentSpanId, test };
            Predicate::And(vec![Predicate::Is(has_no_parent), Predicate::Is(condition.clone())])
        }
    });
    necessary.collect()
}

/// A guess at how many spans satisfy the predicate; only its order counts.
pub(crate) fn breadth(predicate: &Predicate) -> u32 {
    match predicate {
        Predicate::False => 0,
        Predicate::Is(Condition { field, test }) => {
            let of_test = match test {
                Test::Eq(_) | Test::TextEq(_) => 1,
                Test::Regex(_) | Test::Contains(_) => 2,
                _ => 4,
            };
            // A service has more spans than a span attribute has spans of one value.
            match field {
                Field::Attribute(_, key) if **key != *"service.name" => of_test,
                _ => of_test + 1,
            }
        }
        Predicate::And(all) => all.iter().map(breadth).min().unwrap_or(u32::MAX),
        Predicate::Or(any) => any.iter().map(breadth).max().unwrap_or(0),
        Predicate::OneEvent(_) | Predicate::OneLink(_) => 4,
        Predicate::True => u32::MAX,
    }
}
