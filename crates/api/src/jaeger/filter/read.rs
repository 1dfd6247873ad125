//! From the tree of calls to a formula: which operators take what, and how texts become values.
//!
//! Everything is named by its place in errors only as far as people need: by the operator.

use std::cell::Cell;

use spoor_model::scan::{Condition, Field, Literal, Test};
use spoor_model::{Value, rfc3339};
use spoor_traceql::{REGEXES_MAX, re2};

use super::DEPTH_MAX;
use super::formula::{Comparison, Formula};
use super::reference::{Domain, List, Named, service_attribute};
use crate::go_duration;
use crate::jaeger::model::{EMPTY_SERVICE, MISSING_SERVICE};
use crate::jaeger::search::no_service_name;
use crate::proto::jaeger::expression::v1::{self as proto, Call, Expression, expression::Kind};

type Read<T> = Result<T, String>;

/// What a filter says.
pub(super) fn formula(call: &Call) -> Read<Formula> {
    Reader::default().call(call, &Place { depth: 1, bound: &[] })
}

/// Where in the tree a call stands.
struct Place<'a> {
    depth: usize,
    /// The lists of the `some` around it.
    bound: &'a [List],
}

#[derive(Default)]
struct Reader {
    regex_count: Cell<usize>,
}

/// An argument of a comparison.
enum Operand<'a> {
    Named(Named),
    Constant(&'a proto::Scalar),
}

impl Reader {
    fn call(&self, Call { op, args }: &Call, place: &Place<'_>) -> Read<Formula> {
        if place.depth > DEPTH_MAX {
            return Err(format!("calls are nested more than {DEPTH_MAX} deep"));
        }
        match op.as_str() {
            "and" => Ok(Formula::all(self.calls(op, args, place)?)),
            "or" => Ok(Formula::any(self.calls(op, args, place)?)),
            "not" => Ok(not(self.inner(op, one(op, args)?, place)?)),
            "eq" => comparison(op, Comparison::Eq, args),
            "ne" => {
                let equal = comparison(op, Comparison::Eq, args)?;
                let named = args.iter().filter_map(|arg| named(op, arg).ok());
                Ok(Formula::all(named.map(|named| there(&named)).chain([not(equal)]).collect()))
            }
            "gt" => comparison(op, Comparison::Gt, args),
            "gte" => comparison(op, Comparison::Gte, args),
            "lt" => comparison(op, Comparison::Lt, args),
            "lte" => comparison(op, Comparison::Lte, args),
            "regex" => self.regex(op, args),
            "exists" => Ok(there(&named(op, one(op, args)?)?)),
            "in" => membership(op, args).map(|(_, is_member)| is_member),
            "not_in" => {
                let (named, is_member) = membership(op, args)?;
                Ok(Formula::all(vec![there(&named), not(is_member)]))
            }
            "some" => self.some(op, args, place),
            "" => Err("a call needs an op".to_owned()),
            other => Err(format!("unknown operator {other:?}")),
        }
    }

    fn calls(&self, op: &str, args: &[Expression], place: &Place<'_>) -> Read<Vec<Formula>> {
        match args {
            [] => Err(format!("{op} needs arguments")),
            args => args.iter().map(|arg| self.inner(op, arg, place)).collect(),
        }
    }

    /// An argument that is a call.
    fn inner(&self, op: &str, arg: &Expression, place: &Place<'_>) -> Read<Formula> {
        match &arg.kind {
            Some(Kind::Call(call)) => self.call(call, &Place { depth: place.depth + 1, ..*place }),
            _ => Err(format!("{op} takes calls")),
        }
    }

    fn some(&self, op: &str, args: &[Expression], place: &Place<'_>) -> Read<Formula> {
        let [list, predicate] = two(op, args)?;
        let Some(Kind::Nested(proto::Nested { level })) = &list.kind else {
            return Err("the first argument of some is nested: the events or the links".to_owned());
        };
        let list = match level.as_str() {
            "event" => List::Events,
            "link" => List::Links,
            other => return Err(format!("some is about event or link, not {other:?}")),
        };
        if place.bound.contains(&list) {
            return Err(format!("some of level {level} within some of the same level"));
        }
        let bound: Vec<List> = place.bound.iter().copied().chain([list]).collect();
        let predicate = self.inner(op, predicate, &Place { depth: place.depth, bound: &bound })?;
        Ok(Formula::Some(list, Box::new(predicate)))
    }

    fn regex(&self, op: &str, args: &[Expression]) -> Read<Formula> {
        let [left, right] = two(op, args)?;
        let named = named(op, left)?;
        let Operand::Constant(proto::Scalar { value, r#type }) = operand(op, right)? else {
            return Err("the second argument of regex is a constant".to_owned());
        };
        if !matches!(r#type.as_str(), "" | "string") {
            return Err(format!("an expression is a string, not of type {:?}", r#type));
        }
        self.regex_count.set(self.regex_count.get() + 1);
        if self.regex_count.get() > REGEXES_MAX {
            return Err(format!("more than {REGEXES_MAX} regular expressions"));
        }
        let regex =
            re2::anywhere(value).map_err(|why| format!("{value:?} is no regular expression as RE2 has them: {why}"))?;
        match named.domain {
            Domain::Duration | Domain::Instant => Err("regex is about texts, not times".to_owned()),
            Domain::Kind | Domain::Status => {
                let matching = words(named.domain).iter().filter(|(word, _)| regex.is_match(word));
                Ok(any_of(&named, &matching.map(|(_, number)| Test::Eq(Literal::Int(*number))).collect::<Vec<_>>()))
            }
            Domain::Any | Domain::Text | Domain::TraceId => Ok(any_of(&named, &[Test::Regex(regex)])),
        }
    }
}

fn one<'a>(op: &str, args: &'a [Expression]) -> Read<&'a Expression> {
    match args {
        [one] => Ok(one),
        _ => Err(format!("{op} takes one argument, not {}", args.len())),
    }
}

fn two<'a>(op: &str, args: &'a [Expression]) -> Read<[&'a Expression; 2]> {
    match args {
        [left, right] => Ok([left, right]),
        _ => Err(format!("{op} takes two arguments, not {}", args.len())),
    }
}

fn not(formula: Formula) -> Formula {
    Formula::Not(Box::new(formula))
}

fn operand<'a>(op: &str, arg: &'a Expression) -> Read<Operand<'a>> {
    match &arg.kind {
        Some(Kind::Attr(attribute)) => Named::attribute(attribute).map(Operand::Named),
        Some(Kind::Field(field)) if field.level == "resource" && field.name == "service" => {
            Ok(Operand::Named(Named::service()))
        }
        Some(Kind::Field(field)) => Named::field(field).map(Operand::Named),
        Some(Kind::Scalar(constant)) => Ok(Operand::Constant(constant)),
        Some(Kind::Nested(_)) => Err(format!("{op} takes no nested: that is for some")),
        Some(Kind::List(_)) => Err(format!("{op} takes no list: that is for in and not_in")),
        Some(Kind::Call(_)) => Err(format!("{op} takes attributes, fields and constants, no calls")),
        None => Err(format!("an argument of {op} is empty")),
    }
}

fn named(op: &str, arg: &Expression) -> Read<Named> {
    match operand(op, arg)? {
        Operand::Named(named) => Ok(named),
        Operand::Constant(_) => Err(format!("the first argument of {op} is an attribute or a field")),
    }
}

fn comparison(op: &str, comparison: Comparison, args: &[Expression]) -> Read<Formula> {
    let [left, right] = two(op, args)?;
    match (operand(op, left)?, operand(op, right)?) {
        (Operand::Named(named), Operand::Constant(constant)) => compared(op, &named, comparison, constant),
        (Operand::Constant(constant), Operand::Named(named)) => compared(op, &named, comparison.flipped(), constant),
        (Operand::Named(left), Operand::Named(right)) => {
            let is_ordered = comparison != Comparison::Eq;
            if !meet(left.domain, right.domain) || is_ordered && is_word(left.domain) {
                return Err(format!("{op} compares values that are not of one kind, or have no order"));
            }
            Ok(Formula::Compare(comparison, left.references, right.references))
        }
        (Operand::Constant(_), Operand::Constant(_)) => Err(format!("{op} compares two constants")),
    }
}

/// Whether values of two references can be equal.
fn meet(left: Domain, right: Domain) -> bool {
    let is_text = |domain| matches!(domain, Domain::Text | Domain::TraceId | Domain::Any);
    left == right || is_text(left) && is_text(right)
}

fn is_word(domain: Domain) -> bool {
    matches!(domain, Domain::Kind | Domain::Status)
}

/// It has a value.
fn there(named: &Named) -> Formula {
    match &named.presence {
        None => Formula::all(Vec::new()),
        Some(test) => Formula::any(named.references.iter().map(|it| Formula::Is(it.clone(), test.clone())).collect()),
    }
}

/// One value passes one of the tests.
fn any_of(named: &Named, tests: &[Test]) -> Formula {
    let mut any = Vec::new();
    for test in tests {
        any.extend(named.references.iter().map(|it| Formula::Is(it.clone(), test.clone())));
        if named.is_service {
            // What stands for the names of services that have none.
            let shown = |name: &str| {
                let condition = Condition { field: Field::Name, test: test.clone() };
                condition.holds_for(Some(&Value::Str(name.to_owned())))
            };
            let nameless = no_service_name().into_iter().filter(|_| shown(MISSING_SERVICE));
            let empty = [Test::Eq(Literal::Str("".into()))].into_iter().filter(|_| shown(EMPTY_SERVICE));
            any.extend(nameless.chain(empty).map(|test| Formula::Is(service_attribute(), test)));
        }
    }
    Formula::any(any)
}

fn compared(op: &str, named: &Named, comparison: Comparison, constant: &proto::Scalar) -> Read<Formula> {
    let proto::Scalar { value, r#type } = constant;
    Ok(any_of(named, &tests(op, named.domain, comparison, value, r#type)?))
}

fn membership(op: &str, args: &[Expression]) -> Read<(Named, Formula)> {
    let [left, right] = two(op, args)?;
    let named = named(op, left)?;
    let Some(Kind::List(proto::List { values, r#type })) = &right.kind else {
        return Err(format!("the second argument of {op} is a list"));
    };
    if values.is_empty() {
        return Err(format!("the list of {op} is empty"));
    }
    let each = values.iter().map(|value| tests(op, named.domain, Comparison::Eq, value, r#type));
    let tests: Vec<Test> = each.collect::<Read<Vec<_>>>()?.into_iter().flatten().collect();
    let is_member = any_of(&named, &tests);
    Ok((named, is_member))
}

/// The tests of which a value must pass one to compare so with a constant.
fn tests(op: &str, domain: Domain, comparison: Comparison, text: &str, type_name: &str) -> Read<Vec<Test>> {
    let is_ordered = comparison != Comparison::Eq;
    let str = |text: &str| Literal::Str(text.into());
    let literals = match (domain, type_name) {
        (Domain::Any, "") => return Ok(untyped(comparison, text)),
        (Domain::Any | Domain::Text, "string") | (Domain::Text, "") => vec![str(text)],
        (Domain::Any, "int") => vec![Literal::Int(text.parse().map_err(|_| format!("{text:?} is no int"))?)],
        (Domain::Any, "double") => {
            let double = text.parse().ok().filter(|double: &f64| !double.is_nan());
            vec![Literal::Float(double.ok_or_else(|| format!("{text:?} is no double"))?)]
        }
        (Domain::Any, "bool") if is_ordered => return Err(format!("{op}: booleans have no order")),
        (Domain::Any, "bool") => vec![Literal::Bool(text.parse().map_err(|_| format!("{text:?} is no bool"))?)],
        // Stored with all their zeros, and in lower case.
        (Domain::TraceId, "" | "string") => vec![str(&format!("{:0>32}", text.to_ascii_lowercase()))],
        (Domain::Kind | Domain::Status, "" | "string") if is_ordered => {
            return Err(format!("{op}: words have no order"));
        }
        (Domain::Kind | Domain::Status, "" | "string") => {
            let word = words(domain).iter().find(|(word, _)| *word == text);
            let (_, number) = word.ok_or_else(|| format!("{text:?} is none of {}", listed(domain)))?;
            vec![Literal::Int(*number)]
        }
        (Domain::Duration, "") => {
            let nanos = go_duration::parse(text).ok_or_else(|| format!("{text:?} is no duration such as 100ms"))?;
            vec![Literal::Int(i64::try_from(nanos).unwrap_or(i64::MAX))]
        }
        (Domain::Instant, "") => {
            let time = rfc3339::parse(text).ok_or_else(|| format!("{text:?} is no time as RFC 3339 has it"))?;
            vec![Literal::Int(i64::try_from(time.0).unwrap_or(i64::MAX))]
        }
        (_, "string" | "int" | "double" | "bool") => {
            return Err(format!("{op}: the field's values are not of type {type_name}"));
        }
        (_, other) => return Err(format!("unknown type {other:?}: expected string, int, double or bool")),
    };
    Ok(literals.into_iter().map(|literal| comparison.with(literal)).collect())
}

/// A constant that may be of any type: equal to whatever reads so; ordered with numbers if it reads like one, else
/// with texts.
fn untyped(comparison: Comparison, text: &str) -> Vec<Test> {
    let number = number(text);
    let as_text = Literal::Str(text.into());
    let literals = match comparison {
        Comparison::Eq => {
            let flag = text.parse().ok().map(Literal::Bool);
            [Some(as_text), number, flag].into_iter().flatten().collect()
        }
        _ => vec![number.unwrap_or(as_text)],
    };
    literals.into_iter().map(|literal| comparison.with(literal)).collect()
}

fn number(text: &str) -> Option<Literal> {
    // Rust reads words as floats, too.
    let is_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && !text.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E'));
    let float = || text.parse().ok().filter(|float: &f64| is_numeric && float.is_finite()).map(Literal::Float);
    text.parse().ok().map(Literal::Int).or_else(float)
}

/// Words for OTLP's numbers.
fn words(domain: Domain) -> &'static [(&'static str, i64)] {
    match domain {
        Domain::Status => &[("unset", 0), ("ok", 1), ("error", 2)],
        Domain::Kind => &KINDS,
        _ => &[],
    }
}

const KINDS: [(&str, i64); 6] =
    [("unspecified", 0), ("internal", 1), ("server", 2), ("client", 3), ("producer", 4), ("consumer", 5)];

fn listed(domain: Domain) -> String {
    words(domain).iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}
