use super::*;

/// Series from `a=x b=1: 1 2 _`.
fn series(lines: &[&str]) -> Vec<Series> {
    let one = |line: &&str| {
        let (labels, points) = line.split_once(':').expect("a colon");
        let label = |pair: &str| -> Label {
            let (key, value) = pair.split_once('=').expect("an equals sign");
            let value = value.parse().map_or_else(|_| Static::Str(value.into()), Static::Int);
            (key.replace("name", NAME).into(), value)
        };
        let points = points.split_whitespace().map(|point| point.parse().ok()).collect();
        Series::new(labels.split_whitespace().map(label).collect(), points)
    };
    lines.iter().map(one).collect()
}

fn told(all: &[Series]) -> Vec<String> {
    let one = |series: &Series| {
        let labels: Vec<String> =
            series.labels.iter().map(|(key, value)| format!("{key}={}", text_of(value))).collect();
        let points: Vec<String> =
            series.values.iter().map(|point| point.map_or("_".to_owned(), |value| value.to_string())).collect();
        format!("{}: {}", labels.join(" ").replace(NAME, "name"), points.join(" "))
    };
    all.iter().map(one).collect()
}

fn check(mut all: Vec<Series>, stage: impl Fn(&mut Vec<Series>), expect: &[&str]) {
    stage(&mut all);
    assert_eq!(told(&all), expect);
}

#[test]
fn the_best_of_each_interval_stay() {
    let all = || series(&["a=x: 1 5 3", "a=y: 2 _ 3", "a=z: 3 4 3"]);
    check(all(), |all| keep_best(all, 1, true), &["a=x: _ 5 3", "a=y: _ _ _", "a=z: 3 _ _"]);
    check(all(), |all| keep_best(all, 1, false), &["a=x: 1 _ _", "a=y: _ _ _", "a=z: _ 4 3"]);
    check(all(), |all| keep_best(all, 2, true), &["a=x: _ 5 3", "a=y: 2 _ 3", "a=z: 3 4 _"]);
    check(all(), |all| keep_best(all, 3, true), &["a=x: 1 5 3", "a=y: 2 _ 3", "a=z: 3 4 3"]);
}

#[test]
fn comparisons_drop_points() {
    let all = || series(&["a=x: 1 2 _ 3"]);
    for (op, expect) in [
        (BinaryOp::Eq, "a=x: _ 2 _ _"),
        (BinaryOp::Ne, "a=x: 1 _ _ 3"),
        (BinaryOp::Lt, "a=x: 1 _ _ _"),
        (BinaryOp::Le, "a=x: 1 2 _ _"),
        (BinaryOp::Gt, "a=x: _ _ _ 3"),
        (BinaryOp::Ge, "a=x: _ 2 _ 3"),
    ] {
        check(all(), |all| keep_where(all, op, 2.0), &[expect]);
    }
}

#[test]
fn arithmetic_matches_labels() {
    let joined = |op, left: &[&str], right: &[&str]| told(&join(op, series(left), series(right)));
    assert_eq!(
        joined(BinaryOp::Add, &["a=x: 1 _", "a=y: 2 2"], &["a=y: 3 4", "a=z: 1 1", "a=x: 5 5"]),
        ["a=x: 6 _", "a=y: 5 6"]
    );
    assert_eq!(joined(BinaryOp::Add, &["a=1 b=2: 1"], &["b=2 a=1: 2"]), ["a=1 b=2: 3"]);
    assert_eq!(joined(BinaryOp::Sub, &["a=1: 1"], &["a=x: 2"]), Vec::<String>::new());
    assert_eq!(joined(BinaryOp::Div, &["name=rate: 1 2"], &["name=count: 2 0"]), ["name=(rate / count): 0.5 _"]);
    assert_eq!(joined(BinaryOp::Mul, &["name=rate: 2"], &["a=x: 3", "a=y: 4"]), ["a=x: 6", "a=y: 8"]);
    assert_eq!(joined(BinaryOp::Sub, &["a=x: 3", "a=y: 4"], &["name=rate: 1"]), ["a=x: 2", "a=y: 3"]);
}
