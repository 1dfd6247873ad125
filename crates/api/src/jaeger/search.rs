//! What a Jaeger search asks for: its parameters, and the predicate that they are.
//!
//! Service, operation, tags and durations must hold together on one span; the answer is that span's
//! whole trace. Values arrive as text and are compared with the text of the stored value, whatever
//! its type.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use spoor_model::id::IdError;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, Test};
use spoor_model::{TimeRange, TraceId, UnixNano};
use spoor_querier::{Filter, SearchRequest};

use super::filter::StructuredFilter;
use super::model::{EMPTY_SERVICE, MISSING_SERVICE};
use crate::error::ApiError;
use crate::go_duration;
use crate::params::Params;

/// How many traces an answer has unless the client says.
pub(crate) const LIMIT_DEFAULT: usize = 100;
/// How far a search looks back unless the client says.
const LOOKBACK_DEFAULT: Duration = Duration::from_secs(48 * 3600);

/// What a search asks for, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// Whose span; `None` for anybody's.
    pub(crate) service: Option<String>,
    /// The span's name.
    pub(crate) operation: Option<String>,
    /// Tags of the span, all of them.
    pub(crate) tags: BTreeMap<String, String>,
    /// The trace overlaps this; when it ends before it starts, nothing is found.
    pub(crate) start: UnixNano,
    /// Inclusive.
    pub(crate) end: UnixNano,
    /// The span lasts at least this; 0 for no bound.
    pub(crate) min_duration_nano: u64,
    /// The span lasts at most this; 0 for no bound.
    pub(crate) max_duration_nano: u64,
    /// What the span satisfies, in the place of all that is said of it above.
    pub(crate) filter: Option<StructuredFilter>,
    /// The newest so many.
    pub(crate) limit: usize,
}

impl Terms {
    /// Reads the parameters of the legacy search; the texts of the errors are Jaeger's. An empty service is any.
    pub(crate) fn from_params(params: &Params, now: UnixNano) -> Result<Self, ApiError> {
        if !params.pairs().any(|(name, _)| name == "service") {
            return Err(ApiError::invalid("parameter 'service' is required"));
        }
        let tags = tags(params)?;
        let start = time(params, "start")?.unwrap_or_else(|| now.minus(LOOKBACK_DEFAULT));
        // A microsecond is a thousand instants, and the last of them counts.
        let end = time(params, "end")?.map_or(now, |end| UnixNano(end.0.saturating_add(999)));
        let (min_duration_nano, max_duration_nano) = durations(params, "minDuration", "maxDuration")?;
        Ok(Self {
            service: params.get("service").map(str::to_owned),
            operation: params.get("operation").map(str::to_owned),
            tags,
            start,
            end,
            min_duration_nano,
            max_duration_nano,
            filter: None,
            limit: limit(params)?,
        })
    }

    /// Whether anything is said of the span beside a structured filter, with which it cannot be combined.
    pub(crate) fn has_classic(&self) -> bool {
        let is_named = self.service.is_some() || self.operation.is_some() || !self.tags.is_empty();
        is_named || self.min_duration_nano != 0 || self.max_duration_nano != 0
    }

    /// What to ask of the querier; `None` when there is nothing to find.
    pub(crate) fn request(&self) -> Option<SearchRequest> {
        (self.start <= self.end).then(|| SearchRequest {
            filter: self.filter.as_ref().map_or_else(|| self.classic_filter(), StructuredFilter::to_filter),
            min_duration_nano: None,
            max_duration_nano: None,
            range: TimeRange { start: self.start, end: self.end },
            limit: self.limit,
        })
    }

    fn classic_filter(&self) -> Filter {
        let mut all: Vec<Predicate> = Vec::new();
        all.extend(self.service.as_deref().map(service_predicate));
        all.extend(self.operation.as_deref().map(|name| is_text(Field::Name, name)));
        all.extend(self.tags.iter().map(|(key, value)| tag_predicate(key, value)));
        let nanos = |nanos| Literal::Int(i64::try_from(nanos).unwrap_or(i64::MAX));
        let (min, max) = (self.min_duration_nano, self.max_duration_nano);
        all.extend((min != 0).then(|| is(Field::Duration, Test::Ge(nanos(min)))));
        all.extend((max != 0).then(|| is(Field::Duration, Test::Le(nanos(max)))));
        Filter::Span(Predicate::And(all))
    }
}

/// The traces that the client names; a search with any looks at nothing else.
pub(crate) fn trace_ids(params: &Params) -> Result<Vec<TraceId>, ApiError> {
    let parse =
        |text| TraceId::from_hex(text).map_err(|err| ApiError::invalid(format!("cannot parse traceID param: {err}")));
    params.all("traceID").map(parse).collect()
}

/// A trace id from a path: hex, or what newer clients send, base64 of 8 or 16 bytes.
pub(crate) fn trace_id_from_path(text: &str) -> Result<TraceId, IdError> {
    let hex = TraceId::from_hex(text);
    if hex.is_ok() || text.len() > 24 {
        return hex;
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabets = [&alphabet::STANDARD, &alphabet::URL_SAFE];
    let decoded = alphabets.iter().find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok());
    match decoded.as_deref().map(|bytes| (bytes.len(), bytes)) {
        Some((length @ (8 | 16), bytes)) => {
            let mut id = [0; 16];
            id[16 - length..].copy_from_slice(bytes);
            Ok(TraceId(id))
        }
        _ => hex,
    }
}

/// Refuses a `start` or `end` that is no number; what they are is of no matter to a trace by id.
pub(crate) fn check_times(params: &Params) -> Result<(), ApiError> {
    time(params, "start")?;
    time(params, "end")?;
    Ok(())
}

fn time(params: &Params, name: &str) -> Result<Option<UnixNano>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let micros: i64 =
        integer(text).map_err(|text| ApiError::invalid(format!("unable to parse param '{name}': {text}")))?;
    let micros = u64::try_from(micros).unwrap_or(0);
    Ok(Some(UnixNano(micros.saturating_mul(1000))))
}

fn limit(params: &Params) -> Result<usize, ApiError> {
    let Some(text) = params.get("limit") else { return Ok(LIMIT_DEFAULT) };
    let limit: i32 = integer(text).map_err(ApiError::invalid)?;
    match usize::try_from(limit) {
        Ok(limit @ 1..) => Ok(limit),
        _ => Err(ApiError::invalid(format!("parameter 'limit' must be at least 1, not {limit}"))),
    }
}

/// An integer, or the text with which Jaeger refuses it.
pub(super) fn integer<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

/// Least and greatest duration in nanoseconds, 0 where there is none.
fn durations(params: &Params, min: &str, max: &str) -> Result<(u64, u64), ApiError> {
    let read = |name: &str| match params.get(name) {
        None => Ok(0),
        Some(text) => go_duration::parse(text).ok_or_else(|| {
            ApiError::invalid(format!("unable to parse param '{name}': time: invalid duration {text:?}"))
        }),
    };
    let (least, greatest) = (read(min)?, read(max)?);
    match least != 0 && greatest != 0 && greatest < least {
        true => Err(ApiError::invalid(format!("'{max}' should be greater than '{min}'"))),
        false => Ok((least, greatest)),
    }
}

/// `tag=key:value` and `tags={"key":"value"}` together; of one key the later wins.
fn tags(params: &Params) -> Result<BTreeMap<String, String>, ApiError> {
    let mut tags = BTreeMap::new();
    for pair in params.all("tag") {
        let Some((key, value)) = pair.split_once(':') else {
            let text = format!("malformed 'tag' parameter, expecting key:value, received: {pair}");
            return Err(ApiError::invalid(text));
        };
        tags.insert(key.to_owned(), value.to_owned());
    }
    for text in params.all("tags") {
        read_tags(text, &mut tags)
            .map_err(|why| ApiError::invalid(format!("malformed 'tags' parameter, cannot unmarshal JSON: {why}")))?;
    }
    Ok(tags)
}

/// Adds the members of a JSON object, or says what is wrong with it.
pub(super) fn read_tags(text: &str, tags: &mut BTreeMap<String, String>) -> Result<(), String> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|err| err.to_string())?;
    for (key, value) in object {
        // Jaeger takes texts only; people write numbers and booleans, and mean their text.
        let value = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Bool(flag) => flag.to_string(),
            other => return Err(format!("the value of {key:?} is {other}, expected a string")),
        };
        tags.insert(key, value);
    }
    Ok(())
}

fn is(field: Field, test: Test) -> Predicate {
    Predicate::Is(Condition { field, test })
}

fn is_text(field: Field, text: &str) -> Predicate {
    is(field, Test::Eq(Literal::Str(text.into())))
}

pub(crate) fn service_predicate(name: &str) -> Predicate {
    let field = || Field::Attribute(AttrScope::Resource, "service.name".into());
    let named = is_text(field(), name);
    match name {
        MISSING_SERVICE => {
            let nameless = no_service_name().map(|test| is(field(), test));
            Predicate::Or([named].into_iter().chain(nameless).collect())
        }
        EMPTY_SERVICE => Predicate::Or(vec![is_text(field(), ""), named]),
        _ => named,
    }
}

/// What a resource's `service.name` passes when it names none: it is absent, or a number or a boolean.
pub(super) fn no_service_name() -> [Test; 4] {
    let flag = |flag| Test::Eq(Literal::Bool(flag));
    [Test::Absent, Test::Ge(Literal::Float(f64::NEG_INFINITY)), flag(true), flag(false)]
}

const SCOPES: [AttrScope; 5] =
    [AttrScope::Span, AttrScope::Resource, AttrScope::Event, AttrScope::Link, AttrScope::Instrumentation];

/// A tag is an attribute of the span or of anything around it, or one of the tags that stand for a
/// field in Jaeger's form.
fn tag_predicate(key: &str, value: &str) -> Predicate {
    let key: Arc<str> = key.into();
    let test = || Test::TextEq(value.into());
    let attribute = |scope| is(Field::Attribute(scope, Arc::clone(&key)), test());
    let mut any: Vec<Predicate> = SCOPES.map(attribute).into();
    let number = |field, number| is(field, Test::Eq(Literal::Int(number)));
    any.extend(match (&*key, value) {
        ("span.kind", kind) => kind_number(kind).map(|kind| number(Field::Kind, kind)),
        ("error", "true") => Some(number(Field::Status, 2)),
        ("otel.status_code", "OK") => Some(number(Field::Status, 1)),
        ("otel.status_code", "ERROR") => Some(number(Field::Status, 2)),
        ("otel.status_description", text) => Some(is_text(Field::StatusMessage, text)),
        ("otel.scope.name", text) => Some(is_text(Field::InstrumentationName, text)),
        ("otel.scope.version", text) => Some(is_text(Field::InstrumentationVersion, text)),
        ("event", text) => Some(is_text(Field::EventName, text)),
        _ => None,
    });
    Predicate::Or(any)
}

/// OTLP's number of Jaeger's word for a span kind.
pub(crate) fn kind_number(text: &str) -> Option<i64> {
    match text {
        "internal" => Some(1),
        "server" => Some(2),
        "client" => Some(3),
        "producer" => Some(4),
        "consumer" => Some(5),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
