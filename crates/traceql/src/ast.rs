//! What a query says, as a tree. `Display` writes it back with every grouping made visible, which
//! is how tests look at it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::discriminant;
use std::sync::Arc;

use spoor_model::Value;
use spoor_model::scan::AttrScope;

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, col {}", self.line, self.column)
    }
}

/// A whole query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What is asked.
    pub body: Body,
    /// `with(name=value, ...)`, the last one written; unknown names are kept.
    pub hints: Vec<Hint>,
}

/// The two kinds of query.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Finds traces.
    Search(Pipeline),
    /// Computes series.
    Metrics(MetricsExpr),
}

/// One `name=value` of `with(...)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Hint {
    /// As written.
    pub name: String,
    /// As written.
    pub value: Static,
}

/// Stages, left to right; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The stages.
    pub stages: Vec<Stage>,
}

/// One step of a pipeline, with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Where it starts.
    pub pos: Pos,
    /// What it does.
    pub kind: StageKind,
}

/// What a stage does with the spansets that reach it.
#[derive(Debug, Clone, PartialEq)]
pub enum StageKind {
    /// Selects spans.
    Spanset(SpansetExpr),
    /// Keeps spansets whose aggregates compare so.
    ScalarFilter {
        /// How the two sides compare.
        op: BinaryOp,
        /// Left side.
        left: ScalarExpr,
        /// Right side.
        right: ScalarExpr,
    },
    /// Splits each spanset by a value.
    By(Expr),
    /// Joins all spansets into one.
    Coalesce,
    /// Adds attributes to the answer.
    Select(Vec<Attribute>),
}

/// An expression over sets of spans, with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct SpansetExpr {
    /// Where it starts.
    pub pos: Pos,
    /// What it selects.
    pub kind: SpansetKind,
}

/// What a spanset expression selects.
#[derive(Debug, Clone, PartialEq)]
pub enum SpansetKind {
    /// `{ expr }`; `{ }` is `{ true }`.
    Filter(Expr),
    /// A pipeline in parentheses.
    Pipeline(Pipeline),
    /// Two spansets combined.
    Binary {
        /// How.
        op: SpansetOp,
        /// Left side.
        left: Box<SpansetExpr>,
        /// Right side.
        right: Box<SpansetExpr>,
    },
}

/// How two spansets combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpansetOp {
    /// `&&`: the spans of both, when neither is empty.
    And,
    /// `||`: the spans of both.
    Or,
    /// A relation between spans of the left and of the right side.
    Structural(Relation, Quantifier),
}

/// How a span of the right side stands to one of the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `>`: its child.
    Child,
    /// `<`: its parent.
    Parent,
    /// `>>`: below it.
    Descendant,
    /// `<<`: above it.
    Ancestor,
    /// `~`: another child of its parent.
    Sibling,
}

/// Which spans a relation yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantifier {
    /// Right spans that are so related to some left span.
    Plain,
    /// `!`: right spans that are so related to no left span.
    Negated,
    /// `&`: both spans of each related pair.
    Union,
}

/// Numbers of a spanset: aggregates and constants.
#[derive(Debug, Clone, PartialEq)]
pub enum ScalarExpr {
    /// A constant.
    Static(Static),
    /// `count()`, or another aggregate of an expression.
    Aggregate(Aggregate, Option<Box<Expr>>),
    /// Arithmetic.
    Binary {
        /// Which.
        op: BinaryOp,
        /// Left side.
        left: Box<ScalarExpr>,
        /// Right side.
        right: Box<ScalarExpr>,
    },
}

/// Aggregates over the spans of a spanset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// `count()`
    Count,
    /// `max(f)`
    Max,
    /// `min(f)`
    Min,
    /// `avg(f)`
    Avg,
    /// `sum(f)`
    Sum,
}

/// An expression over series.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsExpr {
    /// `pipeline | function(...) by(...)`
    Aggregate {
        /// Where the function stands.
        pos: Pos,
        /// Selects the spans.
        pipeline: Pipeline,
        /// What is computed from them.
        function: MetricsFunction,
        /// Grouping, may be empty.
        by: Vec<GroupKey>,
    },
    /// `input | topk(k)`, or the like.
    SecondStage {
        /// Where the stage stands.
        pos: Pos,
        /// The series it works on.
        input: Box<MetricsExpr>,
        /// What it keeps.
        stage: SecondStage,
    },
    /// A number beside series.
    Constant(Static),
    /// Arithmetic.
    Binary {
        /// Which.
        op: BinaryOp,
        /// Left side.
        left: Box<MetricsExpr>,
        /// Right side.
        right: Box<MetricsExpr>,
    },
}

/// What the series of a metrics query are grouped by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey {
    /// The value.
    pub attribute: Attribute,
    /// Key of the label: an intrinsic of two spellings keeps that of the query, because clients look labels up by
    /// what they asked for.
    pub label: Arc<str>,
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

/// What a metrics query computes per interval.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsFunction {
    /// `rate()`
    Rate,
    /// `count_over_time()`
    Count,
    /// `min_over_time(a)`
    Min(Attribute),
    /// `max_over_time(a)`
    Max(Attribute),
    /// `sum_over_time(a)`
    Sum(Attribute),
    /// `avg_over_time(a)`
    Avg(Attribute),
    /// `quantile_over_time(a, q, ...)`
    Quantile(Attribute, Vec<Static>),
    /// `histogram_over_time(a)`
    Histogram(Attribute),
    /// `compare({...}, top, start, end)`
    Compare(Box<Expr>, Vec<i64>),
}

impl MetricsFunction {
    /// What is measured, if anything is.
    pub(crate) fn measured(&self) -> Option<&Attribute> {
        match self {
            Self::Rate | Self::Count | Self::Compare(..) => None,
            Self::Min(of) | Self::Max(of) | Self::Sum(of) | Self::Avg(of) => Some(of),
            Self::Quantile(of, _) | Self::Histogram(of) => Some(of),
        }
    }
}

/// What follows a metrics function.
#[derive(Debug, Clone, PartialEq)]
pub enum SecondStage {
    /// `topk(k)`
    TopK(i64),
    /// `bottomk(k)`
    BottomK(i64),
    /// `> 30`, or the like.
    Compare(BinaryOp, Static),
}

/// An expression over one span, with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// Where it starts.
    pub pos: Pos,
    /// What it is.
    pub node: Node,
    /// Levels of nodes, itself included: what recursion over it costs.
    pub(crate) height: usize,
}

/// What an expression over one span is.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A constant.
    Static(Static),
    /// A value of the span.
    Attribute(Attribute),
    /// `!x`
    Not(Box<Expr>),
    /// `-x`
    Minus(Box<Expr>),
    /// `a && b && c`: at least two. Held flat, so that long chains are not deep.
    And(Vec<Expr>),
    /// `a || b || c`: at least two.
    Or(Vec<Expr>),
    /// Comparison or arithmetic.
    Binary {
        /// Which.
        op: BinaryOp,
        /// Left side.
        left: Box<Expr>,
        /// Right side.
        right: Box<Expr>,
    },
}

impl Expr {
    /// A node at a place.
    pub fn new(pos: Pos, node: Node) -> Self {
        let below = match &node {
            Node::Static(_) | Node::Attribute(_) => 0,
            Node::Not(operand) | Node::Minus(operand) => operand.height,
            Node::And(operands) | Node::Or(operands) => operands.iter().map(|e| e.height).max().unwrap_or(0),
            Node::Binary { left, right, .. } => left.height.max(right.height),
        };
        Self { pos, node, height: below + 1 }
    }
}

/// Comparison and arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

impl BinaryOp {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Eq, "="),
        (Self::Ne, "!="),
        (Self::Lt, "<"),
        (Self::Le, "<="),
        (Self::Gt, ">"),
        (Self::Ge, ">="),
        (Self::Regex, "=~"),
        (Self::NotRegex, "!~"),
        (Self::Add, "+"),
        (Self::Sub, "-"),
        (Self::Mul, "*"),
        (Self::Div, "/"),
        (Self::Mod, "%"),
        (Self::Pow, "^"),
    ];

    pub(crate) fn from_symbol(symbol: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, text)| *text == symbol).map(|(op, _)| *op)
    }

    /// As written.
    pub fn symbol(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, text)| text)
    }

    /// Whether the result is a number.
    pub fn is_arithmetic(self) -> bool {
        matches!(self, Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Mod | Self::Pow)
    }

    /// Whether this is `=~` or `!~`.
    pub fn is_regex(self) -> bool {
        matches!(self, Self::Regex | Self::NotRegex)
    }

    /// The comparison that holds for `(b, a)` when this one does for `(a, b)`.
    pub fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            other => other,
        }
    }
}

/// A value that a span has or may have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// `span.x`, `.x`, ...
    Named(AttrScope, Arc<str>),
    /// `parent.x`, `parent.span.x`, ...: the same of the parent span.
    OfParent(AttrScope, Arc<str>),
    /// A value that every span has, or that its trace has.
    Intrinsic(Intrinsic),
}

macro_rules! intrinsics {
    ($($(#[$doc:meta])* $name:ident: $($text:literal),+;)+) => {
        /// What is not an attribute.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Intrinsic { $($(#[$doc])* $name,)+ }

        impl Intrinsic {
            const ALL: &'static [(Self, &'static [&'static str])] = &[$((Self::$name, &[$($text),+]),)+];
        }
    };
}

// The first spelling is the canonical one: it names the value in the results of searches.
intrinsics! {
    /// Span name.
    Name: "name", "span:name";
    /// End minus start.
    Duration: "duration", "span:duration";
    /// Status code.
    Status: "status", "span:status";
    /// Status message.
    StatusMessage: "statusMessage", "span:statusMessage";
    /// Span kind.
    Kind: "kind", "span:kind";
    /// Span id, 16 hex digits.
    SpanId: "span:id";
    /// Parent's span id, 16 hex digits.
    ParentId: "span:parentID";
    /// How many spans name this one as parent.
    ChildCount: "span:childCount";
    /// Latest end minus earliest start of the trace.
    TraceDuration: "traceDuration", "trace:duration";
    /// Name of the root span.
    RootName: "rootName", "trace:rootName";
    /// Service of the root span.
    RootServiceName: "rootServiceName", "trace:rootService";
    /// Trace id, hex without leading zeros.
    TraceId: "trace:id";
    /// Name of an event.
    EventName: "event:name";
    /// Event time minus span start.
    EventTimeSinceStart: "event:timeSinceStart";
    /// Trace id of a link.
    LinkTraceId: "link:traceID";
    /// Span id of a link.
    LinkSpanId: "link:spanID";
    /// Name of the instrumentation scope.
    InstrumentationName: "instrumentation:name";
    /// Version of the instrumentation scope.
    InstrumentationVersion: "instrumentation:version";
    /// Number at which a depth-first walk enters the span.
    NestedSetLeft: "nestedSetLeft";
    /// Number at which a depth-first walk leaves the span.
    NestedSetRight: "nestedSetRight";
    /// `nestedSetLeft` of the parent, -1 for roots.
    NestedSetParent: "nestedSetParent";
    /// The parent span.
    Parent: "parent";
}

impl Intrinsic {
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, texts)| texts.contains(&text)).map(|(intrinsic, _)| *intrinsic)
    }

    /// All spellings of all intrinsics.
    pub(crate) fn texts() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().flat_map(|(_, texts)| texts.iter().copied())
    }

    /// How results of searches spell it.
    pub fn text(self) -> &'static str {
        Self::ALL.iter().find(|(intrinsic, _)| *intrinsic == self).map_or("", |(_, texts)| texts[0])
    }
}

/// A constant of a query, or a value of a span. Equality and order of types are strict: `1`, `1.0` and `"1"`
/// are three values; floats compare by their bits.
#[derive(Debug, Clone)]
pub enum Static {
    /// `nil`
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// Text.
    Str(Arc<str>),
    /// In nanoseconds.
    Duration(i64),
    /// OTLP's number of `unset`, `ok`, `error`.
    Status(i32),
    /// OTLP's number of `unspecified`, `internal`, `server`, `client`, `producer`, `consumer`.
    Kind(i32),
    /// A span's array: two or more booleans, integers, floats or texts, all of one type.
    Array(Arc<[Static]>),
    /// A span's map or bytes: they exist, and that is all that can be asked of them.
    Opaque(Arc<Value>),
}

impl Static {
    /// What a query sees of an attribute's value: arrays of one are their element; empty values, and arrays that
    /// are empty, mixed or nested, are nil.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Empty => Self::Nil,
            Value::Str(text) => Self::Str(text.as_str().into()),
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Int(int) => Self::Int(*int),
            Value::Double(float) => Self::Float(*float),
            Value::Bytes(_) | Value::Map(_) => Self::Opaque(Arc::new(value.clone())),
            Value::Array(values) => {
                let is_scalar =
                    |value: &Value| matches!(value, Value::Str(_) | Value::Bool(_) | Value::Int(_) | Value::Double(_));
                let is_uniform = values.windows(2).all(|two| discriminant(&two[0]) == discriminant(&two[1]));
                match &values[..] {
                    [first, ..] if !is_uniform || !is_scalar(first) => Self::Nil,
                    [] => Self::Nil,
                    [one] => Self::of(one),
                    several => Self::Array(several.iter().map(Self::of).collect()),
                }
            }
        }
    }

    /// The value as answers carry it: keywords, durations (in Go's form) and nil as text.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Nil | Self::Duration(_) | Self::Status(_) | Self::Kind(_) => Value::Str(self.to_string()),
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(int) => Value::Int(*int),
            Self::Float(float) => Value::Double(*float),
            Self::Str(text) => Value::Str(text.to_string()),
            Self::Array(values) => Value::Array(values.iter().map(Self::to_value).collect()),
            Self::Opaque(value) => Value::clone(value),
        }
    }

    /// Whether this is no value.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }
}

impl PartialEq for Static {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) | (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Status(a), Self::Status(b)) | (Self::Kind(a), Self::Kind(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Static {}

impl Hash for Static {
    fn hash<H: Hasher>(&self, state: &mut H) {
        discriminant(self).hash(state);
        match self {
            // Maps and bytes are rare: their equality tells them apart.
            Self::Nil | Self::Opaque(_) => {}
            Self::Bool(flag) => flag.hash(state),
            Self::Int(int) | Self::Duration(int) => int.hash(state),
            Self::Float(float) => float.to_bits().hash(state),
            Self::Str(text) => text.hash(state),
            Self::Status(code) | Self::Kind(code) => code.hash(state),
            Self::Array(values) => values.hash(state),
        }
    }
}

/// Status keywords at the place of their OTLP number.
pub(crate) const STATUSES: [&str; 3] = ["unset", "ok", "error"];
/// Kind keywords at the place of their OTLP number.
pub(crate) const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

mod display;
