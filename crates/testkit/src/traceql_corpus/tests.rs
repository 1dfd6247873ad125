use super::*;

const DATA: &str = r#"
# Two traces.
load
  trace 01
    a  service=shop  name="POST /pay"  at=0s  for=120ms  kind=server  status=error  span.code=500
    b  service=db    at=10ms  parent=a  span."my key"=[1, 2]  event(name=boom at=5ms k="x y")  copy=2
  trace 02
    a  at=20s  for=1.5s  span.m={k=v, n=[1]}  span.raw=0xBEEF  link(trace=01 span=a)
"#;

fn check(cases: &str, expect: &str) {
    let got = match run("f", &format!("{DATA}{cases}"), &mut OracleEngine::default()) {
        Ok(count) => format!("{count} passed"),
        Err(failures) => failures,
    };
    assert_eq!(got, expect, "{cases}");
}

#[test]
fn cases_are_read_and_pass() {
    check("eval { span.code >= 500 } >> { }\n  01: b", "1 passed");
    check(
        "eval { } | by(resource.service.name) \\\n | count() > 0\n 01: a [by(resource.service.name)=shop count()=1] | b\n 02: a",
        "1 passed",
    );
    check("eval { span.\"my key\" = 2 && event.k = \"x y\" && event:timeSinceStart = 5ms }\n  01: b", "1 passed");
    check("eval { span.m != nil && span.raw != nil && link:spanID =~ \"0+a\" }\n  02: a", "1 passed");
    check("eval { name = \"nothing\" }\n  none\neval { duration = 1.5s }\n 02: a", "2 passed");
    check(
        "metrics { } | count_over_time() from=-15s to=30s step=15s\n  {__name__=\"count_over_time\"}: 1 1 1",
        "1 passed",
    );
    check("instant { } | rate() from=-10s to=20s\n  {__name__=rate}: 0.1", "1 passed");
    check("fail { . }\n  1:4\nfail { duration > \"x\" }\n  1:14: cannot compare\nfailmetrics { }\n  error", "3 passed");
    check("shown { status = error } | select(name)\n 01: a{name=\"POST /pay\" status=error}", "1 passed");
}

#[test]
fn failures_are_listed_together_with_their_places() {
    check(
        "eval { }\n  01: a\nmetrics { } | rate() by(status) from=-1s to=1s step=2s\n  none",
        "f:9: { }\n  expected\n    01: a\n  got\n    01: a b\n    02: a\n\
         f:11: { } | rate() by(status)\n  expected\n    none\n  got\n    {status=\"error\"}: 0.5\n    {status=\"unset\"}: 0.5\n\
         2 of 2 cases failed",
    );
    check(
        "eval { . }\n  none",
        "f:9: { . }\n  expected\n    none\n  got\n    error: parse error at line 1, col 4: expected an attribute name after the dot\n1 of 1 cases failed",
    );
}
