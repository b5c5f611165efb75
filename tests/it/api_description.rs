//! What the API says of itself: the description against the router and the real answers, and the page to read it.

use std::num::NonZeroUsize;

use serde_json::{Value, json};

use crate::api::{AUTHORIZATION, gateway, message, post, ready, request, with_key};
use crate::harness::browser::Browser;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::http::{Answer, exchange, get};
use crate::harness::redis::RedisServer;

/// Whether `value` is what `schema` of the description `root` says; as much of JSON Schema as the description uses.
fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.strip_prefix('#').unwrap());
        fits(root, target.ok_or_else(|| format!("{reference} is missing"))?, value)?;
    }
    for each in schema["allOf"].as_array().into_iter().flatten() {
        fits(root, each, value)?;
    }
    for (list, wanted) in [("oneOf", 1..=1), ("anyOf", 1..=usize::MAX)] {
        if let Some(choices) = schema[list].as_array() {
            let fitting = choices.iter().filter(|each| fits(root, each, value).is_ok()).count();
            if !wanted.contains(&fitting) {
                return Err(format!("{value} fits {fitting} {list} of {schema}"));
            }
        }
    }
    if !(is_of_type(schema, value) && is_in_bounds(schema, value)) {
        return Err(format!("{value} is not {schema}"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(root, schema.get("items").unwrap_or(&json!({})), item)?;
    }
    let Some(members) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(name.as_str().unwrap()) {
            return Err(format!("{value} lacks {name}"));
        }
    }
    for (name, member) in members {
        fits(root, schema["properties"].get(name).unwrap_or(&json!({})), member)?;
    }
    Ok(())
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    };
    match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
        kind => is(kind.as_str().unwrap()),
    }
}

fn is_in_bounds(schema: &Value, value: &Value) -> bool {
    let is_listed = schema.get("const").is_none_or(|only| only == value)
        && schema["enum"].as_array().is_none_or(|all| all.contains(value));
    let length = match value {
        Value::String(text) => Some(("minLength", text.len(), "maxLength")),
        Value::Array(items) => Some(("minItems", items.len(), "maxItems")),
        _ => None,
    };
    let is_long_enough = length.is_none_or(|(least, length, most)| {
        let length = u64::try_from(length).unwrap();
        schema[least].as_u64().is_none_or(|least| least <= length)
            && schema[most].as_u64().is_none_or(|most| length <= most)
    });
    let is_time = schema["format"] != "date-time"
        || value.as_str().is_some_and(|text| humantime::parse_rfc3339(text).is_ok());
    is_listed && is_long_enough && is_time
}

/// The description's entry for an answer, or what is missing in it.
fn described<'a>(root: &'a Value, operation: &'a Value, answer: &Answer) -> &'a Value {
    let entry = &operation["responses"][answer.status.to_string()];
    let entry = match entry["$ref"].as_str() {
        Some(reference) => root.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => entry,
    };
    assert!(entry.is_object(), "{} is not described: {}", answer.status, answer.text());
    for name in entry["headers"].as_object().unwrap().keys() {
        assert!(answer.header(name).is_some(), "{name} is missing: {}", answer.head);
    }
    let schema = &entry["content"]["application/json"]["schema"];
    fits(root, schema, &answer.json()).unwrap();
    entry
}

#[tokio::test]
async fn the_description_says_what_is_answered() {
    let mut redis = RedisServer::start().await;
    let gateway = Gateway::start(|settings| {
        with_key(settings);
        settings.bus.redis.host = Some("127.0.0.1".into());
        settings.bus.redis.port = redis.port();
        settings.api.max_body_bytes = NonZeroUsize::new(150_000).unwrap();
        settings.api.body_timeout = std::time::Duration::from_millis(1_500);
    })
    .await;
    ready(&gateway).await;
    let root = get(gateway.api(), "/api/openapi.json", "").await.json();
    let publish = &root["paths"]["/messages"]["post"];
    let body = &publish["requestBody"]["content"]["application/json"];
    for example in body["examples"].as_object().unwrap().values() {
        fits(&root, &body["schema"], &example["value"]).unwrap();
        let answer = post(gateway.api(), &example["value"]).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        described(&root, publish, &answer);
    }
    let too_many: Vec<_> = (0..1_001).map(|_| 1).collect();
    let mixed =
        json!({"messages": [message("c1", "x"), 7, {"from": "shop", "to": "bob", "id": "c2"}]});
    for body in
        [json!(7), message("c1", ""), json!([]), mixed, json!(too_many), json!("x".repeat(200_000))]
    {
        described(&root, publish, &post(gateway.api(), &body).await);
    }
    let unread =
        request("/api/messages", AUTHORIZATION, "{}").replace("application/json", "text/xml");
    let cut = request("/api/messages", AUTHORIZATION, "{}")
        .replace("Content-Length: 2", "Content-Length: 3");
    for request in [unread, cut, request("/api/messages", "", "{}")] {
        described(&root, publish, &exchange(gateway.api(), &request).await);
    }
    let presence = &root["paths"]["/presence"]["get"];
    for (query, headers) in [("", AUTHORIZATION), ("?user=bob", ""), ("?user=%7B", AUTHORIZATION)] {
        let answer = get(gateway.api(), &format!("/api/presence{query}"), headers).await;
        described(&root, presence, &answer);
    }
    redis.kill();
    eventually("the loss", async || get(gateway.api(), "/ready", "").await.status == 503).await;
    for body in [message("c1", "x"), json!([message("c1", "x"), message("c2", "y")])] {
        let entry = described(&root, publish, &post(gateway.api(), &body).await);
        assert!(entry["description"].as_str().unwrap().contains("bus_unavailable"));
    }
    let answer = get(gateway.api(), "/api/presence?user=bob", AUTHORIZATION).await;
    described(&root, presence, &answer);
}

#[tokio::test]
async fn the_description_and_the_router_name_the_same_paths_and_methods() {
    let gateway = gateway().await;
    let root = get(gateway.api(), "/api/openapi.json", "").await.json();
    let paths = root["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 4);
    for (path, operations) in paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let request = format!(
                "{method} /api{path} HTTP/1.1\r\nHost: a\r\n{AUTHORIZATION}Content-Length: 0\r\n\r\n"
            );
            let answer = exchange(gateway.api(), &request).await;
            let is_described = operations.get(method.to_lowercase()).is_some();
            assert_eq!(answer.status != 405, is_described, "{method} {path}: {}", answer.status);
            assert_ne!(answer.status, 404, "{method} {path}");
        }
    }
    // Every example of an error is in the form of the real ones.
    let mut examples = 0;
    let mut nodes = vec![&root];
    while let Some(node) = nodes.pop() {
        if let (Some(shown), Some(schema)) = (node["examples"].as_object(), node.get("schema")) {
            for example in shown.values() {
                fits(&root, schema, &example["value"]).unwrap();
                examples += 1;
            }
        }
        nodes.extend(node.as_object().into_iter().flat_map(|members| members.values()));
        nodes.extend(node.as_array().into_iter().flatten());
    }
    assert!(examples >= 15, "{examples}");
}

#[tokio::test]
async fn the_page_shows_all_of_the_description_and_asks_nobody_else() {
    let gateway = gateway().await;
    let browser = Browser::start().await;
    let page = browser.open(&format!("http://{}/api/docs", gateway.api())).await;
    page.wait_for_text("h1", "Meridian API").await;
    let root = get(gateway.api(), "/api/openapi.json", "").await.json();
    let shown = page.texts("main").await.concat();
    for path in root["paths"].as_object().unwrap().keys() {
        assert!(shown.contains(&format!("/api{path}")), "{path} is missing in\n{shown}");
    }
    for schema in root["components"]["schemas"].as_object().unwrap().keys() {
        assert!(
            page.value(&format!("document.getElementById('schema-{schema}') !== null")).await
                == true
        );
    }
    for status in ["202", "400", "401", "408", "413", "415", "429", "503"] {
        assert!(shown.contains(status), "{status} is missing");
    }
    let command = format!("curl 'http://{}/api/messages'", gateway.api());
    assert!(shown.contains(&command), "{command} is missing in\n{shown}");
    // As a phone shows it, nothing sticks out.
    page.be_phone(390).await;
    assert_eq!(page.value("document.documentElement.scrollWidth <= innerWidth").await, true);
    let asked = browser.requests().await;
    let own = format!("http://{}/", gateway.api());
    assert!(asked.iter().all(|url| url.starts_with(&own) || url.starts_with("data:")), "{asked:?}");
    browser.close().await;
}
