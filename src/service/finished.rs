//! Answers in the model's place, as the events of a reply.

use std::collections::VecDeque;

use futures::StreamExt;

use crate::backend::ReplyStream;
use crate::types::{Finish, Input, Message, ReplyEvent, Request, Role, Tools, Usage};

/// What the model is asked in place of the client's question, again and again.
const FILLER: &str = "Tell me something about the sea. ";

/// A request that takes the model about as long as the client's, whose texts have so many bytes together, and
/// has nothing of it: how long a reply about the topic is, and whether a stop text ends it, would tell.
pub(super) fn clock(asked: &Request, bytes: usize) -> Request {
    let content: String = FILLER.chars().cycle().take(bytes.max(1)).collect();
    let input = match &asked.input {
        Input::Chat(_) => Input::Chat(vec![Message { role: Role::User, content }]),
        Input::Text(_) => Input::Text(content),
    };
    let mut clock = Request { input, ..asked.clone() };
    clock.stop.clear();
    clock.logprobs = None;
    clock.sampling.logit_bias.clear();
    clock.tools = Tools::default();
    clock
}

/// What an answer without a model imitates of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) n: usize,
    pub(super) most: Option<usize>,
    pub(super) prompt_tokens: usize,
}

/// A finished answer. Its tokens are estimated, a word each, so that neither usage nor a short `max_tokens`
/// tells it from a model's.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    words: Vec<String>,
    finish: Finish,
    choices: usize,
    prompt_tokens: usize,
}

impl Answer {
    pub(super) fn new(text: &str, finish: Finish, shape: Shape) -> Self {
        let Shape { n: choices, most, prompt_tokens } = shape;
        let mut words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        let most = most.unwrap_or(usize::MAX);
        let finish = if most < words.len() { Finish::Length } else { finish };
        words.truncate(most);
        Self { words, finish, choices, prompt_tokens }
    }

    /// All of it as soon as it is asked for.
    pub(super) fn at_once(self) -> ReplyStream {
        let mut events: Vec<ReplyEvent> = self.left().into_iter().flatten().collect();
        events.push(self.done());
        futures::stream::iter(events.into_iter().map(Ok)).boxed()
    }

    /// A word for every event of a reply that nobody listens to, and what is left of a choice where that one
    /// ends. Where the answer ends first, the reply is not waited for.
    pub(super) fn paced(self, clock: ReplyStream) -> ReplyStream {
        let start = (clock, self.left(), VecDeque::new(), Some(self.done()));
        futures::stream::unfold(start, |(mut clock, mut choices, mut ready, mut done)| async move {
            loop {
                if let Some(event) = ready.pop_front() {
                    return Some((Ok(event), (clock, choices, ready, done)));
                }
                if choices.iter().all(VecDeque::is_empty) {
                    // Dropping the clock ends the reply of the model.
                    return done.take().map(|it| {
                        (Ok(it), (futures::stream::empty().boxed(), choices, ready, None))
                    });
                }
                match clock.next().await {
                    Some(Ok(event)) => ready.extend(heard(&mut choices, &event)),
                    Some(Err(error)) => {
                        choices.clear();
                        return Some((Err(error), (clock, choices, ready, None)));
                    }
                    None => ready.extend(choices.iter_mut().flat_map(std::mem::take)),
                }
            }
        })
        .boxed()
    }

    /// What is to be said of each choice: its words, then its end.
    fn left(&self) -> Vec<VecDeque<ReplyEvent>> {
        let all = |choice| {
            let words = self.words.iter().cloned();
            let words = words.map(|text| ReplyEvent::Text { choice, text, logprobs: Vec::new() });
            words.chain([ReplyEvent::Finished { choice, finish: self.finish }]).collect()
        };
        (0..self.choices).map(all).collect()
    }

    fn done(&self) -> ReplyEvent {
        ReplyEvent::Done(Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.words.len() * self.choices,
        })
    }
}

/// What an event of the model lets out.
fn heard(choices: &mut [VecDeque<ReplyEvent>], event: &ReplyEvent) -> Vec<ReplyEvent> {
    match event {
        ReplyEvent::Text { choice, .. } | ReplyEvent::ToolCall { choice, .. } => {
            choices.get_mut(*choice).and_then(VecDeque::pop_front).into_iter().collect()
        }
        ReplyEvent::Finished { choice, .. } => {
            choices.get_mut(*choice).into_iter().flat_map(std::mem::take).collect()
        }
        ReplyEvent::Done(_) => choices.iter_mut().flat_map(std::mem::take).collect(),
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
                ReplyEvent::Done(usage) => format!("{usage:?}"),
                ReplyEvent::ToolCall { .. } => panic!("it calls nothing"),
            });
        }
        out
    }

    #[test]
    fn a_clock_says_nothing_of_the_question() {
        let content = "Where was Ann born, and when?".to_owned();
        let messages = vec![Message { role: Role::System, content }];
        let mut asked = Request::new("m", Input::Chat(messages));
        asked.stop = vec!["Antwerp".to_owned()];
        asked.max_tokens = Some(7);
        let clock = clock(&asked, 40);
        assert_eq!(clock.input.texts(), ["Tell me something about the sea. Tell me"]);
        assert!(clock.stop.is_empty());
        assert_eq!(clock.max_tokens, Some(7));
    }

    #[test]
    fn words_come_when_the_model_speaks() {
        let shape = Shape { n: 2, most: None, prompt_tokens: 7 };
        let (model, clock) = unbounded();
        let mut stream = Answer::new("I see nothing", Finish::Stop, shape).paced(clock.boxed());
        assert!(read(&mut stream).is_empty());
        for (event, want) in [
            (heard(0), vec!["0 I "]),
            (heard(1), vec!["1 I "]),
            (Ok(ended(1)), vec!["1 see ", "1 nothing", "1 ended"]),
            (heard(0), vec!["0 see "]),
            (heard(0), vec!["0 nothing"]),
        ] {
            model.unbounded_send(event).unwrap();
            assert_eq!(read(&mut stream), want);
        }
        // The model goes on, and is not waited for.
        model.unbounded_send(heard(0)).unwrap();
        let usage = Usage { prompt_tokens: 7, completion_tokens: 6 };
        assert_eq!(read(&mut stream), ["0 ended".to_owned(), format!("{usage:?}")]);
        assert!(model.is_closed());
    }

    #[test]
    fn a_failure_of_the_model_is_the_answers_too() {
        let shape = Shape { n: 1, most: Some(2), prompt_tokens: 7 };
        let (model, clock) = unbounded();
        let answer = Answer::new("I see nothing", Finish::Stop, shape);
        let mut stream = answer.clone().paced(clock.boxed());
        model.unbounded_send(Err(BackendError::NoTools)).unwrap();
        assert!(stream.next().now_or_never().unwrap().unwrap().is_err());
        // Without a word of the model everything comes at its end.
        let mut silent = answer.paced(futures::stream::iter([Ok(ended(0))]).boxed());
        assert_eq!(read(&mut silent)[..3], ["0 I ", "0 see ", "0 ended"]);
    }
}
