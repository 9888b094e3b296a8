//! The OpenAPI document, collected from the handlers' annotations, and the pages that show it.

use axum::Json;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

/// The whole API.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Brevity",
        description = "An OpenAI-compatible API in which `reasoning_effort` picks the tier that was trained for it."
    ),
    paths(
        super::chat::create,
        super::completions::create,
        super::responses::create,
        super::models::list,
        super::models::show,
        super::tiers::list,
        super::health::health,
        super::health::ready,
        super::metrics::show,
        document,
    ),
    components(schemas(super::types::ChatChunk, super::types::message::MessageContent, super::types::chat_request::StopField, super::types::responses::input::InputItem)),
    tags(
        (name = "chat", description = "Conversations"),
        (name = "responses", description = "The Responses API, as far as it goes without a store"),
        (name = "models", description = "The family and its tiers"),
        (name = "server", description = "State of the server"),
    ),
    modifiers(&Keys),
    security((), ("api_key" = [])),
)]
pub struct Document;

/// Keys travel as OpenAI's do; a server without keys needs none.
#[derive(Debug)]
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("api_key", scheme);
    }
}

/// The document as it stands in `openapi/openapi.json`: indented, with a line break at the end.
pub fn pretty() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The OpenAPI document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    responses((status = 200, description = "This document.", body = Object))
)]
pub async fn document() -> impl IntoResponse {
    Json(Document::openapi())
}

/// The page `/docs`, whose parts are all in the binary.
pub fn docs() -> SwaggerUi {
    // Without this word the page asks a server of the makers of Swagger for a badge.
    let config = utoipa_swagger_ui::Config::from("/openapi.json").validator_url("none");
    SwaggerUi::new("/docs").config(config)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `UPDATE_GOLDEN=1 cargo test openapi` writes the file anew.
    #[test]
    fn the_document_in_the_repository_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
        let document = pretty();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &document).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == document, "`openapi/openapi.json` is stale; run `UPDATE_GOLDEN=1 cargo test openapi`");
    }

    /// Generators of clients name functions after operations.
    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let paths = Document::openapi().paths.paths;
        let items = paths.into_values().flat_map(|item| [item.get, item.post]).flatten();
        let mut names: Vec<String> = items.filter_map(|operation| operation.operation_id).collect();
        let all = names.len();
        assert!(all > 9);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_field_is_explained() {
        let document: serde_json::Value = serde_json::from_str(&pretty()).unwrap();
        fn visit(root: &serde_json::Value, part: &serde_json::Value) {
            if let Some(reference) = part.get("$ref").and_then(|reference| reference.as_str()) {
                assert!(root.pointer(&reference[1..]).is_some(), "{reference}");
            }
            match part {
                serde_json::Value::Object(fields) => fields.values().for_each(|field| visit(root, field)),
                serde_json::Value::Array(items) => items.iter().for_each(|item| visit(root, item)),
                _ => {}
            }
        }
        visit(&document, &document);
        for schema in ["ChatRequest", "CreateResponse"] {
            let fields = document.pointer(&format!("/components/schemas/{schema}/properties")).unwrap();
            let fields = fields.as_object().unwrap();
            assert!(fields.len() > 40);
            for (name, field) in fields {
                let explained = field.get("description").is_some() || field["oneOf"][1].get("description").is_some();
                assert!(explained, "`{name}` of {schema} is not explained: {field}");
            }
        }
    }
}
