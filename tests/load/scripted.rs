//! The real server in front of the scripted engine, for tests and for the bench of the load generator.

use std::sync::Arc;

use brevity::api::admission::Admission;
use brevity::api::directory::Directory;
use brevity::api::layers::Layers;
use brevity::api::metrics::Metrics;
use brevity::api::server::{Phase, Server, ServerOptions};
use brevity::api::state::{AppState, Options};
use brevity::engine::scripted::Scripted;
use brevity::family::Effort;
use brevity::routing::{Catalogue, CatalogueTier};
use tokio::sync::watch;

/// Requests at a time; more wait.
const RUNNING: usize = 64;

/// Serves the tiers of `engine` on a free port until the runtime ends: each of `efforts` stands for a tier, some think no
/// more than so many tokens. Returns where the API begins.
pub async fn serve(engine: Scripted, efforts: &[(Effort, &str)], budgets: &[(Effort, usize)]) -> String {
    let tier = |(index, name): (usize, &String)| CatalogueTier {
        name: name.clone(),
        alpha: index as f64,
        is_base: index == 0,
        missing: None,
        place: String::new(),
        expected: None,
    };
    let tiers = engine.tiers().iter().enumerate().map(tier).collect();
    let stands_for = efforts.iter().map(|(effort, tier)| (*effort, (*tier).to_owned())).collect();
    let mut catalogue = Catalogue::new("scripted", tiers, stands_for);
    catalogue.budgets.extend(budgets.iter().copied());
    let (metrics, admission) = (Metrics::new(), Admission::new(RUNNING, RUNNING));
    let directory = Directory::bare(catalogue);
    let state = AppState::new(Arc::new(engine), directory, admission, metrics.clone(), Options::default());
    let router = Layers { metrics, ..Layers::default() }.around(brevity::api::router(Arc::new(state)));
    let server = Server::bind("127.0.0.1", 0).await.unwrap();
    let url = format!("http://{}/v1", server.address());
    tokio::spawn(async move {
        // A server whose phase nobody can tell any more would drain.
        let (_serving, phase) = watch::channel(Phase::Serving);
        server.serve(router, ServerOptions::default(), phase, || {}).await
    });
    url
}
