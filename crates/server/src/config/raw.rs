//! What was asked for, as text, with the place where it was asked.

use std::collections::BTreeMap;

use serde_norway::Value as Yaml;

use super::value::{ByTenant, Value};
use super::{ConfigError, SETTINGS, Setting};

/// A value and where it stands, for the error that may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The value as written.
    pub text: String,
    /// `--retention`, `SPOOR_RETENTION` or `spoor.yaml:3: retention`.
    pub place: String,
}

/// The settings that somebody gave. Keys are known; values are not read yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawConfig {
    given: BTreeMap<&'static str, Given>,
}

impl RawConfig {
    /// What was given for a key.
    pub fn get(&self, key: &str) -> Option<&Given> {
        self.given.get(key)
    }

    /// Sets a key, over what was given before.
    pub fn set(&mut self, setting: &Setting, text: String, place: String) {
        self.given.insert(setting.key, Given { text, place });
    }

    /// Adds the settings of a YAML file: a flat map of keys to scalars, lists of scalars or maps of them. `path`
    /// is for errors.
    pub fn set_from_yaml(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let syntax = |reason: String| ConfigError::Syntax { path: path.to_owned(), reason };
        let yaml: Yaml = serde_norway::from_str(text).map_err(|err| syntax(err.to_string()))?;
        let map = match yaml {
            Yaml::Null => return Ok(()),
            Yaml::Mapping(map) => map,
            _ => return Err(syntax("expected `key: value` lines".to_owned())),
        };
        for (key, value) in &map {
            let key = scalar(key).ok_or_else(|| syntax("a key is not a word".to_owned()))?;
            let file_and_line = format!("{path}:{}", line_of(text, &key));
            let Some(setting) = Setting::find(&key) else {
                let nearest = nearest_key(&key);
                return Err(ConfigError::UnknownKey { place: file_and_line, key, nearest });
            };
            let Some(value) = text_of(value, setting.kind == <ByTenant as Value>::KIND) else {
                return Err(syntax(format!("`{key}` must be a {}", setting.kind)));
            };
            self.set(setting, value, format!("{file_and_line}: {key}"));
        }
        Ok(())
    }

    /// Adds the settings among environment variables. Returns what to warn about: variables that
    /// look like settings and are none. They are no error, because others may share the prefix:
    /// for a service called `spoor` Kubernetes alone sets half a dozen.
    pub fn set_from_variables(&mut self, variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, text) in variables {
            let Some(suffix) = name.strip_prefix("SPOOR_") else { continue };
            // Kubernetes gives a service `spoor-tempo` the variable SPOOR_TEMPO_PORT=tcp://10.0.0.1:3200.
            if text.starts_with("tcp://") || text.starts_with("udp://") {
                continue;
            }
            let key = suffix.to_lowercase();
            match Setting::find(&key) {
                Some(setting) => self.set(setting, text, name),
                None => warnings
                    .extend(nearest_key(&key).map(|nearest| {
                        format!("{name} is no setting; did you mean SPOOR_{}?", nearest.to_uppercase())
                    })),
            }
        }
        warnings
    }
}

/// The known key that is spelled most like `key`, when one is close.
pub(crate) fn nearest_key(key: &str) -> Option<&'static str> {
    let normal = key.to_lowercase().replace('-', "_");
    let scored = SETTINGS.iter().map(|setting| (strsim::damerau_levenshtein(&normal, setting.key), setting.key));
    let (distance, nearest) = scored.min()?;
    // A third of the letters wrong is a slip; more is another word.
    (distance <= (key.len() / 3).max(2)).then_some(nearest)
}

fn scalar(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// As a flag would have it: lists with commas, maps (where they may stand) as pairs.
fn text_of(value: &Yaml, may_be_map: bool) -> Option<String> {
    match value {
        Yaml::Sequence(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        Yaml::Mapping(items) if may_be_map => {
            let pair = |(key, value): (&Yaml, &Yaml)| Some(format!("{}={}", scalar(key)?, scalar(value)?));
            items.iter().map(pair).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        value => scalar(value),
    }
}

/// The line, counted from 1, on which a top-level key stands.
fn line_of(text: &str, key: &str) -> usize {
    let starts_with_key = |line: &str| {
        let line = line.trim_start_matches(['"', '\'']);
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    text.lines().position(starts_with_key).map_or(1, |index| index + 1)
}
