//! What differs between two OpenAPI documents, for those who use the API: what breaks a client that
//! kept to the older one, and what only adds to it.
//!
//! A client may count on this: what it may send today is taken tomorrow, and what it gets today it
//! still gets. It may not count on answers having no further fields, nor enumerations no further
//! values; so these only add. Where it isn't clear, a difference breaks.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What differs, each said in a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) breaking: Vec<String>,
    pub(crate) additive: Vec<String>,
}

/// Which way a schema travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// A client sends it.
    Sent,
    /// A client gets it.
    Got,
}

/// Compares two documents.
pub(crate) fn difference(old: &Value, new: &Value) -> Difference {
    let mut compare = Compare { old, new, seen: BTreeSet::new(), found: Difference::default() };
    compare.paths();
    compare.found
}

struct Compare<'a> {
    old: &'a Value,
    new: &'a Value,
    /// Pairs of schemas by name that were compared; some hold themselves.
    seen: BTreeSet<(String, String, Way)>,
    found: Difference,
}

const METHODS: [&str; 7] = ["get", "head", "options", "post", "put", "patch", "delete"];

fn empty() -> &'static Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    &EMPTY
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| empty())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn words(value: &Value) -> BTreeSet<String> {
    list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The kinds of values that a schema takes; none: all.
fn kinds(schema: &Value) -> Option<BTreeSet<String>> {
    match &schema["type"] {
        Value::String(kind) => Some([kind.clone()].into()),
        Value::Array(_) => Some(words(&schema["type"])),
        _ => None,
    }
}

fn resolve<'v>(document: &'v Value, schema: &'v Value) -> (&'v Value, String) {
    let Some(name) = schema["$ref"].as_str() else { return (schema, String::new()) };
    let found = document.pointer(name.trim_start_matches('#'));
    (found.unwrap_or_else(|| panic!("{name} leads nowhere")), name.to_owned())
}

/// By what a variant is known among others.
fn variant(document: &Value, schema: &Value, place: usize) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or_default().to_owned();
    }
    let (schema, _) = resolve(document, schema);
    if let Some(value) = schema["const"].as_str().or(schema["enum"][0].as_str()) {
        return value.to_owned();
    }
    let tag = object(&schema["properties"]).values().find_map(|property| {
        let values = list(&property["enum"]);
        property["const"].as_str().or(values.first()?.as_str().filter(|_| values.len() == 1))
    });
    let kind = schema["type"].as_str().filter(|kind| *kind != "object");
    tag.or(kind).map_or_else(|| format!("number {}", place + 1), str::to_owned)
}

impl<'a> Compare<'a> {
    fn breaks(&mut self, text: String) {
        self.found.breaking.push(text);
    }

    fn adds(&mut self, text: String) {
        self.found.additive.push(text);
    }

    fn paths(&mut self) {
        let (old, new) = (object(&self.old["paths"]), object(&self.new["paths"]));
        for (path, methods) in old {
            for method in METHODS {
                let name = format!("{} {path}", method.to_uppercase());
                match (methods.get(method), new.get(path).and_then(|there| there.get(method))) {
                    (Some(_), None) => self.breaks(format!("{name} was removed")),
                    (None, Some(_)) => self.adds(format!("{name} is new")),
                    (Some(old), Some(new)) => self.operation(&name, old, new),
                    (None, None) => {}
                }
            }
        }
        for (path, methods) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
            for method in METHODS.iter().filter(|method| methods.get(**method).is_some()) {
                self.adds(format!("{} {path} is new", method.to_uppercase()));
            }
        }
        let security = |document: &'a Value| object(&document["components"]["securitySchemes"]);
        for name in security(self.old).keys() {
            if !security(self.new).contains_key(name) {
                self.breaks(format!("the security scheme {name} was removed"));
            }
        }
        for name in security(self.new).keys() {
            if !security(self.old).contains_key(name) {
                self.adds(format!("the security scheme {name} is new"));
            }
        }
    }

    fn operation(&mut self, name: &str, old: &'a Value, new: &'a Value) {
        if old["operationId"] != new["operationId"] {
            let (old, new) = (&old["operationId"], &new["operationId"]);
            self.breaks(format!("{name}: its operation id {old} became {new}"));
        }
        let open = |operation: &Value| operation["security"] == Value::Array(Vec::new());
        match (open(old), open(new)) {
            (true, false) => self.breaks(format!("{name}: it needs a login now")),
            (false, true) => self.adds(format!("{name}: it needs no login any more")),
            _ => {}
        }
        self.parameters(name, list(&old["parameters"]), list(&new["parameters"]));
        self.body(name, &old["requestBody"], &new["requestBody"]);
        let (was, is) = (object(&old["responses"]), object(&new["responses"]));
        for (status, answer) in was {
            match is.get(status) {
                None => self.breaks(format!("{name}: it no longer answers {status}")),
                Some(now) => self.answer(&format!("{name}, answer {status}"), answer, now),
            }
        }
        for status in is.keys().filter(|status| !was.contains_key(*status)) {
            self.adds(format!("{name}: it may answer {status}"));
        }
    }

    fn parameters(&mut self, name: &str, old: &'a [Value], new: &'a [Value]) {
        let same = |a: &Value, b: &Value| a["name"] == b["name"] && a["in"] == b["in"];
        let said = |one: &Value| {
            let of = |member: &str| one[member].as_str().unwrap_or_default().to_owned();
            format!("{name}: the {} parameter {}", of("in"), of("name"))
        };
        for was in old {
            let said = said(was);
            let Some(is) = new.iter().find(|is| same(was, is)) else {
                self.breaks(format!("{said} was removed"));
                continue;
            };
            match (was["required"] == true, is["required"] == true) {
                (false, true) => self.breaks(format!("{said} is required now")),
                (true, false) => self.adds(format!("{said} is no longer required")),
                _ => {}
            }
            self.schema(&said, &was["schema"], &is["schema"], Way::Sent);
        }
        for is in new.iter().filter(|is| !old.iter().any(|was| same(was, is))) {
            match is["required"] == true {
                true => self.breaks(format!("{} is new and required", said(is))),
                false => self.adds(format!("{} is new", said(is))),
            }
        }
    }

    fn body(&mut self, name: &str, old: &'a Value, new: &'a Value) {
        match (old.is_object(), new.is_object()) {
            (false, true) if new["required"] == true => {
                self.breaks(format!("{name}: it takes a body now, and requires it"));
            }
            (false, true) => self.adds(format!("{name}: it takes a body now")),
            (true, false) => self.breaks(format!("{name}: it takes no body any more")),
            (true, true) => {
                if old["required"] != true && new["required"] == true {
                    self.breaks(format!("{name}: its body is required now"));
                }
                let (old, new) = (&old["content"], &new["content"]);
                self.content(&format!("{name}, body"), old, new, Way::Sent);
            }
            (false, false) => {}
        }
    }

    fn answer(&mut self, name: &str, old: &'a Value, new: &'a Value) {
        let (was, is) = (object(&old["headers"]), object(&new["headers"]));
        for (header, value) in was {
            match is.get(header) {
                None => self.breaks(format!("{name}: the header {header} was removed")),
                Some(now) => {
                    let said = format!("{name}, header {header}");
                    self.schema(&said, &value["schema"], &now["schema"], Way::Got);
                }
            }
        }
        for header in is.keys().filter(|header| !was.contains_key(*header)) {
            self.adds(format!("{name}: the header {header} is new"));
        }
        self.content(name, &old["content"], &new["content"], Way::Got);
    }

    fn content(&mut self, name: &str, old: &'a Value, new: &'a Value, way: Way) {
        let (old, new) = (object(old), object(new));
        for (media, was) in old {
            match new.get(media) {
                None => self.breaks(format!("{name}: {media} was removed")),
                Some(is) => self.schema(name, &was["schema"], &is["schema"], way),
            }
        }
        for media in new.keys().filter(|media| !old.contains_key(*media)) {
            self.adds(format!("{name}: {media} is new"));
        }
    }

    fn schema(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        let ((was, old_name), (is, new_name)) = (resolve(self.old, old), resolve(self.new, new));
        if was == is && old_name.is_empty() && new_name.is_empty() && !holds_reference(was) {
            return;
        }
        if !old_name.is_empty() && !new_name.is_empty() {
            // What is said of a schema with a name is said once.
            if !self.seen.insert((old_name.clone(), new_name, way)) {
                return;
            }
        }
        let short = old_name.rsplit('/').next().unwrap_or_default();
        let at = if short.is_empty() { at.to_owned() } else { format!("{at} ({short})") };
        self.kinds(&at, was, is, way);
        self.values(&at, was, is, way);
        self.bounds(&at, was, is, way);
        self.fields(&at, was, is, way);
        match (was.get("items"), is.get("items")) {
            (Some(was), Some(is)) => self.schema(&format!("{at}, each item"), was, is, way),
            (None, Some(_)) if way == Way::Sent => {
                self.breaks(format!("{at}: its items were anything"));
            }
            (Some(_), None) if way == Way::Got => {
                self.breaks(format!("{at}: its items are anything"));
            }
            _ => {}
        }
        for choice in ["oneOf", "anyOf", "allOf"] {
            self.variants(&at, choice, was, is, way);
        }
    }

    fn kinds(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        let (was, is) = (kinds(old), kinds(new));
        let said = |kinds: &Option<BTreeSet<String>>| match kinds {
            None => "anything".to_owned(),
            Some(kinds) => kinds.iter().cloned().collect::<Vec<_>>().join(" or "),
        };
        // Whether all that the second is, the first is.
        let covers = |wide: &Option<BTreeSet<String>>, narrow: &Option<BTreeSet<String>>| {
            match (wide, narrow) {
                (None, _) => true,
                (Some(_), None) => false,
                // An integer is a number.
                (Some(wide), Some(narrow)) => narrow.iter().all(|kind| {
                    wide.contains(kind) || (kind == "integer" && wide.contains("number"))
                }),
            }
        };
        if was == is {
            return;
        }
        let keeps = match way {
            Way::Sent => covers(&is, &was),
            Way::Got => covers(&was, &is),
        };
        let text = format!("{at}: it was {} and is {}", said(&was), said(&is));
        if keeps { self.adds(text) } else { self.breaks(text) }
    }

    fn values(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        let values = |schema: &Value| {
            let one = schema.get("const").map(|value| vec![value.clone()]);
            schema["enum"].as_array().cloned().or(one)
        };
        match (values(old), values(new)) {
            (None, None) => {}
            (Some(was), Some(is)) => {
                for value in was.iter().filter(|value| !is.contains(value)) {
                    self.breaks(format!("{at}: the value {value} was removed"));
                }
                for value in is.iter().filter(|value| !was.contains(value)) {
                    self.adds(format!("{at}: the value {value} is new"));
                }
            }
            (None, Some(_)) if way == Way::Sent => {
                self.breaks(format!("{at}: only some values are taken now"));
            }
            (Some(_), None) if way == Way::Got => {
                self.breaks(format!("{at}: any value may come now"));
            }
            (None, Some(_)) => self.adds(format!("{at}: only some values come now")),
            (Some(_), None) => self.adds(format!("{at}: any value is taken now")),
        }
    }

    fn bounds(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        let lower = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
        let upper = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];
        for (names, sign) in [(lower, 1.0), (upper, -1.0)] {
            for name in names {
                // The higher, the narrower.
                let bound = |schema: &Value| schema[name].as_f64().map(|bound| bound * sign);
                let (was, is) = (bound(old), bound(new));
                if was == is {
                    continue;
                }
                let narrower = match (was, is) {
                    (Some(was), Some(is)) => is > was,
                    (was, _) => was.is_none(),
                };
                let text = format!("{at}: {name} was {} and is {}", old[name], new[name]);
                match narrower == (way == Way::Sent) {
                    true => self.breaks(text),
                    false => self.adds(text),
                }
            }
        }
        for name in ["pattern", "format", "multipleOf"] {
            let (was, is) = (&old[name], &new[name]);
            if was == is {
                continue;
            }
            let keeps = match way {
                Way::Sent => is.is_null(),
                Way::Got => was.is_null(),
            };
            let text = format!("{at}: {name} was {was} and is {is}");
            if keeps { self.adds(text) } else { self.breaks(text) }
        }
    }

    fn fields(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        let (was, is) = (object(&old["properties"]), object(&new["properties"]));
        let (needed, needs) = (words(&old["required"]), words(&new["required"]));
        for (field, value) in was {
            let Some(now) = is.get(field) else {
                self.breaks(format!("{at}: the field {field} was removed"));
                continue;
            };
            match (way, needed.contains(field), needs.contains(field)) {
                (Way::Sent, false, true) => {
                    self.breaks(format!("{at}: the field {field} is required now"));
                }
                (Way::Sent, true, false) => {
                    self.adds(format!("{at}: the field {field} is no longer required"));
                }
                (Way::Got, true, false) => {
                    self.breaks(format!("{at}: the field {field} may be missing now"));
                }
                (Way::Got, false, true) => {
                    self.adds(format!("{at}: the field {field} is always there now"));
                }
                _ => {}
            }
            self.schema(&format!("{at}, field {field}"), value, now, way);
        }
        for field in is.keys().filter(|field| !was.contains_key(*field)) {
            match way == Way::Sent && needs.contains(field) {
                true => self.breaks(format!("{at}: the field {field} is new and required")),
                false => self.adds(format!("{at}: the field {field} is new")),
            }
        }
        // Nothing said is as good as anything.
        let more = |schema: &'a Value| schema.get("additionalProperties");
        match (more(old), more(new)) {
            (Some(was @ Value::Object(_)), Some(is @ Value::Object(_))) => {
                self.schema(&format!("{at}, each field"), was, is, way);
            }
            (was, is) if was == is => {}
            (_, Some(Value::Bool(false) | Value::Object(_))) if way == Way::Sent => {
                self.breaks(format!("{at}: other fields are not taken as they were"));
            }
            (Some(Value::Bool(false) | Value::Object(_)), _) if way == Way::Got => {
                self.adds(format!("{at}: other fields may come"));
            }
            _ => self.adds(format!("{at}: what is said of other fields")),
        }
    }

    fn variants(&mut self, at: &str, choice: &str, old: &'a Value, new: &'a Value, way: Way) {
        let (was, is) = (list(&old[choice]), list(&new[choice]));
        if was.is_empty() && is.is_empty() {
            return;
        }
        if was.is_empty() || is.is_empty() || (choice == "allOf" && was.len() != is.len()) {
            self.breaks(format!("{at}: it is put together otherwise ({choice})"));
            return;
        }
        let named = |document: &Value, all: &'a [Value]| -> Vec<(String, &'a Value)> {
            let all = all.iter().enumerate();
            all.map(|(place, schema)| (variant(document, schema, place), schema)).collect()
        };
        let (was, is) = (named(self.old, was), named(self.new, is));
        for (name, schema) in &was {
            match is.iter().find(|(other, _)| other == name) {
                Some((_, now)) => self.schema(&format!("{at}, as {name}"), schema, now, way),
                None => self.breaks(format!("{at}: it is never {name} any more")),
            }
        }
        for (name, _) in is.iter().filter(|(name, _)| !was.iter().any(|(other, _)| other == name)) {
            let text = format!("{at}: it may be {name} now");
            // Null in an answer is no further variant, but a value that was never missing.
            match way == Way::Got && name == "null" {
                true => self.breaks(text),
                false => self.adds(text),
            }
        }
    }
}

/// Whether equal text may mean something else in the other document.
fn holds_reference(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            members.contains_key("$ref") || members.values().any(holds_reference)
        }
        Value::Array(items) => items.iter().any(holds_reference),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "paths": {
                "/a": {"get": {
                    "operationId": "a.show",
                    "parameters": [
                        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 9}},
                        {"name": "word", "in": "query", "required": true, "schema": {"type": "string"}},
                    ],
                    "responses": {
                        "200": {"headers": {"ETag": {"schema": {"type": "string"}}}, "content":
                            {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}},
                        "404": {"description": "no"},
                    },
                }},
                "/b": {"post": {
                    "operationId": "b.make",
                    "security": [],
                    "requestBody": {"content": {"application/json":
                        {"schema": {"$ref": "#/components/schemas/B"}}}},
                    "responses": {"201": {"description": "made"}},
                }},
            },
            "components": {"schemas": {
                "A": {"type": "object", "required": ["id", "kind"], "properties": {
                    "id": {"type": "integer"},
                    "kind": {"type": "string", "enum": ["x", "y"]},
                    "next": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/A"}]},
                    "note": {"type": ["string", "null"]},
                }},
                "B": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"},
                    "size": {"type": "integer", "minimum": 0},
                    "kind": {"type": "string", "enum": ["x", "y"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                }, "additionalProperties": false},
            }},
        })
    }

    /// What one change comes to.
    fn after(pointer: &str, value: Value) -> Difference {
        let (old, mut new) = (document(), document());
        let (place, member) = pointer.rsplit_once('/').unwrap();
        let place = new.pointer_mut(place).unwrap();
        match (place, value) {
            (Value::Object(members), Value::Null) => {
                members.remove(&member.replace("~1", "/")).unwrap();
            }
            (Value::Object(members), value) => {
                members.insert(member.replace("~1", "/"), value);
            }
            (Value::Array(items), Value::Null) => {
                items.remove(member.parse::<usize>().unwrap());
            }
            (Value::Array(items), value) => items.push(value),
            other => panic!("{other:?}"),
        }
        difference(&old, &new)
    }

    const A: &str = "/components/schemas/A";
    const B: &str = "/components/schemas/B";
    const SHOW: &str = "/paths/~1a/get";
    const MAKE: &str = "/paths/~1b/post";

    #[test]
    fn what_breaks_clients_is_told_by_name() {
        for (pointer, value, told) in [
            ("/paths/~1a".to_owned(), json!(null), "GET /a was removed"),
            (format!("{SHOW}/operationId"), json!("a.get"), "operation id"),
            (format!("{SHOW}/parameters/0"), json!(null), "query parameter limit was removed"),
            (format!("{SHOW}/parameters/0/required"), json!(true), "limit is required now"),
            (format!("{SHOW}/parameters/0/schema/maximum"), json!(5), "maximum was 9 and is 5"),
            (format!("{SHOW}/parameters/1/schema/pattern"), json!("a"), "pattern was null"),
            (
                format!("{SHOW}/parameters/2"),
                json!({"name": "x", "in": "query", "required": true}),
                "x is new and required",
            ),
            (format!("{SHOW}/responses/404"), json!(null), "no longer answers 404"),
            (format!("{SHOW}/responses/200/headers/ETag"), json!(null), "header ETag was removed"),
            (format!("{MAKE}/security"), json!(null), "needs a login now"),
            (format!("{MAKE}/requestBody/required"), json!(true), "body is required now"),
            (format!("{MAKE}/requestBody"), json!(null), "takes no body"),
            (format!("{A}/properties/id"), json!(null), "field id was removed"),
            (format!("{A}/properties/id/type"), json!("string"), "was integer and is string"),
            (format!("{A}/properties/note/type"), json!("integer"), "was null or string"),
            (format!("{A}/properties/id/type"), json!(["integer", "null"]), "is integer or null"),
            (format!("{A}/properties/kind/enum/1"), json!(null), "value \"y\" was removed"),
            (format!("{A}/properties/kind/enum"), json!(null), "any value may come now"),
            (format!("{A}/required"), json!(["kind"]), "field id may be missing now"),
            (format!("{A}/properties/next/oneOf/1"), json!(null), "never A any more"),
            (format!("{B}/required/1"), json!("size"), "field size is required now"),
            (format!("{B}/properties/tags"), json!(null), "field tags was removed"),
            (format!("{B}/properties/kind/enum/0"), json!(null), "value \"x\" was removed"),
            (format!("{B}/properties/name/enum"), json!(["z"]), "only some values are taken"),
            (format!("{B}/properties/size/minimum"), json!(1), "minimum was 0 and is 1"),
            (format!("{B}/properties/name/maxLength"), json!(9), "maxLength was null and is 9"),
            (format!("{B}/properties/tags/items/type"), json!("integer"), "each item"),
        ] {
            let found = after(&pointer, value);
            let lines = found.breaking.iter().filter(|line| line.contains(told)).count();
            assert_eq!((lines, found.breaking.len()), (1, 1), "{pointer}: {found:?}");
        }
        let new = json!({"type": "object", "required": ["name", "new"], "properties":
            {"name": {"type": "string"}, "new": {"type": "string"}}});
        let found = after(B, new);
        assert!(found.breaking.iter().any(|line| line.contains("field new is new and required")));
    }

    #[test]
    fn what_only_adds_breaks_nothing() {
        for (pointer, value, told) in [
            ("/paths/~1c".to_owned(), json!({"get": {}}), "GET /c is new"),
            (format!("{SHOW}/parameters/2"), json!({"name": "x", "in": "query"}), "x is new"),
            (format!("{SHOW}/parameters/1/required"), json!(false), "no longer required"),
            (format!("{SHOW}/parameters/0/schema/maximum"), json!(10), "maximum"),
            (format!("{SHOW}/responses/409"), json!({}), "may answer 409"),
            (format!("{SHOW}/responses/200/headers/X"), json!({}), "header X is new"),
            (format!("{A}/properties/new"), json!({"type": "string"}), "field new is new"),
            (format!("{A}/properties/kind/enum/2"), json!("z"), "value \"z\" is new"),
            (format!("{A}/properties/note/type"), json!("string"), "is string"),
            (format!("{A}/required"), json!(["id", "kind", "note"]), "always there now"),
            (format!("{B}/properties/new"), json!({"type": "string"}), "field new is new"),
            (format!("{B}/properties/kind/enum/2"), json!("z"), "value \"z\" is new"),
            (format!("{B}/properties/size/type"), json!("number"), "is number"),
            (format!("{B}/properties/size/minimum"), json!(null), "minimum"),
            (format!("{B}/required"), json!([]), "no longer required"),
            (format!("{B}/additionalProperties"), json!(null), "other fields"),
        ] {
            let found = after(&pointer, value);
            assert!(found.breaking.is_empty(), "{pointer}: {found:?}");
            let lines = found.additive.iter().filter(|line| line.contains(told)).count();
            assert_eq!((lines, found.additive.len()), (1, 1), "{pointer}: {found:?}");
        }
    }

    #[test]
    fn words_alone_are_no_difference() {
        for pointer in [format!("{SHOW}/description"), format!("{A}/description")] {
            assert_eq!(after(&pointer, json!("other words")), Difference::default());
        }
        assert_eq!(difference(&document(), &document()), Difference::default());
    }
}
