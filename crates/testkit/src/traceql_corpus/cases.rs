//! The questions of a corpus file, and their answers.

use spoor_model::{SpanId, TraceId, Value};

use super::line::{Lines, Words};
use super::{Case, Expected, T0};
use crate::answer::{Series, Window};

/// A line of an `eval`.
#[derive(Debug)]
pub struct ExpectedTrace {
    /// Which.
    pub id: TraceId,
    /// In any order.
    pub spansets: Vec<ExpectedSpanset>,
}

/// Span labels, and perhaps what stands in brackets.
#[derive(Debug)]
pub struct ExpectedSpanset {
    /// Ascending; as often as a spanset has it.
    pub spans: Vec<SpanId>,
    /// `None`: not checked.
    pub attributes: Option<Vec<(String, Value)>>,
}

/// A line of a `shown`.
#[derive(Debug)]
pub struct ShownTrace {
    /// Which.
    pub id: TraceId,
    /// In any order; attributes, too. The span's name is an attribute `name`.
    pub spans: Vec<(SpanId, Vec<(String, Value)>)>,
}

/// What a refusal must say.
#[derive(Debug)]
pub struct Refusal {
    /// Line and column.
    pub place: Option<(u32, u32)>,
    /// Part of the message; may be empty.
    pub part: String,
}

/// A case that begins with `word` and `rest`; its answer is on the lines that follow.
pub(super) fn case(number: usize, word: &str, rest: &str, lines: &mut Lines) -> Result<Case, String> {
    let (query, expected) = match word {
        "eval" => (rest.to_owned(), Expected::Traces(traces(lines)?)),
        "shown" => (rest.to_owned(), Expected::Shown(shown(lines)?)),
        "fail" => (rest.to_owned(), Expected::Refusal(refusal(lines)?)),
        "failmetrics" => (rest.to_owned(), Expected::MetricsRefusal(refusal(lines)?)),
        "metrics" => {
            let (rest, step) = ending(rest, "step")?;
            let (rest, to) = ending(rest, "to")?;
            let (query, from) = ending(rest, "from")?;
            let window = Window { from, to, step: step - T0 };
            (query.to_owned(), Expected::Range(window, series(lines)?))
        }
        "instant" => {
            let (rest, to) = ending(rest, "to")?;
            let (query, from) = ending(rest, "from")?;
            (query.to_owned(), Expected::Instant(Window::instant(from, to), series(lines)?))
        }
        _ => return Err(format!("{word:?} begins nothing")),
    };
    Ok(Case { line: number, query, expected })
}

/// Splits ` key=1m` off the end of a line; the duration counts from T0.
fn ending<'a>(text: &'a str, key: &str) -> Result<(&'a str, u64), String> {
    let Some((before, word)) = text.trim_end().rsplit_once(&format!(" {key}=")) else {
        return Err(format!("expected {key}=... at the end"));
    };
    let nanos = Words::of(word).duration()?;
    Ok((before, T0.wrapping_add_signed(nanos)))
}

/// The lines of an answer, of which `none` is one.
fn answer(lines: &mut Lines, is_answer: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let mut answers = Vec::new();
    while let Some(line) = lines.peek().filter(|line| is_answer(&line.text) || line.text == "none") {
        answers.push(line.text.clone());
        lines.next_line();
    }
    match answers.is_empty() {
        true => Err("a case without an answer; `none` says that there is nothing".to_owned()),
        false => Ok(answers.into_iter().filter(|line| line != "none").collect()),
    }
}

fn begins_with_trace(line: &str) -> bool {
    line.split_once(':').is_some_and(|(id, _)| TraceId::from_hex(id).is_ok())
}

fn traces(lines: &mut Lines) -> Result<Vec<ExpectedTrace>, String> {
    let trace = |line: String| {
        let mut words = Words::of(&line);
        let id = words.trace_id()?;
        words.expect(':')?;
        let mut spansets = vec![spanset(&mut words)?];
        while words.eat('|') {
            spansets.push(spanset(&mut words)?);
        }
        match words.is_end() {
            true => Ok(ExpectedTrace { id, spansets }),
            false => Err(format!("more than spansets in {line:?}")),
        }
    };
    answer(lines, begins_with_trace)?.into_iter().map(trace).collect()
}

fn spanset(words: &mut Words<'_>) -> Result<ExpectedSpanset, String> {
    let mut spans = Vec::new();
    let mut attributes = None;
    while !words.is_end() && !words.is_next('|') {
        if words.eat('[') {
            attributes = Some(pairs(words, ']', Words::label_key)?);
        } else {
            spans.push(words.span_id()?);
        }
    }
    spans.sort_unstable();
    Ok(ExpectedSpanset { spans, attributes })
}

/// `key=value` words up to a closing mark.
fn pairs<'a>(
    words: &mut Words<'a>,
    end: char,
    key: impl Fn(&mut Words<'a>) -> Result<String, String>,
) -> Result<Vec<(String, Value)>, String> {
    let mut pairs = Vec::new();
    while !words.eat(end) {
        pairs.push((key(words)?, words.value()?));
        words.eat(',');
    }
    Ok(pairs)
}

fn shown(lines: &mut Lines) -> Result<Vec<ShownTrace>, String> {
    let trace = |line: String| {
        let mut words = Words::of(&line);
        let id = words.trace_id()?;
        words.expect(':')?;
        let mut spans = Vec::new();
        while !words.is_end() {
            let span = words.span_id()?;
            let attributes = if words.eat('{') { pairs(&mut words, '}', Words::plain_key)? } else { Vec::new() };
            spans.push((span, attributes));
            words.eat('|');
        }
        Ok(ShownTrace { id, spans })
    };
    answer(lines, begins_with_trace)?.into_iter().map(trace).collect()
}

fn series(lines: &mut Lines) -> Result<Vec<Series>, String> {
    let one = |line: String| {
        let mut words = Words::of(&line);
        words.expect('{')?;
        let mut labels = pairs(&mut words, '}', Words::label_key)?;
        for (key, value) in &mut labels {
            // These two are floats even where the corpus writes `p=1`.
            if let ("p" | "__bucket", Value::Int(int)) = (key.as_str(), &*value) {
                *value = Value::Double(*int as f64);
            }
        }
        words.expect(':')?;
        let mut points = Vec::new();
        while !words.is_end() {
            points.push(match words.word("") {
                "_" => None,
                word => Some(word.parse::<f64>().map_err(|_| format!("{word:?} is neither a number nor _"))?),
            });
        }
        Ok(Series { labels, points })
    };
    answer(lines, |line| line.starts_with('{'))?.into_iter().map(one).collect()
}

fn refusal(lines: &mut Lines) -> Result<Refusal, String> {
    let line = lines.next_line().ok_or("a refusal without an answer")?.text;
    let (first, rest) = line.split_once(':').unwrap_or((&line, ""));
    let Ok(line_number) = first.parse() else {
        return match first {
            "error" => Ok(Refusal { place: None, part: rest.trim().to_owned() }),
            _ => Err(format!("{line:?} is no refusal; write `error`, `L:C` or `L:C: part`")),
        };
    };
    let (column, part) = rest.split_once(':').unwrap_or((rest, ""));
    let column = column.trim().parse().map_err(|_| format!("{column:?} is no column"))?;
    Ok(Refusal { place: Some((line_number, column)), part: part.trim().to_owned() })
}
