use proptest::prelude::*;

use super::*;

/// What the text parses to, with every grouping made visible, or the error.
fn check(text: &str, expect: &str) {
    let got = match parse(text) {
        Ok(query) => query.to_string(),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, expect, "{text}");
    if let Ok(query) = parse(text) {
        let again = parse(&query.to_string()).map(|query| query.to_string());
        assert_eq!(again.as_deref(), Ok(expect), "written back: {query}");
    }
}

fn check_same(text: &str) {
    check(text, text);
}

#[test]
fn spanset_filters() {
    check("{}", "{ true }");
    check("{ }", "{ true }");
    check("{.a}", "{ .a }");
    check("{ .a = 1 && span.b != \"x\" }", "{ (.a = 1) && (span.b != \"x\") }");
    check(
        " {\n\tname = `GET /` // the route\n && /* only */ kind=server }",
        "{ (name = \"GET /\") && (kind = server) }",
    );
    check("{status=error&&duration>1.5s}", "{ (status = error) && (duration > 1.5s) }");
    check("{ resource.service.name =~ \"shop|cart\" }", "{ resource.service.name =~ \"shop|cart\" }");
    check("{ span:name = \"a\" && trace:rootService = \"b\" }", "{ (name = \"a\") && (rootServiceName = \"b\") }");
    check("{ .a = nil || nil != .b }", "{ (.a = nil) || (nil != .b) }");
    check("{ event:name = \"e\" && instrumentation.x }", "{ (event:name = \"e\") && instrumentation.x }");
    check("{ parent.a = 1 && parent.resource.b = 2 }", "{ (parent.a = 1) && (parent.resource.b = 2) }");
    check("{ .n > minInt }", "{ .n > minInt }");
}

#[test]
fn and_and_or_are_one_level_and_left_associative() {
    check("{ .a || .b && .c }", "{ (.a || .b) && .c }");
    check("{ .a && .b || .c }", "{ (.a && .b) || .c }");
    check("{ .a || (.b && .c) }", "{ .a || (.b && .c) }");
    check("{ .a && .b && .c }", "{ .a && .b && .c }");
    check("{ .a || .b || .c && .d && .e }", "{ (.a || .b || .c) && .d && .e }");
}

#[test]
fn signs_and_arithmetic_bind_as_documented() {
    check("{ !.a = .b }", "{ (!.a) = .b }");
    check("{ -.a * 2 > 1 }", "{ (-(.a * 2)) > 1 }");
    check("{ -2 ^ 2 = .a }", "{ (-(2 ^ 2)) = .a }");
    check("{ 2 ^ 3 ^ .a = 1 }", "{ (2 ^ (3 ^ .a)) = 1 }");
    check("{ 1 < .a < 3 }", "{ (1 < .a) < 3 }");
    check("{ .a + 1 * 2 = -3 - 4 }", "{ (.a + (1 * 2)) = (-3 - 4) }");
    check("{ 2 * -3 + .a = 1 }", "{ ((2 * -3) + .a) = 1 }");
    check("{ .a = 7 % 2 / .b }", "{ .a = ((7 % 2) / .b) }");
}

#[test]
fn attribute_names_run_until_space_or_operator() {
    check("{ .a-b = .a+1 }", "{ .a-b = .a+1 }");
    check("{ .a + 1 = 2 }", "{ (.a + 1) = 2 }");
    check("{ span.a/b:c[0]@$*x }", "{ span.a/b:c[0]@$*x }");
    check("{ .a=1 }", "{ .a = 1 }");
    check("{ span.\"my attr\".b = 1 }", "{ span.\"my attr.b\" = 1 }");
    check("{ span.foo.\"b=c\\\"\\\\\" }", "{ span.\"foo.b=c\\\"\\\\\" }");
    check("{ .\"plain\" }", "{ .plain }");
    check("{ span.\"\\n\" }", "parse error at line 1, col 9: invalid escape sequence");
    check("{ span.\"a }", "parse error at line 1, col 8: attribute name: quote not terminated");
    check("{ span. = 1 }", "parse error at line 1, col 8: expected an attribute name after the dot");
    check("{ .5 = .a }", "{ 0.5 = .a }");
}

#[test]
fn strings_have_the_escapes_of_go() {
    check("{ .a = \"\\t\\x41\\u00e9\\101\\\"\" }", "{ .a = \"\\u0009A\u{e9}A\\\"\" }");
    check("{ .a = `raw \\n` }", "{ .a = \"raw \\\\n\" }");
    check("{ .a = \"\\q\" }", "parse error at line 1, col 9: invalid escape sequence");
    check("{ .a = \"\\xff\" }", "parse error at line 1, col 8: string is not valid UTF-8");
    check("{ .a = \"x }", "parse error at line 1, col 8: string not terminated");
    check("{ .a = \"x\ny\" }", "parse error at line 1, col 8: string not terminated");
}

#[test]
fn spansets_combine() {
    check("{.a} && {.b} || {.c}", "({ .a } && { .b }) || { .c }");
    check("{.a} && {.b} > {.c}", "{ .a } && ({ .b } > { .c })");
    check("{.a} > {.b} > {.c}", "({ .a } > { .b }) > { .c }");
    check("({.a} &>> {.b}) || ({.c})", "({ .a } &>> { .b }) || { .c }");
    for op in ["&&", "||", ">", "<", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "!~", "&>", "&<", "&>>", "&<<", "&~"] {
        check_same(&format!("{{ .a }} {op} {{ .b }}"));
    }
    check("{.a}!~{.b}", "{ .a } !~ { .b }");
    check(
        "{ .service.name = \"svc\"  && .k = \"v\"  } && {  }| select(status, .http.method, name)",
        "{ (.service.name = \"svc\") && (.k = \"v\") } && { true } | select(status, .http.method, name)",
    );
}

#[test]
fn pipelines_and_aggregates() {
    check_same("{ .a } | count() > 2");
    check("count() > 1", "count() > 1");
    check("{} | avg(duration) = 1250ms | by(span.foo)", "{ true } | avg(duration) = 1.25s | by(span.foo)");
    check("{} | by(.a) | coalesce() | { .b }", "{ true } | by(.a) | coalesce() | { .b }");
    check("{} | sum(.a) / count() > 2 * 3", "{ true } | (sum(.a) / count()) > 6");
    check("{} | (count()) > 2", "{ true } | count() > 2");
    check("({} | count() > 1) && ({.a})", "({ true } | count() > 1) && { .a }");
    check("{} | max(duration) > -1", "{ true } | max(duration) > -1");
    check("{} | count()", "parse error at line 1, col 13: unexpected end of query, expected a comparison");
    check(
        "coalesce()",
        "parse error at line 1, col 1: unexpected \"coalesce\", expected a spanset filter like \"{ }\"",
    );
    check("{} | select()", "parse error at line 1, col 13: unexpected \")\", expected an attribute or an intrinsic");
    check("{} | select(.a + 1)", "parse error at line 1, col 16: unexpected \"+\", expected \")\"");
    check("3 > 2", "parse error at line 1, col 3: a comparison of constants does not look at spans");
}

#[test]
fn metrics_queries() {
    check("{} | rate()", "{ true } | rate()");
    check("{.a}|rate()by(resource.service.name,name)", "{ .a } | rate() by(resource.service.name, name)");
    check("{.a} | rate() by(span:name, status)", "{ .a } | rate() by(span:name, status)");
    check(
        "{} | quantile_over_time(duration, .5, 0.99) by (.a) with(sample=true)",
        "{ true } | quantile_over_time(duration, 0.5, 0.99) by(.a) with(sample=true)",
    );
    check("{} | max_over_time(duration) | topk(1) > 30", "{ true } | max_over_time(duration) | topk(1) > 30");
    check("{ .a } | compare({status = error}, 10)", "{ .a } | compare({ status = error }, 10)");
    check("{} | compare({}, 10, 1, 2)", "{ true } | compare({ true }, 10, 1, 2)");
    check(
        "(60 * ({} | rate())) / ({} | count_over_time()) > 2",
        "((60 * ({ true } | rate())) / ({ true } | count_over_time())) > 2",
    );
    check("({} | rate()) * (6 / 2 * (1+2))", "({ true } | rate()) * 9");
    check("{} | rate() + 1", "parse error at line 1, col 13: unexpected \"+\", expected the end of the query");
    check(
        "{} | median_over_time(.a)",
        "parse error at line 1, col 6: unknown identifier: median_over_time, did you mean min_over_time?",
    );
    check(
        "({} | rate()) && {}",
        "parse error at line 1, col 15: \"&&\" cannot stand between a metrics query and a spanset",
    );
    check("{} with(most_recent=true) with(x=-1)", "{ true } with(x=-1)");
}

#[test]
fn errors_carry_their_place() {
    check("", "parse error at line 1, col 1: unexpected end of query, expected a spanset filter like \"{ }\"");
    check("{ .a", "parse error at line 1, col 5: unexpected end of query, expected \"}\"");
    check(
        "{\n .a = }",
        "parse error at line 2, col 7: unexpected \"}\", expected an attribute, an intrinsic or a value",
    );
    check("{ foo = 1 }", "parse error at line 1, col 3: unknown identifier: foo");
    check(
        "{ trace:status = ok }",
        "parse error at line 1, col 3: unknown identifier: trace:status, did you mean span:status?",
    );
    check(
        "{ app.user.id = 1 }",
        "parse error at line 1, col 3: unknown identifier: app; attributes begin with a dot or a scope: .app.user.id",
    );
    check("{ statsu = ok }", "parse error at line 1, col 3: unknown identifier: statsu, did you mean status?");
    check(
        "{ span:parentid = 1 }",
        "parse error at line 1, col 3: unknown identifier: span:parentid, did you mean span:parentID?",
    );
    check("{} | cuont() > 1", "parse error at line 1, col 6: unknown identifier: cuont, did you mean count?");
    check("{} | rte()", "parse error at line 1, col 6: unknown identifier: rte, did you mean rate?");
    check(
        "{} | rate_over_time()",
        "parse error at line 1, col 6: unknown identifier: rate_over_time, did you mean max_over_time?",
    );
    check("{} | select(nmae)", "parse error at line 1, col 13: unknown identifier: nmae, did you mean name?");
    check("{ .a = 1 } { .b }", "parse error at line 1, col 12: unexpected \"{\", expected the end of the query");
    check("{ .a = 1x }", "parse error at line 1, col 8: 1x is neither a number nor a duration");
    check("{ .a # 1 }", "parse error at line 1, col 6: unexpected character '#'");
    check("{ \u{e9}t\u{e9} }", "parse error at line 1, col 3: unknown identifier: \u{e9}t\u{e9}");
    check("{ .a /* }", "parse error at line 1, col 6: comment not terminated");
    check("{ .a } ?? { }", "parse error at line 1, col 8: unexpected character '?'");
}

#[test]
fn depth_is_bounded_and_length_is_not() {
    let nested = |depth: usize| format!("{{ {}.a{} }}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(100)).is_ok());
    check(&nested(5000), "parse error at line 1, col 258: nested deeper than 256 levels");
    assert!(parse(&format!("{}{{}}{}", "(".repeat(5000), ")".repeat(5000))).is_err());
    assert!(parse(&format!("{{ {}true }}", "!".repeat(5000))).is_err());
    let sum = vec!["1"; 5000].join(" + ");
    check(&format!("{{ {sum} = 1 }}"), "parse error at line 1, col 3: nested deeper than 256 levels");
    let chain = vec!["{}"; 5000].join(" && ");
    assert!(parse(&chain).is_err());
    let patterns = vec![".a =~ \"x\""; REGEXES_MAX + 1].join(" || ");
    check(&format!("{{ {patterns} }}"), "parse error at line 1, col 1306: more than 100 regular expressions");
    let alternatives = vec![".a = 1"; 5000].join(" || ");
    assert!(parse(&format!("{{ {alternatives} }}")).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn what_parses_is_written_back_to_the_same_tree(
        words in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "(", ")", "&&", "||", "!", "-", "+", "*", "^", "=", "!=", ">", ">>", "|", ",", ".a ", "span.b ",
            "name ", "1 ", "1.5 ", "2s ", "\"x\" ", "nil ", "true ", "count() ", "by(", "select(", "rate() ",
        ]), 0..24),
    ) {
        if let Ok(query) = parse(&words.concat()) {
            let text = query.to_string();
            let again = parse(&text);
            prop_assert_eq!(again.map(|query| query.to_string()), Ok(text));
        }
    }
}
