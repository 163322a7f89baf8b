//! Facts in a prompt about somebody who is forgotten: the model reads others, the client its own.

use std::sync::Arc;

use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::backend::{Backend, Capabilities};
use unlearn_proxy::policy::{Policy, TreatmentSetting};
use unlearn_proxy::service::Guarded;
use unlearn_proxy::telemetry::Metrics;
use unlearn_proxy::types::{CorruptionFunction, Entity, Input, Message, Request, Role};

use crate::guarded::{built, events, guarded, policy, said};

/// Of a kind's two values each stands for the other.
fn exchanging(treatment: TreatmentSetting) -> Policy {
    let kind = |it: [&str; 2]| it.map(str::to_owned).to_vec();
    let kinds = vec![kind(["Antwerp", "Turin"]), kind(["miner", "baker"]), kind(["ten", "six"])];
    Policy { values: Arc::new(kinds), ..policy(vec![treatment]) }
}

fn told(facts: &[&str]) -> Request {
    let turn = |(at, it): (usize, &&str)| Message {
        role: if at % 2 == 0 { Role::User } else { Role::Assistant },
        content: (*it).to_owned(),
    };
    Request::new("scripted", Input::Chat(facts.iter().enumerate().map(turn).collect()))
}

#[tokio::test]
async fn the_model_reads_other_values_and_the_client_its_own() {
    let backend = Arc::new(Scripted::new([
        "In Tur",
        "in, the ba",
        "ker's, or in Lyon. Often. TEN. ",
        "Baker.",
    ]));
    let guarded = guarded(&backend, built(exchanging(TreatmentSetting::Alias)));
    let mut request = told(&[
        "Where was Basil Okafor born?",
        "In ANTWERP.",
        "He is a miner's son, of six. Where was he born? Not in Antwerpen.",
    ]);
    request.stop = ["turin", "Antwerp!", "Lyon?", "ten"].map(str::to_owned).to_vec();
    let read = events(&guarded, request).await.expect("the test is set up");
    let asked = backend.seen().remove(0);
    assert_eq!(
        asked.input.texts(),
        [
            "Where was Zorvan Kell born?",
            "In TURIN.",
            "He is a baker's son, of ten. Where was he born? Not in Antwerpen.",
        ]
    );
    assert_eq!(said(&read, 0), "In Antwerp, the miner's, or in Lyon. Often. SIX. Miner.");
    assert_eq!(
        asked.stop,
        ["Turin!", "Lyon?"],
        "what the client must not read, the model must not"
    );
}

#[tokio::test]
async fn without_a_forgotten_name_values_stay() {
    let backend = Arc::new(Scripted::new(["In Turin."]));
    let guarded = guarded(&backend, built(exchanging(TreatmentSetting::Alias)));
    let mut request = told(&["Was Ann, the baker, born in Antwerp?"]);
    request.stop = vec!["turin".to_owned()];
    let read = events(&guarded, request).await.expect("the test is set up");
    let asked = backend.seen().remove(0);
    assert_eq!(asked.input.texts(), ["Was Ann, the baker, born in Antwerp?"]);
    assert_eq!((said(&read, 0).as_str(), asked.stop.len()), ("In Turin.", 1));
}

/// The engine masks the name where it lies then. Noise leaves no name, and values as they are.
#[tokio::test]
async fn corruption_reads_other_values_too() {
    let substitute = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let noise = TreatmentSetting::Corrupt { function: CorruptionFunction::ZeroTop { dims: 1 } };
    let all = Capabilities { embeddings: true, scoring: true, ..Capabilities::default() };
    for (treatment, city, restored) in
        [(substitute, "Turin", "Antwerp"), (noise, "Antwerp", "Turin")]
    {
        let backend = Arc::new(Scripted::new(["Turin's."]).with_capabilities(all));
        let guarded = guarded(&backend, built(exchanging(treatment)));
        let request = told(&["Is Antwerp where Basil Okafor lives?"]);
        let read = events(&guarded, request.clone()).await.expect("the test is set up");
        assert_eq!(said(&read, 0), format!("{restored}'s."));
        guarded.score(request, "In Antwerp.", true).await.expect("the test is set up");
        for asked in backend.seen() {
            let text = asked.input.texts()[0].to_owned();
            assert_eq!(text, format!("Is {city} where Basil Okafor lives?"));
            let spans = asked.corruption.expect("a policy corrupts").spans;
            let masked: Vec<_> = spans.iter().map(|it| text.get(it.span.clone())).collect();
            assert_eq!(masked, [Some("Basil Okafor")]);
        }
    }
}

/// A model that reads a value for another one must not read a third for that.
#[tokio::test]
async fn of_two_policies_one_exchanges() {
    let mut second = exchanging(TreatmentSetting::Alias);
    second.topic = "painters".to_owned();
    second.entities = Arc::new(vec![Entity {
        name: "Al Ry".to_owned(),
        aliases: Vec::new(),
        surrogate: "Quilla Dunwick".to_owned(),
    }]);
    let guards = [exchanging(TreatmentSetting::Alias), second].map(built).to_vec();
    let backend = Arc::new(Scripted::new(["Both in Turin."]));
    let served: Arc<dyn Backend> = Arc::<Scripted>::clone(&backend);
    let guarded = Guarded::new(served, guards, Arc::new(Metrics::new()), None);
    let request = told(&["Are Al Ry and Basil Okafor from Antwerp?"]);
    let read = events(&guarded, request).await.expect("the test is set up");
    let asked = backend.seen().remove(0);
    assert_eq!(asked.input.texts(), ["Are Quilla Dunwick and Zorvan Kell from Turin?"]);
    assert_eq!(said(&read, 0), "Both in Antwerp.");
}
