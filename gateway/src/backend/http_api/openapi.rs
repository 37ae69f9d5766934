//! The description of the API (OpenAPI 3.1), made from the table of the calls and from the types of their bodies.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::body::{MSGPACK, NDJSON};
use super::operations::{Lines, Method, OPERATIONS, Operation};
use crate::backend::problem::Details;

/// `GET /openapi.json`. It needs no key: it tells nothing of the node.
pub(super) async fn openapi() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/vnd.oai.openapi+json;version=3.1")];
    (kind, document().to_string()).into_response()
}

/// What may go wrong with any call, by status.
const PROBLEMS: [(u16, &str); 10] = [
    (400, "`invalid_request`: the body is no JSON or no MessagePack."),
    (401, "`unauthorized`: the key is missing or wrong."),
    (403, "`forbidden`: the key may not do this."),
    (404, "`not_found`: there is no such namespace, socket or node."),
    (
        409,
        "`idempotency_mismatch`: the key came with another body; `in_progress`: the call is still carried out; \
           `answer_not_kept`: it was carried out, and its answer was too long to be kept; `node_too_old`: the node is \
           of a version that cannot be told to drain.",
    ),
    (413, "`payload_too_large`: the body is longer than the API or the broker takes."),
    (415, "`unsupported_media_type`: the body is neither JSON nor MessagePack."),
    (422, "`invalid_request`: the body is not what the call takes."),
    (
        429,
        "`rate_limited`: the key makes too many calls. `Retry-After` says in how many seconds to come again.",
    ),
    (
        503,
        "`broker_unavailable`: only this node's sockets were reached, or nobody; `keys_unavailable`: the issuer of tokens has not given its keys yet; `overloaded`: too many requests \
           wait for other nodes already.",
    ),
];

/// The whole document.
pub(super) fn document() -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let mut taken = settings().for_deserialize().into_generator();
    let mut given = settings().for_serialize().into_generator();
    let (mut paths, mut queries) = (Map::new(), Vec::new());
    for operation in OPERATIONS {
        let described = describe(operation, &mut taken, &mut given);
        queries.extend(operation.query.and_then(|query| name_of(&query(&mut taken))));
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str()] = described;
    }
    given.subschema_for::<Details>();
    let mut schemas = taken.take_definitions(true);
    // They are parameters.
    queries.iter().for_each(|name| drop(schemas.remove(name)));
    schemas.extend(given.take_definitions(true));
    schemas.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Roomcast",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Emits, rooms, sockets and nodes of a Roomcast cluster. Every node serves it for all.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:3001", "description": "The api listener of a node." }],
        "security": [{ "key": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": problems(),
            "parameters": headers(),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, or a JSON Web Token if `api.jwt` is set. A node on loopback without keys needs none.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate, if `api.tls.client_ca_file` is set. With a key beside it, the key counts.",
                },
            },
        },
    })
}

fn describe(operation: &Operation, taken: &mut SchemaGenerator, given: &mut SchemaGenerator) -> Value {
    let mut described = json!({
        "operationId": operation.name,
        "summary": operation.summary,
        "description": format!("Needs the scope `{}`.", operation.scope.as_str()),
        "parameters": parameters(operation, taken),
    });
    if let Some(body) = operation.body {
        let schema = body(taken);
        described["requestBody"] = json!({
            "required": !operation.optional_body,
            "content": { "application/json": { "schema": schema }, MSGPACK: { "schema": schema } },
        });
    }
    let mut responses = Map::new();
    for answered in operation.answers {
        let mut content = Map::new();
        if !matches!(operation.lines, Lines::Only(_)) {
            let schema = (answered.schema)(given);
            content.insert("application/json".to_owned(), json!({ "schema": schema }));
            content.insert(MSGPACK.to_owned(), json!({ "schema": schema }));
        }
        if let Lines::Too(lines) | Lines::Only(lines) = operation.lines {
            let schema = json!({ "type": "string", "description": lines });
            content.insert(NDJSON.to_owned(), json!({ "schema": schema }));
        }
        let answer = json!({ "description": answered.what, "content": content });
        responses.insert(answered.status.to_string(), answer);
    }
    for (status, _) in PROBLEMS.iter().filter(|(status, _)| can_be(operation, *status)) {
        responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{status}") }));
    }
    described["responses"] = Value::Object(responses);
    described
}

/// A call without a body has fewer ways to go wrong.
fn can_be(operation: &Operation, status: u16) -> bool {
    operation.method == Method::Post || !matches!(status, 400 | 409 | 413 | 415)
}

fn parameters(operation: &Operation, taken: &mut SchemaGenerator) -> Vec<Value> {
    let mut parameters = Vec::new();
    for part in operation.path.split('/') {
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            parameters.push(
                json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
            );
        }
    }
    if let Some(query) = operation.query {
        let schema = query(taken);
        parameters.extend(fields(&schema, taken));
    }
    let headers = if operation.body.is_some() && !operation.optional_body {
        ["idempotency_key", "traceparent"].as_slice()
    } else {
        &["traceparent"]
    };
    parameters
        .extend(headers.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })));
    parameters
}

/// The fields of an object as parameters of a query. The object is no schema of the document's own then.
fn fields(schema: &Schema, taken: &mut SchemaGenerator) -> Vec<Value> {
    let Some(name) = name_of(schema) else { return Vec::new() };
    let Some(object) = taken.definitions().get(&name) else { return Vec::new() };
    let properties = object.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({ "name": name, "in": "query", "description": description.unwrap_or_default(), "schema": schema })
    };
    properties.into_iter().map(parameter).collect()
}

/// The name of a schema that is referred to.
fn name_of(schema: &Schema) -> Option<String> {
    schema.get("$ref")?.as_str()?.rsplit('/').next().map(str::to_owned)
}

fn problems() -> Map<String, Value> {
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    let problem = |(status, what): (u16, &str)| {
        let mut answer = json!({
            "description": what,
            "content": { "application/problem+json": { "schema": schema } },
        });
        if status == 429 {
            answer["headers"] = json!({ "Retry-After": { "schema": { "type": "integer" } } });
        }
        (status.to_string(), answer)
    };
    PROBLEMS.into_iter().map(problem).collect()
}

fn headers() -> Value {
    json!({
        "idempotency_key": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key with the same body within five minutes, on whatever node, is the same call: it is \
                            carried out once, and the first answer is given again with `duplicate: true`.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
        },
        "traceparent": {
            "name": "traceparent",
            "in": "header",
            "description": "The trace that the call belongs to (W3C Trace Context); it stands in the log and in the answer.",
            "schema": { "type": "string" },
        },
    })
}
