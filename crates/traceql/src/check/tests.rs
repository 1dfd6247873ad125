//! What is refused, and where.

use crate::parse;

#[track_caller]
fn check(text: &str, expect: &str) {
    let got = super::check(&parse(text).expect("parses")).map_err(|error| error.to_string());
    assert_eq!(got, Err(expect.to_owned()), "{text}");
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
    check("{} | quantile_over_time(duration, 1.5)", "line 1, col 6: quantile 1.5 is not between 0 and 1");
    check("{} | rate() | topk(0)", "line 1, col 15: topk and bottomk need a number above 0, not 0");
    check("{} | rate() by(.a, .b, .c, .d, .e, .f)", "line 1, col 6: by() of this function takes at most 5 attributes");
    check("{} | compare({ duration }, 1)", "line 1, col 16: a spanset filter must be true or false, not duration");
    check("{} | compare({}, 2000)", "line 1, col 6: compare() gives 1 to 1000 values per attribute, not 2000");
    check(
        "{} | compare({}, 10, 5, 4)",
        "line 1, col 6: compare() needs a start above 0 and an end after it, not 5 and 4",
    );
    check("{} | compare({}) | topk(3)", "line 1, col 6: nothing can follow compare()");
}
