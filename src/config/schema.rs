//! Every key of the configuration as `config/annotated.toml` documents it, and the same as JSON Schema.
//!
//! The annotated example is what people read and what tests load line by line, so it is the one
//! source: nothing here has to be kept equal to it by hand.

use std::collections::BTreeSet;

use serde_json::{Value, json};

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

/// The keys at and below a path; names that the user chose may stand in it, and the tables above its first
/// key may be missing where it has more than one.
///
/// # Errors
///
/// The nearest path that exists, where there is one.
pub fn keys_below(path: &str) -> Result<Vec<KeyDoc>, Option<String>> {
    let path = header(path.trim_end_matches('.')).join(".");
    let all = keys();
    let found = found_at(&all, &path);
    if !found.is_empty() {
        return Ok(found);
    }
    let below_tables = tables(&all).into_iter().map(|table| format!("{table}.{path}"));
    let elsewhere = below_tables.map(|path| (found_at(&all, &path), path));
    match elsewhere.into_iter().find(|(found, _)| !found.is_empty()) {
        Some((found, _)) if path.contains('.') => Ok(found),
        Some((_, path)) => Err(Some(path)),
        None => {
            // Of two that are equally near, a key comes before the table that it may stand for.
            let mut paths: Vec<_> = tables(&all).into_iter().collect();
            paths.extend(all.iter().map(|key| key.path.as_str()));
            let near = |path: &str| nearest(path, &paths).map(ToOwned::to_owned);
            // The table may be right, and only the key in it misspelt.
            let in_table = || {
                let (above, last) = path.rsplit_once('.')?;
                let sibling = keys_below(above).ok()?.into_iter().next()?.path;
                let table = sibling.rsplit_once('.')?.0;
                near(&format!("{table}.{last}")).or(Some(sibling))
            };
            Err(near(&path).or_else(in_table))
        }
    }
}

/// The keys at and below a path. For a key that is shown in braces it is the line with these braces.
fn found_at(all: &[KeyDoc], path: &str) -> Vec<KeyDoc> {
    let below = |path: &str, above: &str| {
        let rest = path.strip_prefix(above)?;
        if rest.is_empty() { Some(String::new()) } else { Some(rest.strip_prefix('.')?.to_owned()) }
    };
    let found: Vec<_> =
        all.iter().filter(|key| below(&key.path, path).is_some()).cloned().collect();
    if !found.is_empty() {
        return found;
    }
    let of_key = |key: &KeyDoc| {
        let rest = below(path, &key.path).filter(|_| key.value.is_object())?;
        // A table that has the keys of another says so.
        let other = key.about.split_once("Keys as in [").and_then(|(_, rest)| rest.split_once(']'));
        let shown =
            rest == NAME || key.value.pointer(&format!("/{}", rest.replace('.', "/"))).is_some();
        match (shown, other) {
            (true, _) => Some(vec![key.clone()]),
            (false, Some((table, _))) => Some(found_at(all, &format!("{table}.{rest}"))),
            (false, None) => None,
        }
    };
    all.iter().filter_map(of_key).flatten().collect()
}

/// The paths of all tables, those in braces included.
fn tables(all: &[KeyDoc]) -> BTreeSet<&str> {
    let mut tables = BTreeSet::new();
    for key in all {
        tables.extend(key.path.match_indices('.').map(|(end, _)| &key.path[..end]));
        tables.extend(key.value.is_object().then_some(key.path.as_str()));
    }
    tables
}

/// The address of the JSON Schema in the catalog of SchemaStore, which is its name too.
const ID: &str = "https://www.schemastore.org/bearer-proxy.json";

/// Tables of credentials and upstreams that take the keys of the table of the same name, and more.
pub(super) const INHERITED: [&str; 2] = ["tls", "egress"];

/// Keys that take the table of a listener, beside `upstreams.NAME.listen`.
pub(super) const LISTENERS: [&str; 3] = ["server.listen", "admin.listen", "admin.control"];

/// Fields of tables in braces that take more than the example shows, in the words of [`KeyDoc::about`].
const OTHER_FORMS: [(&str, &str); 4] = [
    ("client_ca_file", "Takes a path or a list of them. "),
    ("group", "Takes a name or a number. "),
    ("owner", "Takes a name or a number. "),
    ("pin_sha256", "Takes a pin or a list of them. "),
];

/// JSON Schema (draft 2020-12) of a configuration, for editors.
///
/// It knows every key, its types and the values that can be listed; what only `check` can tell
/// (references between sections, units, paths) it leaves to `check`.
#[must_use]
pub fn schema() -> Value {
    let mut root = object();
    let text = json!({ "type": "string" });
    let mut sources = object();
    for source in ["env", "value"] {
        insert(&mut sources, &[source], text.clone());
    }
    for key in keys() {
        let path: Vec<_> = key.path.split('.').collect();
        match path.as_slice() {
            [above @ .., source] if is_reference(source) => {
                insert(&mut sources, &[source], leaf(&key));
                insert(&mut root, above, reference());
            }
            path => insert(&mut root, path, leaf(&key)),
        }
        if key.about.contains("It is required") {
            require(&mut root, &path);
        }
    }
    share_tables(&mut root);
    let upstream = &mut root["properties"]["upstreams"]["additionalProperties"];
    require(upstream, &["routes"]);
    upstream["properties"]["routes"]["minItems"] = json!(1);
    require(&mut root, &["upstreams"]);
    sources["description"] = json!("where a secret or an id is read");
    sources["minProperties"] = json!(1);
    sources["maxProperties"] = json!(1);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["$id"] = json!(ID);
    root["title"] = json!("Configuration of bearer-proxy");
    root["$defs"]["reference"] = sources;
    root
}

fn object() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

fn reference() -> Value {
    json!({ "$ref": "#/$defs/reference" })
}

/// The place below a table where the schema of a key or of its elements stands.
fn below<'v>(table: &'v mut Value, key: &str) -> &'v mut Value {
    match key {
        NAME => &mut table["additionalProperties"],
        key if LISTS.contains(&key) => {
            let list = &mut table["properties"][key];
            if list.is_null() {
                *list = json!({ "type": "array" });
            }
            &mut list["items"]
        }
        key => &mut table["properties"][key],
    }
}

/// Puts a key's schema where its path leads.
fn insert(node: &mut Value, path: &[&str], what: Value) {
    if let Some((name, rest)) = path.split_first() {
        let below = below(node, name);
        if !below.is_object() {
            *below = if rest.is_empty() { Value::Null } else { object() };
        }
        return insert(below, rest, what);
    }
    if node.is_null() {
        *node = what;
    } else if *node == reference() && what["type"] == "string" {
        // A client id may be written out or referred to.
        *node = json!({ "anyOf": [reference(), what] });
    } else {
        merge(node, what);
    }
}

/// Adds what a further line of the example shows of a key: more fields of its table, or more types.
fn merge(node: &mut Value, what: Value) {
    let (Some(node), Value::Object(what)) = (node.as_object_mut(), what) else { return };
    for (word, value) in what {
        match (word.as_str(), node.get_mut(&word)) {
            ("properties", Some(Value::Object(known))) => {
                if let Value::Object(more) = value {
                    known.extend(more);
                }
            }
            ("type", Some(known)) if value.is_array() => *known = value,
            (_, Some(_)) => {}
            (_, None) => {
                node.insert(word, value);
            }
        }
    }
}

/// Notes that a table must have a key.
fn require(node: &mut Value, path: &[&str]) {
    match path {
        [] => {}
        [key] => match node.get_mut("required").and_then(Value::as_array_mut) {
            Some(required) => required.push(json!(key)),
            None => node["required"] = json!([key]),
        },
        [name, rest @ ..] => require(below(node, name), rest),
    }
}

/// Gives the tables of listeners, `tls` and `egress` the keys that the example shows only once.
fn share_tables(root: &mut Value) {
    let listen = ["upstreams", NAME, "listen"];
    let own = listen.iter().fold(&mut *root, |node, name| below(node, name)).clone();
    let fields = own["properties"].clone();
    root["$defs"]["listener"] = json!({ "type": ["string", "object"], "properties": fields, "additionalProperties": false });
    let more = json!({
        "properties": fields, "additionalProperties": false,
        "items": { "$ref": "#/$defs/listener" },
    });
    let paths = LISTENERS.iter().map(|path| path.split('.').collect());
    for path in paths.chain([listen.to_vec()]) {
        let node = path.iter().fold(&mut *root, |node, name| below(node, name));
        node.as_object_mut().and_then(|node| node.remove("items"));
        merge(node, more.clone());
    }
    for table in INHERITED {
        let all = root["properties"][table]["properties"].clone();
        for section in ["credentials", "upstreams"] {
            let own = below(below(below(root, section), NAME), table);
            merge(own, json!({ "properties": all }));
        }
        // The store of shared tokens is reached directly.
        if table == "tls" {
            merge(below(below(root, "share"), table), json!({ "properties": all }));
        }
    }
}

/// The schema of one value.
fn leaf(key: &KeyDoc) -> Value {
    let table = key.path.rsplit('.').next().unwrap_or_default();
    let mut schema = of_value(&key.value, &key.about, table);
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

fn of_value(value: &Value, about: &str, name: &str) -> Value {
    let takes = about.strip_prefix("Takes ").and_then(|rest| rest.split_once(". "));
    let takes = takes.map_or("", |(takes, _)| takes);
    match value {
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => match listed(takes) {
            Some(listed) => json!({ "enum": listed }),
            None if takes.contains('"') => json!({ "type": ["integer", "string"] }),
            None => json!({ "type": "integer" }),
        },
        Value::String(_) => match listed(takes) {
            Some(listed) => json!({ "enum": listed }),
            None => of_text(takes),
        },
        Value::Array(items) => {
            let items = match takes.strip_prefix("a list of ").and_then(listed) {
                Some(listed) => json!({ "enum": listed }),
                None => of_value(items.first().unwrap_or(&json!("")), "", ""),
            };
            json!({ "type": "array", "items": items })
        }
        Value::Object(fields) if fields.keys().all(|key| is_reference(key)) => reference(),
        // The fields have names that the user chooses.
        Value::Object(_) if NAMED.contains(&name) => json!({ "type": "object" }),
        Value::Object(fields) => {
            let mut schema = object();
            for (name, value) in fields {
                let takes = OTHER_FORMS.iter().find(|(known, _)| known == name);
                let about = takes.map_or("", |(_, takes)| takes);
                schema["properties"][name] = of_value(value, about, name);
            }
            schema
        }
        Value::Null => json!({}),
    }
}

/// The values that a key takes, if they can be listed: `"append", "drop" or "pass"`.
fn listed(takes: &str) -> Option<Vec<Value>> {
    let parts = takes.split(", ").flat_map(|part| part.split(" or "));
    parts.flat_map(|part| part.split(" and ")).map(|part| part.parse().ok()).collect()
}

/// The schema of a key whose value is shown as a string.
fn of_text(takes: &str) -> Value {
    if takes.contains("number") {
        return json!({ "type": ["string", "integer"] });
    }
    match (takes.contains("table"), takes.contains("list")) {
        (true, true) => json!({ "type": ["string", "object", "array"] }),
        (true, false) => json!({ "type": ["string", "object"] }),
        (false, true) => json!({ "type": ["string", "array"], "items": { "type": "string" } }),
        (false, false) => json!({ "type": "string" }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Map;

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
    fn keys_in_braces_and_below_tables_of_tables_are_found() {
        let check = |path: &str, expected: &str| {
            let found = keys_below(path).unwrap_or_else(|near| panic!("{path}: {near:?}"));
            assert_eq!(found[0].path, expected, "{path}");
        };
        check("upstreams.qbank.pool.max_age", "upstreams.NAME.pool");
        check("routes.retry.unsafe", "upstreams.NAME.routes.retry.unsafe");
        check("routes.scopes", "upstreams.NAME.routes.scopes");
        check("credentials.bank.dpop", "credentials.NAME.dpop.algorithm");
        check("credentials.bank.timeouts.wait", "credentials.NAME.timeouts");
        check("upstreams.a.tls.min_version", "tls.min_version");
        check("listen.tls.key_file", "upstreams.NAME.listen");
        check("credentials.bank.request.headers.X-Mine", "credentials.NAME.request.headers");
        let near = |path: &str| keys_below(path).unwrap_err().unwrap();
        assert_eq!(near("crdentials"), "credentials");
        assert_eq!(near("unsafe"), "upstreams.NAME.routes.retry.unsafe");
        assert_eq!(near("routes.retry.unsave"), "upstreams.NAME.routes.retry.unsafe");
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

    /// The faults of a value by a schema. It knows the part of JSON Schema that is used here.
    fn faults(value: &Value, schema: &Value, root: &Value, at: &str) -> Vec<String> {
        if let Some(target) = schema["$ref"].as_str() {
            return faults(value, root.pointer(&target[1..]).unwrap(), root, at);
        }
        if let Some(any) = schema["anyOf"].as_array() {
            let tried = any.iter().map(|schema| faults(value, schema, root, at));
            return tried.min_by_key(Vec::len).unwrap();
        }
        let mut found = Vec::new();
        let mut fault = |bad: bool, what: &str| found.extend(bad.then(|| format!("{at}: {what}")));
        let kind = match value {
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            _ => "string",
        };
        let one = [schema["type"].clone()];
        let kinds = schema["type"].as_array().map_or(&one[..], Vec::as_slice);
        fault(*kinds != [Value::Null] && !kinds.contains(&json!(kind)), "type");
        fault(schema["enum"].as_array().is_some_and(|listed| !listed.contains(value)), "value");
        let size = value.as_object().map(Map::len).or(value.as_array().map(Vec::len));
        let size = size.unwrap_or(1) as u64;
        let least = schema["minProperties"].as_u64().or(schema["minItems"].as_u64());
        fault(least.is_some_and(|least| size < least), "too few");
        fault(schema["maxProperties"].as_u64().is_some_and(|most| size > most), "too many");
        for key in schema["required"].as_array().into_iter().flatten() {
            let lacks = |table: &Map<String, Value>| !table.contains_key(key.as_str().unwrap());
            fault(value.as_object().is_some_and(lacks), &format!("{key} is missing"));
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (None, Some(Value::Bool(false))) => found.push(format!("{at}: unknown")),
                (Some(schema), _) | (None, Some(schema)) => {
                    found.extend(faults(inner, schema, root, &at));
                }
                (None, None) => {}
            }
        }
        for inner in value.as_array().into_iter().flatten() {
            found.extend(faults(inner, &schema["items"], root, at));
        }
        found
    }

    /// Name, value and report (of a bad file) of each TOML file of a folder.
    fn files(folder: &str) -> Vec<(String, Value, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                let report = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
                if let Ok(value) = toml::from_str(&fs::read_to_string(path).unwrap()) {
                    found.push((name, value, report));
                }
            }
        }
        found
    }

    #[test]
    fn every_good_file_fits_the_schema() {
        let root = schema();
        for folder in ["config", "tests/fixtures/config/good", "tests/fixtures/config/warned"] {
            for (name, value, _) in files(folder) {
                assert_eq!(faults(&value, &root, &root, ""), [""; 0], "{folder}/{name}");
            }
        }
    }

    #[test]
    fn a_file_of_a_wrong_shape_does_not_fit_the_schema() {
        // .ci/editors.py reads it too.
        let lists = include_str!("../../tests/fixtures/config/schema.json");
        let lists: Value = serde_json::from_str(lists).unwrap();
        let list = |key: &str| serde_json::from_value::<Vec<String>>(lists[key].clone()).unwrap();
        let (of_shape, open) = (list("of_shape"), list("open"));
        let (root, mut refused) = (schema(), 0);
        for (name, value, report) in files("tests/fixtures/config/bad") {
            let of_shape = of_shape.iter().any(|error| report.contains(error));
            let faults = faults(&value, &root, &root, "");
            assert!(!of_shape || open.contains(&name) || !faults.is_empty(), "{name}\n{report}");
            refused += usize::from(!faults.is_empty());
        }
        assert!(refused >= 60, "{refused}");
    }

    #[test]
    fn tables_share_their_keys() {
        let schema = schema();
        let upstream = &schema["properties"]["upstreams"]["additionalProperties"]["properties"];
        let keys = |table: &Value| table["properties"].as_object().unwrap().len();
        let tls = keys(&schema["properties"]["tls"]);
        assert_eq!(keys(&upstream["tls"]), tls + 1, "and pin_sha256");
        assert_eq!(keys(&upstream["egress"]), keys(&schema["properties"]["egress"]));
        let admin = &schema["properties"]["admin"]["properties"];
        for listen in [&upstream["listen"], &admin["listen"], &admin["control"]] {
            assert_eq!(keys(listen), keys(&schema["$defs"]["listener"]));
            assert_eq!(listen["type"], json!(["string", "object", "array"]));
        }
        assert_eq!(schema["$defs"]["reference"]["properties"]["keyring"]["type"][1], "object");
        assert_eq!(schema["$id"], ID);
    }
}
