//! Names and values of attributes: what editors complete and drop-downs list.
//!
//! Without a filter they come from catalogues, where these list them. A filter (`q`) may be unfinished, and is never an
//! error: what can be read of it is applied, so an answer may offer more than matching spans have, and never less.

mod roots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use http::{HeaderMap, Uri};
use serde::Serialize;
use spoor_model::nested::put_message;
use spoor_model::scan::{AttrScope, Condition, Field, KeySet, Literal, Predicate, ScanStats, Test};
use spoor_model::wire::{put_bytes, put_text, put_uint};
use spoor_model::{SpanId, TenantId, TimeRange, Value};
use spoor_querier::SpanFilter;
use spoor_traceql::{Attribute, Intrinsic, LenientFilter};

use super::negotiate::{Encoded, Form};
use super::time_range::{self, Times};
use crate::error::{ApiError, Kind};
use crate::params::{Params, Plus, percent_decode};
use crate::query_metrics::{Cut, QueryMetrics};
use crate::{fan_out, go_duration, partial, value_text};

type Shared = State<Arc<super::State>>;

/// What is not an attribute and has a name, sorted. Grafana lists these by itself as well.
const INTRINSICS: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

/// What all four routes, and the calls of gRPC, ask for.
pub(super) struct Request {
    tenants: Vec<TenantId>,
    range: TimeRange,
    /// `usize::MAX` when there is no limit.
    limit: usize,
    /// Most bytes of names or values.
    bytes_max: usize,
    filter: Option<LenientFilter>,
    form: Form,
    params: Params,
}

impl Request {
    fn parse(state: &super::State, headers: &HeaderMap, query: Option<&str>) -> Result<Self, ApiError> {
        Self::new(state, headers, Params::parse(query), Form::wanted(headers))
    }

    pub(super) fn new(state: &super::State, headers: &HeaderMap, params: Params, form: Form) -> Result<Self, ApiError> {
        let tenants = state.tenancy.for_read(headers)?;
        let range = time_range::from_params(&params, Times::Any, state.clock.now())?;
        let limit = match params.parsed::<u32>("limit")? {
            None | Some(0) => usize::MAX,
            Some(limit) => limit as usize,
        };
        params.parsed::<u32>("maxStaleValues")?;
        let filter = match params.get("q") {
            None => None,
            Some(text) => {
                state.bounds().check_text(text)?;
                spoor_traceql::lenient_filter(text)
            }
        };
        let bytes_max = state.limits.tags_bytes_max;
        Ok(Self { tenants, range, limit, bytes_max, filter, form, params })
    }
}

/// Which names are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Scope(AttrScope),
    Intrinsics,
    /// A scope that has no attributes.
    Nothing,
}

impl Wanted {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        Ok(match params.get("scope") {
            None | Some("none") => Self::All,
            Some("span") => Self::Scope(AttrScope::Span),
            Some("resource") => Self::Scope(AttrScope::Resource),
            Some("event") => Self::Scope(AttrScope::Event),
            Some("link") => Self::Scope(AttrScope::Link),
            Some("instrumentation") => Self::Scope(AttrScope::Instrumentation),
            Some("intrinsic") => Self::Intrinsics,
            Some("trace") => Self::Nothing,
            Some(other) => return Err(ApiError::invalid(format!("invalid scope: {other}"))),
        })
    }

    fn has(self, scope: AttrScope) -> bool {
        self == Self::All || self == Self::Scope(scope)
    }
}

/// How Tempo spells a scope, in the order of its editors.
const SCOPES: [(AttrScope, &str); 5] = [
    (AttrScope::Resource, "resource"),
    (AttrScope::Span, "span"),
    (AttrScope::Event, "event"),
    (AttrScope::Link, "link"),
    (AttrScope::Instrumentation, "instrumentation"),
];

/// `/api/search/tags`: names across scopes, each once.
pub(super) async fn names_v1(
    State(state): Shared,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Encoded, ApiError> {
    let request = Request::parse(&state, &headers, query.as_deref())?;
    answer_names_v1(&state, request).await
}

/// `SearchTagsResponse`.
pub(super) async fn answer_names_v1(state: &super::State, request: Request) -> Result<Encoded, ApiError> {
    answer_names(state, request, |scopes, limit| {
        let mut tag_names: BTreeSet<String> = BTreeSet::new();
        scopes.into_iter().for_each(|scope| tag_names.extend(scope.tags));
        TagNames { tag_names: tag_names.into_iter().take(limit).collect() }
    })
    .await
}

/// `/api/v2/search/tags`: names by scope.
pub(super) async fn names_v2(
    State(state): Shared,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Encoded, ApiError> {
    let request = Request::parse(&state, &headers, query.as_deref())?;
    answer_names_v2(&state, request).await
}

/// `SearchTagsV2Response`.
pub(super) async fn answer_names_v2(state: &super::State, request: Request) -> Result<Encoded, ApiError> {
    answer_names(state, request, |mut scopes, limit| {
        scopes.iter_mut().for_each(|scope| scope.tags.truncate(limit));
        // Grafana throws at a scope without tags.
        scopes.retain(|scope| !scope.tags.is_empty());
        ScopedNames { scopes }
    })
    .await
}

async fn answer_names<T: Answer>(
    state: &super::State,
    mut request: Request,
    shape: fn(Vec<Scope>, usize) -> T,
) -> Result<Encoded, ApiError> {
    let wanted = Wanted::from_params(&request.params)?;
    // Conditions on any scope filter no names, as in Tempo; and version 1 knows no filters.
    request.filter = request.filter.filter(|_| T::IS_FILTERED).and_then(|filter| filter.scoped());
    let with_intrinsics = wanted == Wanted::Intrinsics || (wanted == Wanted::All && T::LISTS_INTRINSICS);
    let counted = state.gate.metrics().clone();
    state
        .gate
        .run(move |querier, ctx| {
            let filter = span_filter(request.filter);
            let answer = fan_out::keys(querier, &request.tenants, filter.as_ref(), request.range, ctx)?;
            let mut scopes = scopes(answer.value, wanted);
            if with_intrinsics {
                let tags = INTRINSICS.map(str::to_owned).to_vec();
                scopes.push(Scope { name: "intrinsic", tags });
            }
            let mut notes: Vec<String> = partial::note(&answer.skipped).into_iter().collect();
            if cut(&mut scopes, request.bytes_max) {
                notes.push(cut_note(&counted, request.bytes_max));
            }
            let partial = (!notes.is_empty()).then(|| notes.join("; "));
            let metrics = Metrics::new(answer.stats, answer.skipped.len());
            Ok(shape(scopes, request.limit).encode(metrics, request.form, partial))
        })
        .await
}

/// Drops the names that pass the limit; whether there were any.
fn cut(scopes: &mut [Scope], bytes_max: usize) -> bool {
    let mut left = bytes_max;
    let mut is_cut = false;
    for scope in scopes.iter_mut() {
        let fitting = scope.tags.iter().take_while(|tag| {
            let fits = tag.len() <= left;
            left = left.saturating_sub(tag.len());
            fits
        });
        let fitting = fitting.count();
        is_cut |= fitting < scope.tags.len();
        scope.tags.truncate(fitting);
    }
    is_cut
}

fn cut_note(counted: &QueryMetrics, bytes_max: usize) -> String {
    counted.cut(Cut::tags_bytes);
    format!("partial answer, it ends at {bytes_max} bytes; raise query_tags_max_bytes")
}

/// Which spans are looked at; `None` for all.
fn span_filter(filter: Option<LenientFilter>) -> Option<SpanFilter> {
    spoor_traceql::plan_search(&filter?.query()).ok().map(SpanFilter::Query)
}

/// The spans that have a field which no catalogue lists: its values are read from columns, as if a filter asked for it.
fn those_that_have(field: &Field) -> Option<SpanFilter> {
    let has_it = || Predicate::Is(Condition { field: field.clone(), test: Test::Exists });
    let is_unlisted = matches!(field, Field::EventTimeSinceStart | Field::LinkTraceId | Field::LinkSpanId);
    is_unlisted.then(|| SpanFilter::Predicate(has_it()))
}

fn scopes(mut keys: KeySet, wanted: Wanted) -> Vec<Scope> {
    let wanted = SCOPES.into_iter().filter(|(scope, _)| wanted.has(*scope));
    let found = wanted.filter_map(|(scope, name)| Some((name, keys.remove(&scope)?)));
    found.map(|(name, tags)| Scope { name, tags: tags.into_iter().collect() }).collect()
}

/// `/api/search/tag/{name}/values`: texts. The name has no scope.
pub(super) async fn values_v1(
    State(state): Shared,
    uri: Uri,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Encoded, ApiError> {
    let request = Request::parse(&state, &headers, query.as_deref())?;
    let name = name_in_path(uri.path(), "/api/search/tag/")?;
    answer_values_v1(&state, request, name).await
}

/// `SearchTagValuesResponse`.
pub(super) async fn answer_values_v1(
    state: &super::State,
    mut request: Request,
    name: String,
) -> Result<Encoded, ApiError> {
    request.filter = None;
    let source = match name.as_str() {
        "status.code" => Source::Fixed(&["unset", "ok", "error"]),
        "error" => Source::Fixed(&["true"]),
        "name" => Source::Read(Field::Name),
        "root.name" | "rootName" => Source::OfRoots(Field::Name, "rootName"),
        "service.name" => Source::Read(resource_service_name()),
        "root.service.name" | "rootServiceName" => Source::OfRoots(resource_service_name(), "rootServiceName"),
        _ => Source::Read(Field::Attribute(AttrScope::Any, name.into())),
    };
    answer_values(state, request, source, |values| {
        let texts: BTreeSet<String> = values.into_iter().map(|value| value.value).collect();
        TagTexts { tag_values: texts.into_iter().collect() }
    })
    .await
}

/// `/api/v2/search/tag/{identifier}/values`: typed values of an attribute with its scope, or of an
/// intrinsic.
pub(super) async fn values_v2(
    State(state): Shared,
    uri: Uri,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Encoded, ApiError> {
    let mut request = Request::parse(&state, &headers, query.as_deref())?;
    request.form = Form::wanted_of_three(&headers);
    let name = name_in_path(uri.path(), "/api/v2/search/tag/")?;
    answer_values_v2(&state, request, &name).await
}

/// `SearchTagValuesV2Response`.
pub(super) async fn answer_values_v2(state: &super::State, request: Request, name: &str) -> Result<Encoded, ApiError> {
    let attribute = spoor_traceql::parse_identifier(name)
        .map_err(|err| ApiError::invalid(format!("please provide a valid tagName: {err}")))?;
    answer_values(state, request, source_of(&attribute), |tag_values| TagValues { tag_values }).await
}

/// The name between `prefix` and `/values`, slashes and all.
fn name_in_path(path: &str, prefix: &str) -> Result<String, ApiError> {
    let rest = path.strip_prefix(prefix).unwrap_or_default();
    match rest.strip_suffix("/values") {
        Some("") => Err(no_name()),
        Some(name) => Ok(percent_decode(name, Plus::IsPlus)),
        None => Err(ApiError::new(Kind::NotFound, "404 page not found")),
    }
}

pub(super) fn no_name() -> ApiError {
    ApiError::invalid("please provide a non-empty tagName")
}

fn resource_service_name() -> Field {
    Field::Attribute(AttrScope::Resource, "service.name".into())
}

/// Where the values of a name come from.
enum Source {
    /// Keywords of the language.
    Fixed(&'static [&'static str]),
    /// The spans that satisfy the filter.
    Read(Field),
    /// The roots of traces that the filter finds; without one, spans without a parent. With the name that TraceQL has.
    OfRoots(Field, &'static str),
}

fn has_no_parent() -> Predicate {
    let no_parent = Literal::Str(SpanId::default().to_string().into());
    Predicate::Is(Condition { field: Field::ParentSpanId, test: Test::Eq(no_parent) })
}

fn source_of(attribute: &Attribute) -> Source {
    match attribute {
        Attribute::Intrinsic(Intrinsic::Status) => Source::Fixed(&["ok", "error", "unset"]),
        Attribute::Intrinsic(Intrinsic::Kind) => {
            Source::Fixed(&["client", "server", "producer", "consumer", "internal", "unspecified"])
        }
        // Too many to choose from; and no catalogue has the ids.
        Attribute::Intrinsic(
            Intrinsic::Duration
            | Intrinsic::TraceDuration
            | Intrinsic::TraceId
            | Intrinsic::SpanId
            | Intrinsic::ParentId,
        ) => Source::Fixed(&[]),
        Attribute::Intrinsic(Intrinsic::RootName) => Source::OfRoots(Field::Name, "rootName"),
        Attribute::Intrinsic(Intrinsic::RootServiceName) => Source::OfRoots(resource_service_name(), "rootServiceName"),
        attribute => attribute.field().map_or(Source::Fixed(&[]), Source::Read),
    }
}

async fn answer_values<T: Answer>(
    state: &super::State,
    request: Request,
    source: Source,
    shape: fn(Vec<TypedValue>) -> T,
) -> Result<Encoded, ApiError> {
    let Request { tenants, range, limit, bytes_max, filter, form, .. } = request;
    let mut by_root = None;
    let (field, filter) = match source {
        Source::Fixed(words) => {
            let keyword = |word: &&str| TypedValue { r#type: "keyword", value: (*word).to_owned() };
            let values = words.iter().take(limit).map(keyword).collect();
            return Ok(shape(values).encode(Metrics::new(ScanStats::default(), 0), form, None));
        }
        Source::Read(field) => {
            let filter = span_filter(filter).or_else(|| those_that_have(&field));
            (field, filter)
        }
        Source::OfRoots(field, name) => {
            by_root = filter.as_ref().and_then(|filter| roots::plan(filter, name));
            (field, Some(SpanFilter::Predicate(has_no_parent())))
        }
    };
    let counted = state.gate.metrics().clone();
    state
        .gate
        .run(move |querier, ctx| {
            let answer = match &by_root {
                Some(plan) => roots::values(querier, &tenants, plan, range, bytes_max, ctx)?,
                None => fan_out::values(querier, &tenants, (&field, filter.as_ref()), range, bytes_max, ctx)?,
            };
            let (values, is_complete) = answer.value;
            let typed = |value: &Value| TypedValue::of(&field, value);
            let values: BTreeSet<TypedValue> = values.iter().filter_map(typed).collect();
            let values = values.into_iter().take(limit).collect();
            let mut notes: Vec<String> = partial::note(&answer.skipped).into_iter().collect();
            if !is_complete {
                notes.push(cut_note(&counted, bytes_max));
            }
            let partial = (!notes.is_empty()).then(|| notes.join("; "));
            let metrics = Metrics::new(answer.stats, answer.skipped.len());
            Ok(shape(values).encode(metrics, form, partial))
        })
        .await
}

/// One of the four answers: a JSON object, and the same fields as protobuf. `metrics` is field 2 of
/// each.
trait Answer: Serialize + 'static {
    /// Version 1 lists intrinsics only to those who ask for them; version 2 always.
    const LISTS_INTRINSICS: bool = false;
    /// Whether `q` counts.
    const IS_FILTERED: bool = false;

    fn put(&self, out: &mut Vec<u8>);

    /// The form for language models, of the one answer that has it.
    fn by_type(&self) -> BTreeMap<&str, Vec<&str>> {
        BTreeMap::new()
    }

    fn encode(&self, metrics: Metrics, form: Form, partial: Option<String>) -> Encoded
    where
        Self: Sized,
    {
        let bytes = match form {
            Form::Json => json_bytes(&WithMetrics { answer: self, metrics }),
            Form::Llm => json_bytes(&serde_json::json!({"tagValues": self.by_type(), "metrics": metrics})),
            Form::Protobuf => {
                let mut out = Vec::new();
                self.put(&mut out);
                put_message(&mut out, 2, |out| metrics.put(out));
                out
            }
        };
        Encoded { form, bytes, partial }
    }
}

fn json_bytes(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("answers have text keys and no failing parts")
}

#[derive(Serialize)]
struct WithMetrics<'a, T> {
    #[serde(flatten)]
    answer: &'a T,
    metrics: Metrics,
}

/// `MetadataMetrics`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    #[serde(skip_serializing_if = "Option::is_none")]
    inspected_bytes: Option<String>,
    total_jobs: u32,
    completed_jobs: u32,
    #[serde(skip)]
    bytes: u64,
}

impl Metrics {
    /// Sources that were skipped count as jobs that were not completed.
    fn new(stats: ScanStats, skipped_count: usize) -> Self {
        let bytes = stats.bytes_inspected;
        let total_jobs = u32::try_from(1 + skipped_count).unwrap_or(u32::MAX);
        let inspected_bytes = (bytes != 0).then(|| bytes.to_string());
        Self { inspected_bytes, total_jobs, completed_jobs: 1, bytes }
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_uint(out, 1, self.bytes);
        put_uint(out, 2, u64::from(self.total_jobs));
        put_uint(out, 3, u64::from(self.completed_jobs));
    }
}

/// `SearchTagsResponse`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TagNames {
    tag_names: Vec<String>,
}

impl Answer for TagNames {
    fn put(&self, out: &mut Vec<u8>) {
        self.tag_names.iter().for_each(|name| put_bytes(out, 1, name.as_bytes()));
    }
}

/// `SearchTagsV2Scope`.
#[derive(Serialize)]
struct Scope {
    name: &'static str,
    tags: Vec<String>,
}

/// `SearchTagsV2Response`.
#[derive(Serialize)]
struct ScopedNames {
    scopes: Vec<Scope>,
}

impl Answer for ScopedNames {
    const LISTS_INTRINSICS: bool = true;
    const IS_FILTERED: bool = true;

    fn put(&self, out: &mut Vec<u8>) {
        for scope in &self.scopes {
            put_message(out, 1, |out| {
                put_text(out, 1, scope.name.as_bytes());
                scope.tags.iter().for_each(|tag| put_bytes(out, 2, tag.as_bytes()));
            });
        }
    }
}

/// `SearchTagValuesResponse`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TagTexts {
    tag_values: Vec<String>,
}

impl Answer for TagTexts {
    fn put(&self, out: &mut Vec<u8>) {
        self.tag_values.iter().for_each(|value| put_bytes(out, 1, value.as_bytes()));
    }
}

/// `TagValue`. The type tells Grafana's editor whether to quote the value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct TypedValue {
    r#type: &'static str,
    value: String,
}

impl TypedValue {
    /// `None` for what TraceQL cannot write.
    fn of(field: &Field, value: &Value) -> Option<Self> {
        let (r#type, value) = match value {
            Value::Int(nanos) if *field == Field::EventTimeSinceStart => {
                ("duration", go_duration::format_signed(*nanos))
            }
            Value::Str(text) => ("string", text.clone()),
            Value::Bool(flag) => ("bool", flag.to_string()),
            Value::Int(int) => ("int", int.to_string()),
            Value::Double(double) if double.fract() == 0.0 => ("float", format!("{double:.1}")),
            Value::Double(double) => ("float", value_text::shortest(*double)),
            Value::Empty | Value::Bytes(_) | Value::Array(_) | Value::Map(_) => return None,
        };
        Some(Self { r#type, value })
    }
}

/// `SearchTagValuesV2Response`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TagValues {
    tag_values: Vec<TypedValue>,
}

impl Answer for TagValues {
    fn by_type(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut by_type: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        self.tag_values.iter().for_each(|value| by_type.entry(value.r#type).or_default().push(&value.value));
        by_type
    }

    fn put(&self, out: &mut Vec<u8>) {
        for value in &self.tag_values {
            put_message(out, 1, |out| {
                put_text(out, 1, value.r#type.as_bytes());
                put_text(out, 2, value.value.as_bytes());
            });
        }
    }
}
