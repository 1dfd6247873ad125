//! What stands behind the pipeline of a metrics query.

use std::sync::Arc;

use super::{Item, Parser, Piped, ScalarExpr};
use crate::ast::{Attribute, BinaryOp, GroupKey, MetricsExpr, MetricsFunction, SecondStage, Static};
use crate::lexer::{ParseError, TokenKind};

/// Metrics functions.
pub(super) const FUNCTIONS: &[&str] = &[
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "avg_over_time",
    "histogram_over_time",
    "quantile_over_time",
    "compare",
];

impl Parser {
    /// `rate()` and its like, when one is next.
    pub(super) fn metrics_function(&mut self) -> Result<Option<MetricsFunction>, ParseError> {
        let Some(name) = self.ident().map(str::to_owned) else {
            return Ok(None);
        };
        let is_function = matches!(name.as_str(), "rate" | "compare") || name.ends_with("_over_time");
        if !is_function {
            return Ok(None);
        }
        let pos = self.pos();
        self.advance();
        self.expect("(")?;
        let function = match name.as_str() {
            "rate" => MetricsFunction::Rate,
            "count_over_time" => MetricsFunction::Count,
            "min_over_time" => MetricsFunction::Min(self.one_attribute()?),
            "max_over_time" => MetricsFunction::Max(self.one_attribute()?),
            "sum_over_time" => MetricsFunction::Sum(self.one_attribute()?),
            "avg_over_time" => MetricsFunction::Avg(self.one_attribute()?),
            "histogram_over_time" => MetricsFunction::Histogram(self.one_attribute()?),
            "quantile_over_time" => self.quantile()?,
            "compare" => self.compare()?,
            _ => return self.unknown(pos, &name, FUNCTIONS),
        };
        self.expect(")")?;
        Ok(Some(function))
    }

    /// `by(a, b)`, or nothing.
    pub(super) fn metrics_grouping(&mut self) -> Result<Vec<GroupKey>, ParseError> {
        if !self.eat_ident("by") {
            return Ok(Vec::new());
        }
        self.expect("(")?;
        self.listed(|parser| {
            let spelling = parser.ident().map(Arc::from);
            let attribute = parser.attribute()?;
            Some(GroupKey { label: spelling.unwrap_or_else(|| attribute.to_string().into()), attribute })
        })
    }

    /// `| topk(3)`, `> 30`, in any number and order.
    pub(super) fn second_stages(&mut self, mut input: MetricsExpr) -> Result<Piped, ParseError> {
        for _ in 0..super::NESTING_MAX {
            let mut pos = self.pos();
            let stage = if self.eat("|") {
                pos = self.pos();
                self.top_or_bottom()?
            } else if let Some(op) = self.symbol().and_then(comparison) {
                self.advance();
                SecondStage::Compare(op, self.scalar_constant()?)
            } else {
                return Ok(Piped::Metrics(input));
            };
            input = MetricsExpr::SecondStage { pos, input: Box::new(input), stage };
        }
        self.error_at(self.pos(), format!("more than {} stages", super::NESTING_MAX))
    }

    fn top_or_bottom(&mut self) -> Result<SecondStage, ParseError> {
        let is_top = match self.ident() {
            Some("topk") => true,
            Some("bottomk") => false,
            _ => return self.unexpected("topk or bottomk"),
        };
        self.advance();
        self.expect("(")?;
        let k = self.int()?;
        self.expect(")")?;
        Ok(if is_top { SecondStage::TopK(k) } else { SecondStage::BottomK(k) })
    }

    fn scalar_constant(&mut self) -> Result<Static, ParseError> {
        let pos = self.pos();
        match self.items(4)? {
            Item::Scalar(ScalarExpr::Static(value)) => Ok(value),
            _ => self.error_at(pos, "expected a number"),
        }
    }

    fn one_attribute(&mut self) -> Result<Attribute, ParseError> {
        match self.attribute() {
            Some(attribute) => Ok(attribute),
            None => self.unexpected("an attribute or an intrinsic"),
        }
    }

    fn quantile(&mut self) -> Result<MetricsFunction, ParseError> {
        let of = self.one_attribute()?;
        let mut quantiles = Vec::new();
        while self.eat(",") {
            match self.peek() {
                TokenKind::Static(value @ (Static::Int(_) | Static::Float(_))) => quantiles.push(value.clone()),
                _ => return self.unexpected("a quantile between 0 and 1"),
            }
            self.advance();
        }
        match quantiles.is_empty() {
            true => self.unexpected("\",\" and a quantile between 0 and 1"),
            false => Ok(MetricsFunction::Quantile(of, quantiles)),
        }
    }

    fn compare(&mut self) -> Result<MetricsFunction, ParseError> {
        self.expect("{")?;
        let selection = Box::new(self.braced()?);
        let mut numbers = Vec::new();
        let pos = self.pos();
        while self.eat(",") {
            numbers.push(self.int()?);
        }
        match numbers.len() {
            0 | 1 | 3 => Ok(MetricsFunction::Compare(selection, numbers)),
            _ => self.error_at(pos, "compare takes a filter, then nothing, or how many, or how many, start and end"),
        }
    }

    fn int(&mut self) -> Result<i64, ParseError> {
        match self.peek() {
            TokenKind::Static(Static::Int(int)) => {
                let int = *int;
                self.advance();
                Ok(int)
            }
            _ => self.unexpected("an integer"),
        }
    }
}

fn comparison(symbol: &str) -> Option<BinaryOp> {
    BinaryOp::from_symbol(symbol).filter(|op| !op.is_arithmetic() && !op.is_regex())
}
