//! What a client asks: messages or text, and how to sample.

use super::{Corruption, Offset, TextMut, Tools};

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions of the application (`developer` is the same role under its newer name).
    System,
    /// The person or program that asks.
    User,
    /// The model, earlier in the conversation or as a prefill.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name that chat templates use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation, its content parts joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub content: String,
}

/// What the model is to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A conversation, rendered by the model's chat template. When the last message is the
    /// assistant's, the model continues it (a prefill).
    Chat(Vec<Message>),
    /// Text, continued as it stands (`/v1/completions`). A prompt of token ids is detokenised first.
    Text(String),
}

impl Input {
    /// The texts in it, in order; [`Request::texts`] begins with them.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Chat(messages) => messages.iter().map(|it| it.content.as_str()).collect(),
            Self::Text(text) => vec![text],
        }
    }

    /// The same, to be rewritten by a treatment.
    pub fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Chat(messages) => messages.iter_mut().map(|it| &mut it.content).collect(),
            Self::Text(text) => vec![text],
        }
    }
}

/// How tokens are drawn from the model's distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the smallest set of tokens with this much probability; 1 keeps all.
    pub top_p: f32,
    /// Keep the `k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Subtracted from the logit of every token that has been generated, per occurrence.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of every token that has been generated.
    pub presence_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or reply; 1 is none.
    pub repetition_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the draw repeatable.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// A request for replies, as every backend takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The id of the served model.
    pub model: String,
    /// What to continue.
    pub input: Input,
    /// How to sample.
    pub sampling: Sampling,
    /// Number of independent choices, at least 1.
    pub n: usize,
    /// Most tokens per choice; `None` is what the context leaves.
    pub max_tokens: Option<usize>,
    /// Texts that end a choice; not part of the reply. At most 4.
    pub stop: Vec<String>,
    /// Log-probabilities wanted: `Some(k)` for the sampled token and the `k` most probable.
    pub logprobs: Option<usize>,
    /// Who asks, as far as the server can tell them apart; 0 where it cannot. What was learnt from
    /// one tenant's request is never used for another's.
    pub tenant: u64,
    /// Rows of the prompt to corrupt (set by a treatment, never by a client).
    pub corruption: Option<Corruption>,
    /// What is added to the logits (set by a treatment, never by a client).
    pub offset: Option<Offset>,
    /// What the model may call, and what it called earlier; of a conversation only.
    pub tools: Tools,
}

impl Request {
    /// A request with default sampling.
    #[must_use]
    pub fn new(model: impl Into<String>, input: Input) -> Self {
        Self {
            model: model.into(),
            input,
            sampling: Sampling::default(),
            n: 1,
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            tenant: 0,
            corruption: None,
            offset: None,
            tools: Tools::default(),
        }
    }

    /// The texts a detector reads: the input's, then those of its tools. A span names one of them by
    /// its index here.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        let mut texts = self.input.texts();
        texts.extend(self.tools.texts());
        texts
    }

    /// The same, to be rewritten by a treatment.
    pub fn texts_mut(&mut self) -> Vec<TextMut<'_>> {
        let input = self.input.texts_mut().into_iter().map(TextMut::Plain);
        input.chain(self.tools.texts_mut()).collect()
    }

    /// The indices of the texts in the order in which the model meets them: what is on offer first, a
    /// call after the message that makes it.
    #[must_use]
    pub fn reading_order(&self) -> Vec<usize> {
        let messages = (0..self.input.texts().len()).map(|it| (Some(it), false));
        let tools = self.tools.messages().into_iter().map(|it| (it, true));
        let places: Vec<(Option<usize>, bool)> = messages.chain(tools).collect();
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|it| places[*it]);
        order
    }

    /// Puts turns in front of message `at` of a conversation. Calls and results stay with their
    /// messages; a request that is no conversation stays as it is.
    ///
    /// # Panics
    ///
    /// When the conversation has fewer than `at` messages.
    pub fn insert_turns(&mut self, at: usize, turns: impl IntoIterator<Item = Message>) {
        let Input::Chat(messages) = &mut self.input else { return };
        let before = messages.len();
        drop(messages.splice(at..at, turns));
        let by = messages.len() - before;
        self.tools.shift(at, by);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Callee, Json, Tool, ToolCall, ToolResult};
    use super::*;

    fn request() -> Request {
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let turns = vec![
            turn(Role::User, "u"),
            turn(Role::Assistant, "a"),
            turn(Role::Tool, "r"),
            turn(Role::User, "v"),
        ];
        let mut request = Request::new("m", Input::Chat(turns));
        let call = |function, arguments| ToolCall {
            message: 1,
            id: "1".to_owned(),
            function,
            arguments: Json::read(arguments),
        };
        let function = Json::read("{}");
        request.tools.offered = vec![Tool { name: "f".to_owned(), function }];
        request.tools.calls =
            vec![call(Callee::Offered(0), "[1]"), call(Callee::Other("g".to_owned()), "[2]")];
        request.tools.results = vec![ToolResult { message: 2, id: "1".to_owned() }];
        request
    }

    #[test]
    fn an_index_names_the_same_text_however_it_is_reached() {
        let mut request = request();
        let texts = ["u", "a", "r", "v", "{}", "[1]", "g", "[2]"];
        assert_eq!(request.texts(), texts);
        let again: Vec<String> =
            request.texts_mut().iter().map(|it| it.as_str().to_owned()).collect();
        assert_eq!(again, texts);
        let order = request.reading_order();
        let read: Vec<&str> = order.into_iter().map(|it| texts[it]).collect();
        assert_eq!(read, ["{}", "u", "a", "[1]", "g", "[2]", "r", "v"]);
    }

    #[test]
    fn calls_and_results_stay_with_their_messages() {
        let mut request = request();
        let turn = || Message { role: Role::System, content: String::new() };
        request.insert_turns(2, [turn(), turn()]);
        request.insert_turns(0, [turn()]);
        let Input::Chat(messages) = &request.input else { panic!("it was a chat") };
        let content = |it: usize| messages[it].content.as_str();
        assert!(request.tools.calls.iter().all(|it| content(it.message) == "a"));
        assert_eq!(content(request.tools.results[0].message), "r");
        let mut text = Request::new("m", Input::Text("t".to_owned()));
        text.insert_turns(0, [turn()]);
        assert_eq!(text.texts(), ["t"]);
    }
}
