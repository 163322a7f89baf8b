//! Any server that speaks OpenAI's API.
//!
//! Replies are asked for as streams; one that comes whole all the same is read too. What this
//! backend cannot say in that API, such as corrupted embeddings, it refuses instead of leaving it out.

mod calls;
mod sse;
mod wire;

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::{Backend, BackendError, Capabilities, ModelCard, ReplyStream};
use crate::types::{ReplyEvent, Request, Scored};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a list of models or of an error.
const MOST_BODY_BYTES: usize = 1 << 20;
/// Most bytes of a reply that comes whole.
const MOST_REPLY_BYTES: usize = 16 << 20;

/// A remote server.
#[derive(Debug)]
pub struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without a slash at the end.
    base: String,
    host: String,
    /// Marked sensitive, so that `Debug` does not show it.
    authorization: Option<HeaderValue>,
}

impl Upstream {
    /// A server by its base URL, as in `https://api.openai.com/v1`. Connects on first use.
    ///
    /// # Errors
    ///
    /// [`BackendError::Invalid`] when the URL or the key is malformed.
    pub fn new(base_url: &str, api_key: Option<String>) -> Result<Self, BackendError> {
        Self::trusting(base_url, api_key, &[])
    }

    /// The same, and certificates that one of these authorities has signed are trusted like those
    /// which the web trusts.
    ///
    /// # Errors
    ///
    /// [`BackendError::Invalid`] when the URL, the key or an authority is malformed.
    pub fn trusting(
        base_url: &str,
        api_key: Option<String>,
        authorities: &[CertificateDer<'static>],
    ) -> Result<Self, BackendError> {
        let invalid = |message: String| BackendError::Invalid { message, param: None };
        let base = base_url.trim_end_matches('/').to_owned();
        let uri: Uri = base
            .parse()
            .map_err(|error| invalid(format!("`{base_url}` is not a URL ({error})")))?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = match uri.authority() {
            Some(authority) if known => {
                let port = authority.port().map(|it| format!(":{it}")).unwrap_or_default();
                format!("{}{port}", authority.host())
            }
            _ => return Err(invalid(format!("`{base_url}` is not an http or https URL"))),
        };
        let bearer = |key: String| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim()))
                .map_err(|error| invalid(format!("the API key is not a header value ({error})")))?;
            value.set_sensitive(true);
            Ok::<_, BackendError>(value)
        };
        let authorization = api_key.map(bearer).transpose()?;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for authority in authorities {
            let added = roots.add(authority.clone());
            added.map_err(|error| invalid(format!("a certificate is of no use ({error})")))?;
        }
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, base, host, authorization })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, BackendError> {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream, application/json");
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| self.failed(None, error.into()))?;
        let sent = self.client.request(request).await;
        sent.map_err(|error| self.failed(None, error.into()))
    }

    /// A reply of a server that does not stream, as some do not where there are tools.
    async fn whole(
        &self,
        body: Incoming,
        mut chunks: wire::Chunks,
    ) -> Result<ReplyStream, BackendError> {
        let body = Limited::new(body, MOST_REPLY_BYTES).collect().await;
        let body = body.map_err(|error| self.failed(None, error))?.to_bytes();
        let read = chunks.read(&String::from_utf8_lossy(&body));
        let mut events = read.map_err(|error| self.failed(None, error.into()))?;
        events.push(chunks.end().map_err(|error| self.failed(None, error.into()))?);
        Ok(futures::stream::iter(events.into_iter().map(Ok)).boxed())
    }

    fn failed(
        &self,
        status: Option<StatusCode>,
        source: Box<dyn Error + Send + Sync>,
    ) -> BackendError {
        let status = status.map(|it| it.as_u16());
        BackendError::Upstream { host: self.host.clone(), status, source }
    }

    /// What an answer other than success means to the caller.
    async fn refusal(&self, response: Response<Incoming>, model: &str) -> BackendError {
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BODY_BYTES).collect().await;
        let reason = body
            .ok()
            .and_then(|it| serde_json::from_slice::<wire::Failure>(&it.to_bytes()).ok())
            .map(|it| it.error);
        let code = reason.as_ref().and_then(|it| it.code.as_str()).unwrap_or_default();
        match status {
            StatusCode::TOO_MANY_REQUESTS => BackendError::Overloaded { queued: 0 },
            StatusCode::NOT_FOUND if !model.is_empty() => {
                BackendError::UnknownModel { model: model.to_owned() }
            }
            StatusCode::BAD_REQUEST => {
                let message = reason.as_ref().map(|it| it.message.clone()).unwrap_or_default();
                let too_long =
                    code == "context_length_exceeded" || message.contains("maximum context length");
                match context_numbers(&message) {
                    Some((limit, tokens)) if too_long => {
                        BackendError::PromptTooLong { tokens, limit }
                    }
                    _ => {
                        // Not the server's words, which may quote what it was asked, as treated.
                        let param = reason.as_ref().and_then(wire::Reason::field);
                        let why = param.map(|it| format!(" because of `{it}`"));
                        let why = why.unwrap_or_default();
                        let message = format!("the model's server refuses the request{why}");
                        BackendError::Invalid { message, param }
                    }
                }
            }
            _ => {
                // Without the message, which may quote the prompt: errors are logged.
                let source = format!("status {status}, code `{code}`");
                self.failed(Some(status), source.into())
            }
        }
    }
}

/// Limit and request in "maximum context length is 8192 tokens. However, you requested 9000".
fn context_numbers(message: &str) -> Option<(usize, usize)> {
    let mut numbers =
        message.split(|it: char| !it.is_ascii_digit()).filter_map(|it| it.parse::<usize>().ok());
    let (limit, tokens) = (numbers.next()?, numbers.next()?);
    (tokens > limit).then_some((limit, tokens))
}

#[async_trait]
impl Backend for Upstream {
    async fn generate(&self, request: Request) -> Result<ReplyStream, BackendError> {
        if request.corruption.is_some() {
            return Err(BackendError::Unsupported { what: "corrupted embeddings" });
        }
        if request.offset.is_some() {
            return Err(BackendError::Unsupported { what: "logit offsets" });
        }
        let (path, body) = wire::body(&request);
        let response = self.send(Method::POST, path, body.to_string().into()).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response, &request.model).await);
        }
        let chunks = wire::Chunks::new(&request);
        let kind = response.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        if kind.is_some_and(|it| it.starts_with("application/json")) {
            return self.whole(response.into_body(), chunks).await;
        }
        let reading = Reading {
            body: response.into_body(),
            decoder: sse::Decoder::default(),
            chunks,
            queue: VecDeque::new(),
            ended: false,
            host: self.host.clone(),
        };
        let next = |mut reading: Reading| async move {
            while reading.queue.is_empty() && !reading.ended {
                reading.read().await;
            }
            reading.queue.pop_front().map(|it| (it, reading))
        };
        Ok(futures::stream::unfold(reading, next).boxed())
    }

    async fn score(&self, _: Request, _: &str, _: bool) -> Result<Scored, BackendError> {
        Err(BackendError::Unsupported { what: "scoring" })
    }

    async fn models(&self) -> Result<Vec<ModelCard>, BackendError> {
        let response = self.send(Method::GET, "/models", Bytes::new()).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refusal(response, "").await);
        }
        let body = Limited::new(response.into_body(), MOST_BODY_BYTES)
            .collect()
            .await
            .map_err(|error| self.failed(Some(status), error))?;
        let models: wire::Models = serde_json::from_slice(&body.to_bytes())
            .map_err(|error| self.failed(Some(status), error.into()))?;
        let card = |it: wire::Model| ModelCard { id: it.id, context_length: it.max_model_len };
        Ok(models.data.into_iter().map(card).collect())
    }

    fn detokenise(&self, _: &[u32]) -> Result<String, BackendError> {
        Err(BackendError::Unsupported { what: "prompts of token ids" })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { tools: true, ..Capabilities::default() }
    }

    async fn ready(&self) -> bool {
        self.models().await.is_ok()
    }
}

/// A reply on its way. Dropping it closes the connection, which tells the server to stop.
struct Reading {
    body: Incoming,
    decoder: sse::Decoder,
    chunks: wire::Chunks,
    queue: VecDeque<Result<ReplyEvent, BackendError>>,
    ended: bool,
    host: String,
}

impl Reading {
    /// Waits for the next bytes and queues the events that they complete.
    async fn read(&mut self) {
        let bytes = match self.body.frame().await {
            None => return self.end(),
            Some(Err(error)) => return self.fail(error.into()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => bytes,
                // Trailers.
                Err(_) => return,
            },
        };
        let events = match self.decoder.push(&bytes) {
            Ok(events) => events,
            Err(error) => return self.fail(error.into()),
        };
        for data in events {
            if data.trim() == "[DONE]" {
                return self.end();
            }
            match self.chunks.read(&data) {
                Ok(events) => self.queue.extend(events.into_iter().map(Ok)),
                Err(error) => return self.fail(error.into()),
            }
        }
    }

    fn end(&mut self) {
        match self.chunks.end() {
            Ok(done) => {
                self.ended = true;
                self.queue.push_back(Ok(done));
            }
            Err(error) => self.fail(error.into()),
        }
    }

    fn fail(&mut self, source: Box<dyn Error + Send + Sync>) {
        self.ended = true;
        let host = self.host.clone();
        self.queue.push_back(Err(BackendError::Upstream { host, status: None, source }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_not_shown() {
        let upstream = Upstream::new("http://localhost:1/v1/", Some("sk-secret".to_owned()));
        assert!(!format!("{:?}", upstream.unwrap()).contains("sk-secret"));
    }

    #[test]
    fn a_url_without_scheme_is_refused() {
        assert!(Upstream::new("localhost/v1", None).is_err());
        assert!(Upstream::new("ftp://localhost/v1", None).is_err());
    }

    #[test]
    fn context_numbers_are_read_from_the_message() {
        let message = "This model's maximum context length is 8192 tokens. However, you requested \
                       9000 tokens";
        assert_eq!(context_numbers(message), Some((8192, 9000)));
        assert_eq!(context_numbers("too long"), None);
    }
}
