//! An OpenAPI document as a judge of requests and answers: as much of it, and of JSON Schema, as ours use.

use std::collections::BTreeSet;

use serde_json::Value as Json;

/// What is described.
pub(crate) struct OpenApi(Json);

impl OpenApi {
    pub(crate) fn read(yaml: &str) -> Self {
        Self(serde_norway::from_str(yaml).unwrap())
    }

    /// The operation that answers a path: literal parts count before parameters.
    fn operation(&self, method: &str, path: &str) -> Option<&Json> {
        let paths = self.0["paths"].as_object().unwrap();
        let mut fitting: Vec<&String> = paths.keys().filter(|pattern| fits(pattern, path)).collect();
        fitting.sort_by_key(|pattern| pattern.matches('{').count());
        let methods = &paths[fitting.first()?.as_str()];
        // Queries may be posted, and are described as `get`.
        methods.get(method.to_lowercase()).or_else(|| methods.get("get"))
    }

    /// Names of the parameters that a path is described with.
    pub(crate) fn parameters(&self, method: &str, path: &str) -> BTreeSet<&str> {
        let Some(operation) = self.operation(method, path) else { return BTreeSet::new() };
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.filter_map(|parameter| self.resolved(parameter)["name"].as_str()).collect()
    }

    /// What is wrong with a successful JSON answer. Empty when nothing is.
    pub(crate) fn mistakes(&self, method: &str, path: &str, label: &str, answer: &Json) -> Vec<String> {
        let Some(operation) = self.operation(method, path) else {
            return vec![format!("{method} {path} is not described")];
        };
        let schema = &operation["responses"]["200"]["content"][label]["schema"];
        let mut mistakes = Vec::new();
        match schema {
            Json::Null => mistakes.push(format!("{method} {path}: no {label} is described")),
            schema => self.check(schema, answer, path, &mut mistakes),
        }
        mistakes
    }

    fn resolved<'a>(&'a self, schema: &'a Json) -> &'a Json {
        match schema.get("$ref").and_then(Json::as_str) {
            Some(reference) => {
                let target = self.0.pointer(reference.strip_prefix('#').unwrap());
                target.unwrap_or_else(|| panic!("{reference} is not there"))
            }
            None => schema,
        }
    }

    fn check(&self, schema: &Json, value: &Json, at: &str, mistakes: &mut Vec<String>) {
        let schema = self.resolved(schema);
        let mut wrong = |what: String| mistakes.push(format!("{at}: {what}: {value}"));
        let types = match &schema["type"] {
            Json::Array(types) => types.iter().filter_map(Json::as_str).collect(),
            one => one.as_str().into_iter().collect::<Vec<_>>(),
        };
        if !types.is_empty() && !types.iter().any(|one| has_type(value, one)) {
            wrong(format!("not of type {types:?}"));
        }
        if schema.get("const").is_some_and(|expected| expected != value) {
            wrong(format!("not {}", schema["const"]));
        }
        if schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
            wrong(format!("none of {}", schema["enum"]));
        }
        if schema["maximum"].as_u64().is_some_and(|most| value.as_u64().is_none_or(|value| value > most)) {
            wrong(format!("above {}", schema["maximum"]));
        }
        if schema["minItems"]
            .as_u64()
            .is_some_and(|least| value.as_array().is_some_and(|items| (items.len() as u64) < least))
        {
            wrong("too short".to_owned());
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if value.get(key).is_none() {
                wrong(format!("without {key}"));
            }
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if let Some(items) = schema.get("items") {
                self.check(items, item, &format!("{at}[{index}]"), mistakes);
            }
        }
        for (key, field) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{key}");
            match (schema["properties"].get(key), &schema["additionalProperties"]) {
                (Some(described), _) => self.check(described, field, &at, mistakes),
                (None, Json::Bool(false)) => mistakes.push(format!("{at}: not described")),
                (None, Json::Object(_)) => self.check(&schema["additionalProperties"], field, &at, mistakes),
                (None, _) => {}
            }
        }
    }
}

/// A parameter is one part of a path, or several where something follows it: names of tags hold slashes.
fn fits(pattern: &str, path: &str) -> bool {
    let (Some(opened), Some(closed)) = (pattern.find('{'), pattern.find('}')) else { return pattern == path };
    let (before, after) = (&pattern[..opened], &pattern[closed + 1..]);
    let middle = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    middle.is_some_and(|middle| !middle.is_empty() && (!after.is_empty() || !middle.contains('/')))
}

fn has_type(value: &Json, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    }
}

#[test]
fn mistakes_are_found_and_what_is_right_is_not() {
    let described = OpenApi::read(
        r##"{"paths": {"/a/{x}/values": {"get": {"parameters": [{"name": "q"}], "responses": {"200": {"content": {"application/json":
        {"schema": {"$ref": "#/s"}}}}}}}}, "s": {"type": "object", "required": ["n"], "additionalProperties": false, "properties":
        {"n": {"type": "integer", "maximum": 3}, "l": {"type": "array", "minItems": 1, "items": {"enum": ["a"]}}}}}"##,
    );
    let mistakes = |path: &str, json: Json| described.mistakes("GET", path, "application/json", &json).len();
    assert_eq!(mistakes("/a/b/c/values", serde_json::json!({"n": 3, "l": ["a"]})), 0);
    for wrong in [
        r#"{}"#,
        r#"{"n": 4}"#,
        r#"{"n": 1, "l": []}"#,
        r#"{"n": 1, "l": ["b"]}"#,
        r#"{"n": 1, "m": 1}"#,
        r#"{"n": "1"}"#,
    ] {
        assert_ne!(mistakes("/a/b/values", serde_json::from_str(wrong).unwrap()), 0, "{wrong}");
    }
    assert_eq!(mistakes("/a//values", serde_json::json!({"n": 1})), 1);
    assert!(described.parameters("GET", "/a/b/values").contains("q"));
}
