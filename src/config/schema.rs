//! Every key of the configuration as `config/annotated.toml` documents it, and the same as JSON Schema.
//!
//! The annotated example is what people read and what tests load line by line, so it is the one
//! source: nothing here has to be kept equal to it by hand.

use serde_json::{Map, Value, json};

use super::references::is_reference;
use crate::diagnostics::{NAME, nearest};

/// The annotated example.
const ANNOTATED: &str = include_str!("../../config/annotated.toml");

/// Tables whose keys are names that the user chooses.
pub(super) const NAMED: [&str; 7] =
    ["claims", "clients", "credentials", "extra", "headers", "set_headers", "upstreams"];

/// Tables of which there may be several.
const LISTS: [&str; 1] = ["routes"];

/// The meaning of the value that the example shows for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Written out: the value is an example, because there is no default.
    Written,
    /// Commented out: the default.
    Default,
    /// Commented out: an example, because there is no default.
    Example,
}

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyDoc {
    /// The dotted path of the key, such as `upstreams.NAME.routes.path`.
    pub path: String,
    /// Its line of the example, without comment.
    pub setting: String,
    /// The meaning of the value.
    pub kind: ValueKind,
    /// The explanation, in sentences.
    pub about: String,
    pub(super) value: Value,
}

/// All keys, in the order of the example.
#[must_use]
pub fn keys() -> Vec<KeyDoc> {
    let (mut keys, mut table) = (Vec::<KeyDoc>::new(), Vec::new());
    // What stands above the first key speaks of the file.
    for line in ANNOTATED.lines().skip_while(|line| line.starts_with('#')) {
        let text = line.strip_prefix("# ").or_else(|| line.strip_prefix('#')).unwrap_or(line);
        if text.starts_with('[') {
            table = header(text);
        } else if let Some(more) = text.trim_start().strip_prefix('#') {
            if let Some(last) = keys.last_mut() {
                last.about = format!("{} {}", last.about, more.trim());
            }
        } else {
            keys.extend(key(&table, text, line.starts_with('#')));
        }
    }
    keys
}

/// The path of a table, from a line such as `[credentials.bank.request]`.
fn header(line: &str) -> Vec<String> {
    let name = line.trim_start_matches('[').split(']').next().unwrap_or_default();
    let mut path: Vec<String> = Vec::new();
    for part in name.split('.') {
        let named = path.last().is_some_and(|above| NAMED.contains(&above.as_str()));
        path.push(if named { NAME.to_owned() } else { part.to_owned() });
    }
    path
}

/// A key from its line; `None` where the line holds none.
fn key(table: &[String], line: &str, commented: bool) -> Option<KeyDoc> {
    let (setting, comment) = split_comment(line);
    let mut value: Value = toml::from_str(setting).ok().filter(|_| !setting.is_empty())?;
    let mut path = table.to_vec();
    while let Some((name, inner)) = only_entry(&value) {
        let named = path.last().is_some_and(|above| NAMED.contains(&above.as_str()));
        path.push(if named { NAME.to_owned() } else { name });
        // What is written with a dot has its own line for each key; what stands in braces does not.
        let dotted = setting.split('=').next().is_some_and(|key| key.contains('.'));
        value = inner;
        if !dotted || path.len() - table.len() > 1 {
            break;
        }
    }
    let (kind, about) = match comment.strip_prefix("example") {
        Some(about) => (ValueKind::Example, about.trim_start_matches([':', ' '])),
        None if commented => (ValueKind::Default, comment),
        None => (ValueKind::Written, comment),
    };
    let (path, setting, about) = (path.join("."), setting.to_owned(), about.to_owned());
    Some(KeyDoc { path, setting, kind, about, value })
}

fn only_entry(value: &Value) -> Option<(String, Value)> {
    let (name, inner) = value.as_object()?.iter().next()?;
    Some((name.clone(), inner.clone()))
}

/// A setting and its comment, at the first `#` outside quotes.
fn split_comment(line: &str) -> (&str, &str) {
    let mut quoted = false;
    let at = line.find(|letter| {
        quoted ^= letter == '"';
        letter == '#' && !quoted
    });
    let (setting, comment) = line.split_at(at.unwrap_or(line.len()));
    (setting.trim(), comment.trim_start_matches('#').trim())
}

/// The keys at and below a path; names that the user chose may stand in it.
///
/// # Errors
///
/// The nearest path that exists, where there is one.
pub fn keys_below(path: &str) -> Result<Vec<KeyDoc>, Option<String>> {
    let path = header(path.trim_end_matches('.')).join(".");
    let all = keys();
    let inside = |key: &KeyDoc| {
        let rest = key.path.strip_prefix(&path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found: Vec<_> = all.iter().filter(|key| inside(key)).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let paths: Vec<_> = all.iter().map(|key| key.path.as_str()).collect();
    let last = |known: &str| known.rsplit('.').next().unwrap_or_default() == path;
    let same_name = paths.iter().copied().find(|known| last(known));
    Err(same_name.or_else(|| nearest(&path, &paths)).map(ToOwned::to_owned))
}

/// JSON Schema (draft 2020-12) of a configuration, for editors.
///
/// It knows every key and the values that can be listed; what only `check` can tell (references
/// between sections, units, paths) it leaves to `check`.
#[must_use]
pub fn schema() -> Value {
    let mut root = object();
    let text = json!({ "type": "string" });
    let mut sources =
        Map::from_iter(["env", "value"].map(|source| (source.to_owned(), text.clone())));
    for key in keys() {
        let path: Vec<_> = key.path.split('.').collect();
        match path.as_slice() {
            [above @ .., source] if is_reference(source) => {
                sources.insert((*source).to_owned(), leaf(&key));
                insert(&mut root, above, reference());
            }
            path => insert(&mut root, path, leaf(&key)),
        }
    }
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("Configuration of bearer-proxy");
    root["required"] = json!(["version"]);
    root["$defs"] = json!({ "reference": {
        "description": "where a secret or an id is read",
        "type": "object", "properties": sources, "additionalProperties": false,
        "minProperties": 1, "maxProperties": 1,
    } });
    root
}

fn object() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

fn reference() -> Value {
    json!({ "$ref": "#/$defs/reference" })
}

/// Puts a key's schema where its path leads.
fn insert(node: &mut Value, path: &[&str], what: Value) {
    let Some((name, rest)) = path.split_first() else {
        if node.is_null() {
            *node = what;
        } else if *node == reference() && what["type"] == "string" {
            // A client id may be written out or referred to.
            *node = json!({ "anyOf": [reference(), what] });
        }
        return;
    };
    let below = match *name {
        NAME => &mut node["additionalProperties"],
        name => &mut node["properties"][name],
    };
    let below = match LISTS.contains(name) {
        true if below.is_null() => {
            *below = json!({ "type": "array", "items": object() });
            &mut below["items"]
        }
        true => &mut below["items"],
        false => below,
    };
    if !rest.is_empty() && (below.is_null() || *below == json!(false)) {
        *below = object();
    } else if rest.is_empty() && *below == json!(false) {
        *below = Value::Null;
    }
    insert(below, rest, what);
}

/// The schema of one value.
fn leaf(key: &KeyDoc) -> Value {
    let mut schema = of_value(&key.value, &key.about);
    if !key.about.is_empty() && schema.get("$ref").is_none() {
        schema["description"] = json!(key.about);
    }
    match key.kind {
        ValueKind::Default => schema["default"] = key.value.clone(),
        ValueKind::Example => schema["examples"] = json!([key.value]),
        ValueKind::Written => {}
    }
    schema
}

fn of_value(value: &Value, about: &str) -> Value {
    let takes = about.strip_prefix("Takes ").and_then(|rest| rest.split_once(". "));
    let takes = takes.map_or("", |(takes, _)| takes);
    match value {
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) if takes.contains('"') => json!({ "type": ["integer", "string"] }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::String(_) => match words(takes) {
            Some(words) => json!({ "enum": words }),
            None => json!({ "type": types_beside_string(takes) }),
        },
        Value::Array(_) => json!({ "type": "array" }),
        Value::Object(fields) if fields.keys().all(|key| is_reference(key)) => reference(),
        // Braces in the example show the usual fields; others may be shown elsewhere.
        _ => json!({ "type": "object" }),
    }
}

/// The words that a key takes, if it takes nothing else: `"append", "drop" or "pass"`.
fn words(takes: &str) -> Option<Vec<&str>> {
    let parts: Vec<_> = takes.split(", ").flat_map(|part| part.split(" or ")).collect();
    parts.into_iter().map(|part| part.strip_prefix('"')?.strip_suffix('"')).collect()
}

/// The types that a key takes whose value is shown as a string.
fn types_beside_string(takes: &str) -> Value {
    match (takes.contains("table"), takes.contains("list")) {
        (true, true) => json!(["string", "object", "array"]),
        (false, true) => json!(["string", "array"]),
        (true, false) => json!(["string", "object"]),
        (false, false) => json!("string"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn one(path: &str) -> KeyDoc {
        keys().into_iter().find(|key| key.path == path).unwrap_or_else(|| panic!("{path}"))
    }

    #[test]
    fn keys_are_told_with_what_they_stand_for() {
        let listen = one("server.listen");
        assert_eq!(listen.setting, r#"listen = "localhost:6750""#);
        assert_eq!(listen.kind, ValueKind::Default);
        assert_eq!(one("credentials.NAME.client_secret.exec").kind, ValueKind::Example);
        assert!(
            one("upstreams.NAME.routes.path").about.starts_with("The path below the mount. {x}")
        );
        let auth = one("credentials.NAME.client_auth").about;
        assert!(keys().iter().all(|key| !key.path.is_empty() && !key.setting.is_empty()));
        assert!(auth.contains("\"client_secret_jwt\"") && auth.contains("\"none\""), "{auth}");
    }

    #[test]
    fn every_key_is_explained_in_sentences() {
        for key in keys() {
            let (about, path) = (&key.about, &key.path);
            assert!(about.starts_with(char::is_uppercase), "{path}: {about:?}");
            assert!(about.ends_with('.') && about.len() > 20, "{path}: {about:?}");
        }
    }

    #[test]
    fn a_path_may_hold_the_users_names() {
        let keys = keys_below("upstreams.qbank.routes").unwrap();
        assert!(keys.iter().any(|key| key.path == "upstreams.NAME.routes.scopes"));
        assert_eq!(keys_below("server.workers").unwrap().len(), 1);
        assert_eq!(keys_below("server.worker").unwrap_err().unwrap(), "server.workers");
        assert_eq!(keys_below("workers").unwrap_err().unwrap(), "server.workers");
        assert_eq!(keys_below("###").unwrap_err(), None);
    }

    #[test]
    fn the_schema_lists_what_can_be_listed() {
        let schema = schema();
        let server = &schema["properties"]["server"]["properties"];
        assert_eq!(server["max_headers"]["default"], 100);
        assert_eq!(server["workers"]["type"], json!(["integer", "string"]));
        let credential = &schema["properties"]["credentials"]["additionalProperties"];
        assert_eq!(credential["additionalProperties"], json!(false));
        assert_eq!(credential["properties"]["client_secret"], reference());
        let id = &credential["properties"]["client_id"]["anyOf"];
        assert_eq!((&id[0], &id[1]["type"]), (&reference(), &json!("string")));
        let dialects = &credential["properties"]["request"]["properties"]["encoding"]["enum"];
        assert_eq!(*dialects, json!(["form", "json"]));
        let upstream = &schema["properties"]["upstreams"]["additionalProperties"]["properties"];
        let header = &upstream["set_headers"]["additionalProperties"];
        assert_eq!(header["$ref"], reference()["$ref"]);
        assert_eq!(upstream["routes"]["items"]["properties"]["scopes"]["type"], "array");
    }

    /// Asserts that a value fits a schema. It knows the part of JSON Schema that is used here.
    fn fits(value: &Value, schema: &Value, root: &Value, at: &str) {
        if schema.get("$ref").is_some() {
            return fits(value, &root["$defs"]["reference"], root, at);
        }
        let kind = match value {
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            _ => "string",
        };
        let kinds = schema
            .get("type")
            .map(|kinds| kinds.as_array().cloned().unwrap_or(vec![kinds.clone()]));
        assert!(kinds.is_none_or(|kinds| kinds.contains(&json!(kind))), "{at}: {kind}, {schema}");
        let listed = schema.get("enum").and_then(Value::as_array);
        assert!(listed.is_none_or(|listed| listed.contains(value)), "{at}: {value}, {schema}");
        for (name, inner) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(schema), _) => fits(inner, schema, root, &at),
                (None, Some(Value::Bool(false))) => panic!("{at} is not in the schema"),
                (None, Some(schema)) => fits(inner, schema, root, &at),
                (None, None) => {}
            }
        }
        for inner in value.as_array().into_iter().flatten() {
            let any = json!({});
            fits(inner, schema.get("items").unwrap_or(&any), root, at);
        }
    }

    #[test]
    fn every_good_file_fits_the_schema() {
        let root = schema();
        for folder in ["config", "tests/fixtures/config/good"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    let text = fs::read_to_string(&path).unwrap();
                    fits(&toml::from_str(&text).unwrap(), &root, &root, &path.to_string_lossy());
                }
            }
        }
    }
}
