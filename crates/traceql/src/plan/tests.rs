use super::*;
use crate::parse;

/// The spansets as predicates, then the fields shown; or the error.
fn check(text: &str, expect: &str) {
    let planned = plan(&parse(text).expect("parses"));
    let got = match planned {
        Ok(filter) => {
            let shown: Vec<String> = filter.shown.iter().map(field).collect();
            format!("{} [{}]", spanset(&filter.spanset), shown.join(", "))
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(got, expect, "{text}");
}

fn spanset(spanset_: &Spanset) -> String {
    match spanset_ {
        Spanset::Filter(predicate) => format!("{{{}}}", text(predicate)),
        Spanset::And(left, right) => format!("({} && {})", spanset(left), spanset(right)),
        Spanset::Or(left, right) => format!("({} || {})", spanset(left), spanset(right)),
        Spanset::Piped(first, second) => format!("({} | {})", spanset(first), spanset(second)),
    }
}

fn text(predicate: &Predicate) -> String {
    let joined = |all: &[Predicate], word: &str| {
        format!("({})", all.iter().map(text).collect::<Vec<_>>().join(&format!(" {word} ")))
    };
    match predicate {
        Predicate::OneEvent(all) | Predicate::OneLink(all) => format!("{all:?}"),
        Predicate::True => "true".into(),
        Predicate::False => "false".into(),
        Predicate::And(all) => joined(all, "and"),
        Predicate::Or(any) => joined(any, "or"),
        Predicate::Is(Condition { field: of, test }) => {
            let of = field(of);
            match test {
                Test::Eq(literal) => format!("{of} == {literal:?}"),
                Test::Ne(literal) => format!("{of} != {literal:?}"),
                Test::Lt(literal) => format!("{of} < {literal:?}"),
                Test::Le(literal) => format!("{of} <= {literal:?}"),
                Test::Gt(literal) => format!("{of} > {literal:?}"),
                Test::Ge(literal) => format!("{of} >= {literal:?}"),
                Test::Regex(regex) => format!("{of} =~ {regex}"),
                Test::NotRegex(regex) => format!("{of} !~ {regex}"),
                Test::Exists => format!("{of} exists"),
                Test::Absent => format!("{of} absent"),
                other => format!("{of} {other:?}"),
            }
        }
    }
}

fn field(field: &Field) -> String {
    match field {
        Field::Attribute(AttrScope::Any, name) => format!(".{name}"),
        Field::Attribute(scope, name) => format!("{scope:?}.{name}").to_lowercase(),
        other => format!("{other:?}"),
    }
}

#[test]
fn comparisons_become_conditions() {
    check("{ span.a = \"x\" }", "{span.a == Str(\"x\")} [span.a]");
    check("{ .a != 1 && .b <= 1.5 }", "{(.a != Int(1) and .b <= Float(1.5))} [.a, .b]");
    check("{ 3 < .a }", "{.a > Int(3)} [.a]");
    check("{ duration > 1 && duration >= 1s }", "{(Duration > Int(1) and Duration >= Int(1000000000))} [Duration]");
    check("{ kind = server || status = error }", "{(Kind == Int(2) or Status == Int(2))} [Kind, Status]");
    check("{ name =~ \"GET.*\" && .a !~ `b+` }", "{(Name =~ ^(?s:GET.*)$ and .a !~ ^(?s:b+)$)} [Name, .a]");
    check("{ .a }", "{.a == Bool(true)} [.a]");
    check("{ .a = nil && nil != resource.b }", "{(.a absent and resource.b exists)} [.a, resource.b]");
    check("{ name != nil }", "{Name exists} [Name]");
    check("{ trace:id = \"0abc\" }", "{TraceId == Str(\"00000000000000000000000000000abc\")} [TraceId]");
    check("{ .a = ok }", "{false} [.a]");
}

#[test]
fn constants_fold() {
    check("{ }", "{true} []");
    check("{ false }", "{false} []");
    check("{ true && .a = 1 }", "{.a == Int(1)} [.a]");
    check("{ .a = 1 || true }", "{true} []");
    check("{ .a = 1 && 3 > 4 }", "{false} []");
    check("{ duration > 2 * 30ms }", "{Duration > Int(60000000)} [Duration]");
    check("{ .a = 7 / 2 && .b = 2 ^ 3 }", "{(.a == Int(3) and .b == Int(8))} [.a, .b]");
    check("{ !false && \"abc\" =~ \"a.c\" }", "{true} []");
}

#[test]
fn root_spans_have_a_name() {
    let root = "{ParentSpanId == Str(\"0000000000000000\")} []";
    let not_root = "{ParentSpanId != Str(\"0000000000000000\")} []";
    check("{ nestedSetParent < 0 }", root);
    check("{ nestedSetParent = -1 }", root);
    check("{ -1 >= nestedSetParent }", root);
    check("{ nestedSetParent >= 0 }", not_root);
    check("{ nestedSetParent != -1 }", not_root);
    check("{ nestedSetParent > 0 }", "line 1, col 3: nestedSetParent > 0 is not supported yet");
    check("{ nestedSetParent = 3 }", "line 1, col 3: nestedSetParent = 3 is not supported yet");
}

#[test]
fn spansets_join_and_pipe() {
    check("{ .a = 1 } && {  }| select(status, .b, name, .a)", "({.a == Int(1)} && {true}) [.a, Status, .b, Name]");
    check(
        "{ .a } || { .b } | { .c }",
        "(({.a == Bool(true)} || {.b == Bool(true)}) | {.c == Bool(true)}) [.a, .b, .c]",
    );
    check("({ .a } | select(.b)) && {}", "({.a == Bool(true)} && {true}) [.a, .b]");
    check("{} | select(rootName)", "{true} []");
}

#[test]
fn types_that_cannot_agree_are_refused_with_their_place() {
    check("{ duration > \"x\" }", "line 1, col 14: cannot compare duration with string");
    check("{ 1 < .a < 3 }", "line 1, col 12: cannot compare boolean with integer");
    check("{ name > 1s }", "line 1, col 10: cannot compare string with duration");
    check("{ status > ok }", "line 1, col 3: > cannot be used on status");
    check("{ status = server }", "line 1, col 12: cannot compare status with kind");
    check("{ .a =~ 1 }", "line 1, col 9: =~ needs a literal string on its right");
    check("{ \"x\" =~ .a }", "line 1, col 10: =~ needs a literal string on its right");
    check("{ duration =~ \"x\" }", "line 1, col 15: cannot compare duration with string");
    check("{ duration }", "line 1, col 3: a spanset filter must be true or false, not duration");
    check("{ 1 }", "line 1, col 3: a spanset filter must be true or false, not integer");
    check("{ .a && \"x\" }", "line 1, col 9: && and || need booleans, not string");
    check("{ !name }", "line 1, col 3: ! needs a boolean, not string");
    check("{ -name = 1 }", "line 1, col 3: - needs a number, not string");
    check("{ .a = true + 1 }", "line 1, col 15: cannot combine boolean with integer");
    check("{ name = nil }", "line 1, col 3: name is never nil");
    check("{ resource.service.name = nil }", "line 1, col 3: resource.service.name is never nil");
    check("{ .a < nil }", "line 1, col 8: < cannot be used on nil");
    check("{} | avg(name) > 1", "line 1, col 10: avg() needs a number, not string");
    check("{} | by(1) | count() > 1", "line 1, col 9: by() must look at the span");
    check("{ .a =~ \"a)(b\" }", "line 1, col 9: \"a)(b\" is not a regular expression: unopened group");
}

#[test]
fn metrics_functions_check_their_numbers() {
    check("{} | quantile_over_time(duration, 1.5)", "line 1, col 1: quantile 1.5 is not between 0 and 1");
    check("{} | rate() | topk(0)", "line 1, col 1: topk and bottomk need a number above 0, not 0");
    check("{} | rate() by(.a, .b, .c, .d, .e, .f)", "line 1, col 1: by() of this function takes at most 5 attributes");
    check("{} | compare({ duration }, 1)", "line 1, col 16: a spanset filter must be true or false, not duration");
    check("{} | compare({}, 2000)", "line 1, col 1: compare() gives 1 to 1000 values per attribute, not 2000");
    check(
        "{} | compare({}, 10, 5, 4)",
        "line 1, col 1: compare() needs a start above 0 and an end after it, not 5 and 4",
    );
    check("{} | compare({}) | topk(3)", "line 1, col 1: nothing can follow compare()");
}

#[test]
fn what_cannot_be_evaluated_yet_says_so() {
    check("{ .a } >> { .b }", "line 1, col 11: structural operators (>>) are not supported yet");
    check("{} | count() > 1", "line 1, col 6: aggregates are not supported yet");
    check("{} | by(.a)", "line 1, col 6: by() is not supported yet");
    check("{} | rate()", "line 1, col 1: metrics queries are not supported yet");
    check("{ rootName = \"x\" }", "line 1, col 3: rootName is not supported yet");
    check("{ traceDuration > 1s }", "line 1, col 3: traceDuration is not supported yet");
    check("{ !(.a = 1) }", "line 1, col 3: ! before what spans decide is not supported yet");
    check("{ .a = .b }", "line 1, col 8: comparing two attributes is not supported yet");
    check("{ .a + 1 = 2 }", "line 1, col 3: arithmetic on attributes is not supported yet");
    check("{ (.a = 1) = true }", "line 1, col 3: comparing the result of a comparison is not supported yet");
    check("{ parent.a = 1 }", "line 1, col 3: parent.a is not supported yet");
    check("{ event.a = nil }", "line 1, col 3: event.a = nil is not supported yet");
    check("{} | select(nestedSetLeft)", "line 1, col 6: selecting nestedSetLeft is not supported yet");
}
