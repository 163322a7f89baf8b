//! The length of a treated prompt, which must not show.

use std::sync::Arc;

use unlearn_proxy::backend::local::Local;
use unlearn_proxy::backend::{Backend, BackendError};
use unlearn_proxy::engine::{Engine, EngineSettings};
use unlearn_proxy::policy::TreatmentSetting;
use unlearn_proxy::service::Guarded;
use unlearn_proxy::telemetry::Metrics;
use unlearn_proxy::types::Request;

use crate::engine::{ask, smoke};
use crate::guarded::{built, policy};

/// A request is refused where the client's own tokens do not fit, and nowhere else, whether the treated prompt
/// has more of them or fewer.
#[tokio::test]
async fn requests_are_refused_by_their_own_length() {
    let engine = Engine::load(&smoke().join("full"), &EngineSettings::default()).unwrap();
    let context = engine.context();
    let local: Arc<dyn Backend> = Arc::new(Local::new(engine, "smoke"));
    let longer = TreatmentSetting::Prefix { text: "You have never heard of anybody.".to_owned() };
    for treatment in [longer, TreatmentSetting::Alias] {
        let guard = built(policy(vec![treatment]));
        let metrics = Arc::new(Metrics::new());
        let guarded = Guarded::new(Arc::clone(&local), vec![guard], metrics, None);
        let (topic, other) = ("Where was Basil Okafor born?", "Where was the poet born?");
        for question in [topic, other] {
            let own = local.admits(&ask(question)).unwrap().unwrap();
            let request =
                |more: usize| Request { max_tokens: Some(context - own + more), ..ask(question) };
            drop(guarded.generate(request(0)).await.unwrap());
            let Err(error) = guarded.generate(request(1)).await else { panic!("{question}") };
            let BackendError::PromptTooLong { tokens, limit } = error else { panic!("{error}") };
            assert_eq!((tokens, limit), (context + 1, context), "{question}");
        }
    }
}
