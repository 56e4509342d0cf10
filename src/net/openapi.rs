//! The OpenAPI document and the page that shows it, both from inside the program.

use axum::Router;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where the document is.
pub const DOCUMENT: &str = "/api/openapi.json";

/// `/swagger-ui/` and [`DOCUMENT`]. Merge it only if the settings want it: nothing else serves them.
/// The page loads nothing from elsewhere, not even the badge of the public validator.
pub fn swagger(openapi: utoipa::openapi::OpenApi) -> Router {
    let config = Config::new([DOCUMENT]).validator_url("none");
    SwaggerUi::new("/swagger-ui").url(DOCUMENT, openapi).config(config).into()
}
