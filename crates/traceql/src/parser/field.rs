//! Expressions over one span, the part between braces.

use super::{NESTING_MAX, Parser, REGEXES_MAX, SIGN_OPERAND};
use crate::ast::{Attribute, BinaryOp, Expr, Intrinsic, KINDS, Node, STATUSES, Static};
use crate::fold;
use crate::lexer::{ParseError, TokenKind};

/// The operand of `!` may hold what binds tighter: `!.a = .b` is `(!.a) = .b`.
const NOT_OPERAND: u8 = 6;

impl Parser {
    /// Operands and operators, as long as these bind at least as tightly as `min`.
    pub(super) fn field_expr(&mut self, min: u8) -> Result<Expr, ParseError> {
        let mut left = self.nested(Self::field_operand)?;
        while let Some(symbol) = self.symbol() {
            let Some((_, right_min)) = field_precedence(symbol).filter(|(precedence, _)| *precedence >= min) else {
                break;
            };
            if matches!(symbol, "=~" | "!~") {
                self.regex_count += 1;
                if self.regex_count > REGEXES_MAX {
                    return self.error_at(self.pos(), format!("more than {REGEXES_MAX} regular expressions"));
                }
            }
            self.advance();
            let right = self.nested(|parser| parser.field_expr(right_min))?;
            left = joined(symbol, left, right);
            if left.height > NESTING_MAX {
                return self.error_at(left.pos, format!("nested deeper than {NESTING_MAX} levels"));
            }
        }
        Ok(left)
    }

    fn field_operand(&mut self) -> Result<Expr, ParseError> {
        let pos = self.pos();
        if self.eat("(") {
            let inner = self.field_expr(0)?;
            self.expect(")")?;
            return Ok(Expr { pos, ..inner });
        }
        if self.eat("!") {
            let operand = self.field_expr(NOT_OPERAND)?;
            return Ok(Expr::new(pos, Node::Not(Box::new(operand))));
        }
        if self.eat("-") {
            let operand = self.field_expr(SIGN_OPERAND)?;
            let negated = match &operand.node {
                Node::Static(value) => fold::negated(value),
                _ => None,
            };
            let node = negated.map_or_else(|| Node::Minus(Box::new(operand)), Node::Static);
            return Ok(Expr::new(pos, node));
        }
        if let Some(attribute) = self.attribute() {
            return Ok(Expr::new(pos, Node::Attribute(attribute)));
        }
        let value = match self.peek() {
            TokenKind::Static(value) => value.clone(),
            TokenKind::Ident(ident) => match keyword(ident) {
                Some(value) => value,
                None => return self.unknown(pos, ident, &values()),
            },
            _ => return self.unexpected("an attribute, an intrinsic or a value"),
        };
        self.advance();
        Ok(Expr::new(pos, Node::Static(value)))
    }

    /// An attribute or an intrinsic, when one is next.
    pub(super) fn attribute(&mut self) -> Option<Attribute> {
        let attribute = match self.peek() {
            TokenKind::Attribute(attribute) => attribute.clone(),
            TokenKind::Ident(ident) => Attribute::Intrinsic(Intrinsic::from_text(ident)?),
            _ => return None,
        };
        self.advance();
        Some(attribute)
    }

    /// At least one attribute, up to and with the closing parenthesis.
    pub(super) fn attribute_list(&mut self) -> Result<Vec<Attribute>, ParseError> {
        self.listed(Self::attribute)
    }

    /// The same of what is read from an attribute.
    pub(super) fn listed<T>(&mut self, next: impl Fn(&mut Self) -> Option<T>) -> Result<Vec<T>, ParseError> {
        let mut items = Vec::new();
        loop {
            match (next(self), self.ident()) {
                (Some(item), _) => items.push(item),
                (None, Some(ident)) => return self.unknown(self.pos(), ident, &values()),
                (None, None) => return self.unexpected("an attribute or an intrinsic"),
            }
            if !self.eat(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(items)
    }

    /// The whole text must be one attribute or intrinsic between braces.
    pub(crate) fn lone_attribute(mut self) -> Result<Attribute, ParseError> {
        self.expect("{")?;
        let attribute = match (self.attribute(), self.ident()) {
            (Some(attribute), _) => attribute,
            (None, Some(ident)) => return self.error_at(self.pos(), format!("unknown identifier: {ident}")),
            (None, None) => return self.unexpected("an attribute or an intrinsic"),
        };
        self.expect("}")?;
        match self.peek() {
            TokenKind::End => Ok(attribute),
            _ => self.unexpected("nothing after the attribute"),
        }
    }
}

/// The precedence of an operator, and the least one that its right side may have.
fn field_precedence(symbol: &str) -> Option<(u8, u8)> {
    match symbol {
        "&&" | "||" => Some((2, 3)),
        "+" | "-" => Some((4, 5)),
        "*" | "/" | "%" => Some((6, 7)),
        "^" => Some((7, 7)),
        _ => BinaryOp::from_symbol(symbol).map(|_| (3, 4)),
    }
}

/// Chains of one logical operator are held flat: `a && b && c` is one node of three.
fn joined(symbol: &str, left: Expr, right: Expr) -> Expr {
    let pos = left.pos;
    let node = match (symbol, left.node) {
        ("&&", Node::And(mut operands)) => {
            operands.push(right);
            Node::And(operands)
        }
        ("||", Node::Or(mut operands)) => {
            operands.push(right);
            Node::Or(operands)
        }
        (_, node) => {
            let left = Expr { node, ..left };
            match BinaryOp::from_symbol(symbol) {
                Some(op) => Node::Binary { op, left: Box::new(left), right: Box::new(right) },
                None if symbol == "&&" => Node::And(vec![left, right]),
                None => Node::Or(vec![left, right]),
            }
        }
    };
    Expr::new(pos, node)
}

/// Words that stand for a value.
fn values() -> Vec<&'static str> {
    let constants = ["nil", "true", "false", "minInt", "maxInt"];
    Intrinsic::texts().chain(constants).chain(STATUSES).chain(KINDS).collect()
}

fn keyword(ident: &str) -> Option<Static> {
    let place = |names: &[&str]| names.iter().position(|name| *name == ident).map(|place| place as i32);
    match ident {
        "nil" => Some(Static::Nil),
        "true" => Some(Static::Bool(true)),
        "false" => Some(Static::Bool(false)),
        "minInt" => Some(Static::Int(i64::MIN)),
        "maxInt" => Some(Static::Int(i64::MAX)),
        _ => place(&STATUSES).map(Static::Status).or_else(|| place(&KINDS).map(Static::Kind)),
    }
}
