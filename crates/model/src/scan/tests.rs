//! The table of comparisons, line by line.

use super::*;

#[track_caller]
fn check(test: Test, value: Option<Value>, expect: bool) {
    let condition = Condition { field: Field::Name, test };
    assert_eq!(condition.holds_for(value.as_ref()), expect, "{condition:?} on {value:?}");
}

fn text(text: &str) -> Literal {
    Literal::Str(text.into())
}

fn str_value(text: &str) -> Option<Value> {
    Some(Value::Str(text.into()))
}

#[test]
fn an_absent_field_satisfies_only_absent() {
    check(Test::Absent, None, true);
    check(Test::Exists, None, false);
    check(Test::Ne(text("x")), None, false);
    check(Test::Exists, Some(Value::Map(vec![])), true);
    check(Test::Absent, Some(Value::Empty), true);
    check(Test::Exists, Some(Value::Array(vec![])), false);
}

#[test]
fn types_do_not_mix_except_numbers() {
    check(Test::Eq(Literal::Int(123)), str_value("123"), false);
    check(Test::Ne(Literal::Int(123)), str_value("x"), false);
    check(Test::Eq(Literal::Float(200.0)), Some(Value::Int(200)), true);
    check(Test::Gt(Literal::Int(1)), Some(Value::Double(1.5)), true);
    check(Test::Lt(Literal::Bool(true)), Some(Value::Bool(false)), false);
    check(Test::Ne(Literal::Bool(true)), Some(Value::Bool(false)), true);
}

#[test]
fn integers_and_floats_compare_exactly() {
    check(Test::Eq(Literal::Float(9_007_199_254_740_992.0)), Some(Value::Int(9_007_199_254_740_993)), false);
    check(Test::Lt(Literal::Float(-1.5)), Some(Value::Int(-2)), true);
    check(Test::Gt(Literal::Float(-1.5)), Some(Value::Int(-1)), true);
    check(Test::Lt(Literal::Float(f64::INFINITY)), Some(Value::Int(i64::MAX)), true);
    check(Test::Eq(Literal::Float(f64::NAN)), Some(Value::Double(f64::NAN)), false);
    check(Test::Ne(Literal::Float(f64::NAN)), Some(Value::Double(1.0)), true);
}

#[test]
fn arrays_hold_by_any_element_and_differ_by_all() {
    let tags = || Some(Value::Array(vec![Value::Str("a".into()), Value::Str("b".into())]));
    check(Test::Eq(text("b")), tags(), true);
    check(Test::Ne(text("b")), tags(), false);
    check(Test::Ne(text("c")), tags(), true);
    check(Test::Eq(text("a")), Some(Value::Array(vec![Value::Str("a".into())])), true);
    check(Test::Eq(text("a")), Some(Value::Array(vec![Value::Str("a".into()), Value::Int(1)])), false);
    check(Test::Ne(text("a")), Some(Value::Array(vec![])), false);
}

#[test]
fn jaeger_compares_the_text_of_a_value() {
    check(Test::TextEq("200".into()), Some(Value::Int(200)), true);
    check(Test::TextEq("true".into()), Some(Value::Bool(true)), true);
    check(Test::TextEq("1.5".into()), Some(Value::Double(1.5)), true);
    check(Test::TextEq("2".into()), Some(Value::Int(200)), false);
}

#[test]
fn a_full_value_set_says_so() {
    let mut values = ValueSet::new(4);
    assert!(values.insert(&Value::Str("abc".into())).is_continue());
    assert!(values.insert(&Value::Str("abc".into())).is_continue());
    assert!(values.is_complete());
    assert!(values.insert(&Value::Str("de".into())).is_break());
    assert!(!values.is_complete());
}
