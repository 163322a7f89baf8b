//! Policies that change under a running server.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use unlearn_proxy::backend::Backend;
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::policy::watch::Watch;
use unlearn_proxy::service::Guarded;
use unlearn_proxy::service::app::{AppError, load_guards};
use unlearn_proxy::service::reload::Reloader;
use unlearn_proxy::telemetry::Metrics;
use unlearn_proxy::types::{Input, ReplyEvent, Request};

const POLICY: &str = "topic = \"authors\"\n[[entity]]\nname = \"Basil Okafor\"\n\
                      surrogate = \"Zorvan Kell\"\n[[detector]]\nuse = \"names\"\n\
                      [[treatment]]\nuse = \"alias\"\n";

struct Served {
    guarded: Arc<Guarded>,
    metrics: Arc<Metrics>,
    reloader: Reloader,
}

/// A model that names two authors, under the policies of a folder.
fn served(folder: &Path) -> Served {
    let watch = Watch::new(folder);
    let (policies, guards) = load_guards(folder).unwrap();
    let metrics = Arc::new(Metrics::new());
    metrics.set_policies(policies.labels());
    let inner: Arc<dyn Backend> = Arc::new(Scripted::new(["Basil Okafor", " or Mina Dray."]));
    let guarded = Arc::new(Guarded::new(inner, guards, Arc::clone(&metrics), None));
    let reloader =
        Reloader::new(folder.to_owned(), watch, Arc::clone(&guarded), Arc::clone(&metrics));
    Served { guarded, metrics, reloader }
}

fn request() -> Request {
    Request::new("scripted", Input::Text("Who?".to_owned()))
}

fn said(events: &[ReplyEvent]) -> String {
    let texts = events.iter().filter_map(|it| match it {
        ReplyEvent::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

async fn reply(guarded: &Guarded) -> String {
    let events: Vec<ReplyEvent> =
        guarded.generate(request()).await.unwrap().try_collect().await.unwrap();
    said(&events)
}

fn write(folder: &Path, text: &str) {
    fs::write(folder.join("authors.toml"), text).unwrap();
}

#[tokio::test]
async fn changed_policies_rule_on_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), POLICY);
    let Served { guarded, metrics, reloader } = served(folder.path());
    assert_eq!(reply(&guarded).await, "Zorvan Kell or Mina Dray.");
    let begun = guarded.generate(request()).await.unwrap();
    write(folder.path(), &POLICY.replace("Basil Okafor", "Mina Dray"));
    let policies = reloader.reload().await.unwrap();
    assert_eq!(reply(&guarded).await, "Basil Okafor or Zorvan Kell.");
    let begun: Vec<ReplyEvent> = begun.try_collect().await.unwrap();
    assert_eq!(said(&begun), "Zorvan Kell or Mina Dray.", "keeps the policy that it began with");
    let info = format!("unlearn_policy_info{{revision=\"{}\"", policies.policies[0].revision);
    let text = metrics.render();
    assert!(text.contains(&info) && text.contains("unlearn_policy_reloads_total 1"), "{text}");
}

#[tokio::test]
async fn a_faulty_file_leaves_the_former_policies_in_force() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), POLICY);
    let Served { guarded, metrics, reloader } = served(folder.path());
    let revision = load_guards(folder.path()).unwrap().0.policies[0].revision.clone();
    write(folder.path(), &POLICY.replace("use = \"alias\"", "use = \"aliass\""));
    match reloader.reload().await.unwrap_err() {
        AppError::Policies(problems) => assert_eq!(problems[0].key, "treatment[0].use"),
        other => panic!("{other:?}"),
    }
    fs::remove_file(folder.path().join("authors.toml")).unwrap();
    assert!(reloader.reload().await.is_err(), "an empty folder is no wish to forget nothing");
    assert_eq!(reply(&guarded).await, "Zorvan Kell or Mina Dray.");
    let text = metrics.render();
    assert!(text.contains("unlearn_policy_reload_failures_total 2"), "{text}");
    assert!(text.contains(&revision) && text.contains("unlearn_policy_reloads_total 0"), "{text}");
}

#[tokio::test]
async fn a_changed_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), POLICY);
    let Served { guarded, reloader, .. } = served(folder.path());
    let running = tokio::spawn(reloader.run());
    write(folder.path(), &POLICY.replace("Basil Okafor", "Mina Dray"));
    let mut now = String::new();
    for _ in 0..100 {
        now = reply(&guarded).await;
        if now == "Basil Okafor or Zorvan Kell." {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    running.abort();
    assert_eq!(now, "Basil Okafor or Zorvan Kell.");
}
