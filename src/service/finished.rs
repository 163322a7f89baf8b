//! Answers in the model's place, as the events of a reply.

use std::collections::VecDeque;

use futures::StreamExt;

use crate::backend::ReplyStream;
use crate::types::{Finish, ReplyEvent, Usage};

/// A finished answer. Its tokens are estimated, a word each, so that neither usage nor a short `max_tokens`
/// tells it from a model's.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    words: Vec<String>,
    finish: Finish,
    choices: usize,
}

impl Answer {
    /// The answer of `choices` choices, in at most so many words.
    pub(super) fn new(text: &str, finish: Finish, choices: usize, most: Option<usize>) -> Self {
        let mut words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        let most = most.unwrap_or(usize::MAX);
        let finish = if most < words.len() { Finish::Length } else { finish };
        words.truncate(most);
        Self { words, finish, choices }
    }

    /// Tokens of one choice.
    pub(super) fn tokens(&self) -> usize {
        self.words.len()
    }

    /// All of it as soon as it is asked for.
    pub(super) fn at_once(self, prompt_tokens: usize) -> ReplyStream {
        let mut events: Vec<ReplyEvent> =
            self.choices().iter_mut().flat_map(|it| it.drain(..)).collect();
        events.push(self.done(prompt_tokens));
        futures::stream::iter(events.into_iter().map(Ok)).boxed()
    }

    /// A word for every piece of a reply that nobody listens to, and what is left where that one ends. `own`
    /// turns the tokens of its prompt into those of the client's.
    pub(super) fn paced(
        self,
        clock: ReplyStream,
        own: impl Fn(usize) -> usize + Send + 'static,
    ) -> ReplyStream {
        let mut choices = self.choices();
        let heard = move |event| match event {
            Ok(ReplyEvent::Text { choice, .. } | ReplyEvent::ToolCall { choice, .. }) => {
                let left = choices.get_mut(choice).filter(|it| it.len() > 1);
                left.and_then(VecDeque::pop_front).into_iter().map(Ok).collect()
            }
            Ok(ReplyEvent::Finished { choice, .. }) => choices
                .get_mut(choice)
                .map(std::mem::take)
                .unwrap_or_default()
                .into_iter()
                .map(Ok)
                .collect(),
            Ok(ReplyEvent::Done(usage)) => {
                let rest = choices.iter_mut().flat_map(std::mem::take);
                rest.chain([self.done(own(usage.prompt_tokens))]).map(Ok).collect()
            }
            Err(error) => vec![Err(error)],
        };
        clock.map(heard).flat_map(futures::stream::iter).boxed()
    }

    /// What is to be said of each choice: its words, then its end.
    fn choices(&self) -> Vec<VecDeque<ReplyEvent>> {
        let all = |choice| {
            let words = self.words.iter().cloned();
            let words = words.map(|text| ReplyEvent::Text { choice, text, logprobs: Vec::new() });
            words.chain([ReplyEvent::Finished { choice, finish: self.finish }]).collect()
        };
        (0..self.choices).map(all).collect()
    }

    fn done(&self, prompt_tokens: usize) -> ReplyEvent {
        let completion_tokens = self.words.len() * self.choices;
        ReplyEvent::Done(Usage { prompt_tokens, completion_tokens })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::mpsc::unbounded;

    use super::*;
    use crate::backend::BackendError;

    fn heard(choice: usize) -> Result<ReplyEvent, BackendError> {
        Ok(ReplyEvent::Text { choice, text: "secret".to_owned(), logprobs: Vec::new() })
    }

    fn ended(choice: usize) -> ReplyEvent {
        ReplyEvent::Finished { choice, finish: Finish::Stop }
    }

    /// What can be read by now, texts with their choice.
    fn read(stream: &mut ReplyStream) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(Some(Ok(event))) = stream.next().now_or_never() {
            out.push(match event {
                ReplyEvent::Text { choice, text, .. } => format!("{choice} {text}"),
                ReplyEvent::Finished { choice, .. } => format!("{choice} ended"),
                ReplyEvent::Done(it) => {
                    format!("{} and {} tokens", it.prompt_tokens, it.completion_tokens)
                }
                ReplyEvent::ToolCall { .. } => panic!("it calls nothing"),
            });
        }
        out
    }

    #[test]
    fn words_come_when_the_model_speaks() {
        let (model, clock) = unbounded();
        let answer = Answer::new("I see nothing", Finish::Stop, 2, None);
        let mut stream = answer.paced(clock.boxed(), |sent| sent - 4);
        assert!(read(&mut stream).is_empty());
        let usage = Usage { prompt_tokens: 11, completion_tokens: 4 };
        for (event, want) in [
            (heard(0), vec!["0 I "]),
            (heard(1), vec!["1 I "]),
            (Ok(ended(1)), vec!["1 see ", "1 nothing", "1 ended"]),
            (heard(0), vec!["0 see "]),
            (heard(0), vec!["0 nothing"]),
            (heard(0), vec![]),
            (Ok(ended(0)), vec!["0 ended"]),
            (Ok(ReplyEvent::Done(usage)), vec!["7 and 6 tokens"]),
        ] {
            model.unbounded_send(event).unwrap();
            assert_eq!(read(&mut stream), want);
        }
    }

    #[test]
    fn a_failure_of_the_model_is_the_answers_too() {
        let answer = Answer::new("I see nothing", Finish::Stop, 1, Some(2));
        let failed = futures::stream::iter([Err(BackendError::NoTools)]).boxed();
        let mut stream = answer.clone().paced(failed, |sent| sent);
        assert!(stream.next().now_or_never().unwrap().unwrap().is_err());
        // Without a word of the model everything comes at its end.
        let silent = futures::stream::iter([Ok(ended(0))]).boxed();
        let said = read(&mut answer.paced(silent, |sent| sent));
        assert_eq!(said, ["0 I ", "0 see ", "0 ended"]);
    }
}
