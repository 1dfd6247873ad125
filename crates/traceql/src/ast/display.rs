//! Writing queries back as text that parses to the same tree.

use std::fmt::{Display, Formatter, Result};

use spoor_model::scan::AttrScope;

use super::*;
use crate::lexer::ends_attribute_name;

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.body {
            Body::Search(pipeline) => pipeline.fmt(f)?,
            Body::Metrics(metrics) => metrics.fmt(f)?,
        }
        if !self.hints.is_empty() {
            write!(f, " with(")?;
            list(f, &self.hints)?;
            write!(f, ")")?;
        }
        Ok(())
    }
}

impl Display for Hint {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (index, stage) in self.stages.iter().enumerate() {
            let separator = if index == 0 { "" } else { " | " };
            write!(f, "{separator}{stage}")?;
        }
        Ok(())
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.kind {
            StageKind::Spanset(spanset) => spanset.fmt(f),
            StageKind::ScalarFilter { op, left, right } => write!(f, "{left} {} {right}", op.symbol()),
            StageKind::By(expr) => write!(f, "by({expr})"),
            StageKind::Coalesce => write!(f, "coalesce()"),
            StageKind::Select(attributes) => {
                write!(f, "select(")?;
                list(f, attributes)?;
                write!(f, ")")
            }
        }
    }
}

impl Display for SpansetExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let side = |f: &mut Formatter<'_>, side: &SpansetExpr| match &side.kind {
            SpansetKind::Binary { .. } => write!(f, "({side})"),
            _ => side.fmt(f),
        };
        match &self.kind {
            SpansetKind::Filter(expr) => write!(f, "{{ {expr} }}"),
            SpansetKind::Pipeline(pipeline) => write!(f, "({pipeline})"),
            SpansetKind::Binary { op, left, right } => {
                side(f, left)?;
                write!(f, " {op} ")?;
                side(f, right)
            }
        }
    }
}

impl Display for SpansetOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (relation, quantifier) = match self {
            Self::And => return write!(f, "&&"),
            Self::Or => return write!(f, "||"),
            Self::Structural(relation, quantifier) => (relation, quantifier),
        };
        let prefix = match quantifier {
            Quantifier::Plain => "",
            Quantifier::Negated => "!",
            Quantifier::Union => "&",
        };
        let symbol = match relation {
            Relation::Child => ">",
            Relation::Parent => "<",
            Relation::Descendant => ">>",
            Relation::Ancestor => "<<",
            Relation::Sibling => "~",
        };
        write!(f, "{prefix}{symbol}")
    }
}

impl Display for ScalarExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Static(value) => value.fmt(f),
            Self::Aggregate(aggregate, None) => write!(f, "{aggregate}()"),
            Self::Aggregate(aggregate, Some(expr)) => write!(f, "{aggregate}({expr})"),
            Self::Binary { op, left, right } => write!(f, "({left} {} {right})", op.symbol()),
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Max => "max",
            Self::Min => "min",
            Self::Avg => "avg",
            Self::Sum => "sum",
        })
    }
}

impl Display for MetricsExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Aggregate { pipeline, function, by, .. } => {
                write!(f, "{pipeline} | {function}")?;
                if !by.is_empty() {
                    write!(f, " by(")?;
                    list(f, by)?;
                    write!(f, ")")?;
                }
                Ok(())
            }
            Self::SecondStage { input, stage, .. } => match &**input {
                Self::Binary { .. } => write!(f, "({input}) {stage}"),
                _ => write!(f, "{input} {stage}"),
            },
            Self::Constant(value) => value.fmt(f),
            Self::Binary { op, left, right } => {
                let side = |f: &mut Formatter<'_>, side: &Self| match side {
                    Self::Constant(value) => value.fmt(f),
                    other => write!(f, "({other})"),
                };
                side(f, left)?;
                write!(f, " {} ", op.symbol())?;
                side(f, right)
            }
        }
    }
}

impl Display for MetricsFunction {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Rate => write!(f, "rate()"),
            Self::Count => write!(f, "count_over_time()"),
            Self::Min(of) => write!(f, "min_over_time({of})"),
            Self::Max(of) => write!(f, "max_over_time({of})"),
            Self::Sum(of) => write!(f, "sum_over_time({of})"),
            Self::Avg(of) => write!(f, "avg_over_time({of})"),
            Self::Histogram(of) => write!(f, "histogram_over_time({of})"),
            Self::Quantile(of, quantiles) => {
                write!(f, "quantile_over_time({of}, ")?;
                list(f, quantiles)?;
                write!(f, ")")
            }
            Self::Compare(selection, numbers) => {
                write!(f, "compare({{ {selection} }}")?;
                numbers.iter().try_for_each(|number| write!(f, ", {number}"))?;
                write!(f, ")")
            }
        }
    }
}

impl Display for SecondStage {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::TopK(k) => write!(f, "| topk({k})"),
            Self::BottomK(k) => write!(f, "| bottomk({k})"),
            Self::Compare(op, value) => write!(f, "{} {value}", op.symbol()),
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let operand = |f: &mut Formatter<'_>, expr: &Expr| match &expr.node {
            Node::Static(_) | Node::Attribute(_) => expr.fmt(f),
            _ => write!(f, "({expr})"),
        };
        let joined = |f: &mut Formatter<'_>, operands: &[Expr], symbol: &str| {
            operands.iter().enumerate().try_for_each(|(index, expr)| {
                f.write_str(if index == 0 { "" } else { symbol })?;
                operand(f, expr)
            })
        };
        match &self.node {
            Node::Static(value) => value.fmt(f),
            Node::Attribute(attribute) => attribute.fmt(f),
            Node::Not(inner) => {
                f.write_str("!")?;
                operand(f, inner)
            }
            Node::Minus(inner) => {
                f.write_str("-")?;
                operand(f, inner)
            }
            Node::And(operands) => joined(f, operands, " && "),
            Node::Or(operands) => joined(f, operands, " || "),
            Node::Binary { op, left, right } => {
                operand(f, left)?;
                write!(f, " {} ", op.symbol())?;
                operand(f, right)
            }
        }
    }
}

impl Display for Attribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (prefix, scope, name) = match self {
            Self::Intrinsic(intrinsic) => return f.write_str(intrinsic.text()),
            Self::Named(scope, name) => ("", scope, name),
            Self::OfParent(scope, name) => ("parent.", scope, name),
        };
        let scope = match scope {
            AttrScope::Any if prefix.is_empty() => ".",
            AttrScope::Any => "",
            AttrScope::Span => "span.",
            AttrScope::Resource => "resource.",
            AttrScope::Event => "event.",
            AttrScope::Link => "link.",
            AttrScope::Instrumentation => "instrumentation.",
        };
        let is_plain = !name.is_empty() && !name.chars().any(|c| c == '"' || ends_attribute_name(c));
        match is_plain {
            true => write!(f, "{prefix}{scope}{name}"),
            false => {
                write!(f, "{prefix}{scope}")?;
                quoted_name(f, name)
            }
        }
    }
}

impl Display for Static {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Nil => write!(f, "nil"),
            Self::Bool(value) => value.fmt(f),
            // The lexer knows no sign, and without one this number does not fit.
            Self::Int(i64::MIN) => f.write_str("minInt"),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Str(value) => quoted(f, value),
            Self::Duration(nanos) => f.write_str(&crate::number::format_duration(*nanos)),
            Self::Status(code) => f.write_str(STATUSES.get(*code as usize).copied().unwrap_or("unset")),
            Self::Kind(code) => f.write_str(KINDS.get(*code as usize).copied().unwrap_or("unspecified")),
            Self::Array(values) => {
                f.write_str("[")?;
                list(f, values)?;
                f.write_str("]")
            }
            Self::Opaque(value) => write!(f, "{value:?}"),
        }
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, items: &[T]) -> Result {
    items.iter().enumerate().try_for_each(|(index, item)| {
        f.write_str(if index == 0 { "" } else { ", " })?;
        item.fmt(f)
    })
}

/// In a name only the quote and the backslash are escaped.
fn quoted_name(f: &mut Formatter<'_>, name: &str) -> Result {
    f.write_str("\"")?;
    for c in name.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("\"")
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            control if control.is_control() => write!(f, "\\u{:04x}", u32::from(control))?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("\"")
}
