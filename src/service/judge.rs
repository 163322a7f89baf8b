//! Whom a judge asks: a backend without guards, so that a question about a topic is not treated as
//! one.

use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;

use crate::backend::upstream::Upstream;
use crate::backend::{Backend, BackendError};
use crate::config::process_environment;
use crate::detect::{Ask, DetectorError, Judge, JudgeReply, Unanswered};
use crate::policy::{JudgeServer, JudgeSetting};
use crate::types::{Evidence, Input, Message, Place, ReplyEvent, Request};

/// Room for a word behind a line break or some markup.
const MOST_TOKENS: usize = 4;
/// The rivals of a token that are asked for: what the least generous servers give.
const RIVALS: usize = 5;

/// The model that a request is for, and the backend under the guards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) model: &'a str,
}

/// A judge with the model that it asks.
#[derive(Debug)]
pub(super) struct Seated {
    judge: Judge,
    /// `None` is the model that the request is for.
    model: Option<String>,
    /// `None` is the backend under the guards.
    server: Option<Upstream>,
    deadline: Duration,
}

impl Seated {
    /// A judge as a policy sets it. Its own server is not spoken to yet.
    ///
    /// # Errors
    ///
    /// [`DetectorError::JudgeServer`] for a malformed URL, or a key that is not in the environment.
    pub(super) fn new(setting: &JudgeSetting) -> Result<Self, DetectorError> {
        Ok(Self {
            judge: Judge::new(setting.question.as_str()),
            model: setting.model.clone(),
            server: setting.server.as_ref().map(connect).transpose()?,
            deadline: setting.deadline,
        })
    }

    /// The id of the model that is asked for a request.
    pub(super) fn model<'a>(&'a self, served: Served<'a>) -> &'a str {
        self.model.as_deref().unwrap_or(served.model)
    }

    /// What the judge sees in a text; without `served` only one with its own server can say.
    ///
    /// # Errors
    ///
    /// Those of [`Judge::inspect`].
    pub(super) async fn inspect(
        &self,
        place: Place,
        text: &str,
        served: Option<Served<'_>>,
    ) -> Result<Vec<Evidence>, DetectorError> {
        let own = self.server.as_ref().zip(self.model.as_deref());
        let own = own.map(|(server, model)| Served { backend: server, model });
        let Some(seat) = own.or(served) else {
            let why = "it asks the served model, and none is served here; give it an `upstream`";
            return Err(Unanswered::Failed(why.into()).into());
        };
        let model = self.model(seat);
        let asked = Asked { backend: seat.backend, model, deadline: self.deadline };
        self.judge.inspect(place, text, &asked).await
    }
}

fn connect(server: &JudgeServer) -> Result<Upstream, DetectorError> {
    let key = |name: &String| {
        let missing = || format!("the environment variable `{name}` is not set");
        process_environment(name).ok_or_else(|| DetectorError::JudgeServer(missing().into()))
    };
    let key = server.api_key_env.as_ref().map(key).transpose()?;
    Upstream::new(&server.url, key).map_err(|error| DetectorError::JudgeServer(error.into()))
}

#[derive(Debug)]
struct Asked<'a> {
    backend: &'a dyn Backend,
    model: &'a str,
    deadline: Duration,
}

#[async_trait]
impl Ask for Asked<'_> {
    async fn ask(&self, messages: Vec<Message>) -> Result<JudgeReply, Unanswered> {
        let mut request = Request::new(self.model, Input::Chat(messages));
        request.sampling.temperature = 0.0;
        request.max_tokens = Some(MOST_TOKENS);
        request.logprobs = Some(RIVALS);
        match tokio::time::timeout(self.deadline, self.reply(request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(without_text(error)),
            Err(late) => Err(Unanswered::Failed(late.into())),
        }
    }
}

impl Asked<'_> {
    /// With log-probabilities where the backend gives them.
    async fn reply(&self, request: Request) -> Result<JudgeReply, BackendError> {
        let plain = Request { logprobs: None, ..request.clone() };
        match read(self.backend, request).await {
            Err(
                BackendError::Invalid { .. }
                | BackendError::Unsupported { .. }
                | BackendError::Upstream { status: Some(422), .. },
            ) => read(self.backend, plain).await,
            reply => reply,
        }
    }
}

async fn read(backend: &dyn Backend, request: Request) -> Result<JudgeReply, BackendError> {
    let mut events = backend.generate(request).await?;
    let mut reply = JudgeReply::default();
    while let Some(event) = events.try_next().await? {
        if let ReplyEvent::Text { text, logprobs, .. } = event {
            reply.text.push_str(&text);
            reply.tokens.extend(logprobs);
        }
    }
    Ok(reply)
}

/// An error as it may be logged: servers quote what they were sent.
fn without_text(error: BackendError) -> Unanswered {
    match error {
        BackendError::PromptTooLong { .. } => Unanswered::TooLong,
        BackendError::Invalid { .. } => {
            Unanswered::Failed("its server finds the question malformed".into())
        }
        BackendError::UnknownModel { .. } => {
            Unanswered::Failed("its server does not have the model".into())
        }
        other => Unanswered::Failed(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scripted::Scripted;
    use crate::backend::{Capabilities, ModelCard, ReplyStream};
    use crate::types::Scored;

    fn setting(model: Option<&str>) -> JudgeSetting {
        JudgeSetting {
            question: "About Basil?".to_owned(),
            model: model.map(str::to_owned),
            server: None,
            deadline: Duration::from_millis(50),
            threshold: 0.5,
        }
    }

    async fn ask(
        backend: &dyn Backend,
        setting: &JudgeSetting,
    ) -> Result<Vec<Evidence>, DetectorError> {
        let served = Some(Served { backend, model: "scripted" });
        Seated::new(setting).unwrap().inspect(Place::Text(0), "Who is he?", served).await
    }

    #[tokio::test]
    async fn the_served_model_is_asked_for_a_word_with_its_rivals() {
        let backend = Scripted::new(["Y", "es", "."]);
        let seen = ask(&backend, &setting(None)).await.unwrap();
        assert_eq!((seen.len(), seen[0].score, seen[0].span.clone()), (1, 1.0, 0..10));
        let request = backend.seen().remove(0);
        assert_eq!((request.n, request.max_tokens, request.logprobs), (1, Some(4), Some(5)));
        assert_eq!(request.sampling.temperature, 0.0);
        assert!(request.input.texts()[1].contains("\nWho is he?\n"), "{request:?}");
    }

    #[tokio::test]
    async fn a_reply_that_is_no_verdict_and_a_model_that_is_not_there_are_failures() {
        let garbage = Scripted::new(["As an AI"]);
        let error = ask(&garbage, &setting(None)).await.unwrap_err();
        assert!(matches!(error, DetectorError::Judge(Unanswered::Undecided)), "{error:?}");
        let error = ask(&Scripted::new(["yes"]), &setting(Some("other"))).await.unwrap_err();
        assert!(matches!(error, DetectorError::Judge(Unanswered::Failed(_))), "{error:?}");
        assert!(!format!("{error:?}").contains("Who is he"));
        let nobody = Seated::new(&setting(None)).unwrap();
        let error = nobody.inspect(Place::Text(0), "Who is he?", None).await.unwrap_err();
        assert!(format!("{error:?}").contains("upstream"), "{error:?}");
    }

    /// Has no log-probabilities, quotes what it refuses, and is as slow as it is told.
    #[derive(Debug)]
    struct Plain {
        delay: Duration,
    }

    #[async_trait]
    impl Backend for Plain {
        async fn generate(&self, request: Request) -> Result<ReplyStream, BackendError> {
            tokio::time::sleep(self.delay).await;
            if request.logprobs.is_some() || request.model == "broken" {
                let message = format!("no logprobs for {:?}", request.input);
                return Err(BackendError::Invalid { message, param: None });
            }
            let mut request = request;
            request.model = "scripted".to_owned();
            Scripted::new(["No"]).generate(request).await
        }

        async fn score(&self, _: Request, _: &str, _: bool) -> Result<Scored, BackendError> {
            Err(BackendError::Unsupported { what: "scoring" })
        }

        async fn models(&self) -> Result<Vec<ModelCard>, BackendError> {
            Ok(Vec::new())
        }

        fn detokenise(&self, _: &[u32]) -> Result<String, BackendError> {
            Err(BackendError::Unsupported { what: "prompts of token ids" })
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }
    }

    #[tokio::test]
    async fn a_server_without_log_probabilities_is_asked_without() {
        let plain = Plain { delay: Duration::ZERO };
        let seen = ask(&plain, &setting(None)).await.unwrap();
        assert_eq!((seen.len(), seen[0].score), (1, 0.0));
        // What a server says of a request may quote it.
        let error = ask(&plain, &setting(Some("broken"))).await.unwrap_err();
        let shown = format!("{error:?}");
        assert!(shown.contains("malformed") && !shown.contains("Who is he"), "{shown}");
    }

    #[tokio::test]
    async fn an_answer_after_the_deadline_is_a_failure() {
        let slow = Plain { delay: Duration::from_secs(60) };
        let error = ask(&slow, &setting(None)).await.unwrap_err();
        assert!(format!("{error:?}").contains("Elapsed"), "{error:?}");
    }

    #[test]
    fn a_server_needs_a_url_and_the_key_that_it_names() {
        let refused = |url: &str, key: Option<&str>| {
            let server = JudgeServer { url: url.to_owned(), api_key_env: key.map(str::to_owned) };
            let mut setting = setting(Some("m"));
            setting.server = Some(server);
            Seated::new(&setting).is_err()
        };
        assert!(!refused("http://127.0.0.1:1/v1", None));
        assert!(refused("http://", None));
        assert!(refused("http://127.0.0.1:1/v1", Some("UNLEARN_TEST_NO_SUCH_KEY")));
    }
}
